"""AnimateDiff with the files that people hold: motion modules in one file, motion LoRAs, few steps, IP-Adapters and long clips."""

from __future__ import annotations

import shutil
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AnimateDiffVideoToVideoPipeline,
    DDIMScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    MotionAdapter,
    UNet2DConditionModel,
)
from diffusers.models.attention import FreeNoiseTransformerBlock
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from actors.animate_files import adapter_config
from actors.animatediff import AnimateDiffModel
from actors.keyframe import KeyframeModel
from actors.loading import to_uint8
from actors.motion_adapter import load_adapter
from actors.values import ClipRequest, ClipSettings, KeyframeRequest, Lora, ModelError, ModelFiles
from benchmarks.original_layout import motion_file, motion_key
from pipeline.registry.open_catalog import open_catalog
from pipeline.registry.workflows import Registry
from pipeline.render.needs import weights
from pipeline.story.errors import InputError
from pipeline.story.settings import Settings
from pipeline.story.workflow import LATER_FIELDS, WORKFLOWS, Workflow, read_workflow

from .conftest import EPISODE, refused, takes_of, tower
from .test_actors import ANIMATE, HANA, SD, STILLS, difference, first_frame, words
from .test_loading import change, forbidden
from .test_models import model as of_full_size

SHORT = ClipSettings(96, 64, 4, 8, 2, 2.0, strength=1.0)
PE = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.1.pos_encoder.pe"


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random motion modules for the demo's UNet, `v2` and `v3`, each a diffusers folder and a file of the original layout."""
    folder = tmp_path_factory.mktemp("modules")
    for name, middle in (("v2", True), ("v3", False)):
        torch.manual_seed(0)
        adapter = MotionAdapter((32, 64, 96), 1, motion_norm_num_groups=16, use_motion_mid_block=middle)
        for module in adapter.modules():
            if isinstance(module, torch.nn.Linear):
                torch.nn.init.normal_(module.weight, std=0.1)
        adapter.save_pretrained(folder / name)
        motion_file(folder / name, folder / f"{name}.safetensors")
    return folder


def files(adapter: Path) -> ModelFiles:
    return ModelFiles(SD.checkpoint, str(adapter))


def request(seed: int = 1, keyframe: int = 3, **more) -> ClipRequest:
    return ClipRequest("t", seed, prompt=words(HANA), negative=words(""), keyframe=first_frame(keyframe), **more)


def clip(model: AnimateDiffModel, **more) -> np.ndarray:
    return model.generate([request(**more)])[1][0]


def changed(file: Path, name: str, values) -> Path:
    """A copy of a file, with `values(tensors)` in place of its tensors."""
    target = file.with_name(f"{name}.safetensors")
    save_file(values(load_file(file)), target)
    return target


@pytest.mark.parametrize("name", ["v2", "v3"])
def test_motion_modules_in_one_file_move_as_their_folder_does_and_ask_no_network(modules, monkeypatch, name):
    monkeypatch.setattr(socket.socket, "connect", forbidden)
    one = load_adapter(str(modules / f"{name}.safetensors"), torch.float32)
    folder = MotionAdapter.from_pretrained(modules / name, local_files_only=True)
    assert (one.config.use_motion_mid_block, one.config.motion_max_seq_length) == (name == "v2", 32)
    assert one.state_dict().keys() == folder.state_dict().keys()
    assert all(torch.equal(value, folder.state_dict()[key]) for key, value in one.state_dict().items())
    clips = [clip(AnimateDiffModel("a", files(modules / path), SHORT)) for path in (name, f"{name}.safetensors")]
    assert np.array_equal(*clips)
    assert weights([str(modules / name)], False, "auto") <= weights([str(modules / f"{name}.safetensors")], False, "auto")


def test_a_motion_adapter_that_is_there_as_a_variant_alone_is_loaded(tmp_path):
    folder = Path(shutil.copytree(ANIMATE.motion_adapter, tmp_path / "motion"))
    plain = load_adapter(str(folder), torch.float32).state_dict()
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "diffusion_pytorch_model.fp16.safetensors")
    assert all(torch.equal(value, plain[name]) for name, value in load_adapter(str(folder), torch.float32).state_dict().items())


def test_motion_modules_in_diffusers_layout_or_with_a_trainers_prefix_are_told_by_their_keys(modules):
    folder = load_adapter(str(modules / "v2"), torch.float32).state_dict()
    bare = Path(shutil.copy(modules / "v2" / "diffusion_pytorch_model.safetensors", modules / "lightning.safetensors"))
    for file in (bare, motion_file(modules / "v2", modules / "prefixed.safetensors", "module.")):
        made = load_adapter(str(file), torch.float32).state_dict()
        assert made.keys() == folder.keys() and all(torch.equal(made[key], folder[key]) for key in folder)


def test_a_files_own_positional_encodings_count_and_two_of_one_block_that_differ_are_told(modules):
    half = changed(modules / "v2.safetensors", "half", lambda t: {k: v / 2 if k.endswith(".pe") else v for k, v in t.items()})
    made, whole = (load_adapter(str(file), torch.float32).state_dict() for file in (half, modules / "v2"))
    name = "down_blocks.0.motion_modules.0.transformer_blocks.0.pos_embed.pe"
    assert torch.equal(made[name], whole[name] / 2)
    odd = changed(modules / "v2.safetensors", "odd", lambda t: t | {PE: t[PE] + 1})
    with pytest.raises(ModelError, match=r"odd.safetensors cannot be loaded: .*attention_blocks.0.* and .*attention_blocks.1.* differ"):
        load_adapter(str(odd), torch.float32)


def spoiled(modules: Path, kind: str) -> Path:
    """A file that is no motion adapter for the demo's UNet, of one of the kinds below."""
    file = modules / "v2.safetensors"
    if kind == "cut":
        (modules / "cut.safetensors").write_bytes(file.read_bytes()[:-10])
        return modules / "cut.safetensors"
    if kind == "checkpoint":
        return changed(file, kind, lambda t: {"a": torch.zeros(3)})
    if kind == "no encodings":
        return changed(file, kind, lambda t: {k: v for k, v in t.items() if not k.endswith(".pe")})
    if kind == "less":
        return changed(file, kind, lambda t: {k: v for k, v in t.items() if k != "mid_block.motion_modules.0.temporal_transformer.proj_out.bias"})
    if kind == "more":
        return changed(file, kind, lambda t: t | {"conv_in.weight": torch.zeros(3)})
    if kind == "wide":
        MotionAdapter((32, 64), 1, motion_norm_num_groups=16).save_pretrained(modules / "two")
        return motion_file(modules / "two", modules / "wide.safetensors")
    if kind == "deep":
        MotionAdapter((32, 64, 96), 2, motion_norm_num_groups=16).save_pretrained(modules / "layers")
        return motion_file(modules / "layers", modules / "deep.safetensors")
    pe = "motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.pos_encoder.pe"
    return changed(file, kind, lambda t: {f"down_blocks.{n}.{pe}": torch.zeros(1, 32, width) for n, width in enumerate((320, 640, 1280))})


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("cut", "is not whole"),
        ("checkpoint", "is none: its tensors are of kind unknown"),
        ("no encodings", "nothing tells how many frames"),
        ("less", "it lacks 1 tensors of its motion modules, such as mid_block.motion_modules.0.proj_out.bias"),
        ("more", "1 of its keys belong to no motion module, such as conv_in.weight"),
        ("wide", "does not fit the UNet of .*: blocks of width 32, 64, and the UNet's 32, 64, 96"),
        ("deep", "layers a block 2, 2, 2, and the UNet's 1, 1, 1"),
        ("SDXL", "Tower animates with Stable Diffusion 1.5 alone"),
    ],
)
def test_a_file_that_is_no_motion_adapter_of_this_checkpoint_is_one_sentence(modules, kind, sentence):
    with pytest.raises(ModelError, match=sentence) as error:
        AnimateDiffModel("a", files(spoiled(modules, kind)), SHORT)
    assert "motion adapter" in str(error.value) or "is not whole" in str(error.value)


def mine(tmp_path: Path, here, **fields: str) -> None:
    """Register the demo's AnimateDiff workflow as `mine`, with these lines in place of its own; an episode uses it."""
    lines = [line for line in (WORKFLOWS / "animatediff_16_demo.yaml").read_text().splitlines() if line.split(":")[0] not in fields]
    text = "\n".join([*lines, *(f"{name}: {value}" for name, value in fields.items()), ""]).replace("animatediff_16_demo", "mine")
    (tmp_path / "mine.yaml").write_text(text.replace("version: 2", "version: 1"))
    (tmp_path / "episode.yaml").write_text(EPISODE.replace("animatediff_16_demo", "mine"))
    here("workflows", "register", tmp_path / "mine.yaml")


def test_a_workflow_of_motion_modules_in_one_file_is_checked_by_plan(tmp_path, here, modules):
    (tmp_path / "models").mkdir()
    file = Path(shutil.copy(modules / "v3.safetensors", tmp_path / "models" / "v3.safetensors"))
    mine(tmp_path, here, motion_adapter=file.name)
    done = here("plan", "episode.yaml")
    assert done.code == 0, done.err
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    refused(here("plan", "episode.yaml"), "workflow mine: motion_adapter", "is not whole")
    shutil.copy(spoiled(modules, "wide"), file)
    refused(here("plan", "episode.yaml"), "workflow mine: motion_adapter", "does not fit the UNet of")
    file.unlink()
    refused(here("plan", "episode.yaml"), "workflow mine: motion_adapter", "does not exist")


@pytest.mark.parametrize(("frames", "middle", "version"), [(24, False, "v1.4 or v1.5"), (32, True, "v1.5-2"), (32, False, "v3")])
def test_published_motion_modules_of_full_size_are_whole_by_their_headers(tmp_path, here, frames, middle, version):
    with torch.device("meta"):
        adapter = MotionAdapter(motion_max_seq_length=frames, use_motion_mid_block=middle)
    shapes = {name: tuple(value.shape) for key, value in adapter.state_dict().items() for name in motion_key(key)}
    done = here("models", "inspect", of_full_size(tmp_path / "mm.safetensors", shapes))
    assert done.code == 0 and f"AnimateDiff {version} for Stable Diffusion 1.5" in done.out and f"up to {frames} frames" in done.out, done.out
    assert adapter_config(str(tmp_path / "mm.safetensors"))["motion_max_seq_length"] == frames


def test_a_pickle_is_told_for_what_it_is_and_a_motion_adapter_makes_no_workflow_by_itself(tmp_path, here, modules):
    (tmp_path / "models").mkdir()
    shutil.copy(modules / "v3.safetensors", tmp_path / "models")
    refused(here("models", "import", "models/v3.safetensors", "--as", "mine"), "of kind motion module", "motion_adapter: v3.safetensors")
    (tmp_path / "models" / "mm_sd_v15_v2.ckpt").write_bytes(b"PK\x03\x04 a zip of pickles")
    mine(tmp_path, here, motion_adapter="mm_sd_v15_v2.ckpt")
    refused(here("plan", "episode.yaml"), "workflow mine: motion_adapter", "is a pickle, which is a program")


def test_frames_beyond_a_motion_adapter_are_told_by_plan(tmp_path, here):
    mine(tmp_path, here, num_frames="33")
    refused(here("plan", "episode.yaml"), "workflow mine: num_frames", "it makes 2 to 32 frames")


def test_inspect_prints_the_line_that_uses_a_file_of_motion_modules(modules, here):
    done = here("models", "inspect", modules / "v2.safetensors")
    assert done.code == 0 and "use:     motion_adapter: v2.safetensors" in done.out and "v1.5-2" in done.out, done.out
    assert "v3 for" in here("models", "inspect", modules / "v3.safetensors").out
    done = here("models", "inspect", modules / "v2" / "diffusion_pytorch_model.safetensors")
    assert done.code == 1 and "name the folder" in done.out


QUERY = "transformer_blocks.0.attn1"
STILL, MOVING = f"down_blocks.1.attentions.0.{QUERY}", f"down_blocks.1.motion_modules.0.{QUERY}"
# How published files name `MODULE.to_q` and `MODULE.to_out.0`: (what MODULE becomes, name of the query's tensors, the output's, with alpha).
WRITERS = {
    "v3_sd15_adapter": (STILL, "{}.processor.to_q_lora.{}.weight", "{}.processor.to_out_lora.{}.weight"),
    "bare": (STILL, "{}.to_q.lora_{}.weight", "{}.to_out.0.lora_{}.weight"),
    "bare PEFT": (STILL, "{}.to_q.lora_{AB}.weight", "{}.to_out.0.lora_{AB}.weight"),
    "diffusers, old": (STILL, "unet.{}.processor.to_q_lora.{}.weight", "unet.{}.processor.to_out_lora.{}.weight"),
    "diffusers": (STILL, "unet.{}.to_q.lora.{}.weight", "unet.{}.to_out.0.lora.{}.weight"),
    "motion, diffusers": (MOVING, "unet.{}.processor.to_q_lora.{}.weight", "unet.{}.processor.to_out_lora.{}.weight"),
    "motion, original": (
        MOVING.replace(f".{QUERY}", ".temporal_transformer.transformer_blocks.0.attention_blocks.0"),
        "{}.processor.to_q_lora.{}.weight",
        "{}.processor.to_out_lora.{}.weight",
    ),
}


def published(file: Path, writer: str, alpha: float | None = None) -> dict[str, torch.Tensor]:
    """A LoRA as a writer names its tensors. Returns the change that it should make to each module at weight 1."""
    module, *names = WRITERS[writer]
    rng, tensors, changes = torch.Generator().manual_seed(0), {}, {}
    for name, part in zip(names, ("to_q", "to_out.0"), strict=True):
        down, up = torch.randn(4, 64, generator=rng), torch.randn(64, 4, generator=rng)
        for side, value in (("down", down), ("up", up)):
            tensors[name.format(module, side, AB="A" if side == "down" else "B")] = value
        if alpha:
            tensors[name.format(module, "down", AB="A").split("_lora.")[0].split(".lora")[0] + ".alpha"] = torch.tensor(alpha)
        changes[f"{MOVING if 'motion' in writer else STILL}.{part}"] = (alpha or 4) / 4 * up @ down
    save_file(tensors, file)
    return changes


@pytest.mark.parametrize("alpha", [None, 2.0])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_lora_of_animatediff_changes_each_module_as_its_file_says_whoever_wrote_it(tmp_path, writer, alpha):
    changes = published(tmp_path / "a.safetensors", writer, alpha)
    model = AnimateDiffModel("a", ANIMATE, SHORT)
    plain = clip(model)
    lora = Lora(str(tmp_path / "a.safetensors"), 0.5)
    styled = clip(model, loras=(lora,))
    layers = {name: layer for name, layer in model.pipe.unet.named_modules() if "lora0" in getattr(layer, "scaling", {})}
    assert layers.keys() == changes.keys()
    for name, layer in layers.items():
        made = layer.scaling["lora0"] * layer.lora_B["lora0"].weight @ layer.lora_A["lora0"].weight
        assert torch.allclose(made, 0.5 * changes[name], rtol=1e-3, atol=1e-6), name
    assert not np.array_equal(plain, styled) and np.array_equal(clip(model), plain)


def test_a_motion_lora_is_told_by_plan_where_nothing_moves(tmp_path, here, modules):
    (tmp_path / "models").mkdir()
    published(tmp_path / "models" / "pan.safetensors", "motion, original")
    with pytest.raises(ModelError, match=r"pan.safetensors does not fit: it is a motion LoRA, which belongs to"):
        KeyframeModel("k", SD, STILLS).prepare((Lora(str(tmp_path / "models" / "pan.safetensors")),))
    mine(tmp_path, here, loras="[{file: pan.safetensors, weight: 0.8}]")
    assert here("plan", "episode.yaml").code == 0
    text = (tmp_path / "episode.yaml").read_text()
    (tmp_path / "episode.yaml").write_text(text.replace("hana: {name: Hana,", "hana: {name: Hana, lora: {file: pan.safetensors},"))
    refused(here("plan", "episode.yaml"), "character hana: lora", "it is a motion LoRA")
    text = (WORKFLOWS / "sd15_keyframe_demo.yaml").read_text() + "loras: [{file: pan.safetensors, weight: 1.0}]\n"
    (tmp_path / "stills.yaml").write_text(text.replace("sd15_keyframe_demo", "stills"))
    (tmp_path / "episode.yaml").write_text(EPISODE.replace("sd15_keyframe_demo", "stills"))
    here("workflows", "register", tmp_path / "stills.yaml")
    refused(here("plan", "episode.yaml"), "workflow stills: loras", "it is a motion LoRA")


@pytest.mark.parametrize("writer", ["motion, original", "motion, diffusers"])
def test_inspect_tells_a_motion_lora(tmp_path, here, writer):
    published(tmp_path / "pan.safetensors", writer)
    done = here("models", "inspect", tmp_path / "pan.safetensors")
    assert done.code == 0 and "motion LoRA, Stable Diffusion 1.5" in done.out and "use:     loras: [{file: pan.safetensors" in done.out


def plainly(settings: ClipSettings, scheduler, adapter: Path = Path(ANIMATE.motion_adapter), prepare=lambda pipe: {}, seed: int = 1, keyframe: int = 3, texts: bool = False) -> np.ndarray:
    """The clip that diffusers makes of the same request, called as its own documentation does. prepare(pipe): more arguments of the call. texts: the prompts are given as text."""
    parts = {} if texts else {"text_encoder": None, "tokenizer": None}
    parts |= {"motion_adapter": MotionAdapter.from_pretrained(adapter, local_files_only=True)}
    pipe = AnimateDiffVideoToVideoPipeline.from_pretrained(SD.checkpoint, dtype=torch.float32, local_files_only=True, **parts)
    pipe.scheduler = scheduler(pipe.scheduler.config)
    more = prepare(pipe)
    asked, s = request(seed, keyframe), settings
    embeds = {name: torch.from_numpy(text.embeds)[None] for name, text in (("prompt_embeds", asked.prompt), ("negative_prompt_embeds", asked.negative))}
    embeds = {"prompt": HANA, "negative_prompt": ""} if texts else embeds
    with torch.no_grad():
        frames = pipe(
            video=[[Image.fromarray(asked.keyframe)] * s.num_frames], **embeds, width=s.width, height=s.height, num_inference_steps=s.num_inference_steps,
            strength=s.strength, guidance_scale=s.guidance_scale, generator=torch.Generator().manual_seed(seed), output_type="pt", **more,
        ).frames[0]  # fmt: skip
    return to_uint8(frames)[0]


LCM = ClipSettings(96, 64, 4, 8, 4, 1.0, "lcm", "linear", strength=1.0)
LIGHTNING = replace(LCM, scheduler="euler", timestep_spacing="trailing")


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize(
    ("settings", "scheduler"),
    [
        (LCM, lambda config: LCMScheduler.from_config(config, beta_schedule="linear")),
        (LIGHTNING, lambda config: EulerDiscreteScheduler.from_config(config, beta_schedule="linear", timestep_spacing="trailing")),
    ],
)
def test_few_steps_are_those_of_a_plain_call_of_diffusers(settings, scheduler, strength):
    settings = replace(settings, strength=strength)
    model = AnimateDiffModel("a", ANIMATE, settings)
    once = clip(model)
    assert np.array_equal(once, plainly(settings, scheduler))
    assert np.array_equal(once, clip(model)) and not np.array_equal(once, clip(model, seed=2)), "lcm's own noise comes from the seed too"
    assert np.array_equal(clip(model), clip(AnimateDiffModel("b", ANIMATE, settings)))


def visited(model: AnimateDiffModel) -> list[tuple[int, int]]:
    """(noise level, frames in the batch) of each call of the denoiser while a clip is made."""
    seen: list[tuple[int, int]] = []
    hook = model.pipe.unet.register_forward_pre_hook(lambda _, args: seen.append((int(args[1]), args[0].shape[0])))
    clip(model)
    hook.remove()
    return seen


@pytest.mark.parametrize(
    ("settings", "levels"),
    [
        (LIGHTNING, [999, 749, 499, 249]),
        (replace(LIGHTNING, strength=0.5), [499, 249]),
        (replace(LIGHTNING, strength=0.1), [249]),
        (replace(LCM, strength=0.1), [259]),
        (replace(LCM, strength=0.1, num_inference_steps=1), [999]),
    ],
)
def test_little_strength_and_few_steps_still_take_a_step_and_guidance_1_no_negative_pass(settings, levels):
    assert visited(AnimateDiffModel("a", ANIMATE, settings)) == [(level, 1) for level in levels]
    assert {batch for _, batch in visited(AnimateDiffModel("a", ANIMATE, replace(settings, guidance_scale=2.0)))} == {2}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"timestep_spacing": "trailing", "scheduler": "lcm"}, "timestep_spacing is not for scheduler lcm"),
        ({"scheduler": "lcm", "num_inference_steps": "60"}, "lcm takes at most 50"),
    ],
)
def test_settings_of_few_steps_that_would_mean_nothing_are_refused(tmp_path, fields, sentence):
    text = (WORKFLOWS / "animatediff_16_demo.yaml").read_text().replace("num_inference_steps: 16\n", "" if "num_inference_steps" in fields else "num_inference_steps: 4\n")
    (tmp_path / "mine.yaml").write_text(text + "".join(f"{name}: {value}\n" for name, value in fields.items()))
    with pytest.raises(InputError, match=sentence):
        read_workflow(tmp_path / "mine.yaml")
    (tmp_path / "ltx.yaml").write_text((WORKFLOWS / "ltx_video_2b.yaml").read_text() + "timestep_spacing: trailing\n")
    with pytest.raises(InputError, match="timestep_spacing belongs to family stable_diffusion and stable_diffusion_xl and animatediff"):
        read_workflow(tmp_path / "ltx.yaml")


def test_stills_take_the_scheduler_and_the_spacing_that_their_workflow_names():
    model = KeyframeModel("k", SD, replace(STILLS, scheduler="euler", timestep_spacing="trailing", num_inference_steps=4, batch_size=1))
    model.pipe.scheduler.set_timesteps(4)
    assert [int(t) for t in model.pipe.scheduler.timesteps] == [999, 749, 499, 249]
    model = KeyframeModel("k", SD, replace(STILLS, scheduler="lcm", num_inference_steps=4, batch_size=1))
    asked = KeyframeRequest("t", 1, prompt=words(HANA), negative=words(""))
    assert np.array_equal(model.generate([asked])[1][0], model.generate([asked])[1][0])


def test_later_fields_are_left_out_at_their_defaults():
    for name, value in LATER_FIELDS.items():
        assert Workflow.model_fields[name].get_default(call_default_factory=True) == value, name


def test_fields_of_animatediff_that_change_nothing_leave_a_workflows_digest_as_it_was():
    written = read_workflow(WORKFLOWS / "animatediff_16.yaml").model_dump(mode="json")
    assert not {"timestep_spacing", "ip_adapter", "image_encoder", "ip_adapter_scale", "context_length", "context_overlap"} & written.keys()


LIKE = replace(SHORT, ip_adapter_scale=0.8)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as published: `models/plain.safetensors`, `models/plus.safetensors`, and `models/image_encoder/`; tiny and random."""
    folder = tmp_path_factory.mktemp("adapters") / "models"
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, image_size=32, patch_size=8)
    for name, width in (("image_encoder", 16), ("wide_encoder", 24)):
        CLIPVisionModelWithProjection(CLIPVisionConfig(projection_dim=width, **sizes)).save_pretrained(folder / name)
    text = UNet2DConditionModel.load_config(SD.checkpoint, subfolder="unet")["cross_attention_dim"]
    places = {}
    unet = UNet2DConditionModel.from_pretrained(SD.checkpoint, subfolder="unet", local_files_only=True)
    for n, name in enumerate(unet.attn_processors):
        if "attn2" in name:
            width = unet.get_submodule(name.removesuffix(".processor")).to_q.weight.shape[0]
            places |= {f"ip_adapter.{n}.to_{part}_ip.weight": 0.3 * torch.randn(width, text) for part in "kv"}
    plain = {"proj.weight": torch.randn(4 * text, 16), "proj.bias": torch.randn(4 * text), "norm.weight": torch.ones(text), "norm.bias": torch.zeros(text)}
    plus = {"latents": torch.randn(1, 4, 64), "proj_in.weight": torch.randn(64, 32), "proj_in.bias": torch.zeros(64), "proj_out.weight": torch.randn(text, 64)}
    plus |= {"proj_out.bias": torch.zeros(text), "norm_out.weight": torch.ones(text), "norm_out.bias": torch.zeros(text)}
    for n in range(4):
        shapes = {"0.to_q.weight": (64, 64), "0.to_kv.weight": (128, 64), "0.to_out.weight": (64, 64), "1.1.weight": (256, 64), "1.3.weight": (64, 256)}
        plus |= {f"layers.{n}.{name}": 0.1 * torch.randn(shape) for name, shape in shapes.items()}
        plus |= {f"layers.{n}.{norm}.{kind}": torch.ones(64) for norm in ("0.norm1", "0.norm2", "1.0") for kind in ("weight", "bias")}
    for name, part in (("plain", plain), ("plus", plus)):
        save_file({f"image_proj.{key}": value for key, value in part.items()} | places, folder / f"{name}.safetensors")
    return folder


def alike(adapters: Path, name: str = "plain", encoder: str = "image_encoder", **more) -> ModelFiles:
    return replace(ANIMATE, ip_adapter=str(adapters / f"{name}.safetensors"), image_encoder=str(adapters / encoder), **more)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("name", ["plain", "plus"])
def test_an_ip_adapter_attends_to_the_keyframe_as_in_a_plain_call_of_diffusers(adapters, monkeypatch, name, guidance):
    settings = replace(LIKE, guidance_scale=guidance)

    def prepare(pipe):
        pipe.load_ip_adapter(str(adapters.parent), subfolder="models", weight_name=f"{name}.safetensors", local_files_only=True)
        pipe.set_ip_adapter_scale(settings.ip_adapter_scale)
        return {"ip_adapter_image": Image.fromarray(first_frame(3))}

    wanted = plainly(settings, lambda config: DDIMScheduler.from_config(config), prepare=prepare)
    monkeypatch.setattr(socket.socket, "connect", forbidden)
    model = AnimateDiffModel("a", alike(adapters, name), settings)
    made, none = clip(model), clip(AnimateDiffModel("b", ANIMATE, settings))
    assert np.array_equal(made, wanted) and not np.array_equal(made, none)
    assert np.array_equal(clip(model, parameters=(("ip_adapter_scale", 0.0),)), none), "at scale 0 as without it"
    assert np.array_equal(clip(model), made), "and nothing stays behind"


def test_an_ip_adapter_alone_tells_keyframes_apart(adapters):
    """At strength 1 nothing of the keyframe is left in the noise, so only the IP-Adapter can tell."""
    model, other = AnimateDiffModel("a", alike(adapters), LIKE), AnimateDiffModel("b", ANIMATE, LIKE)
    assert difference(clip(model, keyframe=3), clip(model, keyframe=4)) > 4 * difference(clip(other, keyframe=3), clip(other, keyframe=4))


def test_an_ip_adapters_weights_lie_where_those_of_a_still_would(adapters):
    tensors = load_file(adapters / "plain.safetensors")
    parts = {part: {k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(part)} for part in ("image_proj", "ip_adapter")}
    unet = UNet2DConditionModel.from_pretrained(SD.checkpoint, subfolder="unet", local_files_only=True)
    unet._load_ip_adapter_weights([parts])
    moving = AnimateDiffModel("a", alike(adapters), LIKE).pipe.unet.attn_processors
    for name, place in unet.attn_processors.items():
        if "attn2" in name:
            assert torch.equal(place.to_v_ip[0].weight, moving[name].to_v_ip[0].weight), name


def test_loras_change_a_clip_with_an_ip_adapter_and_leave_nothing_behind(adapters, tmp_path):
    published(tmp_path / "a.safetensors", "v3_sd15_adapter")
    model = AnimateDiffModel("a", alike(adapters), LIKE)
    plain, styled, again = clip(model), clip(model, loras=(Lora(str(tmp_path / "a.safetensors")),)), clip(model)
    assert not np.array_equal(plain, styled) and np.array_equal(plain, again)


XL_WIDTH = {"ip_adapter.1.to_k_ip.weight": torch.zeros(640, 2048)}


@pytest.mark.parametrize(
    ("name", "encoder", "values", "sentence"),
    [
        ("plain", "wide_encoder", None, "image encoder .* does not fit IP-Adapter .*: its projection_dim is 24, and 16 is wanted"),
        ("plain", "missing", None, "image encoder .* does not exist"),
        ("plain", "image_encoder", lambda t: t | {"ip_adapter.99.to_k_ip.weight": torch.zeros(64, 128)}, "does not fit this checkpoint: it has .* numbers"),
        ("plain", "image_encoder", lambda t: {k: v for k, v in t.items() if k != "image_proj.norm.bias"}, "does not fit this checkpoint"),
        ("plain", "image_encoder", lambda t: dict(sorted(t.items())[2:]), "does not fit this checkpoint"),
        ("plain", "image_encoder", lambda t: t | {"lora.down": torch.zeros(2)}, "1 of its keys belong to no IP-Adapter, such as lora.down"),
        ("plus", "image_encoder", lambda t: {k: v[:, :8].contiguous() if k == "image_proj.proj_in.weight" else v for k, v in t.items()}, "its hidden_size is 32, and 8 is wanted"),
        ("plain", "image_encoder", lambda t: {k: v for k, v in t.items() if not k.startswith("ip_adapter")} | XL_WIDTH, "is for Stable Diffusion XL, with text of width 2048"),
        ("plain", "image_encoder", lambda t: t | {"image_proj.perceiver_resampler.proj_in.weight": torch.zeros(8, 8), "image_proj.proj.0.weight": torch.zeros(8, 8)} if t.pop("image_proj.proj.weight") is not None else {}, "of kind FaceID"),
        ("plain", "image_encoder", lambda t: {"a": torch.zeros(3)}, "is none: its tensors are of kind unknown"),
    ],
)  # fmt: skip
def test_an_ip_adapter_that_does_not_fit_is_one_sentence(adapters, name, encoder, values, sentence):
    if values:
        changed(adapters / f"{name}.safetensors", "other", values)
    with pytest.raises(ModelError, match=sentence):
        AnimateDiffModel("a", alike(adapters, "other" if values else name, encoder), LIKE)


def test_an_image_encoder_that_is_not_whole_or_none_is_one_sentence(adapters, tmp_path):
    lacking, other = (Path(shutil.copytree(adapters / "image_encoder", tmp_path / name)) for name in ("lacking", "other"))
    changed(lacking / "model.safetensors", "less", lambda t: {k: v for k, v in t.items() if k != "visual_projection.weight"}).rename(lacking / "model.safetensors")
    with pytest.raises(ModelError, match=r"image encoder .* lacks 1 tensors, such as visual_projection.weight"):
        AnimateDiffModel("a", replace(alike(adapters), image_encoder=str(lacking)), LIKE)
    change(other / "config.json", architectures=["CLIPTextModel"])
    with pytest.raises(ModelError, match=r"image encoder .* is none: a folder of transformers' CLIPVisionModelWithProjection"):
        AnimateDiffModel("a", replace(alike(adapters), image_encoder=str(other)), LIKE)


def test_a_workflow_with_an_ip_adapter_is_checked_by_plan_and_its_files_are_in_its_digest(tmp_path, here, adapters):
    models = Path(shutil.copytree(adapters, tmp_path / "models"))
    mine(tmp_path, here, ip_adapter="plain.safetensors", image_encoder="image_encoder", ip_adapter_scale="0.5")
    assert here("plan", "episode.yaml").code == 0
    settings = Settings(models_dir=models)
    registry = Registry(open_catalog(settings), settings)
    workflow = read_workflow(tmp_path / "mine.yaml")
    before, names = registry.prepare(workflow), registry.models(workflow)
    assert {"plain.safetensors", "image_encoder"} <= names.keys() and before.files.ip_adapter == str(models / "plain.safetensors")
    size = sum(weights([str(path)], False, "auto") for path in (models / "plain.safetensors", models / "image_encoder"))
    assert weights(before.files.weights, False, "auto") - weights(replace(before.files, ip_adapter=None, image_encoder=None).weights, False, "auto") == size > 0
    changed(models / "plain.safetensors", "new", lambda t: {k: v + 1 for k, v in t.items()}).rename(models / "plain.safetensors")
    assert Registry(open_catalog(settings), settings).prepare(workflow).digest != before.digest
    encoder = models / "image_encoder" / "model.safetensors"
    other = Registry(open_catalog(settings), settings).prepare(workflow).digest
    changed(encoder, "new", lambda t: {k: v + 1 for k, v in t.items()}).rename(encoder)
    assert Registry(open_catalog(settings), settings).prepare(workflow).digest != other
    shutil.rmtree(models / "image_encoder")
    shutil.copytree(adapters / "wide_encoder", models / "image_encoder")
    refused(here("plan", "episode.yaml"), "workflow mine: ip_adapter", "its projection_dim is 24, and 16 is wanted")


@pytest.mark.parametrize(
    ("file", "line", "sentence"),
    [
        ("animatediff_16", "ip_adapter: a.safetensors", "ip_adapter and image_encoder belong together"),
        ("animatediff_16", "ip_adapter_scale: 0.5", "ip_adapter_scale means nothing without ip_adapter"),
        ("ltx_video_2b", "ip_adapter: a.safetensors\nimage_encoder: b", "ip_adapter belongs to family animatediff"),
    ],
)
def test_fields_of_an_ip_adapter_that_would_mean_nothing_are_refused(tmp_path, file, line, sentence):
    (tmp_path / "mine.yaml").write_text((WORKFLOWS / f"{file}.yaml").read_text() + line + "\n")
    with pytest.raises(InputError, match=sentence):
        read_workflow(tmp_path / "mine.yaml")


def test_inspect_prints_the_line_that_uses_an_ip_adapter(adapters, here, tmp_path):
    plain = changed(adapters / "plain.safetensors", "sd15", lambda t: {k: torch.zeros(8, 768) if "_ip" in k else v for k, v in t.items()})
    done = here("models", "inspect", plain)
    assert done.code == 0 and "use:     ip_adapter: sd15.safetensors" in done.out and "its image encoder's projection_dim is 16" in done.out


LONG = ClipSettings(96, 64, 12, 8, 2, 2.0, strength=1.0, context_length=8, context_overlap=4)


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A motion adapter that makes at most eight frames."""
    folder = tmp_path_factory.mktemp("eight") / "eight"
    torch.manual_seed(0)
    MotionAdapter((32, 64, 96), 1, motion_norm_num_groups=16, motion_max_seq_length=8).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_clip_longer_than_its_motion_adapter_is_that_of_a_plain_call_of_diffusers(eight, guidance):
    settings = replace(LONG, guidance_scale=guidance)
    model = AnimateDiffModel("a", files(eight), settings)
    made = clip(model)
    wanted = plainly(settings, lambda c: DDIMScheduler.from_config(c), eight, lambda pipe: pipe.enable_free_noise(8, 4) or {}, texts=True)
    assert made.shape == (12, 64, 96, 3) and np.abs(made.astype(int) - wanted.astype(int)).max() <= 1, "prompts are interpolated with themselves there"
    assert np.array_equal(made, clip(model)) and not np.array_equal(made, clip(model, seed=2))
    assert difference(made[0], made[11]) > 0 and difference(made[3], made[8]) > 0


def test_windows_change_a_clip_that_would_fit_at_once_and_motion_loras_reach_them(tmp_path):
    at_once, windows = AnimateDiffModel("a", ANIMATE, replace(LONG, context_length=None)), AnimateDiffModel("b", ANIMATE, LONG)
    plain = clip(windows)
    assert not np.array_equal(clip(at_once), plain)
    published(tmp_path / "pan.safetensors", "motion, original")
    assert not np.array_equal(clip(windows, loras=(Lora(str(tmp_path / "pan.safetensors")),)), plain) and np.array_equal(clip(windows), plain)


@pytest.mark.parametrize(
    ("frames", "context", "overlap", "sentence"),
    [
        (12, None, 4, "it makes 2 to 8 frames, and more only with a context_length"),
        (12, 9, 4, "context_length 9 does not fit this motion adapter: it makes 2 to 8"),
        (12, 8, 8, "context_overlap 8 is not less than context_length 8"),
        (13, 8, 4, r"num_frames 13 does not fit windows of 8 that share 4: 8 \+ 4k frames do, such as 12"),
        (6, 8, 4, "such as 8"),
    ],
)
def test_lengths_that_windows_cannot_make_are_one_sentence(eight, frames, context, overlap, sentence):
    settings = replace(LONG, num_frames=frames, context_length=context, context_overlap=overlap)
    with pytest.raises(ModelError, match=sentence):
        AnimateDiffModel("a", files(eight), settings)


def test_diffusers_still_weighs_the_last_frames_wrongly_where_windows_do_not_end_with_the_clip():
    """Why such lengths are refused. When this fails, they may be allowed."""
    block = FreeNoiseTransformerBlock(8, 2, 4, double_self_attention=True, context_length=8, context_stride=4).eval()
    for name, value in block.named_parameters():
        if "norm" not in name:
            torch.nn.init.zeros_(value)  # so that nothing is added, and the frames should come back as they are
    with torch.no_grad():
        whole, rest = (block(torch.ones(1, frames, 8)) for frames in (12, 14))
    assert torch.allclose(whole, torch.ones_like(whole)) and not torch.allclose(rest, torch.ones_like(rest))


def test_a_workflow_of_a_long_clip_is_checked_by_plan(tmp_path, here):
    mine(tmp_path, here, num_frames="40", context_length="16")
    done = here("plan", "episode.yaml")
    assert done.code == 0, done.err
    for number, (frames, context, sentence) in enumerate([("41", "16", "such as 40"), ("64", "64", "2 to 32 frames at once")], 2):
        text = (tmp_path / "mine.yaml").read_text().replace("num_frames: 40", f"num_frames: {frames}").replace("context_length: 16", f"context_length: {context}")
        (tmp_path / "mine.yaml").write_text(text.replace("version: 1", f"version: {number}"))
        here("workflows", "register", tmp_path / "mine.yaml")
        refused(here("plan", "episode.yaml"), "workflow mine: num_frames", sentence)
        mine(tmp_path, here, num_frames="40", context_length="16")


@pytest.mark.parametrize(
    ("file", "line", "sentence"),
    [
        ("animatediff_16", "context_overlap: 5", "context_overlap means nothing without context_length"),
        ("ltx_video_2b", "context_length: 16", "context_length belongs to family animatediff"),
    ],
)
def test_fields_of_windows_that_would_mean_nothing_are_refused(tmp_path, file, line, sentence):
    (tmp_path / "mine.yaml").write_text((WORKFLOWS / f"{file}.yaml").read_text() + line + "\n")
    with pytest.raises(InputError, match=sentence):
        read_workflow(tmp_path / "mine.yaml")


def everything(adapters: Path, modules: Path, lora: Path) -> ModelFiles:
    return alike(adapters, "plus", motion_adapter=str(modules / "v2.safetensors"), loras=(Lora(str(lora), 0.5),))


def test_all_of_it_together_in_16_bits_stays_near_32(adapters, modules, tmp_path):
    published(tmp_path / "pan.safetensors", "motion, original")
    few = dict(num_frames=6, context_length=4, context_overlap=2, guidance_scale=1.0)
    settings = replace(LONG, scheduler="lcm", beta_schedule="linear", ip_adapter_scale=0.5, **few)
    found = everything(adapters, modules, tmp_path / "pan.safetensors")
    half, whole = (AnimateDiffModel("a", replace(found, dtype=dtype), settings) for dtype in ("float16", "float32"))
    assert {p.dtype for part in (half.pipe.unet, half.pipe.image_encoder) for p in part.parameters()} == {torch.float16}
    assert difference(clip(half), clip(whole)) < 1


@pytest.mark.ray
def test_a_workflow_of_all_of_it_renders_its_clips(adapters, modules, tmp_path):
    models = Path(shutil.copytree(adapters, tmp_path / "models"))
    shutil.copy(modules / "v2.safetensors", models)
    published(models / "pan.safetensors", "motion, original")
    lines = {
        "name": "mine", "version": "1", "motion_adapter": "v2.safetensors", "ip_adapter": "plus.safetensors", "image_encoder": "image_encoder",
        "ip_adapter_scale": "0.5", "loras": "[{file: pan.safetensors, weight: 0.5}]", "num_frames": "20", "context_length": "8", "scheduler": "lcm",
        "num_inference_steps": "4", "beta_schedule": "linear", "retry": "{max_attempts: 1}",
    }  # fmt: skip
    kept = [line for line in (WORKFLOWS / "animatediff_16_demo.yaml").read_text().splitlines() if line.split(":")[0] not in lines]
    (tmp_path / "mine.yaml").write_text("\n".join([*kept, *(f"{name}: {value}" for name, value in lines.items()), ""]))
    text = EPISODE[: EPISODE.index("      - {id: SH0020")].replace("frames: 60", "frames: 24").replace("ltx_video_2b_demo", "mine")
    (tmp_path / "episode.yaml").write_text(text)
    assert tower("workflows", "register", "mine.yaml", cwd=tmp_path).code == 0
    done = tower("render", "episode.yaml", "--allow-experimental", cwd=tmp_path)
    clips = [take for take in takes_of(tmp_path) if take["stage"] == "clip"]
    assert clips and all(take["outcome"] != "error" and take["frames"] == 20 for take in clips), done.out + done.err
