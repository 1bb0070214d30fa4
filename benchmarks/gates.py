"""Calibrate the gates: every base and every planted fault through the true gates, and what other tools say of them.

    python -m benchmarks.gates --tune      the tuning half; writes the evidence into configs/gates/*.yaml
    python -m benchmarks.gates             the test half, thresholds as they are; writes docs/gates/
    python -m benchmarks.gates --quick     a few clips of each kind, nothing written but rows

Rows go to the catalog's table `calibrations`, and with the first two to configs/evidence/ as well. The test half is
never looked at to choose a threshold.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from actors.loading import device_name
from catalog.schema import CALIBRATIONS
from catalog.store import Catalog
from gates.image import judge_image
from gates.rules import Profile, judge
from gates.verdict import Verdict
from gates.video import Expectation, measure_video
from pipeline.story.fingerprint import digest
from pipeline.story.gate_profile import load_profile, profile_identity
from pipeline.story.settings import PROJECT, load_settings

from . import gate_report, peers
from .gate_bases import Base, bases
from .gate_faults import CLIP_FAULTS, STILL_FAULTS, Fault, applies, write

EVIDENCE = PROJECT / "configs" / "evidence"


@dataclass(frozen=True)
class Case:
    """One thing to judge: a base, with a fault or without."""

    gate: Literal["image", "video"]
    base: Base
    other: Base | None = None
    fault: Fault | None = None
    severity: float = 0.0

    @property
    def name(self) -> str:
        fault = f" + {self.fault.name} {self.severity:g}" if self.fault else ""
        return f"{self.gate}: {self.base.name}{fault}"


def manifest(half: str, per_severity: int, demo: bool) -> list[Case]:
    """Good and hard clips, their first frames as stills, and every fault at every severity on `per_severity` good bases."""
    good = bases(half, demo)
    plain = [b for b in good if not b.effect and not b.declared and b.source in ("question", "scenes")]
    cases = [Case("video", b) for b in good] + [
        Case("image", b)
        for b in good
        if not b.declared and b.effect != "fade in"  # a black keyframe is none
    ]
    for gate, faults in (("video", CLIP_FAULTS), ("image", STILL_FAULTS)):
        for fault in faults:
            for severity in fault.severities:
                rng = random.Random(f"{half} {gate} {fault.name} {severity}")
                for base in rng.sample(plain, min(per_severity, len(plain))):
                    other = rng.choice([b for b in plain if b.artwork != base.artwork])
                    cases.append(Case(gate, base, other, fault, severity))  # type: ignore[arg-type]
    return sorted(cases, key=lambda c: c.base.name)  # neighbours share what `_made` remembers


@lru_cache(maxsize=12)
def _made(base: Base) -> tuple[np.ndarray, np.ndarray]:
    return base.make()


def run_case(case: Case) -> dict[str, Any] | None:
    """The row of one case; None where the fault would be none in this clip."""
    keyframe, frames = _made(case.base)
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    shown, still = frames, keyframe
    if case.fault:
        assert case.other
        if not applies(case.fault, frames):
            return None
        other = _made(case.other)[1][: len(frames)] if case.fault.needs_other else frames
        shown = case.fault.plant(frames, case.severity, rng, other)
        still = shown[0] if case.fault.keyframe == "of the fault" else keyframe
    profile = load_profile("photo" if case.base.source == "photos" else "anime")
    verdict, seconds, asked = (_image if case.gate == "image" else _video)(case, frames, shown, still, profile, rng)
    return _row(case, profile, verdict, seconds, asked)


Judged = tuple[Verdict, float, list[peers.PeerVerdict]]


def _image(case: Case, frames: np.ndarray, shown: np.ndarray, _: np.ndarray, profile: Profile, __: np.random.Generator) -> Judged:
    data = cv2.imencode(".png", shown[0][..., ::-1])[1].tobytes()
    started = time.process_time()
    verdict = judge_image(data, profile, (frames.shape[2], frames.shape[1]), case.base.declared)
    return verdict, time.process_time() - started, []


def _video(case: Case, frames: np.ndarray, shown: np.ndarray, still: np.ndarray, profile: Profile, rng: np.random.Generator) -> Judged:
    with tempfile.TemporaryDirectory(prefix="tower-calibration-") as folder:
        file = Path(folder) / "clip.mp4"
        write(case.fault, case.severity, shown, case.base.fps, file, rng)
        expect = Expectation(len(frames), Fraction(case.base.fps), frames.shape[2], frames.shape[1], "h264", "yuv420p", still)
        started = time.process_time()
        measured = measure_video(file, expect)
        verdict = judge("video", measured.values, profile, case.base.declared, measured.texts)
        return verdict, time.process_time() - started, peers.judge(file)


def _row(case: Case, profile: Profile, verdict: Verdict, seconds: float, asked: list[peers.PeerVerdict]) -> dict[str, Any]:
    return {
        "case": case.name,
        "gate": case.gate,
        "source": case.base.source,
        "artwork": case.base.artwork,
        "kind": "fault" if case.fault else "hard" if case.base.hard else "good",
        "declared": list(case.base.declared),
        "label": case.fault.label if case.fault else None,
        "fault": case.fault.name if case.fault else None,
        "severity": case.severity if case.fault else None,
        "unit": case.fault.unit if case.fault else None,
        "over_floor": case.severity >= case.fault.floor if case.fault else None,
        "profile": profile_identity(profile),
        "outcome": verdict.outcome,
        "failures": list(verdict.failures),
        "warnings": list(verdict.warnings),
        "measures": verdict.measures,
        "peers": {said.peer: float(said.found) for said in asked},
        "cpu_seconds": seconds,
    }


def run(cases: list[Case], jobs: int, console: Console) -> Iterator[dict[str, Any]]:
    """Rows as they are done, several processes at work."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as workers:
        done = workers.map(run_case, cases, chunksize=12)
        for i, row in enumerate(done, 1):
            if i % 200 == 0:
                console.print(f"{i} of {len(cases)} cases", highlight=False)
            if row:
                yield row


def calibrate(half: str, per_severity: int, demo: bool, jobs: int, console: Console) -> list[dict[str, Any]]:
    """Judge a half, and commit its rows."""
    cases = manifest(half, per_severity, demo)
    head = {
        "run": f"gates-{half}-{datetime.now(UTC):%Y%m%d}-{digest([c.name for c in cases])[:8]}",
        "at": datetime.now(UTC),
        "half": half,
        "device": f"{device_name('cpu')}, {platform.machine()}",
    }
    rows = [row | head for row in run(cases, jobs, console)]
    Catalog.open(load_settings().place).append("calibrations", rows)
    return rows


def save(rows: list[dict[str, Any]]) -> Path:
    """The rows as a Parquet file of the repository, so that every figure in the documents can be computed again."""
    path = EVIDENCE / f"gates-{rows[0]['half']}.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=CALIBRATIONS.schema), path, compression="zstd")
    return path


def load(half: str) -> list[dict[str, Any]]:
    """What `save` wrote, judged again under the profiles as they are now."""
    rows = pq.read_table(EVIDENCE / f"gates-{half}.parquet").to_pylist(maps_as_pydicts="strict")
    return [rejudged(row) for row in rows]


def rejudged(row: dict[str, Any], profile: Profile | None = None) -> dict[str, Any]:
    profile = profile or load_profile(row["profile"].split("#")[0])
    verdict = judge(row["gate"], row["measures"], profile, row["declared"])
    found = {"outcome": verdict.outcome, "failures": list(verdict.failures), "warnings": list(verdict.warnings)}
    return row | found | {"profile": profile_identity(profile)}


def speed() -> dict[str, float]:
    """What `gate_speed` says of a drawn clip with a figure, 121 frames of 768x512."""
    from actors.demo.train import scenes

    frames = scenes.clip(replace(scenes.sample(1), motion="walk right"), range(121), 512, 768)
    with tempfile.TemporaryDirectory(prefix="tower-speed-") as folder:
        file, still = Path(folder) / "clip.mp4", Path(folder) / "still.png"
        write(None, 0, frames, 24, file, np.random.default_rng(0))
        cv2.imwrite(str(still), frames[0][..., ::-1])
        command = [sys.executable, "-m", "benchmarks.gate_speed", str(file), str(still)]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True, timeout=300)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", action="store_true", help="the tuning half, and the evidence in configs/gates")
    parser.add_argument("--quick", action="store_true", help="two bases a severity, no clips of the demo's models")
    parser.add_argument("--per-severity", type=int, default=8, help="good clips that each severity of each fault is planted on")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--from-evidence", action="store_true", help="judge the stored rows again instead of making clips")
    options = parser.parse_args()
    half, console = "tune" if options.tune else "test", Console(width=150)
    count = 2 if options.quick else options.per_severity
    rows = load(half) if options.from_evidence else calibrate(half, count, not options.quick, options.jobs, console)
    figures = speed() if half == "test" else {}
    console.print(gate_report.text(rows, figures), highlight=False)
    if options.quick:
        return
    if not options.from_evidence:
        save(rows)
    if options.tune:
        gate_report.write_evidence(rows)
    else:
        gate_report.write_documents(rows, figures)


if __name__ == "__main__":
    main()
