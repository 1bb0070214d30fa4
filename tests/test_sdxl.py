"""SDXL, another VAE, v-prediction, the second pass and NaN: each against a plain call of diffusers with the same weights, seed and settings."""

from __future__ import annotations

import json
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
)
from PIL import Image
from safetensors.torch import load_file, save_file

from actors.headers import read_header
from actors.identify import identify
from actors.keyframe import KeyframeModel, KeyframeXLModel
from actors.prompts import PromptEncoder
from actors.values import Embedding, Hires, KeyframeRequest, KeyframeSettings, Lora, ModelError, ModelFiles, TextSettings
from benchmarks.original_layout import single_file, vae_key
from pipeline.story.workflow import WORKFLOWS, read_workflow

from . import tiny_xl
from .conftest import EPISODE, refused, takes_of, tower
from .test_actors import HANA, SD, words

STILLS = KeyframeSettings(128, 64, 4, 5.0, batch_size=2)
BAD = "blurry, dark"


@pytest.fixture(scope="module")
def xl(tmp_path_factory) -> Path:
    return tiny_xl.write(tmp_path_factory.mktemp("xl") / "xl")


def texts(files: ModelFiles, *wanted: str) -> list[Any]:
    return PromptEncoder("t", files).encode(list(wanted))


def request(files: ModelFiles, seed: int = 3, prompt: str = HANA, negative: str = BAD, **more: Any) -> KeyframeRequest:
    one, two = texts(files, prompt, negative)
    return KeyframeRequest(f"t{seed}", seed, prompt=one, negative=two, **more)


def plain(folder: str | Path, **parts: Any) -> Any:
    cls = StableDiffusionXLPipeline if (Path(folder) / "text_encoder_2").is_dir() else StableDiffusionPipeline
    pipe = cls.from_pretrained(folder, dtype=torch.float32, local_files_only=True, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def drawn(pipe: Any, s: KeyframeSettings, seed: int = 3, negative: str | None = BAD, **more: Any) -> np.ndarray:
    how = {"num_inference_steps": s.num_inference_steps, "guidance_scale": s.guidance_scale, "width": s.width, "height": s.height} | more
    made = pipe(HANA, negative_prompt=negative, generator=[torch.Generator().manual_seed(seed)], output_type="np", **how).images[0]
    return (made * 255).round().astype(int)


def same(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Up to one step of 255, by which rounding may differ in another batch."""
    return np.abs(ours.astype(int) - theirs).max() <= 1


def test_sdxl_draws_what_diffusers_draws_with_both_encoders_pooled_text_and_size(xl):
    files, pipe = ModelFiles(str(xl)), plain(xl)
    model = KeyframeXLModel("k", files, STILLS)
    made = model.generate([request(files), request(files, 4)])[1]
    assert same(made[0], drawn(pipe, STILLS)) and same(made[1], drawn(pipe, STILLS, 4))
    (alone,) = model.generate([request(files)])[1]
    assert np.array_equal(alone, made[0])
    other = drawn(pipe, STILLS, original_size=(32, 32))
    assert not same(other, made[0].astype(int)), "the size that the model is told matters"


def test_a_changed_text_or_pooled_vector_changes_sdxls_picture(xl):
    files = ModelFiles(str(xl))
    model, first = KeyframeXLModel("k", files, STILLS), request(files)
    (before,) = model.generate([first])[1]
    for name in ("embeds", "pooled"):
        other = KeyframeRequest("t3", 3, prompt=type(first.prompt)(**(vars(first.prompt) | {name: getattr(first.prompt, name) * 3})), negative=first.negative)
        assert not np.array_equal(model.generate([other])[1][0], before), name
    lacking = KeyframeRequest("t3", 3, prompt=type(first.prompt)(**(vars(first.prompt) | {"pooled": None})), negative=first.negative)
    with pytest.raises(ModelError, match="without the pooled vector"):
        model.generate([lacking])


@pytest.mark.parametrize("zeros", [True, False])
def test_an_empty_negative_prompt_is_zeros_where_the_checkpoint_was_trained_so(xl, tmp_path, zeros):
    folder = tiny_xl.copy(xl, tmp_path / "xl")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"force_zeros_for_empty_prompt": zeros}))
    files = ModelFiles(str(folder))
    (made,) = KeyframeXLModel("k", files, STILLS).generate([request(files, negative="")])[1]
    assert same(made, drawn(plain(folder), STILLS, negative=None))
    assert bool(texts(files, "")[0].embeds.any()) is not zeros


def test_sdxl_in_one_file_draws_what_its_folder_draws_and_asks_no_network(xl, tmp_path, monkeypatch):
    file = tiny_xl.single_file(xl, tmp_path / "one.safetensors")
    files = ModelFiles(str(xl))
    (before,) = KeyframeXLModel("k", files, STILLS).generate([request(files)])[1]

    def forbidden(*_: Any) -> None:
        raise AssertionError("a network is asked while a model is loaded")

    monkeypatch.setattr(socket.socket, "connect", forbidden)
    one = ModelFiles(str(file), base=str(xl))
    assert np.array_equal(KeyframeXLModel("k", one, STILLS).generate([request(one)])[1][0], before)


@pytest.mark.parametrize("change", ["a tensor too few", "a tensor too many"])
def test_a_text_encoder_of_one_file_with_a_tensor_too_few_or_too_many_is_told(xl, tmp_path, change):
    tensors = load_file(tiny_xl.single_file(xl, tmp_path / "one.safetensors"))
    name = "conditioner.embedders.1.model.transformer.resblocks.1.mlp.c_fc.weight"
    if change.endswith("few"):
        tensors.pop(name)
    else:
        tensors[name.replace("resblocks.1", "resblocks.9")] = torch.zeros(2, 2)
    save_file(tensors, tmp_path / "wrong.safetensors")
    with pytest.raises(ModelError, match=r"text_encoder_2 of checkpoint .*wrong.safetensors (lacks|has no place for) 1 tensors"):
        PromptEncoder("t", ModelFiles(str(tmp_path / "wrong.safetensors"), base=str(xl)))


def test_an_embedding_for_sdxl_has_vectors_for_both_encoders(xl, tmp_path):
    pair = {"clip_l": torch.randn(2, tiny_xl.WIDTHS[0]), "clip_g": torch.randn(2, tiny_xl.WIDTHS[1])}
    save_file(pair, tmp_path / "e.safetensors")
    files = ModelFiles(str(xl), embeddings=(Embedding("easybad", str(tmp_path / "e.safetensors")),))
    pipe = plain(xl)
    for vectors, tokenizer, encoder in ((pair["clip_l"], pipe.tokenizer, pipe.text_encoder), (pair["clip_g"], pipe.tokenizer_2, pipe.text_encoder_2)):
        pipe.load_textual_inversion({"easybad": vectors}, token="easybad", tokenizer=tokenizer, text_encoder=encoder)
    wanted, _, pooled, _ = pipe.encode_prompt("a girl, easybad", device="cpu", do_classifier_free_guidance=False)
    (made,) = texts(files, "a girl, easybad")
    assert np.allclose(made.embeds, wanted[0].detach(), atol=1e-5) and np.allclose(made.pooled, pooled[0].detach(), atol=1e-5)
    save_file({"emb_params": pair["clip_l"]}, tmp_path / "e.safetensors")
    with pytest.raises(ModelError, match=f"text encoder 2 reads width {tiny_xl.WIDTHS[1]}, and it has emb_params"):
        PromptEncoder("t", files)


def test_a_lora_in_the_names_of_sdxls_trainers_changes_unet_and_both_encoders_as_its_file_says(xl, tmp_path):
    """kohya's trainer names SDXL's UNet by the blocks of the original code, and the encoders lora_te1 and lora_te2."""
    modules = {
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q": (64, 64),
        "lora_te1_text_model_encoder_layers_0_self_attn_q_proj": (32, 32),
        "lora_te2_text_model_encoder_layers_0_self_attn_q_proj": (64, 64),
    }
    tensors = {}
    for name, (out, width) in modules.items():
        tensors |= {f"{name}.lora_down.weight": torch.randn(4, width), f"{name}.lora_up.weight": torch.randn(out, 4), f"{name}.alpha": torch.tensor(2.0)}
    save_file(tensors, tmp_path / "a.safetensors")
    change = {name: 0.5 * tensors[f"{name}.lora_up.weight"] @ tensors[f"{name}.lora_down.weight"] for name in modules}
    lora, files = Lora(str(tmp_path / "a.safetensors"), 0.8), ModelFiles(str(xl))
    model = KeyframeXLModel("k", files, STILLS)
    model.prepare((lora,))
    layer = model.pipe.unet.get_submodule("down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q")
    made = layer.scaling["lora0"] * layer.lora_B["lora0"].weight @ layer.lora_A["lora0"].weight
    assert torch.allclose(made, 0.8 * change["lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"], rtol=1e-3, atol=1e-5)
    encoder = PromptEncoder("t", files)
    name = "text_model_encoder_layers_0_self_attn_q_proj"
    made, by_hand = encoder.encode([HANA], (lora,))[0], PromptEncoder("t", files)
    layers = [clip.encoder.get_submodule(f"{start}encoder.layers.0.self_attn.q_proj") for clip, start in zip(by_hand.clips, ("", "text_model."), strict=True)]
    for number, layer in enumerate(layers, 1):
        with torch.no_grad():
            layer.weight += 0.8 * change[f"lora_te{number}_{name}"]
    (wanted,) = by_hand.encode([HANA])
    assert np.allclose(made.embeds, wanted.embeds, atol=1e-4) and np.allclose(made.pooled, wanted.pooled, atol=1e-4)
    assert not np.allclose(made.pooled, encoder.encode([HANA])[0].pooled, atol=1e-2)


# --- another VAE, v-prediction, the second pass, NaN ------------------------------------------------------------------

OURS = KeyframeSettings(96, 64, 4, 3.0, batch_size=2)


def small(**settings: Any) -> KeyframeSettings:
    return KeyframeSettings(**(vars(OURS) | settings))


def still(seed: int = 3) -> KeyframeRequest:
    return KeyframeRequest(f"t{seed}", seed, prompt=words(HANA), negative=words(BAD))


def other_vae(folder: Path) -> AutoencoderKL:
    vae = AutoencoderKL.from_pretrained(SD.checkpoint, subfolder="vae")
    with torch.no_grad():
        for one in vae.parameters():
            one.mul_(1.02)
    vae.save_pretrained(folder)
    return vae


@pytest.mark.parametrize("layout", ["folder", "folder of a variant", "file", "file of a whole checkpoint's names", "file with its training's loss"])
def test_another_vae_decodes_as_diffusers_does_with_it(tmp_path, layout):
    path, vae = tmp_path / "vae", other_vae(tmp_path / "vae")
    if "variant" in layout:
        (path / "diffusion_pytorch_model.safetensors").rename(path / "diffusion_pytorch_model.fp16.safetensors")
    if "file" in layout:
        path, blocks = tmp_path / "vae.safetensors", len(vae.config.block_out_channels)
        prefix = "first_stage_model." if "whole" in layout else ""
        square = {k: v[:, :, None, None] if v.ndim == 2 and "attentions" in k and k.endswith("weight") else v for k, v in vae.state_dict().items()}
        more = {"loss.logvar": torch.zeros(())} if "loss" in layout else {}
        save_file({prefix + vae_key(k, blocks): v.contiguous() for k, v in square.items()} | more, path)
    (made,) = KeyframeModel("k", ModelFiles(SD.checkpoint, vae=str(path)), OURS).generate([still()])[1]
    assert same(made, drawn(plain(SD.checkpoint, vae=vae), OURS))
    assert not np.array_equal(made, KeyframeModel("k", SD, OURS).generate([still()])[1][0])


def test_a_vae_is_decoded_in_the_type_that_the_workflow_says(xl):
    model = KeyframeModel("k", ModelFiles(SD.checkpoint, dtype="bfloat16", vae_dtype="float32"), OURS)
    assert (model.pipe.unet.dtype, model.pipe.vae.dtype) == (torch.bfloat16, torch.float32)
    assert model.generate([still()])[0][0].finite
    assert KeyframeModel("k", ModelFiles(SD.checkpoint, dtype="bfloat16"), OURS).pipe.vae.dtype == torch.bfloat16
    half = ModelFiles(str(xl), dtype="float16")
    assert KeyframeXLModel("k", half, STILLS).pipe.vae.dtype == torch.float32, "SDXL's VAE overflows in float16"
    assert KeyframeXLModel("k", ModelFiles(str(xl), dtype="float16", vae_dtype="float16"), STILLS).pipe.vae.dtype == torch.float16


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "dpmpp_2m_karras"])
def test_v_prediction_with_zero_snr_and_rescaled_guidance_is_diffusers_own(scheduler):
    s = small(scheduler=scheduler, prediction_type="v_prediction", rescale_betas_zero_snr=True, guidance_rescale=0.7)
    model = KeyframeModel("k", SD, s)
    told = model.pipe.scheduler.config
    assert (told.prediction_type, told.rescale_betas_zero_snr, told.timestep_spacing) == ("v_prediction", True, "trailing")
    pipe = plain(SD.checkpoint)
    pipe.scheduler = type(model.pipe.scheduler).from_config(told)
    (made,) = model.generate([still()])[1]
    assert same(made, drawn(pipe, s, guidance_rescale=0.7))
    assert not same(made, drawn(pipe, s))
    epsilon = KeyframeModel("k", SD, small(prediction_type="epsilon", scheduler=scheduler))
    assert epsilon.pipe.scheduler.config.prediction_type == "epsilon"
    assert not np.array_equal(epsilon.generate([still()])[1][0], made)


def test_noise_settings_that_a_scheduler_would_pass_over_are_told(tmp_path):
    shutil.copytree(SD.checkpoint, tmp_path / "base")
    published = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "skip_prk_steps": True, "steps_offset": 1}
    (tmp_path / "base" / "scheduler" / "scheduler_config.json").write_text(json.dumps({"_class_name": "PNDMScheduler"} | published))
    index = tmp_path / "base" / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"scheduler": ["diffusers", "PNDMScheduler"]}))
    markers = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    one = ModelFiles(str(single_file(Path(SD.checkpoint), tmp_path / "one.safetensors", **markers)), base=str(tmp_path / "base"))
    for files, s in ((one, OURS), (ModelFiles(one.folder), small(rescale_betas_zero_snr=True))):
        with pytest.raises(ModelError, match="scheduler PNDMScheduler does not read rescale_betas_zero_snr; name another scheduler in the workflow"):
            KeyframeModel("k", files, s)
    assert KeyframeModel("k", one, small(scheduler="ddim")).pipe.scheduler.alphas_cumprod[-1] < 1e-6, "the marker of the file counts"


def enlarged(picture: np.ndarray, s: KeyframeSettings) -> torch.Tensor:
    tensor = torch.from_numpy(picture).permute(2, 0, 1)[None]
    return torch.nn.functional.interpolate(tensor, (s.height, s.width), mode="bicubic", antialias=True).clamp(0, 1)


def test_the_second_pass_is_diffusers_own_image_to_image_of_the_enlarged_still(xl):
    hires = Hires(2.0, 0.6, 5)
    rescaled = KeyframeSettings(128, 64, 4, 5.0, hires=hires, guidance_rescale=0.7)
    for model, files, again, s in (
        (KeyframeXLModel, ModelFiles(str(xl)), StableDiffusionXLImg2ImgPipeline, rescaled),
        (KeyframeModel, SD, StableDiffusionImg2ImgPipeline, small(width=192, height=128, hires=hires, scheduler="ddim")),
        (KeyframeXLModel, ModelFiles(str(xl)), StableDiffusionXLImg2ImgPipeline, KeyframeSettings(128, 64, 4, 5.0, hires=hires)),
    ):
        (made,) = model("k", files, s).generate([request(files)])[1]
        pipe, one = plain(files.checkpoint), torch.Generator().manual_seed(3)
        if s.scheduler == "ddim":
            pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
        how = {"negative_prompt": BAD, "guidance_scale": s.guidance_scale, "generator": [one], "output_type": "np"}
        how |= {"guidance_rescale": s.guidance_rescale} if s.guidance_rescale else {}
        first = pipe(HANA, width=s.width // 2, height=s.height // 2, num_inference_steps=4, **how).images[0]
        pipe.unet.register_to_config(sample_size=64)
        second = again(**pipe.components)
        wanted = second(HANA, image=enlarged(first, s), strength=0.6, num_inference_steps=5, **how).images[0]
        assert made.shape == (s.height, s.width, 3) and same(made, (wanted * 255).round().astype(int))


@pytest.mark.parametrize(("part", "stage"), [("unet", "latents"), ("vae", "decode")])
def test_nan_is_told_by_the_stage_where_it_came_about(part, stage):
    model = KeyframeModel("k", SD, OURS)
    with torch.no_grad():
        list(getattr(model.pipe, part).parameters())[-1].fill_(float("nan"))
    (receipt,), _ = model.generate([still()])
    assert (receipt.not_finite, receipt.finite) == (stage, False)


# --- through workflows ------------------------------------------------------------------------------------------------

XL = """\
name: mine
version: 1
family: stable_diffusion_xl
checkpoint: xl
width: 128
height: 64
num_inference_steps: 2
guidance_scale: 5
"""


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("family: stable_diffusion\ncheckpoint: xl", "for family stable_diffusion_xl and not for stable_diffusion"),
        ("family: stable_diffusion_xl\ncheckpoint: demo:stable-diffusion", "for family stable_diffusion and not for stable_diffusion_xl"),
        ("family: stable_diffusion_xl\ncheckpoint: xl\nclip_skip: 2", "clip_skip belongs to family stable_diffusion and animatediff"),
        ("family: stable_diffusion_xl\ncheckpoint: xl\nhires: {scale: 3, strength: 0.5, num_inference_steps: 4}", "128x64 over it are no multiples of 8"),
        ("family: stable_diffusion_xl\ncheckpoint: xl\nhires: {scale: 2, strength: 0.1, num_inference_steps: 4}", "0.1 of 4 steps leaves no step"),
        ("family: stable_diffusion_xl\ncheckpoint: xl\nvae: demo:stable-diffusion", "is for other checkpoints: its scaling_factor is .*, and that of"),
        ("family: stable_diffusion_xl\ncheckpoint: xl\nembeddings: {Easy: a.safetensors, easy: b.safetensors}", "Easy and easy are one word"),
        ("family: stable_diffusion_xl\ncheckpoint: xl\nembeddings: {'': a.safetensors}", "'' is no word that a prompt could have"),
        ("family: stable_diffusion_xl\ncheckpoint: xl\nembeddings: {'(a': a.safetensors}", r"'\(a' is no word that a prompt could have"),
        ("family: stable_diffusion_xl\ncheckpoint: xl\nvae: nowhere", "vae: VAE .*nowhere does not exist"),
        ("family: stable_diffusion_xl\ncheckpoint: xl\nloras: [{file: sd.safetensors}]", "is for Stable Diffusion 1.5, and family stable_diffusion_xl is"),
    ],
)
def test_what_does_not_fit_sdxl_is_told_by_plan(here, tmp_path, xl, lines, sentence):
    (tmp_path / "models").mkdir()
    tiny_xl.copy(xl, tmp_path / "models" / "xl")
    attention = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    pair = {f"{attention}.lora_down.weight": torch.zeros(4, 768), f"{attention}.lora_up.weight": torch.zeros(320, 4)}
    save_file(pair, tmp_path / "models" / "sd.safetensors")
    (tmp_path / "mine.yaml").write_text(XL.replace("family: stable_diffusion_xl\ncheckpoint: xl", lines))
    done = here("workflows", "register", tmp_path / "mine.yaml")
    if done.code == 0:
        (tmp_path / "episode.yaml").write_text(EPISODE.replace("sd15_keyframe_demo", "mine"))
        done = here("plan", "episode.yaml")
    refused(done)
    assert re.search(sentence, done.err), done.err


def test_a_size_that_a_scale_divides_is_taken_whatever_floating_point_makes_of_it(tmp_path):
    sizes = XL.replace("width: 128\nheight: 64", "width: 792\nheight: 528")
    (tmp_path / "mine.yaml").write_text(sizes + "hires: {scale: 1.1, strength: 0.5, num_inference_steps: 4}\n")
    assert 792 / 1.1 != 720 and read_workflow(tmp_path / "mine.yaml").hires


def test_inspect_tells_an_embedding_and_a_vae_with_the_line_that_uses_them(tmp_path):
    save_file({"emb_params": torch.zeros(8, 768)}, tmp_path / "easynegative.safetensors")
    found = identify(read_header(tmp_path / "easynegative.safetensors"))
    assert (found.architecture, found.faults, found.use) == ("Stable Diffusion 1.5", (), "embeddings: {easynegative: easynegative.safetensors}")
    save_file({"decoder.conv_in.weight": torch.zeros(8, 4, 3, 3), "encoder.conv_in.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "kl.safetensors")
    found = identify(read_header(tmp_path / "kl.safetensors"))
    assert (found.kind, found.faults, found.use) == ("VAE", (), "vae: kl.safetensors")



@pytest.mark.ray
def test_an_sdxl_checkpoint_in_one_file_is_imported_and_its_weighted_prompts_and_loras_reach_the_keyframe(tmp_path, xl):
    models = tmp_path / "models"
    tiny_xl.copy(xl, models / "xl")
    tiny_xl.single_file(xl, models / "one.safetensors")
    name = "lora_te2_text_model_encoder_layers_0_self_attn_q_proj"
    save_file({f"{name}.lora_down.weight": torch.randn(4, 64), f"{name}.lora_up.weight": torch.randn(64, 4)}, models / "hana.safetensors")
    assert tower("models", "import", "models/one.safetensors", "--as", "mine", "--base", "xl", cwd=tmp_path).code == 0
    settings = (WORKFLOWS / "sdxl_keyframe.yaml").read_text()
    small = "width: 128\nheight: 64\nnum_inference_steps: 4\nprompt_weights: applied\nbatch_size: 2\n"
    keep = [line for line in settings.splitlines() if not line.startswith(("width", "height", "num_inf", "batch", "name", "version", "max_tokens", "checkpoint", "#", "parameters", "  "))]
    (tmp_path / "mine.yaml").write_text("\n".join(keep) + f"\nname: mine\nversion: 2\ncheckpoint: one.safetensors\nbase: xl\n{small}")
    done = tower("workflows", "register", "mine.yaml", cwd=tmp_path)
    assert done.code == 0, done.err
    clip = (WORKFLOWS / "ltx_video_2b_demo.yaml").read_text().replace("ltx_video_2b_demo", "clips") + "prompt_weights: dropped\n"
    (tmp_path / "clips.yaml").write_text(clip)
    assert tower("workflows", "register", "clips.yaml", cwd=tmp_path).code == 0
    text = EPISODE.replace("hana: {name: Hana,", "hana: {name: Hana, lora: {file: hana.safetensors, weight: 0.5},")
    text = text[: text.index("      - {id: SH0020")].replace("sd15_keyframe_demo", "mine").replace("ltx_video_2b_demo", "clips")
    (tmp_path / "episode.yaml").write_text(text.replace("walking right", "'(walking right:1.3)'").replace("frames: 60", "frames: 24"))
    done = tower("render", "episode.yaml", "--allow-experimental", cwd=tmp_path)
    take = next(t for t in takes_of(tmp_path) if t["stage"] == "keyframe")
    assert take["outcome"] != "error" and "(walking right:1.3)" in take["prompt"], done.out + done.err
    files = ModelFiles(str(models / "one.safetensors"), base=str(models / "xl"))
    lora = (Lora(str(models / "hana.safetensors"), 0.5),)
    encoder = PromptEncoder("t", files, TextSettings(prompt_weights="applied"))
    (prompt,), (negative,) = (encoder.encode([take[name]], lora) for name in ("prompt", "negative_prompt"))
    model = KeyframeXLModel("k", files, KeyframeSettings(128, 64, 4, 6, "euler_ancestral", batch_size=2))
    (made,) = model.generate([KeyframeRequest("t", take["seed"], lora, prompt=prompt, negative=negative)])[1]
    certificate = json.loads(take["certificate"])
    assert certificate["model"]["parts"]["unet"]["tensors"] == len(model.pipe.unet.state_dict()) and certificate["model"]["noise"][0]["class"] == "EulerAncestralDiscreteScheduler"
    assert set(certificate["text"]["parts"]) == {"text_encoder", "text_encoder_2"} and certificate["text"]["settings"]["prompt_weights"] == "applied"
    assert [(x["file"], x["weight"], x["error"] <= 1e-3) for x in certificate["text"]["loras"]] == [("hana.safetensors", 0.5, True)]
    stored = np.asarray(Image.open(tmp_path / "catalog-data" / take["media_path"]).convert("RGB"))
    assert np.array_equal(made, stored), "the same picture as by hand"


def test_a_characters_lora_for_sdxl_is_applied_to_the_keyframe_and_passed_over_by_a_clip_of_sd15(here, tmp_path, xl):
    (tmp_path / "models").mkdir()
    tiny_xl.copy(xl, tmp_path / "models" / "xl")
    attention = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    pair = {f"{attention}.lora_down.weight": torch.zeros(4, 2048), f"{attention}.lora_up.weight": torch.zeros(640, 4)}
    save_file(pair, tmp_path / "models" / "hana.safetensors")
    (tmp_path / "mine.yaml").write_text(XL)
    assert here("workflows", "register", "mine.yaml").code == 0
    text = EPISODE.replace("hana: {name: Hana,", "hana: {name: Hana, lora: {file: hana.safetensors, weight: 0.5},")
    (tmp_path / "episode.yaml").write_text(text)
    refused(here("plan", "episode.yaml"), "is for Stable Diffusion XL, and family stable_diffusion is Stable Diffusion 1.5")
    (tmp_path / "episode.yaml").write_text(text.replace("sd15_keyframe_demo", "mine"))
    done = here("plan", "episode.yaml")
    assert done.code == 0, done.err
