"""When frames are shown: whether evenly, and how many a second. Measured in seconds, whatever clock the file counts in."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

# Seconds by which a frame's time may be off an even grid. Containers round times: Matroska, WebM and FLV to 1 ms, MPEG-TS to 1/90000 s,
# and a copy into another container rounds once more. The grid's own ends are rounded too, so that the two errors of half a step add up.
ROUNDING = 0.0011
# A twentieth of a frame is no fault at any clock: at 24 frames a second it is 2 ms, an eighth of what a 60 Hz screen can show.
SHARE = 0.05
# However coarse the clock, a frame that is a quarter of its length off is uneven. It matters only above 227 frames a second.
MOST = 0.25
EXACT = 1 / 90_000  # seconds, the finest step of the clocks in common use: a rate that fits this well is no product of rounding


class Timing:
    """The times of a clip's frames, in the order shown.

    Args:
        times: seconds; None for a frame without a time. A file that has no times at all, such as a raw stream, is played evenly.
    """

    def __init__(self, times: Sequence[Fraction | None]):
        known = [time for time in times if time is not None]
        self.missing = next((i for i, time in enumerate(times) if time is None), None) if known else None
        self.times = np.array([float(time - known[0]) for time in known], np.float64)

    def uneven(self) -> str:
        """Words that say which frame comes too early or too late; empty where frames are evenly spaced."""
        if self.missing is not None:
            return f"frame {self.missing} has no time"
        if len(self.times) < 2:
            return ""
        steps = np.diff(self.times)
        if steps.min() <= 0:
            return f"frame {int(steps.argmin()) + 1} does not come after the frame before it"
        mean = self.times[-1] / len(steps)
        off = self.times - np.arange(len(self.times)) * mean
        if np.abs(off).max() <= min(max(ROUNDING, SHARE * mean), MOST * mean):
            return ""
        worst = int(np.abs(steps - mean).argmax())
        return f"frame {worst + 1} comes {1000 * steps[worst]:.1f} ms after the one before it, where {1000 * mean:.1f} ms are the mean"

    def rate(self, told: Sequence[Fraction], wanted: Fraction | None = None) -> Fraction:
        """Frames a second, 0 where unknown.

        A container that rounds times also has a rounded mean rate, such as 989/33 for 30000/1001. So a rate in use (a whole or half
        number, or one of broadcasting) goes before the header's own mean, where both fit the times. A short clip's rounded times fit
        both 24 and 23.976: then it is the one that is wanted.

        Args:
            told: the rates that the header has, the mean rate first. wanted: the rate that the file should have.
        """
        first = next(iter(told), Fraction(0))
        if len(self.times) < 2 or self.times[-1] <= 0 or self.missing is not None or (first and self._misfit(first) <= EXACT):
            return first
        mean = (len(self.times) - 1) / self.times[-1]
        usual = [rate for rate in (*filter(None, [wanted]), *told) if rate == wanted or rate.denominator in (1, 2, 1001)]
        near = float(first or mean)
        usual += sorted((Fraction(round(mean)), Fraction(round(mean * 1.001) * 1000, 1001)), key=lambda rate: abs(float(rate) - near))
        return next((rate for rate in usual if rate and self._misfit(rate) <= ROUNDING), first)

    def _misfit(self, rate: Fraction) -> float:
        """Seconds by which the worst frame is off an even grid of this rate, with the grid laid where it fits best."""
        if not rate:
            return np.inf
        off = self.times - np.arange(len(self.times)) / float(rate)
        return float(off.max() - off.min()) / 2
