"""What Tower's orchestration is held against: the same takes on the same logical devices, by other means."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
import ray.data

from .work import SECONDS, STAGES, Stage, Work

Row = dict[str, Any]
IN_FLIGHT = 2  # calls that Ray Data sends to an actor: one that runs, one that waits


@dataclass(frozen=True)
class Trial:
    """Seconds from the call, with Ray running, to the last result: `total` with the start of all actors, `after_first` from the
    first take's beginning, so without the first start but with those of later rounds. starts: from the beginning of each
    round to its first take's.
    """

    contender: str
    devices: int
    shots: int
    takes: int
    total: float
    after_first: float
    starts: tuple[float, ...] = ()


def make_until_accepted(work: Work, shot: int, stages: Sequence[Stage]) -> int:
    """Takes that it took."""
    takes = 0
    for stage in stages:
        attempt = 0
        while attempt == 0 or not work.passes(shot, stage, attempt):
            attempt += 1
            time.sleep(work.seconds(shot, stage, attempt))
        takes += attempt
    return takes


def sequential(work: Work, sample: int = 20) -> Trial:
    """A plain script without Ray: one device, one thing after another.

    Only the first `sample` shots are made, and the seconds scaled up to all shots by what their takes need.
    """
    part = replace(work, shots=min(sample, work.shots))
    seconds = _Bare().make_all(part) * work.device_seconds() / part.device_seconds()
    return Trial("sequential", 1, work.shots, work.takes(), seconds, seconds)


def ideal(work: Work, devices: int, sample: int = 20) -> Trial:
    """Every device at work from the first moment to the last: what one actor needs, divided by the devices.

    One call to one actor makes the first `sample` shots, scaled as in `sequential`: so what this machine's clock and scheduler
    add to each take is in the ideal too.
    """
    part = replace(work, shots=min(sample, work.shots))
    maker = ray.remote(num_gpus=1, num_cpus=0)(_Bare).remote()
    seconds = ray.get(maker.make_all.remote(part)) * work.device_seconds() / part.device_seconds() / devices
    ray.kill(maker)
    return Trial("ideal", devices, work.shots, work.takes(), seconds, seconds)


class _Bare:
    def make_all(self, work: Work) -> float:
        started = time.monotonic()
        for shot in range(work.shots):
            make_until_accepted(work, shot, STAGES)
        return time.monotonic() - started


# Ray Data. A row is a shot on its way: what it needs next, and whether a gate has rejected it in this round.


def ray_data(work: Work, devices: int, split: int | None = None) -> Trial:
    """Two actor pools with a gate behind each; what a gate rejects is gathered and goes through a new pipeline: a round.

    A shot whose clip was rejected keeps its keyframe. split: devices for keyframes; None lets `best_split` choose, anew in
    each round. A row is a block, so that it goes on as soon as it is made. Ray Data starts the actors of every round anew, and
    keeps none between executions; here that is a process each, with real models their weights too.

    Tried with 8 devices and 200 shots on two busy cores, seconds in total: 2 + 6 devices 81 and 85, 1 + 7 devices 103, gates
    inside the actors but rounds all the same 78. One or four calls in flight (114, 92) were tried on busier cores than two (81).
    """
    started = time.time()
    todo = [_row(shot, "keyframe") for shot in range(work.shots)]
    through: list[Row] = []
    starts = []
    while todo:
        round_began = time.time()
        rows = _round(work, devices, todo, split)
        starts.append(_first(rows) - round_began)
        through += rows
        todo = [_row(row["shot"], row["stage"], row["attempt"]) for row in rows if row["stage"] != "done"]
    return _trial("Ray Data, rounds", work, devices, through, started, starts)


def _round(work: Work, devices: int, todo: list[Row], split: int | None) -> list[Row]:
    """Each row once through the pipeline. Those that need a clip only go first: the clip devices have work at once."""
    _quiet()
    todo = sorted(todo, key=lambda row: (row["stage"], row["shot"]))
    stills = sum(row["stage"] == "keyframe" for row in todo)
    for_stills = min(split or best_split(devices, stills, len(todo)), stills)
    sizes: dict[Stage, int] = {"keyframe": for_stills, "clip": min(devices - for_stills, len(todo))}
    rows = ray.data.from_items(todo, override_num_blocks=len(todo))
    for stage in STAGES:
        if sizes[stage]:
            rows = rows.map(_Device, fn_constructor_args=(work, stage), num_gpus=1, num_cpus=0, compute=_actors(sizes[stage]))
            rows = rows.map(_judge, fn_kwargs={"work": work, "stage": stage})
    return rows.take_all()


def best_split(devices: int, stills: int, clips: int) -> int:
    """Devices for keyframes, of two or more, so that the busier pool is done soonest."""
    busier = {n: max(stills * SECONDS["keyframe"] / n, clips * SECONDS["clip"] / (devices - n)) for n in range(1, devices)}
    return min(busier, key=lambda n: (busier[n], n))


def ray_data_gates_inside(work: Work, devices: int, pools: int = 1) -> Trial:
    """No rounds: an actor judges what it makes, and keeps a shot until it is accepted.

    With one pool, an actor holds both models and keeps a shot until its clip is accepted. With two, as where both models do
    not fit on one device, `best_split` divides the devices, and a shot goes on when its keyframe is accepted.

    What that gives up: gates run on the device's time (here they cost nothing; in Tower, 0.15 s of CPU a clip); stills are
    not batched across shots; a retry is seen by nobody until the shot is done; an actor that dies takes its shots' takes
    with it, accepted keyframes too; and where a shot never passes, a device goes round with it.
    """
    _quiet()
    started = time.time()
    rows = ray.data.from_items([_row(shot, "keyframe") for shot in range(work.shots)], override_num_blocks=work.shots)
    for_stills = best_split(devices, work.shots, work.shots) if pools == 2 else 0
    parts = ((STAGES[:1], for_stills), (STAGES[1:], devices - for_stills)) if pools == 2 else ((STAGES, devices),)
    for stages, size in parts:
        rows = rows.map(_UntilAccepted, fn_constructor_args=(work, stages), num_gpus=1, num_cpus=0, compute=_actors(size))
    return _trial(f"Ray Data, gates inside {'two pools' if pools == 2 else 'one pool'}", work, devices, rows.take_all(), started)


def _trial(contender: str, work: Work, devices: int, rows: list[Row], started: float, starts: Sequence[float] = ()) -> Trial:
    ended, first = time.time(), _first(rows)
    takes = sum(row["takes"] for row in rows)
    return Trial(contender, devices, work.shots, takes, ended - started, ended - first, tuple(starts) or (first - started,))


def _first(rows: list[Row]) -> float:
    return min(row["began"] for row in rows if row["takes"])


def _row(shot: int, stage: Stage, attempt: int = 1) -> Row:
    """began: seconds since 1970 when a device took it up first."""
    return {"shot": shot, "stage": stage, "attempt": attempt, "rejected": False, "takes": 0, "began": 0.0}


class _Device:
    """Makes one take of its stage; a row that another stage must make, or that was rejected, passes through."""

    def __init__(self, work: Work, stage: Stage):
        self.work, self.stage = work, stage

    def __call__(self, row: Row) -> Row:
        if row["rejected"] or self.stage != row["stage"]:
            return row
        began = time.time()
        time.sleep(self.work.seconds(row["shot"], row["stage"], row["attempt"]))
        return {**row, "takes": row["takes"] + 1, "began": row["began"] or began}


class _UntilAccepted:
    def __init__(self, work: Work, stages: Sequence[Stage]):
        self.work, self.stages = work, stages

    def __call__(self, row: Row) -> Row:
        began = time.time()
        takes = make_until_accepted(self.work, row["shot"], self.stages)
        return {**row, "takes": row["takes"] + takes, "began": row["began"] or began}


def _judge(row: Row, work: Work, stage: Stage) -> Row:
    """The gate behind a stage: on to the next, or another attempt in the next round."""
    if row["rejected"] or row["stage"] != stage:
        return row
    if not work.passes(row["shot"], stage, row["attempt"]):
        return {**row, "attempt": row["attempt"] + 1, "rejected": True}
    return {**row, "stage": "clip" if stage == "keyframe" else "done", "attempt": 1}


def _actors(size: int) -> ray.data.ActorPoolStrategy:
    return ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=IN_FLIGHT)


def _quiet() -> None:
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
