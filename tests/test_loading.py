"""Published layouts and settings in miniature: loaded right, or refused in a sentence before anything renders."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from actors.animatediff import AnimateDiffModel
from actors.folders import weight_files
from actors.keyframe import KeyframeModel
from actors.lora_keys import keys_of
from actors.ltx_video import LtxVideoModel
from actors.prompts import PromptEncoder
from actors.values import ClipRequest, ClipSettings, KeyframeRequest, Lora, ModelError, ModelFiles, TextSettings
from benchmarks.original_layout import single_file
from pipeline.registry.workflows import settings_digest
from pipeline.render.needs import weights
from pipeline.story.errors import InputError
from pipeline.story.workflow import WORKFLOWS, Workflow, read_workflow

from .conftest import DEMO, EPISODE, refused, takes_of, tower
from .test_actors import ANIMATE, HANA, LTX, SD, SIXTEEN, STILLS, animatediff, still, words

DISTILLED = (1000, 993, 987, 981, 975, 909, 725, 0.03)  # LTX-Video 0.9.8's own noise levels


@pytest.fixture
def stills(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO / "stable-diffusion", tmp_path / "stills"))


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def picture(checkpoint: Path) -> np.ndarray:
    return KeyframeModel("stills", ModelFiles(str(checkpoint)), STILLS).generate([still(HANA, 1)])[1][0]


def clip() -> ClipRequest:
    return ClipRequest("t1", 1, prompt=words(HANA, ltx=True), negative=words("", ltx=True), keyframe=np.full((64, 96, 3), 128, np.uint8))


def test_animatediff_samples_on_the_betas_that_its_workflow_names_and_stills_keep_theirs():
    linear = AnimateDiffModel("a", ANIMATE, ClipSettings(96, 64, 8, 8, 6, 2.0, strength=0.7, beta_schedule="linear"))
    told = linear.pipe.scheduler.config
    betas = torch.linspace(told.beta_start, told.beta_end, told.num_train_timesteps)
    if told.rescale_betas_zero_snr:  # arXiv 2305.08891, algorithm 1
        root = torch.cumprod(1 - betas, 0).sqrt()
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
        alphas = root**2
    else:
        alphas = torch.cumprod(1 - betas, 0)
    assert torch.allclose(linear.pipe.scheduler.alphas_cumprod, alphas, atol=1e-6)
    own = animatediff().pipe.scheduler.alphas_cumprod
    assert abs(float(own[500] - alphas[500])) > 0.01, "the checkpoint's own betas are others"
    assert KeyframeModel("k", SD, STILLS).pipe.scheduler.config.beta_schedule == "scaled_linear"


def test_a_workflow_of_animatediff_takes_linear_betas_unless_it_says_otherwise(tmp_path):
    text = (WORKFLOWS / "animatediff_16.yaml").read_text()
    assert read_workflow(WORKFLOWS / "animatediff_16.yaml").beta_schedule == "linear"
    (tmp_path / "mine.yaml").write_text(text.replace("beta_schedule: linear\n", ""))
    assert read_workflow(tmp_path / "mine.yaml").beta_schedule == "linear"
    (tmp_path / "mine.yaml").write_text(text.replace("beta_schedule: linear", "beta_schedule: checkpoint"))
    mine = read_workflow(tmp_path / "mine.yaml")
    assert mine.beta_schedule == "checkpoint"
    stored = json.loads(mine.model_dump_json())
    assert "beta_schedule" not in stored and settings_digest(Workflow.model_validate(stored)) == settings_digest(mine), "as before the field"
    (tmp_path / "ltx.yaml").write_text((WORKFLOWS / "ltx_video_2b.yaml").read_text() + "beta_schedule: linear\n")
    with pytest.raises(InputError, match="beta_schedule belongs to family"):
        read_workflow(tmp_path / "ltx.yaml")


@pytest.mark.parametrize("scheduler", [{"shift": 3.0}, {"shift_terminal": 0.1}, {"use_dynamic_shifting": True}])
def test_a_distilled_models_noise_levels_are_visited_as_they_are_whatever_the_checkpoints_scheduler_would_shift(tmp_path, scheduler):
    folder = Path(shutil.copytree(DEMO / "ltx-video", tmp_path / "ltx"))
    change(folder / "scheduler" / "scheduler_config.json", **scheduler)
    model = LtxVideoModel("ltx", ModelFiles(str(folder)), ClipSettings(96, 64, 9, 24, 8, 1.0, timesteps=DISTILLED))
    visited = []
    step = model.pipe.scheduler.step

    def seen(noise: torch.Tensor, t: torch.Tensor, *args: Any, **more: Any) -> Any:
        scheduler, made = model.pipe.scheduler, step(noise, t, *args, **more)
        visited.append((float(t), float(scheduler.sigmas[scheduler.step_index - 1])))  # what the model is told, and where it is
        return made

    model.pipe.scheduler.step = seen
    model.generate([clip()])
    assert visited == [(pytest.approx(t, abs=1e-2), pytest.approx(t / 1000, abs=1e-5)) for t in DISTILLED]


@pytest.mark.parametrize("scheduler", ["euler", "ddim"])
def test_a_scheduler_that_a_family_cannot_sample_with_is_told_when_the_model_is_built(scheduler):
    settings = ClipSettings(96, 64, 9, 24, 2, 1.0, timesteps=(1000, 500), scheduler=scheduler)
    with pytest.raises(ModelError, match="ltx cannot make a take: "):
        LtxVideoModel("ltx", LTX, settings)


def test_dynamic_shifting_without_given_noise_levels_is_told_when_the_model_is_built(tmp_path):
    folder = Path(shutil.copytree(DEMO / "ltx-video", tmp_path / "ltx"))
    change(folder / "scheduler" / "scheduler_config.json", use_dynamic_shifting=True)
    with pytest.raises(ModelError, match="ltx cannot make a take: "):
        LtxVideoModel("ltx", ModelFiles(str(folder)), ClipSettings(96, 64, 9, 24, 4, 1.0))


def test_a_safety_checker_and_other_extras_of_a_folder_are_never_loaded(stills):
    before = picture(DEMO / "stable-diffusion")
    extras = {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"], "feature_extractor": ["transformers", "CLIPImageProcessor"]}
    change(stills / "model_index.json", **extras, requires_safety_checker=True)
    for name in extras:
        (stills / name).mkdir()
        (stills / name / "model.safetensors").write_bytes(b"whoever opens this fails")
    (stills / "v1-5-pruned.safetensors").write_bytes(b"the original file lies beside it in published folders")
    assert np.array_equal(picture(stills), before)


def test_a_folder_that_holds_only_a_variant_is_loaded(stills):
    before = picture(DEMO / "stable-diffusion")
    for part in ("unet", "vae", "text_encoder"):
        (file,) = (stills / part).glob("*.safetensors")
        file.rename(file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")))
    assert np.array_equal(picture(stills), before)
    encoded = [PromptEncoder("t", ModelFiles(str(folder))).encode([HANA])[0].embeds for folder in (stills, DEMO / "stable-diffusion")]
    assert np.array_equal(*encoded)


def test_a_variant_in_shards_is_loaded(tmp_path):
    from diffusers import UNet2DConditionModel

    folder = Path(shutil.copytree(DEMO / "stable-diffusion", tmp_path / "sharded"))
    UNet2DConditionModel.from_pretrained(folder, subfolder="unet").save_pretrained(tmp_path / "unet", variant="fp16", max_shard_size="1MB")
    shutil.rmtree(folder / "unet")
    shutil.move(tmp_path / "unet", folder / "unet")
    for part in ("vae", "text_encoder"):
        (file,) = (folder / part).glob("*.safetensors")
        file.rename(file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")))
    assert len(list((folder / "unet").glob("*.safetensors"))) > 1
    assert np.array_equal(picture(folder), picture(DEMO / "stable-diffusion"))


def test_a_folder_of_which_one_part_alone_is_in_a_variant_is_loaded(stills):
    before = picture(DEMO / "stable-diffusion")
    (file,) = (stills / "unet").glob("*.safetensors")
    file.rename(file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")))
    assert np.array_equal(picture(stills), before)
    assert np.array_equal(*(PromptEncoder("t", ModelFiles(str(f))).encode([HANA])[0].embeds for f in (stills, DEMO / "stable-diffusion")))


def test_a_t5_in_shards_of_a_variant_is_loaded_and_plain_shards_come_first(tmp_path):
    wanted = PromptEncoder("t", LTX).encode([HANA])[0].embeds
    shutil.copytree(LTX.checkpoint, tmp_path / "ltx")
    folder = tmp_path / "ltx" / "text_encoder"
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for variant in (".fp16", ""):
        name = f"model{variant}-00001-of-00001.safetensors"
        save_file(tensors, folder / name, metadata={"format": "pt"})
        index = f"model.safetensors.index{variant}.json"
        (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(tensors, name)}))
        assert [file.name for file in weight_files(folder)] == [name]
        assert np.array_equal(PromptEncoder("t", ModelFiles(str(tmp_path / "ltx"))).encode([HANA])[0].embeds, wanted)


def test_a_tensor_that_a_checkpoint_lacks_is_named(stills):
    (file,) = (stills / "unet").glob("*.safetensors")
    tensors = load_file(file)
    tensors.pop("conv_out.weight")
    save_file(tensors, file)
    with pytest.raises(ModelError, match=r"lacks 1 tensors of its unet, such as conv_out.weight"):
        picture(stills)


@pytest.mark.parametrize(
    ("file", "values", "sentence"),
    [
        ("model_index.json", {"_class_name": "StableDiffusionXLPipeline"}, "for family stable_diffusion_xl and not for stable_diffusion"),
        ("model_index.json", {"_class_name": "LatentConsistencyModelPipeline"}, "Tower has no family for LatentConsistencyModelPipeline"),
        ("unet/config.json", {"in_channels": 17}, "for inpainting or editing, and draws no prompt"),
        ("model_index.json", {"_class_name": "LTXPipeline"}, "for family ltx_video and not for stable_diffusion"),
    ],
)
def test_a_checkpoint_that_no_take_could_come_of_is_told_by_plan(tmp_path, here, file, values, sentence):
    folder = Path(shutil.copytree(DEMO / "stable-diffusion", tmp_path / "models" / "stills"))
    change(folder / file, **values)
    text = (WORKFLOWS / "sd15_keyframe_demo.yaml").read_text().replace("demo:stable-diffusion", "stills").replace("sd15_keyframe_demo", "mine")
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "episode.yaml").write_text(EPISODE.replace("sd15_keyframe_demo", "mine"))
    here("workflows", "register", tmp_path / "mine.yaml")
    refused(here("plan", "episode.yaml"), "workflow mine: checkpoint", sentence)


def test_a_prompt_length_that_is_no_whole_number_of_clips_windows_is_told_when_it_is_built(stills):
    with pytest.raises(ModelError, match=r"max_tokens 150: CLIP of checkpoint .* reads 40 tokens at a time; 40 or 160 would do"):
        PromptEncoder("t", SD, TextSettings(150))
    told = json.loads((stills / "tokenizer" / "tokenizer_config.json").read_text())
    told.pop("model_max_length", None)
    (stills / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(told))
    encoder = PromptEncoder("t", ModelFiles(str(stills)))
    assert encoder.max_tokens == encoder.encoder.config.max_position_embeddings


def test_a_t5_tokenizer_that_tells_no_length_needs_one_from_the_workflow(tmp_path):
    folder = Path(shutil.copytree(DEMO / "ltx-video", tmp_path / "ltx"))
    told = json.loads((folder / "tokenizer" / "tokenizer_config.json").read_text())
    told.pop("model_max_length", None)
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(told))
    with pytest.raises(ModelError, match="does not say how long a prompt may be; give max_tokens"):
        PromptEncoder("t", ModelFiles(str(folder)))
    assert PromptEncoder("t", ModelFiles(str(folder)), TextSettings(64)).max_tokens == 64


def test_the_first_guess_of_memory_counts_what_would_be_opened_and_nothing_else(stills):
    before = [weights([str(stills)], text, "auto") for text in (False, True)]
    for part in ("unet", "vae", "text_encoder"):
        (file,) = (stills / part).glob("*.safetensors")
        for other in (".fp16", ".non_ema"):
            shutil.copy(file, file.with_name(file.name.replace(".safetensors", f"{other}.safetensors")))
    shutil.copytree(stills / "unet", stills / "safety_checker")
    shutil.copy(next((stills / "unet").glob("*.safetensors")), stills / "v1-5-pruned-emaonly.safetensors")
    assert [weights([str(stills)], text, "auto") for text in (False, True)] == before


def kohya(path: Path, modules: dict[str, tuple[int, float | None]]) -> dict[str, torch.Tensor]:
    """A LoRA in kohya's layout: module of the UNet to (rank, alpha). Returns the change that it should make to each module."""
    from diffusers import UNet2DConditionModel

    unet = dict(UNet2DConditionModel.from_pretrained(SD.checkpoint, subfolder="unet").named_modules())
    rng, tensors, changes = torch.Generator().manual_seed(0), {}, {}
    for module, (rank, alpha) in modules.items():
        out, width = unet[module].weight.shape[:2]
        down, up = (torch.randn(shape, generator=rng) for shape in ((rank, width), (out, rank)))
        name = "lora_unet_" + module.replace(".", "_")
        tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        tensors |= {} if alpha is None else {f"{name}.alpha": torch.tensor(alpha)}
        changes[module] = (1.0 if alpha is None else alpha / rank) * up @ down
    save_file(tensors, path)
    return changes


ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"


def test_a_lora_changes_each_module_as_its_file_says_whatever_its_rank_and_alpha(tmp_path):
    file = tmp_path / "resized.safetensors"
    wanted = kohya(file, {f"{ATTENTION}.to_q": (4, 1.0), f"{ATTENTION}.to_k": (8, 8.0), f"{ATTENTION}.to_v": (2, 6.0), f"{ATTENTION}.to_out.0": (4, None)})
    model = KeyframeModel("x", SD, STILLS)
    model.loras.use((Lora(str(file), 0.5),))
    modules = dict(model.pipe.unet.named_modules())
    for name, change in wanted.items():
        layer = modules[name]
        made = layer.scaling["lora0"] * layer.lora_B["lora0"].weight @ layer.lora_A["lora0"].weight
        assert torch.allclose(made, 0.5 * change, rtol=1e-3, atol=1e-6), name


def test_alphas_in_the_metadata_that_diffusers_writes_are_applied(tmp_path):
    width = KeyframeModel("x", SD, STILLS).pipe.unet.get_submodule(f"{ATTENTION}.to_q").weight.shape[0]
    shapes = {"A": (4, width), "B": (width, 4)}
    tensors = {f"unet.{ATTENTION}.{part}.lora_{side}.weight": torch.randn(shapes[side]) for part in ("to_q", "to_k") for side in "AB"}
    told = {"unet.r": 4, "unet.lora_alpha": 2, "unet.alpha_pattern": {f"{ATTENTION}.to_k": 12}, "unet.target_modules": ["to_q", "to_k"]}
    save_file(tensors, tmp_path / "a.safetensors", metadata={"lora_adapter_metadata": json.dumps(told), "format": "pt"})
    model = KeyframeModel("x", SD, STILLS)
    model.loras.use((Lora(str(tmp_path / "a.safetensors")),))
    assert [model.pipe.unet.get_submodule(f"{ATTENTION}.{part}").scaling["lora0"] for part in ("to_q", "to_k")] == [0.5, 3.0]


def adapter(path: Path, told: object, part: str = f"unet.{ATTENTION}.to_q", width: int = 128) -> Lora:
    """A LoRA as diffusers writes it, with PEFT's configuration in its metadata."""
    tensors = {f"{part}.lora_A.weight": torch.randn(4, width), f"{part}.lora_B.weight": torch.randn(width, 4)}
    save_file(tensors, path, metadata={"lora_adapter_metadata": told if isinstance(told, str) else json.dumps(told)})
    return Lora(str(path))


def test_a_rank_stabilised_lora_is_divided_by_the_root_of_its_rank(tmp_path):
    model = KeyframeModel("x", SD, STILLS)
    width = model.pipe.unet.get_submodule(f"{ATTENTION}.to_q").weight.shape[0]
    model.prepare((adapter(tmp_path / "a.safetensors", {"unet.lora_alpha": 8, "unet.use_rslora": True}, width=width),))
    assert model.pipe.unet.get_submodule(f"{ATTENTION}.to_q").scaling["lora0"] == 4.0


def test_a_text_encoders_alpha_is_its_own_and_not_that_of_the_unet(tmp_path):
    place = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    lora = adapter(tmp_path / "a.safetensors", {"unet.lora_alpha": 8, "text_encoder.lora_alpha": 2}, place)
    assert keys_of(lora.file).strength(place) == 0.5


@pytest.mark.parametrize("told", ["no JSON", "null", {"unet.lora_alpha": "much"}, {"unet.lora_alpha": 4, "unet.alpha_pattern": {"(": 3}}])
def test_metadata_of_a_lora_that_cannot_be_read_are_one_sentence(tmp_path, told):
    with pytest.raises(ModelError, match=r"^LoRA .* does not fit: its metadata lora_adapter_metadata are no configuration of PEFT$"):
        keys_of(adapter(tmp_path / "a.safetensors", told).file)


def test_a_lora_that_a_workflow_and_a_character_both_name_counts_twice(tmp_path):
    kohya(tmp_path / "a.safetensors", {f"{ATTENTION}.to_q": (4, 4.0)})
    model, file = KeyframeModel("x", SD, STILLS), str(tmp_path / "a.safetensors")
    model.prepare((Lora(file, 0.5), Lora(file, 0.25)))
    assert model.pipe.unet.get_submodule(f"{ATTENTION}.to_q").scaling["lora0"] == 0.75


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"lora_unet_x.dora_scale": (4, 1)}, "1 modules are not whole, such as lora_unet_x"),
        ({"lora_unet_x.hada_w1_a": (4, 4)}, "1 modules are not whole"),
        ({"lora_unet_x.on_input": (4, 4)}, "it holds IA3, which Tower does not apply"),
        ({"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 8)}, "1 modules are not whole"),
        ({"lora_unet_nowhere.lora_down.weight": (4, 8), "lora_unet_nowhere.lora_up.weight": (8, 4)}, "nowhere"),
        ({"nobody.knows": (4,)}, "1 keys belong to nothing, such as nobody.knows"),
    ],
)
def test_a_lora_of_which_a_part_would_be_lost_is_refused_whole(tmp_path, extra, words):
    kohya(tmp_path / "a.safetensors", {f"{ATTENTION}.to_q": (4, 4.0)})
    tensors = load_file(tmp_path / "a.safetensors")
    save_file(tensors | {name: torch.ones(shape) for name, shape in extra.items()}, tmp_path / "b.safetensors")
    with pytest.raises(ModelError, match=rf"LoRA .*b.safetensors does not fit.*{words}"):
        KeyframeModel("x", SD, STILLS).prepare((Lora(str(tmp_path / "b.safetensors")),))


@pytest.mark.parametrize("prefix", ["diffusion_model.", "transformer.", "lora_unet_"])
def test_a_lora_for_ltx_is_applied_or_refused_by_its_prefix_and_never_passed_over(tmp_path, prefix):
    model = LtxVideoModel("ltx", LTX, ClipSettings(96, 64, 9, 24, 2, 1.0))
    width = model.pipe.transformer.get_submodule("transformer_blocks.0.attn1.to_q").weight.shape[0]
    name = prefix + ("transformer_blocks_0_attn1_to_q" if prefix == "lora_unet_" else "transformer_blocks.0.attn1.to_q")
    save_file({f"{name}.lora_A.weight": torch.randn(4, width), f"{name}.lora_B.weight": torch.randn(width, 4)}, tmp_path / "a.safetensors")
    if prefix == "lora_unet_":
        with pytest.raises(ModelError, match="does not fit this checkpoint"):
            model.loras.use((Lora(str(tmp_path / "a.safetensors")),))
        return
    model.loras.use((Lora(str(tmp_path / "a.safetensors")),))
    assert model.pipe.transformer.get_submodule("transformer_blocks.0.attn1.to_q").scaling["lora0"] == 1.0


@pytest.mark.parametrize("place", ["transformer_blocks.0.attn1.to_q", "patchify_proj", "adaln_single.linear"])
def test_a_lora_for_ltx_in_the_names_of_trainers_changes_each_module_as_its_file_says(tmp_path, place):
    model = LtxVideoModel("ltx", LTX, ClipSettings(96, 64, 9, 24, 2, 1.0))
    layer = place.replace("patchify_proj", "proj_in").replace("adaln_single", "time_embed")
    out, width = model.pipe.transformer.get_submodule(layer).weight.shape
    matrices = {"lora_down.weight": torch.randn(4, width), "lora_up.weight": torch.randn(out, 4), "alpha": torch.tensor(2.0)}
    save_file({f"diffusion_model.{place}.{name}": value for name, value in matrices.items()}, tmp_path / "a.safetensors")
    model.loras.use((Lora(str(tmp_path / "a.safetensors")),))
    assert model.pipe.transformer.get_submodule(layer).scaling["lora0"] == 0.5


def test_a_checkpoint_in_one_file_draws_what_its_folder_draws_and_asks_no_network(tmp_path, monkeypatch):
    file = single_file(Path(SD.checkpoint), tmp_path / "one.safetensors")
    before, encoded = picture(Path(SD.checkpoint)), PromptEncoder("t", SD).encode([HANA])[0]
    monkeypatch.setattr(socket.socket, "connect", forbidden)
    one = ModelFiles(str(file), base=SD.checkpoint)
    assert np.array_equal(PromptEncoder("t", one).encode([HANA])[0].embeds, encoded.embeds)
    assert np.array_equal(KeyframeModel("stills", one, STILLS).generate([still(HANA, 1)])[1][0], before)
    request = ClipRequest("t1", 1, prompt=words(HANA), negative=words(""), keyframe=clip().keyframe)
    animated = AnimateDiffModel("a", ModelFiles(str(file), ANIMATE.motion_adapter, base=SD.checkpoint), SIXTEEN)
    assert np.array_equal(animated.generate([request])[1][0], animatediff().generate([request])[1][0])
    assert weights([str(file)], True, "auto") == weights([SD.checkpoint], True, "auto")
    assert weights([str(file)], False, "auto") == weights([SD.checkpoint], False, "auto")


def forbidden(*_: Any) -> None:
    raise AssertionError("a network is asked while a model is loaded")


def test_the_markers_of_a_file_count_more_than_the_scheduler_of_its_base(tmp_path):
    base = Path(shutil.copytree(SD.checkpoint, tmp_path / "base"))
    change(base / "scheduler" / "scheduler_config.json", prediction_type="epsilon", rescale_betas_zero_snr=False, timestep_spacing="leading")
    plain = single_file(base, tmp_path / "plain.safetensors")
    marked = single_file(base, tmp_path / "marked.safetensors", v_pred=torch.zeros(1), ztsnr=torch.zeros(1))
    told = [KeyframeModel("k", ModelFiles(str(file), base=str(base)), STILLS).pipe.scheduler.config for file in (plain, marked)]
    assert [(t.prediction_type, t.rescale_betas_zero_snr) for t in told] == [("epsilon", False), ("v_prediction", True)]


def test_a_workflow_that_contradicts_the_markers_of_its_file_is_told_by_plan(tmp_path, here):
    models = tmp_path / "models"
    models.mkdir()
    single_file(Path(SD.checkpoint), models / "one.safetensors", v_pred=torch.zeros(1))
    text = (WORKFLOWS / "sd15_keyframe_demo.yaml").read_text().replace("sd15_keyframe_demo", "mine")
    text = text.replace("checkpoint: demo:stable-diffusion", "checkpoint: one.safetensors\nbase: demo:stable-diffusion\nprediction_type: PREDICTION")
    (tmp_path / "episode.yaml").write_text(EPISODE.replace("sd15_keyframe_demo", "mine"))
    for version, wanted in enumerate(("epsilon", "v_prediction"), 1):
        (tmp_path / "mine.yaml").write_text(text.replace("PREDICTION", wanted).replace("version: 1", f"version: {version}"))
        assert here("workflows", "register", tmp_path / "mine.yaml").code == 0
        done = here("plan", "episode.yaml")
        if wanted == "epsilon":
            refused(done, "workflow mine: prediction_type: epsilon, and", "says of itself that it is of v_prediction")
    assert done.code == 0


def test_a_file_with_a_tensor_too_few_or_too_many_is_told(tmp_path):
    file = single_file(Path(SD.checkpoint), tmp_path / "one.safetensors")
    tensors = load_file(file)
    extra = "model.diffusion_model.input_blocks.9.9.weight"
    for name, changed in (("more", tensors | {extra: torch.zeros(1)}), ("less", {k: v for k, v in tensors.items() if not k.endswith("out.2.bias")})):
        save_file(changed, tmp_path / f"{name}.safetensors")
        with pytest.raises(ModelError, match=r"unet of checkpoint .* (has \d+ tensors, and the configuration|cannot be loaded)"):
            KeyframeModel("k", ModelFiles(str(tmp_path / f"{name}.safetensors"), base=SD.checkpoint), STILLS)


def test_a_workflow_of_a_single_file_is_checked_by_plan_and_renders(tmp_path, here):
    models = tmp_path / "models"
    models.mkdir()
    single_file(Path(SD.checkpoint), models / "one.safetensors")
    text = (WORKFLOWS / "sd15_keyframe_demo.yaml").read_text().replace("sd15_keyframe_demo", "mine").replace("version: 1", "version: 1")
    text = text.replace("checkpoint: demo:stable-diffusion", "checkpoint: one.safetensors\nbase: demo:stable-diffusion")
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "episode.yaml").write_text(EPISODE.replace("sd15_keyframe_demo", "mine"))
    here("workflows", "register", tmp_path / "mine.yaml")
    assert here("plan", "episode.yaml").code == 0
    whole = (models / "one.safetensors").read_bytes()
    (models / "one.safetensors").write_bytes(whole[:-10])
    refused(here("plan", "episode.yaml"), "workflow mine: checkpoint", "is not whole")
    save_file({"a": torch.zeros(1)}, models / "one.safetensors")
    refused(here("plan", "episode.yaml"), "workflow mine: checkpoint", "nothing that Tower knows")
    for wrong, sentence in (("base: demo:stable-diffusion\n", "base belongs to"), ("one.safetensors", "base belongs to")):
        (tmp_path / "wrong.yaml").write_text(text.replace(wrong, "" if wrong.startswith("base") else "demo:stable-diffusion"))
        refused(here("workflows", "register", tmp_path / "wrong.yaml"), sentence)


TEXT = "text_model_encoder_layers_0_self_attn_q_proj"


def with_text(path: Path, prefix: str = "lora_te_", module: str = TEXT, alpha: float = 8.0) -> tuple[Lora, torch.Tensor]:
    """A LoRA for a module of the UNet and one of the text encoder, and the change that it should make to the latter."""
    kohya(path, {f"{ATTENTION}.to_q": (4, 4.0)})
    width = PromptEncoder("t", SD).encoder.config.hidden_size
    down, up = torch.randn(4, width, generator=torch.Generator().manual_seed(1)), torch.randn(width, 4, generator=torch.Generator().manual_seed(2))
    name = prefix + module
    text = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(alpha)}
    save_file(load_file(path) | text, path)
    return Lora(str(path), 0.5), alpha / 4 * up @ down


def layer_of(encoder: PromptEncoder) -> torch.nn.Linear:
    return encoder.encoder.get_submodule("encoder.layers.0.self_attn.q_proj")


@pytest.mark.parametrize(("prefix", "module"), [("lora_te_", TEXT), ("text_encoder.", "text_model.encoder.layers.0.self_attn.q_proj")])
def test_a_loras_part_for_the_text_encoder_changes_the_prompt_as_its_file_says_and_leaves_nothing_behind(tmp_path, prefix, module):
    lora, change = with_text(tmp_path / "a.safetensors", prefix, module)
    encoder = PromptEncoder("t", SD)
    plain = encoder.encode([HANA])[0].embeds
    styled = encoder.encode([HANA], (lora,))[0].embeds
    by_hand = PromptEncoder("t", SD)
    with torch.no_grad():
        layer_of(by_hand).weight += 0.5 * change
    assert np.allclose(by_hand.encode([HANA])[0].embeds, styled, atol=1e-5) and not np.allclose(plain, styled, atol=1e-3)
    assert np.array_equal(encoder.encode([HANA])[0].embeds, plain)
    KeyframeModel("x", SD, STILLS).prepare((lora,))


def test_several_loras_change_the_text_encoder_together(tmp_path):
    (one, a), (two, b) = with_text(tmp_path / "a.safetensors"), with_text(tmp_path / "b.safetensors", alpha=2.0)
    encoder = PromptEncoder("t", SD)
    both = encoder.encode([HANA], (one, two))[0].embeds
    by_hand = PromptEncoder("t", SD)
    with torch.no_grad():
        layer_of(by_hand).weight += 0.5 * a + 0.5 * b
    assert np.allclose(by_hand.encode([HANA])[0].embeds, both, atol=1e-5)


def test_a_part_for_another_text_encoder_is_refused(tmp_path):
    lora, _ = with_text(tmp_path / "a.safetensors", module="text_model_encoder_layers_99_self_attn_q_proj")
    with pytest.raises(ModelError, match="has no place in the text encoder"):
        PromptEncoder("t", SD).prepare((lora,))
    with pytest.raises(ModelError, match="of a text encoder that this family does not have"):
        LtxVideoModel("ltx", LTX, ClipSettings(96, 64, 9, 24, 2, 1.0)).loras.use((lora,))


@pytest.mark.ray
def test_a_characters_lora_with_a_text_part_renders_with_both_parts(tmp_path):
    (tmp_path / "models").mkdir()
    lora, _ = with_text(tmp_path / "models" / "hana.safetensors")
    text = EPISODE.replace("hana: {name: Hana,", "hana: {name: Hana, lora: {file: hana.safetensors, weight: 0.5},")
    text = text[: text.index("      - {id: SH0020")].replace("frames: 60", "frames: 24")
    (tmp_path / "episode.yaml").write_text(text.replace("clip_workflow: ltx_video_2b_demo", "clip_workflow: animatediff_16_demo"))
    done = tower("render", "episode.yaml", cwd=tmp_path)
    takes = [t for t in takes_of(tmp_path) if t["outcome"] != "error"]
    assert takes and not done.err.startswith("error"), done.out + done.err
    still = next(t for t in takes if t["stage"] == "keyframe")
    encoder = PromptEncoder("t", SD)
    settings = read_workflow(WORKFLOWS / "sd15_keyframe_demo.yaml").settings()
    request = KeyframeRequest("t", still["seed"], (lora,), prompt=encoder.encode([still["prompt"]], (lora,))[0], negative=encoder.encode([still["negative_prompt"] or ""], (lora,))[0])
    made = KeyframeModel("k", SD, settings).generate([request])[1][0]
    stored = np.asarray(Image.open(tmp_path / "catalog-data" / still["media_path"]).convert("RGB"))
    assert np.array_equal(made, stored), "the same picture as from both parts, by hand"
