"""`tower models inspect`: each kind of file that producers hold is told for what it is, from its header alone."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from actors.lora_keys import keys_of
from actors.values import ModelError
from benchmarks.original_layout import single_file
from pipeline.plan.resolve import Resolver
from pipeline.registry.open_catalog import open_catalog
from pipeline.registry.workflows import Registry
from pipeline.story.episode import load_episode
from pipeline.story.settings import load_settings

from .conftest import DEMO, EPISODE, refused

SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1}
UNET = "model.diffusion_model."
SD15 = {
    f"{UNET}input_blocks.0.0.weight": (320, 4, 3, 3),
    f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
    f"{UNET}output_blocks.11.0.skip_connection.weight": (320, 640, 1, 1),
    "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
    "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight": (77, 768),
}
XL = {
    f"{UNET}input_blocks.0.0.weight": (320, 4, 3, 3),
    f"{UNET}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (640, 2048),
    "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
    "conditioner.embedders.0.transformer.text_model.embeddings.position_embedding.weight": (77, 768),
    "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias": (1280,),
}
LTX = {f"{UNET}patchify_proj.weight": (2048, 128)} | {f"{UNET}transformer_blocks.{n}.scale_shift_table": (6, 2048) for n in range(28)}
LTX_VAE = {"vae.encoder.conv_out.conv.weight": (129, 2048, 3, 3, 3), "vae.decoder.last_time_embedder.timestep_embedder.linear_1.weight": (256, 256)}
KOHYA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


def model(file: Path, tensors: dict[str, tuple[int, ...]], dtype: str = "F16", **metadata: str) -> Path:
    """A file of that header and full size; its weights are a hole that takes no disk."""
    told: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, shape in tensors.items():
        size = SIZES[dtype]
        for n in shape:
            size *= n
        told[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    header = json.dumps(told).encode()
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(header)) + header)
        out.truncate(8 + len(header) + end)
    return file


def lora(file: Path, width: int = 768, rank: int = 8, alpha: float = 4.0, **more: torch.Tensor) -> Path:
    tensors = {f"{KOHYA}.lora_down.weight": torch.zeros(rank, width), f"{KOHYA}.lora_up.weight": torch.zeros(320, rank), f"{KOHYA}.alpha": torch.tensor(alpha)}
    save_file(tensors | more, str(file))
    return file


@pytest.mark.parametrize(
    ("tensors", "metadata", "kind", "architecture", "words"),
    [
        (SD15, {}, "checkpoint", "Stable Diffusion 1.5", ["UNet", "VAE", "text encoder", "epsilon is assumed"]),
        (SD15 | {"v_pred": ()}, {}, "checkpoint", "Stable Diffusion 1.5", ["v-prediction (its marker v_pred)"]),
        (XL | {"v_pred": (), "ztsnr": ()}, {}, "checkpoint", "Stable Diffusion XL", ["v-prediction", "zero terminal SNR", "text encoders"]),
        (XL, {"modelspec.prediction_type": "v"}, "checkpoint", "Stable Diffusion XL", ["v-prediction (its metadata)"]),
        (SD15 | {f"{UNET}input_blocks.0.0.weight": (320, 9, 3, 3)}, {}, "checkpoint", "Stable Diffusion 1.5", ["an inpainting model"]),
        ({k: v for k, v in SD15.items() if "first_stage" not in k}, {}, "checkpoint", "Stable Diffusion 1.5", ["it lacks its VAE"]),
        (SD15 | {f"{UNET}output_blocks.1.0.weight": (3, 3), f"{UNET}output_blocks.1.0.weight_scale": ()}, {}, "checkpoint", "Stable Diffusion 1.5", ["must be multiplied by scales"]),
        (SD15 | {"something.else": (3,)}, {}, "checkpoint", "Stable Diffusion 1.5", ["1 keys, such as something.else"]),
        (LTX | LTX_VAE, {}, "checkpoint", "LTX-Video 2B", ["VAE of 0.9.5 or later"]),
        (LTX | LTX_VAE, {"config": '{"allowed_inference_steps": [1.0]}'}, "checkpoint", "LTX-Video 2B", ["distilled"]),
        (LTX | {"vae.decoder.conv_in.conv.weight": (1024, 128, 3, 3, 3)}, {}, "checkpoint", "LTX-Video 2B", ["VAE of 0.9.0"]),
        (LTX, {}, "checkpoint", "LTX-Video 2B", ["parts:   transformer\n", "its VAE comes from the base"]),
        ({"model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale": (128,)}, {}, "checkpoint", "Flux", ["no family for Flux"]),
        ({"emb_params": (4, 768)}, {}, "embedding (textual inversion)", "Stable Diffusion 1.5", ["4 vectors"]),
        ({"clip_l": (8, 768), "clip_g": (8, 1280)}, {}, "embedding (textual inversion)", "Stable Diffusion XL", ["8 vectors"]),
        ({"encoder.conv_in.weight": (128, 3, 3, 3), "decoder.conv_in.weight": (512, 4, 3, 3)}, {}, "VAE", "Stable Diffusion 1.5 or", ["overflows"]),
        ({"image_proj.latents": (1, 16, 768), "ip_adapter.1.to_k_ip.weight": (320, 768)}, {}, "IP-Adapter", "Stable Diffusion 1.5", ["plus"]),
        ({"initial_conv.weight": (512, 128, 3, 3, 3), "upsampler.0.weight": (1,)}, {}, "latent upsampler", "LTX-Video", ["as diffusers folders"]),
        ({"encoder.block.0.layer.0.SelfAttention.q.weight": (4096, 4096)}, {}, "text encoder", "T5", []),
        ({"who.knows": (3, 5, 7)}, {}, "unknown", "", ["nothing that Tower knows"]),
    ],
)  # fmt: skip
def test_every_kind_of_file_is_told_for_what_it_is(tmp_path, here, tensors, metadata, kind, architecture, words):
    file = model(tmp_path / "a.safetensors", tensors, **metadata)
    (row,) = json.loads(here("models", "inspect", file, "--json").out)
    assert (row["kind"], row["architecture"][: len(architecture)]) == (kind, architecture)
    text = here("models", "inspect", file).out
    assert all(word in text for word in words), text


@pytest.mark.parametrize(("longest", "middle", "version"), [(24, False, "v1.4 or v1.5"), (32, True, "v1.5-2"), (32, False, "v3")])
def test_motion_modules_are_told_apart(tmp_path, here, longest, middle, version):
    module = "motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.pos_encoder.pe"
    blocks = ["down_blocks.0.", "down_blocks.3.", *(["mid_block."] if middle else [])]
    (row,) = json.loads(here("models", "inspect", model(tmp_path / "mm.safetensors", {b + module: (1, longest, 320) for b in blocks}), "--json").out)
    assert version in row["architecture"] and f"makes up to {longest} frames" in row["notes"] and "linear" in " ".join(row["notes"])


def test_seven_gigabytes_are_told_without_reading_them(tmp_path, here):
    file = model(tmp_path / "xl.safetensors", XL | {f"{UNET}output_blocks.{n}.weight": (16384, 20480) for n in range(11)})
    assert file.stat().st_size > 7e9
    (row,) = json.loads(here("models", "inspect", file, "--json").out)
    assert row["architecture"] == "Stable Diffusion XL" and row["bytes"] == file.stat().st_size and row["parameters"] > 3.6e9


@pytest.mark.parametrize(
    "more",
    [
        {"hada_w1_a": (320, 4), "hada_w1_b": (4, 2048), "hada_w2_a": (320, 4), "hada_w2_b": (4, 2048)},
        {"lokr_w1": (4, 8), "lokr_w2_a": (80, 4), "lokr_w2_b": (4, 256)},
        {"diff": (320, 2048)},
    ],
)
def test_the_architecture_of_other_kinds_of_loras_is_told_by_the_width_that_they_read(tmp_path, here, more):
    file = model(tmp_path / "a.safetensors", {f"{KOHYA}.{name}": shape for name, shape in more.items()})
    (row,) = json.loads(here("models", "inspect", file, "--json").out)
    assert (row["architecture"], row["faults"]) == ("Stable Diffusion XL", [])


@pytest.mark.parametrize(
    "tensors",
    [
        {f"{KOHYA}.lora_down.weight": (), f"{KOHYA}.lora_up.weight": ()},
        {f"{KOHYA}.lora_down.weight": (4,), f"{KOHYA}.lora_up.weight": (4,)},
        {"down_blocks.0.attentions.0.attn2.to_k.weight": (), "conv_in.weight": (1,)},
        {f"{KOHYA}.lora_down.weight": (4, 4), f"{KOHYA}.lora_up.weight": (4, 4), f"{KOHYA}.alpha": (0,)},
    ],
)
def test_a_file_of_shapes_that_no_model_has_is_one_sentence(tmp_path, here, tensors):
    refused(here("models", "inspect", model(tmp_path / "a.safetensors", tensors, "BF16")), "a.safetensors")
    if f"{KOHYA}.lora_down.weight" in tensors:
        with pytest.raises(ModelError, match=r"^LoRA .* does not fit: "):
            keys_of(str(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("name", ["[SDXL] foo, v1 #2", "a: b", "- it's", "123", "日本語 v2"])
def test_the_line_that_uses_a_file_is_yaml_whatever_the_files_name(tmp_path, here, name):
    lora(tmp_path / f"{name}.safetensors")
    (row,) = json.loads(here("models", "inspect", tmp_path / f"{name}.safetensors", "--json").out)
    assert yaml.safe_load(row["use"]) == {"loras": [{"file": f"{name}.safetensors", "weight": 1.0}]}
    (tmp_path / "models").mkdir()
    shutil.copytree(DEMO / "stable-diffusion", tmp_path / "models" / name)
    here("models", "import", tmp_path / "models" / name, "--as", "mine")
    assert yaml.safe_load((tmp_path / "mine.yaml").read_text())["checkpoint"] == name


def test_a_loras_ranks_alphas_and_architecture_are_told(tmp_path, here):
    (row,) = json.loads(here("models", "inspect", lora(tmp_path / "hana.safetensors"), "--json").out)
    assert (row["kind"], row["architecture"], row["faults"]) == ("LoRA", "Stable Diffusion 1.5", [])
    assert row["ranks"] == {KOHYA: 8} and row["alphas"] == {KOHYA: 4.0} and row["use"] == "loras: [{file: hana.safetensors, weight: 1.0}]"
    (row,) = json.loads(here("models", "inspect", lora(tmp_path / "xl.safetensors", width=2048), "--json").out)
    assert (row["architecture"], row["family"], row["faults"]) == ("Stable Diffusion XL", "stable_diffusion_xl", [])


@pytest.mark.parametrize(
    ("more", "note"),
    [
        ({f"{KOHYA}.dora_scale": torch.ones(320, 1)}, "holds DoRA"),
        ({f"lora_unet_x.hada_w{n}_{side}": torch.ones(4, 4) for n in (1, 2) for side in "ab"}, "holds LoHa"),
        ({"lora_unet_x.lokr_w1": torch.ones(4, 4), "lora_unet_x.lokr_w2": torch.ones(4, 4)}, "holds LoKr"),
    ],
)  # fmt: skip
def test_the_kinds_of_a_lora_are_told(tmp_path, here, more, note):
    done = here("models", "inspect", lora(tmp_path / "a.safetensors", **more))
    assert done.code == 0 and note in done.out, done.out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({f"{KOHYA}.diff_b": torch.ones(320)}, "it holds differences of biases, which Tower does not apply"),
        ({"lora_unet_x.hada_w1_a": torch.ones(4, 4), "lora_unet_x.hada_w1_b": torch.ones(4, 4)}, "1 modules are not whole, such as lora_unet_x"),
        ({"lora_unet_x.lokr_w1": torch.ones(4, 4), "lora_unet_x.lokr_w2_b": torch.ones(4, 4)}, "1 modules are not whole"),
        ({"lora_unet_alone.lora_down.weight": torch.ones(4, 4)}, "1 modules are not whole, such as lora_unet_alone"),
        ({"who.knows": torch.ones(4)}, "1 keys belong to nothing, such as who.knows"),
    ],
)  # fmt: skip
def test_what_of_a_lora_would_be_lost_is_told(tmp_path, here, more, words):
    done = here("models", "inspect", lora(tmp_path / "a.safetensors", **more))
    assert done.code == 1 and words in done.out, done.out


def test_an_ltx_lora_with_a_prefix_that_is_passed_over_is_told(tmp_path, here):
    names = [f"transformer_blocks.{n}.attn1.to_q" for n in range(28)]
    for prefix, fits in (("diffusion_model.", True), ("lora_unet_", False)):
        tensors = {}
        for name in names:
            name = prefix + (name if fits else name.replace(".", "_"))
            tensors |= {f"{name}.lora_A.weight": torch.zeros(4, 2048), f"{name}.lora_B.weight": torch.zeros(2048, 4)}
        save_file(tensors, str(tmp_path / "a.safetensors"))
        (row,) = json.loads(here("models", "inspect", tmp_path / "a.safetensors", "--json").out)
        assert row["architecture"] == "LTX-Video" and (not row["faults"]) == fits, row


def test_folders_are_told_with_what_they_lack(tmp_path, here):
    done = here("models", "inspect", DEMO / "stable-diffusion", DEMO / "ltx-video", DEMO / "motion-adapter")
    assert done.code == 0 and "use:     checkpoint: ltx-video" in done.out and "vae/ in 3 shards" in done.out
    broken = tmp_path / "broken"
    shutil.copytree(DEMO / "ltx-video", broken)
    next((broken / "vae").glob("*-00002-*")).unlink()
    shutil.rmtree(broken / "tokenizer")
    weights = next((broken / "transformer").glob("*.safetensors"))
    weights.rename(weights.with_name("diffusion_pytorch_model.bin"))
    done = here("models", "inspect", broken)
    assert done.code == 1
    for words in ("vae/ lacks 1 of its 3 shards", "it lacks tokenizer/", "only diffusion_pytorch_model.bin, and Tower loads safetensors alone"):
        assert words in done.out, done.out


def test_an_inpainting_folder_and_a_class_without_a_family_are_told(tmp_path, here):
    for name, change, words in (
        ("unet/config.json", {"in_channels": 17}, "reads 17 channels where its VAE makes"),
        ("model_index.json", {"_class_name": "LatentConsistencyModelPipeline"}, "no family for LatentConsistencyModelPipeline"),
    ):
        folder = tmp_path / name.replace("/", "-")
        shutil.copytree(DEMO / "stable-diffusion", folder)
        told = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(told | change))
        done = here("models", "inspect", folder)
        assert done.code == 1 and words in done.out


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PK\x03\x04 a zip", "is a pickle, which is a program"),
        (b"\x80\x02}q\x00.", "is a pickle"),
        (b"<html>", "neither safetensors nor GGUF"),
        (b"", "neither safetensors nor GGUF"),
        (struct.pack("<Q", 10**15) + b"{}", "neither safetensors nor GGUF"),
        (struct.pack("<Q", 4) + b"{ope", "its header cannot be read"),
        (struct.pack("<Q", 2) + b"[]", "neither safetensors nor GGUF"),
        (b"GGUF" + b"\xff" * 40, "its header cannot be read"),
    ],
)
def test_what_is_no_model_file_is_one_sentence(tmp_path, here, data, words):
    file = tmp_path / "a.safetensors"
    file.write_bytes(data)
    done = here("models", "inspect", file)
    assert done.code == 2 and done.err.startswith("error: ") and done.err.count("\n") == 1 and words in done.err


def test_a_header_whose_length_begins_like_a_pickle_is_read(tmp_path, here):
    padding = {f"{KOHYA}.lora_down.weight": (4, 768), f"{KOHYA}.lora_up.weight": (320, 4)}
    file = model(tmp_path / "a.safetensors", padding)
    for length in range(0x480 - 8, 0x480 + 8):  # 0x80 0x04 is also how a pickle begins
        header = json.loads(file.read_bytes()[8 : 8 + int.from_bytes(file.read_bytes()[:8], "little")])
        text = json.dumps(header).ljust(length).encode()
        (tmp_path / "b.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(2 * (4 * 768 + 320 * 4)))
        assert here("models", "inspect", tmp_path / "b.safetensors").code == 0


def test_a_file_that_is_cut_off_is_told_with_its_sizes(tmp_path, here):
    file = model(tmp_path / "a.safetensors", SD15)
    with file.open("r+b") as out:
        out.truncate(file.stat().st_size - 100)
    done = here("models", "inspect", file)
    assert done.code == 2 and "is not whole: its header promises" in done.err


def test_a_gguf_file_is_told_by_its_header(tmp_path, here):
    def text(words: str) -> bytes:
        return struct.pack("<Q", len(words)) + words.encode()

    pairs = text("general.architecture") + struct.pack("<I", 8) + text("ltxv") + text("general.file_type") + struct.pack("<II", 4, 7)
    tensor = text("patchify_proj.weight") + struct.pack("<I", 2) + struct.pack("<QQ", 128, 2048) + struct.pack("<IQ", 8, 0)
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 2) + pairs + tensor)
    (row,) = json.loads(here("models", "inspect", tmp_path / "a.gguf", "--json").out)
    assert row["architecture"].startswith("LTX-Video") and row["parameters"] == 128 * 2048 and not row["faults"]
    assert row["use"].startswith("checkpoint: a.gguf, and base: ")


def test_a_checkpoint_is_imported_as_a_workflow_that_plans(tmp_path, here):
    models = tmp_path / "models"
    shutil.copytree(DEMO / "stable-diffusion", models / "base")
    single_file(DEMO / "stable-diffusion", models / "anime.safetensors")
    done = here("models", "import", models / "anime.safetensors", "--as", "anime_stills")
    assert done.code == 0 and "anime_stills@1 registered, as experimental" in done.out, done.err
    text = (tmp_path / "anime_stills.yaml").read_text()
    assert "checkpoint: anime.safetensors\nbase: base\n" in text and text.startswith("name: anime_stills\n")
    (tmp_path / "episode.yaml").write_text(EPISODE.replace("sd15_keyframe_demo", "anime_stills"))
    assert here("plan", "episode.yaml").code == 0
    (row,) = [r for r in json.loads(here("workflows", "list", "--json").out) if r["workflow"] == "anime_stills@1"]
    assert row["status"] == "experimental"
    refused(here("models", "import", models / "anime.safetensors", "--as", "anime_stills"), "anime_stills.yaml is there already")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("lora", ["is of kind LoRA", "loras: [{file: a.safetensors, weight: 1.0}]"]),
        ("outside", ["does not lie in TOWER_MODELS_DIR"]),
        ("alone", ["needs a base", "--base"]),
        ("cut", ["is not whole"]),
        ("inpainting", ["an inpainting model"]),
    ],
)
def test_what_cannot_be_imported_is_one_sentence_and_nothing_is_written(tmp_path, here, what, words):
    models = tmp_path / "models"
    models.mkdir()
    file = tmp_path / "a.safetensors" if what == "outside" else models / "a.safetensors"
    if what == "lora":
        lora(file)
    else:
        model(file, SD15 | ({f"{UNET}input_blocks.0.0.weight": (320, 9, 3, 3)} if what == "inpainting" else {}))
    if what == "cut":
        file.write_bytes(file.read_bytes()[:-7])
    refused(here("models", "import", file, "--as", "mine"), *words)
    assert not (tmp_path / "mine.yaml").exists()


def test_a_lora_of_which_a_part_would_be_lost_is_told_by_plan(tmp_path, here):
    (tmp_path / "models").mkdir()
    lora(tmp_path / "models" / "hana.safetensors", **{f"{KOHYA}.diff_b": torch.ones(320)})
    (tmp_path / "episode.yaml").write_text(EPISODE.replace("yellow coat}", "yellow coat, lora: {file: hana.safetensors}}", 1))
    refused(here("plan", "episode.yaml"), "hana", "it holds differences of biases, which Tower does not apply")


def test_a_lora_that_two_characters_of_a_shot_name_is_on_once_and_has_one_weight(tmp_path, here):
    (tmp_path / "models").mkdir()
    lora(tmp_path / "models" / "twins.safetensors")
    named = EPISODE.replace("coat}", "coat, lora: {file: twins.safetensors, weight: 0.8}}").replace("characters: [hana]", "characters: [hana, aoi]")
    (tmp_path / "episode.yaml").write_text(named)
    assert here("plan", "episode.yaml").code == 0
    episode = load_episode(tmp_path / "episode.yaml")
    settings = load_settings()
    resolver = Resolver(episode, tmp_path / "episode.yaml", settings, Registry(open_catalog(settings), settings))
    both = resolver.stages(*episode.shots[0])[0]
    assert [one.weight for one in both.loras] == [0.8]
    (tmp_path / "episode.yaml").write_text(named.replace("weight: 0.8", "weight: 0.5", 1))
    refused(here("plan", "episode.yaml"), "shot SH0010: its characters name LoRA", "with weights 0.5 and 0.8; in one shot it has one weight")
