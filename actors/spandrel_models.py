"""Networks that make pictures larger, through spandrel, which tells some forty architectures by the names and shapes of their weights."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from .files import in_one_line
from .headers import Header
from .values import ModelError

CHANNELS = 3
MOST_NUMBERS = 200_000_000  # of a network that is built only to see what it is; published upscalers have up to 40 million
TORCHVISION = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")


@cache
def spandrel() -> ModuleType:
    """The library, imported once.

    Raises:
        ModelError: it is not installed, or cannot be imported.
    """
    try:
        with _without_torchvision():
            return importlib.import_module("spandrel")
    except ImportError as error:
        raise ModelError(f"spandrel, which reads upscalers, cannot be imported: {in_one_line(error)}; `make` installs it") from error


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """Let spandrel be imported where torchvision is not installed, or does not fit this torch.

    Two of its architectures, LaMa and RestoreFormer, import three names of torchvision. They mend pictures and make none larger, so the
    names are never called. Afterwards the stand-in is taken out, or other libraries would think that torchvision is here.
    """
    try:
        importlib.import_module(TORCHVISION[-1])
    except Exception:  # noqa: BLE001 - beside another build of torch it fails with errors of many kinds
        before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "torchvision"}
        stand_in = {name: ModuleType(name) for name in TORCHVISION}
        for name in ("InterpolationMode", "rotate", "normalize"):
            setattr(stand_in[TORCHVISION[-1]], name, None)
        sys.modules.update(stand_in)
        try:
            yield
        finally:
            for name in TORCHVISION:
                del sys.modules[name]
            sys.modules.update(before)
    else:
        yield


def load_upscaler(file: Path, dtype: str, device: str) -> Any:
    """spandrel's descriptor of the network in a safetensors file. Called with float 0..1 (n, 3, h, w), it gives (n, 3, h*scale, w*scale).

    Args:
        dtype: name of a torch type; "auto" is float32 on a CPU, and on a GPU float16 where the network can run in it.

    Raises:
        ModelError: the file holds no network that makes pictures larger, or that cannot run in the dtype.
    """
    library = spandrel()
    try:
        network = library.ModelLoader(device).load_from_file(file)
    except Exception as error:
        raise ModelError(f"checkpoint {file} cannot be loaded as an upscaler: {in_one_line(error)}") from error
    if why := _unfit(network):
        raise ModelError(f"checkpoint {file} {why}")
    half = network.supports_half and device.startswith("cuda")
    wanted = ("float16" if half else "float32") if dtype == "auto" else dtype
    try:
        network.to(device, getattr(torch, wanted))
    except library.UnsupportedDtypeError as error:
        raise ModelError(f"checkpoint {file}, a {network.architecture.name}, cannot run in {wanted}") from error
    network.model.to(memory_format=torch.channels_last)  # as frames lie in memory: 1.5 times as fast on a CPU
    return network.eval()


def told_by_spandrel(header: Header) -> tuple[str, int, str] | None:
    """Architecture, scale, and why it cannot be used ("" where it can), by names and shapes alone; None for what spandrel does not know."""
    library = spandrel()
    small = sum(tensor.parameters for tensor in header.tensors.values()) < MOST_NUMBERS
    # "meta" holds no numbers and is quick, but some architectures compute with numbers while they are built.
    for place in ("meta", "cpu") if small else ("meta",):
        try:
            with torch.device(place):
                shapes = {name: torch.zeros(tensor.shape) for name, tensor in header.tensors.items()}
                network = library.MAIN_REGISTRY.load(library.canonicalize_state_dict(shapes))
        except library.UnsupportedModelError:
            return None
        except Exception:  # noqa: BLE001 - as above
            continue
        return network.architecture.name, network.scale, _unfit(network)
    return None


def _unfit(network: Any) -> str:
    """Why the network makes no colour picture of another colour picture alone; "" where it does."""
    kind = network.architecture.name
    if not isinstance(network, spandrel().ImageModelDescriptor) or network.purpose not in ("SR", "Restoration"):
        return f"is a {kind}, which is for {network.purpose} and makes no frames larger"
    if (network.input_channels, network.output_channels) != (CHANNELS, CHANNELS):
        return f"is a {kind} of {network.input_channels} channels to {network.output_channels}; one of colour pictures has 3 and 3"
    return ""
