"""What an operator's machine does: folders named like ours, secrets beside the code, clocks that are set, proxies."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from catalog.store import Catalog
from catalog.views import all_takes
from cluster import code, start
from cluster.start import ClusterError
from pipeline.evidence.review import add_review
from pipeline.render.run_log import living

from .conftest import EPISODE, environment, refused, tower
from .test_catalog import row
from .test_drivers import log
from .test_jobs import free_ports

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
    with start._code_for_a_cluster() as runtime:
        folder = Path(runtime["working_dir"])
        there = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert not there & set(planted)
    assert {"gates/code.py", "configs/workflows/mine.yaml", "actors/demo/a.safetensors"} <= there
    assert not folder.exists(), "nothing stays behind"


def test_a_clock_that_is_set_does_not_end_a_claim(tmp_path, monkeypatch):
    row_of_me = log(Catalog.open(tmp_path)).row("started")
    create_time = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self, *args: create_time(self, *args) + 3600)
    assert living([row_of_me | {"at": datetime.now(UTC) - timedelta(days=1)}])
    space = row_of_me["pid_space"].rpartition(" ")[0]
    assert living([row_of_me | {"pid_space": f"{space} another-boot"}]) == [], "no process survives its machine's start"


def test_the_later_word_holds_whatever_the_clocks_say(tmp_path):
    catalog = Catalog.open(tmp_path)
    take = row(1) | {"outcome": "accepted"}
    catalog.append("takes", [take])

    def said() -> str:
        return all_takes(catalog)[0]["review"]

    ahead = datetime.now(UTC) + timedelta(minutes=10)
    word = {"take": take["take"], "at": ahead, "episode": take["episode"], "verdict": "retake", "by": "a machine that is ahead"}
    catalog.append("reviews", [word])
    assert said() == "retake"
    add_review(catalog, take["episode"], take["shot"], take["stage"], False, True, "", "a machine that is behind")
    assert said() == "approved"
    add_review(catalog, take["episode"], take["shot"], take["stage"], True, False, "", "again")
    assert said() == "retake"
    assert [r["by"] for r in catalog.rows("reviews")][1:] == ["a machine that is behind", "again"]


@pytest.mark.parametrize("table", ["controls", "judgements", "promotions", "reviews"])
def test_rows_that_answer_others_are_dated_after_them(tmp_path, table):
    catalog, ahead = Catalog.open(tmp_path), datetime.now(UTC) + timedelta(days=1)
    catalog.append(table, [{"at": ahead}])
    catalog.append_later(table, [{"by": "later"}] if table != "judgements" else [{"take": "later"}])
    first, second = catalog.rows(table)
    assert first["at"] == ahead and timedelta(0) < second["at"] - ahead < timedelta(seconds=1)


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


def test_what_cannot_be_a_cluster_is_an_error_of_ours():
    with pytest.raises(ClusterError):
        start.check_reachable("127.0.0.1:1")
