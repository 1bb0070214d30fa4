"""What runs on a device: the actor, which holds models and does not know what they make. It works without Ray too."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .specs import ModelSpec, pack, unpack


@dataclass(frozen=True)
class Answer:
    """What a device says of one call. receipts: where all went well; error: (class name, message) where it did not.

    seconds: of the work. load_seconds: of building the model, 0.0 where it was there. memory: bytes that the model
    was measured to need, its weights and its work; None on a device that cannot tell.
    """

    receipts: list[Any] | None
    error: tuple[str, str] | None
    seconds: float
    load_seconds: float
    memory: int | None


class Device:
    """The Ray actor. The pool says what it holds: `evict` names models that must go before this call's is built."""

    def __init__(self, threads: int):
        if threads:  # before any model imports torch: logical devices share the machine's cores
            os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
        self.models: dict[str, Any] = {}
        self.weights: dict[str, int] = {}  # measured when they were built

    def describe(self) -> tuple[int, int | None]:
        """Process id, and the bytes of the device's memory; None where it is no GPU."""
        return os.getpid(), _gpu_memory()

    def prepare(self, key: str, written: bytes, evict: Sequence[str], calls: Sequence[tuple[Any, ...]]) -> bytes:
        """Build the model, and call its `prepare` with each of `calls`: whatever is wrong with its files is told now."""

        def work(model: Any) -> list[Any]:
            for args in calls:
                model.prepare(*args)
            return []

        return pack(self._answer(key, written, evict, work))

    def run(self, packed: bytes, *values: Any) -> tuple[bytes, Any]:
        """Fill each request's slots with items of the resolved values, and generate; gives its packed Answer, and the results.

        To Ray these are two results: the pool reads the one, and hands on the other unread.

        Args:
            packed: the model's key and its packed spec, what to evict, the requests, and for each value (request, field, index).
        """
        key, written, evict, requests, slots = unpack(packed)
        made: list[Any] = []

        def work(model: Any) -> list[Any]:
            filled: list[dict[str, Any]] = [{} for _ in requests]
            for (request, name, index), value in zip(slots, values, strict=True):
                filled[request][name] = value[index]
            receipts, results = model.generate([replace(r, **f) if f else r for r, f in zip(requests, filled, strict=True)])
            if not len(receipts) == len(results) == len(requests):
                raise ValueError(f"{key} gave {len(results)} results for {len(requests)} requests")
            made.append(results)
            return receipts

        answer = self._answer(key, written, evict, work)
        return pack(answer), made[0] if made else None

    def _answer(self, key: str, written: bytes, evict: Sequence[str], work: Callable[[Any], list[Any]]) -> Answer:
        began, loaded = time.monotonic(), 0.0
        try:
            self._evict(evict)
            if key not in self.models:
                self._build(*unpack(written))
                loaded = time.monotonic() - began
            memory = _PeakMemory(self.weights[key])
            receipts = work(self.models[key])
            told = getattr(self.models[key], "memory_bytes", None)
            return Answer(receipts, None, time.monotonic() - began - loaded, loaded, told or memory.needed())
        except Exception as error:  # noqa: BLE001 - travels as data: not every exception survives pickling
            return Answer(None, (type(error).__name__, str(error)), time.monotonic() - began - loaded, loaded, None)

    def _evict(self, keys: Sequence[str]) -> None:
        gone = [self.models.pop(key, None) for key in keys]
        if any(model is not None for model in gone):
            gone.clear()
            gc.collect()
            if (cuda := _cuda()) is not None:
                cuda.empty_cache()

    def _build(self, spec: ModelSpec) -> None:
        before = _allocated()
        self.models[spec.key] = spec.factory(*spec.args)
        self.weights[spec.key] = _allocated() - before


class _PeakMemory:
    """What a call needs beside what lay on the device before it."""

    def __init__(self, weights: int):
        self.weights, self.before = weights, _allocated()
        if (cuda := _cuda()) is not None:
            cuda.reset_peak_memory_stats()

    def needed(self) -> int | None:
        cuda = _cuda()
        return self.weights + max(0, cuda.max_memory_allocated() - self.before) if cuda is not None else None


def _cuda() -> Any:
    """torch.cuda, where a model has brought torch and there is a GPU."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None


def _allocated() -> int:
    cuda = _cuda()
    return int(cuda.memory_allocated()) if cuda is not None else 0


def _gpu_memory() -> int | None:
    """Asked of the driver: torch would take seconds to import, and logical devices are no GPUs."""
    index = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits", *(["-i", index] if index else [])]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.split()
        return int(told[0]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
