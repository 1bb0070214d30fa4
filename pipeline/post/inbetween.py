"""In-betweens by optical flow."""

from __future__ import annotations

import cv2
import numpy as np


def inbetween(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """A frame between two others. uint8 RGB (height, width, 3) in and out.

    Dense flow by inverse search (OpenCV's DIS) in both directions; each picture is moved along it, and the two are blended. The flows
    at the moment between are combined from both as Super SloMo does it (Jiang et al. 2018, equation 4).

    Args:
        share: how far it is from the first to the second, 0..1.
    """
    a, b = cv2.cvtColor(first, cv2.COLOR_RGB2GRAY), cv2.cvtColor(second, cv2.COLOR_RGB2GRAY)
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    there, back = search.calc(a, b, None), search.calc(b, a, None)  # type: ignore[call-overload]
    to_first = share * share * back - (1 - share) * share * there
    to_second = (1 - share) ** 2 * there - share * (1 - share) * back
    moved = cv2.addWeighted(_moved(first, to_first), 1 - share, _moved(second, to_second), share, 0)
    return np.asarray(moved)


def _moved(picture: np.ndarray, flow: np.ndarray) -> np.ndarray:
    rows, columns = np.indices(flow.shape[:2], dtype=np.float32)
    return cv2.remap(picture, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
