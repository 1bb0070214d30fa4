"""Does the clip move, and does it stay the same shot? Measures over a reduced clip."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .pair import ssim_map

CANDIDATES = 4  # how many of a clip's largest colour jumps are examined as cuts
NEAR = (0, 1, 2, 4, 6, 8)  # distances from a jump, in frames: frames before it are compared with frames after it
BIN = np.array([100 / 8, 256 / 16, 256 / 16], np.float32)  # 8 bins of L, 16 of a and b


def longest_hold(drawings: np.ndarray) -> tuple[float, int, int]:
    """Longest run of frames that show one drawing: its share of the clip, 0..1, its first and its last frame.

    Args:
        drawings: int (n,), as in `Reduced`. A frame belongs to a run where it equals the run's first frame, and not only
            its neighbour; so slow movement is no hold. Drawings on twos and threes make runs of 2 and 3 frames.
    """
    starts = np.flatnonzero(np.diff(drawings, prepend=drawings[0] - 1))
    lengths = np.diff(starts, append=len(drawings))
    longest = int(lengths.argmax())
    return float(lengths[longest] / len(drawings)), int(starts[longest]), int(starts[longest] + lengths[longest] - 1)


@dataclass(frozen=True)
class Cut:
    """The most cut-like place of a clip.

    score: ratio, 0 up; 1 where colour, histogram and structure all reach the threshold of a cut.
    at: first frame of the new picture.
    """

    score: float
    at: int


def strongest_cut(thumbs: np.ndarray, drawings: np.ndarray) -> tuple[Cut, np.ndarray]:
    """Find the most cut-like place. Also returns the colour jump before every frame, Delta E (n,), 0 at frame 0.

    score = min(jump / 12, histogram / 0.3, (1 - ssim) / 0.4)

    jump: mean CIE76 difference between the two neighbouring frames.
    histogram: smallest Bhattacharyya distance of 8x16x16 Lab histograms, over pairs of a frame before and a frame after.
    ssim: largest mean SSIM over the same pairs (distances in NEAR).

    A pan has a pair of similar frames, so its score stays low. So does a picture that comes back within a third of a
    second, as after lightning or an impact frame.

    Args:
        thumbs: uint8 RGB (n, h, w, 3). drawings: int (n,), as in `Reduced`; only the start of a new drawing can be a cut.
    """
    lab = _lab(thumbs)
    steps = np.diff(lab, axis=0)
    jumps = np.concatenate([[0.0], np.sqrt(np.einsum("nhwc,nhwc->nhw", steps, steps)).mean(axis=(1, 2))])
    jumps[1:][np.diff(drawings) == 0] = 0.0
    best = Cut(0.0, 0)
    seen: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def compared(a: int, b: int) -> tuple[float, float]:
        for i in (a, b):
            if i not in seen:
                seen[i] = _histogram(lab[i]), cv2.cvtColor(thumbs[i], cv2.COLOR_RGB2GRAY).astype(np.float32)
        return _bhattacharyya(seen[a][0], seen[b][0]), float(ssim_map(seen[a][1], seen[b][1]).mean())

    for at in np.argsort(-jumps)[:CANDIDATES]:
        if jumps[at] / 12 <= best.score:
            break
        pairs = [compared(at - 1 - k, at + j) for k in NEAR for j in NEAR if at - 1 - k >= 0 and at + j < len(thumbs)]
        score = min(jumps[at] / 12, min(h for h, _ in pairs) / 0.3, (1 - max(s for _, s in pairs)) / 0.4)
        if score > best.score:
            best = Cut(float(score), int(at))
    return best, jumps


def _lab(thumbs: np.ndarray) -> np.ndarray:
    """CIELAB, float32, of a stack of pictures: L 0..100, a and b about -127..127."""
    n, height, width, _ = thumbs.shape
    flat = thumbs.reshape(n * height, width, 3).astype(np.float32) / 255
    return cv2.cvtColor(flat, cv2.COLOR_RGB2LAB).reshape(n, height, width, 3)


def _histogram(lab: np.ndarray) -> np.ndarray:
    bins = np.clip((lab / BIN + (0, 8, 8)).astype(int), 0, (7, 15, 15))
    counts = np.bincount((bins[..., 0] * 256 + bins[..., 1] * 16 + bins[..., 2]).ravel(), minlength=2048)
    return counts / counts.sum()


def _bhattacharyya(a: np.ndarray, b: np.ndarray) -> float:
    """sqrt(1 - sum sqrt(a b)) of two histograms with sum 1; 0..1, 0 where they are equal."""
    return float(np.sqrt(max(0.0, 1.0 - np.sqrt(a * b).sum())))
