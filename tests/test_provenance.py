"""What edited pictures say of themselves: read back by Pillow, by ourselves and by c2pa-python."""

from __future__ import annotations

import datetime
import io
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from vlbias.cli import app
from vlbias.errors import ConfigError, ImageError
from vlbias.originals import Original, without_private_metadata
from vlbias.provenance import COMPOSITE, TRAINED, examine_provenance, read_provenance, sign_picture, xmp_packet

SAID = {"synthetic": "true", "editor": 'a "quoted" <editor>', "source": "ä.jpg", "path": "age"}
URI = f"http://cv.iptc.org/newscodes/digitalsourcetype/{COMPOSITE}"
KINDS = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP", ".tif": "TIFF"}


def scene():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))


def donor(folder, suffix, **options):
    scene().save(folder / f"donor{suffix}", KINDS[suffix], **options)
    return Original.read(folder / f"donor{suffix}")


def edited(folder, suffix, said=SAID, **options):
    original = donor(folder, suffix, **options)
    path = folder / f"edit{suffix}"
    path.write_bytes(original.encode(original.stored, said).data)
    return path


@pytest.mark.parametrize("suffix", KINDS)
def test_the_source_type_is_where_other_programs_look_for_it(suffix, tmp_path):
    path = edited(tmp_path, suffix)
    with Image.open(path) as stored:
        stored.load()
        packet = stored.info.get("xmp") or stored.getexif().get(700)
        assert np.array_equal(np.asarray(stored), np.asarray(Image.open(path)))
    assert f'Iptc4xmpExt:DigitalSourceType="{URI}"'.encode() in packet
    found = examine_provenance(path)
    assert (found.source_type, dict(found.said), found.is_synthetic) == (COMPOSITE, SAID, True)
    assert len(found.missing) == 1 and "No C2PA manifest" in found.missing[0]


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_pixels_do_not_hang_on_what_a_file_says(suffix, tmp_path):
    options = {"lossless": True} if suffix == ".webp" else {}
    assert np.array_equal(np.asarray(Image.open(edited(tmp_path, suffix, **options))), np.asarray(scene()))


@pytest.mark.parametrize("suffix", KINDS)
def test_a_copy_without_private_notes_keeps_it(suffix, tmp_path):
    path = edited(tmp_path, suffix)
    copy = tmp_path / f"copy{suffix}"
    copy.write_bytes(without_private_metadata(path).data)
    assert examine_provenance(copy).source_type == COMPOSITE and read_provenance(copy) == SAID


@pytest.mark.parametrize("suffix", KINDS)
def test_a_photograph_says_nothing_and_a_donors_packet_is_not_taken_over(suffix, tmp_path):
    options = {} if suffix in (".png", ".tif") else {"xmp": b"<x>Jane Doe</x>"}
    original = donor(tmp_path, suffix, **options)
    (tmp_path / f"copy{suffix}").write_bytes(original.encode(original.stored).data)
    found = examine_provenance(tmp_path / f"copy{suffix}")
    assert (found.source_type, found.is_synthetic, found.missing) == (None, False, ())
    assert b"Jane Doe" not in edited(tmp_path, suffix, **options).read_bytes()


def test_a_sampled_face_is_the_models_own(tmp_path):
    path = edited(tmp_path, ".png", SAID | {"digital_source_type": TRAINED})
    assert examine_provenance(path).source_type == TRAINED


def test_what_stripped_a_file_is_said(tmp_path):
    path = edited(tmp_path, ".jpg")
    with Image.open(path) as stored:
        stored.convert("L").convert("RGB").save(tmp_path / "upload.jpg", comment=stored.info["comment"])
        Image.fromarray(np.asarray(stored)).save(tmp_path / "bare.jpg", xmp=xmp_packet(SAID))
    assert "No digital source type in XMP" in examine_provenance(tmp_path / "upload.jpg").missing[0]
    assert "No notes of vlbias" in examine_provenance(tmp_path / "bare.jpg").missing[0]


def test_xmp_in_the_other_spelling_of_rdf_is_read(tmp_path):
    packet = f"<Iptc4xmpExt:DigitalSourceType>{URI}</Iptc4xmpExt:DigitalSourceType>".encode()
    scene().save(tmp_path / "other.jpg", xmp=packet)
    assert examine_provenance(tmp_path / "other.jpg").source_type == COMPOSITE
    scene().save(tmp_path / "other.jpg", xmp=f'<a Iptc4xmpExt:DigitalSourceType="x">{URI}</a>'.encode())
    assert examine_provenance(tmp_path / "other.jpg").source_type is None


def test_the_command_reads_files_and_folders(tmp_path):
    edited(tmp_path, ".png")
    (tmp_path / ".cache").mkdir()
    scene().save(tmp_path / ".cache" / "hidden.png")
    told = CliRunner().invoke(app, ["provenance", str(tmp_path)])
    assert told.exit_code == 0, told.output
    assert "1 picture says nothing of being synthetic" in told.output and f"source type  {COMPOSITE}" in told.output
    assert "missing: No C2PA manifest" in told.output and "hidden" not in told.output
    told = CliRunner().invoke(app, ["provenance", str(tmp_path / "donor.png")])
    assert "donor.png: says nothing of being synthetic" in told.output
    lines = CliRunner().invoke(app, ["provenance", "--json", str(tmp_path / "edit.png")]).output.splitlines()
    assert json.loads(lines[0])["said"] == SAID


def test_the_command_says_what_belongs_together(tmp_path):
    told = CliRunner().invoke(app, ["provenance", str(edited(tmp_path, ".png")), "--sign", "a.pem"])
    assert told.exit_code == 2 and "--sign and --key belong together" in told.output


# -- C2PA -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def signer(tmp_path_factory):
    """A test certificate with its chain, and its key; nobody vouches for it."""
    pytest.importorskip("c2pa", reason="c2pa-python is not installed: pip install 'vlbias[c2pa]'")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(text):
        return x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, text), x509.NameAttribute(NameOID.COMMON_NAME, text)]
        )

    def certificate(subject, key, issuer, issuer_key, is_root):
        now = datetime.datetime.now(datetime.UTC)
        usage = dict.fromkeys(
            [
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "encipher_only",
                "decipher_only",
            ],
            False,
        )
        built = (
            x509.CertificateBuilder(name(issuer), name(subject), key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(digital_signature=not is_root, key_cert_sign=is_root, crl_sign=is_root, **usage),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        )
        if not is_root:
            built = built.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        return built.sign(issuer_key, hashes.SHA256())

    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    chain = [
        certificate("vlbias test signer", key, "vlbias test root", root_key, False),
        certificate("vlbias test root", root_key, "vlbias test root", root_key, True),
    ]
    folder = tmp_path_factory.mktemp("signer")
    pem = serialization.Encoding.PEM
    (folder / "chain.pem").write_bytes(b"".join(item.public_bytes(pem) for item in chain))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(private)
    return folder / "chain.pem", folder / "key.pem"


@pytest.mark.parametrize("suffix", KINDS)
def test_a_signed_picture_keeps_its_pixels_and_what_it_says(suffix, signer, tmp_path):
    path = edited(tmp_path, suffix)
    before = np.asarray(Image.open(path))
    found = sign_picture(path, *signer)
    assert (found.manifest, found.source_type, found.missing) == ("Valid", COMPOSITE, ())
    assert dict(found.said) == SAID and np.array_equal(np.asarray(Image.open(path)), before)
    import c2pa

    with c2pa.Reader(f"image/{KINDS[suffix].lower()}", io.BytesIO(path.read_bytes())) as reader:
        assert URI in reader.json()


def test_a_change_after_signing_is_seen(signer, tmp_path):
    path = edited(tmp_path, ".png")
    sign_picture(path, *signer)
    data = bytearray(path.read_bytes())
    data[-30] ^= 1  # of the coded pixels, or of their checksum
    place = data.rindex(b"IDAT") + 40
    data[place] ^= 1
    path.write_bytes(data)
    from vlbias.provenance import _manifest_state

    assert _manifest_state(path) == "Invalid"


def test_what_cannot_be_signed_is_said(signer, tmp_path):
    donor(tmp_path, ".png")
    with pytest.raises(ImageError, match="does not say that it is synthetic"):
        sign_picture(tmp_path / "donor.png", *signer)
    path = edited(tmp_path, ".png")
    with pytest.raises(ConfigError, match=r"none\.pem cannot be read"):
        sign_picture(path, tmp_path / "none.pem", signer[1])
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="cannot be signed"):
        sign_picture(path, signer[1], signer[1])
    assert path.read_bytes() == before


def test_the_command_signs_in_place(signer, tmp_path):
    edited(tmp_path, ".jpg")
    told = CliRunner().invoke(app, ["provenance", str(tmp_path), "--sign", str(signer[0]), "--key", str(signer[1])])
    assert told.exit_code == 0 and "C2PA         Valid" in told.output and "missing" not in told.output
