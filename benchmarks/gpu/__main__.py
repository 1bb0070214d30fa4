"""Measure a GPU: python -m benchmarks.gpu [--minutes 8] [--out gpu-figures] [--tiny]

    --tiny    the same code with narrow models and small pictures: a rehearsal on a CPU, in minutes
    --judge   no measuring: gates the clips that an earlier run brought back in --out, where PyAV was not there

Steps run one after another, the most valuable first, each in a process of its own: what a step breaks, or a card that runs out
of memory, ends that step alone. A step may use its share of the time that is left; it is ended when that is over, and
keeps the figures that it had. Exit code 1: a step failed or was ended; the others' figures are there.
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from actors.loading import best_device, device_name
from benchmarks.gpu import agreement, clips, memory, ratios, small_card, stills
from benchmarks.gpu.report import Bench, Figure, Report, versions
from benchmarks.timing import matrix_rate, seconds_of


def machine(bench: Bench) -> Iterator[Figure]:
    """What it is, and the two rates that bound everything else."""
    yield Figure("device", device_name(bench.device))
    yield Figure("versions", versions())
    dtype = torch.bfloat16 if bench.on_gpu else torch.float32
    if bench.on_gpu:
        yield Figure("memory", torch.cuda.get_device_properties(0).total_memory / 1e9, "GB")
        yield Figure("driver", _driver())
    yield Figure("matrix product", matrix_rate(bench.device, dtype) / 1e12, "TFLOP/s", f"{dtype}, random numbers".removeprefix("torch."))
    source = torch.ones(2**31 if bench.on_gpu else 2**24, dtype=torch.uint8, device=bench.device)
    copy = torch.empty_like(source)
    copy.copy_(source)
    yield Figure("memory copy", 2 * source.numel() * 5 / seconds_of(lambda: [copy.copy_(source) for _ in range(5)]) / 1e12, "TB/s")


def _driver() -> str:
    told = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True, timeout=30)
    return told.stdout.strip().splitlines()[0] if told.stdout.strip() else "not told"


Step = Callable[[Bench], Iterable[Figure]]

STEPS: dict[str, tuple[Step, float]] = {  # with their shares of the time
    "machine": (machine, 0.03),
    "agreement": (agreement.agreement, 0.1),
    "LTX-Video": (clips.one_clip, 0.27),
    "ten clips": (clips.many_clips, 0.14),
    "stills": (stills.stills_and_animatediff, 0.13),
    "12 GB": (small_card.small_card, 0.14),
    "ratios": (ratios.ratios, 0.15),
    "memory": (memory.memory, 0.04),
}


def run(minutes: float, out: Path, tiny: bool) -> bool:
    """All steps; whether all of them ended by themselves."""
    out.mkdir(parents=True, exist_ok=True)
    report, end, well = Report(out), time.monotonic() + 60 * minutes, True
    report.lines.unlink(missing_ok=True)
    # Checkpoints lie on the machine's disk once, for all steps. They go with the machine; here, at the end.
    with tempfile.TemporaryDirectory(prefix="tower-gpu-") as work:
        for name, (step, _) in STEPS.items():
            left, names = end - time.monotonic(), list(STEPS)
            share = STEPS[name][1] / sum(STEPS[n][1] for n in names[names.index(name) :])
            well &= _alone(name, step, report, Bench("", tiny, out, Path(work), time.monotonic() + left * share))
            report.write_table()
    return well


def _alone(name: str, step: Step, report: Report, bench: Bench) -> bool:
    """One step in a process of its own, which has this one's imports: they take a minute where each step makes its own."""
    process = multiprocessing.get_context("fork").Process(target=_step, args=(name, step, report, bench))
    process.start()
    process.join(max(1.0, bench.until - time.monotonic()))
    if process.is_alive():
        report.add(name, Figure("ended", "its share of the time was over", note="what it had measured by then stands above"))
        process.kill()
        process.join()
        return False
    if process.exitcode and process.exitcode < 0:
        report.add(name, Figure("failed", f"the process was ended by signal {-process.exitcode}"))
    return process.exitcode == 0


def _step(name: str, step: Step, report: Report, bench: Bench) -> None:
    bench = replace(bench, device=best_device())  # asked here: a process that has asked for a GPU cannot be forked
    try:
        for figure in step(bench):
            report.add(name, figure)
    except Exception as error:  # noqa: BLE001 - whatever it is, the next step runs
        traceback.print_exc()
        report.add(name, Figure("failed", type(error).__name__, note=" ".join(str(error).split())[:300]))
        sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--out", type=Path, default=Path("gpu-figures"))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--judge", action="store_true")
    args = parser.parse_args()
    if args.judge:
        report = Report(args.out)
        for figure in agreement.judge_brought_back(args.out):
            report.add("agreement", figure)
        report.write_table()
        return
    sys.exit(0 if run(args.minutes, args.out, args.tiny) else 1)


if __name__ == "__main__":
    main()
