"""Embeddings (textual inversion): a few vectors that stand for a word of a prompt."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from .values import Embedding, ModelError

# Names of the tensors for the first and the second text encoder. Where a file has a single one, it is for the first.
NAMES = (("clip_l", "emb_params"), ("clip_g",))


def vectors_of(embedding: Embedding, encoder: int, width: int) -> torch.Tensor:
    """The vectors of an embedding for one text encoder, float32 (n, width).

    Args:
        encoder: 0, or 1 for the second encoder of SDXL. width: of the encoder's tokens.

    Raises:
        ModelError: the file cannot be read, or has no vectors of that width for this encoder.
    """
    path = Path(embedding.file)
    try:
        tensors = load_file(path)
    except Exception as error:
        raise ModelError(f"embedding {path} cannot be read: {error}") from error
    found = next((tensors[name] for name in NAMES[encoder] if name in tensors), None)
    if found is None and len(tensors) == 1 and encoder == 0:
        (found,) = tensors.values()
    if found is None or found.shape[-1] != width or found.ndim > 2:
        has = ", ".join(f"{name} {'x'.join(map(str, t.shape))}" for name, t in tensors.items())
        raise ModelError(f"embedding {path} does not fit: text encoder {encoder + 1} reads width {width}, and it has {has}")
    return found.float().reshape(-1, width)
