"""A take's row, whatever becomes of the take. Catalog, writer and gates are the real ones; the pool here answers in this process."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline.render.studio
from actors.values import ClipRequest, KeyframeRequest, PromptRequest, Receipt
from catalog.store import Catalog
from catalog.writer import Writer
from cluster.choose import Learned
from cluster.specs import DeviceLost, ModelBroken, ModelSpec, RequestFailed, Stopped, Stored
from gates.image import keyframe_hash
from gates.still import read_still
from pipeline.plan.changes import parameters_json
from pipeline.plan.plan import ShotPlan
from pipeline.plan.resolve import StagePlan, inputs_from
from pipeline.registry.open_catalog import open_catalog
from pipeline.render.needs import ModelNeeds, identity_of
from pipeline.render.studio import PRIORITY, Studio
from pipeline.render.take import Start, Take
from pipeline.render.watcher import Watcher
from pipeline.story.cluster_profile import ClusterProfile
from pipeline.story.errors import StorageError
from pipeline.story.fingerprint import seed_for
from pipeline.story.settings import load_settings

from .conftest import EPISODE
from .planted import ANOTHER, GOOD, png
from .test_past import shots_of


class Here:
    """Answers as the pool does, in this process: what is `Stored` holds its value. `spoil` changes or replaces a model's answer."""

    def __init__(self) -> None:
        self.learned, self.asked, self.released, self.gates = Learned(), [], [], []  # type: ignore[var-annotated]
        self.spoil: Callable[[Any, Receipt], Any] = lambda request, receipt: receipt
        self.full: OSError | None = None

    async def submit(self, spec: ModelSpec, request: Any, parts: Any = None, priority: Any = (0,), together: Any = None, owner: Any = None) -> Any:
        self.asked.append((spec, request, parts, priority, together, owner))
        await asyncio.sleep(0)
        receipt = Receipt(getattr(request, "take", ""), getattr(request, "workflow", spec.key), getattr(request, "seed", 0), "", 1.5, 7, "a card", "a node")
        told = self.spoil(request, receipt)
        if isinstance(told, Exception):
            raise told
        if isinstance(request, PromptRequest):
            return Cut(request.text[-3:] if len(request.text) > 60 else None), stored(request.text)
        self.learned.memory[spec.key] = 11
        return told, stored(pictures(request, spec))

    async def cpu(self, function: Callable[..., Any], *args: Any, name: str = "") -> Any:
        self.gates.append(name)
        if self.full:
            raise self.full
        return function(*(a.ref if isinstance(a, Stored) else a for a in args))

    async def cpu_part(self, function: Callable[..., Any], *args: Any, name: str = "") -> Stored:
        return stored((await self.cpu(function, *args, name=name))[0])

    def release(self, part: Stored) -> None:
        self.released.append(part)

    def models(self, kind: type) -> list[Any]:
        return [one for one in self.asked if isinstance(one[1], kind)]


class Cut:
    certificate = ""

    def __init__(self, cut: str | None):
        self.cut = cut


def stored(value: Any) -> Stored:
    return Stored(value, 0, 1)


def pictures(request: Any, spec: ModelSpec) -> np.ndarray:
    settings = request.settings
    image = read_still(png(GOOD[0])).image[: settings.height, : settings.width]
    return image if isinstance(request, KeyframeRequest) else np.stack([image] * settings.num_frames)


class Set:
    """One episode, and a studio for it."""

    def __init__(self, folder: Path):
        self.file, self.pool = folder / "episode.yaml", Here()
        self.file.write_text(EPISODE)
        self.settings = load_settings().model_copy(update={"catalog_uri": str(folder / "catalog")})
        self.catalog: Catalog = open_catalog(self.settings)

    def shot(self, n: int = 0) -> ShotPlan:
        return shots_of(self.file, self.settings, self.catalog)[n]

    def act(self, scene: Callable[[Studio], Awaitable[Any]]) -> Any:
        async def play() -> Any:
            async with asyncio.timeout(20), Writer(self.catalog) as writer:  # what has not happened then never will
                needs = ModelNeeds(ClusterProfile(name="none"))
                return await scene(Studio("run-1", self.pool, self.catalog, writer, needs))  # type: ignore[arg-type]

        return asyncio.run(play())

    def takes(self) -> list[dict[str, Any]]:
        return sorted(self.catalog.rows("takes"), key=lambda row: (row["shot"], row["stage"], row["attempt"]))


@pytest.fixture
def stage(tmp_path, seeded) -> Set:
    shutil.copytree(seeded, tmp_path / "catalog")
    return Set(tmp_path)


def keyframe(plan: ShotPlan, attempt: int = 1, variation: int = 0) -> Callable[[Studio], Awaitable[Take]]:
    return lambda studio: studio.take(plan, plan.stages[0], attempt, variation, None)


def clip(plan: ShotPlan, start: Start) -> Callable[[Studio], Awaitable[Take]]:
    return lambda studio: studio.take(plan, plan.stages[1], 1, 0, start)


def accepted(stage: Set, plan: ShotPlan) -> Start:
    """An accepted keyframe of an earlier run."""
    media = stage.catalog.media.put(png(GOOD[0]), ".png")
    return Start(f"E90/{plan.shot.id}/keyframe/v001", media)


def test_a_keyframes_row_says_what_it_was_made_from_and_what_became_of_it(stage):
    plan, began = stage.shot(), time.monotonic()
    take = stage.act(keyframe(plan, 3, 2))
    what: StagePlan = plan.stages[0]
    (row,) = stage.takes()
    wanted = {
        "take": "E90/SH0010/keyframe/v003", "run": "run-1", "episode": "E90", "sequence": "S010", "shot": "SH0010", "stage": "keyframe",
        "attempt": 3, "variation": 2, "inputs": what.inputs, "workflow": what.workflow.name, "workflow_version": what.workflow.version,
        "workflow_digest": what.workflow_digest, "seed": seed_for("E90", "SH0010", "keyframe", 0, 2), "prompt": what.prompt,
        "negative_prompt": what.negative_prompt, "keyframe_media": None, "profile": what.ready.profile_identity, "declared": [],
        "parameters": parameters_json(what), "shot_variation": 0, "upstream": None, "device_seconds": 1.5, "device": "a card",
        "node": "a node", "peak_memory_bytes": 7, "model_memory_bytes": 11, "frames": 1, "error": None, "fps": None,
    }  # fmt: skip
    assert {name: row[name] for name in wanted} == wanted
    assert row["outcome"] == take.outcome and row["labels"] == list(take.labels) and row["measures"]["width"] == row["width"] == what.workflow.width
    assert stage.catalog.media.read(row["media_path"], row["media"]) and row["media_bytes"] > 0 and row["height"] == what.workflow.height
    assert row["queue_seconds"] == 0 and 0 < row["gate_seconds"] <= time.monotonic() - began and row["encode_seconds"] <= row["gate_seconds"]
    assert (take.picture.ref == pictures(stage.pool.models(KeyframeRequest)[0][1], stage.pool.models(KeyframeRequest)[0][0])).all()
    assert not take.model_broken and stage.pool.gates == ["gate 1"] and stage.pool.released == []


def test_time_in_the_queue_is_what_the_device_did_not_take(stage):
    plan = stage.shot()
    began = time.monotonic()
    stage.pool.spoil = lambda request, receipt: Receipt(receipt.take, receipt.model, receipt.seed, "", 0.0, 0, "d", "n")
    stage.act(keyframe(plan))
    (row,) = stage.takes()
    assert 0 < row["queue_seconds"] <= time.monotonic() - began


def test_a_clip_starts_from_its_keyframe_and_says_so(stage):
    plan = stage.shot()
    start = accepted(stage, plan)
    take = stage.act(clip(plan, start))
    (row,) = stage.takes()
    flow = plan.stages[1].workflow
    assert (row["upstream"], row["keyframe_media"]) == (start.take, start.media.digest)
    assert row["inputs"] == inputs_from(plan.stages[1], start.media.digest) != plan.stages[1].inputs
    assert (row["seed"], row["fps"], row["frames"]) == (seed_for("E90", "SH0010", "clip", 0, 0), flow.fps, flow.num_frames)
    assert take.picture is None and stage.pool.gates == ["still for a clip", "gate 2"]
    ((spec, request, parts, priority, together, owner),) = stage.pool.models(ClipRequest)
    assert parts["keyframe"].ref.shape == (flow.height, flow.width, 3) and set(parts) == {"keyframe", "prompt", "negative"}
    assert (priority, together, owner) == ((plan.shot.priority, PRIORITY["clip"], 1), request.take, "SH0010")
    assert len(stage.pool.released) == 1 and spec.stage == "clip", "the frames' place is given back"


def test_pixels_that_are_at_hand_are_used_where_they_have_the_size(stage):
    plan = stage.shot()
    flow, at_hand = plan.stages[1].workflow, stored(GOOD[0])
    start = accepted(stage, plan)
    stage.act(clip(plan, Start(start.take, start.media, at_hand, (flow.width, flow.height))))
    stage.act(clip(plan, Start(start.take, start.media, at_hand, (flow.width + 1, flow.height))))
    same, other = (one[2]["keyframe"] for one in stage.pool.models(ClipRequest))
    assert same is at_hand and other.ref.shape == (flow.height, flow.width, 3) and stage.pool.gates.count("still for a clip") == 1


def test_later_stages_go_first_and_texts_before_all(stage):
    assert PRIORITY == {"prompt": 4, "finish": 3, "clip": 2, "keyframe": 1}
    plan = stage.shot()
    stage.act(keyframe(plan, 4))
    assert {one[3] for one in stage.pool.models(PromptRequest)} == {(plan.shot.priority, PRIORITY["prompt"])}
    ((_, _, _, priority, together, _),) = stage.pool.models(KeyframeRequest)
    assert priority == (plan.shot.priority, PRIORITY["keyframe"], 4), "and a retry before a first attempt"
    assert together == (identity_of(plan.stages[0]), plan.stages[0].loras, plan.stages[0].parameters)


def test_each_text_is_encoded_once_also_for_those_who_ask_together(stage):
    first, third = stage.shot(0), stage.shot(2)

    async def scene(studio: Studio) -> None:
        await asyncio.gather(*(keyframe(first, n, n)(studio) for n in (1, 2, 3)), keyframe(third)(studio))
        await keyframe(first, 4, 4)(studio)

    stage.act(scene)
    texts = [one[1].text for one in stage.pool.models(PromptRequest)]
    assert sorted(texts) == sorted({first.stages[0].prompt, third.stages[0].prompt, first.stages[0].negative_prompt})
    parts = stage.pool.models(KeyframeRequest)[0][2]
    assert {name: part.ref for name, part in parts.items()} == {"prompt": first.stages[0].prompt, "negative": first.stages[0].negative_prompt}


def test_what_an_encoder_cut_off_is_told(stage):
    stage.file.write_text(EPISODE.replace("a girl with pink hair", "a girl with pink hair " + "and ribbons " * 20))
    plan = stage.shot()
    stage.act(keyframe(plan))
    assert stage.takes()[0]["prompt_cut"] == plan.stages[0].prompt[-3:]


def test_only_so_many_texts_are_remembered_and_the_latest_used_stay(stage, monkeypatch):
    monkeypatch.setattr(pipeline.render.studio, "REMEMBERED_PROMPTS", 2)
    what = stage.shot().stages[0]

    async def scene(studio: Studio) -> None:
        for text in ("a", "b", "a", "c", "a", "b"):
            await studio._prompt(what, text, 0)

    stage.act(scene)
    assert [one[1].text for one in stage.pool.asked] == ["a", "b", "c", "b"]


def test_a_text_that_failed_is_asked_for_again_and_one_who_leaves_takes_it_from_nobody(stage):
    what, answers = stage.shot().stages[0], [RequestFailed("ValueError", "no")]
    stage.pool.spoil = lambda request, receipt: answers.pop() if answers else receipt

    async def scene(studio: Studio) -> None:
        with pytest.raises(RequestFailed):
            await studio._prompt(what, "a", 0)
        leaves, stays = (asyncio.ensure_future(studio._prompt(what, "a", 0)) for _ in range(2))
        await asyncio.sleep(0)
        leaves.cancel()
        assert (await stays)[0].ref == "a"
        next(iter(studio.prompts.values())).cancel()
        studio.prompts[next(iter(studio.prompts))] = cancelled = asyncio.get_running_loop().create_future()
        cancelled.cancel()
        assert (await studio._prompt(what, "a", 0))[0].ref == "a", "a request that was cancelled is no answer"

    stage.act(scene)
    assert len(stage.pool.asked) == 3


@pytest.mark.parametrize(
    ("error", "broken", "forgets"),
    [(DeviceLost("gone"), False, True), (RequestFailed("ValueError", "no"), False, False), (ModelBroken("kills"), True, False)],
    ids=["a lost device", "a model that raises", "a model that kills"],
)
def test_an_error_is_a_row_too(stage, error, broken, forgets):
    plan = stage.shot()
    stage.pool.spoil = lambda request, receipt: error if isinstance(request, KeyframeRequest) else receipt

    async def scene(studio: Studio) -> tuple[Take, int, int]:
        take = await keyframe(plan)(studio)
        return take, len(studio.prompts), studio.watcher.takes

    take, remembered, counted = stage.act(scene)
    (row,) = stage.takes()
    assert (row["outcome"], row["error"], row["media"]) == ("error", f"{type(error).__name__}: {error}", None)
    assert (take.outcome, take.model_broken, counted, bool(remembered)) == ("error", broken, 1, not forgets)
    assert row["seed"] is not None and row["at"] is not None


@pytest.mark.parametrize("wrong", ["take", "model", "seed"])
def test_a_receipt_for_something_else_is_an_error_and_its_pixels_are_given_back(stage, wrong):
    def spoil(request: Any, receipt: Receipt) -> Receipt:
        values = {"take": receipt.take, "model": receipt.model, "seed": receipt.seed}
        return Receipt(**(values | {wrong: 5 if wrong == "seed" else "other"}), not_finite="", seconds=1, peak_memory_bytes=1, device="d")

    stage.pool.spoil = spoil
    take = stage.act(keyframe(stage.shot()))
    assert take.outcome == "error" and "RequestFailed: asked for E90/SH0010/keyframe/v001" in take.row["error"]
    assert len(stage.pool.released) == 1 and stage.pool.gates == [], "nobody judges it"


def test_a_full_disk_and_a_stop_end_the_run_and_leave_no_row(stage):
    plan = stage.shot()
    stage.pool.full = OSError(28, "No space left on device")
    with pytest.raises(StorageError, match=f"^media cannot be written to {stage.catalog.place}: No space left on device$"):
        stage.act(keyframe(plan))
    with pytest.raises(StorageError):
        stage.act(clip(plan, accepted(stage, plan)))
    assert stage.takes() == []
    stage.pool.full = None
    stage.pool.spoil = lambda request, receipt: Stopped("stop")
    with pytest.raises(Stopped):
        stage.act(keyframe(plan))
    assert stage.takes() == []


def test_frames_are_given_back_also_where_their_gate_fails(stage):
    plan = stage.shot()
    start = accepted(stage, plan)
    flow = plan.stages[1].workflow
    stage.pool.full = OSError(28, "full")
    with pytest.raises(StorageError):
        stage.act(clip(plan, Start(start.take, start.media, stored(GOOD[0]), (flow.width, flow.height))))
    assert len(stage.pool.released) == 1


def test_values_that_were_no_numbers_are_rejected_by_both_gates(stage):
    plan = stage.shot()
    stage.pool.spoil = lambda request, receipt: Receipt(receipt.take, receipt.model, receipt.seed, "latents", 1.0, 0, "d")
    assert stage.act(keyframe(plan)).outcome == stage.act(clip(plan, accepted(stage, plan))).outcome == "rejected"
    assert {row["measures"]["non_finite"] for row in stage.takes()} == {1.0}
    assert all("values that are no numbers in the latents" in row["findings"] for row in stage.takes()), "and told where, also after the comparison with other shots"


def test_a_persons_picture_is_judged_without_a_device_and_has_no_seed(stage):
    (stage.file.parent / "mine.png").write_bytes(png(ANOTHER[0]))
    stage.file.write_text(EPISODE.replace("title: A test}", "keyframe: mine.png}"))
    take = stage.act(keyframe(stage.shot()))
    (row,) = stage.takes()
    assert (row["seed"], row["device"], take.picture, stage.pool.asked, stage.pool.gates) == (None, None, None, [], ["gate 1"])
    assert dict(row["reference_files"]).keys() == {"mine.png"} and row["media"]


def test_a_keyframe_is_compared_with_those_of_other_shots_that_were_accepted(stage):
    first, third = stage.shot(0), stage.shot(2)

    async def scene(studio: Studio) -> list[Take]:
        takes = [await keyframe(first)(studio)]
        known = studio.keyframes.of_others("SH0030").tolist()
        assert known[-1:] == [keyframe_hash(takes[0].row["measures"])]
        stage.pool.spoil = lambda request, receipt: Receipt(receipt.take, receipt.model, receipt.seed, "latents", 1.0, 0, "d")
        await keyframe(third)(studio)
        assert "SH0030" not in studio.keyframes.places, "a rejected still is nobody's double"
        stage.pool.spoil = lambda request, receipt: receipt
        return [*takes, await keyframe(third, 2, 1)(studio)]

    one, two = stage.act(scene)
    assert (one.row["warnings"], two.row["warnings"]) == ([], ["duplicate"])


class Followed(Watcher):
    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[str, str]] = []

    def step(self, take: str, step: str) -> None:
        self.steps.append((take, step))

    def take(self, take: Take) -> None:
        self.steps.append((take.id, "recorded"))


def test_a_watcher_is_told_each_step_of_a_take_and_that_it_is_over_whatever_became_of_it(stage):
    plan, followed = stage.shot(), Followed()

    async def scene(studio: Studio) -> None:
        studio.watcher = followed
        await keyframe(plan)(studio)
        await clip(plan, accepted(stage, plan))(studio)
        stage.pool.spoil = lambda request, receipt: RequestFailed("ValueError", "no")
        await keyframe(plan, 2)(studio)
        stage.pool.spoil = lambda request, receipt: Stopped("stop")
        await keyframe(plan, 3)(studio)

    with pytest.raises(Stopped):
        stage.act(scene)
    still, moving, failed, stopped = (f"E90/SH0010/{name}" for name in ("keyframe/v001", "clip/v001", "keyframe/v002", "keyframe/v003"))
    assert followed.steps == [
        *((still, step) for step in ("waits", "gate 1", "recorded", "")),
        *((moving, step) for step in ("waits", "gate 2", "recorded", "")),
        *((failed, step) for step in ("waits", "recorded", "")),
        *((stopped, step) for step in ("waits", "")),
    ]
