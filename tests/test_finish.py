"""The third stage: from the clip, with its lineage, stale with it, resumed, and gone where no workflow is named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from catalog.views import clips_that_stand
from gates.decode import length_of
from pipeline.api.services.board import card_of
from pipeline.api.services.delivery import delivery
from pipeline.api.services.facts import Facts, facts
from pipeline.api.services.shots import takes_of_shot
from pipeline.evidence.review import Said, reviews, say, usual_take
from pipeline.plan.plan import as_rows
from pipeline.post.edit import story_digest
from pipeline.post.report_facts import gather
from pipeline.post.timeline import accepted_clips
from pipeline.render.shot import render_shot
from pipeline.story.episode import load_episode
from pipeline.story.errors import InputError

from .conftest import EPISODE, Done, environment, takes_of, tower
from .test_past import Desk, desk, verdicts  # noqa: F401
from .test_shot import Script

KEYFRAME, CLIP, FINISH = (f"E90/SH0010/{stage}/v001" for stage in ("keyframe", "clip", "finish"))
WITH_FINISH = ("clip_workflow: ltx_video_2b_demo\n", "clip_workflow: ltx_video_2b_demo\nfinish_workflow: upscale_compact_demo\n")


@pytest.fixture
def finished(desk: Desk, verdicts: dict[str, Any]) -> Desk:  # noqa: F811
    """An episode with a finish, whose first shot has gone through all stages."""
    verdicts["finish"] = verdicts["clip"]
    desk.edit(*WITH_FINISH)
    desk.take("SH0010", "finish", start=desk.take("SH0010", "clip", start=desk.take("SH0010", "keyframe")))
    return desk


def said(desk: Desk, take: str, verdict: str, **more: Any) -> None:  # noqa: F811
    say(desk.catalog, desk.settings, Said(take, verdict, by="Mika", **more), load_episode(desk.file), desk.file)


def standing(desk: Desk) -> list[str]:  # noqa: F811
    return [take.take.partition("SH0010/")[2] for take in desk.plan().shots[0].accepted]


def told_of(desk: Desk) -> Facts:  # noqa: F811
    """What the desk's service knows of the episode."""
    return facts({table: desk.catalog.sql(f"SELECT * FROM {table}", (table,)) for table in ("takes", "judgements", "reviews", "runs")})


# --- the plan -----------------------------------------------------------------------------------------------------------


def test_a_shot_has_as_many_stages_as_workflows_are_named_for_it(desk):  # noqa: F811
    desk.edit("title: A test}", "title: A test, finish_workflow: upscale_compact_demo}")
    first, second, _ = desk.plan().shots
    assert [s.stage for s in first.stages] == ["keyframe", "clip", "finish"] and [s.stage for s in second.stages] == ["keyframe", "clip"]
    rows = as_rows(desk.plan(), [first, second])
    assert rows[0]["finish"] == "render" and "finish" not in rows[1]
    finish = first.stages[2]
    assert (finish.prompt, finish.negative_prompt, finish.loras, finish.attempts, finish.frames) == ("", "", (), 1, 121)


def test_a_new_clip_makes_the_finish_stale_and_a_new_finish_leaves_the_clip(finished):
    assert standing(finished) == ["keyframe/v001", "clip/v001", "finish/v001"] and finished.plan().shots[0].reasons == ()
    said(finished, CLIP, "retake", note="her hair flickers")
    assert standing(finished) == ["keyframe/v001"] and [s.stage for s in finished.plan().shots[0].todo] == ["clip", "finish"]
    finished.take("SH0010", "clip", 2, 1, finished.take("SH0010", "keyframe"))
    plan = finished.plan().shots[0]
    assert [s.stage for s in plan.todo] == ["finish"] and plan.why == "its clip changed"


def test_a_retake_of_the_finish_keeps_the_clip(finished):
    said(finished, FINISH, "retake", note="too sharp")
    plan = finished.plan().shots[0]
    assert [s.stage for s in plan.todo] == ["finish"] and plan.why == "a retake of the finish was asked for by Mika: too sharp"


def test_a_prompt_and_a_seed_are_for_the_clip_and_not_for_its_finish(finished):
    for more in ({"seed": 5}, {"prompt": "a cat"}):
        with pytest.raises(InputError, match="a finish has neither seed nor prompt; they are for its clip"):
            said(finished, FINISH, "retake", **more)


def test_a_retake_that_changes_a_finish_which_the_shot_has_no_more_is_refused_in_words(finished):
    finished.edit(*reversed(WITH_FINISH))
    with pytest.raises(InputError, match="shot SH0010 has no finish now"):
        said(finished, FINISH, "retake", parameters={"strength": 0.5})
    assert reviews(finished.catalog, "E90") == []


def test_another_prompt_makes_all_three_stale_and_a_parameter_of_the_finish_the_last_alone(finished):
    finished.edit("upscale_compact_demo\n", "upscale_compact_demo\nnegative_prompt: rain\n")
    assert len(finished.plan().shots[0].todo) == 3
    finished.edit("negative_prompt: rain\n", "")
    finished.edit("title: A test}", "title: A test, finish_parameters: {strength: 0.5}}")
    plan = finished.plan().shots[0]
    assert [s.stage for s in plan.todo] == ["finish"] and plan.why == "parameters changed"


def test_without_its_workflow_an_episode_is_as_it_was_before(finished):
    finished.edit(*reversed(WITH_FINISH))
    plan = finished.plan().shots[0]
    assert [s.stage for s in plan.stages] == ["keyframe", "clip"] and not plan.stale


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("upscale_compact_demo", "ltx_video_2b_demo", "makes clips; a workflow that makes finishes is wanted"),
        ("upscale_compact_demo", "upscale_compact_demo2", "unknown workflow 'upscale_compact_demo2'; did you mean 'upscale_compact_demo'"),
    ],
)
def test_a_workflow_that_makes_no_finish_is_one_sentence(desk, old, new, told):  # noqa: F811
    desk.edit(*WITH_FINISH)
    desk.edit(old, new)
    with pytest.raises(InputError, match=told):
        desk.plan()


# --- what stands --------------------------------------------------------------------------------------------------------


def test_the_episode_shows_the_finish_and_the_clip_where_a_person_sent_the_finish_back(finished):
    shown = lambda: clips_that_stand(finished.catalog, "E90")["SH0010"]  # noqa: E731
    assert shown() == FINISH
    said(finished, FINISH, "retake")
    assert shown() == CLIP
    said(finished, FINISH, "approved")
    assert shown() == FINISH
    said(finished, CLIP, "retake")
    assert clips_that_stand(finished.catalog, "E90") == {}
    said(finished, FINISH, "approved")
    assert shown() == FINISH, "a later word on the finish itself keeps it"


def test_an_episode_whose_finish_was_removed_shows_the_clip_everywhere(finished, here, monkeypatch):
    finished.edit(*reversed(WITH_FINISH))
    story, folder = load_episode(finished.file), finished.file.parent / "out"
    assert {shot: row["take"] for shot, row in accepted_clips(finished.catalog, story).items()} == {"SH0010": CLIP}
    shot, *_ = gather(finished.catalog, "E90", story).shots
    assert shot.clip and (shot.clip.take, shot.state) == (CLIP, "accepted")
    first = story.sequences[0]
    short = story.model_copy(update={"sequences": [first.model_copy(update={"shots": first.shots[:1]})]})
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps({"movie_from": {"episode": story_digest(short), "font": None, "clips": {"SH0010": CLIP}}}))
    (folder / "episode.mp4").write_bytes(b"a movie")
    assert delivery(finished.catalog, short, folder)["current"]
    known = told_of(finished)
    card = card_of(story, "SH0010", known, None)
    assert (card["status"], card["clip"], card["keyframe"]) == ("accepted", CLIP, KEYFRAME)
    stands = {take: json.loads(told)["stands"] for take, told in takes_of_shot(known, "SH0010", "clip", {}).items()}
    assert stands == {KEYFRAME: True, CLIP: True, FINISH: False}
    monkeypatch.setenv("TOWER_CATALOG_URI", finished.settings.catalog_uri)
    (row,) = json.loads(here("status", finished.file, "--json").out)
    assert row["clip"] == CLIP
    said(finished, CLIP, "retake")
    assert accepted_clips(finished.catalog, story) == {}, "nor does it show a clip that was sent back"


def states(desk: Desk) -> tuple[str, str]:  # noqa: F811
    """Of the first shot, on the desk's board and in the report."""
    story = load_episode(desk.file)
    (shot, *_) = gather(desk.catalog, "E90", story).shots
    return card_of(story, "SH0010", told_of(desk), None)["status"], shot.state


def test_a_shot_is_not_accepted_as_long_as_its_finish_is_not(finished):
    assert states(finished) == ("accepted", "accepted")
    said(finished, FINISH, "retake", note="too sharp")
    assert states(finished) == ("retake", "retake")
    said(finished, CLIP, "approved")
    assert states(finished) == ("retake", "retake"), "whatever is said of the clip"
    finished.edit(*reversed(WITH_FINISH))
    assert states(finished) == ("approved", "approved")


@pytest.mark.parametrize(("outcomes", "told"), [([], ("waiting", "waiting")), (["rejected"], ("rejected", "rejected"))])
def test_a_shot_whose_finish_is_not_made_or_rejected_is_told_so(desk, verdicts, outcomes, told):  # noqa: F811
    verdicts["finish"] = verdicts["clip"]
    desk.edit(*WITH_FINISH)
    clip = desk.take("SH0010", "clip", start=desk.take("SH0010", "keyframe"))
    for outcome in outcomes:
        desk.take("SH0010", "finish", start=clip, outcome=outcome, labels=["blur"])
    assert states(desk) == told


@pytest.mark.parametrize("verdict", ["approved", "picked"])
def test_a_word_on_the_clip_is_still_told_once_its_finish_stands(finished, verdict):
    said(finished, CLIP, verdict)
    assert states(finished) == (verdict, verdict)


def test_a_retake_of_the_keyframe_takes_clip_and_finish_along(finished):
    said(finished, KEYFRAME, "retake")
    assert clips_that_stand(finished.catalog, "E90") == {} and standing(finished) == []


def test_a_picked_clip_brings_its_own_finish(finished):
    keyframe = finished.take("SH0010", "keyframe", 2)
    finished.take("SH0010", "finish", 2, 0, finished.take("SH0010", "clip", 2, 1, keyframe))
    assert clips_that_stand(finished.catalog, "E90") == {"SH0010": FINISH.replace("v001", "v002")}
    said(finished, CLIP, "picked")
    assert standing(finished) == ["keyframe/v001", "clip/v001", "finish/v001"]
    assert clips_that_stand(finished.catalog, "E90") == {"SH0010": FINISH}


def test_an_approved_finish_is_locked_with_what_it_was_made_from(finished):
    said(finished, FINISH, "approved")
    finished.edit("action: walking right", "action: walking left")
    assert standing(finished) == ["keyframe/v001", "clip/v001", "finish/v001"]


def test_the_report_shows_the_finish_with_the_keyframe_that_it_began_with(finished):
    (shot,) = gather(finished.catalog, "E90", None).shots
    assert (shot.clip.take, shot.keyframe.take) == (FINISH, KEYFRAME)  # type: ignore[union-attr]


def test_a_word_without_a_take_is_about_the_stage_that_is_named(finished):
    assert usual_take(finished.catalog, "E90", "SH0010", "finish")["take"] == FINISH


# --- one shot's life ----------------------------------------------------------------------------------------------------


def test_a_rejected_finish_is_not_made_again_in_one_run_since_it_would_be_the_same(finished):
    import asyncio

    script = Script("blur")
    finished.take("SH0010", "finish", 2, outcome="rejected", labels=["blur"], start=None)  # of other inputs
    plan = finished.plan().shots[0]
    said(finished, FINISH, "retake")
    outcome = asyncio.run(render_shot(finished.plan().shots[0], script))
    assert (outcome.outcome, outcome.why) == ("exhausted", "finish rejected 1 times, last for blur")
    assert outcome.takes == {"keyframe": KEYFRAME, "clip": CLIP} and plan.accepted[-1].take == FINISH


# --- the whole path -----------------------------------------------------------------------------------------------------


@pytest.mark.ray
def test_a_finish_is_made_from_the_clip_after_a_kill_too_and_the_movie_shows_it(copied: Path):
    """Of one shot of a finished render: the others are as before, and nothing that there was is made again."""
    text = EPISODE.replace("clip_workflow: animatediff_16_demo}", "clip_workflow: animatediff_16_demo, finish_workflow: upscale_compact_demo}")
    (copied / "episode.yaml").write_text(text)
    before = takes_of(copied)
    _killed(copied)
    done = _render(copied)
    assert done.code == 0, done.out + done.err

    (take,) = [t for t in takes_of(copied) if t["take"] not in {b["take"] for b in before}]
    (clip,) = [t for t in before if t["shot"] == "SH0020" and t["stage"] == "clip" and t["outcome"] == "accepted"]
    assert (take["take"], take["outcome"], take["seed"], take["upstream"]) == ("E90/SH0020/finish/v001", "accepted", None, clip["take"])
    assert (take["keyframe_media"], take["width"], take["height"]) == (clip["media"], 384, 256)
    assert (take["frames"], take["fps"]) == (clip["frames"], clip["fps"])
    assert json.loads(take["certificate"])["model"]["parts"]["upscaler"]["scale"] == 4

    shots = copied / "out" / "E90" / "shots"
    assert length_of(shots / "SH0020.finish.mp4") == length_of(shots / "SH0020.mp4") and not (shots / "SH0010.finish.mp4").exists()
    summary = json.loads((copied / "out" / "E90" / "summary.json").read_text())
    assert summary["movie_from"]["clips"]["SH0020"] == take["take"]
    assert _render(copied).code == 0 and len(takes_of(copied)) == len(before) + 1


def _render(folder: Path) -> Done:
    return tower("render", "episode.yaml", "--out", "out", "--allow-experimental", cwd=folder)


def _killed(folder: Path) -> None:
    """A render whose driver is killed once it has begun."""
    command = [sys.executable, "-m", "pipeline.cli", "render", "episode.yaml", "--out", "out", "--allow-experimental"]
    process = subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout
    for line in process.stdout:
        if line.startswith("Ray:"):
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
