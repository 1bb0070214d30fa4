"""UpscalerModel: a clip made larger and crisper, frame by frame, by a network that spandrel knows."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from .certificate import written
from .loading import best_device, device_name, peak_memory_bytes, reset_peak_memory, to_uint8
from .spandrel_models import load_upscaler
from .tiles import in_tiles
from .upscaler_files import AT_ONCE, check_reduces
from .values import FinishRequest, FinishSettings, Lora, ModelError, ModelFiles, Receipt


class UpscalerModel:
    """A network on a device. It has no noise and reads no text, so equal clips give equal frames.

    Args:
        identity: name of this model in its receipts. files: `checkpoint` is a safetensors file.
        device: such as "cuda" or "cpu"; None chooses. beside: a model of the same files, whose weights this one uses as well.

    Raises:
        ModelError: the file holds no such network, or its scale is another than the settings'.
    """

    def __init__(
        self, identity: str, files: ModelFiles, settings: FinishSettings, device: str | None = None, beside: UpscalerModel | None = None
    ):
        self.identity, self.files, self.settings, self.device = identity, files, settings, device or best_device()
        self.network: Any = beside.network if beside else load_upscaler(Path(files.checkpoint), files.dtype, self.device)
        if self.network.scale != settings.scale:
            made = f"makes pictures {self.network.scale} times as large"
            raise ModelError(f"checkpoint {files.checkpoint} {made}, and the workflow says scale: {settings.scale}")
        self.enlarged(np.zeros((1, 16, 16, 3), np.uint8), replace(settings, width=16, height=16))  # what every clip would meet

    def again(self, identity: str, settings: FinishSettings) -> UpscalerModel:
        """A model for another workflow of the same files, on the same weights."""
        return UpscalerModel(identity, self.files, settings, self.device, self)

    def prepare(self, loras: tuple[Lora, ...]) -> None:
        """There are no LoRAs for it; its constructor has found all that can be found before the first clip."""

    def generate(self, requests: list[FinishRequest]) -> tuple[list[Receipt], list[np.ndarray]]:
        """Make one clip, uint8 RGB (frames, height, width, 3). A few frames at a time are decoded and on the device.

        A call takes exactly one request, since a clip's frames fill a batch.

        Raises:
            ModelError: the clip's frames are of a size that the settings do not fit.
        """
        (request,) = requests
        started = time.monotonic()
        reset_peak_memory()
        settings = replace(self.settings, **dict(request.parameters))
        made = [self.enlarged(np.stack(some), settings) for some in _groups(_decoded(request.clip), AT_ONCE)]
        receipt = Receipt(
            take=request.take,
            model=self.identity,
            seed=request.seed,
            not_finite="" if all(finite for _, finite in made) else "output",
            seconds=time.monotonic() - started,
            peak_memory_bytes=peak_memory_bytes(),
            device=device_name(self.device),
            certificate=written(self._certificate()),
        )
        return [receipt], [np.concatenate([frames for frames, _ in made])]

    @torch.no_grad()
    def enlarged(self, frames: np.ndarray, s: FinishSettings) -> tuple[np.ndarray, bool]:
        """Frames, uint8 RGB (n, h, w, 3), in the settings' size, and whether the network's output was finite."""
        check_reduces((frames.shape[2], frames.shape[1]), s.scale, (s.width, s.height))
        given = torch.from_numpy(frames).to(self.device).movedim(-1, -3).to(self.network.dtype) / 255
        made, finite = to_uint8(in_tiles(self.network, given, s.scale, s.tile, s.tile_overlap))
        return np.stack([_mixed(one, source, s) for one, source in zip(made, frames, strict=True)]), finite

    def _certificate(self) -> dict[str, Any]:
        tensors = self.network.model.state_dict()
        dtype = str(self.network.dtype).removeprefix("torch.")
        part = {"class": type(self.network.model).__name__, "tensors": len(tensors), "dtype": dtype, "scale": self.network.scale}
        return {"parts": {"upscaler": part}}


def _mixed(made: np.ndarray, source: np.ndarray, s: FinishSettings) -> np.ndarray:
    """The network's frame, reduced to the settings' size by Lanczos; below strength 1, mixed with the source that Lanczos enlarges."""
    reduced = _lanczos(made, s)
    if s.strength == 1:
        return reduced
    return (reduced * s.strength + _lanczos(source, s) * (1 - s.strength)).round().astype(np.uint8)


def _lanczos(picture: np.ndarray, s: FinishSettings) -> np.ndarray:
    if picture.shape[:2] == (s.height, s.width):
        return picture
    return np.asarray(Image.fromarray(picture).resize((s.width, s.height), Image.Resampling.LANCZOS))


def _groups(frames: Iterable[np.ndarray], count: int) -> Iterator[list[np.ndarray]]:
    """The frames, so many at a time."""
    rest = iter(frames)
    while group := list(islice(rest, count)):
        yield group


def _decoded(clip: bytes) -> Iterator[np.ndarray]:
    """The frames of a clip that Tower wrote, uint8 RGB (height, width, 3)."""
    import av  # imported only here, so that other models run without PyAV

    with av.open(io.BytesIO(clip), "r") as file:
        for frame in file.decode(video=0):
            yield frame.to_ndarray(format="rgb24")
