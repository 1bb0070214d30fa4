"""Seconds and arithmetic of a piece of work; a GPU is waited for on both sides of every clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

Work = Callable[[], Any]
Parts = Mapping[str, tuple[Any, str]]  # stage to the owner and the name of the function that does it


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(work: Work) -> float:
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def in_turns(contenders: Mapping[str, Work], runs: int, until: float = float("inf")) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds of each, taken in turns (A B A B), so that a device that slows down does so for all; and of their first calls.

    Args:
        runs: after the first call, which warms up and does not count. until: time.monotonic() after which no further turn begins.
    """
    first = {name: seconds_of(work) for name, work in contenders.items()}
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(runs):
        if turn and time.monotonic() > until:
            break
        for name, work in contenders.items():
            taken[name].append(seconds_of(work))
    return {name: median(s) for name, s in taken.items()}, first


def stages_of(work: Work, parts: Parts) -> dict[str, float]:
    """Seconds inside each part during one call; its whole call, which the waiting makes a little longer, is "whole call"."""
    spent = dict.fromkeys(parts, 0.0)

    def watched(stage: str, original: Work) -> Work:
        def timed(*args: Any, **kwargs: Any) -> Any:
            wait()
            start = time.perf_counter()
            result = original(*args, **kwargs)
            wait()
            spent[stage] += time.perf_counter() - start
            return result

        return timed

    with replaced(parts, watched):
        whole = seconds_of(work)
    return spent | {"whole call": whole}


@contextmanager
def replaced(parts: Parts, wrap: Callable[[str, Work], Work]) -> Iterator[None]:
    """Each part is wrapped for the length of a `with` block."""
    before = {stage: getattr(owner, name) for stage, (owner, name) in parts.items()}
    for stage, (owner, name) in parts.items():
        setattr(owner, name, wrap(stage, before[stage]))
    try:
        yield
    finally:
        for stage, (owner, name) in parts.items():
            setattr(owner, name, before[stage])


def flops_of(work: Work, module: torch.nn.Module) -> tuple[float, float]:
    """Floating-point operations of matrix products, convolutions and attention: of one call, and of its part inside the module."""
    inside = 0.0

    def counted(stage: str, original: Work) -> Work:
        def forward(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            before = counter.get_total_flops()
            result = original(*args, **kwargs)
            inside += counter.get_total_flops() - before
            return result

        return forward

    counter = FlopCounterMode(display=False)
    with counter, replaced({"module": (module, "forward")}, counted):
        work()
    return float(counter.get_total_flops()), float(inside)


def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a large matrix product on random numbers: what this device can do, measured here."""
    n, times = (8192, 10) if device.startswith("cuda") else (1024, 3)
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    a @ b
    return times * 2 * n**3 / seconds_of(lambda: [a @ b for _ in range(times)])
