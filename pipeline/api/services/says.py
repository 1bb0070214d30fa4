"""What happened, as one line for a person."""

from __future__ import annotations

import json
from typing import Any

from catalog.standing import Row


def finding(found: dict[str, Any]) -> str:
    """One fault of a take: `frozen: reach 0.9 < 1.6`."""
    if found.get("text"):
        return f"{found['label']}: {found['text']}"
    value, threshold = found["value"], found["threshold"]
    return f"{found['label']}: {found['measure']} {value:.3g} {'<' if value < threshold else '>'} {threshold:.3g}"


def findings(row: Row) -> list[dict[str, Any]]:
    return json.loads(row["findings"] or "[]")


def failure(row: Row) -> str:
    """Why a take was not accepted, in one line."""
    if row["outcome"] == "error":
        return row["error"] or "failed"
    failed = [f for f in findings(row) if f["outcome"] == "fail"]
    return finding(failed[0]) + (f" and {len(failed) - 1} more" if failed[1:] else "") if failed else ", ".join(row["labels"] or ())


def shot(row: Row) -> str | None:
    """The shot that a row is about; None where it is about all."""
    return row.get("shot") or (row["take"].split("/")[1] if row.get("take") else None)


def take(row: Row) -> tuple[str, str]:
    """Text and tone of a take that was recorded."""
    name = f"{row['shot']} {row['stage']} v{row['attempt']:03d}"
    if row["outcome"] == "accepted":
        return f"{name} accepted", "ok"
    return f"{name} {'failed' if row['outcome'] == 'error' else 'rejected'}, {failure(row)}", "bad"


def review(row: Row) -> tuple[str, str]:
    """Text and tone of what a person said."""
    _, shot, stage, version = row["take"].split("/")
    note = f": “{row['note']}”" if row["note"] else ""
    if row["verdict"] == "note":
        at = "" if row["first_frame"] is None else f" at frame {row['first_frame'] + 1}"
        return f"{row['by']} on {shot} {stage} {version}{at}{note}", "quiet"
    said = {"approved": "approved", "picked": "picked", "retake": "asked for a retake of"}[row["verdict"]]
    return f"{row['by']} {said} {shot} {stage} {version}{note}", "warn" if row["verdict"] == "retake" else "word"


def run(row: Row) -> tuple[str, str]:
    """Text and tone of what a run recorded of itself."""
    if row["event"] == "started":
        return f"a render began: {row['stale']} of {row['shots']} shots", "run"
    if row["event"] == "finished":
        exhausted = f", {row['exhausted']} exhausted" if row["exhausted"] else ""
        return f"the render ended: {row['accepted']} shots accepted{exhausted}", "bad" if row["exhausted"] else "ok"
    why = f": {row['error']}" if row["error"] else ""
    return {"interrupted": "the render was interrupted", "failed": "the render failed", "refused": "a render was refused"}[
        row["event"]
    ] + why, "bad"
