"""Tokenizers and text encoders of the demo checkpoints, and the warm-up that teaches them the words.

Both tokenizers are built from the captions' words and the English alphabet, so any other text still
becomes tokens; they are real CLIP and T5 tokenizers, saved and loaded the usual way.
"""

from __future__ import annotations

import json
import random
from collections import Counter

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

from . import scenes
from .optimiser import for_modules
from .progress import Budget
from .recipe import Recipe

CLIP_TOKENS, T5_TOKENS = 40, 64
NULL_CAPTION = 0.1  # share of captions dropped, for classifier-free guidance
WORDINGS = 6  # that a clip's caption is met in
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


def clip_encoder(recipe: Recipe, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.text_width,
            intermediate_size=4 * recipe.text_width,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CLIP_TOKENS,
            projection_dim=recipe.text_width,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )


def t5_encoder(recipe: Recipe, tokenizer: T5TokenizerFast) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=recipe.text_width,
            d_kv=recipe.text_width // 4,
            d_ff=4 * recipe.text_width,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            pad_token_id=0,
            eos_token_id=1,
            tie_word_embeddings=False,
        )
    )


class Captions:
    """Tokenised captions on a device, so that a training step has no text to handle.

    Args:
        wordings: each scene's caption in equally many wordings.
        cut: leave out the columns that are padding in all of them; for encoders whose padding is masked.
    """

    def __init__(self, tokenizer, length: int, wordings: list[list[str]], device: torch.device, cut: bool = False):
        texts = ["", *(text for scene in wordings for text in scene)]
        tokens = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        used = int(tokens.attention_mask.sum(1).max()) if cut else length
        ids, mask = tokens.input_ids[:, :used].to(device), tokens.attention_mask[:, :used].to(device)
        self.none = ids[0], mask[0]
        self.ids, self.mask = (x[1:].unflatten(0, (len(wordings), -1)) for x in (ids, mask))

    def pick(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask (rows, tokens) of one wording of each row's caption, or of no caption now and then."""
        wording = torch.randint(self.ids.shape[1], rows.shape, device=rows.device)
        dropped = (torch.rand(rows.shape, device=rows.device) < NULL_CAPTION)[:, None]
        ids, mask = self.ids[rows, wording], self.mask[rows, wording]
        return torch.where(dropped, self.none[0], ids), torch.where(dropped, self.none[1], mask)


def wordings(count: int) -> list[list[str]]:
    """Captions of the first scenes, WORDINGS each."""
    first = (scenes.sample(i) for i in range(count))
    return [[scenes.caption(scene, random.Random(f"wording-{scene.seed}-{k}")) for k in range(WORDINGS)] for scene in first]


ATTRIBUTES = ("time", "place", "coat", "hair", "framing", "motion")


class AttributeProbe(nn.Module):
    """Reads every attribute of the caption off the encoder's tokens: only used to warm the encoder up."""

    CHOICES = (scenes.TIMES, scenes.PLACES, scenes.COATS, scenes.HAIRS, scenes.FRAMINGS, scenes.MOTIONS)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(self.CHOICES), width) * 0.1)
        self.heads = nn.ModuleList(nn.Linear(width, len(c)) for c in self.CHOICES)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
        weights = torch.einsum("qd,btd->bqt", self.queries, hidden).masked_fill(~mask[:, None].bool(), -1e4).softmax(-1)
        pooled = torch.einsum("bqt,btd->bqd", weights, hidden)
        return [head(pooled[:, i]) for i, head in enumerate(self.heads)]


def warm_up(encoder: nn.Module, tokenizer, length: int, budget: Budget, device: torch.device) -> None:
    """Train encoder and probe to name the attributes of full captions."""
    probe = AttributeProbe(encoder.config.hidden_size).to(device)
    optimiser = for_modules([encoder, probe], ends=("heads", "queries"), lr=0.01, adam_lr=1e-3)
    for step in budget:
        batch = [scenes.sample(step * 32 + i) for i in range(32)]
        texts = [scenes.caption(s) for s in batch]
        tokens = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        ids, mask = (x.to(device, non_blocking=True) for x in (tokens.input_ids, tokens.attention_mask))
        named = [[choices.index(getattr(s, key)) for choices, key in zip(probe.CHOICES, ATTRIBUTES, strict=True)] for s in batch]
        wanted = torch.tensor(named).to(device, non_blocking=True)
        answers = probe(encoder(ids, attention_mask=mask)[0], mask)
        losses = [nn.functional.cross_entropy(logits, wanted[:, i]) for i, logits in enumerate(answers)]
        loss = torch.stack(losses).sum()
        loss.backward()
        optimiser.step()
        budget.note(loss=loss)
