"""What an earlier take was made from and is different now."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from actors.values import ClipSettings, FinishSettings, KeyframeSettings
from catalog.standing import Row, name_of
from pipeline.story.fingerprint import SEEDS, canonical

from .resolve import StagePlan


def changes(row: Row, stage: StagePlan, variation: int) -> list[tuple[str, str]]:
    """What an earlier take was made from and is different now, as (code, text for people).

    Args:
        row: the take's columns, as `latest_of_others` gives them. variation: the shot's variation now.
    """
    found = []
    flow = stage.workflow
    same = (row["workflow"], row["workflow_version"]) == (flow.name, flow.version)
    if not same:
        was = name_of(row)
        found.append(("workflow_changed", f"workflow changed: {was} → {stage.ready.name}"))
    elif row["workflow_digest"] != stage.workflow_digest:
        found.append(("workflow_changed", f"model files or libraries of {stage.ready.name} changed"))
    if row["prompt"] != stage.prompt:
        found.append(("prompt_changed", f"prompt changed: {_word_difference(row['prompt'] or '', stage.prompt)}"))
    if row["negative_prompt"] != stage.negative_prompt:
        words = _word_difference(row["negative_prompt"] or "", stage.negative_prompt)
        found.append(("prompt_changed", f"negative prompt changed: {words}"))
    if row["reference_files"] is not None and dict(row["reference_files"]) != dict(stage.reference_files):
        old, new = dict(row["reference_files"]), dict(stage.reference_files)
        names = sorted(name for name in old | new if old.get(name) != new.get(name))
        found.append(("reference_changed", f"reference changed: {', '.join(Path(n).name for n in names)}"))
    if same and row["parameters"] is not None and _parameters_changed(row["parameters"], stage):
        found.append(("parameters_changed", "parameters changed"))
    if row["shot_variation"] is not None and row["shot_variation"] != variation:
        found.append(("variation_changed", f"variation changed: {row['shot_variation']} → {variation}"))
    if stage.seed is not None and row["seed"] != (stage.seed + row["variation"]) % SEEDS:
        found.append(("seed_changed", f"seed changed: {row['seed']} → {stage.seed}"))
    return found


def parameters_json(stage: StagePlan) -> str:
    """The settings that a take of this stage uses, with the shot's parameters, as JSON."""
    return _settings_json(stage.workflow.settings(), stage.parameters)


def _parameters_changed(before: str, stage: StagePlan) -> bool:
    """Settings that came after the row was written had their defaults; the retry policy may have compressed its keyframe further."""
    settings = stage.workflow.settings()
    defaults = json.loads(canonical({f.name: f.default for f in fields(settings) if f.default is not MISSING}))
    old, new = defaults | json.loads(before), json.loads(parameters_json(stage))
    if "more_compression" in stage.workflow.retry.on.values():
        old.pop("keyframe_crf", None), new.pop("keyframe_crf", None)
    return old != new


@lru_cache(maxsize=4096)
def _settings_json(settings: KeyframeSettings | ClipSettings | FinishSettings, parameters: tuple[tuple[str, Any], ...]) -> str:
    return canonical(asdict(replace(settings, **dict(parameters))))


def _word_difference(before: str, after: str) -> str:
    old, new = before.replace(",", "").split(), after.replace(",", "").split()
    removed, added = [w for w in old if w not in new], [w for w in new if w not in old]
    parts = [f"{sign}{' '.join(words)[:60]!r}" for sign, words in (("-", removed), ("+", added)) if words]
    return " ".join(parts) or "order of words"
