"""Compresses a still as a video codec would, before a model sees it."""

from __future__ import annotations

import io

import numpy as np


def compressed(image: np.ndarray, crf: int | None) -> np.ndarray:
    """The picture after encoding and decoding it as one H.264 frame.

    Args:
        image: uint8 RGB (height, width, 3), both sides even.
        crf: constant rate factor, 0..51; None returns the picture unchanged.
    """
    if crf is None:
        return image
    import av  # imported only here, so that models run without PyAV

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=1, options={"crf": str(crf)})
        stream.height, stream.width, stream.pix_fmt = image.shape[0], image.shape[1], "yuv420p"
        for packet in [*stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")), *stream.encode(None)]:
            out.mux(packet)
    buffer.seek(0)
    with av.open(buffer, "r") as read:
        return next(read.decode(video=0)).to_ndarray(format="rgb24")
