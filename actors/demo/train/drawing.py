"""Scenes drawn ahead of the training, by worker processes where there are cores for them."""

from __future__ import annotations

import math
import mmap
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from torch.utils.data import DataLoader, Dataset

WORKERS = 7  # of one column: two columns and their training fill 16 cores


@dataclass(frozen=True)
class Job:
    """`count` items to draw in batches. draw: an item's number to uint8 RGB (frames, height, width, 3), pure and picklable."""

    count: int
    batch: int
    draw: Callable[[int], np.ndarray]


class _Items(Dataset):
    """Draws into memory that the training's process shares: pictures sent to it would hold up its steps."""

    def __init__(self, jobs: Mapping[str, Job], shared: Mapping[str, np.ndarray]):
        self.jobs, self.shared = jobs, shared

    def __getitem__(self, key: tuple[str, int]) -> tuple[str, int]:
        name, number = key
        self.shared[name][number] = self.jobs[name].draw(number)
        return key


def _shared(job: Job) -> np.ndarray:
    """Zeros for all of a job's items, uint8. Anonymous memory, which forks share: a container's /dev/shm may be small."""
    shape = (job.count, *job.draw(0).shape)
    return np.frombuffer(mmap.mmap(-1, math.prod(shape)), np.uint8).reshape(shape)


def workers() -> int:
    """Worker processes for one of two columns; none where the training needs all cores itself."""
    return max(0, min(WORKERS, (len(os.sched_getaffinity(0)) - 2) // 2))


class Drawings:
    """All that a column needs drawn, in the order in which it needs it.

    With worker processes, drawing starts at once and its results wait in memory; without, each batch is drawn when it is taken.
    To be made before anything touches a GPU: workers are forks.
    """

    def __init__(self, jobs: Mapping[str, Job], count_of_workers: int):
        self.jobs, self.stopped = jobs, False
        self.ready: dict[str, queue.Queue[np.ndarray | Exception | None]] = {name: queue.Queue() for name in jobs}
        self.thread: threading.Thread | None = None
        if count_of_workers:
            self.shared = {name: _shared(job) for name, job in jobs.items()}
            batches = [[(name, i) for i in numbers] for name, job in jobs.items() for numbers in _batches(job)]
            loader = DataLoader(
                _Items(jobs, self.shared),
                batch_sampler=batches,
                num_workers=count_of_workers,
                collate_fn=list,
                multiprocessing_context="fork",
            )  # type: ignore[arg-type]
            self.thread = threading.Thread(target=self._fill, args=(iter(loader),), daemon=True)
            self.thread.start()

    def take(self, name: str, until: float) -> Iterator[np.ndarray]:
        """The job's batches, uint8 (items, frames, height, width, 3), until all are there or time.monotonic is `until`; one at least."""
        for batch in self._waiting(name) if self.thread else self._drawn_now(name):
            yield batch
            if time.monotonic() > until:
                return

    def close(self) -> None:
        self.stopped = True
        if self.thread:
            self.thread.join()

    def _drawn_now(self, name: str) -> Iterator[np.ndarray]:
        for numbers in _batches(self.jobs[name]):
            yield np.stack([self.jobs[name].draw(i) for i in numbers])

    def _waiting(self, name: str) -> Iterator[np.ndarray]:
        while (batch := self.ready[name].get()) is not None:
            if isinstance(batch, Exception):
                raise batch
            yield batch

    def _fill(self, batches: Iterator[list[tuple[str, int]]]) -> None:
        """Runs in the thread: workers stop when too many of their batches wait, so somebody must always take them."""
        try:
            before = None
            for keys in batches:
                (name, first), (_, last) = keys[0], keys[-1]
                if before not in (None, name):
                    self.ready[before].put(None)
                self.ready[name].put(self.shared[name][first : last + 1])
                before = name
                if self.stopped:
                    return
            end: Exception | None = None
        except Exception as error:  # noqa: BLE001 - told to whoever waits for the pictures
            end = error
        for waiting in self.ready.values():
            waiting.put(end)


def _batches(job: Job) -> list[range]:
    return [range(i, min(job.count, i + job.batch)) for i in range(0, job.count, job.batch)]
