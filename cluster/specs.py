"""The pool's inputs and outputs: small values, and every error with which a request can end."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # not at run time, since a device works without Ray
    import ray


class DeviceLost(RuntimeError):
    """The device died while it executed this request and nothing else, or the request's input was lost with its node.

    The caller may try again, and should count how often this happens.
    """


class RequestFailed(RuntimeError):
    """The model raised an exception. `kind` is the name of its class."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


class ModelBroken(RuntimeError):
    """This model killed several devices in a row, so the pool sends it no more requests."""


class NothingCanRun(RuntimeError):
    """No device of the cluster could ever run the request. The message names what it needs and what the cluster has."""


class Stopped(RuntimeError):
    """The pool was stopped: it finishes running batches and starts no more."""


@dataclass(frozen=True)
class ModelSpec:
    """A model as the pool knows it: how to build it, what it needs, how many requests it takes at once.

    key: equal keys are the same model.
    factory, args: factory(*args) returns an object with `generate(requests) -> (receipts, results)`; both are lists with
        one item a request.
    batch_size: most requests in one call.
    stage: name of the stage in charts and in Ray's dashboard.
    memory_bytes: estimate of the device memory that the model needs, used until it is measured; None for no estimate.
    labels: (name, selector) pairs that the node's labels must match, as in `Node.suits`.
    result_bytes: size of one result that counts against the limit on the object store; 0 for small results.
    name: what people call it; "" is the key.
    lighter: how the model could do with less memory, for people; "" where nothing is known.
    """

    key: str
    factory: Callable[..., Any]
    args: tuple[Any, ...]
    batch_size: int = 1
    stage: str = ""
    memory_bytes: int | None = None
    labels: tuple[tuple[str, str], ...] = ()
    result_bytes: int = 0
    lighter: str = ""
    name: str = ""

    @property
    def called(self) -> str:
        return self.name or self.key

    @property
    def title(self) -> str:
        """Name of the model's calls in Ray's dashboard. It names no single take, because Ray keeps every name that it ever saw."""
        return f"{self.stage} {self.called.partition('#')[0]}".strip()

    @cached_property
    def written(self) -> bytes:
        """The packed spec. It is packed once, sent with every call, and unpacked only on a device that must build the model."""
        return pack(self)


def pack(*values: Any) -> bytes:
    """Pickle all values into one bytes object. Ray would pickle each argument by itself, in Python, which costs a driver most of
    its time.
    """
    with suppress(pickle.PicklingError, AttributeError, TypeError):
        packed = pickle.dumps(values, pickle.HIGHEST_PROTOCOL)
        if b"__main__" not in packed:
            return packed
    from ray import cloudpickle

    return cloudpickle.dumps(values)  # also packs functions and classes that the other process cannot import


def unpack(packed: bytes) -> Any:
    return pickle.loads(packed)


@dataclass(frozen=True)
class Stored:
    """One item of a list that lies in the object store. The driver holds this reference, and never the value.

    bytes: counts against the limit on the object store, until `Pool.release`.
    """

    ref: ray.ObjectRef
    index: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class PoolOptions:
    """How a pool treats its devices.

    devices: most devices to use; None uses all, including those that join later.
    resident: most models that a device may hold at once; None is as many as fit into its memory.
    device_memory: accelerator type to bytes that models may take; the key "" is for all other types. A type that is not
        given is measured.
    call_seconds: a call that takes longer counts as hanging, and its device is replaced.
    wait_seconds: how long to wait for devices that an autoscaler may bring; 0 where there is no autoscaler.
    """

    devices: int | None = None
    resident: int | None = None
    device_memory: dict[str, int] = field(default_factory=dict)
    call_seconds: float = 3600.0
    wait_seconds: float = 0.0


@dataclass(frozen=True)
class DeviceStats:
    """What one device does now.

    device, node: names for people. up: its actor answers.
    doing: (title, take) of each request that executes: the title as in Ray's dashboard, the take's id or "" where it is for none.
    seconds: for how long they have been executing; None where nothing executes.
    """

    device: str
    node: str
    up: bool
    doing: tuple[tuple[str, str], ...]
    seconds: float | None


@dataclass(frozen=True)
class PoolStats:
    """The pool's present state. Fields that only grow are totals since the pool began."""

    devices: int  # alive now
    busy: int  # of them, executing now
    busy_seconds: float  # of all devices together, only grows
    device_seconds: float  # for which devices were up, of all together, only grows
    waiting: dict[str, int]  # stage to requests that wait for a device
    running: dict[str, int]  # stage to requests that execute now
    frame_bytes: int  # of large results that are being made, or are made and not yet released
    restarts: int  # devices replaced, only grows
    switches: int  # models that were evicted for another, only grows
    switch_seconds: float  # of loading models for which another was evicted, only grows
    paused: bool
    each: tuple[DeviceStats, ...] = ()
