"""A shot's frames as the movie shows them: the clip's frames at the episode's rate and size, under the shot's title."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np

from gates.decode import VideoReader
from gates.frames import listing
from pipeline.render.picture import fill
from pipeline.render.video_file import as_written
from pipeline.story.fit import Fit, moment
from pipeline.story.title import overlay, title_layer, title_opacity

from .inbetween import inbetween

Picture = av.VideoFrame | np.ndarray  # as a file of the canvas's size holds it, or uint8 RGB (height, width, 3)


@dataclass(frozen=True)
class Canvas:
    """Size in pixels and rate of the movie. font: SHA-256 of the episode's own font, where a part is written with it; else ""."""

    width: int
    height: int
    fps: Fraction
    font: str


@dataclass(frozen=True)
class Part:
    """All that decides how a shot is shown.

    media, path: SHA-256 of its clip, and where the catalog has it. frames, fit, title, first_frame: as in the episode file.
    """

    media: str
    path: str
    frames: int
    fit: Fit
    title: str
    first_frame: int = 0


def shown(part: Part, canvas: Canvas, file: Path, font: Path | None, window: range) -> Iterator[Picture]:
    """The shot's frames whose numbers are in the window. Memory holds a few frames, however long the clip.

    Args:
        file: the clip. font: TrueType file for titles; None for the built-in fonts.

    Raises:
        Undecodable: the clip cannot be read as far as it is shown.
        InputError: the title does not fit, or its font cannot be read.
    """
    layer = title_layer(part.title, canvas.width, canvas.height, font) if part.title else None
    for n, picture in zip(window, _retimed(part, canvas, file, window), strict=True):
        yield picture if layer is None else overlay(rgb(picture), layer, title_opacity(n, part.frames, canvas.fps))


def rgb(picture: Picture) -> np.ndarray:
    """uint8 RGB (height, width, 3)."""
    return picture if isinstance(picture, np.ndarray) else picture.to_ndarray(format="rgb24")


def _retimed(part: Part, canvas: Canvas, file: Path, window: range) -> Iterator[Picture]:
    told = listing(file)
    fitted = lru_cache(maxsize=2)(lambda picture: _fitted(picture, canvas))  # one frame may be shown for long
    with VideoReader(file) as reader:
        strip = _Strip(reader.pictures())
        for n in window:
            at = moment(part.first_frame + n, part.fit, part.frames, told.frames, told.fps, canvas.fps)
            before, share = strip[int(at)], float(at - int(at))
            yield inbetween(rgb(fitted(before)), rgb(fitted(strip[int(at) + 1])), share) if share else fitted(before)


class _Strip:
    """A clip's frames by their number, asked for in order; it holds the last two."""

    def __init__(self, pictures: Iterator[av.VideoFrame]):
        self.pictures, self.last, self.held = pictures, -1, list[av.VideoFrame]()

    def __getitem__(self, number: int) -> av.VideoFrame:
        while self.last < number:
            self.held, self.last = [*self.held[-1:], next(self.pictures)], self.last + 1
        return self.held[number - self.last - 1]


def _fitted(picture: av.VideoFrame, canvas: Canvas) -> Picture:
    if as_written(picture, canvas.width, canvas.height):
        return picture
    return fill(rgb(picture), canvas.width, canvas.height)
