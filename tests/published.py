"""Published layouts in miniature: the demo's models under the file names, shards, variants and extra entries of what producers download.

What Tower must not open holds other numbers, or no model at all: whoever opens it draws another picture, or fails.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sentencepiece import sentencepiece_model_pb2

from benchmarks.original_layout import single_file

from .conftest import DEMO

Tensors = dict[str, torch.Tensor]
JUNK = b"whoever opens this fails"
# Of each repository, what Tower opens.
STABLE_DIFFUSION = {
    "model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json", "text_encoder/model.safetensors", "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json", "tokenizer/tokenizer_config.json", "tokenizer/vocab.json", "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors", "vae/config.json", "vae/diffusion_pytorch_model.safetensors",
}  # fmt: skip
LTX_VIDEO = {
    "model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json", "text_encoder/model.safetensors.index.json",
    *(f"text_encoder/model-0000{n}-of-00004.safetensors" for n in range(1, 5)), "tokenizer/added_tokens.json",
    "tokenizer/special_tokens_map.json", "tokenizer/spiece.model", "tokenizer/tokenizer_config.json", "transformer/config.json",
    *(f"transformer/diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)),
    "transformer/diffusion_pytorch_model.safetensors.index.json", "vae/config.json", "vae/diffusion_pytorch_model.safetensors",
}  # fmt: skip
MOTION_ADAPTER = {"config.json", "diffusion_pytorch_model.safetensors"}

# Buffers that the original code's training leaves in its files.
SCHEDULE = (
    "alphas_cumprod", "alphas_cumprod_prev", "betas", "log_one_minus_alphas_cumprod", "posterior_log_variance_clipped", "posterior_mean_coef1",
    "posterior_mean_coef2", "posterior_variance", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
)  # fmt: skip


def stable_diffusion(folder: Path) -> Path:
    """As Stable Diffusion 1.5 is published: two variants and pickles beside each weights file, a safety checker, and the original files."""
    shutil.copytree(DEMO / "stable-diffusion", folder, dirs_exist_ok=True)
    _clip_tokenizer(folder / "tokenizer")
    for part, name in (("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"), ("text_encoder", "model")):
        others = (".fp16", ".non_ema") if part == "unet" else (".fp16",)
        for other in others:
            _changed(folder / part / f"{name}.safetensors", folder / part / f"{name}{other}.safetensors", torch.zeros_like)
        for pickle in ("", *others):
            (folder / part / f"{'pytorch_model' if name == 'model' else name}{pickle}.bin").write_bytes(JUNK)
    _extra(folder, "safety_checker", "config.json", "model.safetensors", "model.fp16.safetensors", "pytorch_model.bin", "pytorch_model.fp16.bin")
    _extra(folder, "feature_extractor", "preprocessor_config.json")
    _index(
        folder, requires_safety_checker=True, safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPImageProcessor"],
    )  # fmt: skip
    _extra(folder, ".", ".gitattributes", "README.md", "v1-inference.yaml", "v1-5-pruned.ckpt", "v1-5-pruned-emaonly.ckpt")
    _original(folder)
    return folder


def stable_diffusion_in_fp16(folder: Path) -> Path:
    """As many checkpoints are published: only as the variant fp16, in float16."""
    stable_diffusion(folder)
    for file in {*folder.glob("*/*.bin"), *folder.glob("*/*.non_ema.*"), *folder.glob("v1-5*")}:
        file.unlink()
    for part, name in (("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"), ("text_encoder", "model")):
        plain = folder / part / f"{name}.safetensors"
        _changed(plain, folder / part / f"{name}.fp16.safetensors", lambda t: t.half() if t.is_floating_point() else t)
        plain.unlink()
    return folder


def motion_adapter(folder: Path) -> Path:
    """As mm_sd_v15_v2 is published for diffusers: beside it a variant and a pickle."""
    shutil.copytree(DEMO / "motion-adapter", folder, dirs_exist_ok=True)
    _changed(folder / "diffusion_pytorch_model.safetensors", folder / "diffusion_pytorch_model.fp16.safetensors", torch.zeros_like)
    _extra(folder, ".", ".gitattributes", "README.md", "diffusion_pytorch_model.bin")
    return folder


def ltx_video(folder: Path) -> Path:
    """As LTX-Video 0.9.5 and later is published: transformer and T5 in shards, a sentencepiece tokenizer, the original file beside them."""
    shutil.copytree(DEMO / "ltx-video", folder, dirs_exist_ok=True)
    _t5_tokenizer(folder / "tokenizer")
    _shards(folder / "text_encoder", "model", 4)
    _shards(folder / "transformer", "diffusion_pytorch_model", 2)
    whole: Tensors = {}
    for shard in sorted((folder / "vae").glob("*-of-*.safetensors")):
        whole |= load_file(shard)
        shard.unlink()
    (folder / "vae" / "diffusion_pytorch_model.safetensors.index.json").unlink()
    save_file(whole, folder / "vae" / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    _extra(folder, ".", ".gitattributes", "README.md", "ltx-video-2b-v0.9.5.license.txt", "ltx-video-2b-v0.9.5.safetensors")
    _extra(folder, "media", "trailer.mp4")
    return folder


def _changed(file: Path, other: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    save_file({name: change(tensor).contiguous() for name, tensor in load_file(file).items()}, other, metadata={"format": "pt"})


def _extra(folder: Path, part: str, *names: str) -> None:
    (folder / part).mkdir(exist_ok=True)
    for name in names:
        (folder / part / name).write_bytes(b"{}" if name.endswith(".json") else JUNK)


def _index(folder: Path, **values: object) -> None:
    file = folder / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def _shards(folder: Path, name: str, count: int) -> None:
    whole = folder / f"{name}.safetensors"
    tensors = sorted(load_file(whole).items())
    whole.unlink()
    where = {}
    for n in range(count):
        some, file = dict(tensors[n::count]), f"{name}-{n + 1:05}-of-{count:05}.safetensors"
        save_file(some, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(some, file)
    size = sum(t.numel() * t.element_size() for _, t in tensors)
    (folder / f"{name}.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": where}))


def _original(folder: Path) -> None:
    """The two files of the original code: with the buffers of its schedule, and one with the averaged weights a second time."""
    buffers = {name: torch.zeros(1000) for name in SCHEDULE} | {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(0)}
    positions = json.loads((folder / "text_encoder" / "config.json").read_text())["max_position_embeddings"]
    buffers["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(positions)[None]
    plain = folder.parent / "plain"  # a folder without the variants
    shutil.copytree(folder, plain, ignore=shutil.ignore_patterns("*.fp16.*", "*.non_ema.*"))
    small = single_file(plain, folder / "v1-5-pruned-emaonly.safetensors", **buffers)
    shutil.rmtree(plain)
    unet = "model.diffusion_model."
    tensors = load_file(small)
    averaged = {f"model_ema.diffusion_model{k.removeprefix(unet).replace('.', '')}": torch.zeros_like(t) for k, t in tensors.items() if k.startswith(unet)}
    save_file(tensors | averaged, folder / "v1-5-pruned.safetensors")


def _clip_tokenizer(folder: Path) -> None:
    """As published: vocabulary and merges in two files, and special tokens as dictionaries."""
    told = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(told["vocab"]))
    merges = [" ".join(m) if isinstance(m, list) else m for m in told["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    special = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    tokens = {"bos_token": {"content": "<|startoftext|>"} | special, "eos_token": {"content": "<|endoftext|>"} | special}
    tokens["unk_token"] = tokens["eos_token"]
    (folder / "special_tokens_map.json").write_text(json.dumps(tokens | {"pad_token": "<|endoftext|>"}))
    had = json.loads((folder / "tokenizer_config.json").read_text())
    written = {name: {"__type": "AddedToken"} | token for name, token in tokens.items()}
    more = {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "tokenizer_class": "CLIPTokenizer", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(written | more | {"model_max_length": had["model_max_length"]}))


def _t5_tokenizer(folder: Path) -> None:
    """As published: sentencepiece's own file, and a hundred tokens for gaps that no prompt has."""
    pieces = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "tokenizer.json").unlink()
    model = sentencepiece_model_pb2.ModelProto()
    kinds = {"<pad>": 3, "</s>": 3, "<unk>": 2}  # control, and unknown; all others are normal
    for piece, score in pieces:
        model.pieces.add(piece=piece, score=score, type=kinds.get(piece, 1))
    spec = model.trainer_spec
    spec.model_type, spec.vocab_size = 1, len(pieces)  # unigram
    spec.pad_id, spec.eos_id, spec.unk_id, spec.bos_id = 0, 1, 2, -1
    model.normalizer_spec.name = "identity"
    (folder / "spiece.model").write_bytes(model.SerializeToString())
    gaps = [f"<extra_id_{n}>" for n in range(100)]
    (folder / "added_tokens.json").write_text(json.dumps({gap: len(pieces) + 99 - n for n, gap in enumerate(gaps)}))
    tokens = {"additional_special_tokens": gaps, "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(tokens))
    more = {"extra_ids": 100, "legacy": True, "clean_up_tokenization_spaces": True, "sp_model_kwargs": {}, "tokenizer_class": "T5Tokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens | more | {"model_max_length": 64}))
