"""One shot's life: which take follows which verdict. The studio here only hands out verdicts."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.values import ModelFiles
from catalog.media import Media
from gates.image import judge_image, keyframe_hash
from pipeline.plan.changes import changes, parameters_json
from pipeline.plan.history import Past
from pipeline.plan.plan import ShotPlan
from pipeline.plan.resolve import StagePlan, inputs_from
from pipeline.registry.workflows import Ready
from pipeline.render.gate_tasks import Judged
from pipeline.render.keyframe_hashes import KeyframeHashes
from pipeline.render.shot import render_shot
from pipeline.render.studio import Studio
from pipeline.render.take import Start, Take
from pipeline.story.episode import Sequence, Shot
from pipeline.story.gate_profile import load_profile
from pipeline.story.workflow import Retry, Workflow

from .planted import GOOD, png

ANIME = load_profile("anime")
STILL = Workflow(
    name="k", version=1, family="stable_diffusion", checkpoint="x", width=96, height=64, num_inference_steps=1, guidance_scale=1
)
CLIP = Workflow(
    name="c",
    version=1,
    family="ltx_video",
    checkpoint="x",
    width=96,
    height=64,
    num_frames=9,
    fps=24,
    num_inference_steps=1,
    guidance_scale=1,
)


class Script:
    """Answers attempts with outcomes in order: "ok", "error", or a label. pictures: also with pixels in the object store."""

    pictures = False

    def __init__(self, *answers: str):
        self.answers, self.asked, self.starts, self.parameters = list(answers), [], [], []  # type: ignore[var-annotated]

    def _take(self, stage: str, attempt: int, variation: int, inputs: str) -> Take:
        answer = self.answers.pop(0)
        self.asked.append((stage, attempt, variation, answer))
        outcome = {"ok": "accepted", "error": "error"}.get(answer, "rejected")
        row = {
            "stage": stage,
            "attempt": attempt,
            "variation": variation,
            "inputs": inputs,
            "outcome": outcome,
            "labels": [answer] if outcome == "rejected" else [],
        }
        return Take(
            row
            | {
                "take": f"E01/SH0010/{stage}/v{attempt:03d}",
                "media": f"{stage}{variation}",
                "media_path": "p",
                "media_bytes": 1,
                "error": "lost" if outcome == "error" else None,
                "width": 96,
                "height": 64,
            },
            "pixels" if self.pictures else None,  # type: ignore[arg-type]
        )

    async def take(self, plan: ShotPlan, stage: StagePlan, attempt: int, variation: int, start: Start | None) -> Take:
        self.parameters.append(stage.parameters)
        self.starts.append(start and (start.media.digest, start.picture))
        return self._take(stage.stage, attempt, variation, inputs_from(stage, start.media.digest if start else None))


def past(attempt: int, variation: int, outcome: str) -> Past:
    """An earlier take of the keyframe."""
    return Past(
        f"E01/SH0010/keyframe/v{attempt:03d}", "SH0010", "keyframe", attempt, variation, "keyframe", outcome, "media/mm/m.png", 1, 0
    )


def plan(retry: Retry | None = None, history: dict[str, list[Past]] | None = None, given: Path | None = None, **more: Any) -> ShotPlan:
    def stage(name: Any, workflow: Workflow) -> StagePlan:
        flow = workflow.model_copy(update={"retry": retry or Retry(max_attempts=3)})
        return StagePlan(name, Ready(flow, "d", ModelFiles("x"), ANIME, "anime#0"), "p", "", (), (), (), name)

    shot, sequence = Shot(id="SH0010", frames=8), Sequence(id="S010", shots=[Shot(id="SH0010", frames=8)])
    stages = stage("keyframe", STILL), stage("clip", CLIP)
    if given:
        stages = replace(stages[0], given=given), stages[1]
    made = ShotPlan("E01", sequence, shot, stages, history or {"keyframe": [], "clip": []})
    return replace(made, **more)


def live(script: Script, shot: ShotPlan) -> tuple[str, str, list[tuple[str, int, int, str]]]:
    outcome = asyncio.run(render_shot(shot, script))  # type: ignore[arg-type]
    assert not script.answers, "more takes were expected"
    return outcome.outcome, outcome.why, script.asked


def test_a_rejected_take_is_tried_again_with_another_variation():
    outcome, _, asked = live(Script("empty", "ok", "frozen", "ok"), plan())
    assert outcome == "accepted"
    assert asked == [("keyframe", 1, 0, "empty"), ("keyframe", 2, 1, "ok"), ("clip", 1, 0, "frozen"), ("clip", 2, 1, "ok")]


def test_an_error_is_tried_again_with_the_same_variation():
    outcome, _, asked = live(Script("error", "ok", "error", "error", "ok"), plan())
    assert outcome == "accepted" and {v for _, _, v, _ in asked} == {0}


def test_a_frozen_clip_is_tried_again_with_a_keyframe_that_is_compressed_harder_each_time():
    """Whether in one run or in two: what was rejected before is counted."""
    retry = Retry(max_attempts=9, on={"frozen": "more_compression"})
    script = Script("ok", "frozen", "noise", "error", "frozen", "ok")
    assert live(script, plan(retry))[0] == "accepted"
    crfs = [dict(parameters).get("keyframe_crf") for parameters in script.parameters]
    assert crfs == [None, None, 29, 29, 29, 35], "another label changes the seed alone, and an error nothing"
    clips = [Past(f"E01/SH0010/clip/v{n:03d}", "SH0010", "clip", n, n - 1, inputs_from(plan().stages[1], "keyframe0"), "rejected", "", 0, 0, labels=label)
             for n, label in enumerate(("frozen", "noise", "frozen"), 1)]  # fmt: skip
    again = Script("ok", "ok")
    still = past(1, 0, "accepted")
    assert live(again, plan(retry, {"keyframe": [still], "clip": clips}))[2][-1] == ("clip", 4, 3, "ok")
    assert [dict(parameters).get("keyframe_crf") for parameters in again.parameters] == [None, 35]
    fresh = Script("ok", "ok")
    live(fresh, plan(retry, {"keyframe": [still], "clip": clips}, fresh=True))
    assert [dict(parameters) for parameters in fresh.parameters] == [{}, {}], "as the first time"


def test_parameters_count_as_changed_only_where_a_person_changed_them():
    """Not where the retry policy has compressed a keyframe, and not where a setting came after the take."""
    clip = plan(Retry(on={"frozen": "more_compression"})).stages[1]
    told = json.loads(parameters_json(clip))
    row = {"workflow": "c", "workflow_version": 1, "workflow_digest": "d", "prompt": "p", "negative_prompt": "", "reference_files": None, "shot_variation": 0}
    older = {name: value for name, value in told.items() if name not in ("vae_tiling", "second_timesteps")}
    for parameters, changed in ((told, False), (older, False), (told | {"keyframe_crf": 29}, False), (told | {"strength": 0.5}, True)):
        found = changes(row | {"parameters": json.dumps(parameters)}, clip, 0)
        assert found == ([("parameters_changed", "parameters changed")] if changed else []), parameters


def test_compression_stays_in_the_range_that_shots_may_set_and_starts_from_the_shots_own():
    flow = Workflow.model_validate(CLIP.model_dump() | {"keyframe_crf": 20, "parameters": {"keyframe_crf": {"minimum": 0, "maximum": 40}}})
    assert [flow.more_compressed(20, times) for times in range(6)] == [20, 26, 32, 38, 40, 40]
    assert [CLIP.more_compressed(None, times) for times in range(6)] == [None, 29, 35, 41, 47, 51]
    assert flow.more_compressed(45, 1) == 45, "never less than it was"


def test_more_compression_is_refused_where_no_keyframe_is_read():
    with pytest.raises(ValueError, match="more_compression raises keyframe_crf, which family stable_diffusion does not read"):
        Workflow.model_validate(STILL.model_dump() | {"retry": {"on": {"empty": "more_compression"}}})


def test_attempts_are_spent_and_the_reason_is_told():
    outcome, why, _ = live(Script("ok", "frozen", "noise", "frozen"), plan())
    assert (outcome, why) == ("exhausted", "clip rejected 3 times, last for frozen")


def test_errors_are_bounded_too():
    outcome, why, _ = live(Script("error", "error", "error"), plan())
    assert outcome == "exhausted" and "failed 3 times" in why


def test_what_a_seed_cannot_mend_is_given_up_at_once():
    outcome, why, asked = live(Script("ok", "wrong_frame_count"), plan())
    assert outcome == "exhausted" and "wrong_frame_count" in why and len(asked) == 2


def test_a_label_can_ask_for_a_new_keyframe():
    outcome, _, asked = live(
        Script("ok", "wrong_first_frame", "ok", "ok"), plan(Retry(max_attempts=3, on={"wrong_first_frame": "new_keyframe"}))
    )
    assert outcome == "accepted"
    assert asked == [("keyframe", 1, 0, "ok"), ("clip", 1, 0, "wrong_first_frame"), ("keyframe", 2, 1, "ok"), ("clip", 2, 0, "ok")]


def test_numbers_go_on_over_runs_and_rejected_seeds_are_not_tried_twice():
    takes = [past(1, 0, "rejected"), past(2, 1, "error"), past(3, 1, "rejected")]
    outcome, _, asked = live(Script("ok", "ok"), plan(history={"keyframe": takes, "clip": []}))
    assert outcome == "accepted" and asked[0] == ("keyframe", 4, 2, "ok")


def test_a_lost_file_or_fresh_takes_use_the_same_seed_again():
    history = {"keyframe": [past(1, 0, "rejected"), past(2, 1, "accepted")], "clip": []}
    assert live(Script("ok", "ok"), plan(history=history))[2][0] == ("keyframe", 3, 1, "ok")
    assert live(Script("ok", "ok"), plan(history=history, fresh=True))[2][0] == ("keyframe", 3, 0, "ok")


def test_new_seeds_are_seeds_that_no_take_has_had():
    history = {"keyframe": [past(1, 0, "rejected"), past(2, 1, "accepted")], "clip": []}
    first, *_ = live(Script("ok", "ok"), plan(history=history, fresh=True, new_seeds=True))[2]
    assert first == ("keyframe", 3, 2, "ok")


def test_a_persons_keyframe_is_judged_once():
    outcome, why, asked = live(Script("black"), plan(given=Path("still.png")))
    assert outcome == "exhausted" and "black" in why and len(asked) == 1


def test_a_persons_keyframe_stays_also_where_its_clip_asks_for_a_new_one():
    wanted = plan(Retry(max_attempts=3, on={"wrong_first_frame": "new_keyframe"}), given=Path("still.png"))
    outcome, _, asked = live(Script("ok", "wrong_first_frame", "ok"), wanted)
    assert outcome == "accepted"
    assert asked == [("keyframe", 1, 0, "ok"), ("clip", 1, 0, "wrong_first_frame"), ("clip", 2, 1, "ok")]


def test_each_stage_starts_from_the_one_before_it_and_after_an_error_from_its_file():
    two = plan()
    last = replace(two.stages[1], stage="finish", inputs="finish")  # type: ignore[arg-type] - a stage that is to come
    script = Script("ok", "ok", "error", "ok")
    script.pictures = True
    longer = replace(two, stages=(*two.stages, last), history={"keyframe": [], "clip": [], "finish": []})
    outcome = asyncio.run(render_shot(longer, script))  # type: ignore[arg-type]
    assert script.starts == [None, ("keyframe0", "pixels"), ("clip0", "pixels"), ("clip0", None)]
    assert outcome.takes == {stage: f"E01/SH0010/{stage}/v{n:03d}" for stage, n in (("keyframe", 1), ("clip", 1), ("finish", 2))}


def test_an_accepted_keyframe_is_not_made_again():
    assert [a[0] for a in live(Script("ok"), plan(accepted=(past(1, 0, "accepted"),)))[2]] == ["clip"]


def test_a_retry_rule_for_no_known_label_is_refused():
    with pytest.raises(ValueError, match="ugly"):
        Retry(on={"ugly": "new_seed"})


def test_a_keyframe_that_another_shot_has_is_a_warning_and_the_shots_own_is_not():
    verdict = judge_image(png(GOOD[0]), ANIME)
    judged, bits = Judged(verdict, Media("d", "media/d.png", 1), 192, 128, 1, 0.0, 0.0), keyframe_hash(verdict.measures)
    for owner, warnings in (("SH0020", ("duplicate",)), ("SH0010", ())):
        studio = Studio("run", None, None, None, None, keyframes=KeyframeHashes({owner: bits}))  # type: ignore[arg-type]
        compared = studio._compared(plan(), plan().stages[0], judged).verdict
        assert (compared.outcome != "fail", compared.warnings) == (True, warnings)
