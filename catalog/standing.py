"""The status of a workflow: derived from the ledger and from benchmark rows, never stored.

experimental   nothing shows that it works
candidate      a complete benchmark of exactly what it is now meets its suite's demands
proven         the ledger promotes it, citing such a benchmark
stale          it was proven, and then its files, the libraries, the suite or the gates changed
deprecated     it works, and something better has its place
archived       retired, with the reason
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any, Literal

Row = dict[str, Any]


def name_of(row: Row) -> str:
    """name@version, of a row of any table that names a version of a workflow."""
    return f"{row['workflow']}@{row['workflow_version'] if 'workflow_version' in row else row['version']}"


Status = Literal["experimental", "candidate", "proven", "stale", "deprecated", "archived"]
WORSE_AT = 0.05  # a pairing counts as worse where chance alone gives it less often than this, the field's habit


@dataclass(frozen=True)
class Demands:
    """What a suite asks of a workflow.

    pass_rate: what the lower 95 % bound of the share of first takes accepted must reach, 0..1.
    device_seconds_p95, peak_memory_bytes: budgets; None for no demand.
    """

    pass_rate: float
    device_seconds_p95: float | None = None
    peak_memory_bytes: float | None = None


@dataclass(frozen=True)
class Now:
    """What holds on this machine today, to hold evidence against.

    digest: of the workflow's settings, model files and libraries; None where its files are not here.
    suites: name to (digest, demands). profile: identity of the gate profile that the workflow names.
    """

    digest: str | None
    libraries: dict[str, str]
    profile: str
    suites: dict[str, tuple[str, Demands]]


@dataclass(frozen=True)
class Standing:
    status: Status
    why: str
    evidence: tuple[str, ...] = field(default=())  # ids of the benchmarks that it rests on

    @property
    def may_render(self) -> bool:
        return self.status == "proven"


@dataclass(frozen=True)
class Figures:
    """What a benchmark's rows say. Cells whose clip had no keyframe to start from say nothing of the clip's workflow."""

    benchmark: str
    cells: int
    missing: int  # cells that have no row yet
    judged: int
    passed: int
    low: float  # 95 % bounds of the pass rate, by Wilson's formula
    high: float
    labels: dict[str, int]
    seconds_p50: float
    seconds_p95: float
    encode_p50: float
    encode_p95: float
    gate_p50: float
    gate_p95: float
    peak_memory_bytes: int
    clips_per_hour: float  # accepted results an hour of one device
    device: str

    @property
    def rate(self) -> float:
        return self.passed / self.judged if self.judged else 0.0

    def sentence(self) -> str:
        return f"{self.passed} of {self.judged} first takes accepted (95 % bounds {self.low:.3f} to {self.high:.3f})"


def wilson(found: int, of: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % bounds of a share, by Wilson's score (1927): honest for small counts, and at 0 and 1."""
    if of == 0:
        return 0.0, 1.0
    share, spread = found / of, z * z / of
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / of + spread / (4 * of)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def figures(rows: Sequence[Row]) -> Figures:
    """The figures of one benchmark. Rows: its cells."""
    judged = [r for r in rows if r["outcome"] in ("accepted", "rejected", "error")]
    passed = sum(r["outcome"] == "accepted" for r in judged)
    labels: dict[str, int] = {}
    for label in (label for r in judged for label in (r["labels"] or (["error"] if r["outcome"] == "error" else []))):
        labels[label] = labels.get(label, 0) + 1
    device_seconds = _known(judged, "device_seconds")
    return Figures(
        rows[0]["benchmark"],
        rows[0]["cells"],
        rows[0]["cells"] - len(rows),
        len(judged),
        passed,
        *wilson(passed, len(judged)),
        dict(sorted(labels.items(), key=lambda x: -x[1])),
        *_p50_p95(device_seconds),
        *_p50_p95(_known(judged, "encode_seconds")),
        *_p50_p95(_known(judged, "gate_seconds")),
        int(max(_known(judged, "peak_memory_bytes"), default=0)),
        3600 * passed / sum(device_seconds) if sum(device_seconds) else 0.0,
        ", ".join(sorted({r["device"] for r in judged if r["device"]})),
    )


def _known(rows: Sequence[Row], column: str) -> list[float]:
    return [r[column] for r in rows if r[column] is not None]


def _p50_p95(values: list[float]) -> tuple[float, float]:
    if len(values) < 2:
        return (values[0], values[0]) if values else (0.0, 0.0)
    cuts = quantiles(values, n=20, method="inclusive")
    return cuts[9], cuts[18]


def shortfalls(found: Figures, demands: Demands) -> list[str]:
    """What a benchmark lacks, each with its number; empty where it meets all demands."""
    short = []
    if found.missing:
        short.append(f"{found.missing} of {found.cells} cells have no result yet")
    if found.low < demands.pass_rate:
        short.append(f"{found.sentence()}; the lower bound must reach {demands.pass_rate:.3f}")
    if demands.device_seconds_p95 is not None and found.seconds_p95 > demands.device_seconds_p95:
        short.append(f"p95 is {found.seconds_p95:.2f} s on the device; at most {demands.device_seconds_p95:.2f} s are allowed")
    if demands.peak_memory_bytes is not None and found.peak_memory_bytes > demands.peak_memory_bytes:
        have, most = found.peak_memory_bytes / 1e9, demands.peak_memory_bytes / 1e9
        short.append(f"peak memory is {have:.2f} GB; at most {most:.2f} GB are allowed")
    return short


@dataclass(frozen=True)
class Pairing:
    """Two workflows on the same cells. p: how often chance alone would part them so far (exact two-sided sign test)."""

    both: int
    only_new: int
    only_old: int
    neither: int
    p: float

    @property
    def is_worse(self) -> bool:
        return self.only_old > self.only_new and self.p < WORSE_AT


def pair(new: Sequence[Row], old: Sequence[Row]) -> Pairing:
    """Compare cell by cell, by case and seed; cells that only one of them has are left out."""

    def passed(rows: Sequence[Row]) -> dict[tuple[str, int], bool]:
        return {(r["case"], r["seed"]): r["outcome"] == "accepted" for r in rows if r["outcome"] != "no_keyframe"}

    a, b = passed(new), passed(old)
    counts = [sum((a[k], b[k]) == wanted for k in a.keys() & b.keys()) for wanted in ((1, 1), (1, 0), (0, 1), (0, 0))]
    differ, less = counts[1] + counts[2], min(counts[1], counts[2])
    p = min(1.0, 2 * sum(math.comb(differ, k) for k in range(less + 1)) / 2**differ)
    return Pairing(counts[0], counts[1], counts[2], counts[3], p)


def standing(now: Now, ledger: Sequence[Row], cells: Callable[[str], Sequence[Row]], benchmarks: Sequence[str]) -> Standing:
    """The status of one version of a workflow, and the sentence that tells why.

    Args:
        ledger: its rows of `promotions`, oldest first. cells: the rows of a benchmark.
        benchmarks: ids of all benchmarks of exactly this digest.
    """
    last = ledger[-1] if ledger else None
    if last and last["action"] == "archive":
        return Standing("archived", last["why"], _cited(last))
    if last and last["action"] == "deprecate":
        return Standing("deprecated", last["why"], _cited(last))
    if last:
        changed = _changed(now, last, cells(last["evidence"]))
        if changed:
            return Standing("stale", f"it was proven by {last['evidence']}, but {changed}", _cited(last))
        found = figures(cells(last["evidence"]))
        return Standing("proven", f"{found.sentence()} on {found.device}, by {last['by']}", _cited(last))
    return _unpromoted(now, cells, benchmarks)


def _unpromoted(now: Now, cells: Callable[[str], Sequence[Row]], benchmarks: Sequence[str]) -> Standing:
    why = "no benchmark of exactly these settings, files and libraries"
    for name in reversed(benchmarks):
        rows = cells(name)
        suite = now.suites.get(rows[0]["suite"])
        if suite is None or suite[0] != rows[0]["suite_digest"] or rows[0]["profile"] != now.profile:
            continue
        short = shortfalls(figures(rows), suite[1])
        if not short:
            return Standing("candidate", f"benchmark {name} meets suite {rows[0]['suite']}: {figures(rows).sentence()}", (name,))
        why = f"benchmark {name}: {'; '.join(short)}"
    return Standing("experimental", why, tuple(benchmarks))


def _cited(row: Row) -> tuple[str, ...]:
    return (row["evidence"],) if row["evidence"] else ()


def _changed(now: Now, promotion: Row, rows: Sequence[Row]) -> str | None:
    """What is not any more as it was when it was proven; None if all is."""
    if not rows:
        return "its rows are not in this catalog"
    if now.digest is None:
        return "its model files are not here"
    if now.digest != promotion["digest"]:
        then = rows[0]["libraries"] or {}
        other = [f"{name} is {now.libraries.get(name)}, was {was}" for name, was in sorted(then.items()) if now.libraries.get(name) != was]
        return ", ".join(other) or "a model file changed"
    suite = now.suites.get(rows[0]["suite"])
    if suite is None or suite[0] != rows[0]["suite_digest"]:
        return f"suite {rows[0]['suite']} " + ("changed" if suite else "is not here any more")
    if rows[0]["profile"] != now.profile:
        return f"its gate profile is {now.profile}, was {rows[0]['profile']}"
    return None
