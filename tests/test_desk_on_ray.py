"""The desk on Ray Serve, on a cluster that was there before: the same desk, whose renders are jobs of the cluster."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import httpx
import psutil
import pytest
import requests
import yaml
from playwright.sync_api import Browser, expect
from ray.serve.schema import ServeDeploySchema

from .browser import CHROMIUM, SEEN, chromium, opened
from .conftest import EPISODE, PROJECT, environment, refused, tower
from .journey import RENDERED, from_file_to_movie
from .ray_cluster import TOKEN, Cluster, free_ports, started
from .service import Served, serving

CONFIG = PROJECT / "configs" / "serve" / "desk.yaml"
STREAMS = 300
ASKED = {"Authorization": f"Bearer {TOKEN}"}  # of Ray's own API
with_a_browser = pytest.mark.skipif(not CHROMIUM, reason="no chromium is installed on this machine")


@pytest.fixture(scope="module")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with started(tmp_path_factory.mktemp("home")) as there:
        yield there


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=SEEN)
    with chromium() as found:
        yield found


def joining(cluster: Cluster) -> dict[str, str]:
    """What a person who joins the cluster has in the environment."""
    return cluster.env(RAY_ADDRESS=cluster.address, RAY_AUTH_MODE="token")


def on_ray(cluster: Cluster, cwd: Path, port: int) -> AbstractContextManager[Served]:
    """`tower serve --on-ray` on the cluster, over the catalog in `cwd`."""
    return serving(cwd, "--on-ray", "--port", str(port), **joining(cluster))


def applications(cluster: Cluster) -> dict[str, dict]:
    return requests.get(f"{cluster.url}/api/serve/applications/", headers=ASKED, timeout=60).json()["applications"]


def serve_processes(cluster: Cluster) -> list[psutil.Process]:
    """Controller, proxy and replicas of Ray Serve."""
    return [p for p in psutil.Process(cluster.process.pid).children(recursive=True) if title(p).startswith(("ray::Serve", "ray::Proxy"))]


def title(process: psutil.Process) -> str:
    try:
        return process.cmdline()[0]
    except (psutil.NoSuchProcess, IndexError):  # it ends at this moment
        return ""


def replica(cluster: Cluster) -> psutil.Process:
    """The desk's replica, as soon as there is one."""
    for _ in range(600):
        for process in serve_processes(cluster):
            if title(process).startswith("ray::ServeReplica:tower-desk"):
                return process
        time.sleep(0.2)
    raise AssertionError("no replica runs")


def until_job_is(client: httpx.Client, job: str, *states: str) -> dict:
    for _ in range(1500):
        told = client.get(f"/jobs/{job}").json()
        if told["state"] in states:
            return told
        time.sleep(0.2)
    raise AssertionError(told)


def submit(client: httpx.Client, episode: str) -> None:
    text = EPISODE.replace("id: E90", f"id: {episode}")
    answer = client.post("/episodes", content=text.encode(), headers={"content-type": "application/yaml"})
    assert answer.status_code == 201, answer.text


def rendering(client: httpx.Client, episode: str) -> str:
    """Submit an episode and render it. Gives the job's id."""
    submit(client, episode)
    answer = client.post("/jobs", json={"episode": episode})
    assert answer.status_code == 202, answer.text
    return answer.json()["job"]


@pytest.fixture
def no_serve(ray_cluster: Cluster) -> Cluster:
    """The cluster, on which nobody has started Ray Serve."""
    assert applications(ray_cluster) == {}
    return ray_cluster


# These need a cluster without a desk, and stand before the desk of all other tests for that.


def test_without_a_cluster_it_is_one_sentence(tmp_path: Path) -> None:
    refused(tower("serve", "--on-ray", cwd=tmp_path), "no cluster is named: set RAY_ADDRESS")
    (nobody,) = free_ports(1)
    refused(tower("serve", "--on-ray", cwd=tmp_path, RAY_ADDRESS=f"127.0.0.1:{nobody}"), "could not join", str(nobody), "refused")
    assert not (tmp_path / "catalog-data").exists()


def test_a_port_that_another_program_has_is_one_sentence_and_serve_does_not_stay(no_serve: Cluster, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        refused(tower("serve", "--on-ray", "--port", port, cwd=tmp_path, **joining(no_serve)), f"127.0.0.1:{port}", "--port")
    assert not serve_processes(no_serve)


def test_a_catalog_that_the_clusters_head_does_not_see_is_one_sentence(no_serve: Cluster, tmp_path: Path) -> None:
    hide = 'mount -t tmpfs tmpfs "$0" && cd "$0" && exec "$@"'
    apart = ["unshare", "-rm", "sh", "-c", hide, str(tmp_path)]
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a folder for one process alone")
    env = environment(tmp_path, TOWER_CATALOG_URI="mine", **joining(no_serve))
    command = [*apart, sys.executable, "-m", "pipeline.cli", "serve", "--on-ray"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert f"folder {tmp_path / 'mine'} is not on the cluster's head" in done.stderr and not list(tmp_path.iterdir())


def test_the_serve_config_is_the_same_desk_and_is_not_replaced_by_the_command(no_serve: Cluster, tmp_path: Path) -> None:
    config = yaml.safe_load(CONFIG.read_text())
    schema = ServeDeploySchema.model_validate(config)
    assert (schema.http_options.host, schema.proxy_location, len(schema.applications)) == ("127.0.0.1", "HeadOnly", 1)

    (app,) = config["applications"]
    port, another = free_ports(2)
    config["http_options"]["port"] = port
    app["runtime_env"]["env_vars"] = {"TOWER_CATALOG_URI": str(tmp_path / "catalog-data"), "PYTHONPATH": str(PROJECT)}  # as the image has it
    told = requests.put(f"{no_serve.url}/api/serve/applications/", json=config, headers=ASKED, timeout=120)
    assert told.ok, told.text
    try:
        until_it_answers(no_serve, port)
        assert requests.get(f"http://127.0.0.1:{port}/episodes", timeout=60).json() == []
        assert requests.get(f"http://127.0.0.1:{port}/episodes", headers={"Host": "evil.example"}, timeout=60).status_code == 421
        taken = tower("serve", "--on-ray", "--port", str(port), cwd=tmp_path, **joining(no_serve))
        refused(taken, "tower-desk runs on this cluster already", f"http://127.0.0.1:{port}")
        requests.put(f"{no_serve.url}/api/serve/applications/", json=config | {"applications": []}, headers=ASKED, timeout=120)
        until_nothing_is_served(no_serve)
        elsewhere = tower("serve", "--on-ray", "--port", str(another), cwd=tmp_path, **joining(no_serve))
        refused(elsewhere, f"listens on 127.0.0.1:{port}", f"cannot listen on 127.0.0.1:{another}")
    finally:
        requests.delete(f"{no_serve.url}/api/serve/applications/", headers=ASKED, timeout=120)


def test_the_commands_end_takes_the_desk_away_and_leaves_the_cluster_and_its_renders(no_serve: Cluster, tmp_path: Path) -> None:
    first, second = free_ports(2)
    with on_ray(no_serve, tmp_path, first) as service:
        job = rendering(service.client, "E90")
        until_job_is(service.client, job, "running")
        assert ended_by(signal.SIGTERM, service) == 0
    assert applications(no_serve) == {} and closed(first)
    with on_ray(no_serve, tmp_path, second) as service:
        assert until_job_is(service.client, job, "running", "succeeded")
        assert service.client.post(f"/jobs/{job}/cancel").json()["state"] in ("stopped", "succeeded")
        assert ended_by(signal.SIGINT, service) == 0
    assert applications(no_serve) == {} and closed(second)


def ended_by(number: signal.Signals, service: Served) -> int:
    service.process.send_signal(number)
    code = service.process.wait(120)
    assert service.log.read_text() == ""
    return code


def closed(port: int) -> bool:
    """Whether nobody listens there any more: the process that did ends a moment after Ray has told it to."""
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return True
        time.sleep(0.1)
    return False


def until_it_answers(cluster: Cluster, port: int) -> None:
    for _ in range(600):
        try:
            if requests.get(f"http://127.0.0.1:{port}/health", timeout=5).json().get("status") == "ok":
                return
        except (requests.exceptions.RequestException, ValueError):
            pass
        time.sleep(0.2)
    raise AssertionError(applications(cluster))


def until_nothing_is_served(cluster: Cluster) -> None:
    for _ in range(600):
        if not applications(cluster):
            return
        time.sleep(0.2)
    raise AssertionError(applications(cluster))


@pytest.fixture(scope="module")
def desk(ray_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A desk over a new catalog."""
    with on_ray(ray_cluster, tmp_path_factory.mktemp("desk"), free_ports(1)[0]) as service:
        yield service


@pytest.fixture(scope="module")
def used(desk: Served, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """The desk after E90 went the whole way."""
    file = tmp_path_factory.mktemp("story") / "episode.yaml"
    file.write_text(EPISODE)
    with opened(browser, str(desk.client.base_url)) as page:
        from_file_to_movie(page, desk, file)
    return desk


@with_a_browser
def test_an_episode_goes_from_its_file_to_a_movie_with_renders_that_are_jobs_of_the_cluster(used: Served, ray_cluster: Cluster) -> None:
    jobs = {job["submission_id"]: job["status"] for job in requests.get(f"{ray_cluster.url}/api/jobs/", headers=ASKED, timeout=60).json()}
    told = used.client.get("/jobs?episode=E90").json()
    assert [job["state"] for job in told] == ["succeeded", "succeeded"]
    assert all(jobs[job["job"]] == "SUCCEEDED" for job in told)


@with_a_browser
def test_media_come_whole_and_in_parts_through_the_proxy(used: Served) -> None:
    path = "/takes/E90/SH0010/clip/v001/media"
    whole = used.client.get(path)
    part = used.client.get(path, headers={"Range": "bytes=100-299"})
    assert (whole.status_code, part.status_code, part.content) == (200, 206, whole.content[100:300])
    assert part.headers["content-range"] == f"bytes 100-299/{len(whole.content)}" and whole.headers["content-type"] == "video/mp4"
    assert used.client.get(path, headers={"Range": f"bytes={len(whole.content)}-"}).status_code == 416


def test_doctor_and_models_tell_of_the_clusters_machines(desk: Served) -> None:
    told = {notice["check"]: notice["told"] for notice in desk.client.get("/doctor").json()}
    assert "2 GPUs" in told["devices"], told["devices"]
    nodes = {row["node"] for row in desk.client.get("/models").json()}
    assert len(nodes) == 2 and "this machine" in nodes


def test_strangers_are_refused_behind_the_proxy_as_they_are_without_it(desk: Served) -> None:
    assert desk.client.get("/episodes", headers={"Host": "evil.example"}).status_code == 421
    assert desk.client.post("/reviews", json={}, headers={"Origin": "http://evil.example"}).status_code == 403
    assert desk.client.post("/reviews", json={}, headers={"Origin": str(desk.client.base_url).rstrip("/")}).status_code == 422
    assert desk.client.post("/episodes", content=b"x" * 4_000_001, headers={"content-type": "application/yaml"}).status_code == 413


def test_three_hundred_listeners_hear_of_the_same_event(desk: Served) -> None:
    with ExitStack() as stack:
        listeners = [stack.enter_context(listening(desk.port)) for _ in range(STREAMS)]
        submit(desk.client, "E92")
        for listener in listeners:
            assert any(b"E92" in line for line in listener)


@contextmanager
def listening(port: int) -> Iterator[BinaryIO]:
    """The lines of a listener who has heard the first words of the stream, which come before anything happens."""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection, connection.makefile("rb") as lines:
        connection.sendall(f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        assert b" 200 " in lines.readline() and any(line.startswith(b"retry: ") for line in lines)
        yield lines


@with_a_browser
def test_a_killed_replica_is_replaced_while_the_render_and_the_page_go_on(desk: Served, ray_cluster: Cluster, browser: Browser) -> None:
    job = rendering(desk.client, "E91")
    with opened(browser, f"{desk.client.base_url}#/E91", faults=False) as page:
        expect(page.locator(".card.run").first).to_be_visible(timeout=RENDERED)
        killed = replica(ray_cluster)
        killed.kill()
        killed.wait(60)
        expect(page.locator(".card.ok")).to_have_count(3, timeout=RENDERED)
        expect(page.get_by_role("button", name="Nothing is stale")).to_be_visible(timeout=RENDERED)
        expect(page.locator(".heard")).to_have_text("")
    assert replica(ray_cluster).pid != killed.pid
    assert until_job_is(desk.client, job, "succeeded", "failed")["state"] == "succeeded"
