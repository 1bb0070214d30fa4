"""The plan: what is stale and exactly why; and the render does exactly that."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

import pipeline.plan.verdicts
import pipeline.story.gate_profile
from catalog.store import Catalog
from pipeline.plan.plan import make_plan
from pipeline.render.studio import _row
from pipeline.story.episode import load_episode
from pipeline.story.settings import load_settings

from .conftest import EPISODE, PROJECT, takes_of, tower
from .test_models import lora

SHOTS = ["SH0010", "SH0020", "SH0030"]


@pytest.fixture
def planned(copied, here):
    """Plans the episode file of `copied` as it is now: shot to its row."""

    def plan(*args: str) -> dict[str, dict]:
        done = here("plan", "episode.yaml", "--json", *args)
        assert done.code == 0, done.err
        return {row["shot"]: row for row in json.loads(done.out)}

    return plan


def edit(folder: Path, old: str, new: str) -> None:
    text = (folder / "episode.yaml").read_text()
    assert old in text
    (folder / "episode.yaml").write_text(text.replace(old, new, 1))


def stale(rows: dict[str, dict]) -> dict[str, list[str]]:
    return {shot: [w["code"] for w in row["why"]] for shot, row in rows.items() if row["state"] == "stale"}


def test_a_new_episode_is_stale_and_says_so(tmp_path, here):
    (tmp_path / "episode.yaml").write_text(EPISODE)
    rows = json.loads(here("plan", "episode.yaml", "--json").out)
    assert [(r["shot"], r["state"], r["why"][0]["code"]) for r in rows] == [(s, "stale", "new") for s in SHOTS]
    assert all(r["gpu_minutes"] > 0 for r in rows), "the project's own benchmarks tell what a take takes"
    told = here("plan", "episode.yaml")
    assert "3 shots, 3 to render, about" in told.out and "no keyframe yet" in told.out


def test_after_a_render_nothing_is_stale(planned):
    assert {row["state"] for row in planned().values()} == {"clean"}
    assert sum(row["gpu_minutes"] for row in planned().values()) == 0


@pytest.mark.parametrize(
    ("old", "new", "shots", "code", "words"),
    [
        ("action: walking right", "action: walking left", ["SH0010"], "prompt_changed", "-'right' +'left'"),
        ("blue hair", "green hair", ["SH0030"], "prompt_changed", "-'blue' +'green'"),
        ("style: anime", "style: anime\nnegative_prompt: blurry", SHOTS, "prompt_changed", "negative prompt changed: +'blurry'"),
        ("title: A test}", "title: A test, variation: 3}", ["SH0010"], "variation_changed", "0 → 3"),
        ("title: A test}", "title: A test, keyframe_parameters: {guidance_scale: 3}}", ["SH0010"], "parameters_changed", "parameters"),
        ("title: A test}", "title: Another}", [], "", ""),
        ("frames: 48", "frames: 50", [], "", ""),
    ],
)
def test_an_edit_makes_exactly_the_shots_stale_that_it_touches(copied, planned, old, new, shots, code, words):
    edit(copied, old, new)
    rows = planned()
    assert stale(rows) == {shot: [code] for shot in shots}
    for shot in shots:
        assert words in rows[shot]["why"][0]["text"]
        assert rows[shot]["gpu_minutes"] > 0


def test_another_clip_workflow_keeps_the_keyframe(copied, planned):
    edit(copied, "clip_workflow: animatediff_16_demo}", "clip_workflow: ltx_video_2b_demo}")
    row = planned()["SH0020"]
    assert (row["state"], row["keyframe"], row["clip"]) == ("stale", "keep", "render")
    assert row["why"] == [
        {"stage": "clip", "code": "workflow_changed", "text": "workflow changed: animatediff_16_demo@2 → ltx_video_2b_demo@1"}
    ]


def test_a_new_version_of_a_workflow_makes_its_shots_stale_and_a_pinned_one_does_not(copied, here, planned):
    text = (PROJECT / "configs" / "workflows" / "ltx_video_2b_demo.yaml").read_text()
    (copied / "two.yaml").write_text(
        text.replace("version: 1", "version: 2").replace("num_inference_steps: 6", "num_inference_steps: 6\ndtype: float32")
    )
    assert here("workflows", "register", "two.yaml").code == 0
    rows = planned()
    assert stale(rows) == {"SH0010": ["workflow_changed"], "SH0030": ["workflow_changed"]}
    assert "ltx_video_2b_demo@1 → ltx_video_2b_demo@2" in rows["SH0010"]["why"][0]["text"]
    edit(copied, "clip_workflow: ltx_video_2b_demo\n", "clip_workflow: ltx_video_2b_demo@1\n")
    assert stale(planned()) == {}


def test_a_changed_reference_picture_is_told_by_its_name(copied, planned):
    from PIL import Image

    still = next(p for p in (copied / "catalog-data" / "media").rglob("*.png"))
    shutil.copy(still, copied / "mine.png")
    edit(copied, "title: A test}", "keyframe: mine.png}")
    assert stale(planned()) == {"SH0010": ["reference_changed"]}
    assert "mine.png" in planned()["SH0010"]["why"][0]["text"]
    Image.open(still).rotate(180).save(copied / "mine.png")
    assert stale(planned()) == {"SH0010": ["reference_changed"]}


def test_another_weight_of_a_lora_makes_its_shot_stale_and_the_plan_says_so(copied, planned, rendered):
    (copied / "models").mkdir()
    lora(copied / "models" / "hana.safetensors")
    edit(copied, "yellow coat}", "yellow coat, lora: {file: hana.safetensors, weight: 0.8}}")
    assert stale(planned())["SH0010"] == ["reference_changed"] and "hana.safetensors" in planned()["SH0010"]["why"][0]["text"]

    file, catalog = copied / "episode.yaml", Catalog.open(copied / "catalog-data")
    shot = make_plan(load_episode(file), file, load_settings(), catalog).shots[0]
    plain = rendered.accepted("keyframe")["SH0010"]
    judged = {name: plain[name] for name in ("outcome", "measures", "media", "media_path", "media_bytes")}
    styled = _row("run", shot, shot.stages[0], 9, 0, None) | judged | {"at": datetime.now(UTC)}
    catalog.append("takes", [styled])
    assert "SH0010" not in stale(planned()), "a take with exactly this LoRA and this weight is there"

    edit(copied, "weight: 0.8", "weight: 0.6")
    row = planned()["SH0010"]
    assert stale(planned())["SH0010"] == ["inputs_changed"] and (row["keyframe"], row["clip"]) == ("render", "render")
    assert "the weight of a LoRA" in row["why"][0]["text"]
    edit(copied, "weight: 0.6", "weight: 0.8")
    assert "SH0010" not in stale(planned())


def test_a_missing_and_a_damaged_file_make_their_shot_stale(copied, planned):
    by_shot = {t["shot"]: t for t in takes_of(copied) if t["stage"] == "clip" and t["outcome"] == "accepted"}
    (copied / "catalog-data" / by_shot["SH0010"]["media_path"]).unlink()
    damaged = copied / "catalog-data" / by_shot["SH0020"]["media_path"]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    import os

    later = by_shot["SH0020"]["at"]  # noqa: F841 - told by the file's age below
    os.utime(damaged, None)
    os.utime(damaged, (damaged.stat().st_mtime + 3600,) * 2)
    assert stale(planned()) == {"SH0010": ["media_gone"], "SH0020": ["media_gone"]}


def test_fresh_makes_all_stale(planned):
    assert stale(planned("--fresh")) == {shot: ["fresh"] for shot in SHOTS}


@pytest.fixture
def own_profiles(copied, monkeypatch):
    """A copy of configs/gates that a test may change."""
    folder = copied / "gates"
    shutil.copytree(pipeline.story.gate_profile.PROFILES, folder)
    monkeypatch.setattr("pipeline.story.gate_profile.PROFILES", folder)

    def forget() -> None:
        pipeline.story.gate_profile.load_profile.cache_clear()
        pipeline.plan.verdicts.Verdicts._own.cache_clear()

    forget()
    yield folder / "anime.yaml", forget
    forget()


def test_a_changed_gate_profile_only_judges_again(copied, planned, own_profiles):
    file, forget = own_profiles
    text = file.read_text()
    line = next(x for x in text.splitlines() if "measure: reach," in x and "below" in x)
    file.write_text(text.replace(line, "  - {label: frozen, measure: reach, below: 0.0001}"))
    forget()
    rows = planned()
    assert {row["state"] for row in rows.values()} == {"rejudge"} and stale(rows) == {}
    assert all("the verdict stays" in w["text"] and w["code"] == "profile_changed" for row in rows.values() for w in row["why"])

    file.write_text(text.replace(line, "  - {label: frozen, measure: reach, below: 250}"))
    forget()
    rows = planned()
    assert stale(rows) == {shot: ["profile_changed"] for shot in SHOTS}
    assert all(row["keyframe"] == "keep" and "accepted becomes rejected" in row["why"][0]["text"] for row in rows.values())


def test_what_a_shot_declares_only_judges_again(copied, here, planned):
    edit(copied, "title: A test}", "title: A test, declares: [night]}")
    assert planned()["SH0010"]["state"] == "rejudge" and planned()["SH0020"]["state"] == "clean"
    assert [(w["stage"], w["code"]) for w in planned()["SH0010"]["why"]] == [("keyframe", "declares_changed"), ("clip", "declares_changed")]
    told = here("plan", "episode.yaml").out
    assert " ".join(told.split()).count("its declarations changed") == 1, "both stages have that reason; a person reads it once"


def test_a_retake_renders_exactly_what_the_plan_said_with_another_seed(copied, here, planned):
    before = takes_of(copied)
    done = here("review", "E90", "SH0020", "--retake", "--note", "her hair flickers", "--by", "Mika")
    assert done.code == 0 and "retake" in done.out
    rows = planned()
    assert stale(rows) == {"SH0020": ["retake"]} and "her hair flickers" in rows["SH0020"]["why"][0]["text"]
    assert (rows["SH0020"]["keyframe"], rows["SH0020"]["clip"]) == ("keep", "render")
    assert tower("render", "episode.yaml", cwd=copied).code == 0
    new = takes_of(copied)[len(before) :]
    assert {(t["shot"], t["stage"]) for t in new} == {("SH0020", "clip")}
    assert new[-1]["seed"] != next(t for t in before if t["shot"] == "SH0020" and t["stage"] == "clip")["seed"]
    assert stale(planned()) == {}


def test_a_retake_can_be_taken_back(copied, here, planned):
    here("review", "E90", "SH0020", "--retake")
    assert stale(planned())
    assert here("review", "E90", "SH0020", "--approve").code == 0
    assert stale(planned()) == {}
    assert [r["verdict"] for r in Catalog.open(copied / "catalog-data").rows("reviews")] == ["retake", "approved"]


def test_a_plan_writes_no_take_and_no_run(copied, planned):
    edit(copied, "action: walking right", "action: walking left")
    catalog = Catalog.open(copied / "catalog-data")
    before = {name: len(catalog.rows(name)) for name in ("takes", "runs", "judgements")}
    planned()
    assert {name: len(catalog.rows(name)) for name in before} == before


def test_an_episode_may_be_json_and_its_faults_have_lines(tmp_path, here):
    import yaml

    plain = yaml.safe_load(EPISODE)
    file = tmp_path / "episode.json"
    file.write_text(json.dumps(plain, indent=1))
    assert here("plan", file, "--json").code == 0
    plain["sequences"][0]["shots"][1]["frames"] = -3
    file.write_text(json.dumps(plain, indent=1))
    done = here("plan", file)
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if "-3" in text)
    assert done.code == 2 and f"episode.json:{line}: shot SH0020: 'frames' is -3" in done.err
    file.write_text('{"id": "E01", "id": "E02"}')
    assert "'id' is given twice" in here("plan", file).err
    file.write_text('{"id": ')
    assert "episode.json:1: not valid JSON" in here("plan", file).err


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ("clip_parameters: {strength: 0.5}", ["ltx_video_2b_demo", "no parameter 'strength'", "none"]),
        ("keyframe_parameters: {guidance_scale: 40}", ["guidance_scale is 40", "1 to 4"]),
        ("keyframe_parameters: {num_inference_steps: 20.5}", ["whole numbers"]),
        ("keyframe_parameters: {cfg: 3}", ["no parameter 'cfg'", "num_inference_steps, guidance_scale"]),
        ("keyframe_parameters: {guidance_scale: high}", ["'guidance_scale' is 'high'", "number"]),
    ],
)
def test_a_parameter_that_is_not_declared_or_out_of_range_is_refused(tmp_path, here, parameters, words):
    (tmp_path / "episode.yaml").write_text(EPISODE.replace("title: A test}", f"{parameters}}}"))
    done = here("plan", "episode.yaml")
    assert done.code == 2 and all(w in done.err for w in ["SH0010", *words]), done.err
