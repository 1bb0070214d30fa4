"""What a plan makes of earlier takes. The takes are rows as the studio writes them, with measures of real pictures; nothing is rendered."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from catalog.store import Catalog
from gates.image import judge_image
from pipeline.plan.history import REPEATED, Past, past_takes, rows_of
from pipeline.plan.plan import Plan, ShotPlan, accepted_take, as_rows, make_plan, select
from pipeline.plan.resolve import Resolver
from pipeline.plan.verdicts import Verdicts, judge_again, verdict_columns
from pipeline.registry.open_catalog import open_catalog
from pipeline.registry.workflows import Registry
from pipeline.render.studio import _row
from pipeline.render.take import Start
from pipeline.story.episode import load_episode
from pipeline.story.errors import InputError
from pipeline.story.gate_profile import PROFILES, load_profile, profile_identity
from pipeline.story.settings import Settings, load_settings

from .conftest import EPISODE
from .planted import ANIME, GOOD, good, judged, png
from .test_models import lora

SHOTS = ["SH0010", "SH0020", "SH0030"]
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def shots_of(file: Path, settings: Settings, catalog: Catalog) -> list[ShotPlan]:
    """An episode's shots as its file has them now, whatever became of them: quicker than a plan."""
    episode = load_episode(file)
    resolver = Resolver(episode, file, settings, Registry(catalog, settings))
    return [ShotPlan(episode.id, sequence, shot, resolver.stages(sequence, shot), {}) for sequence, shot in episode.shots]


class Desk:
    """An episode file, a catalog, and takes that are told of."""

    def __init__(self, folder: Path, settings: Settings, verdicts: dict[str, Any]):
        self.file, self.settings, self.verdicts, self.n = folder / "episode.yaml", settings, verdicts, 0
        self.file.write_text(EPISODE)
        self.catalog: Catalog = open_catalog(settings)

    def plan(self, **more: bool) -> Plan:
        return make_plan(load_episode(self.file), self.file, self.settings, self.catalog, **more)

    def edit(self, old: str, new: str) -> None:
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new, 1))

    def take(self, shot: str, stage: str, attempt: int = 1, variation: int = 0, start: Start | None = None, **more: Any) -> Start:
        """Record a take of a stage as it is planned now."""
        (planned,) = [s for s in shots_of(self.file, self.settings, self.catalog) if s.shot.id == shot]
        start, row = self.told(planned, stage, attempt, variation, start, **more)
        self.catalog.append("takes", [row])
        return start

    def told(self, planned: ShotPlan, stage: str, attempt: int, variation: int, start: Start | None, **more: Any) -> tuple[Start, dict]:
        """A take, and its row."""
        (what,) = [s for s in planned.stages if s.stage == stage]
        data = f"{planned.shot.id} {stage} {attempt}".encode()
        media, verdict = self.catalog.media.put(data, ".png" if stage == "keyframe" else ".mp4"), self.verdicts[stage]
        row = _row("run", planned, what, attempt, variation, start) | verdict_columns(verdict)
        row |= {"measures": verdict.measures, "media": media.digest, "media_path": media.path, "media_bytes": media.bytes}
        self.n += 1
        row |= {"at": datetime.now(UTC) + timedelta(milliseconds=self.n), "device_seconds": 30.0} | more
        return Start(row["take"], media), row

    def render(self, *shots: str) -> None:
        """All stages of these shots, accepted at once."""
        rows = []
        for planned in shots_of(self.file, self.settings, self.catalog):
            if planned.shot.id in (shots or SHOTS):
                start, keyframe = self.told(planned, "keyframe", 1, 0, None)
                rows += [keyframe, self.told(planned, "clip", 1, 0, start)[1]]
        self.catalog.append("takes", rows)

    def why(self, **more: bool) -> dict[str, list[tuple[str, str]]]:
        """Shot to (stage, code) of each reason."""
        return {s.shot.id: [(r.stage, r.code) for r in s.reasons] for s in self.plan(**more).shots if s.reasons}

    def review(self, take: str, verdict: str, note: str | None = None) -> None:
        row = {"take": take, "at": datetime.now(UTC), "episode": "E90", "verdict": verdict, "note": note, "by": "Mika"}
        self.catalog.append_later("reviews", [row])

    def past(self, shot: str, stage: str) -> list[Past]:
        return past_takes(self.catalog, "E90")[shot, stage]


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory) -> dict[str, Any]:
    return {"keyframe": judge_image(png(GOOD[0]), ANIME), "clip": judged(tmp_path_factory.mktemp("clip"), good())}


@pytest.fixture
def desk(tmp_path, seeded, verdicts) -> Desk:
    shutil.copytree(seeded, tmp_path / "catalog")
    settings = load_settings().model_copy(update={"catalog_uri": str(tmp_path / "catalog"), "models_dir": tmp_path / "models"})
    return Desk(tmp_path, settings, verdicts)


def test_a_shot_is_clean_when_all_its_stages_have_a_take_and_half_done_when_some_have(desk):
    desk.render("SH0010")
    keyframe = desk.take("SH0020", "keyframe")
    plan = desk.plan()
    rows = {row["shot"]: row for row in as_rows(plan, plan.shots)}
    assert [rows[s]["state"] for s in SHOTS] == ["clean", "stale", "stale"]
    assert [(rows[s]["keyframe"], rows[s]["clip"]) for s in SHOTS] == [("keep", "keep"), ("keep", "render"), ("render", "render")]
    assert desk.why() == {"SH0020": [("clip", "new")], "SH0030": [("keyframe", "new")]}
    first, second, third = plan.shots
    assert (first.todo, [s.stage for s in second.todo], len(third.todo)) == ((), ["clip"], 2)
    assert [p.take for p in second.accepted] == [keyframe.take] and second.on_devices == second.todo
    assert plan.stale == [second, third] and first.why == "" and second.why == "no clip yet"
    assert plan.gpu_minutes(first) == 0 and 0 < plan.gpu_minutes(second) < plan.gpu_minutes(third)


def test_minutes_are_those_of_the_takes_that_were_and_unknown_where_one_never_ran(desk):
    for n, shot in enumerate(SHOTS):
        desk.take(shot, "clip", start=desk.take(shot, "keyframe", device_seconds=60.0), device_seconds=120.0 + n)
    plan = desk.plan(fresh=True)
    assert plan.gpu_minutes(plan.shots[0]) == pytest.approx((60 + 121) / 60)
    plan.costs.known.clear()
    assert plan.gpu_minutes(plan.shots[0]) is None


def test_a_persons_picture_is_judged_and_costs_no_device(desk):
    (desk.file.parent / "mine.png").write_bytes(png(GOOD[0]))
    desk.edit("title: A test}", "keyframe: mine.png}")
    first = desk.plan().shots[0]
    assert [s.stage for s in first.todo] == ["keyframe", "clip"] and [s.stage for s in first.on_devices] == ["clip"]
    assert as_rows(desk.plan(), [first])[0]["keyframe"] == "given"


def test_the_latest_accepted_take_holds_and_one_without_its_file_is_passed_over(desk):
    older, newer = desk.take("SH0010", "keyframe", 1), desk.take("SH0010", "keyframe", 2, 1)
    takes = desk.past("SH0010", "keyframe")
    assert [t.take for t in takes] == [older.take, newer.take]
    inputs = takes[0].inputs
    assert accepted_take(desk.catalog, takes, inputs) == takes[1]
    (desk.catalog.place.folder / takes[1].media_path).unlink()
    assert accepted_take(desk.catalog, takes, inputs) == takes[0]
    assert accepted_take(desk.catalog, takes, "others") is None
    (desk.catalog.place.folder / takes[0].media_path).unlink()
    assert desk.why()["SH0010"] == [("keyframe", "media_gone")]


def test_a_clip_of_another_keyframe_does_not_count_and_says_so(desk):
    desk.render("SH0010")
    desk.take("SH0010", "keyframe", 2, 1)
    plan = desk.plan()
    assert desk.why()["SH0010"] == [("clip", "upstream_changed")]
    assert plan.shots[0].why == "its keyframe changed"


def test_a_changed_clip_says_nothing_of_its_keyframe_that_stayed(desk):
    desk.render("SH0020")
    desk.edit("clip_workflow: animatediff_16_demo}", "clip_workflow: ltx_video_2b_demo}")
    assert desk.why()["SH0020"] == [("clip", "workflow_changed")]


def test_a_clip_without_a_keyframe_counts_for_nothing(desk):
    desk.take("SH0010", "clip")
    assert desk.why()["SH0010"] == [("keyframe", "new")]


def test_what_changed_is_told_of_the_stage_that_it_touches(desk):
    desk.render()
    desk.edit("action: walking right", "action: walking left")
    assert desk.why() == {"SH0010": [("keyframe", "prompt_changed")]}
    desk.edit("action: walking left", "action: walking right")
    assert desk.why() == {}


def test_what_changed_is_told_of_the_latest_take(desk):
    desk.take("SH0010", "keyframe")
    desk.edit("action: walking right", "action: walking left")
    desk.take("SH0010", "keyframe", 2)
    desk.edit("action: walking left", "action: walking home")
    assert desk.plan().shots[0].why == "prompt changed: -'left' +'home'"


def test_what_rows_do_not_tell_is_told_to_be_the_weight_of_a_lora_where_there_is_one(desk, tmp_path):
    desk.take("SH0010", "keyframe", inputs="others")
    assert desk.plan().shots[0].why == "what the keyframe is made from changed"
    (tmp_path / "models").mkdir()
    lora(tmp_path / "models" / "hana.safetensors")
    desk.edit("yellow coat}", "yellow coat, lora: {file: hana.safetensors, weight: 0.8}}")
    desk.take("SH0020", "keyframe", inputs="others")
    assert desk.plan().shots[1].why == "what the keyframe is made from changed, such as the weight of a LoRA"
    assert "hana.safetensors" in (tmp_path / "catalog" / "model-digests.json").read_text(), "a large file is read once, not at every plan"


def test_rejected_takes_and_errors_are_counted_in_the_reason(desk):
    desk.take("SH0010", "keyframe", 1, outcome="rejected")
    desk.take("SH0010", "keyframe", 2, 1, outcome="error", measures=None, media=None, media_path=None, media_bytes=None)
    (first, *_) = desk.plan().shots
    assert [(r.code, r.text) for r in first.reasons] == [("none_accepted", "no keyframe was accepted yet (2 takes)")]
    lost = desk.past("SH0010", "keyframe")[1]
    assert (lost.media, lost.media_path, lost.outcome) == ("", "", "error")


def test_fresh_and_new_seeds_keep_nothing_and_say_which_they_are(desk):
    desk.render()
    for asked, text in (({"fresh": True}, "fresh takes were asked for"), ({"new_seeds": True}, "takes with new seeds were asked for")):
        plan = desk.plan(**asked)
        assert {s.why for s in plan.shots} == {text} and not any(s.accepted for s in plan.shots)
        assert all(s.fresh and s.new_seeds == ("new_seeds" in asked) for s in plan.shots)
        assert all(len(takes) == 1 for s in plan.shots for takes in s.history.values()), "numbers and seeds go on from them"
    assert not any(s.fresh or s.new_seeds for s in desk.plan().shots)


def test_a_persons_retake_holds_until_it_is_taken_back(desk):
    desk.render()
    clip = desk.past("SH0020", "clip")[0].take
    desk.review(clip, "retake", "her hair flickers")
    assert desk.why() == {"SH0020": [("clip", "retake")]}
    assert desk.plan().shots[1].why == "a retake of the clip was asked for by Mika: her hair flickers"
    desk.review(clip, "retake")
    assert desk.plan().shots[1].why == "a retake of the clip was asked for by Mika"
    desk.review(clip, "approved")
    assert desk.why() == {}


def test_a_retake_is_told_where_it_is_the_latest_word(desk):
    desk.take("SH0010", "keyframe", 1, outcome="rejected")
    desk.take("SH0010", "keyframe", 2)
    desk.review("E90/SH0010/keyframe/v002", "retake")
    assert desk.why()["SH0010"] == [("keyframe", "retake")]
    desk.take("SH0010", "keyframe", 3, outcome="rejected")
    assert desk.why()["SH0010"] == [("keyframe", "none_accepted")]


def test_a_selection_is_of_shots_and_of_sequences_and_of_nothing_else(desk):
    plan = desk.plan()
    assert [s.shot.id for s in select(plan, ["SH0020", "S020"]).shots] == ["SH0020", "SH0030"]
    assert select(plan, []) is plan and select(plan, [""]) is plan
    with pytest.raises(InputError, match=r"--only SH0098: .* it has S010, S020, SH0010, SH0020, SH0030$"):
        select(plan, ["SH0010", "SH0099", "SH0098"])
    many = [replace(s, shot=s.shot.model_copy(update={"id": f"SH{n:04d}"})) for s in plan.shots for n in range(50)]
    with pytest.raises(InputError, match=r"it has S010, S020, SH0000, .*, SH0037$"):
        select(replace(plan, shots=many), ["SH0099"])


def test_a_row_of_a_plan_says_all_of_its_shot(desk):
    desk.render("SH0010")
    plan = desk.plan(fresh=True)
    (row,) = as_rows(plan, plan.shots[:1])
    assert row == {
        "shot": "SH0010", "sequence": "S010", "state": "stale", "keyframe": "render", "clip": "render",
        "why": [{"stage": "keyframe", "code": "fresh", "text": "fresh takes were asked for"}],
        "gpu_minutes": 1.0, "workflows": [stage.ready.name for stage in plan.shots[0].stages],
    }  # fmt: skip


# --- judged again -------------------------------------------------------------------------------------------------------


@pytest.fixture
def profiles(tmp_path, monkeypatch):
    """The anime profile as a file that a test may change: a function from a rule's measure to the line in its place."""
    folder = tmp_path / "gates"
    folder.mkdir()
    text = (PROFILES / "anime.yaml").read_text()

    def change(measure: str = "", line: str = "") -> None:
        lines = [line if measure and f"measure: {measure}," in one and "below" in one else one for one in text.splitlines()]
        (folder / "anime.yaml").write_text("\n".join(lines))
        load_profile.cache_clear()
        Verdicts._own.cache_clear()

    change()
    monkeypatch.setattr("pipeline.story.gate_profile.PROFILES", folder)
    yield change
    load_profile.cache_clear()
    Verdicts._own.cache_clear()


def test_a_changed_profile_judges_every_accepted_take_again_and_the_plan_says_what_became_of_it(desk, profiles):
    desk.render()
    was = {t.profile for shot in SHOTS for t in desk.past(shot, "clip")}
    profiles("reach", "  - {label: frozen, measure: reach, below: 0.0001}")
    plan = desk.plan()
    assert {r["state"] for r in as_rows(plan, plan.shots)} == {"rejudge"} and plan.stale == []
    assert len(plan.judgements) == 6 and {j["outcome"] for j in plan.judgements} == {"accepted"}
    assert {j["profile"] for j in plan.judgements} == {profile_identity(load_profile("anime"))} and was != {j["profile"] for j in plan.judgements}
    text = plan.shots[0].reasons[0].text
    assert text.startswith(f"gate profile changed: {was.pop()} → anime#") and text.endswith(", the verdict stays (judged again, nothing rendered)")

    profiles("reach", "  - {label: frozen, measure: reach, below: 250}")
    plan = desk.plan()
    assert desk.why() == {shot: [("clip", "profile_changed")] for shot in SHOTS} and plan.stale == plan.shots
    assert all("; accepted becomes rejected (judged again" in s.why for s in plan.shots)
    assert all([p.take for p in s.accepted] == [f"E90/{s.shot.id}/keyframe/v001"] for s in plan.shots)
    assert {t.outcome for s in plan.shots for t in s.history["clip"]} == {"rejected"}


def test_a_changed_profile_is_seen_where_no_shot_declares_anything(desk, profiles):
    desk.edit("declares: [hold], ", "")
    desk.take("SH0010", "keyframe")
    assert desk.plan().judgements == []
    profiles("reach", "  - {label: frozen, measure: reach, below: 250}")
    assert [j["take"] for j in desk.plan().judgements] == ["E90/SH0010/keyframe/v001"]


def test_a_softer_profile_brings_a_rejected_take_back(desk, profiles):
    profiles("reach", "  - {label: frozen, measure: reach, below: 250}")
    strict = profile_identity(load_profile("anime"))
    desk.render("SH0010", "SH0020")
    desk.take("SH0030", "clip", start=desk.take("SH0030", "keyframe"), outcome="rejected", labels=["frozen"])
    profiles()
    plan = desk.plan()
    assert plan.stale == [] and strict not in {j["profile"] for j in plan.judgements}
    assert "; rejected becomes accepted" in plan.shots[2].why


def test_of_several_takes_that_a_profile_takes_back_the_latest_is_told(desk, profiles):
    start = desk.take("SH0010", "keyframe")
    desk.take("SH0010", "clip", 1, 0, start)
    desk.take("SH0010", "clip", 2, 1, start)
    profiles("reach", "  - {label: frozen, measure: reach, below: 250}")
    assert len(desk.plan().judgements) == 3 and desk.why()["SH0010"] == [("clip", "profile_changed")]


def test_only_what_a_shot_declares_now_is_judged_again(desk):
    desk.render()
    desk.edit("title: A test}", "title: A test, declares: [night]}")
    plan = desk.plan()
    assert desk.why() == {"SH0010": [("keyframe", "declares_changed"), ("clip", "declares_changed")]}
    assert sorted((j["take"], j["declared"]) for j in plan.judgements) == [(f"E90/SH0010/{s}/v001", ["night"]) for s in ("clip", "keyframe")]
    assert plan.shots[0].reasons[0].text == "its declarations changed, the verdict stays (judged again, nothing rendered)"
    desk.edit("declares: [hold], ", "")
    assert set(desk.why()) == {"SH0010", "SH0020"}, "a declaration that was taken back is a change too"


def test_the_first_declaration_of_an_episode_is_seen(desk):
    desk.edit("declares: [hold], ", "")
    desk.take("SH0010", "keyframe")
    assert desk.plan().judgements == []
    desk.edit("title: A test}", "title: A test, declares: [night]}")
    assert [j["declared"] for j in desk.plan().judgements] == [["night"]]


def test_what_a_person_decided_what_never_was_and_what_has_no_measures_is_not_judged_again(desk):
    desk.render("SH0010")
    desk.take("SH0020", "keyframe", 1, outcome="error", measures=None)
    desk.take("SH0020", "keyframe", 2, measures=None)
    desk.take("SH0030", "keyframe", 1, profile=None)
    desk.review("E90/SH0010/clip/v001", "approved")
    desk.review("E90/SH0010/keyframe/v001", "approved")
    for old, new in (("title: A test}", "declares: [night]}"), ("[hold]", "[night]"), ("transition:", "declares: [night], transition:")):
        desk.edit(old, new)
    assert desk.plan().judgements == []


def test_takes_of_other_inputs_are_left_as_they_are(desk):
    desk.take("SH0010", "keyframe")
    desk.edit("action: walking right", "action: walking left")
    desk.edit("title: A test}", "title: A test, declares: [night]}")
    assert desk.plan().judgements == [] and desk.why()["SH0010"] == [("keyframe", "prompt_changed")]


def test_a_profile_of_a_persons_own_counts_as_it_was(desk):
    desk.render("SH0010")
    desk.take("SH0020", "keyframe", profile="mine#0123")
    desk.edit("title: A test}", "title: A test, declares: [night]}")
    assert {j["take"].split("/")[1] for j in desk.plan().judgements} == {"SH0010"}


def test_a_take_from_before_profiles_wants_one_named(desk):
    desk.take("SH0010", "keyframe", profile=None)
    (row,) = rows_of(desk.catalog, ["E90/SH0010/keyframe/v001"]).values()
    with pytest.raises(InputError, match="name one with --profile"):
        judge_again(row, None)
    again = judge_again(row, ANIME)
    assert (again["take"], again["episode"], again["outcome"], again["profile"]) == (row["take"], "E90", "accepted", profile_identity(ANIME))
    assert json.loads(again["findings"]) == [] and again["labels"] == again["warnings"] == []


def test_a_declaration_softens_a_take_that_is_judged_again(desk):
    desk.take("SH0010", "keyframe", measures=judge_image(png((GOOD[0] * 0.09).astype("uint8")), ANIME).measures)
    (row,) = rows_of(desk.catalog, ["E90/SH0010/keyframe/v001"]).values()
    outcomes = [judge_again(row | {"declared": declared}, ANIME)["outcome"] for declared in (["night"], [], None)]
    assert outcomes == ["accepted", "rejected", "rejected"]


def test_rows_of_no_takes_are_none_and_others_are_by_id(desk):
    desk.render("SH0010", "SH0020")
    assert rows_of(desk.catalog, []) == {}
    found = rows_of(desk.catalog, ["E90/SH0010/clip/v001", "E90/SH0010/clip/v001", "E90/SH0020/keyframe/v001"], "take, shot")
    assert {take: row["shot"] for take, row in found.items()} == {"E90/SH0010/clip/v001": "SH0010", "E90/SH0020/keyframe/v001": "SH0020"}


def test_takes_know_their_files_digest_and_their_time_and_share_what_they_say_alike(desk):
    desk.render("SH0010")
    at = BEGAN + timedelta(microseconds=7)
    desk.take("SH0010", "keyframe", 2, 1, at=at, profile=None)
    desk.take("SH0010", "keyframe", 3, 2)
    older, newer, newest = desk.past("SH0010", "keyframe")
    (row,) = rows_of(desk.catalog, [older.take], "take, media").values()
    assert (older.take, older.media, older.committed, older.profile) == ("E90/SH0010/keyframe/v002", row["media"], at.timestamp(), None)
    assert all(getattr(newer, name) is getattr(newest, name) for name in REPEATED), "200,000 takes would need the memory"
