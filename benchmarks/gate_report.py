"""Tables and plots out of calibration rows."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from gates.rules import Rule
from gates.verdict import LABELS
from pipeline.story.gate_profile import PROFILES, GateProfile, load_profile
from pipeline.story.settings import PROJECT
from pipeline.story.yaml_file import read_yaml

from . import peers

matplotlib.use("Agg")
DOCS = PROJECT / "docs"
Rows = list[dict[str, Any]]
DRAWN = ("question", "scenes")
Z = 1.96  # 95 %
CLAIMS = {  # which of our labels another tool's rule claims to find
    peers.FREEZE: ("frozen", "long_hold"),
    peers.MOTION_MEAN: ("frozen",),
    peers.MOTION_PATCH: ("frozen",),
    peers.BLACK: ("black",),
    peers.BLACK_2: ("black",),
    peers.SCDET: ("cut",),
    peers.CONTENT: ("cut",),
    peers.FLICKER: ("flicker",),
    peers.FLASHES: ("strobe",),
}


def wilson(found: int, of: int) -> tuple[float, float]:
    """Wilson's score interval of a share, 95 %: honest for few cases and for shares near 0 and 1."""
    if of == 0:
        return 0.0, 1.0
    p, d = found / of, 1 + Z**2 / of
    middle, half = p + Z**2 / (2 * of), Z * np.sqrt(p * (1 - p) / of + Z**2 / (4 * of**2))
    return max(0.0, (middle - half) / d), min(1.0, (middle + half) / d)


def text(rows: Rows, figures: dict[str, float]) -> str:
    """Everything that the job found, as Markdown."""
    parts = [
        f"Run `{rows[0]['run']}`, {rows[0]['half']} half, {len(rows)} cases, {rows[0]['device']}. "
        f"CPU seconds of a gate, median: clips {_median(rows, 'video'):.3f}, stills {_median(rows, 'image'):.4f}.",
        "**Faults at or over their floor**: share found with their label (Wilson 95 %), and what other tools' rules find of them.",
        _table(*_recall(rows)),
        "**Clips and stills that must pass**: share rejected, and what other tools' rules call a fault among the same clips.",
        _table(*_false_rejects(rows)),
        "**What else was found**: planted fault, down; labels found at or over the floor, across.",
        _table(*_confusion(rows)),
    ]
    if figures:
        parts += ["**Cost**, one thread:", _table(["what", "value"], [[k, f"{v:.3g}"] for k, v in figures.items()])]
    return "\n\n".join(parts) + "\n"


def write_documents(rows: Rows, figures: dict[str, float]) -> None:
    """The calibration's part of docs/gates.md, and the plots beside it."""
    (DOCS / "gates").mkdir(exist_ok=True)
    severity_curves(rows, DOCS / "gates" / "severity.png")
    page = DOCS / "gates.md"
    start, end = "<!-- calibration: written by python -m benchmarks.gates -->\n", "<!-- end of calibration -->"
    before, rest = page.read_text().split(start)
    page.write_text(before + start + "\n" + text(rows, figures) + "\n" + end + rest.split(end)[1])


def _median(rows: Rows, gate: str) -> float:
    return float(np.median([r["cpu_seconds"] for r in rows if r["gate"] == gate]))


def _share(found: int, of: int) -> str:
    low, high = wilson(found, of)
    return f"{found}/{of} = {found / max(of, 1):.3f} ({low:.3f}–{high:.3f})"


def _recall(rows: Rows) -> tuple[list[str], list[list[str]]]:
    table = []
    for gate in ("video", "image"):
        for label in LABELS:
            mine = [r for r in rows if r["gate"] == gate and r["label"] == label and r["over_floor"]]
            if not mine:
                continue
            found = sum(label in (*r["failures"], *r["warnings"]) for r in mine)
            others = [f"{peer} {_peer(peer, mine)}" for peer, claims in CLAIMS.items() if label in claims and gate == "video"]
            rejected = sum(r["outcome"] == "fail" for r in mine)
            table.append([gate, label, _share(found, len(mine)), f"{rejected / len(mine):.3f}", "; ".join(others)])
    return ["gate", "fault", "found with its label", "rejected at all", "other tools"], table


def _peer(peer: str, mine: Rows) -> str:
    said = [r["peers"][peer] for r in mine if peer in r["peers"]]
    return f"{sum(said) / len(said):.3f}" if said else "–"


def _false_rejects(rows: Rows) -> tuple[list[str], list[list[str]]]:
    groups = {
        "clips: good": lambda r: r["kind"] == "good" and not r["declared"] and r["source"] in DRAWN,
        "clips: hard": lambda r: r["kind"] == "hard" and not r["declared"] and r["source"] in DRAWN,
        "clips: good or hard": lambda r: not r["declared"] and r["source"] in DRAWN,
        "clips of the demo's models, which may be faulty": lambda r: r["source"] == "demo",
        "clips that declare what they mean": lambda r: bool(r["declared"]),
        "photographs (profile photo)": lambda r: r["source"] == "photos",
    }
    table = []
    for name, belongs in groups.items():
        mine = [r for r in rows if r["gate"] == "video" and r["kind"] != "fault" and belongs(r)]
        if mine:
            table.append([name, _share(sum(r["outcome"] == "fail" for r in mine), len(mine)), *(_peer(peer, mine) for peer in CLAIMS)])
    stills = [r for r in rows if r["gate"] == "image" and r["kind"] != "fault"]
    table.append(["keyframes: good or hard", _share(sum(r["outcome"] == "fail" for r in stills), len(stills)), *("" for _ in CLAIMS)])
    return ["must pass", "rejected", *CLAIMS], table


def _confusion(rows: Rows) -> tuple[list[str], list[list[str]]]:
    planted = [r for r in rows if r["over_floor"] and r["gate"] == "video"]
    names = [label for label in LABELS if any(label in r["failures"] for r in planted)]
    table = []
    for label in LABELS:
        mine = [r for r in planted if r["label"] == label]
        counts = Counter(found for r in mine for found in r["failures"])
        if mine:
            table.append([label, str(len(mine)), *(str(counts[n] or "") for n in names)])
    return ["planted", "n", *names], table


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows))


def severity_curves(rows: Rows, out: Path) -> None:
    """For every fault, the share that is found at each severity."""
    faults = list(dict.fromkeys((r["fault"], r["label"], r["unit"]) for r in rows if r["gate"] == "video" and r["fault"]))
    columns = 6
    figure = Figure(figsize=(2.5 * columns, 1.9 * -(-len(faults) // columns)), layout="constrained", dpi=80)
    grid = figure.subplots(-(-len(faults) // columns), columns).flat
    for axes in grid[len(faults) :]:
        axes.axis("off")
    for axes, (fault, label, unit) in zip(grid, faults, strict=False):
        mine = [r for r in rows if r["gate"] == "video" and r["fault"] == fault]
        levels = sorted({r["severity"] for r in mine})
        groups = [[r for r in mine if r["severity"] == s] for s in levels]
        found = [sum(label in (*r["failures"], *r["warnings"]) for r in g) for g in groups]
        spans = [wilson(k, len(g)) for k, g in zip(found, groups, strict=True)]
        shares = [k / len(g) for k, g in zip(found, groups, strict=True)]
        axes.fill_between(range(len(levels)), [s[0] for s in spans], [s[1] for s in spans], alpha=0.2)
        axes.plot(range(len(levels)), shares, "o-", ms=3)
        floor = min((i for i, g in enumerate(groups) if g[0]["over_floor"]), default=0)
        axes.axvline(floor, color="firebrick", lw=0.8, ls="--")
        axes.set_xticks(range(len(levels)), [f"{s:g}" for s in levels], fontsize=7)
        axes.set_ylim(-0.05, 1.05)
        axes.tick_params(axis="y", labelsize=7)
        axes.set_title(f"{fault} ({label})", fontsize=8)
        axes.set_xlabel(unit, fontsize=7)
    figure.savefig(out)


def write_evidence(rows: Rows) -> None:
    """Beside every threshold: the run, and the values on either side of it in the tuning half.

    A profile that extends another has that one's evidence.
    """
    for path in sorted(PROFILES.glob("*.yaml")):
        if read_yaml(path, GateProfile).extends:
            continue
        profile = load_profile(path.stem)
        lines: list[str] = []
        gate: Literal["image", "video"] = "image"
        rules = {"image": iter(profile.image), "video": iter(profile.video)}
        for line in path.read_text().splitlines():
            gate = "video" if line.startswith("video:") else gate
            if line.lstrip().startswith("- {label:"):
                bare = re.sub(r', evidence: ".*"\}$', "}", line)
                line = f'{bare[:-1]}, evidence: "{evidence(next(rules[gate]), profile.rules(gate), gate, rows)}"}}'
            lines.append(line)
        path.write_text("\n".join(lines) + "\n")
    load_profile.cache_clear()


def _finds(rule: Rule, row: dict[str, Any]) -> bool:
    return all(m in row["measures"] for m in rule.looks_at()) and rule.finding(row["measures"], row["declared"]) is not None


def evidence(rule: Rule, rules: tuple[Rule, ...], gate: str, rows: Rows) -> str:
    """One sentence: the worst that passes and the mildest that does not, each but for one in fifty.

    A label may have several rules; planted faults that only another of them finds are not counted against this one.
    """
    if rule.differs_from or rule.measure in ("undecodable", "non_finite", "too_long", "uneven"):
        return "exact: no threshold to choose"
    here = [r for r in rows if r["gate"] == gate and rule.measure in r["measures"]]
    good = [r["measures"][rule.measure] for r in here if r["kind"] != "fault" and not r["declared"]]
    others = [r for r in rules if r.label == rule.label and r.measure != rule.measure]
    planted = [r for r in here if r["label"] == rule.label and r["over_floor"]]
    mine = [r for r in planted if _finds(rule, r) or not any(_finds(other, r) for other in others)]
    bad = [r["measures"][rule.measure] for r in mine]
    if not good or not bad:
        return f"{rows[0]['run']}: not in the calibration; as its neighbour"
    low = rule.below is not None
    a, b = np.quantile(good, 0.02 if low else 0.98), np.quantile(bad, 0.98 if low else 0.02)
    sign = ("≥", "≤") if low else ("≤", "≥")
    return f"{rows[0]['run']}: good {sign[0]} {a:.3g} (98 % of {len(good)}), planted {sign[1]} {b:.3g} (98 % of {len(bad)})"
