"""An episode's timeline as FCPXML, for Final Cut Pro and what reads its files.

The adapter writes assets, clips, gaps and markers. It leaves out dissolves, changes of speed and sizes, and knows few rates: those are
put in here. Final Cut takes a dissolve only between clips that meet in its middle, with an effect that it knows and a filter that
names the effect; what `src` may hold is in Apple's "Final Cut Pro X XML Format", chapter Resources.
"""

from __future__ import annotations

from fractions import Fraction
from xml.etree import ElementTree

import opentimelineio as otio

from pipeline.story.episode import Episode

from .otio_facts import OWN
from .otio_timeline import label, move_cut, playing

CROSS_DISSOLVE = "FxPlug:4731E73A-8DAC-4113-9A30-AE85B1761265"  # Final Cut's own


def fcpxml_of(timeline: otio.schema.Timeline, episode: Episode) -> str:
    """The timeline as an FCPXML document's text, version 1.8. The timeline itself is not changed. Times begin at 0."""
    whole = timeline.deepcopy()
    (track,) = whole.video_tracks()
    _meet_in_the_middle(track)
    for clip in track.find_clips():
        clip.media_reference.target_url = f"./{clip.media_reference.target_url}"
        for marker in clip.markers:
            marker.name = label(marker)
    root = ElementTree.fromstring(otio.adapters.write_to_string(whole, "fcpx_xml"))
    resources, project, spine = root[0], root.find("project"), root.find("./project/sequence/spine")
    assert project is not None and spine is not None
    project.attrib.pop("uid")
    _formats(resources, root, track, episode)
    for item, element in zip([x for x in track if not isinstance(x, otio.schema.Transition)], list(spine), strict=True):
        if isinstance(item, otio.schema.Clip):
            _retime(element, item, episode.fps)
    _dissolves(resources, spine, track, episode.fps)
    ElementTree.indent(root, "    ")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE fcpxml>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _meet_in_the_middle(track: otio.schema.Track) -> None:
    """Move each cut that a dissolve begins at to the dissolve's middle, as far as the clip behind it allows."""
    for n, item in enumerate(track):
        if isinstance(item, otio.schema.Transition):
            half = (item.in_offset + item.out_offset).to_frames() // 2 - item.in_offset.to_frames()
            move_cut(track, n, max(0, min(half, track[n + 1].duration().to_frames() - 1)))


def _formats(resources: ElementTree.Element, root: ElementTree.Element, track: otio.schema.Track, episode: Episode) -> None:
    """One format for the sequence, in place of the adapter's, and one for each size and rate of clips."""
    for old in resources.findall("format"):
        resources.remove(old)
    made: dict[tuple[Fraction, int, int], str] = {}

    def format_id(rate: Fraction, width: int, height: int) -> str:
        if (rate, width, height) not in made:
            made[rate, width, height] = f"f{len(made) + 1}"
            more = {"frameDuration": seconds(Fraction(1) / rate), "width": str(width), "height": str(height)}
            resources.insert(len(made) - 1, ElementTree.Element("format", {"id": made[rate, width, height], **more}))
        return made[rate, width, height]

    sequence = root.find("./project/sequence")
    assert sequence is not None
    sequence.set("format", format_id(episode.fps, episode.width, episode.height))
    for clip in track.find_clips():
        of, (asset,) = clip.metadata[OWN], resources.findall(f"./asset[@src='{clip.media_reference.target_url}']")
        for element in (asset, *root.findall(f"./asset-clip[@ref='{asset.get('id')}']")):
            element.set("format", format_id(Fraction(of["fps"]), of["width"], of["height"]))


def _retime(element: ElementTree.Element, clip: otio.schema.Clip, fps: Fraction) -> None:
    """Say how fast a clip runs, as a map from its time in the sequence to its media's. What is held stands at one time of the media."""
    if not clip.effects:
        return
    speed, start, length = Fraction(playing(clip)).limit_denominator(10**6), clip.source_range.start_time, clip.source_range.duration
    held = speed == 0
    count = Fraction(clip.available_range().duration.to_seconds()).limit_denominator(10**6)
    until = (Fraction(length.to_frames()) / fps) * 2 if held else count / speed
    at = Fraction(start.to_frames()) / fps if held else Fraction(0)
    element.set("start", "0s" if held else seconds(Fraction(round(start.value / float(speed))) / fps))
    points = [(Fraction(0), at), (until, at if held else count)]
    mapped = ElementTree.Element("timeMap")
    for time, value in points:
        ElementTree.SubElement(mapped, "timept", {"time": seconds(time), "value": seconds(value), "interp": "linear"})
    element.insert(0, mapped)


def _dissolves(resources: ElementTree.Element, spine: ElementTree.Element, track: otio.schema.Track, fps: Fraction) -> None:
    if not any(isinstance(item, otio.schema.Transition) for item in track):
        return
    ElementTree.SubElement(resources, "effect", {"id": "dissolve", "name": "Cross Dissolve", "uid": CROSS_DISSOLVE})
    for n, item in enumerate(track):
        if isinstance(item, otio.schema.Transition):
            at = track.range_of_child_at_index(n).start_time.to_frames()
            length = (item.in_offset + item.out_offset).to_frames()
            times = {"offset": seconds(at / fps), "duration": seconds(length / fps)}
            element = ElementTree.Element("transition", {"name": "Cross Dissolve", **times})
            ElementTree.SubElement(element, "filter-video", {"ref": "dissolve", "name": "Cross Dissolve"})
            spine.insert(n, element)


def seconds(time: Fraction) -> str:
    """A time as FCPXML writes it: `1001/24000s`, `5s`."""
    return f"{time.numerator}s" if time.denominator == 1 else f"{time.numerator}/{time.denominator}s"
