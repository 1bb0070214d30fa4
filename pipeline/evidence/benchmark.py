"""Benchmarks: render the cells of a suite (shots x seeds) with the real pipeline and gates, and record the results as rows.

A benchmark renders the suite as an episode, with one take for each cell. So it resumes as an episode does: a cell is done when
the catalog has a judged first take with exactly its inputs, also from an earlier run.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from catalog.standing import Pairing, Row, pair
from catalog.store import Catalog
from pipeline.plan.history import rows_of
from pipeline.plan.plan import Plan, ShotPlan, make_plan
from pipeline.plan.resolve import inputs_from
from pipeline.registry.open_catalog import open_catalog
from pipeline.registry.workflows import Registry, libraries
from pipeline.render.context import Context, context
from pipeline.render.render import check_disk_room, render_stale, writable
from pipeline.render.run_log import RunLog
from pipeline.story.errors import InputError
from pipeline.story.settings import Settings
from pipeline.story.stages import STAGES, StageName
from pipeline.story.suite import Suite, as_episode, load_suite
from pipeline.story.workflow import Workflow

CLIP_FOR_KEYFRAMES = "ltx_video_2b_demo"  # every plan names a clip workflow; a benchmark of keyframes renders no clips


@dataclass(frozen=True)
class Benchmark:
    """A finished benchmark.

    rows: one for each cell. against: the incumbent's rows on the same cells; empty if no incumbent was named.
    """

    suite: Suite
    rows: list[Row]
    against: list[Row]

    @property
    def pairing(self) -> Pairing | None:
        return pair(self.rows, self.against) if self.against else None


def run_benchmark(ref: str, file: Path, against: str | None, fresh: bool, settings: Settings, console: Console) -> Benchmark:
    """Measure a workflow on a suite, and the incumbent too if one is named.

    Args:
        ref, against: the workflow and the incumbent, as `Registry.resolve` takes them. file: the suite's file.
        fresh: render cells again that have their take.

    Raises:
        InputError: the suite or a workflow is missing or does not fit. Nothing is rendered then.
    """
    suite = load_suite(file)
    if settings.place.is_local:
        writable(settings.place.folder)
    with context(settings, open_catalog(settings), console) as here:
        registry = Registry(here.catalog, settings)
        wanted = [registry.resolve(name, "tower benchmark") for name in (ref, against) if name]
        for workflow in wanted:
            registry.prepare(workflow)
        measured = [_measure(workflow, suite, file, fresh, here) for workflow in wanted]
    return Benchmark(suite, measured[0], measured[1] if against else [])


def _measure(workflow: Workflow, suite: Suite, file: Path, fresh: bool, here: Context) -> list[Row]:
    def planned() -> Plan:
        """The plan with only the cells that have no take yet; with all cells if `fresh`."""
        plan = _plan(workflow, suite, file, here, fresh)
        return replace(plan, shots=[s for s in plan.shots if fresh or not _judged_take(s)])

    todo, name = planned(), workflow.title
    here.console.print(f"{name} on suite {suite.name}: {len(suite.cells())} cells, {len(todo.shots)} to render", highlight=False)
    if todo.shots:
        check_disk_room(todo, here.catalog.place)
        render_stale(planned, here, RunLog(here.catalog, todo, True, {name: "benchmark"}, job=here.settings.job))
    rows = _rows(workflow, suite, _plan(workflow, suite, file, here, False), here.catalog)
    here.catalog.append("benchmarks", rows)
    return rows


def _plan(workflow: Workflow, suite: Suite, file: Path, here: Context, fresh: bool) -> Plan:
    """The plan of the suite's episode. The measured stage gets one take for each cell, accepted or rejected."""
    if workflow.stage == "finish" and suite.clip_workflow is None:
        raise InputError(f"{file}: a finish is made from clips, and suite {suite.name} names no clip_workflow that makes them")
    before: dict[StageName, str] = {"keyframe": suite.keyframe_workflow, "clip": suite.clip_workflow or CLIP_FOR_KEYFRAMES}
    episode = as_episode(suite, before | {workflow.stage: workflow.title})
    plan = make_plan(episode, file, here.settings, here.catalog, fresh)
    return replace(plan, shots=[_one_take(s, workflow.stage) for s in plan.shots])


def _one_take(shot: ShotPlan, stage: StageName) -> ShotPlan:
    """The shot without the stages after this one, and with one attempt for this one."""
    *before, made = shot.stages[: STAGES.index(stage) + 1]
    retry = made.workflow.retry.model_copy(update={"max_attempts": 1})
    once = replace(made, ready=replace(made.ready, workflow=made.workflow.model_copy(update={"retry": retry})))
    return replace(shot, stages=(*before, once), accepted=shot.accepted[: len(before) + 1])


def _judged_take(shot: ShotPlan) -> str | None:
    """Id of the cell's take: the latest judged take of the measured stage with these inputs and the first seed (variation 0)."""
    if _no_start(shot):
        return None
    measured, before = shot.stages[-1], shot.accepted[: len(shot.stages) - 1]
    inputs = inputs_from(measured, before[-1].media if before else None)
    takes = [p.take for p in shot.history[measured.stage] if p.inputs == inputs and p.outcome != "error" and p.variation == 0]
    return takes[-1] if takes else None


def _rows(workflow: Workflow, suite: Suite, plan: Plan, catalog: Catalog) -> list[Row]:
    """The benchmark's rows, from the takes that its cells have now."""
    chosen = {s.shot.id: _judged_take(s) for s in plan.shots}
    takes = rows_of(catalog, [take for take in chosen.values() if take])
    now = datetime.now(UTC)
    first = plan.shots[0]
    head = {
        "benchmark": f"{suite.name}-{workflow.title}-{now:%Y%m%d}-{uuid.uuid4().hex[:6]}",
        "at": now,
        "suite": suite.name,
        "suite_digest": suite.digest,
        "cells": len(plan.shots),
        "workflow": workflow.name,
        "version": workflow.version,
        "digest": first.stages[-1].ready.digest,
        "keyframe_digest": first.stages[0].ready.digest if len(first.stages) > 1 else None,
        "stage": workflow.stage,
        "profile": first.stages[-1].ready.profile_identity,
        "libraries": libraries(*workflow.kind.libraries),
    }
    cells = {shot: (case.name, seed) for shot, case, seed in suite.cells()}
    return [head | _cell(s, cells[s.shot.id], takes.get(chosen[s.shot.id] or "")) for s in plan.shots]


MEASURED = ("take", "media", "outcome", "labels", "device", "queue_seconds", "device_seconds", "encode_seconds", "gate_seconds")


def _cell(shot: ShotPlan, cell: tuple[str, int], take: Row | None) -> Row:
    row: Row = {"shot": shot.shot.id, "case": cell[0], "seed": cell[1], "labels": []}
    if take is not None:
        # Evidence is what the gates say: a person who approves a take makes its workflow no better.
        return row | {k: take[k] for k in (*MEASURED, "peak_memory_bytes")} | {"outcome": take["gate_outcome"]}
    return row | {"outcome": "no_keyframe" if _no_start(shot) else "error"}


def _no_start(shot: ShotPlan) -> bool:
    """Whether the measured stage has nothing to start from, because a stage before it was not accepted."""
    return len(shot.accepted) < len(shot.stages) - 1
