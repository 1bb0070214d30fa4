"""PromptEncoder: encodes texts with the checkpoint's own tokenizers and text encoders."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import T5EncoderModel

from .certificate import of_modules, written
from .clip_text import ClipText, Encoded
from .embeddings import vectors_of
from .files import check_folder, read_json
from .loading import best_device, dtype_for
from .prompt_text import pieces
from .text_encoders import class_of, load_text_encoder
from .text_loras import TextLoras
from .values import Embedding, Lora, ModelError, ModelFiles, PromptEmbedding, PromptReceipt, PromptRequest, TextSettings

UNTOLD = 10**6  # transformers gives an astronomical length where a tokenizer tells none
PENULTIMATE = 2  # the layer that SDXL's UNet was trained on, of both encoders and without the last layer's norm


class PromptEncoder:
    """Encodes texts for Stable Diffusion (CLIP), SDXL (two CLIPs side by side) and LTX-Video (T5) checkpoints.

    Args:
        files: the checkpoint whose tokenizers and text encoders are used. settings: how texts are encoded.

    Raises:
        ModelError: a text encoder cannot be loaded, or the settings do not fit it.
    """

    def __init__(self, identity: str, files: ModelFiles, settings: TextSettings = TextSettings(), device: str | None = None):
        self.identity, self.settings, self.device = identity, settings, device or best_device()
        folder = check_folder(files.folder, "checkpoint")
        index = read_json(folder / "model_index.json")
        parts = [part for part in ("text_encoder", "text_encoder_2") if (index.get(part) or [None])[0]]
        self.t5 = class_of(folder, parts[0]) is T5EncoderModel
        dtype = dtype_for(files.dtype, self.device, "bfloat16" if self.t5 else "float16")
        loaded = [load_text_encoder(files, part, dtype) for part in parts]
        self.tokenizer, self.encoder = loaded[0][0], loaded[0][1].to(self.device)
        self.max_tokens, window = self._limit(folder.name)
        self.blanks = self.max_tokens > window
        self.clips = [] if self.t5 else [self._clip(i, files.embeddings, loaded, window) for i in range(len(loaded))]
        for e in files.embeddings:
            if len(counts := {len(clip.embeddings[e.word.lower()]) for clip in self.clips}) > 1:
                told = " and ".join(map(str, sorted(counts)))
                raise ModelError(f"embedding {e.file} does not fit: it has {told} vectors for the two text encoders, not as many")
        self.loras = [TextLoras(clip.encoder, i) for i, clip in enumerate(self.clips)]
        self.parts = of_modules({part: encoder for part, (_, encoder) in zip(parts, loaded, strict=True)})
        # SDXL was trained with zeros in place of an empty text.
        self.zeros = len(loaded) == 2 and bool(index.get("force_zeros_for_empty_prompt", True))

    def _limit(self, checkpoint: str) -> tuple[int, int]:
        """Most tokens of a prompt, and of one chunk. Raises ModelError where the encoder cannot read so many, or nothing says how many."""
        wanted = self.settings.max_tokens
        positions = getattr(self.encoder.config, "max_position_embeddings", None)  # T5 has none: its positions are relative
        told = self.tokenizer.model_max_length
        known = told if told < UNTOLD else positions
        if (limit := wanted or known) is None:
            raise ModelError(f"the tokenizer of checkpoint {checkpoint} does not say how long a prompt may be; give max_tokens")
        if positions is None or limit <= positions:
            return limit, limit
        if limit % positions:
            near = f"{positions} or {(limit // positions + 1) * positions}"
            raise ModelError(f"max_tokens {limit}: CLIP of checkpoint {checkpoint} reads {positions} tokens at a time; {near} would do")
        return limit, positions

    def _clip(self, number: int, embeddings: tuple[Embedding, ...], loaded: list[tuple[Any, Any]], window: int) -> ClipText:
        tokenizer, encoder = loaded[number]
        vectors = {e.word: vectors_of(e, number, encoder.config.hidden_size) for e in embeddings}
        layer, normed = (self.settings.clip_skip, True) if len(loaded) == 1 else (PENULTIMATE, False)
        return ClipText(tokenizer, encoder.to(self.device), window, self.max_tokens // window, layer, normed, vectors)

    def generate(self, requests: list[PromptRequest]) -> tuple[list[PromptReceipt], list[PromptEmbedding]]:
        """Receipts and embeddings: one of each for every request."""
        started = time.monotonic()
        embeddings = [self.encode([r.text], r.loras)[0] for r in requests]
        seconds = (time.monotonic() - started) / len(requests)
        receipts = [
            PromptReceipt(self.identity, e.cut, seconds, self.certificate(r.loras)) for r, e in zip(requests, embeddings, strict=True)
        ]
        return receipts, embeddings

    def certificate(self, loras: tuple[Lora, ...]) -> str:
        """What is loaded, how texts are read, and how far each LoRA's change is from what its file says."""
        told = [{"file": Path(x.file).name, "weight": x.weight, "error": max(e.errors[x.file] for e in self.loras)} for x in loras]
        return written({"parts": self.parts, "settings": asdict(self.settings), "loras": told})

    @torch.no_grad()
    def encode(self, texts: list[str], loras: tuple[Lora, ...] = ()) -> list[PromptEmbedding]:
        """One embedding for each text, with the parts of these LoRAs that change the encoder.

        Texts are encoded one by one, so that no embedding depends on its neighbours in a batch.

        Raises:
            ModelError: a LoRA or a text does not fit, or the encoder makes values that are no numbers.
        """
        self.prepare(loras)
        made = [self._t5(text) if self.t5 else self._clips(text) for text in texts]
        if not all(torch.isfinite(torch.from_numpy(one.embeds)).all() for one in made):
            raise ModelError(f"the text encoder of {self.identity.split('#')[0]} makes values that are no numbers; dtype: float32 may help")
        return made

    def prepare(self, loras: tuple[Lora, ...]) -> None:
        """Make exactly these LoRAs active. Raises ModelError where one does not fit."""
        if loras and not self.loras:
            raise ModelError(f"LoRA {loras[0].file} does not fit: it changes a CLIP text encoder, and this checkpoint has another")
        for encoder in self.loras:
            encoder.use(loras)

    def _clips(self, text: str) -> PromptEmbedding:
        """The outputs of all encoders side by side; the pooled one is the last encoder's."""
        encoded = [clip.encode(pieces(text, self.settings.prompt_weights)) for clip in self.clips]
        embeds, pooled = torch.cat([e.hidden for e in encoded], dim=-1), encoded[-1].pooled
        blank = torch.cat([e.blank for e in encoded], dim=-1) if self.blanks else None  # type: ignore[misc]
        if self.zeros and not text.strip():
            embeds, blank, pooled = (None if one is None else one * 0 for one in (embeds, blank, pooled))
        return PromptEmbedding(
            embeds.cpu().numpy(),
            torch.ones(len(embeds), dtype=torch.bool).numpy(),  # Stable Diffusion attends to padding, too
            _cut(encoded),
            pooled.cpu().numpy() if pooled is not None else None,
            blank.cpu().numpy() if blank is not None else None,
        )

    def _t5(self, text: str) -> PromptEmbedding:
        (plain,) = pieces(text, self.settings.prompt_weights)
        inputs = self.tokenizer(
            plain.text,
            padding="max_length",
            max_length=self.max_tokens,
            truncation=True,
            return_tensors="pt",
            return_offsets_mapping=True,
            verbose=False,
        )
        mask = inputs.attention_mask.to(self.device)  # LTX-Video masks the padding
        hidden = self.encoder(inputs.input_ids.to(self.device), attention_mask=mask)[0]
        end = int(inputs.offset_mapping[0].max())  # end of the last character that became a token
        return PromptEmbedding(hidden[0].float().cpu().numpy(), mask[0].bool().cpu().numpy(), plain.text[end:].strip() or None)


def _cut(encoded: list[Encoded]) -> str | None:
    """What the encoder with the least room cut off."""
    return max((e.cut for e in encoded if e.cut), key=len, default=None)
