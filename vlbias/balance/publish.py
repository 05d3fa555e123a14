"""A finished run sent to the Hugging Face hub, as the dataset that it is."""

from __future__ import annotations

from pathlib import Path

from vlbias.arguments import checked_call
from vlbias.balance.review import REVIEW_FILE
from vlbias.balance.run_folder import STATE, verify_run
from vlbias.data.metadata import read_metadata
from vlbias.errors import ConfigError, OutputError
from vlbias.files import AnyPath, read_object
from vlbias.hub import check_hub_name, push_folder

__all__ = ["push_dataset"]


@checked_call
def push_dataset(out_dir: AnyPath, name: str, *, private: bool = True, show_names: bool = False) -> str:
    """Send a finished run to the hub; ``datasets.load_dataset(name)`` reads it there.

    What the run keeps for itself (``.state``) and who reviewed it (``review.csv``) stay here.

    Args:
        out_dir: the output folder of a balance run.
        name: ``"user/name"``; made if it is not there. Log in with ``hf auth login`` first, or set ``HF_TOKEN``.
        private: whether a repository that is made shows itself to its owner alone. Faces are personal data: ask for the
            terms of the pictures that the set was made from before you show it to others.
        show_names: whether the files of real donors may say there what they were called here.

    Returns:
        The address of the repository.

    Raises:
        ConfigError: ``name`` is not ``user/name``, or the pictures have the names of their donors' files.
        OutputError: no finished run is there, its files have changed, or its originals are links.
        CheckpointError: the hub cannot be reached, or refuses.
    """
    out = Path(out_dir)
    check_hub_name(name)
    if problems := verify_run(out):
        raise OutputError(f"{out} is not what was written: {problems[0]}. Run the same command again first.")
    pseudonymised = read_object(out / "report.json").get("pseudonymised", False)
    donors = read_metadata(out / "metadata.csv")["source_id"].astype(str)
    if not (show_names or pseudonymised or donors.str.fullmatch(r"sample-\d+").all()):
        raise ConfigError(
            f"{out} says what the files of its donors are called (such as {donors.iloc[0]}). Make it with "
            "pseudonymise=True (--pseudonymise), or pass show_names=True if they may be known."
        )
    hidden = [f"{STATE}/**", REVIEW_FILE]
    return push_folder(out, name, kind="dataset", private=private, left_out=hidden, replaced=["*"])
