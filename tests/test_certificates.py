"""Every tensor of a model's files has its place, and the take's certificate says what was loaded and how it sampled. No network is asked."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file

from actors.animatediff import AnimateDiffModel
from actors.certificate import lora_error
from actors.keyframe import KeyframeModel, KeyframeXLModel
from actors.ltx_video import LtxVideoModel
from actors.prompts import PromptEncoder
from actors.values import ClipSettings, KeyframeSettings, Lora, ModelError, ModelFiles
from benchmarks.original_layout import ltx_base, motion_file, single_file, single_ltx_file

from . import tiny_xl
from .conftest import DEMO
from .test_actors import ANIMATE, HANA, LTX, SD, SHORT, SIXTEEN, STILLS, still
from .test_loading import ATTENTION, kohya

OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}  # of attention in a VAE, before 2023


@pytest.fixture
def stills(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO / "stable-diffusion", tmp_path / "stills"))


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_a_tensor_of_a_folder_that_has_no_place_is_named(stills, part):
    (file,) = (stills / part).glob("*.safetensors")
    save_file(load_file(file) | {"nowhere.weight": torch.zeros(1)}, file)
    with pytest.raises(ModelError, match=rf"tensors of its {part}, where \d+ have a place, such as nowhere.weight"):
        KeyframeModel("k", ModelFiles(str(stills)), STILLS)


@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_a_tensor_of_an_ltx_folder_that_has_no_place_is_named(tmp_path, part):
    folder = Path(shutil.copytree(DEMO / "ltx-video", tmp_path / "ltx"))
    file = sorted((folder / part).glob("*.safetensors"))[0]
    save_file(load_file(file) | {"nowhere.weight": torch.zeros(1)}, file)
    index = folder / part / "diffusion_pytorch_model.safetensors.index.json"
    if index.is_file():
        told = json.loads(index.read_text())
        told["weight_map"]["nowhere.weight"] = file.name
        index.write_text(json.dumps(told))
    with pytest.raises(ModelError, match=r"nowhere.weight|nowhere"):
        LtxVideoModel("ltx", ModelFiles(str(folder)), SHORT)


def test_a_text_encoders_tensor_that_has_no_place_is_named(stills):
    (file,) = (stills / "text_encoder").glob("*.safetensors")
    save_file(load_file(file) | {"text_model.nowhere.weight": torch.zeros(1)}, file)
    with pytest.raises(ModelError, match=r"text_encoder of checkpoint .* has no place for 1 tensors, such as .*nowhere.weight"):
        PromptEncoder("t", ModelFiles(str(stills)))


def test_a_text_encoder_of_another_class_is_refused_and_not_read_as_the_nearest_one(tmp_path):
    folder = Path(shutil.copytree(DEMO / "ltx-video", tmp_path / "ltx"))
    file = folder / "text_encoder" / "config.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps(told | {"architectures": ["UMT5EncoderModel"], "model_type": "umt5"}))
    with pytest.raises(ModelError, match=r"text_encoder of checkpoint .* is of class UMT5EncoderModel; known are CLIPTextModel"):
        PromptEncoder("t", ModelFiles(str(folder)))
    file.write_text(json.dumps({k: v for k, v in told.items() if k != "architectures"}))
    assert PromptEncoder("t", ModelFiles(str(folder))).t5


def test_a_vae_with_the_names_of_older_files_is_loaded_and_draws_the_same(tmp_path):
    folder = tiny_xl.write(tmp_path / "xl")
    before = KeyframeXLModel("k", ModelFiles(str(folder)), KeyframeSettings(64, 64, 2, 5.0)).pipe.vae.state_dict()
    (file,) = (folder / "vae").glob("*.safetensors")
    tensors = {}
    for key, value in load_file(file).items():
        for new, old in OLD_NAMES.items():
            key = key.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        tensors[key] = value
    assert any(".query." in key for key in tensors)
    save_file(tensors, file)
    after = KeyframeXLModel("k", ModelFiles(str(folder)), KeyframeSettings(64, 64, 2, 5.0)).pipe.vae.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_a_takes_certificate_tells_parts_noise_and_how_exact_each_lora_is(tmp_path):
    kohya(tmp_path / "a.safetensors", {f"{ATTENTION}.to_q": (4, 1.0), f"{ATTENTION}.to_k": (8, 8.0)})
    model = KeyframeModel("k", SD, KeyframeSettings(96, 64, 2, 3.0, "euler"))
    loras = (Lora(str(tmp_path / "a.safetensors"), 0.5),)
    (receipt,), _ = model.generate([still(HANA, 1, loras=loras)])
    told = json.loads(receipt.certificate)
    (file,) = Path(SD.checkpoint, "unet").glob("*.safetensors")
    assert told["parts"]["unet"] == told["parts"]["unet"] | {"class": "UNet2DConditionModel", "tensors": len(load_file(file)), "dtype": "float32"}
    assert told["noise"][0]["class"] == "EulerDiscreteScheduler" and told["noise"][0]["beta_schedule"] == "scaled_linear"
    (lora,) = told["loras"]
    assert (lora["file"], lora["weight"], lora["applied"], lora["modules"]) == ("a.safetensors", 0.5, "beside the weights", 2) and lora["error"] <= 1e-3
    assert json.loads(model.generate([still(HANA, 1)])[0][0].certificate)["loras"] == []


def test_the_certificate_of_a_clip_tells_its_betas_or_its_shift():
    linear = AnimateDiffModel("a", ANIMATE, ClipSettings(96, 64, 8, 8, 6, 2.0, strength=0.7, beta_schedule="linear"))
    assert linear.certificate["noise"][0]["beta_schedule"] == "linear" and "motion_adapter" in linear.certificate["parts"]
    assert LtxVideoModel("ltx", LTX, SHORT).certificate["noise"][0]["shift"] == 1.0


@pytest.mark.parametrize("fault", ["twice as strong", "another sign"])
def test_a_lora_that_would_change_a_module_otherwise_than_its_file_says_is_refused(tmp_path, monkeypatch, fault):
    kohya(tmp_path / "a.safetensors", {f"{ATTENTION}.to_q": (4, 4.0)})
    set_scale = LoraLayer.set_scale
    monkeypatch.setattr(LoraLayer, "set_scale", lambda layer, adapter, scale: set_scale(layer, adapter, 2.0 if "twice" in fault else -1.0))
    model = KeyframeModel("k", SD, STILLS)
    with pytest.raises(ModelError, match=r"LoRA .*a.safetensors: .*attn1_to_q would change by (1|2) of its size more or less than the file says"):
        model.prepare((Lora(str(tmp_path / "a.safetensors")),))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_lora_in_the_types_of_gpus_is_as_exact_as_the_type(tmp_path, dtype):
    kohya(tmp_path / "a.safetensors", {f"{ATTENTION}.to_q": (4, 4.0)})
    model = KeyframeModel("k", ModelFiles(SD.checkpoint, dtype=dtype), STILLS)
    model.prepare((Lora(str(tmp_path / "a.safetensors")),))
    (told,) = model.loras.told((Lora(str(tmp_path / "a.safetensors")),))
    assert 0 < told["error"] < torch.finfo(getattr(torch, dtype)).eps


def test_an_error_is_relative_to_the_size_of_the_change():
    said = torch.tensor([[3.0, 4.0]])
    assert lora_error(said * 1.001, said) == pytest.approx(1e-3, rel=1e-3)
    assert lora_error(torch.zeros(1, 2), torch.zeros(1, 2)) == 0 and lora_error(said, torch.zeros(1, 2)) == 5


def test_no_network_is_asked_while_any_model_is_loaded(tmp_path, monkeypatch):
    xl, sd, ltx = tiny_xl.write(tmp_path / "xl"), Path(SD.checkpoint), Path(LTX.checkpoint)
    files = {
        "xl.safetensors": tiny_xl.single_file(xl, tmp_path / "xl.safetensors"),
        "sd.safetensors": single_file(sd, tmp_path / "sd.safetensors"),
        "ltx.safetensors": single_ltx_file(ltx, tmp_path / "ltx.safetensors"),
        "motion.safetensors": motion_file(DEMO / "motion-adapter", tmp_path / "motion.safetensors"),
    }
    base = ltx_base(ltx, tmp_path / "base")

    def forbidden(*_: Any) -> None:
        raise AssertionError("a network is asked while a model is loaded")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, forbidden)
    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    for each in (SD, ModelFiles(str(files["sd.safetensors"]), base=str(sd))):
        KeyframeModel("k", each, STILLS)
        PromptEncoder("t", each)
        AnimateDiffModel("a", ModelFiles(each.checkpoint, str(files["motion.safetensors"]), base=each.base), SIXTEEN)
    for each in (ModelFiles(str(xl)), ModelFiles(str(files["xl.safetensors"]), base=str(xl))):
        KeyframeXLModel("k", each, KeyframeSettings(64, 64, 2, 5.0))
        PromptEncoder("t", each)
    for each in (LTX, ModelFiles(str(files["ltx.safetensors"]), base=str(base))):
        LtxVideoModel("l", each, SHORT)
        PromptEncoder("t", each)
