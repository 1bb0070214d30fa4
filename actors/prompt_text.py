"""Prompts as text: weights such as `(blue eyes:1.3)`, read, taken out or refused. The module imports no torch, so that plan can use it.

The notation is that of the web UI from which most prompts come: `(words)` is 1.1, `[words]` is 1/1.1, `(words:1.3)` says it, brackets
within brackets multiply, and a backslash makes a bracket a plain one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Literal

from .values import ModelError

Weights = Literal["refused", "dropped", "applied"]
EMPHASIS = 1.1  # what a pair of brackets without a number stands for
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
TOKEN = re.compile(rf"\\[()\[\]\\]|:\s*(?P<weight>{NUMBER})\s*\)|[()\[\]]|[^\\()\[\]:]+|[\\:]")
# What is a weight for sure. Single brackets without a number may be a remark, which prose has too.
EXPLICIT = re.compile(rf"\([^()]*:\s*{NUMBER}\s*\)|(?<!\\)\(\([^()]*\)\)|(?<!\\)\[\[[^\[\]]*\]\]")
# Of the same notation, what Tower has other places for. As plain words it would only confuse the picture.
ELSEWHERE = (
    (re.compile(r"<(lora|lyco|hypernet):[^>]*>"), "LoRAs belong to a character (lora:) or to the workflow (loras:)"),
    (re.compile(rf"\[[^\[\]]*:[^\[\]]*:?\s*{NUMBER}\s*\]"), "a prompt that changes between steps is not supported"),
    (re.compile(r"(?<!\\)\[[^\[\]|]*\|[^\[\]]*(?<!\\)\]"), "a prompt that changes between steps is not supported"),
    (re.compile(r"(?<![\w\"'])BREAK(?![\w\"'])"), "chunks are filled in the order of the words, so leave it out"),
)


@dataclass(frozen=True)
class Piece:
    """Words of one weight."""

    text: str
    weight: float = 1.0


def pieces(text: str, weights: Weights) -> tuple[Piece, ...]:
    """The text in pieces of one weight each; where weights are not applied, one piece.

    Raises:
        ModelError: the text has weights and these are refused, or it holds something of the same notation that Tower does not apply.
    """
    for pattern, right in ELSEWHERE:
        if found := pattern.search(text):
            raise ModelError(f"{found[0]!r} in the prompt would be read as plain words: {right}")
    if weights == "refused":
        if found := EXPLICIT.search(text):
            raise ModelError(
                f"{found[0]!r} in the prompt would be read as plain words: set prompt_weights: applied in the workflow, or dropped"
            )
        return (Piece(text),)
    weighted = _weighted(text)
    return weighted if weights == "applied" else (Piece("".join(p.text for p in weighted)),)


def _weighted(text: str) -> tuple[Piece, ...]:
    """A bracket that never closes reaches to the end; one that was never opened is a plain one."""
    words: list[str] = []
    factors: list[float] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}  # for each open bracket, the word that it begins with

    def close(bracket: str, by: float) -> None:
        for i in range(opened[bracket].pop(), len(factors)):
            factors[i] *= by

    for token in TOKEN.finditer(text):
        word = token[0]
        if word in opened:
            opened[word].append(len(words))
        elif token["weight"] and opened["("]:
            close("(", float(token["weight"]))
        elif word == ")" and opened["("]:
            close("(", EMPHASIS)
        elif word == "]" and opened["["]:
            close("[", 1 / EMPHASIS)
        else:
            words.append(word[1:] if len(word) == 2 and word[0] == "\\" else word)
            factors.append(1.0)
    for bracket, by in (("(", EMPHASIS), ("[", 1 / EMPHASIS)):
        while opened[bracket]:
            close(bracket, by)
    runs = groupby(zip(words, factors, strict=True), key=itemgetter(1))
    return tuple(Piece("".join(word for word, _ in run), factor) for factor, run in runs)
