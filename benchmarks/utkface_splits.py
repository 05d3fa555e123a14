"""Write which photographs of UTKFace stand in which split of the benchmark, by digests of their names.

    python benchmarks/utkface_splits.py UTKFace/ > vlbias/bench/utkface_splits.txt

Test are those that the shipped editor was not trained on (the library's own splits val and test); of the others 15 %,
by the digest, are for validation. Of files with the same bytes one is listed.
"""

import sys

from vlbias.bench.photographs import name_digest
from vlbias.data import load_dataset
from vlbias.data.twins import same_bytes

VALIDATION_SHARE = 0.15


def main() -> None:
    faces = load_dataset("utkface", sys.argv[1])
    again = {name for name, first in same_bytes(faces.root, faces.table["file_name"]).items() if name != first}
    print("# split, and SHA-256 of a photograph's name up to its first dot, ten digits of it")
    for name, split in faces.table.loc[~faces.table["file_name"].isin(again), "split"].items():
        digest = name_digest(str(name))
        is_validation = int(digest, 16) < VALIDATION_SHARE * 16**10
        print("test" if split != "train" else "val" if is_validation else "train", digest)


if __name__ == "__main__":
    main()
