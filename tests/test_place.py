"""Where a catalog is: files whole or not at all, on a disk or in a bucket. The bucket here is a folder, so that no server is needed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from catalog import place as module
from catalog.place import PART, Place, PlaceError


@pytest.fixture
def bucket(tmp_path, monkeypatch) -> Place:
    (tmp_path / "bucket").mkdir()
    monkeypatch.setattr(module, "_files", lambda uri: pafs.SubTreeFileSystem(str(tmp_path / "bucket"), pafs.LocalFileSystem()))
    return Place.of("s3://films/one/")


def test_a_place_is_absolute_and_one_that_is_given_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = Place.of("here")
    assert place.uri == str(place) == str(tmp_path / "here") and place.folder == tmp_path / "here" and place.is_local
    assert Place.of(place) is place and place.table("takes") == f"{tmp_path}/here/takes"
    far = Place.of("s3://films/one//")
    assert far.uri == "s3://films/one" and not far.is_local
    with pytest.raises(AssertionError):
        far.folder  # noqa: B018 - it raises


@pytest.mark.parametrize(
    ("name", "words"), [("a\0b", "no folder can have that name"), ("a\udc80b", "its name is not text"), ("a%20b", "read '%20' in a path")]
)
def test_a_name_that_no_folder_can_have_is_told(name, words):
    with pytest.raises(PlaceError, match=words):
        Place.of(name)


def test_a_file_is_written_and_read_whole(tmp_path):
    place, data = Place.of(tmp_path / "new" / "catalog"), os.urandom(3_000_000)
    place.write("a/b/file", data)
    assert place.read("a/b/file") == data and place.digest("a/b/file") == hashlib.sha256(data).hexdigest()
    place.write("a/b/file", b"other")
    assert place.read("a/b/file") == b"other" and place.list("a/b") == ["file"] and place.list("none") == []
    with pytest.raises(OSError):
        place.read("a/b/none")


def test_all_bytes_are_given_to_the_disk_before_the_file_gets_its_name(tmp_path, monkeypatch):
    flushed: list[tuple[Path, int]] = []

    def noted(handle: int) -> None:
        flushed.append((Path(os.readlink(f"/proc/self/fd/{handle}")), os.fstat(handle).st_size))

    monkeypatch.setattr("os.fsync", noted)
    handles = len(os.listdir("/proc/self/fd"))
    place = Place.of(tmp_path / "catalog")
    place.write("a/file", b"data")
    (catalog, _), (folder, _), (part, size), (named, _) = flushed
    assert (catalog, folder, part.parent, named) == (tmp_path, place.folder, place.folder / "a", place.folder / "a")
    assert part.name.startswith(PART) and size == 4
    flushed.clear()
    place.flush("a/file")
    assert [path for path, _ in flushed] == [place.folder / "a" / "file", place.folder / "a"]
    assert len(os.listdir("/proc/self/fd")) == handles, "and no file stays open"


def test_a_write_that_ends_early_leaves_nothing_and_tells_why(tmp_path, monkeypatch):
    place, replace = Place.of(tmp_path), os.replace

    def stopped(part: str, target: Path) -> None:
        if target.name == "moved":
            replace(part, target)
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", stopped)
    for name in ("half", "moved"):
        with pytest.raises(KeyboardInterrupt):
            place.write(name, b"data")
    assert os.listdir(tmp_path) == ["moved"]


def test_a_folder_that_another_makes_at_the_same_moment_is_no_error(tmp_path, monkeypatch):
    answers, is_dir = iter([False]), Path.is_dir
    monkeypatch.setattr(Path, "is_dir", lambda path: next(answers, True) and is_dir(path))
    Place.of(tmp_path).make()


def test_a_folder_is_made_with_those_above_it_and_a_bucket_has_none(tmp_path, bucket):
    Place.of(tmp_path / "a" / "b").make()
    assert (tmp_path / "a" / "b").is_dir()
    bucket.make()
    assert sorted(os.listdir(tmp_path)) == ["a", "bucket"]


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_a_file_that_is_no_record_is_whole_too_and_a_missing_one_is_removed_already(tmp_path, request, where):
    place = Place.of(tmp_path / "catalog") if where == "folder" else request.getfixturevalue("bucket")
    place.files.create_dir("live")  # a bucket needs none
    place.show("live/file", b"x" * 3_000_000)
    place.show("live/file", b"other")
    assert place.read("live/file") == b"other" and place.list("live") == ["file"]
    place.remove("live/file")
    place.remove("live/file")
    assert place.list("live") == []


def test_a_damaged_file_is_set_aside_and_a_missing_one_stays_missing(tmp_path):
    place = Place.of(tmp_path)
    place.write("a/b/file", b"data")
    place.set_aside("a/b/file")
    place.set_aside("a/b/none")
    place.set_aside("a/b")
    assert place.read("damaged/a/b/file") == b"data" and place.list("a/b") == [] and place.list("damaged/a/b") == ["file"]


def test_a_bucket_holds_what_is_written(tmp_path, bucket):
    bucket.write("file", b"data")
    assert bucket.read("file") == b"data" and bucket.digest("file") == hashlib.sha256(b"data").hexdigest()
    assert os.listdir(tmp_path / "bucket") == bucket.list("") == ["file"]


def test_a_bucket_is_reached_as_the_environment_says_and_once(monkeypatch):
    def reached(n: int, **env: str) -> tuple[str, str, str]:
        for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
            monkeypatch.delenv(name, raising=False)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        files = Place.of(f"s3://films/{n}").files
        (options,) = files.base_fs.__reduce__()[1]
        return files.base_path, files.base_fs.region, options["endpoint_override"]

    assert reached(1) == ("films/1/", "us-east-1", "")
    assert reached(2, AWS_DEFAULT_REGION="eu-north-1") == ("films/2/", "eu-north-1", "")
    told = {"AWS_REGION": "sa-east-1", "AWS_DEFAULT_REGION": "eu-north-1", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    assert reached(3, **told) == ("films/3/", "sa-east-1", "http://127.0.0.1:9")
    assert Place.of("s3://films/3").files is Place.of("s3://films/3").files
    assert Place.of("s3://films/a b").table("takes") == "s3://films/a%20b/takes"
