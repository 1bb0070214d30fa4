"""CLIP as Stable Diffusion reads it: tokens in chunks of one window, weights, embeddings in place of words, and the layer that is read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from .prompt_text import Piece
from .values import ModelError


@dataclass(frozen=True)
class Token:
    """A token of a piece of a prompt, which ends `after` so many characters.

    vector: of an embedding, float32 (width,), in place of the one that the encoder has for `id`.
    """

    id: int
    weight: float = 1.0
    vector: torch.Tensor | None = None
    piece: int = 0
    after: int = 0


@dataclass(frozen=True)
class Encoded:
    """What an encoder makes of a text.

    hidden: (chunks x window, width). pooled: (width,) of the first chunk, where the encoder has a projection. blank: (window, width), a
    chunk without words; None where no weight asks for it and texts take one chunk. cut: the end of the text that did not fit.
    """

    hidden: torch.Tensor
    pooled: torch.Tensor | None
    blank: torch.Tensor | None
    cut: str | None


class ClipText:
    """A CLIP tokenizer and text encoder.

    Args:
        window: tokens of a chunk, with its begin and end. chunks: most that a text may take.
        layer: the layer whose output is read, counted from the last, which is 1. normed: whether the last layer's norm is applied to it.
        embeddings: word of a prompt to its vectors (n, width).
    """

    def __init__(
        self, tokenizer: Any, encoder: Any, window: int, chunks: int, layer: int, normed: bool, embeddings: dict[str, torch.Tensor]
    ):
        self.tokenizer, self.encoder, self.window, self.chunks, self.layer, self.normed = tokenizer, encoder, window, chunks, layer, normed
        self.embeddings = {name.lower(): vectors for name, vectors in embeddings.items()}
        for name, vectors in embeddings.items():
            if not 0 < len(vectors) <= window - 2 or not vectors.isfinite().all():
                wanted = f"1 to {window - 2} vectors of numbers are wanted"
                raise ModelError(f"embedding {name} does not fit: {wanted}, and it has {len(vectors)}")
        ends = tokenizer("").input_ids
        if len(ends) != 2:
            raise ModelError(f"its tokenizer begins and ends a text with {len(ends)} tokens, and CLIP's does with 2")
        self.begin, self.end = ends
        names = "|".join(sorted(map(re.escape, self.embeddings), key=len, reverse=True))
        self.names = re.compile(rf"(?<!\w)(?:embedding:)?({names})(?!\w)", re.IGNORECASE) if names else None
        modules = dict(encoder.named_modules())
        self.table = next(module for name, module in modules.items() if name.endswith("token_embedding"))
        self.norm = next(module for name, module in modules.items() if name.endswith("final_layer_norm"))
        layers = encoder.config.num_hidden_layers
        if not 1 <= layer <= layers:
            raise ModelError(f"clip_skip {layer}: its text encoder has {layers} layers")

    def encode(self, pieces: tuple[Piece, ...]) -> Encoded:
        """Encode a text, chunk by chunk.

        A weight moves a token's output away from what the same place holds without words: blank + weight x (output - blank), which
        leaves a weight of 1 as it is. This is how node editors weigh; a rescaled mean, the other common way, changes all tokens.
        """
        units = [unit for i, piece in enumerate(pieces) for unit in self._units(piece, i)]
        chunks, left = self._chunks(units)
        weighted = any(token.weight != 1 for tokens in chunks for token in tokens)
        blank = self._hidden([])[0] if weighted or self.chunks > 1 else None
        outputs = []
        for tokens in chunks:
            hidden, pooled = self._hidden(tokens)
            weights = torch.tensor([1.0, *(t.weight for t in tokens)], device=hidden.device)
            if blank is not None and (weights != 1).any():
                part = slice(0, len(weights))
                hidden[part] = blank[part] + weights[:, None] * (hidden[part] - blank[part])
            outputs.append((hidden, pooled))
        return Encoded(torch.cat([hidden for hidden, _ in outputs]), outputs[0][1], blank, _rest(pieces, left))

    def _units(self, piece: Piece, index: int) -> Iterator[list[Token]]:
        """The piece's tokens. The vectors of an embedding are one unit, which no chunk divides."""
        at = 0
        for found in self.names.finditer(piece.text) if self.names else ():
            yield from self._words(piece, index, at, found.start())
            vectors = self.embeddings[found[1].lower()]
            yield [Token(0, piece.weight, vector, index, found.end()) for vector in vectors]
            at = found.end()
        yield from self._words(piece, index, at, len(piece.text))

    def _words(self, piece: Piece, index: int, first: int, last: int) -> Iterator[list[Token]]:
        if first < last:
            told = self.tokenizer(piece.text[first:last], add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            for token, (_, end) in zip(told.input_ids, told.offset_mapping, strict=True):
                yield [Token(token, piece.weight, None, index, first + end)]

    def _chunks(self, units: list[list[Token]]) -> tuple[list[list[Token]], Token | None]:
        """The tokens of each chunk, one at least; and the last token that fits, where others do not."""
        room, chunks = self.window - 2, [[]]  # type: tuple[int, list[list[Token]]]
        for unit in units:
            if len(chunks[-1]) + len(unit) > room:
                if len(chunks) == self.chunks:
                    return chunks, chunks[-1][-1]
                chunks.append([])
            chunks[-1] += unit
        return chunks, None

    def _hidden(self, tokens: list[Token]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Output of the layer that is read, float32 (window, width), and the pooled output of encoders with a projection."""
        pad = self.tokenizer.pad_token_id
        ids = [self.begin, *(t.id for t in tokens), self.end]
        ids += [pad] * (self.window - len(ids))
        with self._vectors({i: t.vector for i, t in enumerate(tokens, 1) if t.vector is not None}):
            out = self.encoder(torch.tensor([ids], device=self.table.weight.device), output_hidden_states=True)
        if self.layer == 1 and self.normed:
            hidden = out.last_hidden_state
        else:
            hidden = out.hidden_states[-self.layer]
            hidden = self.norm(hidden) if self.normed else hidden
        pooled = getattr(out, "text_embeds", None)
        return hidden[0].float(), None if pooled is None else pooled[0].float()

    @contextmanager
    def _vectors(self, places: dict[int, torch.Tensor]) -> Iterator[None]:
        """Put vectors in place of those that the encoder's table has for the ids at these places. New ids would not do: older encoders
        find the end of a text as its highest id."""

        def put(_module: Any, _given: Any, made: torch.Tensor) -> torch.Tensor:
            for place, vector in places.items():
                made[:, place] = vector.to(made)
            return made

        hook = self.table.register_forward_hook(put)
        try:
            yield
        finally:
            hook.remove()


def _rest(pieces: tuple[Piece, ...], last: Token | None) -> str | None:
    """The text after the last token that fits."""
    if last is None:
        return None
    rest = pieces[last.piece].text[last.after :] + "".join(piece.text for piece in pieces[last.piece + 1 :])
    return rest.strip() or None
