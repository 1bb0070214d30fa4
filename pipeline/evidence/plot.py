"""Plot the reasons of a verdict: each finding's curve and threshold, beside the frames that the finding names."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gates.decode import VideoReader
from gates.still import Undecodable, read_still
from gates.verdict import Finding, Verdict
from pipeline.story.errors import InputError

from .curves import CURVE_OF, PER_FRAME, UNITS

matplotlib.use("Agg")
STRIP = 5  # frames beside a curve


def explain(file: Path, verdict: Verdict, curves: dict[str, np.ndarray], out: Path) -> None:
    """Draw a PNG with one row for each finding. Without findings, the only row is the distance from the first frame.

    Args:
        curves: measure to its value in each frame; empty for a still.

    Raises:
        InputError: `out` cannot be written.
    """
    findings: list[Finding | None] = [*verdict.findings] or [None]
    rows = [(finding, _frames_of(finding, len(next(iter(curves.values()), [])))) for finding in findings]
    pictures = _pictures(file, verdict, sorted({i for _, frames in rows for i in frames}))
    figure = Figure(figsize=(4 + 2 * STRIP, 2.1 * len(rows) + 0.5), layout="constrained", dpi=90)
    figure.suptitle(f"{file.name}: {verdict.outcome}", x=0.01, ha="left", fontsize=11, parse_math=False)
    grid = figure.subplots(len(rows), 1 + STRIP, squeeze=False, width_ratios=[2.2] + [1] * STRIP)
    for axes, (finding, frames) in zip(grid, rows, strict=True):
        _curve(axes[0], finding, curves, frames)
        for k, cell in enumerate(axes[1:]):
            cell.axis("off")
            if k < len(frames) and frames[k] in pictures:
                cell.imshow(pictures[frames[k]])
                cell.set_title(f"frame {frames[k]}" if curves else "", fontsize=8)
    try:
        figure.savefig(out, format="png")
    except OSError as error:
        raise InputError(f"--explain {out} cannot be written: {error.strerror or error}") from error


def _curve(axes: Axes, finding: Finding | None, curves: dict[str, np.ndarray], frames: list[int]) -> None:
    measure = finding.measure if finding else "reach"
    name = CURVE_OF.get(measure, measure)
    axes.set_title(str(finding) if finding else "nothing found", fontsize=8, loc="left", color="firebrick" if finding else "black")
    if name not in curves:
        axes.axis("off")
        return
    axes.plot(curves[name], lw=1)
    axes.set_ylabel(UNITS[name], fontsize=7)
    axes.tick_params(labelsize=7)
    if finding and measure in PER_FRAME:
        axes.axhline(finding.threshold, color="firebrick", lw=0.8, ls="--")
    for frame in frames:
        axes.axvline(frame, color="grey", lw=0.5, alpha=0.6)


def _frames_of(finding: Finding | None, count: int) -> list[int]:
    """Indices of the frames to show: around the one frame that a finding names, or evenly over its range or the whole clip."""
    if count == 0:
        return [0]
    if finding is not None and len(finding.frames) == 1:
        start = max(0, min(finding.frames[0] - 2, count - STRIP))
        return list(range(start, min(start + STRIP, count)))
    first, last = finding.frames if finding is not None and len(finding.frames) == 2 else (0, count - 1)
    return sorted({round(float(x)) for x in np.linspace(first, last, STRIP)})


def _pictures(file: Path, verdict: Verdict, wanted: list[int]) -> dict[int, np.ndarray]:
    found: dict[int, np.ndarray] = {}
    try:
        if verdict.gate == "image":
            return {0: read_still(file).image}
        with VideoReader(file) as reader:
            for i, frame in enumerate(reader):
                if i in wanted:
                    found[i] = frame.small.copy()
    except Undecodable:
        pass  # the verdict reports it; the frames that could be read are shown
    return found
