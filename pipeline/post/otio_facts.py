"""What matters of an .otio file, read in a process of its own: OpenTimelineIO crashes on some files, and a file of brackets is one.

Run as `python -m pipeline.post.otio_facts FILE`, it prints JSON, or one sentence and ends with 2. It imports little, to start quickly.
"""

from __future__ import annotations

import json
import resource
import sys
from math import isfinite
from typing import Any

import opentimelineio as otio

ADDRESS_SPACE = 4 * 2**30  # bytes of the process
MOST_LETTERS = 80  # of a name
OWN = "tower"  # key of what this project writes into metadata

Facts = dict[str, Any]


def facts_of(timeline: object) -> Facts:
    """What matters of a timeline, in values that JSON has. Times are seconds.

    Raises:
        ValueError: it is no timeline, or a time is no number.
    """
    if not isinstance(timeline, otio.schema.Timeline):
        raise ValueError(f"it holds a {type(timeline).__name__}, where a Timeline is wanted")
    tracks = [child for child in timeline.tracks if isinstance(child, otio.schema.Track) and child.kind == otio.schema.TrackKind.Video]
    return {"tracks": [{"name": _name(t.name), "enabled": t.enabled, "items": [_item(child) for child in t]} for t in tracks]}


def _item(child: otio.core.Composable) -> Facts:
    facts: Facts = {"kind": child.schema_name(), "name": _name(child.name), "tower": {}}
    if isinstance(child, otio.schema.Transition):
        return facts | {"type": _name(child.transition_type), "in": _seconds(child.in_offset), "out": _seconds(child.out_offset)}
    own = child.metadata.get(OWN)
    if hasattr(own, "items"):
        facts["tower"] = {str(key): value for key, value in own.items() if isinstance(value, str | int)}
    shown = child.trimmed_range()
    facts |= {"enabled": child.enabled, "duration": _seconds(shown.duration), "start": _seconds(shown.start_time), "speed": 1.0}
    if isinstance(child, otio.schema.Clip):
        media = child.media_reference
        facts["media"] = getattr(media, "target_url", "") or ""
        if media.available_range:
            facts["start"] = _finite(facts["start"] - _seconds(media.available_range.start_time))
        for effect in child.effects:
            if isinstance(effect, otio.schema.LinearTimeWarp):
                facts["speed"] = _finite(facts["speed"] * effect.time_scalar)
    return facts


def _seconds(time: otio.opentime.RationalTime) -> float:
    if not time.rate > 0:
        raise ValueError(f"a time has the rate {time.rate}")
    return _finite(time.value / time.rate)


def _name(text: str) -> str:
    """One line of letters."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())[:MOST_LETTERS]


def _finite(number: float) -> float:
    if not isfinite(number):
        raise ValueError(f"a time is {number}")
    return number


def _main() -> None:
    for limit, most in ((resource.RLIMIT_AS, ADDRESS_SPACE), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (most, most))
    try:
        facts = facts_of(otio.adapters.read_from_file(sys.argv[1], "otio_json"))
    except Exception as error:  # noqa: BLE001 - whatever is wrong in the file
        said = str(error.args[0]) if error.args else type(error).__name__
        sys.stdout.buffer.write(" ".join(said.split())[:300].encode(errors="backslashreplace"))
        sys.exit(2)
    print(json.dumps(facts))


if __name__ == "__main__":
    _main()
