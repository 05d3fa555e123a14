"""How the fuzz benchmark changes a file: by its bytes, or by what its format means, to come behind the headers.

Every function takes content and a NumPy generator and gives new content; the same generator gives the same bytes.
"""

from __future__ import annotations

import gzip
import io
import json
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Change = Callable[[bytes, np.random.Generator], bytes]

#: Stands in JSON for a list that is nested deeper than a parser may recurse.
_DEEP = "@deep@"
#: Characters that copies of a line may have together: a changed file is no file of gigabytes.
_MAX_COPIED = 50_000_000
_NUMBERS = (0, 1, -1, 2, 3, 255, 4097, 2**31 - 1, 2**31, 2**32, 2**63, 10**9, 10**400, 0.5, -0.5, 1e-300, 1e308)
_TEXTS = ("", " ", "x" * 100_000, "../../x", "/etc/passwd", "\0", "\ud800", "$$", "é\u202e", "1e999", "[" * 1000)
_CELLS = (*_TEXTS[:5], "\0", '"', '""', "\r", ",", "1" * 5000, "1e999", "nan", "-0", "9" * 400, "\u2028", "a\nb")
_OPCODES = (b"0", b"2", b"(", b"t", b"l", b"d", b"R", b"b", b"\x81", b"Q", b"}", b"]", b")", b"N", b"\x94", b"s", b"a")


def changed(name: str, content: bytes, rng: np.random.Generator) -> bytes:
    """A file's content, changed once or more as its name says it is made; three of ten times by its bytes alone."""
    change = _OF_SUFFIX.get(Path(name).suffix)
    if change is None or rng.random() < 0.3:
        return damaged(content, rng)
    try:
        return change(content, rng)
    except (ValueError, LookupError, RecursionError):  # a change before this one broke its form
        return damaged(content, rng)


def _pick(rng: np.random.Generator, choices: Any) -> Any:
    return choices[int(rng.integers(len(choices)))]


# -- bytes ------------------------------------------------------------------------------------------------------------


def _place(size: int, rng: np.random.Generator) -> int:
    """A position; headers and footers are met more often than what lies between them."""
    where = rng.integers(3)
    low, high = ((0, min(size, 256)), (max(size - 512, 0), size), (0, size))[where]
    return int(rng.integers(low, high)) if high > low else 0


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """One to four bytes, numbers or pieces are replaced, taken out, doubled or cut off."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        at = _place(len(data), rng)
        length = int(2 ** rng.uniform(0, 8))
        match rng.integers(7):
            case 0 if data:
                data[at] ^= 1 << int(rng.integers(8))
            case 1 if data:
                data[at] = int(rng.integers(256))
            case 2:
                number = int(_pick(rng, (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF, 65_000, 10**9)))
                data[at : at + 4] = struct.pack(_pick(rng, "<>") + "I", number)
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = data[at : at + length] * int(_pick(rng, (1, 2, 1000)))
            case 5:
                data[at:at] = rng.bytes(length)
            case 6:
                del data[at:]
    return bytes(data)


# -- JSON -------------------------------------------------------------------------------------------------------------


def _nasty(rng: np.random.Generator) -> Any:
    match rng.integers(5):
        case 0 | 1:
            return _pick(rng, _NUMBERS)
        case 2:
            return _pick(rng, _TEXTS)
        case 3:
            return _pick(rng, (None, True, False, [], {}, [[]], {"a": 1}, [0] * 100_000, float("nan"), float("inf")))
        case _:
            return _pick(rng, (_DEEP, [10**9] * 2, [1] * 2000, [-1], ["a", "a"], {"": None}))


def _holders(value: Any) -> list[Any]:
    """The value with every list and object inside it."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value, *(found for entry in inner if isinstance(entry, dict | list) for found in _holders(entry))]


def _change_value(value: Any, rng: np.random.Generator) -> Any:
    holders = [holder for holder in _holders(value) if holder] if isinstance(value, dict | list) else []
    if not holders or rng.random() < 0.02:
        return _nasty(rng)
    holder = _pick(rng, holders)
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    key = _pick(rng, keys)
    match rng.integers(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder[key], int | float):
            holder[key] = holder[key] * int(_pick(rng, (-1, 2, 16, 1000, 10**6)))
        case 2:
            other = _pick(rng, keys)
            holder[key], holder[other] = holder[other], holder[key]
        case 3 if isinstance(holder, dict):
            holder[str(_pick(rng, (*_TEXTS[:4], "class", "__class__", "self")))] = _nasty(rng)
        case _:
            holder[key] = _nasty(rng)
    return value


def change_json(content: bytes, rng: np.random.Generator) -> bytes:
    """Values of a JSON document are replaced, scaled, taken out or doubled."""
    value = json.loads(content)
    for _ in range(rng.integers(1, 4)):
        value = _change_value(value, rng)
    text = json.dumps(value).replace(f'"{_DEEP}"', "[" * 100_000 + "]" * 100_000)
    if isinstance(value, dict) and value and rng.random() < 0.05:
        text = "{" + f"{json.dumps(_pick(rng, list(value)))}: 1, " + text[1:]  # a key twice
    return text.encode("utf-8", "surrogatepass")


# -- tables -----------------------------------------------------------------------------------------------------------


def change_lines(content: bytes, rng: np.random.Generator) -> bytes:
    """Lines of a text are doubled, taken out, lengthened, or get other cells."""
    lines = content.decode().split("\n")
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(lines)))
        match rng.integers(7):
            case 0:
                del lines[at]
                lines = lines or [""]
            case 1:
                copies = int(_pick(rng, (1, 1, 10_000)))
                lines[at:at] = [lines[at]] * min(copies, _MAX_COPIED // (len(lines[at]) + 1))
            case 2:
                lines[at] += _pick(rng, (",", ",x", " x", "\0", "y" * 1_000_000, "," * 100_000))
            case 3 if lines[at].startswith("{"):
                lines[at] = change_json(lines[at].encode(), rng).decode("utf-8", "replace")
            case _:
                mark = "," if "," in lines[at] else " "
                cells = lines[at].split(mark)
                cells[int(rng.integers(len(cells)))] = str(_pick(rng, _CELLS))
                lines[at] = mark.join(cells)
    return "\n".join(lines).encode("utf-8", "replace")


# -- archives of torch, safetensors, gzip, PNG ------------------------------------------------------------------------


def change_pickle(program: bytes, rng: np.random.Generator) -> bytes:
    """Instructions are doubled, taken out, swapped, or get other numbers and names."""
    starts = [(at, argument) for _, argument, at in pickletools.genops(program) if at is not None]
    ends = [at for at, _ in starts[1:]] + [len(program)]
    parts = [(program[at:end], argument) for (at, argument), end in zip(starts, ends, strict=True)]
    for _ in range(rng.integers(1, 6)):
        at = int(rng.integers(len(parts)))
        part, argument = parts[at]
        match rng.integers(7):
            case 0:
                del parts[at]
            case 1:
                parts[at:at] = parts[at : at + int(rng.integers(1, 8))] * int(_pick(rng, (1, 2, 20_000)))
            case 2:
                other = int(rng.integers(len(parts)))
                parts[at], parts[other] = parts[other], parts[at]
            case 3:
                parts.insert(at, (_pick(rng, _OPCODES), None))
            case 4 if isinstance(argument, str) and part[:1] == b"c":
                parts[at] = (_pick(rng, (b"cposix\nsystem\n", b"cbuiltins\neval\n", b"ctorch\nSize\n")), None)
            case _ if isinstance(argument, int) and part[:1] in b"KMJ\x8a":
                number = int(_pick(rng, (0, 1, -1, 2, 16, 2**31, 2**40, 2**62, argument + 1, argument * 1000)))
                parts[at] = (b"\x8a\x09" + number.to_bytes(9, "little", signed=True), number)
        parts = parts or [(b".", None)]
    return b"".join(part for part, _ in parts)[: 16 * 2**20]


def change_archive(content: bytes, rng: np.random.Generator) -> bytes:
    """The pickle of a torch file is changed, or the values of a tensor; or an entry is compressed or left out."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    pickle = next(name for name in entries if name.endswith("data.pkl"))
    compression = zipfile.ZIP_STORED
    match rng.integers(8):
        case 0:
            name = _pick(rng, list(entries))
            entries[name] = damaged(entries[name], rng)
        case 1:
            del entries[_pick(rng, list(entries))]
        case 2:
            compression = zipfile.ZIP_DEFLATED
        case _:
            entries[pickle] = change_pickle(entries[pickle], rng)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return out.getvalue()


def change_safetensors(content: bytes, rng: np.random.Generator) -> bytes:
    """The header is changed: names, shapes, kinds of numbers, places."""
    length = int.from_bytes(content[:8], "little")
    header = change_json(content[8 : 8 + length], rng)
    stated = len(header) if rng.random() < 0.9 else int(_pick(rng, (0, 2**20, 2**40, 2**63, length)))
    return struct.pack("<Q", stated) + header + content[8 + length :]


def change_gzip(content: bytes, rng: np.random.Generator) -> bytes:
    """What is compressed is changed."""
    return gzip.compress(change_lines(gzip.decompress(content), rng), mtime=0)


def change_png(content: bytes, rng: np.random.Generator) -> bytes:
    """Chunks are changed, doubled or moved, and their checksums are right."""
    chunks, at = [], 8
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    for _ in range(rng.integers(1, 3)):
        i = int(rng.integers(len(chunks)))
        kind, data = chunks[i]
        match rng.integers(5):
            case 0:
                chunks.insert(int(rng.integers(len(chunks))), chunks[i])
            case 1:
                kinds = (b"tRNS", b"PLTE", b"iCCP", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"zTXt", b"iTXt", b"gAMA")
                chunks.insert(i, (_pick(rng, kinds), rng.bytes(int(rng.integers(64)))))
            case 2 if len(chunks) > 1:
                del chunks[i]
            case _:
                chunks[i] = (kind, damaged(data, rng))
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return content[:8] + b"".join(parts)


_OF_SUFFIX: dict[str, Change] = {
    ".json": change_json,
    ".csv": change_lines,
    ".txt": change_lines,
    ".idx": change_lines,
    ".jsonl": change_lines,
    ".log": change_lines,
    ".bin": change_pickle,
    ".ckpt": change_archive,
    ".pt": change_archive,
    ".safetensors": change_safetensors,
    ".gz": change_gzip,
    ".png": change_png,
}
