"""The actor that runs on a device. It holds models and does not know what they make. The class also works without Ray."""

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
    """A device's answer to one call.

    receipts: one for each request; None where the call failed.
    error: (class name, message) of the exception; None where the call succeeded.
    seconds: of the work, without load_seconds.
    load_seconds: seconds of building the model; 0.0 where the device held it already.
    memory: bytes that the model needs for its weights and its work, as it states or as measured; None where neither is known.
    """

    receipts: list[Any] | None
    error: tuple[str, str] | None
    seconds: float
    load_seconds: float
    memory: int | None


class Device:
    """The Ray actor of one device. The pool decides which models it holds.

    In each call, `key` names the model, `written` is its packed ModelSpec, and `evict` names the models to remove first.

    Args:
        threads: CPU threads that the models may use; 0 for no limit.
    """

    def __init__(self, threads: int):
        if threads:  # before any model imports torch: logical devices share the machine's cores
            os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
        self.models: dict[str, Any] = {}
        self.weights: dict[str, int] = {}  # bytes that each model's weights took when it was built
        self.gpu_memory = _gpu_memory() if not threads else None

    def describe(self) -> tuple[int, int | None]:
        """Process id, and the bytes of the device's memory; None where the device is no GPU."""
        return os.getpid(), self.gpu_memory

    def prepare(self, key: str, written: bytes, evict: Sequence[str], calls: Sequence[tuple[Any, ...]]) -> bytes:
        """Build the model and call its `prepare` with each tuple of `calls`, so that faults in its files are found now.

        Returns the packed Answer.
        """

        def work(model: Any) -> list[Any]:
            for args in calls:
                model.prepare(*args)
            return []

        return pack(self._answer(key, written, evict, work))

    def run(self, packed: bytes, *values: Any) -> tuple[bytes, Any]:
        """Fill fields of the requests with items of `values`, and generate. Returns the packed Answer, and the list of results.

        Ray stores the two separately (num_returns=2). The driver reads the Answer and passes a reference to the results on.

        Args:
            packed: (key, written, evict, requests, slots). For each value, slots has (number of the request, name of the
                field, index of the item in the value).
            values: lists that Ray fetches from the object store.
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
        began, load_seconds = time.monotonic(), 0.0
        try:
            self._evict(evict)
            if key not in self.models:
                self._build(*unpack(written))
                load_seconds = time.monotonic() - began
            measured = _PeakMemory(self.weights[key])
            receipts = work(self.models[key])
            stated = getattr(self.models[key], "memory_bytes", None)
            seconds = time.monotonic() - began - load_seconds
            return Answer(receipts, error=None, seconds=seconds, load_seconds=load_seconds, memory=stated or measured.needed())
        except Exception as error:  # noqa: BLE001 - the error is sent as text, since not every exception can be pickled
            seconds, said = time.monotonic() - began - load_seconds, (type(error).__name__, str(error))
            return Answer(None, error=said, seconds=seconds, load_seconds=load_seconds, memory=None)

    def _evict(self, keys: Sequence[str]) -> None:
        evicted = [self.models.pop(key, None) for key in keys]
        if any(model is not None for model in evicted):
            evicted.clear()  # drops the last references, so that the memory can be freed
            gc.collect()
            if (cuda := _cuda()) is not None:
                cuda.empty_cache()

    def _build(self, spec: ModelSpec) -> None:
        before = _allocated()
        model = spec.factory(*spec.args)
        if self.gpu_memory and _cuda() is None and (torch := sys.modules.get("torch")) is not None:
            raise RuntimeError(
                f"nvidia-smi lists this device's GPU, but torch {torch.__version__} sees none; install the build of torch for its driver"
            )
        self.models[spec.key], self.weights[spec.key] = model, _allocated() - before


class _PeakMemory:
    """Measures the GPU memory that one call's model needs: its weights, and the peak that the call adds to what was allocated.

    Args:
        weights: bytes of the model's weights.
    """

    def __init__(self, weights: int):
        self.weights, self.before = weights, _allocated()
        if (cuda := _cuda()) is not None:
            cuda.reset_peak_memory_stats()

    def needed(self) -> int | None:
        """Bytes; None without a GPU."""
        cuda = _cuda()
        return self.weights + max(0, cuda.max_memory_allocated() - self.before) if cuda is not None else None


def _cuda() -> Any:
    """torch.cuda, if a model has imported torch and there is a GPU; else None."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None


def _allocated() -> int:
    cuda = _cuda()
    return int(cuda.memory_allocated()) if cuda is not None else 0


def _gpu_memory() -> int | None:
    """Bytes of this device's GPU, or None. nvidia-smi is asked, because importing torch takes seconds and some devices are no GPUs."""
    index = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits", *(["-i", index] if index else [])]
    try:
        mebibytes = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.split()
        return int(mebibytes[0]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
