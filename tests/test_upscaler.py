"""Clips made larger: tile by tile without seams, exact sizes, or one sentence before anything renders."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from actors.beside import Workflows
from actors.demo.train import scenes
from actors.headers import read_header
from actors.identify import identify
from actors.spandrel_models import load_upscaler, spandrel
from actors.tiles import in_tiles
from actors.upscaler import UpscalerModel
from actors.values import FinishRequest, FinishSettings, ModelError, ModelFiles
from pipeline.render.video_file import write_clip
from pipeline.story.errors import InputError
from pipeline.story.workflow import read_workflow

SMALL = FinishSettings(width=96, height=64, scale=4)
WORKFLOW = """\
name: larger
version: 1
family: upscaler
checkpoint: compact.safetensors
width: 384
height: 256
scale: 4
gates: finish
"""


def compact(file: Path, scale: int = 4, half: bool = False) -> Path:
    """A network of Real-ESRGAN's compact kind, of random weights, small beside the picture that it is added to."""
    from spandrel.architectures.Compact import Compact

    torch.manual_seed(5)
    weights = Compact(num_feat=8, num_conv=3, upscale=scale).state_dict()
    save_file({name: (w.half() if half else w).contiguous() for name, w in weights.items()}, file)
    return file


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spandrel()
    return compact(tmp_path_factory.mktemp("models") / "compact.safetensors")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Seven frames of 24x16."""
    file = tmp_path_factory.mktemp("clips") / "clip.mp4"
    scene = scenes.Scene("day", "sea", "red", "pink", "wide", "walk right", 7)
    write_clip(file, scenes.clip(scene, range(0, 70, 10))[:, ::4, ::4], Fraction(24))
    return file.read_bytes()


def model(file: Path, settings: FinishSettings = SMALL) -> UpscalerModel:
    return UpscalerModel("larger@1#abc", ModelFiles(str(file)), settings, "cpu")


def made(upscaler: UpscalerModel, clip: bytes, **parameters: float) -> np.ndarray:
    (receipt,), (frames,) = upscaler.generate([FinishRequest("E90/SH0010/finish/v001", parameters=tuple(parameters.items()), clip=clip)])
    assert receipt.finite and receipt.model == "larger@1#abc"
    return frames


def test_every_frame_of_a_clip_is_made_larger_and_the_same_again(checkpoint, clip):
    upscaler = model(checkpoint)
    frames = made(upscaler, clip)
    assert (frames.shape, frames.dtype) == ((7, 64, 96, 3), np.uint8)
    assert (frames == made(upscaler, clip)).all()


@pytest.mark.parametrize(("tile", "size"), [(16, (64, 96)), (24, (50, 70)), (33, (64, 33)), (64, (64, 96))])
def test_tiles_make_what_the_whole_picture_makes(checkpoint, tile, size):
    net = load_upscaler(checkpoint, "auto", "cpu")
    frames = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole, tiled = net(frames), in_tiles(net, frames, 4, tile, 8)  # five 3x3 convolutions look five pixels far
    assert ((whole - tiled).abs() * 255).max() < 1


def test_tiles_without_overlap_show_their_seams(checkpoint):
    net = load_upscaler(checkpoint, "auto", "cpu")
    frames = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert ((net(frames) - in_tiles(net, frames, 4, 16, 0)).abs() * 255).max() > 1


def test_a_size_below_the_networks_is_reduced_to_exactly(checkpoint, clip):
    frames = made(model(checkpoint, FinishSettings(width=72, height=48, scale=4)), clip)
    assert frames.shape == (7, 48, 72, 3)


def test_strength_mixes_the_network_with_what_lanczos_makes(checkpoint, clip):
    upscaler = model(checkpoint)
    full, half, little = (made(upscaler, clip, strength=s).astype(int) for s in (1.0, 0.5, 0.001))
    assert abs(half - (full + little) / 2).max() <= 1 and abs(full - little).max() > 10


@pytest.mark.parametrize(("width", "height"), [(100, 64), (192, 128)])
def test_a_clip_that_does_not_fit_the_size_is_a_sentence(checkpoint, clip, width, height):
    upscaler = model(checkpoint)
    upscaler.settings = FinishSettings(width, height, 4)
    with pytest.raises(ModelError, match=f"24x16 becomes 96x64 with scale 4, which does not reduce to {width}x{height}"):
        made(upscaler, clip)


def test_two_workflows_share_one_networks_weights(checkpoint, clip):
    both = Workflows("actors.upscaler:UpscalerModel", "larger@1#abc", ModelFiles(str(checkpoint)), SMALL)
    both.prepare("smaller@1#abc", FinishSettings(48, 32, 4), ())
    (_,), (frames,) = both.generate([FinishRequest("t", workflow="smaller@1#abc", settings=FinishSettings(48, 32, 4), clip=clip)])
    assert frames.shape == (7, 32, 48, 3) and both.models["smaller@1#abc"].network is both.first.network


def test_a_network_whose_output_is_no_number_says_so(tmp_path, clip):
    from safetensors.torch import load_file

    weights = load_file(compact(tmp_path / "broken.safetensors"))
    weights["body.0.bias"][:] = float("nan")
    save_file(weights, tmp_path / "broken.safetensors")
    (receipt,), _ = model(tmp_path / "broken.safetensors").generate([FinishRequest("t", clip=clip)])
    assert receipt.not_finite == "output"


def test_nothing_thinks_that_torchvision_is_here_because_spandrel_was_imported():
    spandrel()
    held = [name for name in sys.modules if name.partition(".")[0] == "torchvision" and sys.modules[name].__spec__ is None]
    assert held == []


# --- what a file is -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_a_compact_network_is_told_from_its_header(tmp_path, scale):
    found = identify(read_header(compact(tmp_path / "net.safetensors", scale, half=True)))
    assert (found.kind, found.architecture, found.scale, found.faults) == ("upscaler", "RealESRGAN Compact", scale, ())
    assert found.use == f"checkpoint: net.safetensors, and scale: {scale}"


def test_another_architecture_is_told_by_spandrel_and_loads(tmp_path, clip):
    from spandrel.architectures.ESRGAN import ESRGAN

    save_file({n: w.contiguous() for n, w in ESRGAN(num_filters=8, num_blocks=1).state_dict().items()}, tmp_path / "x4.safetensors")
    found = identify(read_header(tmp_path / "x4.safetensors"))
    assert (found.kind, found.architecture, found.scale) == ("upscaler", "ESRGAN", 4)
    assert made(model(tmp_path / "x4.safetensors"), clip).shape == (7, 64, 96, 3)


def test_a_file_that_is_no_upscaler_stays_unknown(tmp_path):
    save_file({"something.weight": torch.zeros(3, 3)}, tmp_path / "other.safetensors")
    assert identify(read_header(tmp_path / "other.safetensors")).kind != "upscaler"
    with pytest.raises(ModelError, match="cannot be loaded as an upscaler"):
        model(tmp_path / "other.safetensors")


def test_another_scale_than_the_files_is_a_sentence(checkpoint):
    with pytest.raises(ModelError, match="makes pictures 4 times as large, and the workflow says scale: 2"):
        model(checkpoint, FinishSettings(48, 32, 2))


# --- workflow files -----------------------------------------------------------------------------------------------------


def workflow(folder: Path, *changes: tuple[str, str]) -> Path:
    text = WORKFLOW
    for before, after in changes:
        text = text.replace(before, after) if before else text + after + "\n"
    (folder / "larger.yaml").write_text(text)
    return folder / "larger.yaml"


def test_a_workflow_says_scale_and_size_and_nothing_of_noise(tmp_path):
    flow = read_workflow(workflow(tmp_path))
    assert (flow.stage, flow.settings()) == ("finish", FinishSettings(384, 256, 4))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("scale: 4\n", ""), "needs scale"),
        (("compact.safetensors", "x4.pth"), "x4.pth: an upscaler is a .safetensors file"),
        (("width: 384", "width: 385"), "both sides of a finished clip are even"),
        (("", "num_inference_steps: 20"), "num_inference_steps means nothing here"),
        (("", "negative_prompt: blurry"), "negative_prompt means nothing here"),
        (("", "num_frames: 121"), "num_frames means nothing here"),
        (("", "base: a-folder"), "base means nothing here"),
        (("", "tile_overlap: 8"), "tile_overlap means nothing without tile"),
        (("", "clip_skip: 2"), "clip_skip belongs to family"),
        (("family: upscaler", "family: ltx_video\nnum_frames: 9\nfps: 24"), "scale belongs to family upscaler"),
    ],
)
def test_a_workflow_that_cannot_be_meant_is_one_sentence(tmp_path, change, told):
    with pytest.raises(InputError, match=told):
        read_workflow(workflow(tmp_path, change))


def test_steps_and_guidance_are_still_needed_where_there_is_noise(tmp_path):
    text = 'name: a\nversion: 1\nfamily: ltx_video\ncheckpoint: x\nwidth: 96\nheight: 64\nnum_frames: 9\nfps: 24\n'
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match="ltx_video needs num_inference_steps and guidance_scale"):
        read_workflow(tmp_path / "a.yaml")
