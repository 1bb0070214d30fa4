"""Learned judges: optional, from local files, behind one small interface. They measure; they never decide.

`<models>/clip` holds a CLIP as transformers saves it, and `<models>/aesthetic` a head for its embeddings. The text
judge's models are in RapidOCR's wheel. A judge whose files are absent is off, and its opinion says so. Damaged files
raise a ModelError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial, reduce
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import load_file
from torch.nn.functional import normalize
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from .files import in_one_line, read_config
from .loading import best_device, dtype_for
from .values import ModelError

Look = Callable[[np.ndarray, str], dict[str, float]]  # (picture, prompt) to the measures of that picture


@dataclass(frozen=True)
class Opinion:
    """What one judge measured. looked: False where it measured nothing; then `why` gives the reason in one sentence."""

    judge: str
    looked: bool
    why: str = ""
    measures: dict[str, float] = field(default_factory=dict)


class Judge(Protocol):
    """pictures: uint8 RGB (height, width, 3), one still or a few frames of a clip. prompt: what they should show."""

    name: str

    def opinion(self, pictures: Sequence[np.ndarray], prompt: str) -> Opinion: ...


@dataclass
class _Judge:
    """A judge that looks at each picture by itself.

    look: None where the judge is off; then `off` gives the reason.
    over: combines the values of one measure over all pictures into one value.
    """

    name: str
    look: Look | None
    over: Callable[[list[float]], float] = fmean
    off: str = ""

    def opinion(self, pictures: Sequence[np.ndarray], prompt: str) -> Opinion:
        if self.look is None or not pictures:
            return Opinion(self.name, False, self.off or "no picture was given")
        seen = [self.look(picture, prompt) for picture in pictures]
        measures = {key: float(self.over([each[key] for each in seen])) for key in seen[0]}
        if not np.isfinite(list(measures.values())).all():
            return Opinion(self.name, False, f"{', '.join(measures)} came out as no finite number")
        return Opinion(self.name, True, "", measures)


class _Absent(Exception):
    """A judge's files or packages are absent. The message says what is absent and what belongs there, in one sentence."""


class Clip:
    """A CLIP checkpoint, which turns pictures and texts into embeddings of length 1, float32 (projection_dim,) on the CPU.

    Each is embedded by itself, so that an embedding does not depend on its neighbours in a batch. The checkpoint sees a
    square: a picture is resized and cropped, so the ends of a wide picture are not seen.

    Raises:
        ModelError: the files are damaged, or do not fit each other.
    """

    def __init__(self, folder: Path, device: str | None = None):
        files = ("config.json", "model.safetensors", "tokenizer.json|vocab.json", "preprocessor_config.json|processor_config.json")
        _expect(folder, "a CLIP as transformers saves it", *files)
        self.device = device or best_device()
        with _faults(f"CLIP {folder}"):
            _need(folder / "config.json", read_config(str(folder), ""), "projection_dim", "text_config", "vision_config")
            # The processor that uses PIL, because the default one needs torchvision.
            pixels, _ = CLIPImageProcessorPil.get_image_processor_dict(folder, local_files_only=True)
            _need(folder / "preprocessor_config.json", pixels, "size", "crop_size", "image_mean", "image_std")
            self.processor = CLIPImageProcessorPil.from_dict(pixels)
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            local = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
            model, found = CLIPModel.from_pretrained(folder, dtype=dtype_for("auto", self.device, "float16"), **local)
            wrong = sorted([*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])])
            if wrong:  # transformers would fill them with random numbers
                raise ModelError(f"CLIP {folder} lacks {len(wrong)} tensors of the sizes in its config.json, such as {wrong[0]}")
            self.model, words = model.eval().requires_grad_(False).to(self.device), model.config.text_config
            self.max_tokens = min(self.tokenizer.model_max_length, words.max_position_embeddings)
            if len(self.tokenizer) > words.vocab_size:
                raise ModelError(f"CLIP {folder} has {words.vocab_size} tokens, and a tokenizer of another, with {len(self.tokenizer)}")
            self.last_text = lru_cache(1)(self.text)  # all frames of a clip have the same prompt
            self.agreement(np.zeros((64, 96, 3), np.uint8), "a")  # a trial run: parts that do not fit each other fail here

    def picture(self, picture: np.ndarray) -> torch.Tensor:
        pixels = self.processor(Image.fromarray(picture), return_tensors="pt").pixel_values.to(self.device, self.model.dtype)
        return normalize(self.model.get_image_features(pixels).pooler_output[0].float(), dim=-1).cpu()

    def text(self, text: str) -> torch.Tensor:
        """Embedding of a text. Tokens beyond the checkpoint's limit (77 for OpenAI's CLIP) are cut off."""
        tokens = self.tokenizer(text, truncation=True, max_length=self.max_tokens, return_tensors="pt").to(self.device)
        features = self.model.get_text_features(tokens.input_ids, attention_mask=tokens.attention_mask)
        return normalize(features.pooler_output[0].float(), dim=-1).cpu()

    def agreement(self, picture: np.ndarray, prompt: str) -> dict[str, float]:
        """clip_agreement: cosine of the picture's and the prompt's embeddings, -1..1; the judge takes the mean over pictures.

        CLIPScore (Hessel et al. 2021, arXiv:2104.08718) is 2.5 max(cosine, 0) with "A photo depicts" before the caption;
        in torchmetrics it is 100 max(cosine, 0). Here the prompt has no prefix, and the cosine keeps its scale and sign.
        """
        return {"clip_agreement": float(self.picture(picture) @ self.last_text(prompt))}


def aesthetic(folder: Path, clip_of: Callable[[Path], Clip]) -> Look:
    """aesthetic: people's rating of the picture as a head predicts it from the CLIP embedding; mean over the pictures.

    Unbounded; LAION's head was fitted to ratings of 1..10. The layers are Linear ones in numeric order of their names
    with no activation between, as in github.com/christophschuhmann/improved-aesthetic-predictor, simple_inference.py:
    layers.0, .2, .4, .6 and .7 (768-1024-128-64-16-1), its ReLUs commented out, on the normalised ViT-L/14 embedding.

    Args:
        folder: the head's folder. clip_of: loads the CLIP of a folder.

    Raises:
        ModelError: the files are damaged, or are no such chain of layers.
    """
    _expect(folder, "a head's config.json and model.safetensors", "config.json", "model.safetensors")
    config = read_config(str(folder), "")
    _need(folder / "config.json", config, "clip")
    clip, file = clip_of(folder.parent / str(config["clip"])), folder / "model.safetensors"
    with _faults(f"aesthetic head {file}"):
        tensors = {key: value.float() for key, value in load_file(file).items()}
    names = [key.removesuffix("weight") for key, value in tensors.items() if value.ndim == 2 and key.endswith("weight")]
    names.sort(key=lambda name: [int(n) for n in re.findall(r"\d+", name)])
    layers = [(tensors.pop(name + "weight"), tensors.pop(name + "bias", torch.empty(0))) for name in names]
    width, sizes = clip.model.config.projection_dim, [tuple(weight.shape[::-1]) for weight, _ in layers]
    chained = [width, *(out for _, out in sizes)] == [*(into for into, _ in sizes), 1]
    if tensors or not chained or any(bias.shape != weight.shape[:1] for weight, bias in layers):
        got = ", ".join(f"{into} to {out}" for into, out in sizes) or "none"
        left = f", and {min(tensors)} is left over" if tensors else ""
        raise ModelError(f"aesthetic head {file} is no chain of Linear layers with biases from {width} numbers to 1: it has {got}{left}")
    return lambda picture, _: {"aesthetic": float(reduce(lambda v, layer: layer[0] @ v + layer[1], layers, clip.picture(picture)))}


def reader() -> Any:
    """RapidOCR (PP-OCR) with the ONNX files of its wheel. The files are named, because it would download them otherwise."""
    try:
        import onnxruntime  # noqa: F401
        import rapidocr
    except ImportError as error:
        raise _Absent(f"package {error.name} cannot be imported; the extra `ocr` brings it (pip install -e '.[ocr]')") from error
    folder, params = Path(rapidocr.__file__).parent / "models", {"Global.log_level": "critical", "Global.text_score": 0.5}
    for part in ("Det", "Cls", "Rec"):
        found = sorted(folder.glob(f"*_{part.lower()}_*.onnx"))
        if not found:
            raise _Absent(f"{folder} has no *_{part.lower()}_*.onnx; RapidOCR's wheel has it, install it again")
        params[f"{part}.model_path"] = str(found[0])
    threads = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
    with _faults(f"RapidOCR's models in {folder}"):
        engine = rapidocr.RapidOCR(params={**params, **threads})
        probe = Image.new("RGB", (160, 64), "white")  # RapidOCR loads a model at its first use; this text uses all three
        ImageDraw.Draw(probe).text((20, 12), "Tower", fill="black", font=ImageFont.load_default(32))
        engine(np.asarray(probe))
    return engine


def texts(engine: Any, picture: np.ndarray, prompt: str) -> dict[str, float]:
    """Measures of the text in a picture, uint8 RGB (height, width, 3).

    text_boxes: number of places with text that is read at a confidence of 0.5 or more.
    text_area: share of the picture that these places cover, 0..1.
    text_confidence: highest confidence of any text, 0..1; 0 without text.

    The judge takes the maximum over the pictures, so that a watermark on one frame counts. In 24 of the demo's scenes, a
    shape was sometimes read as one or two letters with a confidence of 0.55 to 0.75, mostly at 96 x 64 pixels; drawn words
    had 0.98 and more.
    """
    found = engine(np.ascontiguousarray(picture[..., ::-1]))  # RapidOCR takes arrays as BGR
    boxes, covered = [] if found.boxes is None else found.boxes, Image.new("L", (picture.shape[1], picture.shape[0]))
    for box in boxes:
        ImageDraw.Draw(covered).polygon([(float(x), float(y)) for x, y in box], fill=1)
    area = float(np.asarray(covered).mean())
    return {"text_boxes": float(len(boxes)), "text_area": area, "text_confidence": float(max(found.scores or (0.0,)))}


def load_judges(names: Sequence[str], models_dir: Path, device: str | None = None) -> list[Judge]:
    """The judges of these names, in the same order. A judge whose files are absent is off. All judges share one loaded CLIP.

    Raises:
        ModelError: a name is unknown, or a judge's files are damaged.
    """
    clip_of = cache(lambda folder: Clip(folder, device))
    kinds: dict[str, Callable[[], Judge]] = {
        "clip": lambda: _Judge("clip", clip_of(models_dir / "clip").agreement),
        "aesthetic": lambda: _Judge("aesthetic", aesthetic(models_dir / "aesthetic", clip_of)),
        "text": lambda: _Judge("text", partial(texts, reader()), max),
    }

    def load(name: str) -> Judge:
        if name not in kinds:
            raise ModelError(f"judge {name!r} is not known; it is one of {', '.join(kinds)}")
        try:
            return kinds[name]()
        except _Absent as absent:
            return _Judge(name, None, off=f"off: {absent}")

    return [load(name) for name in names]


def _expect(folder: Path, what: str, *files: str) -> None:
    """Raise _Absent where the folder or one of the files does not exist. files: names; alternatives have | between them."""
    if not folder.is_dir():
        raise _Absent(f"folder {folder} does not exist; {what} would be right there")
    for file in files:
        if not any((folder / name).is_file() for name in file.split("|")):
            raise _Absent(f"folder {folder} has no {file.replace('|', ' or ')}; {what} would be right there")


@contextmanager
def _faults(what: str) -> Iterator[None]:
    """Turn any exception of a library into a ModelError of one sentence."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{what} cannot be loaded: {in_one_line(error)}") from error


def _need(file: Path, config: dict[str, Any], *keys: str) -> None:
    lacking = [key for key in keys if key not in config]
    if lacking:
        raise ModelError(f"{file} lacks {', '.join(lacking)}; the checkpoint's own file has them")
