"""`shots/`: the accepted media in files that are named by shot, with marks of their takes. What is there already is not written again."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from catalog.media import MediaStore
from catalog.standing import Row
from pipeline.render.marks import Marks, marked
from pipeline.story.episode import Episode
from pipeline.story.fingerprint import digest
from pipeline.story.stages import CHAIN

from .provenance import shot_marks
from .remembered import Remembered, as_it_is, unchanged
from .result import Result
from .whole import put_whole

FOLDER = "shots"
SHOT_FILE = re.compile(r"SH[0-9]{4,6}(" + "|".join(re.escape(stage.suffix) for stage in CHAIN) + r")\Z")
PART = re.compile(r"\.SH[0-9]{4,6}\.[\w.]+\.([0-9]+)\.part\Z", re.ASCII)  # of a file that is not whole yet: its name, the process's id


def write_shots(
    folder: Path, episode: Episode, results: Sequence[Result], before: dict[str, Any], store: MediaStore
) -> dict[str, Remembered]:
    """Copy the accepted media to `SH0010.png`, `SH0010.mp4`, and remove the files of shots that the episode no longer has.

    If a stage of a shot is not accepted now, the file that an earlier run left for it is removed. Files of others stay.

    Args:
        folder: the episode's own. results: of the shots that this run looked at. before: what earlier runs wrote.

    Returns:
        What lies there, of this run and of earlier ones.

    Raises:
        MediaDamaged: a media file is missing or damaged.
    """
    shots = folder / FOLDER
    shots.mkdir(parents=True, exist_ok=True)
    _sweep(shots)
    known = {shot.id for _, shot in episode.shots}
    now = {name: value for name, value in before.items() if value or (shots / name).is_file()}
    for result, stage in product(results, CHAIN):
        name = f"{result.shot}{stage.suffix}"
        if stage.name in result.takes:
            marks = shot_marks(result.takes, stage.name, episode.title)
            now[name] = _write(shots / name, result.takes[stage.name], marks, before.get(name), store)
        else:
            (shots / name).unlink(missing_ok=True)
            now.pop(name, None)
    for name in [name for name in before if name.partition(".")[0] not in known]:
        (shots / name).unlink(missing_ok=True)
        now.pop(name, None)
    return dict(sorted(now.items()))


def _write(target: Path, row: Row, marks: Marks, before: Any, store: MediaStore) -> Remembered | None:
    of = digest([row["media"], marks.keys])
    if unchanged(target, of, before):
        return dict(before)
    put_whole(target, marked(store.read(row["media_path"], row["media"]), target.suffix, marks))
    return as_it_is(target, of)


def files_of(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What a summary says that lies in shots/. What is not a shot's file is left out: a summary may hold anything."""
    files, outcomes = summary.get("files"), summary.get("outcomes")
    found = files if isinstance(files, dict) else dict.fromkeys(n for n in files if isinstance(n, str)) if isinstance(files, list) else {}
    shots = [o.get("shot") for o in outcomes if isinstance(o, dict)] if isinstance(outcomes, list) else []
    found = {f"{shot}{stage.suffix}": None for shot in shots for stage in CHAIN} | found
    return {name: value for name, value in found.items() if SHOT_FILE.match(name)}


def _sweep(shots: Path) -> None:
    """Remove what killed runs left."""
    for part in shots.glob(".SH*.part"):
        found = PART.match(part.name)
        if found and not _runs(int(found[1])):
            part.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return process != os.getpid()
