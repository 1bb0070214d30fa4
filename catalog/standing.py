"""The status of a workflow. It is computed from the ledger (table `promotions`) and from benchmark rows, and never stored.

experimental   nothing shows that the workflow works
candidate      a complete benchmark of exactly these settings, files and libraries meets its suite's demands
proven         the ledger promotes the workflow and cites such a benchmark
stale          the workflow was proven, and then its files, the libraries, the suite or the gates changed
deprecated     the workflow works, but a better one has replaced it
archived       the workflow is retired; the ledger gives the reason
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any, Literal

Row = dict[str, Any]


def name_of(row: Row) -> str:
    """name@version of the workflow in a row of any table that names a workflow and its version."""
    return f"{row['workflow']}@{row['workflow_version'] if 'workflow_version' in row else row['version']}"


Status = Literal["experimental", "candidate", "proven", "stale", "deprecated", "archived"]
WORSE_AT = 0.05  # significance level: a pairing is worse only where its p value is below this; 0.05 is the usual choice


@dataclass(frozen=True)
class Demands:
    """What a suite demands of a workflow.

    pass_rate: least value of the lower 95 % bound of the pass rate (share of first takes that are accepted), 0..1.
    device_seconds_p95: most seconds on the device, at the 95th percentile of first takes; None for no demand.
    peak_memory_bytes: most memory of any first take; None for no demand.
    """

    pass_rate: float
    device_seconds_p95: float | None = None
    peak_memory_bytes: float | None = None


@dataclass(frozen=True)
class Now:
    """The present state of a workflow on this machine; evidence from the catalog is compared with it.

    digest: of the workflow's settings, model files and libraries; None where its model files are not on this machine.
    libraries: library to version. profile: identity of the gate profile that the workflow names.
    suites: name to (digest, demands).
    """

    digest: str | None
    libraries: dict[str, str]
    profile: str
    suites: dict[str, tuple[str, Demands]]


@dataclass(frozen=True)
class Standing:
    """The status of a workflow, the sentence that says why, and the ids of the benchmarks that show it."""

    status: Status
    why: str
    evidence: tuple[str, ...] = field(default=())

    @property
    def may_render(self) -> bool:
        return self.status == "proven"


@dataclass(frozen=True)
class Figures:
    """Summary of a benchmark's rows.

    Clips without a keyframe to start from (outcome no_keyframe) are not judged: they say nothing about the clip's workflow.
    """

    benchmark: str
    cells: int
    missing: int  # cells that have no row yet
    judged: int  # first takes that were accepted, rejected, or ended in an error
    passed: int  # of them, accepted
    low: float  # 95 % bounds of the pass rate, by Wilson's formula
    high: float
    labels: dict[str, int]  # label to number of judged takes, most frequent first
    seconds_p50: float  # on the device; encode and gate: seconds of encoding the file, and of the gate
    seconds_p95: float
    encode_p50: float
    encode_p95: float
    gate_p50: float
    gate_p95: float
    peak_memory_bytes: int
    clips_per_hour: float  # accepted takes in one hour of one device
    device: str

    @property
    def rate(self) -> float:
        return self.passed / self.judged if self.judged else 0.0

    def sentence(self) -> str:
        return f"{self.passed} of {self.judged} first takes accepted (95 % bounds {self.low:.3f} to {self.high:.3f})"


def wilson(found: int, of: int, z: float = 1.96) -> tuple[float, float]:
    """The bounds of a share, 0..1, by Wilson's score interval (1927). It also holds for small counts, and for shares of 0 and 1.

    Args:
        found, of: the share is found / of. z: normal quantile; 1.96 gives 95 % bounds.
    """
    if of == 0:
        return 0.0, 1.0
    share, spread = found / of, z * z / of
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / of + spread / (4 * of)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def figures(rows: Sequence[Row]) -> Figures:
    """Summarize the rows of one benchmark, of which there is at least one."""
    judged = [r for r in rows if r["outcome"] in ("accepted", "rejected", "error")]
    passed = sum(r["outcome"] == "accepted" for r in judged)
    labels: dict[str, int] = {}
    for label in (label for r in judged for label in (r["labels"] or (["error"] if r["outcome"] == "error" else []))):
        labels[label] = labels.get(label, 0) + 1
    device_seconds = _known(judged, "device_seconds")
    low, high = wilson(passed, len(judged))
    seconds_p50, seconds_p95 = _p50_p95(device_seconds)
    encode_p50, encode_p95 = _p50_p95(_known(judged, "encode_seconds"))
    gate_p50, gate_p95 = _p50_p95(_known(judged, "gate_seconds"))
    return Figures(
        benchmark=rows[0]["benchmark"],
        cells=rows[0]["cells"],
        missing=rows[0]["cells"] - len(rows),
        judged=len(judged),
        passed=passed,
        low=low,
        high=high,
        labels=dict(sorted(labels.items(), key=lambda x: -x[1])),
        seconds_p50=seconds_p50,
        seconds_p95=seconds_p95,
        encode_p50=encode_p50,
        encode_p95=encode_p95,
        gate_p50=gate_p50,
        gate_p95=gate_p95,
        peak_memory_bytes=int(max(_known(judged, "peak_memory_bytes"), default=0)),
        clips_per_hour=3600 * passed / sum(device_seconds) if sum(device_seconds) else 0.0,
        device=", ".join(sorted({r["device"] for r in judged if r["device"]})),
    )


def _known(rows: Sequence[Row], column: str) -> list[float]:
    return [r[column] for r in rows if r[column] is not None]


def _p50_p95(values: list[float]) -> tuple[float, float]:
    if len(values) < 2:
        return (values[0], values[0]) if values else (0.0, 0.0)
    cuts = quantiles(values, n=20, method="inclusive")
    return cuts[9], cuts[18]


def shortfalls(found: Figures, demands: Demands) -> list[str]:
    """The demands that a benchmark does not meet, as sentences with numbers; empty where it meets all."""
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
    """Two workflows on the same cells.

    both, only_new, only_old, neither: number of cells in which both workflows, one or none of them was accepted.
    p: p value of the exact two-sided sign test: how likely equal workflows would differ at least this much by chance.
    """

    both: int
    only_new: int
    only_old: int
    neither: int
    p: float

    @property
    def is_worse(self) -> bool:
        return self.only_old > self.only_new and self.p < WORSE_AT


def pair(new: Sequence[Row], old: Sequence[Row]) -> Pairing:
    """Compare two benchmarks cell by cell. A cell is a case and a seed; cells in only one of them are left out."""

    def passed(rows: Sequence[Row]) -> dict[tuple[str, int], bool]:
        return {(r["case"], r["seed"]): r["outcome"] == "accepted" for r in rows if r["outcome"] != "no_keyframe"}

    new_passed, old_passed = passed(new), passed(old)
    cells = [(new_passed[k], old_passed[k]) for k in new_passed.keys() & old_passed.keys()]
    only_new, only_old = cells.count((True, False)), cells.count((False, True))
    differ = only_new + only_old
    p = min(1.0, 2 * sum(math.comb(differ, k) for k in range(min(only_new, only_old) + 1)) / 2**differ)
    return Pairing(both=cells.count((True, True)), only_new=only_new, only_old=only_old, neither=cells.count((False, False)), p=p)


def standing(now: Now, ledger: Sequence[Row], cells: Callable[[str], Sequence[Row]], benchmarks: Sequence[str]) -> Standing:
    """The status of one version of a workflow.

    Args:
        ledger: this version's rows of table `promotions`, oldest first.
        cells: maps a benchmark's id to its rows.
        benchmarks: ids of all benchmarks of exactly `now.digest`, oldest first.
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
    """What has changed since the benchmark that the promotion cites, in words; None if nothing has."""
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
