"""``vlbias reproduce``: published experiments, from the official files to their table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from vlbias.cli.application import Application, app
from vlbias.cli.options import FollowLinksOption, SeedOption, tell_problems
from vlbias.cli.outputs import OverwriteOption, claim_folder

reproduce_app = Application(help="Published experiments, one command each.", no_args_is_help=True)
app.add_typer(reproduce_app, name="reproduce")


@reproduce_app.command("fr-nas", epilog="Example: vlbias reproduce fr-nas out/fr-nas --budget tiny")
def fr_nas(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the study and its table.")],
    dataset: Annotated[str, typer.Option(metavar="NAME", help="celeba or vggface2.")] = "celeba",
    data: Annotated[Path | None, typer.Option("--data", metavar="FOLDER", help="The dataset's official files.")] = None,
    budget: Annotated[
        str, typer.Option(metavar="NAME", help="paper, or tiny: all steps on a drawn copy, in minutes.")
    ] = "paper",
    trials: Annotated[int | None, typer.Option(min=1, metavar="N", help="Trials in all; else as published.")] = None,
    refit: Annotated[int, typer.Option(min=0, metavar="N", help="Refits of each candidate.")] = 3,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="cpu, cuda, ...; else CUDA if any.")] = None,
    amp: Annotated[bool, typer.Option("--amp", help="Train backbones in bfloat16.")] = False,
    images_per_second: Annotated[
        float | None, typer.Option(min=0.001, metavar="N", help="What your card trains; the plan then has hours.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would cost, and stop.")] = False,
    seed: SeedOption = 0,
    follow_links: FollowLinksOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """The architecture search of Dooley et al. (2023) on CelebA or VGGFace2, its front beside the published numbers."""
    from vlbias.data import load_dataset
    from vlbias.errors import ConfigError, unknown
    from vlbias.search import protocols

    if dataset not in protocols.PROTOCOLS:
        raise unknown("dataset of fr-nas", dataset, protocols.PROTOCOLS)
    if budget not in ("paper", "tiny"):
        raise unknown("budget", budget, ["paper", "tiny"])
    if (data is None) != (budget == "tiny"):
        raise ConfigError("`--data` is the folder of the official files, for the paper's budget; tiny draws its own.")
    protocol = protocols.PROTOCOLS[dataset]
    protocol = protocols.tiny(protocol) if budget == "tiny" else protocol
    protocol = protocol if trials is None else replace(protocol, n_trials=trials)
    job = {"dataset": dataset, "budget": budget, "seed": seed, "amp": amp, "data": None if data is None else str(data)}
    if not dry_run or budget == "tiny":
        claim_folder(out, "reproduce", job, overwrite=overwrite)
    place = protocols.draw_copy(protocol, out / "data", seed=seed) if data is None else data
    faces = load_dataset(dataset, place, follow_links=follow_links)
    tell_problems(faces.problems)
    faces = protocols.balanced(protocol, faces, seed=seed)
    typer.echo(protocols.plan(protocol, faces, refit=refit, images_per_second=images_per_second))
    if dry_run:
        return
    table = protocols.reproduce(protocol, faces, out, refit=refit, seed=seed, device=device, amp=amp)
    typer.echo(table.round(3).to_string(index=False))
    if protocol.is_tiny:
        typer.echo("note: drawn faces and two epochs; what was measured says nothing about the published numbers.")
    typer.echo(f"Open {out / 'front.png'}; {out / 'comparison.csv'} has the table.")
