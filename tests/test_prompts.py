"""Prompts as people write them: weights, embeddings, more than one window of CLIP, and the layer that is read; each against a reference by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

from actors.animatediff import AnimateDiffModel
from actors.keyframe import KeyframeModel
from actors.prompt_text import pieces
from actors.prompts import PromptEncoder
from actors.values import ClipRequest, ClipSettings, Embedding, KeyframeRequest, ModelError, ModelFiles, PromptEmbedding, TextSettings
from pipeline.story.workflow import WORKFLOWS

from . import tiny_xl
from .conftest import EPISODE, refused
from .test_actors import ANIMATE, HANA, LTX, SD, STILLS

LONG = ", ".join([HANA] * 3)
PIECES = [
    ("a (b:1.3) c", [("a ", 1), ("b", 1.3), (" c", 1)]),
    ("((x))", [("x", 1.21)]),
    ("[y] (a (b:2) c)", [("y", 1 / 1.1), (" ", 1), ("a ", 1.1), ("b", 2.2), (" c", 1.1)]),
    (r"\(plain\) and \[this\]", [("(plain) and [this]", 1)]),
    ("a (open", [("a ", 1), ("open", 1.1)]),
    ("at 10:30 :) (re: zero:1.2)", [("at 10:30 :) ", 1), ("re: zero", 1.2)]),
    ("(a:-0.5)", [("a", -0.5)]),
    (r"\[a|b\] TEABREAK, a sign 'BREAK'", [("[a|b] TEABREAK, a sign 'BREAK'", 1)]),
    ("", []),
]


@pytest.mark.parametrize(("text", "wanted"), PIECES)
def test_weights_are_read_as_the_web_uis_write_them(text, wanted):
    assert [(p.text, pytest.approx(p.weight)) for p in pieces(text, "applied")] == wanted
    assert "".join(p.text for p in pieces(text, "dropped")) == "".join(words for words, _ in wanted)


def by_hand(encoder: PromptEncoder, ids: list[int], layer: int = 1) -> torch.Tensor:
    """Output of one window of the encoder, with nothing of Tower's."""
    clip = encoder.clips[0]
    ids = [clip.begin, *ids, clip.end]
    ids += [encoder.tokenizer.pad_token_id] * (40 - len(ids))
    out = encoder.encoder(torch.tensor([ids]), output_hidden_states=True)
    norm = next(module for name, module in encoder.encoder.named_modules() if name.endswith("final_layer_norm"))
    return (out.last_hidden_state if layer == 1 else norm(out.hidden_states[-layer]))[0].detach()


def ids_of(encoder: PromptEncoder, text: str) -> list[int]:
    return encoder.tokenizer(text, add_special_tokens=False).input_ids


def test_a_weight_moves_its_words_away_from_the_blank_and_leaves_the_others():
    encoder = PromptEncoder("t", SD, TextSettings(prompt_weights="applied"))
    first, second = ids_of(encoder, "a girl with"), ids_of(encoder, "pink hair")
    plain, blank = by_hand(encoder, first + second), by_hand(encoder, [])
    wanted = plain.clone()
    part = slice(1 + len(first), 1 + len(first) + len(second))
    wanted[part] = blank[part] + 1.4 * (plain[part] - blank[part])
    made = encoder.encode(["a girl with (pink hair:1.4)"])[0].embeds
    assert np.allclose(made, wanted, atol=1e-5) and not np.allclose(made, plain, atol=1e-2)
    assert np.array_equal(encoder.encode(["a girl with (pink hair:1.0)"])[0].embeds, plain)


def test_weights_that_a_workflow_does_not_apply_are_refused_or_taken_out_and_never_read_as_words():
    for files in (SD, LTX):
        tokens = 64 if files is LTX else None
        with pytest.raises(ModelError, match=r"'\(pink hair:1.4\)' in the prompt would be read as plain words: set prompt_weights"):
            PromptEncoder("t", files, TextSettings(tokens)).encode(["a girl with (pink hair:1.4)"])
        dropped = PromptEncoder("t", files, TextSettings(tokens, prompt_weights="dropped"))
        texts = dropped.encode(["a girl with (pink hair:1.4)", "a girl with pink hair"])
        assert np.array_equal(texts[0].embeds, texts[1].embeds)


@pytest.mark.parametrize("skip", [1, 2])
def test_clip_skip_reads_the_layer_before_with_the_last_ones_norm(skip):
    encoder = PromptEncoder("t", SD, TextSettings(clip_skip=skip))
    assert np.allclose(encoder.encode([HANA])[0].embeds, by_hand(encoder, ids_of(encoder, HANA), skip), atol=1e-6)
    assert not np.allclose(by_hand(encoder, ids_of(encoder, HANA), 1), by_hand(encoder, ids_of(encoder, HANA), 2), atol=1e-2)
    with pytest.raises(ModelError, match="clip_skip 3: its text encoder has 2 layers"):
        PromptEncoder("t", SD, TextSettings(clip_skip=3))


def test_a_prompt_longer_than_clips_window_is_read_in_chunks_and_its_rest_is_told():
    encoder = PromptEncoder("t", SD, TextSettings(80))
    ids = ids_of(encoder, LONG)
    assert len(ids) > 76, "more than two windows hold"
    made = encoder.encode([LONG])[0]
    assert np.allclose(made.embeds, torch.cat([by_hand(encoder, ids[:38]), by_hand(encoder, ids[38:76])]), atol=1e-6)
    assert made.cut and LONG.endswith(made.cut) and len(ids_of(encoder, made.cut)) == len(ids) - 76
    alone = PromptEncoder("t", SD).encode([LONG])[0]
    assert np.array_equal(alone.embeds, made.embeds[:40]) and len(alone.cut) > len(made.cut)


def pictures(requests: list[tuple[PromptEmbedding, PromptEmbedding]]) -> list[np.ndarray]:
    model = KeyframeModel("k", SD, STILLS)
    return model.generate([KeyframeRequest(f"t{i}", i, prompt=prompt, negative=negative) for i, (prompt, negative) in enumerate(requests)])[1]


def test_the_shorter_one_of_prompt_and_negative_is_filled_with_blank_chunks_whoever_shares_the_batch():
    encoder = PromptEncoder("t", SD, TextSettings(80))
    long, short, bad = (encoder.encode([text])[0] for text in (LONG, HANA, "bad"))
    blank = by_hand(encoder, [])
    filled = PromptEmbedding(np.concatenate([bad.embeds, blank]), bad.mask)
    (reference,) = pictures([(long, filled)])
    together = pictures([(long, bad), (short, bad), (long, bad)])
    assert np.array_equal(together[0], reference)
    assert np.array_equal(together[1], pictures([(short, bad), (short, bad)])[1]), "a short prompt is drawn as if no long one were there"


def test_a_clip_takes_a_long_prompt_and_a_short_negative_as_if_both_were_long():
    encoder = PromptEncoder("t", SD, TextSettings(80))
    long, bad = (encoder.encode([text])[0] for text in (LONG, "bad"))
    filled = PromptEmbedding(np.concatenate([bad.embeds, by_hand(encoder, [])]), bad.mask)
    model = AnimateDiffModel("a", ANIMATE, ClipSettings(96, 64, 4, 8, 2, 2.0))
    still = np.full((64, 96, 3), 128, np.uint8)
    clips = [model.generate([ClipRequest("t", 1, prompt=long, negative=text, keyframe=still)])[1][0] for text in (bad, filled)]
    assert np.array_equal(*clips)


@pytest.mark.parametrize("key", ["emb_params", "whatever-the-trainer-called-it"])
def test_an_embedding_of_several_vectors_stands_for_its_word_as_diffusers_has_it(tmp_path, key):
    vectors = torch.randn(3, 128, generator=torch.Generator().manual_seed(4))
    save_file({key: vectors}, tmp_path / "e.safetensors")
    files = ModelFiles(SD.checkpoint, embeddings=(Embedding("EasyBad", str(tmp_path / "e.safetensors")),))
    encoder = PromptEncoder("t", files)
    pipe = StableDiffusionPipeline.from_pretrained(SD.checkpoint, dtype=torch.float32, local_files_only=True)
    pipe.load_textual_inversion({"easybad": vectors}, token="easybad")
    wanted = pipe.encode_prompt("a girl, easybad, anime", "cpu", 1, False)[0][0].detach()
    for text in ("a girl, easybad, anime", "a girl, EasyBad, anime", "a girl, embedding:easybad, anime"):
        assert np.allclose(encoder.encode([text])[0].embeds, wanted, atol=1e-5), text
    assert not np.allclose(encoder.encode(["a girl, easybadly, anime"])[0].embeds, wanted, atol=1e-2), "a part of a word is not the word"
    assert np.array_equal(encoder.encode([HANA])[0].embeds, PromptEncoder("t", SD).encode([HANA])[0].embeds)


def test_an_embedding_of_another_width_is_refused(tmp_path):
    save_file({"emb_params": torch.zeros(2, 768)}, tmp_path / "e.safetensors")
    with pytest.raises(ModelError, match=r"embedding .* does not fit: text encoder 1 reads width 128, and it has emb_params 2x768"):
        PromptEncoder("t", ModelFiles(SD.checkpoint, embeddings=(Embedding("e", str(tmp_path / "e.safetensors")),)))


@pytest.mark.parametrize("vectors", [torch.zeros(39, 128), torch.zeros(0, 128), torch.full((2, 128), float("nan"))])
def test_an_embedding_that_no_chunk_could_hold_or_that_is_no_numbers_is_told_when_the_encoder_is_built(tmp_path, vectors):
    save_file({"emb_params": vectors}, tmp_path / "e.safetensors")
    with pytest.raises(ModelError, match=f"embedding e does not fit: 1 to 38 vectors of numbers are wanted, and it has {len(vectors)}"):
        PromptEncoder("t", ModelFiles(SD.checkpoint, embeddings=(Embedding("e", str(tmp_path / "e.safetensors")),)))


def test_an_embedding_of_other_lengths_for_the_two_encoders_of_sdxl_is_refused(tmp_path):
    save_file({"clip_l": torch.zeros(3, 32), "clip_g": torch.zeros(2, 64)}, tmp_path / "e.safetensors")
    files = ModelFiles(str(tiny_xl.write(tmp_path / "xl")), embeddings=(Embedding("E", str(tmp_path / "e.safetensors")),))
    with pytest.raises(ModelError, match="does not fit: it has 2 and 3 vectors for the two text encoders"):
        PromptEncoder("t", files)


def test_a_text_encoder_that_makes_nan_is_told_where_the_prompt_is_encoded():
    encoder = PromptEncoder("sd15#1", SD)
    with torch.no_grad():
        next(encoder.encoder.parameters()).fill_(float("nan"))
    with pytest.raises(ModelError, match="the text encoder of sd15 makes values that are no numbers; dtype: float32 may help"):
        encoder.encode([HANA])


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        ("a (red:1.3) coat", "'(red:1.3)' in the prompt would be read as plain words: set prompt_weights: applied"),
        ("a coat <lora:coat:0.8>", "LoRAs belong to a character (lora:) or to the workflow (loras:)"),
        ("[a coat:a hat:0.5]", "a prompt that changes between steps is not supported"),
        ("a [red|blue] coat", "'[red|blue]' in the prompt would be read as plain words: a prompt that changes between steps"),
        ("a ((red)) coat", "'((red))' in the prompt would be read as plain words: set prompt_weights: applied"),
        ("a coat BREAK a hat", "'BREAK' in the prompt would be read as plain words: chunks are filled in the order of the words"),
        ("a coat, embedding:easy", "embedding 'easy' would be read as plain words; the workflow's embeddings are none"),
    ],
)
def test_what_would_be_read_as_plain_words_is_told_by_plan_with_its_shot(here, tmp_path, action, sentence):
    (tmp_path / "episode.yaml").write_text(EPISODE.replace("action: standing still", f"action: '{action}'", 1))
    refused(here("plan", "episode.yaml"), "shot SH0020: prompt, for workflow", sentence)


def test_the_settings_of_texts_reach_the_picture_through_a_workflow(here, tmp_path):
    (tmp_path / "models").mkdir()
    save_file({"emb_params": torch.zeros(2, 128)}, tmp_path / "models" / "easy.safetensors")
    own = "max_tokens: 80\nclip_skip: 2\nprompt_weights: applied\nembeddings: {easy: easy.safetensors}\n"
    text = (WORKFLOWS / "sd15_keyframe_demo.yaml").read_text().replace("sd15_keyframe_demo", "mine")
    (tmp_path / "mine.yaml").write_text(text + own)
    here("workflows", "register", tmp_path / "mine.yaml")
    action = "action: 'a (red:1.3) coat, embedding:easy'"
    (tmp_path / "episode.yaml").write_text(EPISODE.replace("sd15_keyframe_demo", "mine").replace("action: walking right", action, 1))
    refused(here("plan", "episode.yaml"), "prompt, for workflow ltx_video_2b_demo", "set prompt_weights")
    clip = (WORKFLOWS / "ltx_video_2b_demo.yaml").read_text().replace("ltx_video_2b_demo", "mine_too")
    (tmp_path / "clip.yaml").write_text(clip + "prompt_weights: applied\n")
    refused(here("workflows", "register", tmp_path / "clip.yaml"), "family ltx_video cannot apply weights; dropped takes them out")
    (tmp_path / "clip.yaml").write_text(clip + "prompt_weights: dropped\n")
    here("workflows", "register", tmp_path / "clip.yaml")
    (tmp_path / "episode.yaml").write_text((tmp_path / "episode.yaml").read_text().replace("ltx_video_2b_demo", "mine_too").replace(", embedding:easy", ""))
    done = here("plan", "episode.yaml")
    assert done.code == 0, done.err
    (tmp_path / "models" / "easy.safetensors").unlink()
    refused(here("plan", "episode.yaml"), "workflow mine: embeddings: easy", "cannot be read")
    save_file({"emb_params": torch.zeros(2, 1024)}, tmp_path / "models" / "easy.safetensors")
    refused(here("plan", "episode.yaml"), "is for Stable Diffusion 2, and family stable_diffusion is Stable Diffusion 1.5")
