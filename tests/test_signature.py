"""Content Credentials: signed where a certificate is set, and what cannot sign is told before anything renders."""

from __future__ import annotations

import io
import json
import resource
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from catalog.media import MediaStore
from catalog.place import Place
from catalog.store import Catalog
from pipeline.post.movie import current_movie
from pipeline.post.result import Result
from pipeline.post.signature import credentials_of, sign
from pipeline.render.context import context
from pipeline.render.marks import Marks, marked
from pipeline.render.video_file import write_clip
from pipeline.story.errors import InputError, StorageError
from pipeline.story.fingerprint import file_digest
from pipeline.story.settings import Settings, load_settings

from .planted import FPS, GOOD, png
from .test_movie import clip, edit_of_clips, episode
from .test_provenance import SOURCE_TYPE, keys, said

MARKS = Marks("compositeWithTrainedAlgorithmicMedia", {"title": "海辺"})


def settings(certificate: Path | None, key: Path | None) -> Settings:
    return load_settings().model_copy(update={"c2pa_certificate": certificate, "c2pa_key": key})


def test_without_a_certificate_nothing_is_signed_and_half_of_it_is_told(tmp_path):
    assert credentials_of(settings(None, None)) is None
    with pytest.raises(InputError, match="TOWER_C2PA_KEY is not set"):
        credentials_of(settings(tmp_path / "a.pem", None))
    with pytest.raises(InputError, match="TOWER_C2PA_CERTIFICATE is not set"):
        credentials_of(settings(None, tmp_path / "a.pem"))


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a studio's key, its certificate with the one that vouches for it, and one that only vouches for itself."""
    pytest.importorskip("c2pa", reason="the extra c2pa is not installed")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    folder = tmp_path_factory.mktemp("studio")
    root, mine = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def certificate(who: str, key, by: str, signer, authority: bool) -> bytes:
        names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, n), x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "A studio")]) for n in (who, by)]
        begun = datetime.now(UTC) - timedelta(days=1)
        made = x509.CertificateBuilder(names[1], names[0], key.public_key(), 7, begun, begun + timedelta(days=90))
        made = made.add_extension(x509.BasicConstraints(authority, None), True)
        made = made.add_extension(x509.KeyUsage(True, False, False, False, False, authority, authority, False, False), True)
        made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)
        if not authority:
            made = made.add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        return made.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM)

    vouching = certificate("Root", root, "Root", root, True)
    (folder / "chain.pem").write_bytes(certificate("Studio", mine, "Root", root, False) + vouching)
    (folder / "alone.pem").write_bytes(certificate("Studio", mine, "Studio", mine, True))
    (folder / "key.pem").write_bytes(mine.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder


def test_a_signed_file_is_valid_to_c2pas_reader_and_keeps_its_frames_and_marks(tmp_path, studio):
    import c2pa

    credentials = credentials_of(settings(studio / "chain.pem", studio / "key.pem"))
    assert credentials and credentials.algorithm == "es256"
    write_clip(tmp_path / "a.mp4", GOOD[:5], FPS)
    (tmp_path / "a.png").write_bytes(png(GOOD[0]))
    for file in (tmp_path / "a.mp4", tmp_path / "a.png"):
        file.write_bytes(marked(file.read_bytes(), file.suffix, MARKS))
        sign(file, MARKS, credentials)
        with c2pa.Reader(file) as reader:
            told = json.loads(reader.json())
            assert reader.get_validation_state() == "Valid"
        made = told["manifests"][told["active_manifest"]]
        assert made["title"] == "海辺" and made["claim_generator_info"][0]["name"] == "Tower"
        assert made["assertions"][0]["data"]["actions"][0]["digitalSourceType"] == said(file.read_bytes()).get(SOURCE_TYPE)
    assert keys((tmp_path / "a.mp4").read_bytes())["title"] == "海辺"
    with Image.open(tmp_path / "a.png") as picture:
        assert (np.asarray(picture) == GOOD[0]).all()
    changed = bytearray((tmp_path / "a.mp4").read_bytes())
    changed[changed.index(b"mdat") + 200] ^= 1
    with c2pa.Reader("video/mp4", io.BytesIO(changed)) as reader:
        assert reader.get_validation_state() == "Invalid"
    assert not list(tmp_path.glob(".*"))


def test_a_long_movie_is_signed_without_being_held_in_memory_and_a_full_disk_leaves_it_as_it_was(tmp_path, studio):
    import c2pa

    credentials, movie, size = credentials_of(settings(studio / "chain.pem", studio / "key.pem")), tmp_path / "a.mp4", 30_000_000
    write_clip(movie, GOOD[:5], FPS)
    with movie.open("ab") as file:
        file.write((size + 8).to_bytes(4, "big") + b"free" + bytes(size))  # a box that players skip
    before = file_digest(movie)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"a\.mp4 cannot be written"):
            sign(movie, MARKS, credentials)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file_digest(movie) == before and [file.name for file in tmp_path.iterdir()] == ["a.mp4"]
    tracemalloc.start()
    try:
        sign(movie, MARKS, credentials)
        assert tracemalloc.get_traced_memory()[1] < size // 10
    finally:
        tracemalloc.stop()
    with c2pa.Reader(movie) as reader:
        assert reader.get_validation_state() == "Valid"


def test_a_movie_is_signed_once_and_again_where_it_was_not_or_with_other_certificates(tmp_path, studio):
    import c2pa

    store = MediaStore(Place.of(tmp_path / "catalog"))
    story, clips = episode({"frames": 8}), {"SH0010": clip(store, tmp_path, 20, 8, 24) | {"take": "E01/SH0010/clip/v001"}}
    edit = replace(edit_of_clips(story, clips), marks=MARKS)
    results, target, old = [Result("SH0010", "accepted", "", {"clip": clips["SH0010"]})], tmp_path / "episode.mp4", None
    (tmp_path / "other.pem").write_bytes((studio / "chain.pem").read_bytes() + b"\n")
    keys_seen = []
    for certificate in (None, studio / "chain.pem", studio / "chain.pem", tmp_path / "other.pem"):
        told = settings(certificate, studio / "key.pem" if certificate else None)
        with context(told.model_copy(update={"catalog_uri": str(tmp_path / "catalog")}), Catalog(store.place, 0), Console(quiet=True)) as here:
            before = target.read_bytes() if target.is_file() else b""
            old, _ = current_movie(edit, results, old, here, target, partial=False)
        assert old and file_digest(target) == old.media
        assert (target.read_bytes() == before) == (old.key in keys_seen), "the same again is left as it is"
        keys_seen.append(old.key)
        if certificate:
            with c2pa.Reader(target) as reader:
                assert reader.get_validation_state() == "Valid"
    assert len(set(keys_seen)) == 3


def test_what_cannot_sign_is_one_sentence(tmp_path, studio):
    (tmp_path / "no.pem").write_bytes(b"no key")
    for certificate, key, why in (
        (tmp_path / "gone.pem", studio / "key.pem", "TOWER_C2PA_CERTIFICATE: .*gone.pem cannot be read"),
        (studio / "chain.pem", tmp_path / "no.pem", "TOWER_C2PA_KEY: .*no.pem is no private key"),
        (studio / "alone.pem", studio / "key.pem", "TOWER_C2PA_CERTIFICATE cannot sign"),
        (tmp_path / "no.pem", studio / "key.pem", "TOWER_C2PA_CERTIFICATE cannot sign"),
    ):
        with pytest.raises(InputError, match=why) as error:
            credentials_of(settings(certificate, key))
        assert "\n" not in str(error.value)
