"""What an operator's machine does: folders named like ours, secrets beside the code, clocks that are set, proxies."""

from __future__ import annotations

import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from catalog.care import compact, vacuum
from catalog.store import Catalog, CatalogError
from catalog.views import all_takes
from cluster import code, cores, gpus, start
from cluster.address import AddressError, cluster_address
from cluster.device import Device
from cluster.specs import ModelSpec, pack, unpack
from pipeline.evidence.review import Said, say
from pipeline.render.run_log import living
from pipeline.story.settings import load_settings

from .conftest import EPISODE, environment, refused, tower
from .ray_cluster import free_ports
from .test_catalog import row
from .test_drivers import log
from .test_faults import read_until
from .test_faults import start as start_render
from .test_migrations import unpack as unpack_old

ONE_SHOT = EPISODE[: EPISODE.index("      - {id: SH0020")].replace("clip_workflow: ltx_video_2b_demo", "clip_workflow: animatediff_16_demo")


@pytest.mark.ray
def test_folders_of_a_person_that_are_named_like_ours_shadow_nothing(tmp_path):
    for room in (*code.FOLDERS, "tests", "benchmarks"):
        (tmp_path / room).mkdir()
        if room not in ("catalog", "configs"):
            (tmp_path / room / "__init__.py").write_text(f"raise ImportError('the {room} of somebody else')\n")
    (tmp_path / "episode.yaml").write_text(ONE_SHOT.replace("frames: 60", "frames: 24"))
    env = environment(tmp_path, TOWER_CATALOG_URI=str(tmp_path / "catalog"))
    del env["PYTHONPATH"]
    for media_is_there in (False, True):
        assert (tmp_path / "catalog" / "media").is_dir() is media_is_there
        command = [str(Path(sys.executable).parent / "tower"), "render", "episode.yaml", "--fresh"]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0 and "1 of 1 shots accepted" in done.stdout, done.stdout + done.stderr


def test_only_what_a_render_reads_travels_to_a_cluster(tmp_path, monkeypatch):
    here = tmp_path / "project"
    planted = [".env", "renders/final.mov", "configs/.env", "gates/notes.mov", "pipeline/id_rsa", "catalog-data/takes/a.parquet", "models/a.safetensors"]
    for file in (*planted, *(f"{folder}/code.py" for folder in code.FOLDERS), "configs/workflows/mine.yaml", "actors/demo/a.safetensors"):
        (here / file).parent.mkdir(parents=True, exist_ok=True)
        (here / file).write_text("SECRET=1")
    monkeypatch.setattr(code, "project", lambda: here)
    monkeypatch.delenv(start.IN_A_JOB, raising=False)
    with start.code_for_a_cluster() as runtime:
        folder = Path(runtime["working_dir"])
        there = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert not there & set(planted)
    assert {"gates/code.py", "configs/workflows/mine.yaml", "actors/demo/a.safetensors"} <= there
    assert not folder.exists(), "nothing stays behind"


def test_a_files_name_that_is_no_text_is_told_before_anything_travels(tmp_path, monkeypatch):
    here = tmp_path / "project"
    for folder in code.FOLDERS:
        (here / folder).mkdir(parents=True)
    (here / "catalog" / os.fsdecode(b"stills-\xe9.mov")).touch()  # stays here, so its name does no harm
    monkeypatch.setattr(code, "project", lambda: here)
    code.copy_code(tmp_path / "copy")
    (here / "configs" / os.fsdecode(b"caf\xe9.yaml")).touch()
    with pytest.raises(code.CodeError, match=r"the name caf\\xe9.yaml in .*/configs is not text in UTF-8.*rename it"):
        code.copy_code(tmp_path / "second")


def test_a_clock_that_is_set_does_not_end_a_claim(tmp_path, monkeypatch):
    row_of_me = log(Catalog.open(tmp_path)).row("started")
    create_time = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self, *args: create_time(self, *args) + 3600)
    assert living([row_of_me | {"at": datetime.now(UTC) - timedelta(days=1)}])
    space = row_of_me["pid_space"].rpartition(" ")[0]
    assert living([row_of_me | {"pid_space": f"{space} another-boot"}]) == [], "no process survives its machine's start"


def test_the_later_word_holds_whatever_the_clocks_say(tmp_path):
    catalog = Catalog.open(tmp_path)
    media = catalog.media.put(b"frames", ".mp4")
    take = row(1, outcome="accepted", media=media.digest, media_path=media.path, media_bytes=media.bytes)
    catalog.append("takes", [take])

    def said() -> str:
        return all_takes(catalog)[0]["review"]

    ahead = datetime.now(UTC) + timedelta(minutes=10)
    word = {"take": take["take"], "at": ahead, "episode": take["episode"], "verdict": "retake", "by": "a machine that is ahead"}
    catalog.append("reviews", [word])
    assert said() == "retake"
    say(catalog, load_settings(), Said(take["take"], "approved", by="a machine that is behind"))
    assert said() == "approved"
    say(catalog, load_settings(), Said(take["take"], "retake", by="again"))
    assert said() == "retake"
    assert [r["by"] for r in catalog.rows("reviews")][1:] == ["a machine that is behind", "again"]


@pytest.mark.parametrize("table", ["controls", "judgements", "promotions", "reviews"])
def test_rows_that_answer_others_are_dated_after_them(tmp_path, table):
    catalog, ahead = Catalog.open(tmp_path), datetime.now(UTC) + timedelta(days=1)
    catalog.append(table, [{"at": ahead}])
    catalog.append_later(table, [{"by": "later"}] if table != "judgements" else [{"take": "later"}])
    first, second = catalog.rows(table)
    assert first["at"] == ahead and timedelta(0) < second["at"] - ahead < timedelta(seconds=1)


def test_a_disk_without_room_is_told_before_a_commit_and_without_a_panic(tmp_path, monkeypatch, capfd):
    catalog = Catalog.open(tmp_path)
    monkeypatch.setattr("catalog.commit.LEAST_BYTES", 2**60)
    with pytest.raises(CatalogError, match="free; make room"):
        catalog.append("takes", [row(1)])
    assert "panic" not in capfd.readouterr().err and catalog.rows("takes") == []


def test_a_read_only_catalog_is_told_before_a_commit_and_without_a_panic(tmp_path, monkeypatch, capfd):
    catalog = Catalog.open(tmp_path)
    catalog.append("takes", [row(1) | {"outcome": "accepted"}])
    catalog.append("takes", [row(2)])
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: access(path, mode) and mode != os.W_OK)  # root may write anywhere but on such a mount
    with pytest.raises(CatalogError, match="is read-only here"):
        say(catalog, load_settings(), Said(row(1)["take"], "retake", by="me"))
    for work in (lambda: compact(catalog, ["takes"]), lambda: vacuum(catalog, timedelta(0), dry_run=False)):
        with pytest.raises(CatalogError, match="read-only here"):
            work()
    with pytest.raises(CatalogError, match="read-only here"):
        Catalog.open(unpack_old(5, tmp_path / "old"))
    assert "panic" not in capfd.readouterr().err


class Proxy(http.server.BaseHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012 - of the class, since the server makes an instance a request

    def do_GET(self) -> None:
        self.asked.append(f"{self.path} {self.headers.get('Authorization')}")
        self.send_error(403)

    def log_message(self, *_: object) -> None:
        """Not on the tests' terminal."""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_cluster_on_this_machine_is_asked_through_no_proxy(tmp_path, host):
    proxy = http.server.HTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    Proxy.asked.clear()
    try:
        (port,) = free_ports(1)
        where = f"http://127.0.0.1:{proxy.server_address[1]}"
        env = {"http_proxy": where, "HTTP_PROXY": where, "RAY_AUTH_TOKEN": "secret"}
        refused(tower("jobs", "--address", f"http://{host}:{port}", cwd=tmp_path, **env), "no Ray cluster answers", "refused")
    finally:
        proxy.shutdown()
    assert Proxy.asked == [], "a proxy would have seen the token, and its 403 is not the cluster's"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:1", ["127.0.0.1:1", "refused"]),
        ("[::1]:1", ["[::1]:1"]),
        ("ray://head:10001", ["Ray Client", "head:6379"]),
        ("http://127.0.0.1:8265", ["job API", "head:6379"]),
        ("head", ["no host:port"]),
        ("local", ["unset it"]),
        ("auto", ["auto", "no Ray cluster was started on this machine"]),
    ],
)
def test_an_address_that_cannot_be_joined_is_one_sentence_before_a_run_is_recorded(tmp_path, episode, address, words):
    done = tower("render", episode, cwd=tmp_path, RAY_ADDRESS=address, RAY_TMPDIR=str(tmp_path))
    refused(done, *words)
    assert Catalog.open(tmp_path / "catalog-data").rows("runs") == []


def test_a_cluster_that_was_here_once_is_told_within_seconds(tmp_path, monkeypatch):
    (tmp_path / "ray").mkdir()
    (port,) = free_ports(1)
    (tmp_path / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{port}")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(AddressError, match=f"auto, which is 127.0.0.1:{port}.*refused"):
        cluster_address("auto")


def test_a_port_where_no_ray_answers_is_told(monkeypatch):
    server = http.server.HTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(AddressError, match="could not join"):
            cluster_address(f"127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    ("files", "worth"),
    [
        ({"cpu.max": "50000 100000"}, 0.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_a_containers_quota_of_cpu_is_what_counts(tmp_path, files, worth):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert cores._quota(tmp_path) == worth


@pytest.mark.parametrize(
    ("named", "names"),
    [(None, None), ("", []), ("-1", []), ("NoDevFiles", []), ("none", []), ("0,1", ["0", "1"]), ("0,-1,1", ["0"]), ("GPU-1, 3", ["GPU-1", "3"])],
)
def test_visible_gpus_are_those_that_cuda_would_show(monkeypatch, named, names):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert gpus.named_gpus() == names


def test_a_gpu_that_is_named_twice_is_told_by_a_render(tmp_path, episode):
    refused(tower("render", episode, cwd=tmp_path, CUDA_VISIBLE_DEVICES="0,0"), "CUDA_VISIBLE_DEVICES 0,0", "twice")


class WithTorch:
    """A model that has torch, as every real one."""

    def __init__(self) -> None:
        import torch  # noqa: F401


CARD = "echo '0, GPU-1, 8192, NVIDIA L4'"


@pytest.mark.parametrize(
    ("answer", "named", "words"),
    [
        ("echo 'no communication with the driver'; exit 9", None, ("ends with 9: no communication with the driver", "to render on CPUs")),
        ("echo 'no communication with the driver'; exit 9", "0", ("ends with 9", "to render on CPUs")),
        (CARD, "0,3", ("CUDA_VISIBLE_DEVICES names GPU 3", "this machine's are 0")),
        ("true", "0", ("CUDA_VISIBLE_DEVICES names GPU 0", "has none")),
    ],
)
def test_gpus_that_cannot_be_used_are_told_by_a_render_which_takes_no_cpus_instead(tmp_path, episode, answer, named, words):
    path = nvidia_smi(tmp_path, answer)
    named_gpus = {} if named is None else {"CUDA_VISIBLE_DEVICES": named}
    refused(tower("render", episode, cwd=tmp_path, PATH=path, **named_gpus), *words)
    assert Catalog.open(tmp_path / "catalog-data").rows("runs") == []


def nvidia_smi(folder: Path, answer: str) -> str:
    """A PATH whose first nvidia-smi says so."""
    file = folder / "bin" / "nvidia-smi"
    file.parent.mkdir()
    file.write_text(f"#!/bin/sh\n{answer}\n")
    file.chmod(0o755)
    return f"{file.parent}{os.pathsep}{os.environ['PATH']}"


def test_cpus_are_taken_where_a_person_says_so_whatever_the_driver_does(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", nvidia_smi(tmp_path, "exit 9"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert start.local_devices(2) == ([], 2)


def test_a_torch_that_does_not_see_the_devices_gpu_is_told_and_renders_on_no_cpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", nvidia_smi(tmp_path, "echo 8192"))
    device = Device(threads=0)
    assert device.describe()[1] == 8192 * 2**20
    answer = unpack(device.prepare("model", pack(ModelSpec("model", WithTorch, ())), (), ()))[0]
    assert answer.error and "sees none" in answer.error[1] and not device.models


@pytest.mark.ray
@pytest.mark.parametrize("reader", ["head", "full disk"])
def test_a_display_that_is_lost_ends_no_render(tmp_path, reader):
    file = tmp_path / "episode.yaml"
    file.write_text(ONE_SHOT.replace("frames: 60", "frames: 24"))
    into = "| head -1" if reader == "head" else "> /dev/full"
    command = f"{sys.executable} -m pipeline.cli render {file} --out {tmp_path / 'out'} {into}; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=300)
    assert done.stdout.split()[-1] == "0" and "Traceback" not in done.stderr, done.stdout + done.stderr
    assert (tmp_path / "out" / "E90" / "episode.mp4").exists()
    assert [r["event"] for r in Catalog.open(tmp_path / "catalog-data").rows("runs")] == ["started", "finished"]


@pytest.mark.ray
@pytest.mark.parametrize(("number", "moment"), [(signal.SIGTERM, "0"), (signal.SIGHUP, "0"), (signal.SIGTERM, "Ray: "), (signal.SIGHUP, "Ray: ")])
def test_a_signal_means_the_same_whenever_it_comes(episode, number, moment):
    process = start_render(episode)
    try:
        read_until(process, "to render" if moment == "0" else moment)
        time.sleep(1.0)
        process.send_signal(number)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
    events = [r["event"] for r in Catalog.open(episode.parent / "catalog-data").rows("runs")]
    assert events[-1:] == ["interrupted"], events
