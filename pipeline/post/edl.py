"""An episode's timeline as an EDL (CMX 3600), for editors that read nothing newer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import opentimelineio as otio

from pipeline.story.episode import Episode
from pipeline.story.errors import InputError

from .otio_facts import OWN
from .otio_timeline import frames, label, move_cut

EVENT = re.compile(r"\d{3,}  (?P<reel>\S+) +V +(?:C|D \d{3}) +(?P<in>\S+) (?P<out>\S+) (?P<start>\S+) (?P<end>\S+)")
SPEED = re.compile(r"M2   (?P<reel>\S+)\s+(?P<speed>[-\d.e]+)\s+(?P<at>\S+)")
TAKE = "TOWER TAKE: "
RATES = "23.976, 24, 25, 29.97, 30, 50, 59.94 and 60"  # what SMPTE timecode counts


def edl_of(timeline: otio.schema.Timeline, episode: Episode) -> str:
    """The timeline as an EDL's text. Record timecodes begin at one hour. The timeline itself is not changed.

    Raises:
        InputError: there is no timecode of the episode's rate.
    """
    fps = float(episode.fps)
    if not otio.opentime.RationalTime.is_smpte_timecode_rate(fps):
        raise InputError(f"episode {episode.id} has {episode.fps} frames a second; an EDL has timecode for {RATES} only; --to otio has all")
    whole = timeline.deepcopy()  # the adapter changes what it writes
    dropped = episode.fps.denominator > 1 and round(episode.fps) % 30 == 0
    (track,) = whole.video_tracks()
    _simplify(track)
    _name(track)
    start = otio.opentime.from_timecode("01:00:00;00" if dropped else "01:00:00:00", fps)
    for clip in track.find_clips():
        _move_markers(clip, start + track.range_of_child(clip).start_time)
    track.insert(0, otio.schema.Gap(source_range=otio.opentime.TimeRange(frames(0, episode.fps), start)))  # it ignores the start time
    title, *lines = otio.adapters.write_to_string(whole, "cmx_3600", rate=fps).splitlines()
    lines = _once(_retimed(lines, track, fps))
    return "\n".join([title, f"FCM: {'DROP FRAME' if dropped else 'NON-DROP FRAME'}", *lines, ""])


def _simplify(track: otio.schema.Track) -> None:
    """Begin each dissolve at its cut. Take out those that begin or end in a gap: an EDL has no event for a gap."""
    for n in reversed(range(len(track))):
        if not isinstance(track[n], otio.schema.Transition):
            continue
        move_cut(track, n, -track[n].in_offset.to_frames())
        if any(isinstance(track[k], otio.schema.Gap) for k in (n - 1, n + 1)):
            del track[n]


def _name(track: otio.schema.Track) -> None:
    """Give each clip its shot's id as its reel, which the adapter would cut from the file's name."""
    for clip in track.find_clips():
        clip.metadata["cmx_3600"] = {"reel": clip.metadata[OWN]["shot"], "comments": [f"{TAKE}{clip.metadata[OWN]['take']}"]}


def _move_markers(clip: otio.schema.Clip, start: otio.opentime.RationalTime) -> None:
    """Give markers the times of the record, which locators have, and their whole text."""
    for marker in clip.markers:
        at = marker.marked_range.start_time - clip.source_range.start_time + start
        marker.marked_range = otio.opentime.TimeRange(at, marker.marked_range.duration)
        marker.name = label(marker)


def _retimed(lines: Iterable[str], track: otio.schema.Track, fps: float) -> Iterator[str]:
    """The lines, with as much of a retimed clip's source as its speed uses up: the adapter divides by the speed, or takes none.

    Speeds, in frames a second, have one decimal, as editors write them.
    """
    speeds = {}
    for clip in track.find_clips():
        for effect in clip.effects:
            if not isinstance(effect, otio.schema.FreezeFrame):
                speeds[clip.name] = effect.time_scalar
    ends = dict[str, str]()  # of the source, where the last event of a reel ended
    for line in lines:
        if speed := SPEED.fullmatch(line):
            line = f"M2   {speed['reel']:8} {float(speed['speed']):05.1f} {speed['at']:>26}"
        event = EVENT.match(line)
        if event and event["reel"] in speeds:
            first, start, end = (otio.opentime.from_timecode(event[name], fps) for name in ("in", "start", "end"))
            used = otio.opentime.RationalTime(round((end - start).value * speeds[event["reel"]]), fps)
            begin = ends.get(event["reel"], event["in"]) if start == end else event["in"]  # without length: what a dissolve goes on from
            ends[event["reel"]] = begin if start == end else otio.opentime.to_timecode(first + used)
            line = line.replace(f"{event['in']} {event['out']}", f"{begin} {ends[event['reel']]}")
        yield line


def _once(lines: Iterable[str]) -> Iterator[str]:
    """The lines, without the locators and takes that the adapter repeats where a clip dissolves into the next."""
    seen = set()
    for line in lines:
        if not (line.startswith(("* LOC:", f"* {TAKE}")) and line in seen):
            yield line
        seen.add(line)
