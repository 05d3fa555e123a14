"""Pictures without what cameras and programs wrote into their files, the pixels untouched bit by bit.

Place, time, owner, serial number, comments, thumbnails, a second picture behind the first: a file says more than it
shows. What is needed to show it (tables, colour profile, how it was held) stays, and so does what says that a picture
is synthetic.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator

__all__ = ["without_private"]

_PNG = b"\x89PNG\r\n\x1a\n"
#: Chunks of a PNG that decide what is seen; see the PNG specification, third edition, table 1.
_PNG_KEPT = frozenset(
    b"IHDR PLTE IDAT IEND tRNS cHRM cICP gAMA iCCP mDCV cLLI sBIT sRGB bKGD hIST pHYs acTL fcTL fdAT".split()
)
#: Segments of a JPEG without which it is not seen: frames, tables, scans, intervals. The Adobe one says how colours are
#: coded, in twelve bytes.
_JPEG_KEPT = frozenset({*range(0xC0, 0xD0), 0xDA, 0xDB, 0xDC, 0xDD}) - {0xC8}
_ADOBE_BYTES = 12
#: Chunks of a WebP likewise (WebP container specification).
_WEBP_KEPT = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"))
_WEBP_EXIF, _WEBP_XMP = 0x08, 0x04


def without_private(
    data: bytes, *, orientation: int = 1, provenance: bytes | None = None, xmp: bytes = b""
) -> bytes | None:
    """A JPEG, PNG or WebP file without private metadata; its pixels are the same to the last bit.

    Args:
        data: the file.
        orientation: how the picture was held, EXIF 1..8; written anew where it is not 1.
        provenance: JSON of how the picture was made, which stays; ``None`` for a photograph.
        xmp: a packet that says that the picture is synthetic; empty for a photograph.

    Returns:
        The file, or ``None`` for another format or one that is damaged: write that one anew.
    """
    try:
        if data.startswith(b"\xff\xd8"):
            return b"".join(_jpeg(data, orientation, provenance, xmp))
        if data.startswith(_PNG):
            return b"".join(_png(data, orientation, provenance, xmp))
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data, orientation, provenance, xmp)
    except (struct.error, IndexError, ValueError):
        return None
    return None


def _exif(orientation: int, description: bytes = b"") -> bytes:
    """A TIFF header with an orientation, and a description if there is one, and nothing else."""
    entries = []
    if description:
        text = description + b"\0"
        place = 8 + 2 + 2 * 12 + 4
        # up to four bytes stand in the entry itself
        value = text.ljust(4, b"\0") if len(text) <= 4 else struct.pack("<I", place)
        entries.append(struct.pack("<HHI", 0x010E, 2, len(text)) + value)
    entries.append(struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0))
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + struct.pack("<I", 0)
    return head + (description + b"\0" if len(description) > 3 else b"")


# -- JPEG -------------------------------------------------------------------------------------------------------------


def _jpeg(data: bytes, orientation: int, provenance: bytes | None, xmp: bytes) -> Iterator[bytes]:
    yield b"\xff\xd8"
    if orientation != 1:
        yield _segment(0xE1, b"Exif\0\0" + _exif(orientation))
    if provenance:
        yield _segment(0xFE, provenance)
    if xmp:
        yield _segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp)
    place = 2
    while True:
        if data[place] != 0xFF:
            raise ValueError("no marker where one belongs")
        marker = data[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        if marker == 0xD9:
            yield b"\xff\xd9"  # whatever stands behind the picture is left out
            return
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:
            raise ValueError("a marker without content between segments")
        end = place + 2 + struct.unpack_from(">H", data, place + 2)[0]
        if end > len(data) or end < place + 4:
            raise ValueError("a segment that is cut off")
        body = data[place + 4 : end]
        if _is_kept(marker, body):
            yield _segment(marker, _bare(marker, body))
        place = end
        if marker == 0xDA:
            end = _end_of_scan(data, place)
            yield data[place:end]
            place = end


def _is_kept(marker: int, body: bytes) -> bool:
    if marker == 0xE0:
        return body.startswith(b"JFIF\0") and len(body) >= 14
    if marker == 0xE2:
        return body.startswith(b"ICC_PROFILE\0")
    if marker == 0xEE:
        return body.startswith(b"Adobe") and len(body) >= _ADOBE_BYTES
    return marker in _JPEG_KEPT


def _bare(marker: int, body: bytes) -> bytes:
    """A segment without a thumbnail, or what stands behind its last field."""
    if marker == 0xE0:
        return body[:12] + b"\0\0"
    return body[:_ADOBE_BYTES] if marker == 0xEE else body


def _segment(marker: int, body: bytes) -> bytes:
    if len(body) > 0xFFFD:
        raise ValueError("too long for a segment")
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _end_of_scan(data: bytes, place: int) -> int:
    """Where coded data ends: at the next marker that is no restart and no stuffed byte."""
    while True:
        place = data.index(0xFF, place)
        if data[place + 1] != 0 and not 0xD0 <= data[place + 1] <= 0xD7:
            return place
        place += 2


# -- PNG --------------------------------------------------------------------------------------------------------------


def _png(data: bytes, orientation: int, provenance: bytes | None, xmp: bytes) -> Iterator[bytes]:
    yield _PNG
    place = len(_PNG)
    while True:
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):
            raise ValueError("a chunk that is cut off")
        if kind == b"iCCP":  # begins with a name that somebody gave the profile
            yield _chunk(kind, b"profile" + data[data.index(b"\0", place + 8, end - 4) : end - 4])
        elif kind in _PNG_KEPT:
            yield data[place:end]
        if kind == b"IHDR":
            if orientation != 1:
                yield _chunk(b"eXIf", _exif(orientation))
            if xmp:
                yield _text("XML:com.adobe.xmp", xmp)
            yield from _png_texts(provenance)
        if kind == b"IEND":
            return
        place = end


def _png_texts(provenance: bytes | None) -> Iterator[bytes]:
    for key, value in sorted(json.loads(provenance).items()) if provenance else ():
        yield _text(key, str(value).encode())


def _text(key: str, value: bytes) -> bytes:
    return _chunk(b"iTXt", key.encode("latin-1") + b"\0\0\0\0\0" + value)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


# -- WebP -------------------------------------------------------------------------------------------------------------


def _webp(data: bytes, orientation: int, provenance: bytes | None, xmp: bytes) -> bytes:
    size = struct.unpack_from("<I", data, 4)[0]
    if size + 8 > len(data):
        raise ValueError("cut off")
    kept, place, has_header = [], 12, False
    while place + 8 <= size + 8:
        kind, length = struct.unpack_from("<4sI", data, place)
        end = place + 8 + length + length % 2
        if end > size + 8 + (length % 2):
            raise ValueError("a chunk that is cut off")
        if kind in _WEBP_KEPT:
            chunk = data[place:end]
            if kind == b"VP8X":
                has_header = True
                flags = chunk[8] & ~(_WEBP_EXIF | _WEBP_XMP)
                flags |= (_WEBP_EXIF if orientation != 1 or provenance else 0) | (_WEBP_XMP if xmp else 0)
                chunk = chunk[:8] + bytes([flags]) + chunk[9:]
            kept.append(chunk)
        place = end
    if orientation != 1 or provenance:
        if not has_header:
            raise ValueError("no room for EXIF without an extended header")
        kept.append(_webp_chunk(b"EXIF", _exif(orientation, provenance or b"")))
    if xmp:
        kept.append(_webp_chunk(b"XMP ", xmp))
    content = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def _webp_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
