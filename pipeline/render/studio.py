"""The studio: makes a shot's takes, with the pool's devices, the gates' CPU tasks and the catalog."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from actors.values import ClipRequest, KeyframeRequest, Lora, PromptReceipt, PromptRequest, Receipt
from catalog.store import Catalog
from catalog.writer import Writer
from cluster.pool import Pool
from cluster.specs import DeviceLost, ModelBroken, ModelSpec, RequestFailed, Stored
from gates.image import keyframe_hash, nearest
from gates.rules import judge
from gates.video import Expectation
from pipeline.plan.changes import parameters_json
from pipeline.plan.plan import ShotPlan
from pipeline.plan.resolve import StagePlan, inputs_from, seed_of
from pipeline.plan.verdicts import verdict_columns
from pipeline.story.errors import StorageError
from pipeline.story.rate import exact
from pipeline.story.stages import STAGES

from .gate_tasks import Judged, Standard, judge_clip, judge_given, judge_keyframe, keyframe_part, passages_part
from .keyframe_hashes import KeyframeHashes
from .marks import Marks, take_marks
from .needs import ModelNeeds, identity_of, text_loras
from .take import Start, Take
from .watcher import Watcher

# Order of the requests that wait for a device; higher first. Prompts are first: they are short, and every take needs them.
# Clips are before keyframes, so that few shots are unfinished at any time.
PRIORITY = {"prompt": len(STAGES) + 1} | {stage: i for i, stage in enumerate(STAGES, 1)}  # keyframe 1, clip 2, prompt 3
REMEMBERED_PROMPTS = 512  # embeddings cached in the object store: enough for negative prompts and retries, and bounded in memory


Encoded = tuple[Stored, PromptReceipt]  # a text's embedding in the object store, and what its encoder says of it


@dataclass
class Work:
    """A take while it is made.

    start: the accepted take of the stage before; None for the first stage. row: the take's row, filled step by step.
    picture: the rendered still in the object store; None before it is rendered, and for clips.
    """

    plan: ShotPlan
    stage: StagePlan
    seed: int
    start: Start | None
    row: dict[str, Any]
    picture: Stored | None = None

    @property
    def standard(self) -> Standard:
        return Standard(self.stage.profile, self.plan.shot.declares)

    @property
    def marks(self) -> Marks:
        """What the take's file says of itself. A person's pictures are in what is made of them, stage after stage."""
        until = self.plan.stages[: STAGES.index(self.stage.stage) + 1]
        return take_marks(self.row, composite=any(stage.given or stage.guides for stage in until))


@dataclass
class Studio:
    """Makes takes. Of other shots it knows only the 64-bit hashes of their accepted keyframes."""

    run: str
    pool: Pool
    catalog: Catalog
    writer: Writer
    needs: ModelNeeds
    watcher: Watcher = field(default_factory=Watcher)
    keyframes: KeyframeHashes = field(default_factory=lambda: KeyframeHashes({}))
    prompts: OrderedDict[tuple[str, tuple[Lora, ...], str], asyncio.Future[Encoded]] = field(default_factory=OrderedDict)

    async def take(self, plan: ShotPlan, stage: StagePlan, attempt: int, variation: int, start: Start | None) -> Take:
        """Make, store, judge and record one take of a stage. An error of a device or a model is recorded, not raised.

        Args:
            attempt: number of the take, from 1. variation: 0, 1, 2 …; the seed is computed from it.
            start: the accepted take of the stage before; None for the first stage.

        Raises:
            Stopped, NothingCanRun: as `Pool.submit`.
            StorageError, CatalogError: the media file or the row cannot be written.
            MediaDamaged: the keyframe's file is not what its name promises.
        """
        makers: dict[str, Callable[[Work], Awaitable[Judged]]] = {"keyframe": self._keyframe, "clip": self._clip}
        make = self._given if stage.given else makers[stage.stage]
        seed = seed_of(stage, plan.episode, plan.shot, variation)
        row = _row(self.run, plan, stage, attempt, variation, start)
        try:
            return await self._recorded(Work(plan, stage, seed, start, row), make)
        finally:
            self.watcher.step(row["take"], "")

    # --- one method for each stage ----------------------------------------------------------------------------------

    async def _given(self, work: Work) -> Judged:
        """Judge a person's picture in place of a rendered keyframe."""
        wanted = work.stage.workflow
        to_judge = work.stage.given, wanted.width, wanted.height, self.catalog.place, work.standard, work.stage.given_frame, work.marks
        self.watcher.step(work.row["take"], "gate 1")
        return self._compared(work.plan, work.stage, await self.pool.cpu(judge_given, *to_judge, name="gate 1"))

    async def _keyframe(self, work: Work) -> Judged:
        stage, wanted = work.stage, work.stage.workflow
        work.row["seed"] = work.seed
        self.watcher.step(work.row["take"], "waits")
        request = KeyframeRequest(work.row["take"], work.seed, stage.loras, stage.parameters, identity_of(stage), wanted.settings())
        receipt, work.picture = await self._generate(work, request, {}, together=(request.workflow, stage.loras, stage.parameters))
        to_judge = work.picture, receipt.not_finite, wanted.width, wanted.height, self.catalog.place, work.standard, work.marks
        self.watcher.step(work.row["take"], "gate 1")
        return self._compared(work.plan, stage, await self.pool.cpu(judge_keyframe, *to_judge, name="gate 1"))

    async def _clip(self, work: Work) -> Judged:
        """Render a clip from the accepted keyframe, encode it, and judge it against the keyframe."""
        stage, wanted, start = work.stage, work.stage.workflow, work.start
        assert start and wanted.num_frames and wanted.fps
        fps = exact(wanted.fps)
        expect = Expectation(wanted.num_frames, fps, wanted.width, wanted.height, "h264", "yuv420p")
        work.row.update(seed=work.seed, fps=float(fps))
        self.watcher.step(work.row["take"], "waits")
        still = start.picture
        if still is None or start.size != (wanted.width, wanted.height):
            start_of = start.media, wanted.width, wanted.height, self.catalog.place
            still = await self.pool.cpu_part(keyframe_part, *start_of, name="still for a clip")
        stored = {"keyframe": still}
        if stage.guides:
            stored["passages"] = await self.pool.cpu_part(passages_part, stage.guides, wanted.width, wanted.height, name="still for a clip")
        request = ClipRequest(work.row["take"], work.seed, stage.loras, stage.parameters, identity_of(stage), wanted.settings())
        receipt, frames = await self._generate(work, request, stored, together=request.take)  # clips share no batch
        last = next((g for g in stage.guides if g.end == wanted.num_frames and g.strength == 1), None)
        to_judge = frames, receipt.not_finite, start.media, expect, self.catalog.place, work.standard, last, work.marks
        self.watcher.step(work.row["take"], "gate 2")
        try:
            return await self.pool.cpu(judge_clip, *to_judge, name="gate 2")
        finally:
            self.pool.release(frames)

    def _compared(self, plan: ShotPlan, stage: StagePlan, judged: Judged) -> Judged:
        """Judge again with a measure that needs all shots: how similar the keyframe is to those of other shots."""
        measures = judged.verdict.measures
        others = self.keyframes.of_others(plan.shot.id)
        texts = {found.label: found.text for found in judged.verdict.findings}
        verdict = judge("image", measures | nearest(measures, others), stage.profile, plan.shot.declares, texts)
        if verdict.outcome != "fail":
            self.keyframes.set(plan.shot.id, keyframe_hash(measures))
        return replace(judged, verdict=verdict)

    # --- steps that the stages share --------------------------------------------------------------------------------

    async def _generate(self, work: Work, request: Any, stored: dict[str, Stored], together: Any) -> tuple[Receipt, Stored]:
        """Run the model.

        Args:
            stored: fields of the request that are in the object store. together: only requests with equal values share a batch.

        Raises:
            RequestFailed: the model raised, or its receipt names another take, seed or workflow.
            DeviceLost, ModelBroken, Stopped: as `Pool.submit`.
        """
        stage, row, shot_priority = work.stage, work.row, work.plan.shot.priority
        prompt, read = await self._prompt(stage, stage.prompt, shot_priority)
        row["prompt_cut"] = read.cut
        negative, _ = await self._prompt(stage, stage.negative_prompt, shot_priority)
        submitted = time.monotonic()
        spec = self.needs.model(stage)
        parts = {"prompt": prompt, "negative": negative, **stored}
        # Retries go before first attempts: otherwise an episode would end in one long chain of retries.
        priority = shot_priority, PRIORITY[stage.stage], row["attempt"]
        receipt, result = await self.pool.submit(spec, request, parts, priority, together, work.plan.shot.id)
        if (receipt.take, receipt.model, receipt.seed) != (request.take, identity_of(stage), request.seed):
            self.pool.release(result)
            raise RequestFailed(
                "WrongResult", f"asked for {request.take} from {identity_of(stage)}, got {receipt.take} from {receipt.model}"
            )
        row["queue_seconds"] = max(0.0, time.monotonic() - submitted - receipt.seconds)
        row["device_seconds"], row["device"], row["peak_memory_bytes"] = receipt.seconds, receipt.device, receipt.peak_memory_bytes
        row["certificate"] = _certificates(receipt.certificate, read.certificate)
        row["node"], row["model_memory_bytes"] = receipt.node, self.pool.learned.memory.get(spec.key)
        return receipt, result

    async def _prompt(self, stage: StagePlan, text: str, shot_priority: int) -> Encoded:
        """A text's embedding and its receipt. Cached; concurrent callers share one request."""
        spec = self.needs.encoder(stage)
        loras = text_loras(stage)
        key = spec.key, loras, text
        if key not in self.prompts or self.prompts[key].cancelled():
            self.prompts[key] = asyncio.ensure_future(self._encode(spec, loras, text, shot_priority))
            while len(self.prompts) > REMEMBERED_PROMPTS:
                self.prompts.popitem(last=False)
        self.prompts.move_to_end(key)
        try:
            return await asyncio.shield(self.prompts[key])  # a caller that is cancelled must not cancel the request of the others
        except Exception:
            self.prompts.pop(key, None)  # the next caller tries again
            raise

    async def _encode(self, spec: ModelSpec, loras: tuple[Lora, ...], text: str, shot_priority: int) -> Encoded:
        priority = shot_priority, PRIORITY["prompt"]
        receipt, stored = await self.pool.submit(spec, PromptRequest(text, loras), None, priority, together=loras)
        return stored, receipt

    async def _recorded(self, work: Work, make: Callable[[Work], Awaitable[Judged]]) -> Take:
        """Make the take, and record its outcome. The media file is stored before the row is written."""
        row, broken = work.row, False
        try:
            row.update(_judged_columns(await make(work)))  # the gate task has stored the media file when it answers
        except (DeviceLost, RequestFailed, ModelBroken) as error:
            broken = isinstance(error, ModelBroken)
            if isinstance(error, DeviceLost):
                self.prompts.clear()  # embeddings on the lost node are gone; encoding again is cheap
            row.update(outcome="error", error=f"{type(error).__name__}: {error}")
        except OSError as error:
            raise StorageError(f"media cannot be written to {self.catalog.place}: {error.strerror or error}") from error
        row["at"] = datetime.now(UTC)
        await self.writer.add("takes", row)  # a kill before the commit leaves no row, and the next render makes the take again
        take = Take(row, work.picture, broken)
        self.watcher.take(take)
        return take


def _certificates(model: str, text: str) -> str | None:
    """The load certificates of a take's model and its text encoder as one JSON object; None where models give none."""
    return f'{{"model":{model},"text":{text}}}' if model and text else None


def _row(run: str, plan: ShotPlan, stage: StagePlan, attempt: int, variation: int, start: Start | None) -> dict[str, Any]:
    """The columns of a take that are known before it is made."""
    return {
        "take": f"{plan.episode}/{plan.shot.id}/{stage.stage}/v{attempt:03d}",
        "run": run,
        "episode": plan.episode,
        "sequence": plan.sequence.id,
        "shot": plan.shot.id,
        "stage": stage.stage,
        "attempt": attempt,
        "variation": variation,
        "inputs": inputs_from(stage, start.media.digest if start else None),
        "workflow": stage.workflow.name,
        "workflow_version": stage.workflow.version,
        "workflow_digest": stage.workflow_digest,
        "seed": None,
        "prompt": stage.prompt,
        "negative_prompt": stage.negative_prompt,
        "keyframe_media": start.media.digest if start else None,
        "labels": [],
        "warnings": [],
        "profile": stage.ready.profile_identity,
        "declared": list(plan.shot.declares),
        "parameters": parameters_json(stage),
        "reference_files": dict(stage.reference_files),
        "shot_variation": plan.shot.variation,
    } | ({"upstream": start.take} if start else {})


def _judged_columns(judged: Judged) -> dict[str, Any]:
    return verdict_columns(judged.verdict) | {
        "measures": judged.verdict.measures,
        "media": judged.media.digest,
        "media_path": judged.media.path,
        "media_bytes": judged.media.bytes,
        "width": judged.width,
        "height": judged.height,
        "frames": judged.frames,
        "gate_seconds": judged.seconds,
        "encode_seconds": judged.encode_seconds,
    }
