"""``vlbias reproduce``: published experiments, from the official files to their table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from vlbias.cli.application import Application, app
from vlbias.cli.options import AmpOption, DeviceOption, FollowLinksOption, SeedOption, tell_problems
from vlbias.cli.outputs import OverwriteOption, claim_folder
from vlbias.errors import ConfigError, unknown

reproduce_app = Application(help="Published experiments, one command each.", no_args_is_help=True)
app.add_typer(reproduce_app, name="reproduce")

P = TypeVar("P")


BudgetOption = Annotated[
    str, typer.Option("--budget", metavar="NAME", help="paper, or tiny: all steps on a drawn copy, in minutes.")
]
DataOption = Annotated[Path | None, typer.Option("--data", metavar="FOLDER", help="The dataset's official files.")]
SpeedOption = Annotated[
    float | None,
    typer.Option("--images-per-second", min=0.001, metavar="N", help="How fast your card trains, to plan the hours."),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what it would cost, and stop.")]


def _protocol(
    name: str, known: Mapping[str, P], tiny: Callable[[P], P], asked: tuple[str, str], data: Path | None
) -> P:
    """The protocol of a (dataset, budget); what there is not is refused before anything is made."""
    dataset, budget = asked
    if dataset not in known:
        raise unknown(f"dataset of {name}", dataset, known)
    if budget not in ("paper", "tiny"):
        raise unknown("budget", budget, ["paper", "tiny"])
    if (data is None) != (budget == "tiny"):
        raise ConfigError("`--data` is the folder of the official files, for the paper's budget; tiny draws its own.")
    return tiny(known[dataset]) if budget == "tiny" else known[dataset]


@reproduce_app.command("fr-nas", epilog="Example: vlbias reproduce fr-nas out/fr-nas --budget tiny")
def fr_nas(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the study and its table.")],
    dataset: Annotated[str, typer.Option(metavar="NAME", help="celeba or vggface2.")] = "celeba",
    data: DataOption = None,
    budget: BudgetOption = "paper",
    trials: Annotated[int | None, typer.Option(min=1, metavar="N", help="Trials in all; else as published.")] = None,
    refit: Annotated[int, typer.Option(min=0, metavar="N", help="Refits of each candidate.")] = 3,
    device: DeviceOption = None,
    amp: AmpOption = False,
    images_per_second: SpeedOption = None,
    dry_run: DryRunOption = False,
    seed: SeedOption = 0,
    follow_links: FollowLinksOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """The architecture search of Dooley et al. (2023) on CelebA or VGGFace2, its front beside the published numbers."""
    from vlbias.data import load_dataset
    from vlbias.search import protocols

    protocol = _protocol("fr-nas", protocols.PROTOCOLS, protocols.tiny, (dataset, budget), data)
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
    _tell_result(out, protocol.is_tiny, "front.png")


@reproduce_app.command("fer", epilog="Example: vlbias reproduce fer out/fer --budget tiny")
def fer(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the simulation and its table.")],
    dataset: Annotated[str, typer.Option(metavar="NAME", help="cafe (posed) or affectnet (varied).")] = "cafe",
    data: DataOption = None,
    groups: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV with file_name and race; AffectNet does not say it.")
    ] = None,
    label_noise: Annotated[
        Path | None, typer.Option(metavar="FILE", help="How those races err: labelling.json or a confusion matrix.")
    ] = None,
    budget: BudgetOption = "paper",
    repeats: Annotated[int | None, typer.Option(min=1, metavar="N", help="Draws of each composition; else 5.")] = None,
    device: DeviceOption = None,
    amp: AmpOption = False,
    images_per_second: SpeedOption = None,
    dry_run: DryRunOption = False,
    seed: SeedOption = 0,
    follow_links: FollowLinksOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """The racial compositions of Fan, Xiao and Washington (2023) on CAFE or AffectNet, beside the published gains."""
    from vlbias.data import load_dataset
    from vlbias.data.metadata import read_metadata
    from vlbias.simulate import LabelNoise, protocols

    protocol = _protocol("fer", protocols.PROTOCOLS, protocols.tiny, (dataset, budget), data)
    protocol = protocol if repeats is None else replace(protocol, repeats=repeats)
    noise = None if label_noise is None else LabelNoise.load(label_noise, column=protocols.PROTECTED)
    job = {"dataset": dataset, "budget": budget, "seed": seed, "data": None if data is None else str(data)}
    if not dry_run or budget == "tiny":
        claim_folder(out, "reproduce", job, overwrite=overwrite)
    place = protocols.draw_copy(protocol, out / "data", seed=seed) if data is None else data
    if groups is None and (place / "groups.csv").is_file():
        groups = place / "groups.csv"
    faces = load_dataset(dataset, place, follow_links=follow_links)
    tell_problems(faces.problems)
    faces = protocols.prepared(protocol, faces, None if groups is None else read_metadata(groups))
    plan = protocols.make_plan(protocol, faces, seed=seed, noise=noise)
    typer.echo(protocols.describe(protocol, plan, images_per_second=images_per_second))
    if dry_run:
        return
    table = protocols.reproduce(protocol, faces, plan, out, device=device, amp=amp)
    typer.echo(table.round(3).to_string(index=False))
    _tell_result(out, protocol.is_tiny, "curves.png")


def _tell_result(out: Path, is_tiny: bool, figure: str) -> None:
    if is_tiny:
        typer.echo("note: drawn faces, hardly trained; what was measured says nothing about the published numbers.")
    typer.echo(f"Open {out / figure}; {out / 'comparison.csv'} has the table.")
