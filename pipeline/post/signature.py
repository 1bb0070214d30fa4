"""Content Credentials (C2PA): a signed statement in a delivered file of who made it, and that a model did. Only where a certificate is set.

Sign last: whatever changes the file afterwards breaks the signature. Signatures differ from one to the next, so signed files do too.
"""

from __future__ import annotations

import errno
import io
import os
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from pipeline.render.marks import Marks, SourceType
from pipeline.story.errors import InputError, StorageError
from pipeline.story.settings import Settings

CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
MIME = {".mp4": "video/mp4", ".png": "image/png"}
PROBE = Marks("trainedAlgorithmicMedia", {"title": "a trial"})


@dataclass(frozen=True)
class Credentials:
    """certificates: the signer's first, then those that vouch for it, PEM. key: the signer's, PEM. algorithm: as C2PA names it."""

    certificates: bytes
    key: bytes
    algorithm: str


def credentials_of(settings: Settings) -> Credentials | None:
    """What files are signed with, tried on a small picture; None where no certificate is set.

    Raises:
        InputError: a file is missing or is not what it should be, C2PA refuses the certificate, or the extra `c2pa` is not installed.
    """
    certificate, key = settings.c2pa_certificate, settings.c2pa_key
    if not certificate and not key:
        return None
    if not certificate or not key:
        raise InputError(f"TOWER_C2PA_{'KEY' if certificate else 'CERTIFICATE'} is not set; a signature needs the certificate and its key")
    if not find_spec("c2pa"):
        raise InputError("TOWER_C2PA_CERTIFICATE is set, and c2pa-python is not installed; install tower[c2pa]")
    found = Credentials(_read(certificate, "CERTIFICATE"), _read(key, "KEY"), "")
    found = Credentials(found.certificates, found.key, _algorithm(found.key, key))
    picture = io.BytesIO()
    Image.new("RGB", (16, 16)).save(picture, "PNG")
    _sign(picture, io.BytesIO(), "image/png", PROBE, found)
    return found


def sign(file: Path, marks: Marks, credentials: Credentials) -> None:
    """Sign a delivered file, in place, without holding it in memory. An error leaves it as it was.

    Args:
        file: MP4 or PNG. marks: of a file that a model made, or people and a model.

    Raises:
        InputError: the certificate is refused.
        StorageError: the file cannot be written.
    """
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with file.open("rb") as source, part.open("w+b") as out:
            _sign(source, out, MIME[file.suffix], marks, credentials)
        os.replace(part, file)
    except OSError as error:
        raise StorageError(f"{file} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def _sign(source: BinaryIO, out: BinaryIO, mime: str, marks: Marks, credentials: Credentials) -> None:
    """Write the source with a signature to `out`, which C2PA reads as well.

    Raises:
        InputError: the certificate is refused.
        OSError: C2PA could not read or write.
    """
    import c2pa

    types: dict[SourceType | None, c2pa.C2paDigitalSourceType] = {
        "trainedAlgorithmicMedia": c2pa.C2paDigitalSourceType.TRAINED_ALGORITHMIC_MEDIA,
        "compositeWithTrainedAlgorithmicMedia": c2pa.C2paDigitalSourceType.COMPOSITE_WITH_TRAINED_ALGORITHMIC_MEDIA,
    }
    info = c2pa.C2paSignerInfo(credentials.algorithm.encode(), credentials.certificates, credentials.key, None)
    told = {"claim_generator_info": [{"name": "Tower", "version": version("tower")}], "title": marks.keys["title"]}
    try:
        with c2pa.Signer.from_info(info) as signer, c2pa.Builder(told) as builder:
            builder.set_intent(c2pa.C2paBuilderIntent.CREATE, types[marks.source])
            builder.sign(signer, mime, source, out)
    except c2pa.C2paError.Io as error:
        raise OSError(errno.EIO, "C2PA could not read it or write the signed copy") from error
    except c2pa.C2paError as error:
        raise InputError(f"TOWER_C2PA_CERTIFICATE cannot sign: {' '.join(str(error).split())}") from error


def _read(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"TOWER_C2PA_{name}: {path} cannot be read: {error.strerror}") from error


def _algorithm(key: bytes, path: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        found = load_pem_private_key(key, None)
    except (ValueError, TypeError) as error:
        raise InputError(f"TOWER_C2PA_KEY: {path} is no private key in PEM without a password") from error
    if isinstance(found, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(found, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(found, ec.EllipticCurvePrivateKey) and found.curve.name in CURVES:
        return CURVES[found.curve.name]
    raise InputError(f"TOWER_C2PA_KEY: {path} is of a kind that C2PA has no algorithm for; use P-256, P-384, P-521, Ed25519 or RSA")
