"""The learned judges: a tiny CLIP made here, and RapidOCR as its wheel brings it."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessorPil, CLIPModel

from actors.demo.train import scenes
from actors.judges import Judge, Opinion, load_judges
from actors.values import ModelError

from .conftest import DEMO

PROMPT = "a girl with pink hair and a yellow coat, by the sea"
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """A models folder with a tiny CLIP of random weights, and LAION's kind of head upon it."""
    models = tmp_path_factory.mktemp("models")
    tokenizer = AutoTokenizer.from_pretrained(DEMO / "stable-diffusion" / "tokenizer")
    words = {"vocab_size": len(tokenizer), "max_position_embeddings": 40, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=SMALL | words, vision_config=SMALL | {"image_size": 32, "patch_size": 8}, projection_dim=16)
    CLIPModel(config).save_pretrained(models / "clip")
    tokenizer.save_pretrained(models / "clip")
    pixels = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pixels.save_pretrained(models / "clip")
    (models / "aesthetic").mkdir()
    (models / "aesthetic" / "config.json").write_text('{"clip": "clip"}')
    save_file(head(16, 6, 4, 1), models / "aesthetic" / "model.safetensors")
    return models


@pytest.fixture
def models(original, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(original, tmp_path / "models"))


def head(*widths: int) -> dict[str, torch.Tensor]:
    """layers.8, .10, ...: names whose order as numbers is not their order as words."""
    tensors = {}
    for i, (into, out) in enumerate(pairwise(widths)):
        tensors |= {f"layers.{8 + 2 * i}.weight": torch.randn(out, into), f"layers.{8 + 2 * i}.bias": torch.randn(out)}
    return tensors


def picture(seed: int = 1, width: int = 96, height: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def drawn(text: str = "", at: tuple[int, int] = (40, 60)) -> np.ndarray:
    """One of the demo's training scenes, 384 x 256, and the text upon it."""
    image = Image.fromarray(scenes.draw(scenes.sample(0))).resize((384, 256), Image.Resampling.BICUBIC)
    ImageDraw.Draw(image).text(at, text, fill="white", stroke_width=2, stroke_fill="black", font=ImageFont.load_default(36))
    return np.asarray(image)


@lru_cache
def reader() -> Judge:
    (judge,) = load_judges(["text"], Path("/nowhere"))
    return judge


def one(name: str, models: Path) -> Judge:
    (judge,) = load_judges([name], models)
    return judge


def by_hand(models: Path, pixels: np.ndarray) -> np.ndarray:
    """The picture's embedding of length 1. Resized, cropped and normalised as CLIP's paper has it, without a processor."""
    image = Image.fromarray(pixels)
    image = image.resize((48, 32), Image.Resampling.BICUBIC).crop((8, 0, 40, 32))
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    values = (np.asarray(image, np.float32) / 255 - np.float32(mean)) / np.float32(std)
    with torch.no_grad():
        tensor = torch.from_numpy(values).movedim(-1, 0)[None]
        vector = CLIPModel.from_pretrained(models / "clip").eval().get_image_features(tensor).pooler_output[0].numpy()
    return vector / np.linalg.norm(vector)


def test_agreement_is_the_cosine_of_picture_and_prompt_averaged_over_the_pictures(original):
    pictures = [picture(1), picture(2), picture(3)]
    opinion = one("clip", original).opinion(pictures, PROMPT)
    ids = AutoTokenizer.from_pretrained(original / "clip")(PROMPT, return_tensors="pt").input_ids
    with torch.no_grad():
        text = CLIPModel.from_pretrained(original / "clip").eval().get_text_features(ids).pooler_output[0].numpy()
    cosines = [by_hand(original, p) @ text / np.linalg.norm(text) for p in pictures]
    assert opinion == Opinion("clip", True, "", {"clip_agreement": pytest.approx(np.mean(cosines), abs=1e-5)})
    assert len({round(float(c), 5) for c in cosines}) == 3 and all(-1 <= c <= 1 for c in cosines)


def test_an_opinion_is_the_same_bit_for_bit_and_depends_on_picture_and_prompt(original):
    judge = one("clip", original)
    first = judge.opinion([picture()], PROMPT)
    assert first == judge.opinion([picture()], PROMPT) == one("clip", original).opinion([picture()], PROMPT)
    assert first != judge.opinion([picture(2)], PROMPT) and first != judge.opinion([picture()], "a street at night")
    assert judge.opinion([picture()] * 2, PROMPT).measures["clip_agreement"] == first.measures["clip_agreement"]


@pytest.mark.parametrize("prompt", ["", "海辺の少女、夕焼け", "🙂" * 50, "and so on " * 500])
def test_any_prompt_and_any_size_can_be_judged(original, prompt):
    pictures = [picture(1, *size) for size in [(96, 64), (64, 96), (3, 3), (1, 1), (400, 20)]]
    assert one_clip(original).opinion(pictures, prompt).looked


@lru_cache
def one_clip(models: Path) -> Judge:
    return one("clip", models)


def test_the_aesthetic_head_is_the_chain_of_its_layers_on_the_normalised_embedding(original):
    opinion = one("aesthetic", original).opinion([picture(1), picture(2)], PROMPT)
    tensors = {key: value.numpy() for key, value in load_file(original / "aesthetic" / "model.safetensors").items()}
    rates = []
    for seed in (1, 2):
        x = by_hand(original, picture(seed))
        for number in (8, 10, 12):
            x = tensors[f"layers.{number}.weight"] @ x + tensors[f"layers.{number}.bias"]
        rates.append(x.item())
    assert opinion == Opinion("aesthetic", True, "", {"aesthetic": pytest.approx(np.mean(rates), abs=1e-4)})


def test_judges_come_in_the_order_asked_for_and_share_their_clip(original, monkeypatch):
    loads = []
    load = CLIPModel.from_pretrained
    monkeypatch.setattr(CLIPModel, "from_pretrained", lambda *a, **k: loads.append(a) or load(*a, **k))
    judges = load_judges(["aesthetic", "clip"], original)
    assert [j.name for j in judges] == ["aesthetic", "clip"] and len(loads) == 1
    assert all(j.opinion([picture()], PROMPT).looked for j in judges)


def test_text_is_found_and_measured_by_the_area_it_covers():
    opinion = reader().opinion([drawn("sample text")], PROMPT)
    assert opinion.looked and opinion.measures["text_boxes"] == 1 and opinion.measures["text_confidence"] > 0.9
    left, top, right, bottom = ImageFont.load_default(36).getbbox("sample text")
    letters = (right - left) * (bottom - top) / (384 * 256)
    assert 0.8 * letters < opinion.measures["text_area"] < 2.5 * letters


def test_a_picture_without_text_has_none():
    assert reader().opinion([drawn()], PROMPT) == Opinion("text", True, "", {"text_boxes": 0, "text_area": 0, "text_confidence": 0})


def test_a_watermark_on_one_frame_is_enough():
    alone = reader().opinion([drawn("watermark", (150, 200))], "")
    assert alone.measures["text_boxes"] == 1
    assert reader().opinion([drawn(), drawn("watermark", (150, 200)), drawn()], "") == alone


def test_reading_is_quiet_and_downloads_nothing(capfd, caplog, monkeypatch):
    monkeypatch.setattr("rapidocr.utils.download_file.DownloadFile.run", lambda *_: pytest.fail("a download"))
    with caplog.at_level(logging.DEBUG):
        one("text", Path("/nowhere")).opinion([drawn()], "")
    out, err = capfd.readouterr()
    assert (out, err, caplog.text) == ("", "", "")


@pytest.mark.parametrize("name", ["clip", "aesthetic"])
def test_an_absent_checkpoint_means_that_the_judge_did_not_look(name, tmp_path):
    opinion = one(name, tmp_path).opinion([picture()], PROMPT)
    assert (opinion.judge, opinion.looked, opinion.measures) == (name, False, {})
    assert opinion.why.startswith(f"off: folder {tmp_path / name} does not exist; ")


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("clip", "clip/config.json"),
        ("clip", "clip/model.safetensors"),
        ("clip", "clip/tokenizer.json"),
        ("clip", "clip/preprocessor_config.json"),
        ("aesthetic", "aesthetic/config.json"),
        ("aesthetic", "aesthetic/model.safetensors"),
        ("aesthetic", "clip/model.safetensors"),
    ],
)
def test_an_absent_file_is_named_by_the_judge_that_did_not_look(name, gone, models):
    (models / gone).unlink()
    opinion = one(name, models).opinion([picture()], PROMPT)
    assert not opinion.looked and opinion.why.startswith(f"off: folder {(models / gone).parent} has no {Path(gone).name}"), opinion


@pytest.mark.parametrize("package", ["rapidocr", "onnxruntime"])
def test_an_absent_package_means_that_the_judge_did_not_look(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    opinion = one("text", Path("/nowhere")).opinion([drawn("sample text")], PROMPT)
    assert not opinion.looked and package in opinion.why and "`ocr`" in opinion.why


def test_without_pictures_no_judge_looks(original):
    for judge in (one_clip(original), reader()):
        assert judge.opinion([], PROMPT) == Opinion(judge.name, False, "no picture was given")


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def edit(file: Path, **changes) -> None:
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def without(file: Path, key: str) -> None:
    save_file({k: v for k, v in load_file(file).items() if k != key}, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("clip", lambda m: truncate(m / "clip/model.safetensors"), ["clip", "cannot be loaded"]),
        ("clip", lambda m: (m / "clip/model.safetensors").write_bytes(b""), ["clip", "cannot be loaded"]),
        ("clip", lambda m: without(m / "clip/model.safetensors", "text_projection.weight"), ["lacks 1 ", "text_projection.weight"]),
        ("clip", lambda m: edit(m / "clip/config.json", projection_dim=8), ["lacks 2 ", "text_projection.weight"]),
        ("clip", lambda m: edit(m / "clip/config.json", vision_config=None), ["config.json lacks vision_config"]),
        ("clip", lambda m: truncate(m / "clip/config.json"), ["config.json cannot be read"]),
        ("clip", lambda m: truncate(m / "clip/tokenizer.json"), ["clip", "cannot be loaded"]),
        ("clip", lambda m: edit(m / "clip/preprocessor_config.json", image_mean=None), ["preprocessor_config.json", "image_mean"]),
        ("clip", lambda m: edit(m / "clip/preprocessor_config.json", crop_size={"height": 16, "width": 16}), ["clip", "16"]),
        ("aesthetic", lambda m: truncate(m / "clip/model.safetensors"), ["clip", "cannot be loaded"]),
        ("aesthetic", lambda m: truncate(m / "aesthetic/model.safetensors"), ["aesthetic", "cannot be loaded"]),
        ("aesthetic", lambda m: edit(m / "aesthetic/config.json", clip=None), ["config.json lacks clip"]),
        ("aesthetic", lambda m: save_file(head(768, 4, 1), m / "aesthetic/model.safetensors"), ["16 numbers", "768 to 4, 4 to 1"]),
        ("aesthetic", lambda m: save_file(head(16, 4), m / "aesthetic/model.safetensors"), ["to 1", "16 to 4"]),
        ("aesthetic", lambda m: save_file(head(16, 1) | {"norm": torch.ones(3, 3)}, m / "aesthetic/model.safetensors"), ["norm"]),
        ("aesthetic", lambda m: save_file({}, m / "aesthetic/model.safetensors"), ["none"]),
        ("aesthetic", lambda m: without(m / "aesthetic/model.safetensors", "layers.10.bias"), ["biases"]),
        ("beauty", lambda m: None, ["'beauty'", "clip, aesthetic, text"]),
    ],
)
def test_a_damaged_file_is_one_sentence(name, damage, words, models):
    damage(models)
    with pytest.raises(ModelError) as error:
        one(name, models)
    text = str(error.value)
    assert all(w in text for w in words) and "\n" not in text, text


@pytest.mark.parametrize("part", ["det", "rec"])
def test_a_damaged_reader_is_one_sentence_and_an_absent_one_did_not_look(part, tmp_path, monkeypatch):
    import rapidocr

    wheel = Path(rapidocr.__file__).parent
    (tmp_path / "models").mkdir()
    for file in (wheel / "models").glob("*.onnx"):
        (tmp_path / "models" / file.name).symlink_to(file)
    (file,) = (tmp_path / "models").glob(f"*_{part}_*")
    file.unlink()
    monkeypatch.setattr(rapidocr, "__file__", str(tmp_path / "__init__.py"))
    opinion = one("text", Path("/nowhere")).opinion([drawn()], "")
    assert not opinion.looked and f"*_{part}_*.onnx" in opinion.why
    file.write_bytes(b"\x08\x07no model")
    with pytest.raises(ModelError, match=r"RapidOCR's models in .* cannot be loaded"):
        one("text", Path("/nowhere"))


def test_weights_that_are_not_finite_give_no_measure(models):
    file = models / "clip" / "model.safetensors"
    save_file(load_file(file) | {"visual_projection.weight": torch.full((16, 32), torch.nan)}, file, metadata={"format": "pt"})
    opinion = one("clip", models).opinion([picture()], PROMPT)
    assert not opinion.looked and "clip_agreement" in opinion.why and opinion.measures == {}
