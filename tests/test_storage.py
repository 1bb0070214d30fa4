"""The catalog in S3-compatible storage, and in the hands of readers that are not ours."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from datetime import timedelta

import polars
import pyarrow.fs as pafs
import pytest

from catalog.care import collect_garbage, compact, verify
from catalog.damage import Checked
from catalog.repair import repair
from catalog.schema import VERSION
from catalog.store import Catalog
from catalog.views import episodes

from .conftest import EPISODE, takes_of, tower
from .test_catalog import row


@pytest.fixture(scope="module")
def storage():
    """An S3 server on loopback, with a bucket; gives the environment that reaches it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    env = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = {name: os.environ.get(name) for name in env}
    os.environ.update(env)
    try:
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < end and server.poll() is None
                time.sleep(0.1)
        files = pafs.S3FileSystem(endpoint_override=env["AWS_ENDPOINT_URL"], region="us-east-1", allow_bucket_creation=True)
        files.create_dir("films")
        yield env
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        server.kill()
        server.wait()


def test_a_catalog_in_a_bucket_keeps_rows_and_media(storage):
    catalog = Catalog.open("s3://films/one")
    media = catalog.media.put(b"frames", ".mp4")
    catalog.append("takes", [row(1, outcome="accepted", media=media.digest, media_path=media.path, media_bytes=6)])
    assert Catalog.open("s3://films/one").was_version == VERSION and Catalog.find("s3://films/none") is None
    (back,) = catalog.rows("takes")
    assert catalog.media.read(back["media_path"], back["media"]) == b"frames"
    assert catalog.media.has(media.path, media.digest, 6, back["at"].timestamp()) and episodes(catalog)[0]["with_accepted_clip"] == 1
    assert not catalog.media.has(media.path, media.digest, 7, back["at"].timestamp())
    assert list(verify(catalog.place, Checked())) == []
    lost = catalog.media.put(b"nobody's", ".png")
    assert [p.kind for p in verify(catalog.place, Checked())] == ["orphan"]
    assert collect_garbage(catalog, timedelta(hours=1), False) == []
    assert [path for path, _ in collect_garbage(catalog, timedelta(seconds=-60), False)] == [lost.path]
    catalog.append("takes", [row(2)])
    assert compact(catalog, ["takes"]) == {"takes": (2, 1)}
    with catalog.place.files.open_output_stream(media.path) as out:
        out.write(b"fram3s")
    assert [p.kind for p in verify(catalog.place, Checked())] == ["corrupt"]
    catalog.place.set_aside(media.path)
    assert [p.kind for p in verify(catalog.place, Checked())] == ["missing"] and list(repair(catalog.place)) == []


@pytest.mark.ray
def test_an_episode_renders_into_a_bucket_and_resumes_from_it(storage, tmp_path):
    (tmp_path / "episode.yaml").write_text(EPISODE)
    place = {"TOWER_CATALOG_URI": "s3://films/episode"}
    done = tower("render", "episode.yaml", "--only", "SH0020", cwd=tmp_path, **place)
    assert done.code == 0, done.out + done.err
    rows = json.loads(tower("takes", "E90", "--json", cwd=tmp_path, **place).out)
    assert [(r["stage"], r["outcome"]) for r in rows] == [("keyframe", "accepted"), ("clip", "accepted")]
    assert rows[1]["take"].encode() in (tmp_path / "out" / "E90" / "shots" / "SH0020.mp4").read_bytes()
    again = tower("render", "episode.yaml", "--only", "SH0020", cwd=tmp_path, **place)
    assert again.code == 0 and "0 to render" in again.out and "nothing has changed" in again.out
    assert tower("catalog", "verify", cwd=tmp_path, **place).code == 0
    assert not (tmp_path / "catalog-data").exists()


@pytest.mark.parametrize("uri", ["ftp://films/x", "s3://", "gs://films/x"])
def test_a_place_that_is_neither_a_folder_nor_a_bucket_is_refused(here, monkeypatch, uri):
    monkeypatch.setenv("TOWER_CATALOG_URI", uri)
    done = here("status")
    assert done.code == 2 and "neither a folder nor s3://" in done.err


def test_storage_that_nobody_answers_is_one_sentence(tmp_path):
    env = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ALLOW_HTTP": "true", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    done = tower("status", cwd=tmp_path, TOWER_CATALOG_URI="s3://films/x", **env)
    assert done.code == 2 and done.err.startswith("error: catalog s3://films/x cannot be reached"), done.err


def test_other_readers_count_the_same(rendered):
    """Polars and Ray Data read the Delta tables by themselves; removed files count for neither."""
    root = rendered.cwd / "catalog-data"
    wanted = {name: len(Catalog.open(root).rows(name)) for name in ("takes", "runs", "workflows", "benchmarks")}
    assert wanted["takes"] == len(takes_of(rendered.cwd)) > 0
    for name, count in wanted.items():
        assert polars.scan_delta(str(root / name)).select(polars.len()).collect().item() == count
    program = (
        "import ray, sys, logging; ray.init(address='local', num_cpus=1, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False);"
        "ray.data.DataContext.get_current().enable_progress_bars = False;"
        "print('counts', *[ray.data.read_delta(p).count() for p in sys.argv[1:]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *(str(root / name) for name in wanted)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    line = next(x for x in done.stdout.splitlines() if x.startswith("counts"))
    assert [int(n) for n in line.split()[1:]] == list(wanted.values())
