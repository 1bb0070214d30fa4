"""The registry: versions never change, and a status is what evidence makes it."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import pipeline.registry.workflows
from catalog.standing import Demands, Now, figures, pair, shortfalls, standing
from pipeline.evidence.pages import pages
from pipeline.registry.open_catalog import open_catalog
from pipeline.registry.workflows import Registry
from pipeline.story.settings import load_settings
from pipeline.story.suite import SUITES, load_suite
from pipeline.story.workflow import WORKFLOWS

from .conftest import EPISODE, PROJECT, refused, tower

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
NOW = Now("digest", {"torch": "2.13.0"}, "anime#1", {"demo": ("suite", Demands(0.8, 60, 4e9))})


def cells(passed: int, of: int = 42, **more: Any) -> list[dict[str, Any]]:
    head = {
        "benchmark": "b1",
        "at": BEGAN,
        "suite": "demo",
        "suite_digest": "suite",
        "cells": of,
        "digest": "digest",
        "profile": "anime#1",
        "libraries": {"torch": "2.13.0"},
        "device": "a card",
        "device_seconds": 2.0,
        "encode_seconds": 0.5,
        "gate_seconds": 1.0,
        "peak_memory_bytes": 2_000_000_000,
    } | more
    outcome = lambda n: {"outcome": "accepted", "labels": []} if n < passed else {"outcome": "rejected", "labels": ["frozen"]}  # noqa: E731
    return [head | {"case": f"c{n // 3}", "seed": n % 3, "shot": f"SH{n:04d}"} | outcome(n) for n in range(of)]


def decided(action: str, day: int = 1, **more: Any) -> dict[str, Any]:
    return {"action": action, "at": BEGAN + timedelta(days=day), "digest": "digest", "evidence": "b1", "by": "Mika", "why": "slow"} | more


def status(ledger: list[dict], rows: list[dict], now: Now = NOW) -> tuple[str, str]:
    found = standing(now, ledger, lambda name: rows if name == "b1" else [], ["b1"] if rows and rows[0]["digest"] == now.digest else [])
    return found.status, found.why


def test_without_rows_a_workflow_is_experimental():
    assert status([], [])[0] == "experimental"


def test_a_benchmark_that_meets_the_suite_makes_a_candidate_and_a_failing_one_does_not():
    assert status([], cells(41))[0] == "candidate"
    found, why = status([], cells(31))
    assert found == "experimental" and "31 of 42" in why and "0.589" in why and "0.800" in why


def test_a_promotion_makes_it_proven_and_names_the_device():
    found, why = status([decided("promote")], cells(41))
    assert found == "proven" and "a card" in why and "Mika" in why


@pytest.mark.parametrize(
    ("now", "rows", "words"),
    [
        (Now("other", {"torch": "2.13.0"}, "anime#1", NOW.suites), cells(41), "a model file changed"),
        (Now("other", {"torch": "2.14.0"}, "anime#1", NOW.suites), cells(41), "torch is 2.14.0, was 2.13.0"),
        (Now(None, {"torch": "2.13.0"}, "anime#1", NOW.suites), cells(41), "its model files are not here"),
        (Now("digest", {}, "anime#1", {"demo": ("changed", Demands(0.8))}), cells(41), "suite demo changed"),
        (Now("digest", {}, "anime#1", {}), cells(41), "suite demo is not here any more"),
        (Now("digest", {}, "anime#2", NOW.suites), cells(41), "anime#2, was anime#1"),
        (NOW, [], "its rows are not in this catalog"),
    ],
)
def test_what_changed_since_makes_it_stale_by_itself(now, rows, words):
    found, why = status([decided("promote")], rows, now)
    assert found == "stale" and words in why, why


def test_the_last_word_of_the_ledger_holds():
    assert status([decided("promote"), decided("deprecate", 2)], cells(41)) == ("deprecated", "slow")
    assert status([decided("promote"), decided("archive", 2)], cells(41))[0] == "archived"
    assert status([decided("deprecate"), decided("promote", 2)], cells(41))[0] == "proven"


def test_figures_count_what_was_judged():
    rows = cells(30, 42)
    rows[0] |= {"outcome": "no_keyframe", "device_seconds": None}
    rows[41] |= {"outcome": "error", "labels": []}
    found = figures(rows[:-2])
    assert (found.cells, found.missing, found.judged, found.passed) == (42, 2, 39, 29)
    assert found.labels == {"frozen": 10} and found.clips_per_hour == pytest.approx(3600 * 29 / (39 * 2.0))


def test_every_demand_that_is_missed_is_told_with_its_number():
    slow = cells(20, 42, device_seconds=100.0, peak_memory_bytes=5_000_000_000)[:-1]
    told = "; ".join(shortfalls(figures(slow), NOW.suites["demo"][1]))
    assert all(word in told for word in ("1 of 42 cells", "20 of 41", "100.00 s", "60.00 s", "5.00 GB", "4.00 GB")), told
    assert shortfalls(figures(cells(42)), NOW.suites["demo"][1]) == []


def test_pairing_is_by_case_and_seed_and_its_p_is_the_exact_sign_tests():
    found = pair(cells(30), cells(40))
    assert (found.both, found.only_new, found.only_old, found.neither) == (30, 0, 10, 2)
    assert found.p == pytest.approx(2 / 2**10) and found.is_worse
    assert not pair(cells(40), cells(41)).is_worse and pair(cells(40), cells(40)).p == 1


# --- the command line ---------------------------------------------------------------------------------------------


def statuses(here) -> dict[str, str]:
    return {row["workflow"]: row["status"] for row in json.loads(here("workflows", "list", "--json").out)}


def test_a_fresh_catalog_proves_the_demos_workflows_and_no_others(here):
    found = statuses(here)
    assert {name for name, status in found.items() if status == "proven"} == {
        "sd15_keyframe_demo@1",
        "ltx_video_2b_demo@1",
        "animatediff_16_demo@2",
        "upscale_compact_demo@1",
    }
    assert {found[name] for name in ("ltx_video_2b@1", "animatediff_16@2", "sd15_keyframe@1")} == {"experimental"}
    assert {name for name, status in found.items() if status == "archived"} >= {"animatediff_16_demo@1", "animatediff_16_demo_text@1"}


@pytest.mark.parametrize("broken", ["_add_evidence", "_add_aliases", "registry_row"])
def test_a_catalog_whose_first_opening_was_cut_off_gets_the_rest_the_next_time(here, monkeypatch, broken):
    with monkeypatch.context() as patch:

        def cut(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(f"pipeline.registry.open_catalog.{broken}", cut)
        assert here("workflows", "list").code == 130
    wanted = statuses(here)
    assert wanted["ltx_video_2b_demo@1"] == "proven" and wanted["animatediff_16_demo@1"] == "archived"
    counts = "SELECT (SELECT count(*) FROM benchmarks) AS benchmarks, (SELECT count(*) FROM promotions) AS promotions, (SELECT count(*) FROM workflows) AS workflows"
    rows = json.loads(here("catalog", "query", counts, "--json").out)
    assert rows == [{"benchmarks": 7 * 42 + 20, "promotions": 15, "workflows": len(wanted)}]


def test_the_documents_are_what_the_evidence_says(tmp_path):
    settings = load_settings().model_copy(update={"catalog_uri": str(tmp_path / "catalog")})
    for name, text in pages(Registry(open_catalog(settings), settings)).items():
        assert (PROJECT / "docs" / name).read_text() == text, "run `make docs`"


def test_a_registered_version_never_changes(tmp_path, here):
    text = (WORKFLOWS / "ltx_video_2b_demo.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("num_inference_steps: 6", "num_inference_steps: 5").replace("timesteps", "# "))
    refused(here("workflows", "register", "mine.yaml"), "ltx_video_2b_demo@1", "num_inference_steps 6 → 5", "set version: 2")
    (tmp_path / "mine.yaml").write_text((tmp_path / "mine.yaml").read_text().replace("version: 1", "version: 2"))
    assert "ltx_video_2b_demo@2 registered" in here("workflows", "register", "mine.yaml").out
    assert "registered before, and is the same" in here("workflows", "register", "mine.yaml").out
    assert statuses(here)["ltx_video_2b_demo@2"] == "experimental" and statuses(here)["ltx_video_2b_demo@1"] == "proven"
    rows = json.loads(here("workflows", "diff", "ltx_video_2b_demo@1", "ltx_video_2b_demo@2", "--json").out)
    assert {"what": "settings.num_inference_steps", "ltx_video_2b_demo@1": 6, "ltx_video_2b_demo@2": 5} in rows and {
        r["what"] for r in rows
    } == {
        "settings.version",
        "settings.num_inference_steps",
        "settings.timesteps",
    }


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("guidance_scale: 1.0", "guidance_scale: 99", ["mine.yaml:", "'guidance_scale'", "less than or equal to 30"]),
        ("fps: 24", "fps: 24\nsampler: euler", ["mine.yaml:", "unknown field 'sampler'"]),
        ("fps: 24", "fps: 24\nparameters: {sampler: {minimum: 1, maximum: 2}}", ["mine.yaml:", "sampler"]),
        ("fps: 24", "fps: 24\nparameters: {keyframe_crf: {minimum: 1, maximum: 2}}", ["keyframe_crf", "None is not between 1 and 2"]),
        ("fps: 24", "fps: 24\nparameters: {num_inference_steps: {minimum: 1, maximum: 9}}", ["num_inference_steps means nothing here"]),
        ("name: ltx_video_2b_demo", "name: '../x'", ["'name'"]),
    ],
)
def test_a_workflow_file_with_a_fault_is_one_sentence(tmp_path, here, old, new, words):
    text = (WORKFLOWS / "ltx_video_2b_demo.yaml").read_text()
    assert old in text
    (tmp_path / "mine.yaml").write_text(text.replace(old, new, 1))
    refused(here("workflows", "register", "mine.yaml"), *words)


def test_names_versions_aliases_and_digests_mean_the_same_workflow(here):
    shown = json.loads(here("workflows", "show", "ltx_video_2b_demo", "--json").out)
    assert shown["workflow"] == "ltx_video_2b_demo@1" and shown["status"] == "proven" and shown["models"]["demo:ltx-video"]
    for ref in ("ltx_video_2b_demo@1", "ltx_demo", "#" + shown["settings_digest"][:12], "#" + shown["digest"][:12]):
        assert json.loads(here("workflows", "show", ref, "--json").out)["settings_digest"] == shown["settings_digest"], ref
    assert json.loads(here("workflows", "show", "animatediff_16_demo", "--json").out)["workflow"] == "animatediff_16_demo@2"
    refused(here("workflows", "show", "ltx_video_2b_demos"), "unknown workflow", "did you mean 'ltx_video_2b_demo'?")
    refused(here("workflows", "show", "ltx_video_2b_demo@7"), "no such version", "ltx_video_2b_demo@1")
    refused(here("workflows", "show", "#00000000"), "no registered workflows")


def test_an_alias_moves_and_cannot_take_a_workflows_name(here):
    assert here("workflows", "alias", "best", "ltx_video_2b_demo").code == 0
    assert here("workflows", "alias", "best", "animatediff_16_demo@2").code == 0
    assert json.loads(here("workflows", "show", "best", "--json").out)["workflow"] == "animatediff_16_demo@2"
    refused(here("workflows", "alias", "ltx_video_2b", "animatediff_16"), "a workflow has that name")
    refused(here("workflows", "alias", "best", "nothing_like_it_at_all"), "unknown workflow")


def test_a_retired_workflow_still_loads_and_tells_why(here):
    shown = json.loads(here("workflows", "show", "animatediff_16_demo@1", "--json").out)
    assert shown["status"] == "archived" and shown["settings"]["strength"] == 0.7
    told = here("workflows", "explain", "animatediff_16_demo@1")
    assert "archived" in told.out and "wrong_first_frame" in told.out and "archive by the project" in told.out
    assert told.out.count("figures tear apart") == 1
    again = json.loads(here("workflows", "show", "#" + shown["settings_digest"][:10], "--json").out)
    assert again["workflow"] == "animatediff_16_demo@1"


BEFORE = {  # what the system before this one rendered with, and words of what is known to be wrong with it
    "ltx_2b_121_frame_workflow": (
        {
            "family": "ltx_video", "width": 768, "height": 512, "num_frames": 121, "fps": 24.0, "num_inference_steps": 20, "guidance_scale": 3.0,
            "strength": 0.8, "timesteps": None, "scheduler": "checkpoint", "checkpoint": "ltx-video-2b-0.9.8-distilled",
            "negative_prompt": "static, boring, low quality, blurry, ugly, distorted, bad animation",
        },
        ["wants guidance 1 and 8 noise levels", "empty latent", "hard-coded", "ltx_video_2b has its place"],
    ),
    "anime_basic_animatediff": (
        {
            "family": "animatediff", "width": 512, "height": 288, "num_frames": 16, "fps": 8.0, "num_inference_steps": 20, "guidance_scale": 7.0,
            "strength": 1.0, "scheduler": "euler_ancestral", "checkpoint": "aom3a1b", "motion_adapter": "animatediff-motion-adapter-v1-5-2",
            "negative_prompt": "static, still, no motion, blurry",
        },
        ["empty latent", "hard-coded", "LoRA was skipped in silence, on 13 of 16 characters", "animatediff_16 has its place"],
    ),
    "aom3a1b_keyframe": (
        {
            "family": "stable_diffusion", "width": 768, "height": 512, "num_inference_steps": 25, "guidance_scale": 7.5,
            "scheduler": "dpmpp_2m_karras", "checkpoint": "aom3a1b",
        },
        ["never reached the video", "second gate judged clips without them", "hard-coded", "13 of 16 characters", "sd15_keyframe has its place"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BEFORE)
def test_what_the_system_before_rendered_with_is_kept_as_it_was_with_what_was_wrong_and_nothing_renders_with_it(here, tmp_path, name):
    settings, words = BEFORE[name]
    shown = json.loads(here("workflows", "show", f"{name}@1", "--json").out)
    assert shown["status"] == "archived" and shown["source"].startswith("archive/") and {k: shown["settings"].get(k) for k in settings} == settings
    assert all(word in shown["why"] for word in ("Known to be wrong: ", *words)), shown["why"]
    role = "keyframe_workflow: sd15_keyframe_demo" if settings["family"] == "stable_diffusion" else "clip_workflow: ltx_video_2b_demo"
    (tmp_path / "episode.yaml").write_text(EPISODE.replace(role, f"{role.split(':')[0]}: {name}").replace("frames: 60", "frames: 48"))
    for folder, demo in ((settings["checkpoint"], "ltx-video" if "num_frames" in settings and "motion_adapter" not in settings else "stable-diffusion"), (settings.get("motion_adapter"), "motion-adapter")):
        if folder:
            shutil.copytree(PROJECT / "actors" / "demo" / demo, tmp_path / "models" / folder)
    refused(here("render", "episode.yaml"), f"{name}@1 is archived", "--allow-experimental")
    assert name not in here("doctor").out and name not in here("models", "check", "--json").out


def test_a_promotion_without_evidence_or_with_a_failing_benchmark_is_refused_with_the_numbers(here):
    evidence = json.loads(here("workflows", "explain", "animatediff_16_demo@1", "--json").out)["cells"][0]["benchmark"]
    other = json.loads(here("workflows", "explain", "ltx_video_2b_demo@1", "--json").out)["cells"][0]["benchmark"]
    refused(here("workflows", "promote", "animatediff_16_demo@1", "--evidence", evidence, "--by", "Mika"), "of 42 first takes", "0.800")
    refused(here("workflows", "promote", "animatediff_16_demo@1", "--evidence", other), "is of ltx_video_2b_demo@1")
    refused(here("workflows", "promote", "ltx_video_2b_demo@1", "--evidence", "nothing"), "there is no benchmark nothing", other)
    refused(here("workflows", "promote", "ltx_video_2b@1", "--evidence", other), "checkpoint", "does not exist")
    assert here("workflows", "promote", "ltx_video_2b_demo@1").code == 2
    refused(here("workflows", "archive", "ltx_video_2b_demo@1"), "say --why")
    refused(here("workflows", "archive", "ltx_video_2b_demo@1", "--why", "x", "--evidence", "nothing"), "no benchmark nothing")


@pytest.fixture
def easy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite of 42 cells that asks for little: the demo's own asks for so much that whoever passes it loses to nobody."""
    (tmp_path / "suites").mkdir()
    text = (SUITES / "demo.yaml").read_text().replace("name: demo\n", "name: easy\n", 1).replace("pass_rate: 0.80", "pass_rate: 0.50")
    (tmp_path / "suites" / "easy.yaml").write_text(text)
    monkeypatch.setattr("pipeline.story.suite.SUITES", tmp_path / "suites")


def measured(ref: str, passed: int) -> str:
    """Adds a benchmark of the suite `easy`, in which that many first takes were accepted, to the catalog. Returns its id."""
    registry = Registry(open_catalog(load_settings()), load_settings())
    ready = registry.prepare(registry.resolve(ref, "a test"))
    of = {"benchmark": f"easy-{ref}", "suite": "easy", "suite_digest": registry.suites["easy"][0], "stage": "clip"}
    made_by = {"workflow": ready.workflow.name, "version": ready.workflow.version, "digest": ready.digest}
    registry.catalog.append("benchmarks", cells(passed, **of, **made_by, profile=ready.profile_identity))
    return f"easy-{ref}"


@pytest.mark.parametrize(("passed", "is_worse"), [(36, True), (37, False)])
def test_a_version_that_loses_against_a_proven_one_on_the_same_cells_cannot_be_promoted(tmp_path, here, easy, passed, is_worse):
    text = (WORKFLOWS / "ltx_video_2b_demo.yaml").read_text().replace("version: 1", "version: 2")
    (tmp_path / "two.yaml").write_text(text.replace("num_inference_steps: 6", "num_inference_steps: 6\ndtype: float32"))
    assert here("workflows", "register", "two.yaml").code == 0
    old, new = measured("ltx_video_2b_demo@1", 42), measured("ltx_video_2b_demo@2", passed)
    assert here("workflows", "promote", "ltx_video_2b_demo@1", "--evidence", old).code == 0
    assert statuses(here)["ltx_video_2b_demo@2"] == "candidate", "by itself it is good enough"
    done = here("workflows", "promote", "ltx_video_2b_demo@2", "--evidence", new)
    if is_worse:
        refused(done, "ltx_video_2b_demo@1 is better on the same cells", "6 pass only there, 0 only here (p 0.031)")
    assert statuses(here)["ltx_video_2b_demo@2"] == ("candidate" if is_worse else "proven")


def test_the_ledger_moves_a_status_and_a_benchmark_brings_it_back(here):
    evidence = json.loads(here("workflows", "explain", "ltx_video_2b_demo@1", "--json").out)["cells"][0]["benchmark"]
    assert here("workflows", "deprecate", "ltx_video_2b_demo@1", "--why", "a better one came", "--by", "Mika").code == 0
    assert statuses(here)["ltx_video_2b_demo@1"] == "deprecated"
    assert here("workflows", "explain", "ltx_video_2b_demo@1").out.count("a better one came") == 1
    assert here("workflows", "promote", "ltx_video_2b_demo@1", "--evidence", evidence, "--by", "Mika").code == 0
    assert statuses(here)["ltx_video_2b_demo@1"] == "proven"
    assert "by Mika: a better one came" in here("workflows", "explain", "ltx_video_2b_demo@1").out, "the ledger keeps what no longer holds"


def test_a_changed_library_model_file_or_suite_makes_the_status_stale(tmp_path, here, monkeypatch):
    changed = pipeline.registry.workflows.libraries() | {"torch": "9.9.9"}
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.registry.workflows.libraries", lambda *_: changed)
        assert statuses(here)["ltx_video_2b_demo@1"] == "stale"
        assert "torch is 9.9.9" in here("workflows", "explain", "ltx_video_2b_demo").out
    with monkeypatch.context() as patch:
        shutil.copytree(PROJECT / "actors" / "demo" / "ltx-video", tmp_path / "demo" / "ltx-video")
        shutil.copytree(PROJECT / "actors" / "demo" / "stable-diffusion", tmp_path / "demo" / "stable-diffusion")
        shutil.copytree(PROJECT / "actors" / "demo" / "motion-adapter", tmp_path / "demo" / "motion-adapter")
        patch.setattr("pipeline.registry.files.DEMO", tmp_path / "demo")
        assert statuses(here)["ltx_video_2b_demo@1"] == "proven", "the same bytes elsewhere are the same model"
        config = tmp_path / "demo" / "ltx-video" / "scheduler" / "scheduler_config.json"
        config.write_text(config.read_text() + "\n")
        found = statuses(here)
        assert found["ltx_video_2b_demo@1"] == "stale" and found["animatediff_16_demo@2"] == "proven"
    with monkeypatch.context() as patch:
        suites = tmp_path / "suites"
        shutil.copytree(SUITES, suites)
        file = suites / "demo.yaml"
        file.write_text(file.read_text().replace("pass_rate: 0.80", "pass_rate: 0.81"))
        patch.setattr("pipeline.story.suite.SUITES", suites)
        assert statuses(here)["ltx_video_2b_demo@1"] == "stale"
        file.write_text(
            file.read_text().replace("pass_rate: 0.81", "pass_rate: 0.80").replace("description: ", "description: Once more. ", 1)
        )
        assert statuses(here)["ltx_video_2b_demo@1"] == "proven", "a description demands nothing"
    assert statuses(here)["ltx_video_2b_demo@1"] == "proven"


def test_a_render_refuses_what_is_not_proven_before_anything_starts(tmp_path, here):
    (tmp_path / "episode.yaml").write_text(EPISODE.replace("clip_workflow: animatediff_16_demo", "clip_workflow: animatediff_16_demo@1"))
    done = here("render", "episode.yaml")
    refused(done, "animatediff_16_demo@1 is archived", "--allow-experimental")
    assert "Ray" not in done.out and here("plan", "episode.yaml").code == 0


@pytest.mark.ray
def test_a_benchmark_renders_every_cell_once_and_resumes_like_a_render(tmp_path):
    suite = load_suite(SUITES / "demo.yaml")
    text = (SUITES / "demo.yaml").read_text().replace("name: demo\n", "name: small\n").replace("seeds: 3", "seeds: 1")
    kept = text.split("cases:")[0] + "cases:\n" + "\n".join(text.split("cases:\n")[1].splitlines()[:2]) + "\n"
    (tmp_path / "small.yaml").write_text(kept)
    first = tower("benchmark", "animatediff_16_demo", "--suite", "small.yaml", "--against", "animatediff_16_demo@1", cwd=tmp_path)
    assert first.code == 0, first.out + first.err
    assert "2 cells, 2 to render" in first.out
    report = next((tmp_path / "out" / "benchmarks").glob("small-animatediff_16_demo@2-*")) / "report.md"
    assert "sign test p" in report.read_text() and (report.parent / "figures.png").stat().st_size > 10_000
    assert "falls short" in report.read_text(), "two cells can prove nothing: the lower bound of 2 of 2 is 0.342"
    again = tower("benchmark", "animatediff_16_demo", "--suite", "small.yaml", cwd=tmp_path)
    assert again.code == 0 and "2 cells, 0 to render" in again.out and "Ray" not in again.out
    listed = json.loads(tower("workflows", "explain", "animatediff_16_demo", "--json", cwd=tmp_path).out)
    assert listed["status"] == "proven", "the project's own evidence holds beside a benchmark that is too small"
    query = "SELECT benchmark, count(*) AS n, count(take) AS takes, any_value(cells) AS cells FROM benchmarks WHERE suite = 'small' GROUP BY ALL"
    rows = json.loads(tower("catalog", "query", query, "--json", cwd=tmp_path).out)
    assert [(r["n"], r["takes"], r["cells"]) for r in rows] == [(2, 2, 2)] * 3
    keyframes = json.loads(
        tower("catalog", "query", "SELECT count(*) AS n FROM takes WHERE stage = 'keyframe'", "--json", cwd=tmp_path).out
    )
    assert keyframes == [{"n": 2}], "both workflows started from the same keyframes"
    assert suite.digest != load_suite(tmp_path / "small.yaml").digest
    refused(tower("benchmark", "nothing", "--suite", "small.yaml", cwd=tmp_path), "unknown workflow")
    refused(tower("benchmark", "ltx_video_2b", "--suite", "small.yaml", cwd=tmp_path), "checkpoint", "does not exist")
    (tmp_path / "small.yaml").write_text(kept.replace("characters: [hana]", "characters: [nobody]"))
    refused(tower("benchmark", "ltx_video_2b_demo", "--suite", "small.yaml", cwd=tmp_path), "small.yaml:", "unknown character 'nobody'")


def test_every_shipped_workflow_file_is_named_as_it_is_called():
    from pipeline.story.workflow import RETIRED, read_workflow

    for path in WORKFLOWS.glob("*.yaml"):
        assert read_workflow(path).name == path.stem
    for path in RETIRED.glob("*.yaml"):
        assert f"{read_workflow(path).name}@{read_workflow(path).version}" == path.stem
    assert Path(RETIRED).is_dir()
