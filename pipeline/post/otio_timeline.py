"""An episode as an OpenTimelineIO timeline: the accepted clips in order, with dissolves, what each was made from, and people's words.

Times count the episode's frames, from 0 at a clip's first. A clip of another rate keeps that rate in its `available_range`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from math import ceil, floor

import opentimelineio as otio
from opentimelineio.opentime import RationalTime, TimeRange

from catalog.standing import Row
from pipeline.story.episode import Episode, Shot
from pipeline.story.episode import Sequence as EpisodeSequence
from pipeline.story.fit import fills, speed
from pipeline.story.rate import exact, played_at

from .otio_facts import OWN

NO_CLIP = "no accepted clip"
HOUR = 3600  # seconds; episodes begin at 01:00:00:00, so that bars and a slate have room before
COLORS = {"approved": "GREEN", "picked": "CYAN", "note": "YELLOW", "retake": "RED"}
SEQUENCE, MISSING = "PURPLE", "MAGENTA"  # other markers' colours


def timeline_of(
    episode: Episode, clips: Mapping[str, Row], said: Mapping[str, Sequence[Row]], sources: Mapping[str, Row]
) -> otio.schema.Timeline:
    """The episode as it would be cut from these clips.

    A dissolve of n frames begins where its shot begins: the shot before ends there, and n of its frames lie behind that as a handle.
    A shot without a clip is a gap of its length, with a marker.

    Args:
        clips: shot to the row of its accepted clip, or of the finish of it. said: take to the rows of reviews on it, oldest first.
        sources: take to its row, of the clips that finishes were made from.
    """
    track = otio.schema.Track(name="V1", kind=otio.schema.TrackKind.Video)
    for sequence, shot, lead, length in places(episode):
        if shot.transition.frames:
            track.append(_dissolve(shot, lead, episode.fps))
        row = clips.get(shot.id)
        if row is None:
            track.append(_gap(episode, sequence, shot, length))
        else:
            made = sources.get(row["upstream"] or "", row)
            words = [word for take in dict.fromkeys((made["take"], row["take"])) for word in said.get(take, ())]
            row = row | {"upstream": made["upstream"], "seed": made["seed"]}  # the keyframe and the seed that the clip was made with
            track.extend(_clips(episode, sequence, shot, row, lead, length, words))
    start = frames(HOUR * round(episode.fps), episode.fps)
    timeline = otio.schema.Timeline(plain(f"{episode.id} {episode.title}"), global_start_time=start)
    timeline.tracks.append(track)
    timeline.tracks.markers.extend(_sequences(episode))
    timeline.metadata[OWN] = {"episode": episode.id, "fps": str(episode.fps), "width": episode.width, "height": episode.height}
    return timeline


def places(episode: Episode) -> Iterable[tuple[EpisodeSequence, Shot, int, int]]:
    """Each shot; how many of its first frames lie before the cut to it; how many frames it has from there to the cut after it.

    The cut to a shot stands where its dissolve begins: none lie before. Only where a dissolve covers all of the shot before, one does:
    editors have no clips without length.
    """
    shots, lead = episode.shots, 0
    for n, (sequence, shot) in enumerate(shots):
        over = shots[n + 1][1].transition.frames if n + 1 < len(shots) else 0
        length = shot.frames - lead - over
        late = int(over > 0 and length == 0)
        yield sequence, shot, lead, length + late
        lead = late


def moves(episode: Episode, shot: Shot, row: Row) -> int:
    """How many of the episode's frames a clip fills before its last frame would have to be held, as the shot shows it."""
    have = fills("trim" if shot.fit == "hold" else shot.fit, row["frames"], exact(row["fps"]), episode.fps)
    return shot.frames if have is None else have


def speed_of(episode: Episode, shot: Shot, row: Row) -> Fraction:
    """How fast the shot's clip runs; 1: at its own rate."""
    return speed(shot.fit, shot.frames, row["frames"], exact(row["fps"]), episode.fps)


def frames(count: int | Fraction, fps: Fraction) -> RationalTime:
    """A time of so many frames."""
    return RationalTime(float(count), float(fps))


def move_cut(track: otio.schema.Track, n: int, by: int) -> None:
    """Move the cut under a track's transition number n by so many frames; what is seen stays as it is."""
    before, dissolve, after = track[n - 1], track[n], track[n + 1]
    time = RationalTime(by, dissolve.out_offset.rate)
    before.source_range = before.source_range.duration_extended_by(time)
    start = after.source_range.start_time + RationalTime(by * playing(after), time.rate)
    after.source_range = TimeRange(start, after.source_range.duration - time)
    dissolve.in_offset, dissolve.out_offset = dissolve.in_offset + time, dissolve.out_offset - time


def playing(item: otio.core.Item) -> float:
    """How fast an item runs, as its effects say; 0: it is held."""
    return next((effect.time_scalar for effect in item.effects if isinstance(effect, otio.schema.LinearTimeWarp)), 1.0)


def label(marker: otio.schema.Marker) -> str:
    """All that a marker says, for formats whose markers have one line."""
    return plain(f"{marker.name}: {marker.comment}") if marker.comment else marker.name


def plain(text: str) -> str:
    """A text in one line, without what is no letter: such a character would be an error of XML, and a line break another line of an EDL."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())


def file_of(shot: str) -> str:
    """Name of the media file of a shot: its clip, or the finish of it."""
    return f"{shot}.mp4"


def _dissolve(shot: Shot, lead: int, fps: Fraction) -> otio.schema.Transition:
    kind = otio.schema.TransitionTypes.SMPTE_Dissolve
    return otio.schema.Transition("dissolve", kind, frames(lead, fps), frames(shot.transition.frames - lead, fps))


def _gap(episode: Episode, sequence: EpisodeSequence, shot: Shot, length: int) -> otio.schema.Gap:
    gap = otio.schema.Gap(name=shot.id, source_range=_span(0, length, episode.fps))
    gap.metadata[OWN] = {"episode": episode.id, "sequence": sequence.id, "shot": shot.id}
    gap.markers.append(otio.schema.Marker(NO_CLIP, _span(0, length, episode.fps), MISSING))
    return gap


def _clips(
    episode: Episode, sequence: EpisodeSequence, shot: Shot, row: Row, lead: int, length: int, said: Sequence[Row]
) -> list[otio.schema.Clip]:
    """The shot's clip; behind it, where the clip is at its end before the shot is, its last frame, held."""
    fps, have, first, fast = episode.fps, moves(episode, shot, row), shot.first_frame + lead, speed_of(episode, shot, row)
    parts, moving = list[otio.schema.Clip](), max(0, min(length, have - first))
    if moving:
        parts.append(_clip(episode, sequence, shot, row, TimeRange(frames(first * fast, fps), frames(moving, fps))))
        if fast != 1:
            parts[0].effects.append(otio.schema.LinearTimeWarp(time_scalar=float(fast)))
    if length > moving:
        parts.append(_clip(episode, sequence, shot, row, TimeRange(frames(ceil(have * fast) - 1, fps), frames(length - moving, fps))))
        parts[-1].effects.append(otio.schema.FreezeFrame())
    parts[0].markers.extend(_marker(word, row, parts[0], episode) for word in said)
    return parts


def _clip(episode: Episode, sequence: EpisodeSequence, shot: Shot, row: Row, shown: TimeRange) -> otio.schema.Clip:
    own = played_at(exact(row["fps"]), episode.fps)
    media = otio.schema.ExternalReference(file_of(shot.id), _span(0, row["frames"], own))
    media.name = file_of(shot.id)
    clip = otio.schema.Clip(shot.id, media, shown)
    clip.metadata[OWN] = {
        "episode": episode.id,
        "sequence": sequence.id,
        "shot": shot.id,
        "take": row["take"],
        "keyframe": row["upstream"] or "",
        "workflow": f"{row['workflow']}@{row['workflow_version']}",
        "workflow_digest": row["workflow_digest"] or "",
        "seed": row["seed"],
        "media": row["media"],
        "fps": str(exact(row["fps"])),
        "width": row["width"],
        "height": row["height"],
        "fit": shot.fit,
    }
    return clip


def _marker(word: Row, row: Row, clip: otio.schema.Clip, episode: Episode) -> otio.schema.Marker:
    """What a person said, at the frames that it is about; what is about the whole take, at the first frame that is shown."""
    each, first = episode.fps / played_at(exact(row["fps"]), episode.fps), word["first_frame"]
    if first is None:
        span = TimeRange(clip.source_range.start_time, frames(1, episode.fps))
    else:
        last = first if word["last_frame"] is None else word["last_frame"]
        span = _span(floor(first * each), ceil((last + 1) * each) - floor(first * each), episode.fps)
    marker = otio.schema.Marker(plain(f"{word['verdict']} by {word['by'] or 'a person'}"), span, COLORS[word["verdict"]])
    marker.comment = word["note"] or ""
    marker.metadata[OWN] = {"take": word["take"], "verdict": word["verdict"], "by": word["by"] or "", "at": word["at"].isoformat()}
    return marker


def _sequences(episode: Episode) -> Iterable[otio.schema.Marker]:
    """A marker for each sequence, as long as the sequence."""
    spans, at = dict[str, tuple[int, int]](), 0
    for sequence, _, _, length in places(episode):
        start, count = spans.get(sequence.id, (at, 0))
        spans[sequence.id] = (start, count + length)
        at += length
    for sequence in episode.sequences:
        marker = otio.schema.Marker(plain(f"{sequence.id} {sequence.title}"), _span(*spans[sequence.id], episode.fps), SEQUENCE)
        marker.metadata[OWN] = {"episode": episode.id, "sequence": sequence.id}
        yield marker


def _span(first: int, count: int, fps: Fraction) -> TimeRange:
    return TimeRange(frames(first, fps), frames(count, fps))
