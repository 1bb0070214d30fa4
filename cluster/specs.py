"""What the pool is told and what it tells: small values, and everything that can go wrong with a request."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a device works without Ray
    import ray


class DeviceLost(RuntimeError):
    """The device died while it was executing this request, and nothing else ran there: try it again, and count it."""


class RequestFailed(RuntimeError):
    """The model raised. `kind` is the exception's class name."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


class ModelBroken(RuntimeError):
    """This model killed device after device; nothing more is sent to it."""


class NothingCanRun(RuntimeError):
    """No device here could ever run this. The sentence names what is asked, and what there is."""


class Stopped(RuntimeError):
    """The pool was told to finish what executes and to begin nothing more."""


@dataclass(frozen=True)
class ModelSpec:
    """A model as the pool knows it: how to build it, what it needs, how many requests it takes at once.

    factory(*args) must give an object with `generate(requests) -> (receipts, results)`, lists of one each.
    stage: for people and their charts. memory_bytes: what it needs of a device, as far as anybody knows before it
    has run there; None where nobody does. labels: what its node's labels must say, as Ray's label selectors have it.
    result_bytes: of one result, where results are so large that they are counted; 0 for the others.
    """

    key: str
    factory: Callable[..., Any]
    args: tuple[Any, ...]
    batch_size: int = 1
    stage: str = ""
    memory_bytes: int | None = None
    labels: tuple[tuple[str, str], ...] = ()
    result_bytes: int = 0

    @property
    def title(self) -> str:
        """What Ray's dashboard calls its work. Never of a single take: Ray counts by name, and keeps every name that it ever saw."""
        return f"{self.stage} {self.key.partition('#')[0]}".strip()

    @cached_property
    def written(self) -> bytes:
        """The spec, packed once: it goes with every call, and is read where the model is not yet built."""
        return pack(self)


def pack(*values: Any) -> bytes:
    """One plain pickle of everything: Ray would pickle each argument by itself, in Python, which costs a driver most of its time."""
    with suppress(pickle.PicklingError, AttributeError, TypeError):
        packed = pickle.dumps(values, pickle.HIGHEST_PROTOCOL)
        if b"__main__" not in packed:
            return packed
    from ray import cloudpickle

    return cloudpickle.dumps(values)  # with functions and classes that no module over there has


def unpack(packed: bytes) -> Any:
    return pickle.loads(packed)


@dataclass(frozen=True)
class Stored:
    """One item of a list that lies in the object store. The driver holds this, never the value."""

    ref: ray.ObjectRef
    index: int = 0
    bytes: int = 0  # as counted, until `Pool.release`


@dataclass(frozen=True)
class PoolOptions:
    """How a pool treats its devices.

    devices: at most so many; None is all there are, also those that join later.
    resident: models that a device may hold at once; None is as many as its memory takes.
    device_memory: accelerator type to bytes that models may take ("" is every other); measured where it is not told.
    call_seconds: a call that takes longer hangs; its device is replaced.
    wait_seconds: for devices that an autoscaler may bring; 0 where there is none.
    """

    devices: int | None = None
    resident: int | None = None
    device_memory: dict[str, int] = field(default_factory=dict)
    call_seconds: float = 3600.0
    wait_seconds: float = 0.0


@dataclass(frozen=True)
class PoolStats:
    """How things stand. Those that only grow are totals since the pool began."""

    devices: int  # alive now
    busy: int  # of them, executing now
    busy_seconds: float  # of all devices together, only grows
    device_seconds: float  # of their lifetimes together, only grows
    waiting: dict[str, int]  # stage to requests that wait for a device
    running: dict[str, int]  # stage to requests that execute now
    frame_bytes: int  # of results that are being made, or made and not yet released
    restarts: int  # devices replaced, only grows
    switches: int  # models that had to make room for another, only grows
    switch_seconds: float  # of loading models where another had to go, only grows
    paused: bool
