"""A search and a refit, started alone or by ``accelerate launch``; writes what the network of the refit learned.

python team_worker.py OUT.pt [amp]
"""

import sys
from dataclasses import replace
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

import torch  # noqa: E402
from tiny_faces import TinyFaces, tiny_space, tiny_table  # noqa: E402

from vlbias.search.study import run  # noqa: E402
from vlbias.search.trainer import TrainSettings  # noqa: E402


def main() -> None:
    torch.set_num_threads(1)
    is_amp = "amp" in sys.argv
    # 14 people of 4 pictures in batches of 19 and 18: two processes have unequal parts.
    space = replace(
        tiny_space(), mitigations=("flipped",), optimizers=("sgd",), learning_rates={"sgd": (0.01, 0.02, 0.01)}
    )
    study = run(
        TinyFaces(tiny_table()), protected="gender", space=space, storage=None,
        image_size=32 if is_amp else 16, n_trials=1,
        fidelity=("epochs", 1, 2), max_error=1.0, sampler="random", eta=None,
        training=TrainSettings(batch_size=16, device="cpu", amp=is_amp), show_progress=False,
    )  # fmt: skip
    candidate = study.candidates()[0]
    trainer = study._recipe.trainer(candidate.configuration, 0, 1)
    start = {f"start of {name}": tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    kinds = set()
    trainer.model.projection.register_forward_hook(lambda module, given, found: kinds.add(found.dtype))
    trainer.advance(1)
    trainer.advance(2)
    states = {**trainer.model.state_dict(), **start, "lead": trainer.mitigation.lead}
    states["in bfloat16"] = torch.tensor(kinds == {torch.bfloat16})
    states["error"] = torch.tensor(candidate.values["error"])
    torch.save(states, sys.argv[1])
    print("the search has ended")


main()
