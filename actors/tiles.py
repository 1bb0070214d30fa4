"""Runs a network over a picture piece by piece, so that memory depends on the piece and not on the picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch


def in_tiles(net: Callable[[torch.Tensor], torch.Tensor], frames: torch.Tensor, scale: int, tile: int | None, overlap: int) -> torch.Tensor:
    """The network's output, tile by tile. Each tile is made with its surroundings, which are cut off: so no seam can be seen.

    Where `overlap` is at least as far as the network looks, the output is that of the whole picture, rounding apart.

    Args:
        net: takes (n, 3, h, w) and gives (n, 3, h * scale, w * scale). frames: (n, 3, height, width).
        tile: pixels of a side of a tile, before enlarging; None makes the whole picture at once. overlap: pixels on each side.
    """
    height, width = frames.shape[-2:]
    if tile is None or (tile >= height and tile >= width):
        return net(frames)
    made: torch.Tensor | None = None
    for top, bottom, above, below in _spans(height, tile, overlap):
        for left, right, before, after in _spans(width, tile, overlap):
            piece = net(frames[..., above:below, before:after])
            if made is None:
                made = piece.new_empty((*frames.shape[:2], height * scale, width * scale))
            inner = piece[..., (top - above) * scale : (bottom - above) * scale, (left - before) * scale : (right - before) * scale]
            made[..., top * scale : bottom * scale, left * scale : right * scale] = inner
    assert made is not None
    return made


def _spans(length: int, tile: int, overlap: int) -> Iterator[tuple[int, int, int, int]]:
    """Of each tile along a side: where it begins and ends, and where it begins and ends with its surroundings."""
    for start in range(0, length, tile):
        end = min(start + tile, length)
        yield start, end, max(0, start - overlap), min(length, end + overlap)
