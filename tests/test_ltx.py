"""LTX-Video as people hold it: files, noise, memory, keyframes. Each loaded right, or refused in a sentence."""

from __future__ import annotations

import json
import shutil
import socket
import weakref
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLLTXVideo, LTXLatentUpsamplePipeline, LTXVideoTransformer3DModel
from diffusers.loaders.single_file_utils import convert_ltx_transformer_checkpoint_to_diffusers, convert_ltx_vae_checkpoint_to_diffusers
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from PIL import Image
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from actors.compress import compressed
from actors.decoding import ltx_decode_numbers
from actors.demo.train import scenes
from actors.headers import Header
from actors.loading import to_uint8
from actors.ltx_file import _transformer_names, _vae_names, load_ltx_parts
from actors.ltx_video import LtxVideoModel
from actors.prompts import PromptEncoder
from actors.values import ClipSettings, ModelError, ModelFiles, Passage, TextSettings
from benchmarks.original_layout import ltx_base, ltx_tensors, single_ltx_file
from gates.decode import read_video
from pipeline.plan.resolve import Resolver, StagePlan
from pipeline.registry.open_catalog import open_catalog
from pipeline.registry.workflows import Registry
from pipeline.render.needs import first_guess, lighter, loaded, weights
from pipeline.render.picture import fill
from pipeline.render.video_file import write_clip
from pipeline.story.episode import load_episode
from pipeline.story.errors import InputError
from pipeline.story.settings import Settings, load_settings
from pipeline.story.workflow import WORKFLOWS, read_workflow

from .conftest import DEMO, EPISODE, refused, takes_of, tower
from .test_actors import HANA, LTX, SHORT, animatediff, keyframes, ltx, still, words
from .test_loading import DISTILLED, change, clip, forbidden

FOLDER = DEMO / "ltx-video"
VERSIONS = {  # of the VAE: what differs from the class's defaults in the published configurations
    "0.9.0": {"decoder_block_out_channels": (128, 256, 512, 512)},
    "0.9.1": {
        "decoder_block_out_channels": (256, 512, 1024), "decoder_layers_per_block": (5, 6, 7, 8), "decoder_spatio_temporal_scaling": (True,) * 3,
        "decoder_inject_noise": (True, True, True, False), "upsample_residual": (True,) * 3, "upsample_factor": (2,) * 3, "timestep_conditioning": True,
    },
    "0.9.5": {
        "block_out_channels": (128, 256, 512, 1024, 2048), "down_block_types": ("LTXVideo095DownBlock3D",) * 4, "layers_per_block": (4, 6, 6, 2, 2),
        "spatio_temporal_scaling": (True,) * 4, "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
        "decoder_block_out_channels": (256, 512, 1024), "decoder_layers_per_block": (5, 5, 5, 5), "decoder_spatio_temporal_scaling": (True,) * 3,
        "decoder_inject_noise": (False,) * 4, "upsample_residual": (True,) * 3, "upsample_factor": (2,) * 3, "timestep_conditioning": True,
        "spatial_compression_ratio": 32, "temporal_compression_ratio": 8,
    },
}  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
def test_every_tensor_of_a_published_vae_goes_where_diffusers_own_converter_puts_it(version):
    with torch.device("meta"):
        wanted = AutoencoderKLLTXVideo.from_config(VERSIONS[version]).state_dict()
    names = _vae_names(wanted)
    looked_at = {"encoder.conv_out.conv.weight": wanted["encoder.conv_out.conv.weight"]}  # diffusers tells the version by its shape
    file = {theirs: looked_at.get(ours, ours) for ours, theirs in names.items()}
    assert convert_ltx_vae_checkpoint_to_diffusers(file) == {ours: looked_at.get(ours, ours) for ours in wanted}


def test_every_tensor_of_the_published_transformer_goes_where_diffusers_own_converter_puts_it():
    with torch.device("meta"):
        wanted = LTXVideoTransformer3DModel().state_dict()
    for prefix in ("model.diffusion_model.", ""):
        names = _transformer_names(wanted, Header(Path(), "safetensors", {f"{prefix}patchify_proj.weight": None}, {}))
        assert convert_ltx_transformer_checkpoint_to_diffusers({theirs: ours for ours, theirs in names.items()}) == {ours: ours for ours in wanted}


def moved(files: ModelFiles) -> np.ndarray:
    return LtxVideoModel("ltx", files, SHORT).generate([clip()])[1][0]


def test_a_checkpoint_in_one_file_makes_the_clip_that_its_folder_makes_and_asks_no_network(tmp_path, monkeypatch):
    file, base = single_ltx_file(FOLDER, tmp_path / "one.safetensors"), ltx_base(FOLDER, tmp_path / "base")
    before, encoded = ltx().generate([clip()])[1][0], PromptEncoder("t", LTX, TextSettings(64)).encode([HANA])[0]
    monkeypatch.setattr(socket.socket, "connect", forbidden)
    one = ModelFiles(str(file), base=str(base))
    assert np.array_equal(moved(one), before)
    assert np.array_equal(PromptEncoder("t", one, TextSettings(64)).encode([HANA])[0].embeds, encoded.embeds)
    for text in (True, False):
        assert weights(loaded(one), text, "auto") == pytest.approx(weights([str(FOLDER)], text, "auto"), rel=1e-3)


def test_a_transformer_alone_takes_its_vae_from_the_base(tmp_path):
    file, base = single_ltx_file(FOLDER, tmp_path / "one.safetensors", vae=False), ltx_base(FOLDER, tmp_path / "base", vae=True)
    one = ModelFiles(str(file), base=str(base))
    assert np.array_equal(moved(one), ltx().generate([clip()])[1][0])
    assert weights(loaded(one), False, "auto") == weights([str(FOLDER)], False, "auto")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_parts_of_a_file_are_those_of_the_folder_bit_for_bit_in_every_type(tmp_path, dtype):
    parts = load_ltx_parts(single_ltx_file(FOLDER, tmp_path / "one.safetensors"), FOLDER, dtype)
    for name, cls in (("transformer", LTXVideoTransformer3DModel), ("vae", AutoencoderKLLTXVideo)):
        wanted = cls.from_pretrained(FOLDER, subfolder=name, dtype=dtype).state_dict()
        assert all(torch.equal(value, wanted[key]) and value.dtype == wanted[key].dtype for key, value in parts[name].state_dict().items())
        assert not parts[name].training


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t | {"model.diffusion_model.transformer_blocks.0.more": torch.zeros(1)}, ["transformer of checkpoint", "no place for", "0.more"]),
        (lambda t: {k: v for k, v in t.items() if not k.endswith("proj_out.bias")}, ["transformer of checkpoint", "lacks model.diffusion_model.proj_out.bias"]),
        (lambda t: t | {"vae.decoder.conv_in.conv.bias": torch.zeros(3)}, ["vae of checkpoint", "vae.decoder.conv_in.conv.bias is 3"]),
        (lambda t: t | {"vae.decoder.up_blocks.9.conv.bias": torch.zeros(3)}, ["vae of checkpoint", "no place for vae.decoder.up_blocks.9.conv.bias"]),
    ],
)
def test_a_file_with_a_tensor_too_few_too_many_or_of_another_shape_is_told(tmp_path, change, words):
    save_file({k: v.contiguous() for k, v in change(ltx_tensors(FOLDER)).items()}, tmp_path / "one.safetensors")
    with pytest.raises(ModelError) as error:
        LtxVideoModel("ltx", ModelFiles(str(tmp_path / "one.safetensors"), base=str(FOLDER)), SHORT)
    assert all(word in str(error.value) for word in words), error.value


def noisy_scheduler(folder: Path) -> None:
    """As 0.9.6's: every step adds noise."""
    change(folder / "scheduler" / "scheduler_config.json", stochastic_sampling=True)


def noisy_decoder(folder: Path) -> None:
    """As 0.9.1's VAE: layers of its decoder add noise."""
    config = json.loads((folder / "vae" / "config.json").read_text())
    told = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items() if not k.startswith("_")}
    vae = AutoencoderKLLTXVideo.from_config(told | {"decoder_inject_noise": (True,) * 3})
    before = AutoencoderKLLTXVideo.from_pretrained(folder, subfolder="vae").state_dict()
    vae.load_state_dict({k: before.get(k, torch.ones_like(v)) for k, v in vae.state_dict().items()})
    shutil.rmtree(folder / "vae")
    vae.save_pretrained(folder / "vae")


@pytest.mark.parametrize("noisy", [noisy_scheduler, noisy_decoder])
def test_a_seed_gives_its_clip_whatever_was_made_before_also_where_no_generator_is_asked_for(tmp_path, noisy):
    folder = Path(shutil.copytree(FOLDER, tmp_path / "ltx"))
    noisy(folder)
    model, quiet = LtxVideoModel("ltx", ModelFiles(str(folder)), SHORT), ltx().generate([clip()])[1][0]
    state = torch.random.get_rng_state()
    first, second, *others = (model.generate([replace(clip(), seed=seed)])[1][0] for seed in (1, 2, 1, 1, 2))
    assert all(np.array_equal(made, wanted) for made, wanted in zip(others, (first, first, second), strict=True))
    assert not np.array_equal(first, second) and not np.array_equal(first, quiet)
    assert torch.equal(torch.random.get_rng_state(), state), "whoever else draws from torch's generator is not disturbed"
    torch.manual_seed(1)
    assert np.array_equal(first, plainly(model, SHORT)), "as diffusers alone makes it"


@pytest.mark.parametrize("model", [keyframes, animatediff])
def test_other_families_noise_without_a_generator_follows_the_seed_as_well(model, monkeypatch):
    pipe = model().pipe
    decode = type(pipe.vae).decode
    monkeypatch.setattr(type(pipe.vae), "decode", lambda vae, z, *args, **more: decode(vae, z + 0.1 * torch.randn_like(z), *args, **more))
    asked = still(HANA, 1) if model is keyframes else replace(clip(), prompt=words(HANA), negative=words(""))
    first, second, again = (model().generate([replace(asked, seed=seed)])[1][0] for seed in (1, 2, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, second)


def plainly(model: LtxVideoModel, s: ClipSettings, **more: Any) -> Any:
    """The clip of `clip()` by diffusers alone, with the model's pipeline; or its latents."""
    request = clip()
    told: dict[str, Any] = {
        "conditions": [LTXVideoCondition(image=Image.fromarray(request.keyframe), strength=s.strength)], "width": s.width, "height": s.height,
        "num_frames": s.num_frames, "frame_rate": s.fps, "num_inference_steps": s.num_inference_steps, "timesteps": list(s.timesteps) or None,
        "guidance_scale": s.guidance_scale, "image_cond_noise_scale": s.image_cond_noise_scale, "decode_timestep": s.decode_timestep,
        "prompt_embeds": torch.from_numpy(request.prompt.embeds)[None], "prompt_attention_mask": torch.from_numpy(request.prompt.mask)[None],
        "negative_prompt_embeds": torch.from_numpy(request.negative.embeds)[None],
        "negative_prompt_attention_mask": torch.from_numpy(request.negative.mask)[None],
        "generator": torch.Generator().manual_seed(request.seed), "output_type": "pt",
    }  # fmt: skip
    frames = model.pipe(**told | more).frames
    return frames if more.get("output_type") == "latent" else to_uint8(frames[0])[0]


class Alive(TorchDispatchMode):
    """Counts the bytes of tensors that are alive, on the meta device as well. peak: the most so far."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak, self.sizes = 0, 0, {}

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = op(*args, **(kwargs or {}))
        for storage in (x.untyped_storage() for x in tree_flatten(made)[0] if isinstance(x, torch.Tensor)):
            if storage._cdata not in self.sizes:
                self.sizes[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.gone, storage._cdata)
        return made

    def gone(self, key: int) -> None:
        self.now -= self.sizes.pop(key, 0)


def decoding(config: dict[str, Any], s: ClipSettings) -> int:
    """Bytes that decoding a clip holds at most, in 16 bits."""
    with torch.device("meta"):
        vae = AutoencoderKLLTXVideo.from_config(config).to(torch.bfloat16)
        if s.vae_tiling:
            vae.enable_tiling()
        sides = (s.height // vae.spatial_compression_ratio, s.width // vae.spatial_compression_ratio)
        z = torch.empty(1, vae.config.latent_channels, (s.num_frames - 1) // vae.temporal_compression_ratio + 1, *sides, dtype=torch.bfloat16)
        noise = torch.empty(1, dtype=torch.bfloat16) if vae.config.timestep_conditioning else None
    with torch.no_grad(), Alive() as alive:
        vae.decode(z, noise)
    return alive.peak


FULL = ClipSettings(768, 512, 121, 24, 8, 1.0)


@pytest.mark.parametrize("s", [FULL, replace(FULL, vae_tiling=True), replace(FULL, width=1216, height=704, vae_tiling=True), replace(FULL, num_frames=257)])
@pytest.mark.parametrize("version", VERSIONS)
def test_what_decoding_holds_is_guessed_as_it_is(tmp_path, version, s):
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text(json.dumps(VERSIONS[version]))
    guess = 2 * ltx_decode_numbers(str(tmp_path), s)
    assert guess == pytest.approx(decoding(VERSIONS[version], s), rel=0.1)
    if s.num_frames == FULL.num_frames and s.width == FULL.width:
        assert guess == pytest.approx(3.17e9 if s.vae_tiling else 4.76e9, rel=0.04)


def test_where_no_card_holds_the_decoding_it_is_told_what_tiles_would_need(tmp_path, here, monkeypatch):
    flow = ltx_workflow(tmp_path, width="width: 1216", height="height: 704")
    plain, tiled = (first_guess(read_workflow(flow).model_copy(update={"vae_tiling": on}), LTX) for on in (False, True))
    (tmp_path / "small.yaml").write_text(f"{{name: small, device_memory_gb: {{other: {(plain + tiled) / 2e9}}}}}")
    monkeypatch.setenv("TOWER_CLUSTER_PROFILE", str(tmp_path / "small.yaml"))
    assert here("workflows", "register", flow).code == 0
    told = next(f for f in json.loads(here("doctor", "--json").out) if f["check"] == "memory" and "mine@1" in f["told"])
    assert "can never run here" in told["told"]
    assert f"with vae_tiling: true its workflow would need {tiled / 1e9:.1f} GB" in told["do"]
    assert lighter(read_workflow(flow).model_copy(update={"vae_tiling": True}), LTX) == ""
    assert lighter(read_workflow(WORKFLOWS / "ltx_video_2b_demo.yaml"), LTX) == "", "a clip smaller than a tile"


def test_tiles_are_decoded_as_diffusers_decodes_them_where_the_workflow_says_so(tmp_path):
    wide = ClipSettings(576, 64, 5, 24, 2, 1.0, timesteps=(1000, 500))
    whole, tiled = (LtxVideoModel("ltx", LTX, replace(wide, vae_tiling=on)) for on in (False, True))
    made = [model.generate([clip()])[1][0] for model in (whole, tiled)]
    assert not np.array_equal(*made) and np.array_equal(made[0], plainly(whole, wide))
    whole.pipe.vae.enable_tiling()
    assert np.array_equal(made[1], plainly(whole, wide))
    flow = ltx_workflow(tmp_path, vae_tiling="vae_tiling: true")
    assert read_workflow(flow).settings().vae_tiling and not read_workflow(WORKFLOWS / "ltx_video_2b_demo.yaml").settings().vae_tiling
    flow.write_text((WORKFLOWS / "animatediff_16_demo.yaml").read_text() + "vae_tiling: true\n")
    with pytest.raises(InputError, match="vae_tiling belongs to family ltx_video"):
        read_workflow(flow)


TWICE = ClipSettings(128, 64, 9, 24, 2, 1.0, timesteps=(1000, 500), second_timesteps=(900, 600, 300, 0), second_strength=0.8, adain_factor=0.5)


def upsampler(folder: Path, **config: Any) -> Path:
    torch.manual_seed(0)
    LTXLatentUpsamplerModel(**({"in_channels": 96, "mid_channels": 32, "num_blocks_per_stage": 1} | config)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("place", ["", "latent_upsampler"])
def test_a_clip_in_two_passes_is_what_diffusers_makes_of_the_same_two(tmp_path, place):
    folder = upsampler(tmp_path / "up" / place)
    files = replace(LTX, upsampler=str(tmp_path / "up"))
    model = LtxVideoModel("ltx", files, TWICE)
    made = model.generate([clip()])[1][0]
    between = LTXLatentUpsamplePipeline(model.pipe.vae, LTXLatentUpsamplerModel.from_pretrained(folder))
    again = LtxVideoModel("ltx", LTX, SHORT)
    small = plainly(again, replace(TWICE, width=64, height=32), output_type="latent")
    large = between(latents=small, width=128, height=64, adain_factor=0.5, output_type="latent").frames
    second = {"latents": large, "timesteps": [900, 600, 300, 0], "denoise_strength": 0.8}
    assert made.shape == (9, 64, 128, 3) and np.array_equal(made, plainly(again, TWICE, **second))
    for other in ({"second_timesteps": (900, 500, 300, 0)}, {"second_strength": 0.6}, {"adain_factor": 0.0}, {"tone_map_compression_ratio": 0.6}):
        assert not np.array_equal(made, LtxVideoModel("ltx", files, replace(TWICE, **other)).generate([clip()])[1][0]), other
    assert weights(loaded(files), False, "auto") > weights(loaded(LTX), False, "auto")


def test_both_passes_visit_their_levels_as_they_are(tmp_path):
    folder = Path(shutil.copytree(FOLDER, tmp_path / "ltx"))
    change(folder / "scheduler" / "scheduler_config.json", shift=3.0)
    upsampler(tmp_path / "up")
    model = LtxVideoModel("ltx", ModelFiles(str(folder), upsampler=str(tmp_path / "up")), replace(TWICE, timesteps=()))
    visited: list[list[float]] = [[], []]
    for scheduler, seen in zip(model.schedulers, visited, strict=True):
        scheduler.step = lambda noise, t, *args, seen=seen, step=scheduler.step, **more: (seen.append(float(t)), step(noise, t, *args, **more))[1]
    model.generate([clip()])
    assert visited[1] == pytest.approx([600, 300, 0]) and len(visited[0]) == 2, "the first pass on the checkpoint's own"
    assert model.schedulers[0].config.shift == 3.0


def test_a_workflow_of_two_passes_is_checked_by_plan_and_its_upsampler_is_digested(tmp_path, here):
    models = tmp_path / "models"
    upsampler(models / "up")
    done = here("models", "inspect", models / "up")
    assert done.code == 0 and "latent upsampler, LTX-Video" in done.out and "use:     upsampler: up" in done.out
    lines = {"upsampler": "upsampler: up", "second_timesteps": "second_timesteps: [900, 600, 300, 0]", "width": "width: 128"}
    assert here("workflows", "register", ltx_workflow(tmp_path, **lines)).code == 0
    assert here("plan", "episode.yaml").code == 0
    settings = load_settings()
    ready = Registry(open_catalog(settings), settings)
    before = ready.prepare(ready.resolve("mine", "test")).digest
    upsampler(models / "up", num_blocks_per_stage=2)
    ready = Registry(open_catalog(settings), settings)
    assert ready.prepare(ready.resolve("mine", "test")).digest != before
    for config, sentence in (
        ({"in_channels": 128}, "reads latents of 128 channels, and the checkpoint's VAE makes 96"),
        ({"temporal_upsample": True}, "makes more frames; one that doubles width and height is wanted"),
    ):
        upsampler(models / "up", **config)
        refused(here("plan", "episode.yaml"), "workflow mine: upsampler", sentence)
    shutil.rmtree(models / "up")
    refused(here("plan", "episode.yaml"), "workflow mine: upsampler", "does not exist")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ({"upsampler": "upsampler: up"}, "upsampler and second_timesteps belong together"),
        ({"second_timesteps": "second_timesteps: [900, 0]"}, "upsampler and second_timesteps belong together"),
        ({"adain_factor": "adain_factor: 0.5"}, "adain_factor belongs to an upsampler"),
        ({"upsampler": "upsampler: up\nsecond_timesteps: [0, 900]"}, "second_timesteps go down"),
        ({"upsampler": "upsampler: up\nsecond_timesteps: [900, 0]\nsecond_strength: 0.4"}, "leaves no step"),
    ],
)
def test_a_second_pass_that_could_not_be_is_refused(tmp_path, lines, words):
    with pytest.raises(InputError, match=words):
        read_workflow(ltx_workflow(tmp_path, **lines))


def passes(model: LtxVideoModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch of each call of the transformer: 2 with a pass for the negative prompt."""
    seen, forward = [], model.pipe.transformer.forward
    monkeypatch.setattr(model.pipe.transformer, "forward", lambda *args, **more: (seen.append(len(more["hidden_states"])), forward(*args, **more))[1])
    return seen


def test_a_distilled_model_at_guidance_1_spends_nothing_on_the_negative_prompt(monkeypatch):
    distilled = ClipSettings(96, 64, 9, 24, 8, 1.0, timesteps=DISTILLED)
    for settings, batch in ((distilled, 1), (replace(distilled, guidance_scale=3.0), 2)):
        model = LtxVideoModel("ltx", LTX, settings)
        seen = passes(model, monkeypatch)
        made = [model.generate([replace(clip(), negative=words(text, ltx=True))])[1][0] for text in ("", "blurry")]
        assert seen == [batch] * 16 and np.array_equal(*made) == (batch == 1)


def drawn(seed: int, count: int = 1) -> np.ndarray:
    return np.stack([scenes.draw(scenes.sample(seed), frame) for frame in range(0, 3 * count, 3)])


NINE = replace(SHORT, num_frames=17)


@pytest.mark.parametrize(
    "passages",
    [
        (Passage(16, 1.0, drawn(3)),),
        (Passage(8, 0.7, drawn(3)), Passage(16, 1.0, drawn(4))),
        (Passage(0, 1.0, drawn(3, 9)),),
        (Passage(0, 0.5, drawn(3, 17)),),
        (Passage(8, 1.0, drawn(3, 9)),),
    ],
    ids=["last", "middle and last", "goes on", "drawn anew", "leads to a clip"],
)
def test_a_clip_passes_through_pictures_and_clips_as_diffusers_lets_it(passages):
    model = LtxVideoModel("ltx", LTX, NINE)
    wanted = [] if passages[0].frame == 0 else [LTXVideoCondition(image=Image.fromarray(clip().keyframe))]
    for p in passages:
        shown = [Image.fromarray(picture) for picture in p.pictures]
        told = {"image": shown[0]} if len(shown) == 1 else {"video": shown}
        wanted.append(LTXVideoCondition(**told, frame_index=p.frame, strength=p.strength))
    made = model.generate([replace(clip(), passages=passages)])[1][0]
    assert np.array_equal(made, plainly(model, NINE, conditions=wanted))
    assert not np.array_equal(made, model.generate([clip()])[1][0])


def test_pictures_on_the_way_are_compressed_as_the_keyframe_is():
    model = LtxVideoModel("ltx", LTX, replace(NINE, keyframe_crf=35))
    made = model.generate([replace(clip(), passages=(Passage(16, 1.0, drawn(3)),))])[1][0]
    stills = [Image.fromarray(compressed(picture, 35)) for picture in (clip().keyframe, drawn(3)[0])]
    wanted = [LTXVideoCondition(image=still, frame_index=frame) for still, frame in zip(stills, (0, 16), strict=True)]
    assert np.array_equal(made, plainly(model, NINE, conditions=wanted))


def guided(tmp_path: Path, *keyframes: str, more: str = "") -> Path:
    """An episode of one shot with these further keyframes; `last.png` and `before.mp4` (25 frames) lie beside it."""
    Image.fromarray(drawn(3)[0]).save(tmp_path / "last.png")
    write_clip(tmp_path / "before.mp4", drawn(4, 25), Fraction(24))
    text = EPISODE[: EPISODE.index("      - {id: SH0020")].replace("title: A test}", f"keyframes: [{', '.join(keyframes)}]{more}}}")
    (tmp_path / "episode.yaml").write_text(text)
    return tmp_path / "episode.yaml"


@pytest.mark.parametrize(
    ("keyframes", "more", "words"),
    [
        (["{frame: -1, file: gone.png}"], "", ["gone.png does not exist"]),
        (["{frame: -1, file: ../last.png}"], "", ["leads outside"]),
        (["{frame: -1, file: episode.yaml}"], "", ["neither a picture nor a clip"]),
        (["{frame: 13, file: last.png}"], "", ["last.png: frame 13 is no multiple of 4", "such as 12"]),
        (["{frame: 124, file: last.png}"], "", ["frame 124 lie", "121 frames, 0 to 120, that ltx_video_2b_demo makes"]),
        (["{frame: 108, file: before.mp4, frames: 25}"], "", ["25 frames from frame 108 lie outside"]),
        (["{frame: 8, file: before.mp4, frames: 10}"], "", ["10 frames do not fit", "4k+1 frames of a clip, from 5 on"]),
        (["{frame: 8, file: before.mp4, frames: 29}"], "", ["29 frames are asked for, and 25 are there"]),
        (["{frame: 8, file: before.mp4, start: 25}"], "", ["start 25 lies outside its 25 frames"]),
        (["{frame: 8, file: last.png, start: 1}"], "", ["start and frames belong to clips"]),
        (["{frame: 0, file: last.png}"], "", ["stands at frame 0, which the keyframe is"]),
        (["{frame: 0, file: before.mp4}"], ", keyframe: last.png", ["both stand at frame 0"]),
        (["{frame: 8, file: before.mp4}", "{frame: 16, file: last.png}"], "", ["before.mp4 and last.png both stand at frame 16"]),
        (["{frame: -1, file: last.png}"], ", clip_workflow: animatediff_16_demo, fit: hold", ["family animatediff of workflow animatediff_16_demo takes none; ltx_video does"]),
    ],
)  # fmt: skip
def test_a_keyframe_on_the_way_that_cannot_be_is_told_by_plan(tmp_path, here, keyframes, more, words):
    guided(tmp_path, *keyframes, more=more)
    refused(here("plan", "episode.yaml"), "shot SH0010: keyframes", *words) if "keyframe:" not in more else refused(here("plan", "episode.yaml"), *words)


def test_keyframes_on_the_way_belong_to_what_a_clip_is_made_from(tmp_path):
    def clip_of(*keyframes: str) -> StagePlan:
        file = guided(tmp_path, *keyframes)
        settings = Settings(catalog_uri=str(tmp_path / "catalog-data"))
        episode = load_episode(file)
        return Resolver(episode, file, settings, Registry(open_catalog(settings), settings)).stages(*episode.shots[0])

    plain, last = clip_of(), clip_of("{frame: -1, file: last.png}")
    assert plain[0] == last[0] and plain[1].inputs != last[1].inputs and "last.png" in dict(last[1].reference_files)
    inputs = {stages[1].inputs for stages in (plain, last, clip_of("{frame: 120, file: last.png, strength: 0.5}"), clip_of("{frame: 60, file: last.png}"))}
    assert len(inputs) == 4 and last[1].inputs == clip_of("{frame: 120, file: last.png}")[1].inputs
    still, moving = clip_of("{frame: 0, file: before.mp4, start: -9}")
    assert (still.given, still.given_frame) == (tmp_path / "before.mp4", 16) and moving.guides[0].frames == 9
    assert still.inputs != clip_of("{frame: 0, file: before.mp4}")[0].inputs
    (tail,) = clip_of("{frame: -1, file: before.mp4}")[1].guides
    assert (tail.frame, tail.end, tail.frames) == (96, 121, 25)


@pytest.mark.ray
def test_a_clip_that_goes_on_from_another_and_leads_to_a_picture_is_rendered(tmp_path):
    guided(tmp_path, "{frame: 0, file: before.mp4, start: 8, frames: 17}", "{frame: -1, file: last.png, strength: 0.9}")
    done = tower("render", "episode.yaml", cwd=tmp_path)
    takes = takes_of(tmp_path)
    assert done.code in (0, 3) and takes[-1]["stage"] == "clip" and all(take["outcome"] != "error" for take in takes), done.err
    wanted = read_video(tmp_path / "before.mp4")[0][8:25]
    still = np.asarray(Image.open(tmp_path / "catalog-data" / takes[0]["media_path"]))
    made = read_video(tmp_path / "catalog-data" / takes[-1]["media_path"])[0]
    assert np.abs(fill(wanted[0], 96, 64).astype(int) - still).mean() < 1, "the first frame is the keyframe"
    differences = [np.abs(frame.astype(int) - fill(asked, 96, 64)).mean() for frame, asked in zip(made, wanted, strict=False)]
    assert max(differences) < 12, differences
    assert np.abs(made[-1].astype(int) - drawn(3)[0]).mean() < np.abs(made[60].astype(int) - drawn(3)[0]).mean()


FP8 = torch.float8_e4m3fn
LINEAR = (".attn1.to_q.weight", ".ff.net.0.proj.weight")  # what writers of fp8 files quantise, in part


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("name", ["{}_scale", "{module}.scale_weight"])
def test_weights_in_fp8_are_multiplied_by_the_scales_of_their_file(tmp_path, name, rows):
    tensors, wanted = ltx_tensors(FOLDER), {}
    for key in [key for key in tensors if key.endswith(LINEAR)]:
        value = tensors[key].float()
        scale = value.abs().amax(1, keepdim=True) / 448 if rows else value.abs().max() / 448
        tensors[key] = (value / scale).to(FP8)
        wanted[key.removeprefix("model.diffusion_model.")] = tensors[key].float() * scale
        tensors[name.format(key, module=key.removesuffix(".weight"))] = scale
    tensors |= {"model.diffusion_model.scaled_fp8": torch.zeros(2, dtype=FP8)}
    save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / "one.safetensors")
    found = load_ltx_parts(tmp_path / "one.safetensors", FOLDER, torch.float32)["transformer"].state_dict()
    assert wanted and all(torch.equal(found[key], value) for key, value in wanted.items())
    assert np.isfinite(moved(ModelFiles(str(tmp_path / "one.safetensors"), base=str(FOLDER)))).all()


def test_weights_in_fp8_without_scales_are_read_as_they_are_and_odd_scales_are_told(tmp_path):
    tensors = {key: value.to(FP8) if key.endswith(LINEAR) else value.contiguous() for key, value in ltx_tensors(FOLDER).items()}
    save_file(tensors, tmp_path / "one.safetensors")
    found = load_ltx_parts(tmp_path / "one.safetensors", FOLDER, torch.float32)["transformer"].state_dict()
    key = next(key for key in tensors if key.endswith(LINEAR))
    assert torch.equal(found[key.removeprefix("model.diffusion_model.")], tensors[key].float())
    rows = len(tensors[key])
    for odd, told in ((torch.ones(5), "5"), (torch.ones(1, rows), f"1x{rows}"), (torch.ones(rows, 2), f"{rows}x2")):
        save_file(tensors | {f"{key}_scale": odd}, tmp_path / "one.safetensors")
        with pytest.raises(ModelError, match=rf"_scale holds {told} scales where one, or one for each of {rows} rows is wanted"):
            load_ltx_parts(tmp_path / "one.safetensors", FOLDER, torch.float32)


def in_gguf(file: Path) -> Path:
    """The demo's transformer with its matrices in 8 bits."""
    import gguf

    writer = gguf.GGUFWriter(str(file), "ltxv")
    for key, value in ltx_tensors(FOLDER, vae=False, prefix="").items():
        matrix = value.ndim == 2 and "table" not in key
        kind = gguf.GGMLQuantizationType.Q8_0 if matrix else gguf.GGMLQuantizationType.F32
        writer.add_tensor(key, gguf.quants.quantize(value.float().numpy(), kind), raw_dtype=kind)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        write()
    return file


def test_a_gguf_file_makes_the_clip_that_its_unpacked_weights_make(tmp_path, monkeypatch):
    import gguf

    file, base = in_gguf(tmp_path / "one.gguf"), ltx_base(FOLDER, tmp_path / "base", vae=True)
    one = ModelFiles(str(file), base=str(base))
    tensors = {t.name: torch.from_numpy(gguf.quants.dequantize(t.data, t.tensor_type).copy()) for t in gguf.GGUFReader(str(file)).tensors}
    save_file(tensors, tmp_path / "unpacked.safetensors")
    monkeypatch.setattr(socket.socket, "connect", forbidden)
    made = moved(one)
    assert np.abs(made.astype(int) - moved(ModelFiles(str(tmp_path / "unpacked.safetensors"), base=str(base)))).max() <= 1
    assert not np.array_equal(made, ltx().generate([clip()])[1][0])
    assert weights(loaded(one), False, "auto") < weights([str(FOLDER)], False, "auto")
    monkeypatch.setattr("actors.ltx_file.is_gguf_available", lambda: False)
    with pytest.raises(ModelError, match=r"is GGUF, which needs one more library: pip install 'tower\[gguf\]'"):
        moved(one)


def test_a_gguf_file_is_planned_for_ltx_and_for_no_other_family(tmp_path, here):
    models = tmp_path / "models"
    in_gguf((models.mkdir(), models / "one.gguf")[1])
    ltx_base(FOLDER, models / "base", vae=True)
    flow = ltx_workflow(tmp_path, checkpoint="checkpoint: one.gguf\nbase: base")
    assert here("workflows", "register", flow).code == 0 and here("plan", "episode.yaml").code == 0
    done = here("models", "import", models / "one.gguf", "--as", "smaller")
    assert done.code == 0 and "checkpoint: one.gguf\nbase: base\n" in (tmp_path / "smaller.yaml").read_text(), done.err
    stills = (WORKFLOWS / "sd15_keyframe_demo.yaml").read_text().replace("demo:stable-diffusion", "one.gguf\nbase: demo:stable-diffusion")
    (tmp_path / "stills.yaml").write_text(stills)
    refused(here("workflows", "register", tmp_path / "stills.yaml"), "family stable_diffusion loads diffusers folders, and files that end in .safetensors")


def ltx_workflow(tmp_path: Path, **lines: str) -> Path:
    """The demo's workflow with other lines, as `mine.yaml`, and an episode that animates with it."""
    text = (WORKFLOWS / "ltx_video_2b_demo.yaml").read_text().replace("ltx_video_2b_demo", "mine")
    for field, line in lines.items():
        old = next((x for x in text.splitlines() if x.startswith(f"{field}:")), None)
        text = text.replace(old, line) if old else f"{text}{line}\n"
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "episode.yaml").write_text(EPISODE.replace("ltx_video_2b_demo", "mine"))
    return tmp_path / "mine.yaml"


def test_a_workflow_of_one_file_is_checked_by_plan_with_its_base(tmp_path, here):
    models = tmp_path / "models"
    single_ltx_file(FOLDER, (models.mkdir(), models / "one.safetensors")[1])
    base = ltx_base(FOLDER, models / "base")
    flow = ltx_workflow(tmp_path, checkpoint="checkpoint: one.safetensors\nbase: base")
    assert here("workflows", "register", flow).code == 0 and here("plan", "episode.yaml").code == 0
    config = base / "vae" / "config.json"
    told = json.loads(config.read_text())
    for more, version in (({"timestep_conditioning": True}, "0.9.1"), ({"timestep_conditioning": False}, "0.9.0")):
        change(config, down_block_types=["LTXVideoDownBlock3D"] * 2, **more)
        refused(here("plan", "episode.yaml"), "workflow mine: checkpoint", "holds a VAE of 0.9.5 or later", f"describes a VAE of {version}")
    config.write_text(json.dumps(told))
    change(base / "transformer" / "config.json", num_layers=6)
    refused(here("plan", "episode.yaml"), "workflow mine: checkpoint", "of 7 layers of width 192", "of 6 layers of width 192")
    shutil.rmtree(base / "transformer")
    refused(here("plan", "episode.yaml"), "workflow mine: checkpoint", "lacks transformer/config.json")
    single_ltx_file(FOLDER, models / "one.safetensors", vae=False)
    shutil.copytree(FOLDER / "transformer", base / "transformer")
    refused(here("plan", "episode.yaml"), "workflow mine: checkpoint", "vae/ has no weights")


def test_one_file_is_told_with_the_line_that_uses_it_and_imported(tmp_path, here):
    models = tmp_path / "models"
    file = single_ltx_file(FOLDER, (models.mkdir(), models / "mine.safetensors")[1])
    done = here("models", "inspect", file)
    assert done.code == 0 and "use:     checkpoint: mine.safetensors, and base: a diffusers folder of LTX-Video" in done.out, done.out
    assert "VAE of 0.9.5 or later" in done.out
    refused(here("models", "import", file, "--as", "mine"), "needs a base")
    ltx_base(FOLDER, models / "a-base")
    other = ltx_base(FOLDER, models / "a-0.9.1")
    change(other / "vae" / "config.json", down_block_types=["LTXVideoDownBlock3D"] * 2, timestep_conditioning=True)
    done = here("models", "import", file, "--as", "mine")
    assert done.code == 0, done.err
    assert "checkpoint: mine.safetensors\nbase: a-base\n" in (tmp_path / "mine.yaml").read_text(), "the base of the file's own version"
