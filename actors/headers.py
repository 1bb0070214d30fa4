"""Reads the headers of model files: names, types and shapes of tensors. No weights are read, so size does not matter."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .values import ModelError

LONGEST = 100_000_000  # bytes of a safetensors header, as the format's own reader allows
BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2}  # of one number, of the types that an alpha may have
SCALARS = {"F32": "<f", "F64": "<d", "F16": "<e", "I32": "<i", "I64": "<q"}
GGUF_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of the numbers of GGUF's metadata, by type


@dataclass(frozen=True)
class Tensor:
    """dtype: as safetensors names it, such as "F16". begin: byte in the file at which the values start."""

    dtype: str
    shape: tuple[int, ...]
    begin: int = 0

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """format: "safetensors" or "gguf". metadata: what the writer of the file said of it."""

    path: Path
    format: str
    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    def scalar(self, name: str) -> float:
        """The value of a tensor that holds one number, such as a LoRA's alpha."""
        tensor = self.tensors[name]
        if tensor.parameters != 1 or tensor.dtype not in BYTES:
            raise ModelError(f"{self.path}: {name} is no number")
        with self.path.open("rb") as file:
            file.seek(tensor.begin)
            raw = file.read(BYTES[tensor.dtype])
        if tensor.dtype == "BF16":  # the upper half of a float32
            return struct.unpack("<f", b"\0\0" + raw)[0]
        return float(struct.unpack(SCALARS[tensor.dtype], raw)[0])


def read_header(path: Path) -> Header:
    """The header of a safetensors or GGUF file.

    Raises:
        ModelError: the file is missing, of another format, or not whole.
    """
    try:
        with path.open("rb") as file:
            start, size = file.read(9), path.stat().st_size
            length = int.from_bytes(start[:8], "little")
            if start[8:] == b"{" and length <= min(LONGEST, size - 8):
                file.seek(8)
                return _safetensors(path, json.loads(file.read(length)), 8 + length, size)
            if start[:4] == b"GGUF":
                return _gguf(path, file)
            if start[:2] == b"PK" or (start[:1] == b"\x80" and start[1:2] <= b"\x05"):
                raise ModelError(f"{path} is a pickle, which is a program and not data; Tower loads safetensors only, so convert it")
            raise ModelError(f"{path} is no model file that Tower knows: neither safetensors nor GGUF, or it is cut off")
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path} is no whole model file: its header cannot be read") from error


def prediction_of(header: Header) -> dict[str, Any]:
    """What a checkpoint's file says of its noise, by marker tensors or metadata: settings of a scheduler, in place of the base folder's."""
    told: dict[str, Any] = {}
    spec = {"v": "v_prediction", "epsilon": "epsilon"}.get(header.metadata.get("modelspec.prediction_type", ""))
    if "v_pred" in header.tensors or spec == "v_prediction":
        told["prediction_type"] = "v_prediction"
    elif spec:
        told["prediction_type"] = spec
    if "ztsnr" in header.tensors:
        told |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return told


def _safetensors(path: Path, told: dict[str, Any], begin: int, size: int) -> Header:
    metadata = {str(k): str(v) for k, v in (told.pop("__metadata__", None) or {}).items()}
    tensors, end = {}, begin
    for name, of in told.items():
        first, last = of["data_offsets"]
        tensors[name] = Tensor(of["dtype"], tuple(int(n) for n in of["shape"]), begin + first)
        end = max(end, begin + last)
    if end != size:
        raise ModelError(f"{path} is not whole: its header promises {end:,} bytes, and it has {size:,}")
    return Header(path, "safetensors", tensors, metadata)


def _gguf(path: Path, file: BinaryIO) -> Header:
    """GGUF's header: little-endian, strings with their length before them (the specification of ggml, docs/gguf.md)."""
    file.seek(8)
    count, pairs = struct.unpack("<QQ", file.read(16))
    metadata = {}
    for _ in range(pairs):
        name, kind = _gguf_text(file), struct.unpack("<I", file.read(4))[0]
        metadata[name] = _gguf_value(file, kind)
    tensors = {}
    for _ in range(count):
        name, dims = _gguf_text(file), struct.unpack("<I", file.read(4))[0]
        shape = struct.unpack(f"<{dims}Q", file.read(8 * dims))[::-1]
        kind, _offset = struct.unpack("<IQ", file.read(12))
        tensors[name] = Tensor(f"GGUF type {kind}", tuple(shape))
    return Header(path, "gguf", tensors, metadata)


def _gguf_text(file: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > LONGEST:
        raise ValueError(length)
    return file.read(length).decode()


def _gguf_value(file: BinaryIO, kind: int) -> str:
    if kind == 8:
        return _gguf_text(file)
    if kind == 9:
        of, count = struct.unpack("<IQ", file.read(12))
        for _ in range(count):
            _gguf_value(file, of)
        return f"{count} values"
    raw = file.read(GGUF_SIZES[kind])
    return str(struct.unpack({6: "<f", 12: "<d"}.get(kind, f"<{ {1: 'B', 2: 'H', 4: 'I', 8: 'Q'}[len(raw)] }"), raw)[0])
