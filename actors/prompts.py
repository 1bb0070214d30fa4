"""PromptEncoder: encodes texts with the checkpoint's own tokenizer and text encoder."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel

from .files import check_folder, in_one_line
from .folders import variant_of
from .loading import best_device, dtype_for
from .single_file import load_text_encoder
from .text_loras import TextLoras
from .values import Lora, ModelError, ModelFiles, PromptEmbedding, PromptReceipt, PromptRequest

UNTOLD = 10**6  # transformers gives an astronomical length where a tokenizer tells none


class PromptEncoder:
    """Encodes texts for Stable Diffusion (CLIP) and for LTX-Video (T5) checkpoints.

    Args:
        files: the checkpoint whose `tokenizer` and `text_encoder` folders are used.
        max_tokens: most tokens of a prompt; the rest of a longer prompt is cut off and reported. None is the
            tokenizer's own limit.

    Raises:
        ModelError: the text encoder cannot be loaded, or lacks tensors.
    """

    def __init__(self, identity: str, files: ModelFiles, max_tokens: int | None = None, device: str | None = None):
        self.identity, self.device = identity, device or best_device()
        folder = check_folder(files.folder, "checkpoint")
        kind = CLIPTextModel if "CLIP" in (folder / "text_encoder" / "config.json").read_text() else T5EncoderModel
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
            dtype = dtype_for(files.dtype, self.device, "bfloat16" if kind is T5EncoderModel else "float16")
            if files.base and kind is CLIPTextModel:  # T5 is never in a checkpoint's file
                encoder, found = load_text_encoder(Path(files.checkpoint), folder, dtype)
            else:
                how: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "variant": variant_of(folder)}
                encoder, found = kind.from_pretrained(folder / "text_encoder", dtype=dtype, output_loading_info=True, **how)
            self.encoder = encoder.eval().to(self.device)  # eval: T5's dropout would make each call's embeddings different
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelError(f"text encoder of checkpoint {Path(folder).name} cannot be loaded: {in_one_line(error)}") from error
        missing = sorted(found["missing_keys"])
        if missing:  # transformers would fill them with random numbers
            raise ModelError(f"text encoder of checkpoint {Path(files.checkpoint).name} lacks {len(missing)} tensors, such as {missing[0]}")
        self.masked = kind is T5EncoderModel  # Stable Diffusion attends to the padding tokens, and LTX-Video masks them
        self.loras = None if self.masked else TextLoras(self.encoder)
        self.max_tokens = self._limit(max_tokens, folder.name)

    def _limit(self, wanted: int | None, checkpoint: str) -> int:
        """Most tokens of a prompt. Raises ModelError where the encoder has not as many positions, or nothing says how many."""
        positions = getattr(self.encoder.config, "max_position_embeddings", None)  # T5 has none: its positions are relative
        told = self.tokenizer.model_max_length
        known = told if told < UNTOLD else positions
        if (limit := wanted or known) is None:
            raise ModelError(f"the tokenizer of checkpoint {checkpoint} does not say how long a prompt may be; give max_tokens")
        if positions is not None and limit > positions:
            raise ModelError(f"max_tokens {limit}: the text encoder of checkpoint {checkpoint} has {positions} positions")
        return limit

    def generate(self, requests: list[PromptRequest]) -> tuple[list[PromptReceipt], list[PromptEmbedding]]:
        """Receipts and embeddings: one of each for every request."""
        started = time.monotonic()
        embeddings = [self.encode([r.text], r.loras)[0] for r in requests]
        seconds = (time.monotonic() - started) / len(requests)
        return [PromptReceipt(self.identity, e.cut, seconds) for e in embeddings], embeddings

    @torch.no_grad()
    def encode(self, texts: list[str], loras: tuple[Lora, ...] = ()) -> list[PromptEmbedding]:
        """One embedding for each text, with the parts of these LoRAs that change the encoder.

        Texts are encoded one by one, so that no embedding depends on its neighbours in a batch.
        """
        self.prepare(loras)
        return [self._encode(text) for text in texts]

    def prepare(self, loras: tuple[Lora, ...]) -> None:
        """Make exactly these LoRAs active. Raises ModelError where one does not fit."""
        if self.loras is not None:
            self.loras.use(loras)
        elif loras:
            raise ModelError(f"LoRA {loras[0].file} does not fit: it changes a CLIP text encoder, and this checkpoint has another")

    def _encode(self, text: str) -> PromptEmbedding:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inputs = self.tokenizer(
                text, padding="max_length", max_length=self.max_tokens, truncation=True, return_tensors="pt", return_offsets_mapping=True
            )
        mask = inputs.attention_mask.to(self.device)
        hidden = self.encoder(inputs.input_ids.to(self.device), attention_mask=mask if self.masked else None)[0]
        return PromptEmbedding(hidden[0].float().cpu().numpy(), mask[0].bool().cpu().numpy(), self._cut(text, inputs.offset_mapping[0]))

    def _cut(self, text: str, offsets: torch.Tensor) -> str | None:
        end = int(offsets.max())  # end of the last character that became a token
        return text[end:].strip() or None
