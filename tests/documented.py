"""What pages tell people to type, and what runs in its place where that would take hours or what is not here.

Every block of a page is run as it stands, but for what ``PAGES`` says of it. A new block runs; an entry that nothing
on its page matches any more fails a test. Commands take ``SMALLER`` as well.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import typer

from vlbias.cli import app

BLOCK = re.compile(r"^```(bash|text|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)

#: Command => options that every run of it takes on top; of an option that is given twice, the last one counts.
SMALLER = {
    "balance": "--limit 2 --pilot 1 --leak-sizes 64",
    "audit": "--steps 2 --seeds 1",
    "learn": "--steps 1 --limit 24",
}
#: In every command: a smaller dataset, and the editor that knows drawn faces.
IN_COMMANDS = {
    r"synthfaces:\d+": "synthfaces:60",
    r"(vlbias paths .*)synthfaces:60": r"\1synthfaces:12",
    r"--test synthfaces:60": "--test synthfaces:300",
    r" --editor utkface-64": "",
}

#: Programs that a page may call beside `vlbias`: what is checked of them, or why nothing is.
OTHERS = {
    "make": "targets stand in the Makefile",
    "pip": "extras stand in setup.cfg",
    "python": "files are there",
    "echo": "tests/networks/test_networks_docs.py",
    "ray": "a cluster",
    "sbatch": "a cluster",
    "run=": "a cluster",
}


@dataclass(frozen=True)
class Page:
    """How the blocks of one page are run.

    Attributes:
        before: Python that makes what the page takes for granted, in the empty folder where its blocks run. There are
            `faces`, `editor` and `repository`; folders that the page names (photos/, UTKFace/, ...) are made for it.
        small: a text in blocks => what stands there when they run.
        left: how a command, a line of Python, or a whole block begins => why it is not run: a test that does so, or a
            reason. Commands are still parsed, and Python is compiled.
    """

    before: str = ""
    small: Mapping[str, str] = field(default_factory=dict)
    left: Mapping[str, str] = field(default_factory=dict)


OWN_COLUMNS = "tests/cli/test_cli_own_columns.py"
TINY_STUDIES = 'kind = {"image_size": 32, "num_steps": 2, "min_cell": 1}\n'

PAGES = {
    "README.md": Page(
        small={"n=200": "n=60", "limit=8": "limit=2", "edit-000003": "edit-000000"},
        left={"vlbias convert": "tests/diffae/test_diffae_published.py", "vlbias app": "tests/app/test_app_cli.py"},
    ),
    "docs/index.md": Page(left={"vlbias demo": "minutes; the walkthrough does the same"}),
    "docs/app.md": Page(left={"vlbias app": "tests/app/test_app_cli.py"}),
    "docs/arms.md": Page(
        small={
            'arms="all", seeds=3, cache="fits/"': 'arms=["erm", "edits"], seeds=1, cache="fits/", tune=False, **kind',
            'arms=["erm", "rarest-often"])': 'arms=["erm", "rarest-often"], seeds=1, **kind)',
            "erm,oversample,reweight,edits": "erm,edits --no-tune",
        },
        before=TINY_STUDIES
        + """
from vlbias.classify import fit
x, y = faces.tensor(faces.ids[:16], 32), faces.table["smile"][:16]
fit(x, y, num_steps=1, image_size=32).save_pretrained("classifier")
""",
    ),
    "docs/attributes.md": Page(before="from vlbias.attributes import Attribute"),
    "docs/backends.md": Page(left={"python examples/other_generator.py": "tests/test_other_generator.py"}),
    "docs/balance.md": Page(
        before="""
from typer.testing import CliRunner
from vlbias import Balancer, load_dataset
from vlbias.cli import app
from vlbias.data import align_dataset
words = "balance synthfaces:60 out/cli --target smile --protected skin --limit 2 --pilot 1 --leak-sizes 64"
assert CliRunner().invoke(app, words.split()).exit_code == 0
""",
        small={
            "balancer.plan(faces)            #": "balancer.plan(faces, limit=2)  #",
            'balancer.plan(faces), "out/whole")': 'balancer.plan(faces, limit=2), "out/python")',
            "edit-000012": "edit-000000",
            "vlbias review out/balanced": "vlbias review out/cli",
            "synthfaces:1000 out/balanced": "synthfaces:1000 out/cli",
        },
        left={
            "vlbias balance photos/ out/older": OWN_COLUMNS,
            "vlbias balance photos/ out/short": OWN_COLUMNS,
            "vlbias balance photos/ out/band": OWN_COLUMNS,
            "vlbias balance photos/ out/target": OWN_COLUMNS,
            "vlbias balance photos/ out/both": OWN_COLUMNS,
            "vlbias balance photos/ out/mean": OWN_COLUMNS,
            "vlbias balance photos/ out/number": OWN_COLUMNS,
            "vlbias balance photos/ out/shares": OWN_COLUMNS,
            "vlbias balance photos/ out/splits": OWN_COLUMNS,
            "vlbias balance photos/ out/checks": OWN_COLUMNS,
            "vlbias balance UTKFace/": "tests/balance/test_balance_own_scorers.py",
            "import dlib": "dlib and its weights are not here",
        },
    ),
    "docs/bench.md": Page(
        left={"vlbias bench": "tests/bench/test_bench_run.py", "from vlbias.bench": "tests/bench/test_bench_run.py"}
    ),
    "docs/clip.md": Page(
        before="""
from vlbias import clip
clip.load("synthfaces-64").save_pretrained("my-clip")
x, images_uint8 = faces.tensor(faces.ids[:4], 64), ((faces.tensor(faces.ids, 64) + 1) * 127).byte()
""",
        small={"num_images=32_000": "num_images=64, text_steps=2"},
        left={'reader = clip.load("ViT-B-32"': "weights that somebody must fetch"},
    ),
    "docs/data.md": Page(
        small={"n=200": "n=60", '"ffhq256/last.ckpt", paths="paths/"': '"synthfaces-64"'},
    ),
    "docs/datasets.md": Page(
        before="from vlbias import load_dataset",
        small={'load_dataset("celeba", "celeba/"), "Male"': 'load_dataset("identities", "people/"), "gender"'},
    ),
    "docs/diffae.md": Page(
        before="""
import torch
from vlbias.diffae import PriorTrainingSettings
x_0, noise = faces.tensor(faces.ids[:2], 64), torch.randn(2, 256)
images = ((faces.tensor(faces.ids[:16], 64) + 1) * 127).byte()
few, features = images[:4], torch.rand(16, 2)
""",
        small={
            '"checkpoints/': 'f"{repository}/checkpoints/',
            "max_minutes=90": "max_images=8, batch_size=4, device='cpu'",
            "num_steps=20": "num_steps=2",
            " quick-faces  ": " quick-faces --steps 1  ",
            "UTKFace/ utkface-128": "UTKFace/ utkface-128 --images 16",
            "train_prior(model, z_sem)": "train_prior(model, z_sem, PriorTrainingSettings(num_steps=2))",
        },
    ),
    "docs/fairness.md": Page(),
    "docs/hub.md": Page(
        before="""
from vlbias import Balancer
editor.save_pretrained("my-editor")
balancer = Balancer(editor, target="smile", protected="skin", pseudonymise=True)
balancer.run(faces, balancer.plan(faces, limit=2), "out/balanced", show_progress=False)
""",
        left={"vlbias ": "tests/test_hub.py"},
    ),
    "docs/labelling.md": Page(
        small={'clip.load("ViT-B-32", pretrained="openai")': 'clip.load("synthfaces-64")'},
    ),
    "docs/leak.md": Page(before="import pandas", small={'target="gender"': 'target="smile"'}),
    "docs/own_dataset.md": Page(),
    "docs/paths.md": Page(
        before="""
import torch
from vlbias.paths import Dipole
clip, diffae = editor.renderer.clip, editor.renderer.diffae
images = faces.tensor(faces.ids[:24], 64)
z_sem, strengths, unseen_images = editor.encode(images[:2]).z_sem, torch.tensor([0.5, -0.5]), images[:2]
known = iter([editor.dipoles[name] for name in ("skin_tone", "smile", "glasses", "gender")])
""",
        small={
            "Dipole(...)": "next(known)",
            "probes=probes)": "probes=probes, settings=PathTrainingSettings(steps=1, calibration_faces=4))",
        },
    ),
    "docs/provenance.md": Page(
        before="""
from typer.testing import CliRunner
from vlbias.cli import app
assert CliRunner().invoke(app, ["edit", "face.png", "out", "--age", ".3"]).exit_code == 0
""",
        left={"vlbias provenance out/ --sign": "tests/test_provenance.py"},
    ),
    "docs/scale.md": Page(
        left={
            "vlbias balance photos/ out/balanced": "tests/engine/test_engine_local.py",
            "vlbias balance /shared": "a cluster",
            "vlbias search": "tests/test_postgres.py",
            "vlbias simulate": "tests/test_postgres.py",
        }
    ),
    "docs/search.md": Page(
        before="""
import torch
model = torch.nn.Flatten()
""",
        small={
            "drawn_people(2400)": "drawn_people(160)",
            "max_error=.5)": "max_error=1.0, image_size=32, seed=0, show_progress=False)",
            "n_trials=40": "n_trials=2",
            '("epochs", 1, 9)': '("epochs", 1, 1)',
            "refit=3": "refit=1",
            "max_error=.2": "max_error=1.0",
        },
        left={
            "vlbias reproduce": "tests/search/test_search_protocols.py",
            "vlbias search evaluate": "tests/search/test_search_verification.py",
            "vlbias search transfer": "tests/search/test_search_transfer.py",
        },
    ),
    "docs/simulate.md": Page(
        before='root = "UTKFace/"',
        small={
            "shares=[0, .1, .2, .3], repeats=5": "shares=[0, .1], repeats=1",
            'storage="sim.log")': 'storage="sim.log", num_steps=2, image_size=32)',
        },
        left={
            "vlbias reproduce": "tests/simulate/test_simulate_protocols.py",
            "from vlbias.labelling": "tests/simulate/test_simulate_noise.py",
        },
    ),
    "docs/world.md": Page(small={"sample(1000": "sample(50", "identities(500": "identities(5"}),
    "checkpoints/README.md": Page(left={"vlbias train editor": "tests/test_recipes.py"}),
    "CONTRIBUTING.md": Page(left={"python benchmarks/compare.py": "it measures"}),
    "notebooks/walkthrough.ipynb": Page(
        before="from vlbias import Editor",
        left={
            "vlbias convert": "tests/diffae/test_diffae_published.py",
            "vlbias edit face.png out/ --editor ffhq128/": "weights that somebody must fetch",
        },
        small={'"utkface-64"': '"synthfaces-64"'},
    ),
    "notebooks/audit_only.ipynb": Page(),
}
#: A test of its own looks at what these pages leave.
ELSEWHERE = {"docs/first_steps.md": "tests/test_first_steps.py"}


class Block(NamedTuple):
    """One block of a page."""

    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Lines of a shell; what goes on in the next line is one."""
        lines, open_quote = [], ""
        for line in self.text.replace("\\\n", " ").splitlines():
            open_quote += line
            try:
                if shlex.split(open_quote, comments=True):
                    lines.append(open_quote.strip())
                open_quote = ""
            except ValueError:  # a quotation goes on in the next line
                open_quote += "\n"
        return lines


def text_of(path: Path) -> str:
    """A page; of a notebook, what stands between its cells."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def blocks_of(path: Path) -> Iterator[Block]:
    """Blocks of commands and of Python, in their order."""
    for found in BLOCK.finditer(text_of(path)):
        yield Block("bash" if found[1] == "text" else found[1], found[2])


def pages_with_blocks(repository: Path) -> list[str]:
    """Every page that tells people to type something."""
    patterns = ("*.md", "docs/**/*.md", "checkpoints/*.md", "notebooks/*.ipynb")
    found = {path for pattern in patterns for path in repository.glob(pattern)}
    return sorted(path.relative_to(repository).as_posix() for path in found if list(blocks_of(path)))


def check_parsed(words: list[str]) -> None:
    """Parse and convert every word of a command as a run would; nothing is run."""
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        num = 2 if " ".join(words[:2]) in command.commands else 1  # "search evaluate" is one name
        assert " ".join(words[:num]) in command.commands, " ".join(words)
        command, words = command.commands[" ".join(words[:num])], words[num:]
    context = command.make_context(command.name, list(words), resilient_parsing="--help" in words)
    assert [word for word in context.args if word.startswith("--") and command.name != "edit"] == []
