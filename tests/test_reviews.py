# ruff: noqa: F811 - a test names the fixtures of test_past that it wants
"""Reviews act: approve locks, pick chooses, retake sends back and may change what is made; a person's word beats a gate's, visibly."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.views import all_takes, clips_that_stand
from pipeline.evidence import rejudge
from pipeline.evidence.benchmark import _cell
from pipeline.evidence.review import Said, reviews, say
from pipeline.plan.history import rows_of
from pipeline.plan.resolve import seed_of
from pipeline.render.take import Start
from pipeline.story.episode import load_episode
from pipeline.story.errors import InputError
from pipeline.story.gate_profile import load_profile
from pipeline.story.settings import load_settings
from pipeline.story.workflow import Retry

from .conftest import EPISODE, PROJECT, refused, takes_of, tower
from .test_past import SHOTS, Desk, desk, profiles, verdicts  # noqa: F401
from .test_shot import Script, live, past
from .test_shot import plan as shot_plan

KEYFRAME, CLIP = "E90/SH0010/keyframe/v001", "E90/SH0010/clip/v001"
FROZEN = "  - {label: frozen, measure: reach, below: 250}"  # a rule that rejects every clip


def said(desk: Desk, take: str, verdict: str, **more) -> dict:
    return say(desk.catalog, desk.settings, Said(take, verdict, by="Mika", **more), load_episode(desk.file), desk.file)


def standing(desk: Desk, **more) -> list[str]:
    """The takes of SH0010 that count, without episode and shot."""
    return [take.take.partition("SH0010/")[2] for take in desk.plan(**more).shots[0].accepted]


def told(desk: Desk) -> list[tuple[str, str, str]]:
    return [(r.stage, r.code, r.text) for r in desk.plan().shots[0].reasons]


# --- approve ------------------------------------------------------------------------------------------------------------


def test_an_approved_clip_stands_whatever_changes_and_the_plan_says_what_is_different(desk, profiles):
    desk.render()
    said(desk, CLIP, "approved")
    assert standing(desk) == ["keyframe/v001", "clip/v001"] and told(desk) == [], "an approved take of an unchanged shot needs no reason"

    desk.take("SH0010", "clip", 2, 1, desk.take("SH0010", "keyframe", 2, 1))
    assert standing(desk) == ["keyframe/v001", "clip/v001"], "a newer take is no better"
    desk.edit("action: walking right", "action: walking left")
    words = "approved by Mika; since it was made, prompt changed: -'right' +'left'"
    assert told(desk) == [("keyframe", "approved", words), ("clip", "approved", words)]
    desk.edit("title: A test}", "title: A test, keyframe_parameters: {guidance_scale: 3}, clip_workflow: animatediff_16_demo, fit: hold}")
    assert "parameters changed" in told(desk)[0][2] and "ltx_video_2b_demo@1 → animatediff_16_demo@2" in told(desk)[1][2]
    profiles("reach", FROZEN)
    desk.edit("action: walking left", "declares: [night], action: walking left")
    for asked in ({}, {"fresh": True}, {"new_seeds": True}):
        assert standing(desk, **asked) == ["keyframe/v001", "clip/v001"], asked
    assert [s.shot.id for s in desk.plan(fresh=True).stale] == SHOTS[1:]


def test_an_approved_take_that_a_gate_rejects_is_accepted_and_both_are_told(desk, here):
    desk.take("SH0010", "clip", 1, 0, desk.take("SH0010", "keyframe"), outcome="rejected", labels=["flicker"])
    assert standing(desk) == ["keyframe/v001"]
    said(desk, CLIP, "approved")
    assert standing(desk) == ["keyframe/v001", "clip/v001"] and clips_that_stand(desk.catalog, "E90") == {"SH0010": CLIP}
    (row,) = [t for t in all_takes(desk.catalog) if t["take"] == CLIP]
    assert (row["outcome"], row["gate_outcome"], row["review"], row["review_by"]) == ("accepted", "rejected", "approved", "Mika")


def test_a_retake_of_a_take_that_the_gates_accept_is_rejected_and_both_are_told(desk):
    desk.render("SH0010")
    said(desk, CLIP, "retake", note="her hair flickers")
    (row,) = [t for t in all_takes(desk.catalog) if t["take"] == CLIP]
    assert (row["outcome"], row["gate_outcome"], row["review_note"]) == ("rejected", "accepted", "her hair flickers")
    assert clips_that_stand(desk.catalog, "E90") == {}


def test_an_error_stays_an_error_and_cannot_be_approved(desk):
    desk.take("SH0010", "keyframe", 1, outcome="error", measures=None, media=None, media_path=None, media_bytes=None)
    with pytest.raises(InputError, match="ended in an error and has no file"):
        said(desk, KEYFRAME, "approved")
    said(desk, KEYFRAME, "retake")
    assert [t["outcome"] for t in all_takes(desk.catalog)] == ["error"]


def test_a_retake_of_the_keyframe_ends_the_lock_of_its_clip_until_it_is_taken_back(desk):
    desk.render("SH0010")
    said(desk, CLIP, "approved")
    said(desk, KEYFRAME, "retake", note="too dark")
    assert told(desk) == [("keyframe", "retake", "a retake of the keyframe was asked for by Mika: too dark")] and standing(desk) == []
    assert clips_that_stand(desk.catalog, "E90") == {}
    desk.take("SH0010", "clip", 2, 0, desk.take("SH0010", "keyframe", 2, 1))
    assert standing(desk) == ["keyframe/v002", "clip/v002"] and clips_that_stand(desk.catalog, "E90") == {"SH0010": "E90/SH0010/clip/v002"}
    said(desk, KEYFRAME, "approved")
    assert standing(desk) == ["keyframe/v001", "clip/v001"] and clips_that_stand(desk.catalog, "E90") == {"SH0010": CLIP}


def test_an_approved_clip_that_says_its_keyframe_only_by_its_picture_is_locked_too(desk):
    start = desk.take("SH0010", "keyframe")
    desk.take("SH0010", "clip", 1, 0, start, upstream=None)
    said(desk, CLIP, "approved")
    desk.edit("action: walking right", "action: walking left")
    assert standing(desk) == ["keyframe/v001", "clip/v001"]
    said(desk, KEYFRAME, "retake")
    assert standing(desk) == []


def test_an_approved_keyframe_is_kept_and_its_clip_is_made_anew(desk):
    desk.render("SH0010")
    said(desk, KEYFRAME, "approved")
    desk.edit("action: walking right", "action: walking left")
    assert standing(desk) == standing(desk, fresh=True) == ["keyframe/v001"] and desk.plan().shots[0].held == 1
    assert [(stage, code) for stage, code, _ in told(desk)] == [("keyframe", "approved"), ("clip", "prompt_changed")]


def test_an_approved_clip_that_is_too_short_now_makes_the_shot_stale_and_says_what_helps(desk):
    start = desk.take("SH0010", "keyframe")
    desk.take("SH0010", "clip", 1, 0, start, frames=16, fps=8.0, workflow="another")
    desk.edit("frames: 60", "frames: 48")
    said(desk, CLIP, "approved")
    assert standing(desk) == ["keyframe/v001", "clip/v001"]
    desk.edit("frames: 48", "frames: 49")
    desk.edit("action: walking right", "action: walking left")
    words = "fills 48 of the shot's 49 frames; shorten the shot, or set fit: hold or fit: stretch"
    assert told(desk)[0] == ("clip", "approved", f"{CLIP}, which Mika approved, {words}") and standing(desk) == []
    desk.edit("title: A test}", "title: A test, fit: stretch}")
    assert standing(desk) == ["keyframe/v001", "clip/v001"]


def test_an_approved_clip_holds_as_long_as_its_own_file_is_there(desk):
    desk.render("SH0010")
    said(desk, CLIP, "approved")
    desk.edit("action: walking right", "action: walking left")
    clip, still = (t["media_path"] for t in sorted(all_takes(desk.catalog), key=lambda t: t["stage"]))
    (desk.catalog.place.folder / still).unlink()
    assert standing(desk) == ["keyframe/v001", "clip/v001"] and desk.plan().shots[0].accepted[0].media == ""
    (desk.catalog.place.folder / clip).unlink()
    assert standing(desk) == [] and told(desk)[0] == ("clip", "approved", f"{CLIP}, which Mika approved, has lost its file")
    with pytest.raises(InputError, match="has lost its file"):
        said(desk, CLIP, "approved")


def test_the_retry_policy_gives_up_no_keyframe_that_a_person_chose():
    policy = Retry(max_attempts=3, on={"wrong_first_frame": "new_keyframe"})
    kept = shot_plan(policy, accepted=(past(1, 0, "accepted"),), held=1)
    assert [stage for stage, *_ in live(Script("wrong_first_frame", "ok"), kept)[2]] == ["clip", "clip"]
    free = shot_plan(policy, accepted=(past(1, 0, "accepted"),))
    assert [stage for stage, *_ in live(Script("wrong_first_frame", "ok", "ok"), free)[2]] == ["clip", "keyframe", "clip"]


def test_a_gate_that_changes_is_told_of_an_approved_take_and_turns_nothing(desk, profiles):
    desk.render("SH0010")
    said(desk, CLIP, "approved")
    profiles("reach", FROZEN)
    result = rejudge.rejudge(desk.catalog, load_profile("anime"), "E90")
    rejudge.apply(desk.catalog, result.changes)
    (row,) = [t for t in all_takes(desk.catalog) if t["take"] == CLIP]
    assert (row["outcome"], row["gate_outcome"], row["labels"]) == ("accepted", "rejected", ["frozen"])
    assert rejudge.rejudge(desk.catalog, load_profile("anime"), "E90").changes == [], "it is said once"


def test_evidence_about_a_workflow_is_what_the_gates_say(desk):
    desk.take("SH0010", "clip", 1, 0, desk.take("SH0010", "keyframe"), outcome="rejected", labels=["flicker"])
    said(desk, CLIP, "approved")
    assert _cell(desk.plan().shots[0], ("case", 0), rows_of(desk.catalog, [CLIP])[CLIP])["outcome"] == "rejected"


# --- pick ---------------------------------------------------------------------------------------------------------------


def test_a_picked_take_goes_before_newer_ones_of_the_same_inputs_and_brings_its_keyframe(desk):
    desk.render("SH0010")
    desk.take("SH0010", "clip", 2, 1, Start.of_past(desk.past("SH0010", "keyframe")[0]))
    assert standing(desk) == ["keyframe/v001", "clip/v002"]
    said(desk, CLIP, "picked")
    assert standing(desk) == ["keyframe/v001", "clip/v001"] and clips_that_stand(desk.catalog, "E90") == {"SH0010": CLIP}
    desk.take("SH0010", "clip", 3, 0, desk.take("SH0010", "keyframe", 2, 1))
    assert standing(desk) == ["keyframe/v001", "clip/v001"] and told(desk) == []
    said(desk, "E90/SH0010/keyframe/v002", "picked")
    assert standing(desk) == ["keyframe/v002", "clip/v003"], "the later word chooses"


def test_a_picked_take_counts_only_while_it_is_accepted_and_right_and_the_plan_says_why_not(desk, profiles):
    desk.render("SH0010")
    said(desk, CLIP, "picked")
    desk.edit("action: walking right", "action: walking left")
    assert standing(desk) == []
    assert ("clip", "picked", f"{CLIP}, which Mika picked, is made from other inputs than the shot has now") in told(desk)
    desk.edit("action: walking left", "action: walking right")
    assert standing(desk) == ["keyframe/v001", "clip/v001"] and standing(desk, fresh=True) == []
    profiles("reach", FROZEN)
    assert standing(desk) == ["keyframe/v001"], "a picked take is judged again, as any"
    assert told(desk)[0] == ("clip", "picked", f"{CLIP}, which Mika picked, is rejected for frozen")


def test_a_rejected_take_cannot_be_picked(desk):
    desk.take("SH0010", "clip", 1, 0, desk.take("SH0010", "keyframe"), outcome="rejected", labels=["flicker", "strobe"])
    with pytest.raises(InputError, match=f"^{CLIP} is rejected for flicker, strobe; approve it, if it is as wanted$"):
        said(desk, CLIP, "picked")
    assert desk.catalog.rows("reviews") == []


def test_an_approved_keyframe_goes_before_a_picked_clip_of_another(desk):
    desk.render("SH0010")
    desk.take("SH0010", "clip", 2, 0, desk.take("SH0010", "keyframe", 2, 1))
    said(desk, "E90/SH0010/keyframe/v002", "approved")
    said(desk, CLIP, "picked")
    assert standing(desk) == ["keyframe/v002", "clip/v002"]
    assert told(desk)[0][2] == f"{CLIP}, which Mika picked, does not start from E90/SH0010/keyframe/v002, which Mika approved"


# --- retake -------------------------------------------------------------------------------------------------------------


def test_a_retake_is_of_all_takes_so_far_and_of_none_that_comes(desk):
    desk.render("SH0010")
    start = Start.of_past(desk.past("SH0010", "keyframe")[0])
    desk.take("SH0010", "clip", 2, 1, start)
    said(desk, CLIP, "retake", note="her hair flickers")
    assert told(desk) == [("clip", "retake", "a retake of the clip was asked for by Mika: her hair flickers")]
    (shot, *_) = desk.plan().shots
    assert live(Script("ok"), shot)[2] == [("clip", 3, 2, "ok")], "neither seed again"
    desk.take("SH0010", "clip", 3, 2, start)
    assert standing(desk) == ["keyframe/v001", "clip/v003"]


def test_a_retake_changes_seed_prompt_and_parameters_of_its_stage_and_the_prompt_of_later_ones(desk):
    desk.render("SH0010")
    said(desk, KEYFRAME, "retake", seed=7, prompt=" a girl\n with a kite ", parameters={"guidance_scale": 3})
    still, clip = desk.plan().shots[0].stages
    assert (still.seed, still.prompt, dict(still.parameters)) == (7, "a girl with a kite", {"guidance_scale": 3.0})
    assert (clip.seed, clip.prompt, clip.parameters) == (None, "a girl with a kite", ())
    assert [code for _, code, _ in told(desk)] == ["retake", "prompt_changed", "parameters_changed", "seed_changed"]
    said(desk, KEYFRAME, "retake", parameters={"num_inference_steps": 20})
    still, clip = desk.plan().shots[0].stages
    assert (still.seed, still.prompt, dict(still.parameters)) == (7, "a girl with a kite", {"num_inference_steps": 20}), "field by field"

    made = desk.told(desk.plan().shots[0], "keyframe", 2, 0, None)
    desk.catalog.append("takes", [made[1]])
    said(desk, "E90/SH0010/keyframe/v002", "approved")
    assert standing(desk) == ["keyframe/v002"] and [code for _, code, _ in told(desk)] == ["prompt_changed", "upstream_changed"]
    assert desk.plan().shots[0].stages[0].seed == 7, "also after the new take is approved"


def test_a_seed_that_was_asked_for_is_the_first_takes_and_further_ones_add_to_it(desk):
    (plain, *_) = desk.plan().shots
    desk.render("SH0010")
    said(desk, CLIP, "retake", seed=2**32 - 1)
    (shot, *_) = desk.plan().shots
    assert [seed_of(shot.stages[1], "E90", shot.shot, n) for n in range(3)] == [2**32 - 1, 0, 1]
    assert shot.stages[0].inputs == plain.stages[0].inputs, "no digest changes where no seed is given"
    assert shot.stages[1].inputs != plain.stages[1].inputs
    assert live(Script("frozen", "ok"), shot)[2] == [("clip", 2, 0, "frozen"), ("clip", 3, 1, "ok")]


def test_what_a_retake_changed_is_dropped_when_the_shot_is_written_anew_and_the_plan_says_so(desk):
    desk.render("SH0010")
    said(desk, CLIP, "retake", seed=7)
    desk.edit("frames: 60", "priority: 3, frames: 60")
    assert desk.plan().shots[0].stages[1].seed == 7, "a priority is nothing that is made"
    desk.edit("frames: 60", "frames: 50, first_frame: 3")
    assert desk.plan().shots[0].stages[1].seed == 7, "nor is what of it is shown"
    desk.edit("framing: wide shot", "framing: full shot")
    assert desk.plan().shots[0].stages[1].seed is None
    words = "what Mika gave with the retake of the clip no longer applies, because the shot was written anew: seed 7"
    assert told(desk)[0] == ("clip", "override_dropped", words)
    desk.edit("framing: full shot", "framing: wide shot")
    assert desk.plan().shots[0].stages[1].seed == 7
    desk.edit("style: anime", "style: watercolour")
    assert desk.plan().shots[0].stages[1].seed is None, "what its prompt is composed of belongs to the shot"


def test_what_a_retake_changed_is_dropped_where_a_workflow_no_longer_takes_it_and_the_plan_says_so(desk):
    desk.render("SH0020")
    said(desk, "E90/SH0020/clip/v001", "retake", parameters={"strength": 0.5})
    assert dict(desk.plan().shots[1].stages[1].parameters) == {"strength": 0.5}
    text = (PROJECT / "configs" / "workflows" / "animatediff_16_demo.yaml").read_text()
    row = next(r for r in desk.catalog.rows("workflows") if (r["workflow"], r["version"]) == ("animatediff_16_demo", 2))
    assert "strength" in text
    narrow = json.loads(row["settings"]) | {"version": 3, "parameters": {}}
    desk.catalog.append("workflows", [row | {"version": 3, "settings": json.dumps(narrow)}])
    dropped = [r for r in desk.plan().shots[1].reasons if r.code == "override_dropped"]
    assert len(dropped) == 1 and "has no parameter 'strength'" in dropped[0].text and dropped[0].text.endswith("strength 0.5")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"parameters": {"strength": 0.5}}, "workflow sd15_keyframe_demo has no parameter 'strength'"),
        ({"parameters": {"guidance_scale": 40}}, "guidance_scale is 40; workflow sd15_keyframe_demo takes 1 to 4"),
        ({"seed": 2**32}, "seed 4294967296 is not in 0 to 4294967295"),
        ({"seed": -1}, "seed -1 is not in"),
        ({"prompt": " \n "}, "the prompt is empty"),
        ({"prompt": "a girl, embedding:nice"}, "embedding 'nice' would be read as plain words"),
        ({"prompt": "x" * 10_001}, "the prompt has 10001 letters; 10000 are the most"),
    ],
)
def test_a_change_that_does_not_fit_is_refused_when_it_is_said(desk, more, words):
    desk.render("SH0010")
    with pytest.raises(InputError, match=words):
        said(desk, KEYFRAME, "retake", **more)
    assert desk.catalog.rows("reviews") == []


def test_a_change_is_for_retakes_of_what_a_model_makes_in_the_story_of_the_take(desk):
    from PIL import Image

    desk.render("SH0010")
    with pytest.raises(InputError, match="are for a retake, and not for approved"):
        said(desk, KEYFRAME, "approved", seed=7)
    with pytest.raises(InputError, match="give the episode's file in place of its id"):
        say(desk.catalog, desk.settings, Said(KEYFRAME, "retake", seed=7))
    story = desk.file.read_text()
    desk.file.write_text(story.replace("id: E90", "id: E91"))
    with pytest.raises(InputError, match=r"episode.yaml is episode E91"):
        said(desk, KEYFRAME, "retake", seed=7)
    desk.file.write_text(story.replace("id: SH0010", "id: SH0011"))
    with pytest.raises(InputError, match=r"episode.yaml has no shot SH0010"):
        said(desk, KEYFRAME, "retake", seed=7)
    Image.new("RGB", (192, 128)).save(desk.file.parent / "mine.png")
    desk.file.write_text(story.replace("title: A test}", "keyframe: mine.png}"))
    with pytest.raises(InputError, match=r"its keyframe is mine.png, which a person gave"):
        said(desk, KEYFRAME, "retake", seed=7)
    assert desk.catalog.rows("reviews") == []


# --- what is said, and what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (Said(CLIP, "approve"), "verdict 'approve' is none of approved, picked, retake, note"),
        (Said("E90/SH0010/clip/v009", "retake"), "no take 'E90/SH0010/clip/v009'"),
        (Said("clip", "retake"), "no take 'clip'"),
        (Said(CLIP, "note"), "a note says something or draws something"),
        (Said(CLIP, "note", "x" * 2001), "the note has 2001 letters; 2000 are the most"),
        (Said(CLIP, "note", "x", "y" * 101), "the name has 101 letters; 100 are the most"),
        (Said(CLIP, "note", "half a \ud83d"), "the note is not text in UTF-8"),
        (Said(CLIP, "note", "x", first_frame=60, last_frame=61), r"frames 60 to 61 are not in order inside its 61 frames, 0 to 60"),
        (Said(CLIP, "note", "x", first_frame=5, last_frame=4), "frames 5 to 4"),
        (Said(CLIP, "note", "x", first_frame=-1), "frames -1 to -1"),
        (Said(CLIP, "note", "x", last_frame=4), "a last frame needs a first frame"),
        (Said(CLIP, "note", drawing=[[[0.5, 0.5]]]), "a drawing needs a first frame"),
        (Said(CLIP, "note", first_frame=0, drawing=[[[0.5, 1.5]]]), r"points \[x, y\] with both in 0 to 1"),
        (Said(CLIP, "note", first_frame=0, drawing=[[[0.5, float("nan")]]]), r"points \[x, y\]"),
        (Said(CLIP, "note", first_frame=0, drawing=[[[0.5, 0.5, 0.5]]]), r"points \[x, y\]"),
        (Said(CLIP, "note", first_frame=0, drawing=[[[0.5, 0.5]], []]), r"points \[x, y\]"),
        (Said(CLIP, "note", first_frame=0, drawing="no"), r"points \[x, y\]"),
        (Said(CLIP, "note", first_frame=0, drawing=[[[0.5, 0.5]] * 5001]), "the drawing has 5001 points; 5000 are the most"),
    ],
)
def test_what_cannot_be_said_is_one_sentence_and_nothing_is_recorded(desk, what, words):
    desk.take("SH0010", "clip", 1, 0, desk.take("SH0010", "keyframe"), frames=61)
    with pytest.raises(InputError, match=words):
        say(desk.catalog, desk.settings, what)
    assert desk.catalog.rows("reviews") == []


def test_what_was_said_comes_back_with_who_and_when_and_the_latest_first(desk):
    desk.take("SH0010", "clip", 1, 0, desk.take("SH0010", "keyframe"), frames=61)
    lines = [[[0.25, 0.5], [0.5, 1]]]
    first = say(desk.catalog, desk.settings, Said(CLIP, "note", "her hand", "Mika", 38, 47, lines))
    said(desk, KEYFRAME, "retake", seed=3)
    said(desk, "E90/SH0010/keyframe/v001", "note", note="later")
    found = reviews(desk.catalog, "E90", "SH0010")
    assert [(r["verdict"], r["stage"], r["by"]) for r in found] == [("note", "keyframe", "Mika"), ("retake", "keyframe", "Mika"), ("note", "clip", "Mika")]
    assert found[-1] | {"drawing": lines} == {**first, "shot": "SH0010", "stage": "clip", "drawing": lines, **{k: None for k in ("attempts", "overrides", "written")}}
    assert (found[1]["overrides"], found[1]["attempts"], len(found[1]["written"])) == ({"seed": 3}, 1, 64)
    assert [r["at"] for r in found] == sorted((r["at"] for r in found), reverse=True)
    assert reviews(desk.catalog, "E90", "SH0020") == [] and len(reviews(desk.catalog, "E90")) == 3


def test_a_note_is_no_word(desk):
    desk.render("SH0010")
    said(desk, CLIP, "approved")
    said(desk, CLIP, "note", note="fine")
    desk.edit("action: walking right", "action: walking left")
    assert standing(desk) == ["keyframe/v001", "clip/v001"]


# --- the rules, in twenty lines -------------------------------------------------------------------------------------------


@dataclass
class Made:
    """A take of the model. start: its keyframe, for clips. of: what it was made from."""

    stage: str
    n: int
    gate: bool
    of: tuple
    start: Made | None = None

    @property
    def id(self) -> str:
        return f"E90/SH0010/{self.stage}/v{self.n:03d}"


@dataclass
class Rules:
    """What should stand, by the rules as people are told them."""

    action: str = "right"
    takes: list[Made] = field(default_factory=list)
    words: list[tuple[str, Made, int, dict, str]] = field(default_factory=list)  # verdict, take, attempts, what changes, action then

    def word(self, stage: str) -> tuple[int, str, Made] | None:
        return next(((i, w[0], w[1]) for i, w in reversed(list(enumerate(self.words))) if w[1].stage == stage), None)

    def covering(self, take: Made) -> tuple[int, str]:
        return max(((i, w[0]) for i, w in enumerate(self.words)
                    if w[1] is take or (w[0] == "retake" and w[1].stage == take.stage and take.n <= w[2])), default=(-1, ""))  # fmt: skip

    def counts(self, take: Made) -> bool:
        return {"approved": True, "retake": False}.get(self.covering(take)[1], take.gate)

    def of(self, stage: str, start: Made | None = None) -> tuple:
        here = [w for w in self.words if w[4] == self.action]
        seed = next((w[3]["seed"] for w in reversed(here) if w[1].stage == stage and "seed" in w[3]), None)
        prompt = next((w[3]["prompt"] for w in reversed(here) if w[1].stage in ("keyframe", stage) and "prompt" in w[3]), self.action)
        return prompt, seed, start and start.n

    def right(self, take: Made) -> bool:
        return self.counts(take) and take.of == self.of(take.stage, take.start)

    def stands(self) -> list[str]:
        still, clip = self.word("keyframe"), self.word("clip")
        if clip and clip[1] == "approved" and not (self.covering(clip[2].start)[1] == "retake" and self.covering(clip[2].start)[0] > clip[0]):
            return [clip[2].start.id, clip[2].id]
        if clip and clip[1] == "picked" and self.right(clip[2]) and self.right(clip[2].start):
            other = still and still[1] != "retake" and still[2] is not clip[2].start
            if not other or (still[1] == "picked" and still[0] < clip[0]):
                return [clip[2].start.id, clip[2].id]
        chosen = still and (still[1] == "approved" or (still[1] == "picked" and self.right(still[2])))
        first = still[2] if chosen else next((t for t in reversed(self.takes) if t.stage == "keyframe" and self.right(t)), None)
        if first is None:
            return []
        second = next((t for t in reversed(self.takes) if t.stage == "clip" and t.start is first and self.right(t)), None)
        return [first.id] + ([second.id] if second else [])


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.booleans(), st.booleans()),
        st.tuples(st.sampled_from(["approved", "picked", "retake"]), st.integers(0, 9), st.sampled_from([{}, {}, {"seed": 5}, {"prompt": "kite"}])),
        st.tuples(st.just("gate"), st.integers(0, 9), st.none()),
        st.tuples(st.just("write"), st.sampled_from(["right", "left"]), st.none()),
    ),
    min_size=4,
    max_size=9,
)


class Story:
    """Steps of a random story, taken by a real catalog and by the model."""

    def __init__(self, desk: Desk):
        self.desk, self.rules = desk, Rules()
        desk.render("SH0010")
        still = Made("keyframe", 1, True, ("right", None, None))
        self.rules.takes += [still, Made("clip", 1, True, ("right", None, 1), still)]

    def take(self, clip: bool, good: bool) -> None:
        """A take of what would be made now: of the clip where there is a keyframe to start from and a clip is wanted."""
        (shot, *_) = self.desk.plan().shots
        start = next((t for t in self.rules.takes if t.stage == "keyframe" and self.rules.stands()[:1] == [t.id]), None) if clip else None
        stage = "clip" if start else "keyframe"
        n = 1 + sum(t.stage == stage for t in self.rules.takes)
        begin = Start.of_past(shot.accepted[0]) if start else None
        verdict = {} if good else {"outcome": "rejected", "labels": ["flicker"]}
        self.desk.catalog.append("takes", [self.desk.told(shot, stage, n, n, begin, **verdict)[1]])
        self.rules.takes.append(Made(stage, n, good, self.rules.of(stage, start), start))

    def say(self, verdict: str, number: int, changes: dict) -> None:
        take = self.rules.takes[number % len(self.rules.takes)]
        changes = changes if verdict == "retake" else {}
        try:
            row = said(self.desk, take.id, verdict, **changes)
        except InputError:
            assert verdict == "picked" and not take.gate, "nothing else is refused"
            return
        self.rules.words.append((verdict, take, row.get("attempts") or 0, changes, self.rules.action))

    def gate(self, number: int) -> None:
        """The gates change their mind on a take."""
        take = self.rules.takes[number % len(self.rules.takes)]
        take.gate = not take.gate
        (row,) = [t for t in all_takes(self.desk.catalog) if t["take"] == take.id]
        judged = {name: row[name] for name in ("take", "episode", "profile", "declared")}
        labels = [] if take.gate else ["flicker"]
        judged |= {"outcome": "accepted" if take.gate else "rejected", "labels": labels, "warnings": [], "findings": "[]"}
        self.desk.catalog.append_later("judgements", [judged])

    def write(self, action: str) -> None:
        self.desk.file.write_text(EPISODE.replace("walking right", f"walking {action}"))
        self.rules.action = action


@given(STEPS)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_plan_follows_the_rules_whatever_is_said_in_whatever_order(tmp_path_factory, seeded, verdicts, steps):
    folder = tmp_path_factory.mktemp("story")
    shutil.copytree(seeded, folder / "catalog")
    where = load_settings().model_copy(update={"catalog_uri": str(folder / "catalog"), "models_dir": folder / "models"})
    story = Story(Desk(folder, where, verdicts))
    for name, first, second in steps:
        if name == "take":
            story.take(first, second)
        elif name in ("gate", "write"):
            getattr(story, name)(first)
        else:
            story.say(name, first, second)
        (shot, *_) = story.desk.plan().shots
        assert [take.take for take in shot.accepted] == story.rules.stands(), steps
    shutil.rmtree(folder)


# --- on the terminal ------------------------------------------------------------------------------------------------------


def test_everything_is_said_and_shown_on_the_terminal(copied, here):
    file = Path("episode.yaml")
    assert here("review", "E90", "SH0010").out == "nothing was said of SH0010 yet\n"
    assert here("review", file, "SH0010", "--approve", "--by", "Mika").code == 0
    assert here("review", file, "SH0010", "--note", "her hand", "--frames", "38-47", "--take", "v001", "--by", "Aki").code == 0
    rows = json.loads(here("review", "E90", "SH0010", "--json").out)
    assert [(r["take"], r["verdict"], r["by"], r["first_frame"], r["last_frame"]) for r in rows] == [(CLIP, "note", "Aki", 38, 47), (CLIP, "approved", "Mika", None, None)]
    listed = here("review", "E90", "SH0010").out
    assert "38-47" in listed and "her hand" in listed and "approved" in listed

    here("review", file, "SH0020", "--retake", "--note", "her hair", "--by", "Mika")
    status = {row["shot"]: row for row in json.loads(here("status", "E90", "--json").out)}
    assert (status["SH0010"]["outcome"], status["SH0010"]["told"], status["SH0010"]["clip"]) == ("accepted", "accepted (approved by Mika)", CLIP)
    assert status["SH0020"]["told"] == "rejected (retake asked for by Mika; the gate: accepted)"
    assert "rejected (retake asked for by Mika; the gate: accepted)" in here("takes", "E90", "SH0020").out
    assert "accepted (approved by Mika)" in here("status", "E90").out

    (copied / file).write_text((copied / file).read_text().replace("walking right", "walking left"))
    shown = " ".join(here("plan", file).out.split())
    assert "SH0010 clean" in shown and "approved by Mika; since it was made, prompt changed: -'right' +'left'" in shown
    assert "3 shots, 1 to render" in shown


def test_a_word_that_cannot_be_said_is_refused_on_the_terminal(copied, here):
    for args, words in (
        (["--retake", "--approve"], "say one thing"),
        (["--take", "v001"], "say one thing"),
        (["--pick", "v001", "--take", "v001"], "leave out --take"),
        (["--pick", "v009"], "no take 'E90/SH0010/clip/v009'"),
        (["--note", "x", "--frames", "4-"], "neither a frame, such as 41, nor a range"),
        (["--note", "x", "--frames", "999"], "not in order inside"),
        (["--retake", "--set", "strength"], "is not a name and a number"),
        (["--retake", "--set", "strength=nan"], "is not a name and a number"),
        (["--retake", "--stage", "sound"], "--stage 'sound' is none of"),
        (["--retake", "--set", "strength=0.5"], "has no parameter 'strength'; it declares none"),  # so says the story that the catalog keeps
    ):
        refused(here("review", "E90", "SH0010", *args), words)
    refused(here("review", "E90", "SH0099"), "no takes of episode E90, shot SH0099")
    refused(here("review", "episode.yaml", "SH0010", "--retake", "--set", "strength=0.5"), "has no parameter 'strength'; it declares none")
    assert json.loads(here("review", "E90", "SH0010", "--json").out) == []


def test_a_render_makes_what_people_asked_for_and_leaves_what_they_locked(copied, here):
    before = takes_of(copied)
    assert here("review", "E90", "SH0010", "--approve", "--by", "Mika").code == 0
    done = here("review", "episode.yaml", "SH0020", "--retake", "--seed", "7", "--prompt", "close-up, a girl with pink hair", "--set", "strength=0.6", "--by", "Mika")
    assert done.code == 0, done.err
    file = copied / "episode.yaml"
    file.write_text(file.read_text().replace("walking right", "walking left"))
    done = tower("render", "episode.yaml", cwd=copied)
    assert done.code in (0, 3), done.err
    new = takes_of(copied)[len(before) :]
    assert {(t["shot"], t["stage"]) for t in new} == {("SH0020", "clip")}
    assert [t["seed"] for t in new] == [7 + n for n in range(len(new))]
    assert {t["prompt"] for t in new} == {"close-up, a girl with pink hair"} and json.loads(new[0]["parameters"])["strength"] == 0.6
    here("review", "E90", "SH0020", "--approve", "--take", f"v{new[-1]['attempt']:03d}")
    assert {r["state"] for r in json.loads(here("plan", "episode.yaml", "--json").out)} == {"clean"}
    assert tower("render", "episode.yaml", "--fresh", "--only", "SH0010,SH0020", cwd=copied).code == 0
    assert len(takes_of(copied)) == len(before) + len(new), "what is approved is not rendered again, whatever is asked for"
