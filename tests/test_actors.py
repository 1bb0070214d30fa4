"""The models, without Ray, on the demo checkpoints."""

from __future__ import annotations

import shutil
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from actors.animatediff import AnimateDiffModel
from actors.compress import compressed
from actors.demo.train import scenes
from actors.keyframe import KeyframeModel
from actors.loading import to_uint8
from actors.ltx_video import LtxVideoModel
from actors.prompts import PromptEncoder
from actors.values import ClipRequest, ClipSettings, KeyframeRequest, KeyframeSettings, Lora, ModelError, ModelFiles, TextSettings

from .conftest import DEMO

SD, LTX = ModelFiles(str(DEMO / "stable-diffusion")), ModelFiles(str(DEMO / "ltx-video"))
ANIMATE = ModelFiles(SD.checkpoint, str(DEMO / "motion-adapter"))
STILLS = KeyframeSettings(96, 64, 8, 3.0, batch_size=4)
SHORT = ClipSettings(96, 64, 9, 24, 2, 1.0, timesteps=(1000, 500))
SIXTEEN = ClipSettings(96, 64, 8, 8, 6, 2.0, strength=0.7)
HANA = "close-up, a girl with pink hair and a yellow coat, standing still, by the sea, by day, static camera, anime"
AOI = "close-up, a girl with blue hair and a red coat, standing still, in the city, at night, static camera, anime"


@lru_cache
def keyframes() -> KeyframeModel:
    return KeyframeModel("stills", SD, STILLS)


@lru_cache
def ltx() -> LtxVideoModel:
    return LtxVideoModel("ltx", LTX, SHORT)


@lru_cache
def animatediff() -> AnimateDiffModel:
    return AnimateDiffModel("animatediff", ANIMATE, SIXTEEN)


@lru_cache
def words(text: str, ltx: bool = False):
    encoder = PromptEncoder("text", LTX if ltx else SD, TextSettings(64 if ltx else None))
    return encoder.encode([text])[0]


def still(text: str, seed: int, **more) -> KeyframeRequest:
    return KeyframeRequest(f"t{seed}", seed, prompt=words(text), negative=words(""), **more)


def moving(model, keyframe: np.ndarray, seed: int = 1, text: str = HANA) -> np.ndarray:
    is_ltx = isinstance(model, LtxVideoModel)
    request = ClipRequest("t", seed, prompt=words(text, is_ltx), negative=words("", is_ltx), keyframe=keyframe)
    (receipt,), (clip,) = model.generate([request])
    assert (receipt.take, receipt.seed, receipt.finite, receipt.model) == ("t", seed, True, model.identity)
    return clip


def first_frame(seed: int) -> np.ndarray:
    return scenes.draw(scenes.sample(seed))


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def test_the_prompt_reaches_the_pixels():
    _, (day, night) = keyframes().generate([still(HANA, 5), still(AOI, 5)])
    assert day[:12].mean() > night[:12].mean() + 40, "a sky by day is brighter than one at night"
    assert difference(day, night) > 20


def test_a_still_is_the_same_bit_for_bit_whoever_shares_its_batch():
    _, (alone,) = keyframes().generate([still(HANA, 5)])
    _, (first, _, third) = keyframes().generate([still(HANA, 5), still(AOI, 9), still(HANA, 5)])
    assert np.array_equal(alone, first) and np.array_equal(alone, third)
    _, (other,) = keyframes().generate([still(HANA, 6)])
    assert difference(alone, other) > 1


def test_receipts_name_their_own_take_and_seed():
    receipts, pictures = keyframes().generate([still(HANA, n) for n in (3, 1, 2)])
    assert [(r.take, r.seed, r.model) for r in receipts] == [("t3", 3, "stills"), ("t1", 1, "stills"), ("t2", 2, "stills")]
    assert all(p.shape == (64, 96, 3) and p.dtype == np.uint8 for p in pictures)


@pytest.mark.parametrize("model", [ltx, animatediff])
def test_the_keyframe_reaches_the_clip(model):
    a, b = first_frame(11), first_frame(12)
    from_a, from_b = moving(model(), a), moving(model(), b)
    assert difference(from_a[0], a) < difference(from_a[0], b) and difference(from_b[0], b) < difference(from_b[0], a)
    assert difference(from_a, from_b) > 5, "a different keyframe gives a different clip"


@pytest.mark.parametrize(
    "model",
    [
        ltx,
        lambda: AnimateDiffModel("least", ANIMATE, ClipSettings(96, 64, 2, 8, 4, 1.0, strength=0.6)),
        lambda: AnimateDiffModel("windows", ANIMATE, ClipSettings(96, 64, 6, 8, 4, 1.0, strength=0.6, context_length=4, context_overlap=2)),
    ],
)
def test_each_of_twenty_clips_begins_nearest_to_its_own_keyframe_and_swapped_keyframes_change_it(model):
    """Of scenes that training never saw, all with one prompt and one seed, so that only the keyframes tell the clips apart."""
    built, stills = model(), [first_frame(10**6 + n) for n in range(20)]
    clips = [moving(built, still) for still in stills]
    apart = np.array([[difference(clip[0], still) for still in stills] for clip in clips])
    assert list(apart.argmin(axis=1)) == list(range(20)), apart.round(1)
    swapped = clips[1:] + clips[:1]
    assert all(difference(own, other) > 5 for own, other in zip(clips, swapped, strict=True))


@pytest.mark.parametrize("model", [ltx, animatediff])
def test_a_clip_is_the_same_bit_for_bit(model):
    keyframe = first_frame(11)
    once, again, other = moving(model(), keyframe), moving(model(), keyframe), moving(model(), keyframe, seed=2)
    assert np.array_equal(once, again) and not np.array_equal(once, other)
    assert once.shape[1:] == (64, 96, 3) and once.dtype == np.uint8


@pytest.mark.parametrize("model", [ltx, animatediff])
def test_the_prompt_reaches_the_clip(model):
    keyframe = first_frame(11)
    assert not np.array_equal(
        moving(model(), keyframe, text=HANA), moving(model(), keyframe, text=HANA.replace("standing still", "walking left"))
    )


def test_a_long_prompt_is_cut_and_the_cut_is_told():
    text = HANA + ", and so on" * 2500
    embedding = words(text)
    assert embedding.cut and text.endswith(embedding.cut) and len(embedding.cut) > 20_000
    assert words(HANA).cut is None
    assert np.array_equal(words(text).embeds.shape, words(HANA).embeds.shape)


@pytest.mark.parametrize("text", ["", "تمشي نحو البحر", "海辺の少女、夕焼け", "🙂" * 50, "a\x00b\n\tc"])
def test_any_text_can_be_encoded(text):
    for embedding in (words(text), words(text, ltx=True)):
        assert np.isfinite(embedding.embeds).all() and embedding.mask.any()


def test_not_a_number_is_noticed_before_the_cast_to_bytes():
    values = torch.rand(3, 4, 4)
    assert to_uint8(values)[1] is True
    values[0, 0, 0] = float("nan")
    picture, finite = to_uint8(values)
    assert finite is False and picture.shape == (4, 4, 3)


def test_a_model_that_makes_no_numbers_says_so_on_its_receipt():
    model = KeyframeModel("broken", SD, STILLS)
    with torch.no_grad():
        model.pipe.unet.conv_out.bias.fill_(float("nan"))
    receipts, _ = model.generate([still(HANA, 5)])
    assert receipts[0].finite is False


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: LtxVideoModel("x", LTX, ClipSettings(96, 64, 120, 24, 2, 1.0)), ["120", "121"]),
        (lambda: LtxVideoModel("x", LTX, ClipSettings(500, 300, 121, 24, 2, 1.0)), ["500x300", "32"]),
        (lambda: KeyframeModel("x", SD, KeyframeSettings(500, 300, 2, 1.0)), ["500x300", "8"]),
        (lambda: AnimateDiffModel("x", ANIMATE, ClipSettings(96, 64, 99, 8, 2, 1.0)), ["99", "32"]),
        (lambda: AnimateDiffModel("x", SD, SIXTEEN), ["motion_adapter"]),
        (lambda: AnimateDiffModel("x", ModelFiles(SD.checkpoint, SD.checkpoint), SIXTEEN), ["motion adapter", "config.json"]),
        (lambda: KeyframeModel("x", ModelFiles("/nowhere/at/all"), STILLS), ["/nowhere/at/all", "does not exist"]),
        (lambda: KeyframeModel("x", LTX, STILLS), ["ltx-video", "cannot be loaded"]),
        (lambda: LtxVideoModel("x", SD, SHORT), ["stable-diffusion"]),
        (lambda: KeyframeModel("x", SD, KeyframeSettings(96, 64, 2, 1.0, scheduler="magic")), ["'magic'", "ddim"]),
    ],
)
def test_what_cannot_work_is_one_sentence(build, words):
    with pytest.raises(ModelError) as error:
        build()
    text = str(error.value)
    assert all(w in text for w in words) and "\n" not in text, text


def test_weights_in_other_formats_are_not_loaded(tmp_path):
    shutil.copytree(SD.checkpoint, tmp_path / "pickled")
    for file in (tmp_path / "pickled").rglob("*.safetensors"):
        file.rename(file.with_suffix(".bin"))
    with pytest.raises(ModelError, match="safetensors"):
        KeyframeModel("x", ModelFiles(str(tmp_path / "pickled")), STILLS)


def lora_file(path: Path, width: int | None = None) -> Path:
    """A LoRA for the demo's UNet with large random weights; with `width`, one for another architecture."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    config = dict(UNet2DConditionModel.load_config(Path(SD.checkpoint) / "unet"))
    if width:
        config["cross_attention_dim"] = width
    unet = UNet2DConditionModel.from_config(config)
    unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=False))
    state = {f"unet.{k}": v.contiguous() * 3 for k, v in get_peft_model_state_dict(unet).items()}
    save_file(state, path)
    return path


def test_a_lora_changes_the_picture_and_leaves_nothing_behind(tmp_path):
    model = KeyframeModel("x", SD, STILLS)
    _, (plain,) = model.generate([still(HANA, 5)])
    lora = Lora(str(lora_file(tmp_path / "a.safetensors")))
    _, (styled,) = model.generate([still(HANA, 5, loras=(lora,))])
    _, (again,) = model.generate([still(HANA, 5)])
    assert difference(plain, styled) > 2 and np.array_equal(plain, again)


def test_a_lora_of_another_architecture_is_refused(tmp_path):
    model = KeyframeModel("x", SD, STILLS)
    with pytest.raises(ModelError, match=r"wide\.safetensors does not fit"):
        model.prepare((Lora(str(lora_file(tmp_path / "wide.safetensors", width=768))),))
    (tmp_path / "text.safetensors").write_text("this is no LoRA")
    with pytest.raises(ModelError, match=r"text\.safetensors does not fit"):
        model.prepare((Lora(str(tmp_path / "text.safetensors")),))


def test_compressing_the_keyframe_changes_it_little_and_only_when_asked():
    picture = first_frame(3)
    assert compressed(picture, None) is picture
    assert 0 < difference(compressed(picture, 29), picture) < 25


def test_the_training_scenes_are_a_pure_function_of_their_seed():
    scene = scenes.sample(42)
    assert np.array_equal(scenes.draw(scene, 17), scenes.draw(scenes.sample(42), 17))
    assert scene.seed == 42 and not scenes.is_held_out(scene.time, scene.place, scene.coat, scene.hair)
    held = scenes.sample(42, held_out=True)
    assert scenes.is_held_out(held.time, held.place, held.coat, held.hair)


def test_all_weights_together_stay_small_enough_for_the_repository():
    sizes = [p.stat().st_size for p in DEMO.rglob("*.safetensors")]
    assert sizes and sum(sizes) <= 48e6 and max(sizes) <= 16e6


def test_a_text_encoder_with_a_tensor_missing_is_refused(tmp_path):
    from safetensors.torch import load_file

    shutil.copytree(SD.checkpoint, tmp_path / "lacking")
    weights = tmp_path / "lacking" / "text_encoder" / "model.safetensors"
    state = load_file(weights)
    del state[sorted(state)[0]]
    save_file(state, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks 1 tensors"):
        PromptEncoder("x", ModelFiles(str(tmp_path / "lacking")))


def test_a_requests_own_parameters_reach_the_pixels_and_nobody_elses():
    asked = still(HANA, 5, parameters=(("guidance_scale", 1.0),))
    (plain,), (unguided,) = keyframes().generate([still(HANA, 5)])[1], keyframes().generate([asked])[1]
    (built,) = KeyframeModel("other", SD, KeyframeSettings(96, 64, 8, 1.0, batch_size=4)).generate([still(HANA, 5)])[1]
    assert np.array_equal(unguided, built) and difference(plain, unguided) > 1
    with pytest.raises(ModelError, match="same LoRAs and parameters"):
        keyframes().generate([still(HANA, 5), asked])
    words_of = dict(prompt=words(HANA), negative=words(""), keyframe=first_frame(3))
    (firm,), (loose,) = (animatediff().generate([ClipRequest("t", 1, parameters=p, **words_of)])[1] for p in ((), (("strength", 0.4),)))
    assert difference(firm, np.broadcast_to(first_frame(3), firm.shape)) > difference(loose, np.broadcast_to(first_frame(3), loose.shape))
