"""How well scorers of your own read a dataset's labelled photographs, beside the editor's, and whom they take for whom.

    python benchmarks/own_scorers.py UTKFace/ --scorer gender=gender-v1.onnx --scorer age_group=age-v1.onnx
        [--editor utkface-64] [--identity face.onnx] [--faces 400]

For every column of --scorer the balanced accuracy of each scorer, calibrated as `vlbias balance` does it: the borders
lie between the medians of the groups on these same faces, so the figures are a little too good for all alike. For
--identity: the median cosine of two strangers of one group, and the shares of strangers, and of faces with their own
mirror image, that would pass as the same face. Photographs of the splits val and test, grown-ups where ages are known.
"""

from __future__ import annotations

import argparse

from vlbias.balance import Checks
from vlbias.balance.fitting import Through, calibrate, network_reading, through_faces, through_tensor
from vlbias.balance.identity import LatentIdentity, fit_scale, resolve_identity
from vlbias.balance.own_scorers import resolve_scorers
from vlbias.balance.poles import resolve_poles
from vlbias.cli.parsing import files_of
from vlbias.data import FaceDataset, open_dataset
from vlbias.editor import Editor
from vlbias.labels import label_text
from vlbias.rendering import Renderer

ADULT = 16  # years; the editors of photographs were taught on adults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--editor", default="utkface-64")
    parser.add_argument("--scorer", action="append", default=[], metavar="COLUMN=FILE")
    parser.add_argument("--identity", metavar="latent|clip|FILE")
    parser.add_argument("--faces", type=int, default=400, help="of each group")
    arguments = parser.parse_args()
    backend = Editor.from_pretrained(arguments.editor).renderer
    faces = open_dataset(arguments.dataset)
    kept = faces.table["split"] != "train"
    faces = faces.select(kept & (faces.table["age"] >= ADULT) if "age" in faces.table else kept)
    files = files_of(arguments.scorer, "--scorer")
    for column in files:
        attribute(backend, faces, column, files, arguments.faces)
    if arguments.identity is not None:
        identity(backend, faces, arguments.identity, next(iter(files), "gender"), arguments.faces)


def drawn(faces: FaceDataset, column: str, most: int) -> tuple[list[str], list[str]]:
    """Up to ``most`` faces of each group, evenly spaced through the table, and their labels."""
    labels = faces.table[column].map(label_text).dropna()
    ids = [item for _, group in labels.groupby(labels) for item in group.index[:: max(1, len(group) // most)][:most]]
    return ids, labels[ids].tolist()


def seen(backend: Renderer, faces: FaceDataset, ids: list[str]) -> tuple:
    """(x_0, z_sem, pictures at any size) of faces."""
    x_0 = faces.tensor(ids, backend.image_size).to(backend.device)
    return x_0, backend.encode(x_0), through_faces(faces, ids, x_0, backend.batch_size)


def attribute(backend: Renderer, faces: FaceDataset, column: str, files: dict[str, str], most: int) -> None:
    """One column: the editor's two scorers and the user's, at full size and at the editor's."""
    network = resolve_scorers(backend, files, files)[column]
    ids, labels = drawn(faces, column, most)
    x_0, z_sem, through = seen(backend, faces, ids)
    poles = resolve_poles(column, set(labels), backend.dipoles)
    scorer = calibrate(backend, column, z_sem, x_0, labels, labels, poles=poles, min_skill=0)
    readings = {"latent probe": scorer.latent, "CLIP": scorer.image}
    small = through_tensor(x_0, backend.batch_size)
    looks: dict[str, Through] = {"": through, f" at {backend.image_size} px": small}
    for words, look in looks.items():
        readings[network.name + words] = network_reading(network, look, labels, backend.layout, column=column)
    print(f"{column}, {len(ids)} faces of {', '.join(sorted(set(labels)))}: balanced accuracy")
    for name, reading in readings.items():
        print(f"  {name:28} {'blind' if reading is None else f'{reading.accuracy:.3f}'}")


def identity(backend: Renderer, faces: FaceDataset, name: str, column: str, most: int) -> None:
    """What the identity scorer makes of strangers, and of faces and their mirror images."""
    ids, labels = drawn(faces, column, most)
    _, z_sem, through = seen(backend, faces, ids)
    latent = LatentIdentity.fit(backend.normalize(z_sem), [labels])
    scale = fit_scale(backend, resolve_identity(backend, name), latent, through, labels, least=Checks().identity)
    print(f"identity by {name}, {len(ids)} faces, a pair passes from {Checks().identity} on:")
    for fact, value in scale.summary().items():
        print(f"  {fact:28} {value}")


if __name__ == "__main__":
    main()
