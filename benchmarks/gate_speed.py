"""What the gates cost: run by benchmarks.gates in a process that holds nothing else, `python -m benchmarks.gate_speed CLIP STILL`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from gates.image import judge_image
from gates.rules import judge
from gates.still import read_still
from gates.verdict import Verdict
from gates.video import Expectation, measure_video
from pipeline.story.gate_profile import load_profile


def median_seconds(work: Callable[[], Any], times: int = 5) -> float:
    """CPU seconds, all threads."""
    taken = []
    for _ in range(times):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return sorted(taken)[times // 2]


def peak_megabytes() -> float:
    """Largest resident memory of this program. getrusage would count its parent's, which Linux hands down through exec."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def main(clip: Path, picture: Path) -> dict[str, float]:
    anime, still = load_profile("anime"), read_still(picture).image
    expect = Expectation(121, Fraction(24), still.shape[1], still.shape[0], keyframe=still)

    def gate2() -> Verdict:
        return judge("video", measure_video(clip, expect).values, anime)

    assert gate2().outcome != "fail"
    seconds, memory = median_seconds(gate2), peak_megabytes()
    from . import peers  # only now: its libraries are not the gate's memory

    chain = median_seconds(lambda: peers.ffmpeg_chain_seconds(clip))
    size = (still.shape[1], still.shape[0])
    return {
        "Gate 2 on 121 frames of 768x512, seconds": seconds,
        "freezedetect + blackdetect + signalstats + scdet on the same file, seconds": chain,
        "largest memory of Gate 2's process, MB": memory,
        "Gate 1 on 768x512, milliseconds": 1000 * median_seconds(lambda: judge_image(picture, anime, size)),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
