"""Renders as jobs on a Ray cluster that was there before: submitted once, told of, stopped, resumed."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from catalog.store import Catalog
from cluster import jobs
from pipeline.render.order import Order
from pipeline.render.ray_jobs import RayJobs, end_of
from pipeline.story.errors import InputError
from pipeline.story.settings import Settings

from .conftest import EPISODE, Done, refused, takes_of, tower
from .ray_cluster import TOKEN, Cluster, started


def short_episode() -> str:
    """The tests' episode with two shots, both of the quicker kind of clip."""
    told = yaml.safe_load(EPISODE)
    shots = told["sequences"][0]["shots"]
    for shot in shots:
        shot |= {"frames": 24, "fit": "hold", "clip_workflow": "animatediff_16_demo", "declares": ["hold"]}
    return yaml.safe_dump(told | {"sequences": told["sequences"][:1]}, sort_keys=False)


@pytest.fixture(scope="module")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with started(tmp_path_factory.mktemp("home")) as there:
        yield there


@pytest.fixture
def client(ray_cluster: Cluster, monkeypatch: pytest.MonkeyPatch):
    for name, value in ray_cluster.env().items():
        monkeypatch.setenv(name, value)
    return jobs.connect(ray_cluster.url)


def listed(cluster: Cluster, cwd: Path) -> dict[str, dict]:
    done = tower("jobs", "--json", cwd=cwd, **cluster.env())
    assert done.code == 0, done.err
    return {row["job"]: row for row in json.loads(done.out)}


@dataclass(frozen=True)
class Story:
    """An episode that was submitted twice, cancelled while it rendered, and submitted again to its end."""

    cwd: Path
    job: str
    first: Done
    second: Done
    cancelled: Done
    takes_then: list[dict]
    third: Done
    after: Done


@pytest.fixture(scope="module")
def story(ray_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Story:
    cwd = tmp_path_factory.mktemp("story")
    (cwd / "my episode.yaml").write_text(short_episode())

    def command(*args: str) -> Done:
        return tower(*args, cwd=cwd, timeout=240, **ray_cluster.env(TOWER_CATALOG_URI="./catalog-data", TOWER_DEVICES="1"))

    first = command("submit", "my episode.yaml")
    assert first.code == 0, first.out + first.err
    job = first.out.split()[2].rstrip(",")
    second = command("submit", "my episode.yaml")
    until_a_take_is_in(cwd)
    cancelled = command("cancel", job)
    takes_then = takes_of(cwd)
    third = command("submit", "my episode.yaml", "--wait")
    return Story(cwd, job, first, second, cancelled, takes_then, third, command("logs", f"{job}-2"))


def until_a_take_is_in(cwd: Path) -> None:
    for _ in range(1800):
        catalog = Catalog.find(cwd / "catalog-data")
        if catalog and catalog.rows("takes", columns=["take"]):
            return
        time.sleep(0.1)
    raise AssertionError("the job rendered nothing within three minutes")


def test_a_submission_tells_its_id_and_the_same_one_again_is_that_job(story):
    assert story.job.startswith("tower-E90-") and len(story.job) == len("tower-E90-1a2b3c4d5e6f")
    assert story.first.out.startswith(f"submitted as {story.job}, ")
    assert story.second.code == 0 and story.second.out.startswith(f"already submitted as {story.job}, "), story.second.err


def test_a_cancelled_render_ends_as_one_that_was_interrupted(story):
    assert story.cancelled.code == 0 and story.cancelled.out.strip() == f"{story.job} ended: STOPPED", story.cancelled.err
    events = [row["event"] for row in Catalog.open(story.cwd / "catalog-data").rows("runs")]
    assert "interrupted" in events and events[-1] == "finished"


def test_the_next_submission_is_another_job_and_renders_nothing_twice(story):
    assert story.third.code == 0, story.third.out + story.third.err
    assert f"submitted as {story.job}-2, " in story.third.out and f"{story.job}-2 ended: SUCCEEDED" in story.third.out
    takes = takes_of(story.cwd)
    accepted = [(t["shot"], t["stage"]) for t in takes if t["outcome"] == "accepted"]
    assert sorted(accepted) == [(shot, stage) for shot in ("SH0010", "SH0020") for stage in ("clip", "keyframe")]
    assert story.takes_then and [t["take"] for t in takes[: len(story.takes_then)]] == [t["take"] for t in story.takes_then]


def test_what_a_job_renders_lies_where_the_submitter_said(story):
    assert (story.cwd / "out" / "E90" / "episode.mp4").stat().st_size > 1000
    for take in takes_of(story.cwd):
        assert (story.cwd / "catalog-data" / take["media_path"]).is_file()


def test_a_job_joins_the_cluster_that_runs_it_with_the_settings_of_its_submitter(story, ray_cluster):
    (line,) = [line for line in story.after.out.splitlines() if line.startswith("Ray: ")]
    assert line.startswith("Ray: 1 ") and line.endswith(f"2 CPUs, dashboard {ray_cluster.url}"), line
    assert story.after.out in story.third.out, "--wait prints the job's log"


def test_jobs_are_listed_with_episode_state_and_age_and_none_but_ours(story, ray_cluster, client):
    client.submit_job(entrypoint="true", submission_id="somebody-elses")
    rows = listed(ray_cluster, story.cwd)
    assert "somebody-elses" not in rows
    assert {name: (row["episode"], row["state"], row["message"]) for name, row in rows.items() if name.startswith(story.job)} == {
        story.job: ("E90", "STOPPED", ""),
        f"{story.job}-2": ("E90", "SUCCEEDED", ""),
    }
    assert all(row["seconds"] > 0 and row["since"] for row in rows.values())


def ray_jobs(cluster: Cluster, cwd: Path) -> RayJobs:
    settings = Settings(_env_file=None, catalog_uri=str(cwd / "catalog-data"), models_dir=cwd / "models", devices=1)  # type: ignore[call-arg]
    return RayJobs(cluster.url, settings, Catalog.open(cwd / "catalog-data"))


def test_a_clusters_jobs_are_told_in_the_words_of_every_job_with_the_runs_that_they_began(story, ray_cluster, client):
    told = ray_jobs(ray_cluster, story.cwd)
    second, first = told.list("E90")
    runs = {row["job"]: row["run"] for row in told.catalog.rows("runs")}
    assert (first.job, first.state, first.run, first.message) == (story.job, "stopped", runs[story.job], "")
    assert (second.job, second.state, second.run) == (f"{story.job}-2", "succeeded", runs[f"{story.job}-2"])
    assert second.done == second.total and first.started < first.ended < second.started < second.ended  # type: ignore[operator]
    assert told.list("E99") == [] and told.find(first.job) == first and not first.cancellable
    assert told.stop(second.job) == second, "what has ended stays as it ended"
    text, offset = told.log(second.job)
    assert text == story.after.out and told.log(second.job, offset) == ("", offset)
    assert text[:7] + told.log(second.job, 7)[0] == text


def test_a_service_starts_a_job_on_a_cluster_and_stops_it(ray_cluster, client, tmp_path, seeded):
    shutil.copytree(seeded, tmp_path / "catalog-data")
    (tmp_path / "my episode.yaml").write_text(short_episode())
    told = ray_jobs(ray_cluster, tmp_path)
    order = Order(tmp_path / "my episode.yaml", tmp_path / "out", fresh=True)
    job = told.start(order)
    assert (job.episode, job.run, job.cancellable) == ("E90", None, True) and job.state == "queued"
    assert told.start(order).job == job.job, "the same order again is that job"
    while told.find(job.job).state == "queued":
        time.sleep(0.2)
    with pytest.raises(InputError, match="E90 is being rendered by run"):
        told.start(order)
    assert told.stop(job.job).state == "stopped"
    assert told.catalog.rows("runs")[-1]["event"] == "interrupted"


@pytest.mark.parametrize(
    ("state", "code", "said", "ended"),
    [
        ("FAILED", 3, "Job entrypoint command failed with exit code 3\nSH0010 exhausted: clip rejected", ("succeeded", "")),
        ("FAILED", 130, "interrupted", ("stopped", "")),
        ("FAILED", 2, "Job failed\nerror: no disk\nmore", ("failed", "error: no disk")),
        ("FAILED", None, "its node died\nmore", ("failed", "its node died")),
        ("STOPPED", None, "Job was intentionally stopped.", ("stopped", "")),
        ("SUCCEEDED", 0, "Job finished successfully.", ("succeeded", "")),
    ],
)
def test_how_a_clusters_job_ended_is_told_by_its_exit_code(state, code, said, ended):
    end = end_of(jobs.Job("tower-E90-1", state, said, None, None, code))
    assert end and (end.state, end.message) == ended


def test_a_job_whose_render_is_refused_fails_with_the_renders_own_sentence_and_exit_code(ray_cluster, tmp_path):
    text = short_episode().replace("id: E90", "id: E92").replace("animatediff_16_demo", "animatediff_16")  # its weights are nowhere
    (tmp_path / "episode.yaml").write_text(text)
    done = tower("submit", "episode.yaml", "--wait", cwd=tmp_path, **ray_cluster.env())
    assert done.code == 2 and "ended: FAILED" in done.out, done.out + done.err
    (row,) = [row for row in listed(ray_cluster, tmp_path).values() if row["episode"] == "E92"]
    assert row["state"] == "FAILED" and row["message"].startswith("error: workflow animatediff_16: checkpoint")


def test_of_two_submitters_at_once_one_is_told_of_the_others_job(client, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    first, new = jobs.submit(client, "race", "sleep 100", tmp_path, {}, {})
    look, looks = jobs.jobs, []

    def too_early(*args):
        looks.append(args)
        return [] if len(looks) == 1 else look(*args)

    monkeypatch.setattr(jobs, "jobs", too_early)
    second, also_new = jobs.submit(client, "race", "sleep 100", tmp_path, {}, {})
    assert (first.id, new, second.id, also_new, len(looks)) == ("race", True, "race", False, 2)
    assert jobs.stop(client, "race").state == "STOPPED"


def test_a_cluster_that_wants_a_token_is_one_sentence_without_it_and_with_a_wrong_one(ray_cluster, tmp_path):
    refused(tower("jobs", cwd=tmp_path, **ray_cluster.env(RAY_AUTH_TOKEN="")), ray_cluster.url, "wants a token", "RAY_AUTH_TOKEN")
    refused(tower("jobs", cwd=tmp_path, **ray_cluster.env(RAY_AUTH_TOKEN="another")), "does not take this token")
    (tmp_path / "token").write_text(TOKEN + "\n")
    done = tower("jobs", cwd=tmp_path, **ray_cluster.env(RAY_AUTH_TOKEN="", RAY_AUTH_TOKEN_PATH=str(tmp_path / "token")))
    assert done.code == 0, done.err


def test_a_job_that_is_not_there_is_one_sentence(ray_cluster, tmp_path):
    for command in ("logs", "cancel"):
        refused(tower(command, "tower-E90-nowhere", cwd=tmp_path, **ray_cluster.env()), "has no job tower-E90-nowhere", "tower jobs")
