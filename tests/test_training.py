"""One command trains the demo's checkpoints: on a bare machine, in its time, into few small files that the product loads."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from actors.animatediff import AnimateDiffModel
from actors.demo.train import adapter, ltx, ltx_vae, scenes, sd, text
from actors.demo.train.children import Children
from actors.demo.train.column import Column
from actors.demo.train.drawing import Drawings, Job
from actors.demo.train.pack import LARGEST, pack
from actors.demo.train.progress import Budget, Stages
from actors.demo.train.recipe import GPU, RECIPES, SHIPPED, TINY, Recipe
from actors.demo.train.unpack import unpack
from actors.keyframe import KeyframeModel
from actors.ltx_video import LtxVideoModel
from actors.prompts import PromptEncoder
from actors.values import ClipRequest, ClipSettings, KeyframeRequest, KeyframeSettings, ModelFiles, TextSettings
from benchmarks import demo_upscaler
from benchmarks.demo_models import Models
from benchmarks.upscaler_figures import edge_width, psnr, scalers
from benchmarks.upscaler_pairs import KINDS, Piece, make, moments

from .bare import bare_environment, run_bare
from .conftest import DEMO, PROJECT

WORDS = "wide shot, a girl with pink hair and a red coat, walking left, by the sea, by day, static camera, anime"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a whole training in miniature. It has more time in a second try, if others had the cores in the first."""
    folder = tmp_path_factory.mktemp("trained")
    python = bare_environment(folder / "bare")
    for minutes in (0.4, 1.5):
        out, started = folder / f"out-{minutes:g}", time.monotonic()
        done = run_bare(python, "-m", "actors.demo.train", "--tiny", "--minutes", str(minutes), "--device", "cpu", "--out", out)
        assert time.monotonic() - started < 60 * minutes + 4, "all of its time, and the interpreter's start and end"
        if done.returncode == 0:
            return out
        assert done.returncode == 1 and "did not end in time" in done.stderr, done.stdout + done.stderr
    raise AssertionError(done.stdout + done.stderr)


def test_what_comes_back_is_few_flat_small_files(trained: Path):
    files = sorted(trained.iterdir())
    assert len(files) <= 8 and all(f.is_file() and f.stat().st_size <= 16e6 and re.fullmatch(r"[A-Za-z0-9._-]+", f.name) for f in files)
    assert {"checkpoints-1.tar", "train.log"} <= {f.name for f in files}
    log = (trained / "train.log").read_text()
    for stage in (*TINY.sd_shares, *TINY.ltx_shares):
        assert f'"stage": "{stage}"' in log, f"{stage} left no line in the log"
    assert (trained / "figures.json").exists() or "validation" in log, "figures, or a word on why there are none"
    if (trained / "figures.json").exists():
        assert json.loads((trained / "figures.json").read_text())["stills"]["stills"] >= 1


def test_trained_checkpoints_load_as_any_other(trained: Path, tmp_path: Path):
    assert unpack(trained, tmp_path) == ["ltx-video", "motion-adapter", "stable-diffusion"]
    still, clip = KeyframeSettings(96, 64, 2, 2.0, batch_size=1), ClipSettings(96, 64, 9, 24, 2, 1.0, timesteps=(1000, 500))
    stable, long = ModelFiles(str(tmp_path / "stable-diffusion")), ModelFiles(str(tmp_path / "ltx-video"))
    embedding, t5 = (PromptEncoder("text", files, TextSettings(tokens)).encode([WORDS])[0] for files, tokens in ((stable, None), (long, 64)))
    _, (picture,) = KeyframeModel("k", stable, still).generate([KeyframeRequest("t", 1, prompt=embedding, negative=embedding)])
    assert picture.shape == (64, 96, 3) and picture.dtype == np.uint8
    models = ((LtxVideoModel("l", long, clip), t5, 9), (AnimateDiffModel("a", replace(stable, motion_adapter=str(tmp_path / "motion-adapter")), replace(clip, num_frames=8, timesteps=(), num_inference_steps=4)), embedding, 8))  # fmt: skip
    for model, prompt, frames in models:
        (receipt,), (made,) = model.generate([ClipRequest("t", 1, prompt=prompt, negative=prompt, keyframe=picture)])
        assert made.shape == (frames, 64, 96, 3) and receipt.finite


def parts(recipe: Recipe) -> dict[str, nn.Module]:
    """Every network of a recipe, without its weights; by the folder that it is written to."""
    clip, t5 = text.clip_tokenizer(), text.t5_tokenizer()
    with torch.device("meta"):
        return {
            "stable-diffusion/vae": sd.autoencoder(recipe),
            "stable-diffusion/unet": sd.unet(recipe),
            "stable-diffusion/text_encoder": text.clip_encoder(recipe, clip),
            "motion-adapter": adapter.motion_adapter(recipe),
            "ltx-video/vae": ltx_vae.autoencoder(recipe),
            "ltx-video/transformer": ltx.transformer(recipe),
            "ltx-video/text_encoder": text.t5_encoder(recipe, t5),
        }


def test_the_recipe_for_gpus_stays_small_enough_for_the_repository():
    sizes = {name: sum(2 * p.numel() for p in part.parameters()) for name, part in parts(GPU).items()}
    assert sum(sizes.values()) <= 47.5e6, sizes  # 48 MB with the files' headers
    assert (GPU.height, GPU.width) == (128, 192) and GPU.ltx_grid == SHIPPED.ltx_grid == (4, 6)


def test_the_shipped_recipe_is_that_of_the_checkpoints_in_the_repository():
    for name, part in parts(SHIPPED).items():
        config = json.loads((DEMO / name / "config.json").read_text())
        mine = json.loads(json.dumps(part.config.to_dict() if hasattr(part.config, "to_dict") else dict(part.config)))
        free = {"scaling_factor", "dtype", "architectures", "transformers_version"}  # what training finds out, and who wrote the file
        assert {k: v for k, v in mine.items() if k in config and not k.startswith("_") and k not in free} == {
            k: v for k, v in config.items() if k in mine and not k.startswith("_") and k not in free
        }, name


def test_the_planar_video_autoencoder_is_the_real_one_in_the_shape_for_gpus():
    recipe = replace(GPU, ltx_encoder=(8, 8, 16), ltx_decoder=(8, 16), ltx_latents=16)
    torch.manual_seed(0)
    real = ltx_vae.autoencoder(recipe)
    for p in real.parameters():
        p.data.normal_(std=0.1)  # second convolutions start at zero, and would hide what they do
    planar = ltx_vae.make_planar(real).eval()
    with torch.no_grad():
        volume, x = ltx_vae.to_volume(recipe, planar), torch.rand(1, 3, 9, 64, 96)
        z = planar.encode(x).latent_dist.mean
        assert z.shape == (1, 16, 3, 2, 3) and z.std() > 0
        assert torch.allclose(volume.encode(x).latent_dist.mean, z, atol=1e-4)
        assert torch.allclose(volume.decode(z).sample, planar.decode(z).sample, atol=1e-4)


def column(tmp_path: Path, **jobs: Job) -> Column:
    stages = Stages({"a": 1.0, "b": 3.0}, 8.0, time.monotonic() + 8)
    return Column(TINY, torch.device("cpu"), None, tmp_path, stages, Drawings(jobs, 0))


@torch.no_grad()
def test_latents_of_another_scene_than_the_captions_are_noticed(tmp_path: Path):
    here, stills, volume = column(tmp_path), sd.autoencoder(TINY).eval(), ltx_vae.make_planar(ltx_vae.autoencoder(TINY)).eval()
    latents = torch.cat([sd.encode(stills, here.pixels(sd.picture(TINY, sd.FIRST_FRAMES, i))) for i in range(6)])
    words = [[sd.caption(sd.FIRST_FRAMES, i)] for i in range(6)]
    sd.assert_paired(here, stills, latents, words)
    for wrong in ((latents.roll(1, 0), words), (latents, words[1:] + words[:1])):
        with pytest.raises(RuntimeError, match="not of the same scenes"):
            sd.assert_paired(here, stills, *wrong)
    coded = torch.cat([ltx.encode(volume, here.pixels(ltx.clip(TINY, False, i)[None])) for i in range(4)])
    clips = ltx.Clips(coded, torch.zeros(4, 9), torch.zeros(4))
    ltx.assert_paired(here, volume, clips)
    with pytest.raises(RuntimeError, match="not of the same scenes"):
        ltx.assert_paired(here, volume, clips._replace(latents=coded.roll(1, 0)))


def numbered(number: int) -> np.ndarray:
    return np.full((1, 2, 3, 3), number, np.uint8)


def test_worker_processes_draw_the_same_in_the_same_order():
    jobs = {"first": Job(7, 3, numbered), "second": Job(4, 2, numbered)}
    for workers in (0, 2):
        drawings = Drawings(jobs, workers)
        second, first = (
            np.concatenate(list(drawings.take(name, time.monotonic() + 60)))[:, 0, 0, 0, 0].tolist() for name in ("second", "first")
        )
        assert (first, second) == (list(range(7)), list(range(4)))
        assert len(list(Drawings(jobs, workers).take("first", 0.0))) == 1, "one batch, however late it is"
        drawings.close()


def test_drawing_can_be_stopped_at_any_time():
    drawings, started = Drawings({"many": Job(10**6, 10, numbered)}, 2), time.monotonic()
    next(drawings.take("many", started))
    drawings.close()
    assert time.monotonic() - started < 20


def failing(number: int) -> np.ndarray:
    raise ValueError(f"picture {number} cannot be drawn")


def test_a_fault_in_a_worker_process_is_an_error_where_the_pictures_are_wanted():
    with pytest.raises(ValueError, match="cannot be drawn"):
        list(Drawings({"a": Job(2, 1, failing)}, 1).take("a", time.monotonic() + 60))


def test_a_stopped_stage_goes_on_where_it_was_and_ends_on_time(tmp_path: Path):
    soon, model = time.monotonic() + 60, nn.Linear(1, 1)
    budget = Budget(tmp_path, "stage", 10.0, soon, {"model": model})
    for step in budget:
        if step == 3:
            budget.spent = 9.99
            budget.save()
            break
    again = Budget(tmp_path, "stage", 10.0, soon, {"model": nn.Linear(1, 1)})
    assert again.steps == 3 and 0.99 < again.progress < 1
    list(again)
    assert again.done and Budget(tmp_path, "stage", 99.0, soon).progress == 1, "a finished stage is not trained again"
    late = Budget(None, "late", 60.0, time.monotonic() + 0.05)
    list(late)
    assert late.spent < 1, "60 seconds were planned, but there were none left"
    assert list(Budget(None, "too late", 60.0, time.monotonic() - 1)) == [0], "one step, so that every stage's code has run"


def test_stages_leave_the_later_ones_their_time():
    stages = Stages({"a": 1.0, "b": 3.0}, 8.0, time.monotonic() + 4)
    assert stages.share("a") == 2 and stages.until("a") - time.monotonic() == pytest.approx(1, abs=0.1)
    assert stages.until("b") - time.monotonic() == pytest.approx(4, abs=0.1)


def test_a_process_that_fails_or_lasts_too_long_is_told_of_and_is_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with Children(tmp_path / "log") as children:
        children.start("wrong", "json.tool", tmp_path / "nothing.json")
        children.start("endless", "http.server", "0", "--bind", "127.0.0.1")
        endless, _ = children.running["endless"]
        assert "nothing.json" in (children.wait("wrong", time.monotonic() + 20) or "")
        assert children.wait("endless", time.monotonic()) == "it did not end in time"
        assert endless.poll() is not None
    assert "nothing.json" in (tmp_path / "log").read_text() and "nothing.json" in capsys.readouterr().out


def test_what_is_finished_is_packed_though_the_rest_is_missing(tmp_path: Path):
    made, out, back = tmp_path / "made", tmp_path / "out", tmp_path / "back"
    for name, size in (("a", 11_000_000), ("b", 11_000_000), ("c", 4_000_000), ("d", 10)):
        (made / "ltx-video" / name).mkdir(parents=True)
        (made / "ltx-video" / name / "model.safetensors").write_bytes(name.encode() * size)
    (made / ".stable-diffusion").mkdir()  # half written
    out.mkdir()
    tars = pack(made, out)
    assert [t.name for t in tars] == ["checkpoints-1.tar", "checkpoints-2.tar"] and all(t.stat().st_size <= LARGEST for t in tars)
    (back / "ltx-video" / "old").mkdir(parents=True)
    assert unpack(out, back) == ["ltx-video"]
    assert sorted(p.name for p in (back / "ltx-video").iterdir()) == ["a", "b", "c", "d"], "what was there before is gone"
    assert (back / "ltx-video" / "c" / "model.safetensors").read_bytes() == b"c" * 4_000_000


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--out", PROJECT, "--device", "cpu"], ["is not an empty folder"]),
        (["--minutes", "0.1", "--device", "cpu"], ["0.1", "too short"]),
        *([] if torch.cuda.is_available() else [(["--out", "/tmp/never-made", "--device", "cuda"], ["no GPU", "--device cpu"])]),
    ],
)
def test_what_cannot_work_is_one_sentence(args: list[str | Path], words: list[str]):
    done = subprocess.run([sys.executable, "-m", "actors.demo.train", *map(str, args)], cwd=PROJECT, capture_output=True, text=True)
    lines = done.stderr.splitlines()
    assert done.returncode == 2 and len(lines) == 1 and all(w in lines[0] for w in ["error: ", *words]), done.stderr


def test_recipes_go_by_their_names():
    assert {name: recipe.name for name, recipe in RECIPES.items()} == {"shipped": "shipped", "gpu": "gpu", "tiny": "tiny"}


def test_a_scene_looks_the_same_at_every_size():
    for seed in range(12):
        scene, small = scenes.sample(seed), scenes.draw(scenes.sample(seed), 9 * seed)
        for factor in (2, 4, 8):
            large = scenes.draw(scene, 9 * seed, 64 * factor, 96 * factor)
            assert psnr(cv2.resize(large, (96, 64), interpolation=cv2.INTER_AREA), small) > 33


def test_the_upscaler_is_trained_by_one_command_that_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(demo_upscaler, "KINDS", KINDS[:2])  # of the pieces of a rehearsal, those that are quick to make
    work, out = tmp_path / "work", tmp_path / "weights.safetensors"
    command = ["demo_upscaler", "--tiny", "--minutes", "0.02", "--device", "cpu", "--work", str(work), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    assert demo_upscaler.main() == 0
    assert '"stage": "upscaler-8x2", "step": ' in capsys.readouterr().out
    written = load_file(out)
    assert {name: tuple(tensor.shape) for name, tensor in written.items() if tensor.ndim == 4} == {
        "body.0.weight": (8, 3, 3, 3), "body.2.weight": (8, 8, 3, 3), "body.4.weight": (8, 8, 3, 3), "body.6.weight": (48, 8, 3, 3)
    }  # fmt: skip
    assert {tensor.dtype for tensor in written.values()} == {torch.float16}
    again = demo_upscaler.train([], torch.device("cpu"), 8, 2, work, 60, time.monotonic() + 60)
    assert all(torch.equal(tensor.half(), written[name]) for name, tensor in again.state_dict().items()), "what is finished is not trained again"


def test_the_upscaler_is_nearer_to_the_drawn_truth_than_lanczos_and_its_edges_are_sharper():
    """On scenes with attributes that neither it nor the models saw together."""
    how, models = scalers(demo_upscaler.load(demo_upscaler.WEIGHTS, torch.device("cpu"))), Models(device="cpu")
    piece = Piece(make(models, 0, held_out=True), moments(0, held_out=True))
    truth = np.stack([piece.target(i) for i in range(8)])
    lanczos, network = (how[name](piece.frames[:8]) for name in ("Lanczos", "network"))
    assert psnr(network, truth) > psnr(lanczos, truth) + 2.5
    assert max(edge_width(frame) for frame in network) < min(edge_width(frame) for frame in lanczos)
    assert demo_upscaler.WEIGHTS.stat().st_size < 500_000
