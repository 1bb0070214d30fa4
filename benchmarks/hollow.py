"""Hollow shots: everything that the driver does for a shot, and no pixels.

The same `render_shot`, studio, pool, gates' rules, writer and catalog as in a render. Models sleep for as long as a
`Work` says, or not at all; gate tasks look at four numbers in place of a picture; rows are committed, fsynced, as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import pipeline.render.studio
from actors.values import ModelFiles
from catalog.media import Media
from catalog.store import Catalog
from cluster.specs import ModelSpec
from gates.rules import judge
from pipeline.plan.plan import ShotPlan
from pipeline.plan.resolve import StagePlan
from pipeline.registry.workflows import Ready
from pipeline.render.drive import drive
from pipeline.render.gate_tasks import Judged
from pipeline.render.needs import identity_of
from pipeline.render.studio import Studio
from pipeline.render.watcher import Watcher
from pipeline.story.episode import Sequence, Shot
from pipeline.story.gate_profile import load_profile, profile_identity
from pipeline.story.workflow import Retry, Workflow

from .hollow_models import Hollow, HollowTexts
from .work import STAGES, Stage, Work

EPISODE = "E96"
PATIENT = Retry(max_attempts=20)
STILL = Workflow(
    name="hollow_still", version=1, family="stable_diffusion", checkpoint="x", width=768, height=512, num_inference_steps=1,
    guidance_scale=1, retry=PATIENT,
)  # fmt: skip
CLIP = Workflow(
    name="hollow_clip", version=1, family="ltx_video", checkpoint="x", width=768, height=512, num_frames=121, fps=24,
    num_inference_steps=1, guidance_scale=1, retry=PATIENT,
)  # fmt: skip


# --- in the CPU tasks ------------------------------------------------------------------------------------------------


def hollow_image_gate(image: np.ndarray, not_finite: str, width: int, height: int, root: Any, standard: Any, marks: Any) -> Judged:
    # A contrast that the rule for empty pictures accepts, or not; a hash of its own, so that no two stills are alike.
    bits = int(image[0]) * 0x9E3779B97F4A7C15 % 2**64
    measures = {"contrast": 60.0 if image[2] else 0.0, "hash_high": float(bits >> 32), "hash_low": float(bits % 2**32)}
    return Judged(judge("image", measures, standard.profile), _media(f"{int(image[0])}k", ".png"), width, height, 1, 0.0, 0.0)


def hollow_video_gate(
    frames: np.ndarray, not_finite: str, keyframe: Media, expect: Any, root: Any, standard: Any, last: Any, marks: Any
) -> Judged:
    passes = bool(frames[2])
    verdict = judge("video", {"contrast": 60.0 if passes else 0.0}, standard.profile)
    return Judged(verdict, _media(keyframe.digest, ".mp4"), expect.width, expect.height, expect.frames, 0.0, 0.0)


def hollow_keyframe(media: Media, width: int, height: int, root: Any) -> list[np.ndarray]:
    return [np.zeros(4, np.uint8)]


def _media(name: str, suffix: str) -> Media:
    digest = name.rjust(64, "0")[-64:]
    return Media(digest, f"media/{digest[:2]}/{digest}{suffix}", 1)


@contextmanager
def hollow_gates() -> Iterator[None]:
    """The studio's CPU tasks are hollow for the length of a `with` block."""
    names = {"judge_keyframe": hollow_image_gate, "judge_clip": hollow_video_gate, "keyframe_part": hollow_keyframe}
    before = {name: getattr(pipeline.render.studio, name) for name in names}
    for name, function in names.items():
        setattr(pipeline.render.studio, name, function)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(pipeline.render.studio, name, function)


# --- in the driver ---------------------------------------------------------------------------------------------------


class HollowSpecs:
    """In place of `pipeline.render.needs.ModelNeeds`."""

    def __init__(self, work: Work, log: Path | None = None, **more: Any):
        profile = load_profile("anime")
        self.ready = {w.stage: Ready(w, "d" * 64, ModelFiles("x"), profile, profile_identity(profile)) for w in (STILL, CLIP)}
        self.models: dict[str, ModelSpec] = {}
        for stage in self.ready:
            identity = identity_of(self.stage(stage))
            own = {k: v[stage] for k, v in more.items()}
            args = (identity, stage, work, str(log or ""), own.get("frames", 0), own.get("load", 0.0), own.get("memory"))
            self.models[identity] = ModelSpec(
                identity, Hollow, args, 1, stage, own.get("memory"), (), own.get("frames", 0) and own["frames"]
            )
        self.texts = ModelSpec("texts", HollowTexts, ("texts",), 8, "prompt")

    def stage(self, stage: Stage) -> StagePlan:
        return StagePlan(stage, self.ready[stage], "a prompt", "", (), (), (), stage * 8)

    def model(self, stage: StagePlan) -> ModelSpec:
        return self.models[identity_of(stage)]

    def encoder(self, stage: StagePlan) -> ModelSpec:
        return self.texts

    def plans(self, shots: int) -> Iterator[ShotPlan]:
        """One after another, so that a hundred thousand are never there at once."""
        stages = tuple(self.stage(stage) for stage in STAGES)
        first, sequence = Shot(id="SH0000", frames=60), Sequence.model_construct(id="S010", shots=[])
        for n in range(shots):
            shot = first.model_copy(update={"id": f"SH{n:06d}"})
            yield ShotPlan(EPISODE, sequence, shot, stages, {stage: () for stage in STAGES})


async def live_hollow(
    work: Work, specs: HollowSpecs, pool: Any, catalog: Catalog, writer: Any, live: int, ended: Callable[[str], None]
) -> None:
    """All shots of the work, `live` a device at once."""
    studio = Studio("hollow", pool, catalog, writer, specs, Ended(ended))  # type: ignore[arg-type]
    await drive(specs.plans(work.shots), studio, lambda: live * max(1, len(pool.fleet.posts)))


class Ended(Watcher):
    """Calls a function for every shot that ended."""

    def __init__(self, ended: Callable[[str], None]):
        super().__init__()
        self.ended = ended

    def shot(self, outcome: str) -> None:
        self.ended(outcome)
