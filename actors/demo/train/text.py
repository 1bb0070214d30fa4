"""Tokenizers and text encoders of the demo checkpoints, and the warm-up that teaches them the words.

Both tokenizers are built from the captions' words and the English alphabet, so any other text still
becomes tokens; they are real CLIP and T5 tokenizers, saved and loaded the usual way.
"""

from __future__ import annotations

import random
from collections import Counter

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

from . import scenes
from .optimiser import for_modules
from .progress import Budget

CLIP_TOKENS, T5_TOKENS, WIDTH = 40, 64, 128
EXTRA_WORDS = (
    "the of with on and an her his she boy hair wind snow rain street beach sky cloud sun moon "
    "low quality blurry static ugly walks runs looks smile"
)


def captions(count: int = 4000) -> list[str]:
    return [scenes.caption(scenes.sample(i), random.Random(i)) for i in range(count)]


def clip_tokenizer() -> CLIPTokenizer:
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=2000, min_frequency=2, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    trained.train_from_iterator([*captions(), *(EXTRA_WORDS.split() * 20)], trainer)
    import json

    model = json.loads(trained.to_str())["model"]
    vocab: dict[str, int] = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    for token in [*alphabet, *(c + "</w>" for c in alphabet), *sorted(model["vocab"], key=model["vocab"].get)]:
        vocab.setdefault(token, len(vocab))
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split()) for m in model["merges"]]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=CLIP_TOKENS)


def t5_tokenizer() -> T5TokenizerFast:
    counts = Counter(word for text in [*captions(), *(EXTRA_WORDS.split() * 5)] for word in text.split())
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [("▁" + word, -3.0 - 0.001 * rank) for rank, (word, _) in enumerate(counts.most_common())]
    pieces += [("▁", -8.0), *((chr(c), -9.0) for c in range(33, 127))]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=T5_TOKENS)


def clip_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CLIP_TOKENS,
            projection_dim=WIDTH,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )


def t5_encoder(tokenizer: T5TokenizerFast) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=WIDTH,
            d_kv=32,
            d_ff=4 * WIDTH,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            pad_token_id=0,
            eos_token_id=1,
            tie_word_embeddings=False,
        )
    )


class AttributeProbe(nn.Module):
    """Reads every attribute of the caption off the encoder's tokens: only used to warm the encoder up."""

    CHOICES = (scenes.TIMES, scenes.PLACES, scenes.COATS, scenes.HAIRS, scenes.FRAMINGS, scenes.MOTIONS)

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(self.CHOICES), WIDTH) * 0.1)
        self.heads = nn.ModuleList(nn.Linear(WIDTH, len(c)) for c in self.CHOICES)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
        weights = torch.einsum("qd,btd->bqt", self.queries, hidden).masked_fill(~mask[:, None].bool(), -1e4).softmax(-1)
        pooled = torch.einsum("bqt,btd->bqd", weights, hidden)
        return [head(pooled[:, i]) for i, head in enumerate(self.heads)]


def warm_up(encoder: nn.Module, tokenizer, length: int, budget: Budget) -> None:
    """Train encoder and probe to name the attributes of full captions."""
    probe = AttributeProbe()
    optimiser = for_modules([encoder, probe], ends=("heads", "queries"), lr=0.01, adam_lr=1e-3)
    for step in budget:
        batch = [scenes.sample(step * 32 + i) for i in range(32)]
        tokens = tokenizer(
            [scenes.caption(s) for s in batch], padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        hidden = encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
        loss = torch.zeros(())
        for logits, choices, key in zip(
            probe(hidden, tokens.attention_mask), probe.CHOICES, ("time", "place", "coat", "hair", "framing", "motion"), strict=False
        ):
            loss = loss + nn.functional.cross_entropy(logits, torch.tensor([choices.index(getattr(s, key)) for s in batch]))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        budget.note(loss=loss.item())
