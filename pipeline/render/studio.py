"""The studio: what one shot's life needs of the pool, the gates and the catalog."""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from actors.values import ClipRequest, KeyframeRequest, PromptRequest, Receipt
from catalog.media import Media
from catalog.store import Catalog
from catalog.writer import Writer
from cluster.pool import Pool
from cluster.specs import DeviceLost, ModelBroken, ModelSpec, Part, RequestFailed
from gates.image import keyframe_hash, nearest
from gates.rules import judge
from gates.video import Expectation
from pipeline.plan.plan import ShotPlan
from pipeline.plan.resolve import StagePlan, clip_inputs, parameters_json
from pipeline.story.errors import StorageError
from pipeline.story.fingerprint import seed_for

from .gate_tasks import Judged, Standard, judge_clip, judge_given, judge_keyframe, keyframe_part
from .keyframe_hashes import KeyframeHashes
from .needs import Specs, identity_of
from .shot import Start

# What a device does first when several things wait: texts are short and everything needs them; then what
# is nearest to being finished, so that few shots are half-done at any time.
PRIORITY = {"prompt": 3, "clip": 2, "keyframe": 1}
REMEMBERED_PROMPTS = 512  # embeddings kept in the object store: negatives and retries hit, memory stays bounded


@dataclass(frozen=True)
class Take:
    """One attempt, as its row tells it. picture: a keyframe's pixels, where they still lie in the object store."""

    row: dict[str, Any]
    picture: Part | None = None

    @property
    def id(self) -> str:
        return self.row["take"]

    @property
    def outcome(self) -> str:
        return self.row["outcome"]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.row["labels"])

    @property
    def is_final(self) -> bool:
        """Whether another attempt would fail the same way: its model killed device after device."""
        return self.outcome == "error" and self.row["error"].startswith(ModelBroken.__name__)

    @property
    def media(self) -> Media:
        return Media(self.row["media"], self.row["media_path"], self.row["media_bytes"])


@dataclass
class Studio:
    """Everything a shot needs, and of other shots nothing but 64 bits of each accepted keyframe."""

    run: str
    pool: Pool
    catalog: Catalog
    writer: Writer
    specs: Specs
    tell: Callable[[Take], None] = lambda take: None
    keyframes: KeyframeHashes = field(default_factory=lambda: KeyframeHashes({}))
    prompts: OrderedDict[tuple[str, str], asyncio.Future[tuple[Part, str | None]]] = field(default_factory=OrderedDict)

    async def keyframe(self, plan: ShotPlan, attempt: int, variation: int) -> Take:
        """One take of a shot's keyframe: drawn, stored, judged, recorded."""
        stage, wanted = plan.keyframe, plan.keyframe.workflow
        seed = seed_for(plan.episode, plan.shot.id, "keyframe", plan.shot.variation, variation)
        row = self._row(plan, stage, attempt, variation, seed, stage.inputs, None)

        drawn: list[Part] = []

        async def work() -> Judged:
            if plan.given_keyframe:
                row["seed"] = None
                given = plan.given_keyframe, wanted.width, wanted.height, self.catalog.place, _standard(plan, stage)
                return self._compared(plan, await self.pool.cpu(judge_given, *given, name="gate 1"))
            request = KeyframeRequest(row["take"], seed, stage.loras, stage.parameters)
            receipt, picture = await self._generate(plan, stage, request, row, {}, together=(stage.loras, stage.parameters))
            drawn.append(picture)
            made = picture, receipt.finite, wanted.width, wanted.height, self.catalog.place, _standard(plan, stage)
            return self._compared(plan, await self.pool.cpu(judge_keyframe, *made, name="gate 1"))

        take = await self._attempt(row, work, drawn)
        if take.outcome == "accepted":
            self.keyframes.set(plan.shot.id, keyframe_hash(take.row["measures"]))
        return take

    async def clip(self, plan: ShotPlan, attempt: int, variation: int, start: Start) -> Take:
        """One take of a shot's clip, started from this keyframe: made, encoded, judged, recorded."""
        stage, wanted, keyframe = plan.clip, plan.clip.workflow, start.media
        assert wanted.num_frames and wanted.fps
        fps = Fraction(wanted.fps).limit_denominator(1001)
        expect = Expectation(wanted.num_frames, fps, wanted.width, wanted.height, "h264", "yuv420p")
        seed = seed_for(plan.episode, plan.shot.id, "clip", plan.shot.variation, variation)
        row = self._row(plan, stage, attempt, variation, seed, clip_inputs(stage, keyframe.digest), keyframe)
        row.update(fps=float(fps), upstream=start.take)

        async def work() -> Judged:
            still = start.picture
            if still is None or (plan.keyframe.workflow.width, plan.keyframe.workflow.height) != (wanted.width, wanted.height):
                start_of = keyframe, wanted.width, wanted.height, self.catalog.place
                still = await self.pool.cpu_part(keyframe_part, *start_of, name="still for a clip")
            request = ClipRequest(row["take"], seed, stage.loras, stage.parameters)
            receipt, frames = await self._generate(plan, stage, request, row, {"keyframe": still}, together=row["take"])
            made = frames, receipt.finite, keyframe, expect, self.catalog.place, _standard(plan, stage)
            try:
                return await self.pool.cpu(judge_clip, *made, name="gate 2")
            finally:
                self.pool.release(frames)

        return await self._attempt(row, work)

    def _compared(self, plan: ShotPlan, judged: Judged) -> Judged:
        """The verdict with what only the driver knows: whether another shot has this very keyframe."""
        measures = judged.verdict.measures
        others = self.keyframes.of_others(plan.shot.id)
        verdict = judge("image", measures | nearest(measures, others), plan.keyframe.profile, plan.shot.declares)
        return replace(judged, verdict=verdict)

    async def _generate(
        self, plan: ShotPlan, stage: StagePlan, request: Any, row: dict[str, Any], parts: dict[str, Part], together: Any
    ) -> tuple[Receipt, Part]:
        """Run the model; its receipt must name this take, this seed and this workflow."""
        first = plan.shot.priority
        prompt, row["prompt_cut"] = await self._prompt(stage, stage.prompt, first)
        negative, _ = await self._prompt(stage, stage.negative_prompt, first)
        asked, spec = time.monotonic(), self.specs.model(stage)
        given = {"prompt": prompt, "negative": negative, **parts}
        # What was rejected before goes before what was not, so that the end of an episode is not one long chain of retries.
        priority = first, PRIORITY[stage.stage], row["attempt"]
        receipt, result = await self.pool.submit(spec, request, given, priority, together, plan.shot.id)
        if (receipt.take, receipt.model, receipt.seed) != (request.take, identity_of(stage), request.seed):
            self.pool.release(result)
            raise RequestFailed(
                "WrongResult", f"asked for {request.take} from {identity_of(stage)}, got {receipt.take} from {receipt.model}"
            )
        row["queue_seconds"] = max(0.0, time.monotonic() - asked - receipt.seconds)
        row["device_seconds"], row["device"], row["peak_memory_bytes"] = receipt.seconds, receipt.device, receipt.peak_memory_bytes
        row["node"], row["model_memory_bytes"] = receipt.node, self.pool.learned.memory.get(spec.key)
        return receipt, result

    async def _prompt(self, stage: StagePlan, text: str, first: int) -> tuple[Part, str | None]:
        """Each text is encoded once, for as long as it is remembered; whoever asks meanwhile waits for the same."""
        spec = self.specs.encoder(stage)
        key = spec.key, text
        if key not in self.prompts or self.prompts[key].cancelled():
            self.prompts[key] = asyncio.ensure_future(self._encode(spec, text, first))
            while len(self.prompts) > REMEMBERED_PROMPTS:
                self.prompts.popitem(last=False)
        self.prompts.move_to_end(key)
        known = self.prompts[key]
        if known.done() and not known.exception():
            return known.result()
        try:
            return await asyncio.shield(known)
        except Exception:
            self.prompts.pop(key, None)  # the next one tries anew
            raise

    async def _encode(self, spec: ModelSpec, text: str, first: int) -> tuple[Part, str | None]:
        receipt, part = await self.pool.submit(spec, PromptRequest(text), None, (first, PRIORITY["prompt"]))
        return part, receipt.cut

    async def _attempt(self, row: dict[str, Any], work: Callable[[], Any], drawn: Sequence[Part] = ()) -> Take:
        """Run the work and record what came of it. Media is on disk before its row is written."""
        try:
            judged: Judged = await work()
            row.update(_judged_columns(judged))
        except (DeviceLost, RequestFailed, ModelBroken) as error:
            if isinstance(error, DeviceLost):
                self.prompts.clear()  # what lay on a lost node is gone; texts are cheap to encode again
            row.update(outcome="error", error=f"{type(error).__name__}: {error}")
        except OSError as error:
            raise StorageError(f"media cannot be written to {self.catalog.place}: {error.strerror or error}") from error
        row["at"] = datetime.now(UTC)
        await self.writer.add("takes", row)
        take = Take(row, drawn[0] if drawn else None)
        self.tell(take)
        return take

    def _row(
        self, plan: ShotPlan, stage: StagePlan, attempt: int, variation: int, seed: int, inputs: str, keyframe: Media | None
    ) -> dict[str, Any]:
        return {
            "take": f"{plan.episode}/{plan.shot.id}/{stage.stage}/v{attempt:03d}",
            "run": self.run,
            "episode": plan.episode,
            "sequence": plan.sequence.id,
            "shot": plan.shot.id,
            "stage": stage.stage,
            "attempt": attempt,
            "variation": variation,
            "inputs": inputs,
            "workflow": stage.workflow.name,
            "workflow_version": stage.workflow.version,
            "workflow_digest": stage.workflow_digest,
            "seed": seed,
            "prompt": stage.prompt,
            "negative_prompt": stage.negative_prompt,
            "keyframe_media": keyframe.digest if keyframe else None,
            "labels": [],
            "warnings": [],
            "profile": stage.ready.profile_identity,
            "declared": list(plan.shot.declares),
            "parameters": parameters_json(stage),
            "reference_files": dict(stage.reference_files),
            "shot_variation": plan.shot.variation,
        }


def _standard(plan: ShotPlan, stage: StagePlan) -> Standard:
    return Standard(stage.profile, plan.shot.declares)


def _judged_columns(judged: Judged) -> dict[str, Any]:
    verdict, media = judged.verdict, judged.media
    return {
        "outcome": "rejected" if verdict.outcome == "fail" else "accepted",
        "labels": list(verdict.failures),
        "warnings": list(verdict.warnings),
        "measures": verdict.measures,
        "findings": json.dumps(verdict.to_dict()["findings"]),
        "media": media.digest,
        "media_path": media.path,
        "media_bytes": media.bytes,
        "width": judged.width,
        "height": judged.height,
        "frames": judged.frames,
        "gate_seconds": judged.seconds,
        "encode_seconds": judged.encode_seconds,
    }
