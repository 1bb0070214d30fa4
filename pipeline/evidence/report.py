"""The report of a benchmark: a table, and two plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from catalog.standing import Figures, Row, figures, name_of, shortfalls
from pipeline.story.errors import StorageError

from .benchmark import Benchmark
from .pages import markdown_table


def write_report(done: Benchmark, out: Path) -> tuple[Path, list[dict[str, Any]]]:
    """Write report.md and figures.png to `out`/benchmarks/<id>. Gives that folder, and the rows of the table.

    Raises:
        StorageError: the files cannot be written.
    """
    folder = out / "benchmarks" / done.rows[0]["benchmark"]
    measured = [rows for rows in (done.rows, done.against) if rows]
    table = [summary_row(rows) for rows in measured]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _plot(measured, folder / "figures.png")
        (folder / "report.md").write_text(_text(done, table), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror or error}") from error
    return folder, table


def summary_row(rows: list[Row]) -> dict[str, Any]:
    """A benchmark's figures in one row, for people."""
    f: Figures = figures(rows)
    return {
        "workflow": name_of(rows[0]),
        "accepted": f"{f.passed}/{f.judged}",
        "pass rate (95 % bounds)": f"{f.rate:.3f} ({f.low:.3f}–{f.high:.3f})",
        "device s p50/p95": f"{f.seconds_p50:.2f}/{f.seconds_p95:.2f}",
        "encode s p50/p95": f"{f.encode_p50:.2f}/{f.encode_p95:.2f}",
        "gate s p50/p95": f"{f.gate_p50:.2f}/{f.gate_p95:.2f}",
        "peak GB": f"{f.peak_memory_bytes / 1e9:.2f}",
        "per device-hour": f"{f.clips_per_hour:.0f}",
        "rejected for": ", ".join(f"{label} {n}" for label, n in f.labels.items()) or "–",
        "device": f.device,
    }


def _text(done: Benchmark, table: list[dict[str, Any]]) -> str:
    first, suite = done.rows[0], done.suite
    short = shortfalls(figures(done.rows), suite.demands)
    verdict = "It meets what the suite demands." if not short else f"It falls short: {'; '.join(short)}."
    parts = [
        f"# {name_of(first)} on suite {suite.name}\n",
        f"Benchmark `{first['benchmark']}`, {first['at']:%Y-%m-%d %H:%M} UTC, {len(suite.cases)} cases x {suite.seeds} seeds, "
        f"one take each. {verdict}\n",
        markdown_table(table),
        "![Pass rate by case, and seconds by stage](figures.png)\n",
        f"Digest `{first['digest']}`, suite `{suite.digest[:12]}`, gates `{first['profile']}`, "
        + ", ".join(f"{k} {v}" for k, v in sorted(first["libraries"].items()))
        + ".\n",
    ]
    if done.pairing:
        p = done.pairing
        parts.append(
            f"Against {table[1]['workflow']}, cell by cell: both pass {p.both}, only this {p.only_new}, only the other {p.only_old}, "
            f"neither {p.neither}; sign test p {p.p:.3f}.\n"
        )
    return "\n".join(parts)


def _plot(measured: list[list[Row]], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cases = list(dict.fromkeys(r["case"] for r in measured[0]))
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, max(3.0, 0.28 * len(cases) + 1.2)), layout="constrained")
    height = 0.8 / len(measured)
    for i, rows in enumerate(measured):
        name = name_of(rows[0])
        rates = []
        for case in cases:
            mine = [r for r in rows if r["case"] == case and r["outcome"] != "no_keyframe"]
            rates.append(sum(r["outcome"] == "accepted" for r in mine) / len(mine) if mine else 0.0)
        left.barh([n + i * height for n in range(len(cases))], rates, height, label=name)
        stages = ("device_seconds", "encode_seconds", "gate_seconds")
        values = [[r[s] for r in rows if r[s] is not None] or [0.0] for s in stages]
        places = [n + i * height for n in range(len(stages))]
        right.boxplot(values, positions=places, widths=height * 0.8, orientation="horizontal", manage_ticks=False)
    left.set_yticks([n + 0.4 - height / 2 for n in range(len(cases))], cases)
    left.invert_yaxis()
    left.set(xlim=(0, 1), xlabel="share of seeds accepted at the first take")
    left.legend(loc="lower left")
    right.set_yticks([0.4 - height / 2 + n for n in range(3)], ["device", "encode", "gate, all"])
    right.set(xlabel="seconds a take", xlim=(0, None))
    figure.savefig(file, dpi=110)
    plt.close(figure)
