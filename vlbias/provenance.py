"""What an edited picture says of itself, in words for machines, and how it is read back.

Three notes, from the weakest to the strongest: texts of our own (editor, path, strength, seed); XMP with the digital
source type of the IPTC, which agencies, search engines and platforms read; and, if somebody signs it, a C2PA manifest,
which also shows that nothing was changed since. Any program that writes a picture anew may drop all three.
"""

from __future__ import annotations

import io
import json
import mimetypes
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.sax.saxutils import quoteattr

from PIL import ExifTags, Image, PngImagePlugin

from vlbias.arguments import checked_call
from vlbias.errors import ConfigError, ImageError, MissingDependencyError
from vlbias.files import AnyPath, open_plain, parse_json, write_file
from vlbias.images import DECODERS, load_stored
from vlbias.shown import printable
from vlbias.version import __version__

__all__ = [
    "COMPOSITE",
    "TRAINED",
    "Provenance",
    "examine_provenance",
    "provenance_of",
    "read_provenance",
    "sign_picture",
    "writing_options",
    "xmp_packet",
]

#: Terms of the IPTC vocabulary "Digital Source Type": a photograph with parts that a trained model made ...
COMPOSITE = "compositeWithTrainedAlgorithmicMedia"
#: ... and a picture that a trained model made as a whole, such as a face sampled from the prior.
TRAINED = "trainedAlgorithmicMedia"

_VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"
#: In each spelling that RDF has: an attribute, an element, a resource.
_SOURCE_TYPE = re.compile(
    r"DigitalSourceType(?:\s*=\s*[\"']|\s*>\s*|\s+rdf:resource\s*=\s*[\"'])" + re.escape(_VOCABULARY) + r"(\w+)"
)
_XMP_KEY = "XML:com.adobe.xmp"  # of a PNG's text chunk
_DESCRIPTION_TAG, _XMP_TAG = int(ExifTags.Base.ImageDescription), 700  # TIFF and EXIF
_SIGNING_REMEDY = "vlbias provenance FILE --sign CERT.pem --key KEY.pem"


# -- writing ----------------------------------------------------------------------------------------------------------


def xmp_packet(said: Mapping[str, str]) -> bytes:
    """XMP with the digital source type of a synthetic picture; empty for a picture that does not say it is one.

    Args:
        said: the texts of a picture. ``digital_source_type`` is :data:`COMPOSITE` or :data:`TRAINED`, and
            :data:`COMPOSITE` where it is missing; ``editor`` names the system that was used.

    Source: IPTC Photo Metadata Standard 2025.1, Digital Source Type and AI System Used.
    """
    if said.get("synthetic") != "true":
        return b""
    source_type = quoteattr(_source_uri(said))
    system = quoteattr("vlbias" + (f", editor {printable(said['editor'])}" if "editor" in said else ""))
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
        f'Iptc4xmpExt:DigitalSourceType={source_type} Iptc4xmpExt:AISystemUsed={system} xmp:CreatorTool="vlbias"/>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode()


def _source_uri(said: Mapping[str, str]) -> str:
    """The term's address; a word that is not of ours, in a file of somebody else, counts as missing."""
    term = said.get("digital_source_type")
    return _VOCABULARY + (term if term in (COMPOSITE, TRAINED) else COMPOSITE)


def writing_options(kind: str, said: Mapping[str, str], orientation: int = 1) -> dict[str, Any]:
    """What Pillow is told so that a file says how it was made, and how the picture was held.

    Args:
        kind: format in Pillow's words; BMP has no room for any of it.
        said: texts; empty for a photograph.
        orientation: EXIF orientation, 1..8.
    """
    text = json.dumps(dict(said), sort_keys=True) if said else ""
    packet = xmp_packet(said)
    exif = Image.Exif()
    if orientation != 1:
        exif[ExifTags.Base.Orientation] = orientation
    if kind == "TIFF":
        tags = {_DESCRIPTION_TAG: text, _XMP_TAG: packet, int(ExifTags.Base.Orientation): exif.get(274)}
        return {"tiffinfo": {tag: value for tag, value in tags.items() if value}}
    if kind == "WEBP" and text:
        exif[_DESCRIPTION_TAG] = text
    known: dict[str, dict[str, Any]] = {
        "PNG": {"pnginfo": _png_texts(said, packet), "exif": exif},
        "JPEG": {"comment": text.encode(), "xmp": packet, "exif": exif},
        "WEBP": {"xmp": packet, "exif": exif},
    }
    options = known.get(kind, {})
    return {name: value for name, value in options.items() if value}


def _png_texts(said: Mapping[str, str], packet: bytes) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    if packet:
        info.add_itxt(_XMP_KEY, packet.decode())
    for key in sorted(said):
        info.add_itxt(key, str(said[key]))
    return info


# -- reading ----------------------------------------------------------------------------------------------------------


@checked_call
def read_provenance(path: AnyPath) -> dict[str, str]:
    """The texts in a file about how it was made; empty where it says nothing.

    Raises:
        ImageError: not a readable picture.
    """
    return provenance_of(load_stored(path))


def provenance_of(stored: Image.Image) -> dict[str, str]:
    """The same of a picture that was loaded as it is stored."""
    if stored.format == "PNG":
        return {str(key): str(value) for key, value in getattr(stored, "text", {}).items() if key != _XMP_KEY}
    if stored.format == "JPEG":
        text = stored.info.get("comment", b"").decode("utf-8", "replace")
    else:
        text = str(stored.getexif().get(_DESCRIPTION_TAG, ""))
    try:
        values = parse_json(text)
    except ValueError:
        return {}
    return {str(key): str(value) for key, value in values.items()} if isinstance(values, dict) else {}


def _source_type(stored: Image.Image) -> str | None:
    packet = stored.info.get("xmp") or getattr(stored, "text", {}).get(_XMP_KEY) or stored.getexif().get(_XMP_TAG, b"")
    text = packet.decode("utf-8", "replace") if isinstance(packet, bytes) else str(packet)
    found = _SOURCE_TYPE.search(text)
    return found[1] if found else None


@dataclass(frozen=True)
class Provenance:
    """What one file says of how it was made.

    Attributes:
        path: the file.
        said: texts of vlbias: ``synthetic``, ``editor``, ``source``, ``path``, ``strength``, ...
        source_type: term of the IPTC's vocabulary that its XMP names; ``None`` where there is none.
        manifest: state of its C2PA manifest: ``none``, ``Invalid``, ``Valid`` (signed, unchanged, by a signer that
            nobody vouches for), ``Trusted``, or ``unread`` where one is there but c2pa-python is not installed.
        missing: what it does not say, with the remedy, one sentence each; empty for a photograph, which owes nothing.
    """

    path: Path
    said: Mapping[str, str] = field(default_factory=dict)
    source_type: str | None = None
    manifest: str = "none"
    missing: tuple[str, ...] = ()

    @property
    def is_synthetic(self) -> bool:
        """Whether anything in the file says that a trained model had a part in it."""
        return self.said.get("synthetic") == "true" or "rained" in (self.source_type or "") or self.manifest != "none"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "file": str(self.path),
            "synthetic": self.is_synthetic,
            "digital_source_type": self.source_type,
            "c2pa": self.manifest,
            "said": dict(self.said),
            "missing": list(self.missing),
        }


@checked_call
def examine_provenance(path: AnyPath) -> Provenance:
    """Read all that a file says of how it was made, and what it should say but does not.

    Raises:
        ImageError: not a readable picture.
    """
    path = Path(path)
    stored = load_stored(path)
    found = Provenance(path, provenance_of(stored), _source_type(stored), _manifest_state(path))
    return Provenance(path, found.said, found.source_type, found.manifest, _missing(found, str(stored.format)))


def _missing(found: Provenance, kind: str) -> tuple[str, ...]:
    if not found.is_synthetic:
        return ()
    sentences = []
    if found.said.get("synthetic") != "true":
        sentences.append("No notes of vlbias: another program wrote the file anew. The run's metadata.csv has them.")
    if found.source_type is None:
        sentences.append(
            f"No digital source type in XMP: {kind} has no room for it, or a program took it out. "
            "Take the file from the run again, or make the edit again."
        )
    if found.manifest == "none":
        sentences.append(f"No C2PA manifest. To sign it: {_SIGNING_REMEDY}")
    if found.manifest == "unread":
        sentences.append("Its C2PA manifest was not checked: pip install 'vlbias[c2pa]'.")
    if found.manifest == "Invalid":
        sentences.append("Its C2PA manifest is not valid: the file was changed after it was signed.")
    return tuple(sentences)


# -- C2PA -------------------------------------------------------------------------------------------------------------


def _c2pa() -> ModuleType:
    try:
        import c2pa
    except ImportError as error:
        raise MissingDependencyError("signing needs c2pa-python: pip install 'vlbias[c2pa]'.") from error
    return c2pa


def _manifest_state(path: Path) -> str:
    with open_plain(path) as file:
        data = file.read()
    if b"jumb" not in data or b"c2pa" not in data:  # a manifest is a JUMBF box of that name, in every format
        return "none"
    try:
        library = _c2pa()
    except MissingDependencyError:
        return "unread"
    try:
        with library.Reader(_mime_type(path), io.BytesIO(data)) as reader:
            return str(reader.get_validation_state())
    except library.C2paError.ManifestNotFound:
        return "none"
    except library.C2paError:
        return "Invalid"


@checked_call
def sign_picture(path: AnyPath, certificate: AnyPath, key: AnyPath, *, algorithm: str = "es256") -> Provenance:
    """Put a signed C2PA manifest into a picture that says it is synthetic; nothing is asked of the network.

    The manifest names the digital source type and what vlbias noted. Pixels and other metadata stay.

    Args:
        path: PNG, JPEG, WebP or TIFF; replaced in one step.
        certificate: PEM file, the signer's certificate first, then the chain up to the root.
        key: PEM file, the signer's private key (PKCS #8).
        algorithm: of the key: es256, es384, es512, ps256, ps384, ps512 or ed25519.

    Returns:
        What the signed file says.

    Raises:
        ConfigError: the certificate or the key cannot be used.
        ImageError: the picture does not say that it is synthetic, or its format takes no manifest.
        MissingDependencyError: c2pa-python is not installed.
    """
    path, library = Path(path), _c2pa()
    said = read_provenance(path)
    if said.get("synthetic") != "true":
        raise ImageError(f"{path} does not say that it is synthetic, so vlbias does not sign it.")
    try:
        chain, private_key = Path(certificate).read_bytes(), Path(key).read_bytes()
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be read ({error.strerror}). Give PEM files.") from error
    signed = io.BytesIO()
    try:
        signer = library.Signer.from_info(library.C2paSignerInfo(algorithm, chain, private_key, None))
        with signer, library.Builder(json.dumps(_manifest(path, said))) as builder:
            builder.sign(signer, _mime_type(path), io.BytesIO(path.read_bytes()), signed)
    except library.C2paError as error:
        raise ConfigError(
            f"{path} cannot be signed with {certificate} ({error}). A certificate must be for signing documents and "
            "come with its chain, the key must be of the algorithm that is given (es256 ...), the picture PNG, JPEG, "
            "WebP or TIFF."
        ) from error
    write_file(path, signed.getvalue())
    return examine_provenance(path)


def _manifest(path: Path, said: Mapping[str, str]) -> dict[str, Any]:
    """The claim: how the picture came to be, in C2PA's words."""
    made = {
        "action": "c2pa.created",
        "digitalSourceType": _source_uri(said),
        "softwareAgent": {"name": "vlbias", "version": __version__},
        "description": json.dumps(dict(said), sort_keys=True),
    }
    return {
        "claim_generator_info": [{"name": "vlbias", "version": __version__}],
        "title": path.name,
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [made]}}],
    }


def _mime_type(path: Path) -> str:
    """By what the file holds, not by its name."""
    with Image.open(path, formats=DECODERS) as stored:
        return Image.MIME.get(str(stored.format), mimetypes.guess_type(path)[0] or "")
