"""Tells what a model file is, from its header: what it holds, of which architecture, and what is unusual about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from .architectures import BY_WIDTH, FLUX, LTX, LTX_SIZES, REFINER, SD, SD2, SD3, SDXL, WAN
from .files import in_yaml
from .headers import Header, Tensor
from .ip_keys import ip_keys
from .lora_keys import LoraKeys, lora_keys
from .motion_keys import motion_keys
from .upscaler_files import COMPACT, compact_scale
from .values import ModelError

UNET, LDM_VAE, LTX_VAE = "model.diffusion_model.", "first_stage_model.", "vae."  # what parts of a checkpoint in one file begin with
TEXT_PARTS = ("cond_stage_model.", "conditioner.")  # the same, of its text encoders
SCALES = (".weight_scale", ".scale_weight")  # ends of what the weights of an fp8 file must be multiplied by
INPUT_SCALES = (".input_scale", ".scale_input", "scaled_fp8")  # of fp8 arithmetic: of no use where weights are multiplied out
PART = "it is a part of a diffusers folder; name the folder"
MARKERS = {"v_pred": "v-prediction", "ztsnr": "zero terminal SNR"}  # empty tensors that trainers of SDXL leave in their files

# Families that Tower has no class for: a key of each, and its name. A newcomer's file should not be "unknown".
OTHERS = {
    "double_blocks.0.img_attn": FLUX,
    "single_transformer_blocks.0.": FLUX,
    "joint_blocks.0.": SD3,
    "av_ca_a2v_gate_adaln_single": "LTX-2",
    "head.modulation": WAN,
    "control_model.": "ControlNet",
    "controlnet_cond_embedding.": "ControlNet or SparseCtrl",
    "txt_in.individual_token_refiner": "HunyuanVideo",
}


@dataclass(frozen=True)
class Found:
    """What a file is.

    kind: such as "checkpoint", "LoRA", "motion module". architecture: "" where none is to be told. notes: facts for people.
    faults: what keeps Tower from using the file, a sentence each. unknown: keys that nothing explains. family: of workflows that
    could use it. use: the line of YAML that would. scale: of upscalers, by which they make pictures larger.
    """

    kind: str
    architecture: str = ""
    parts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    family: str = ""
    use: str = ""
    lora: LoraKeys | None = field(default=None, repr=False)
    scale: int = 0


def identify(header: Header) -> Found:
    """What the file is; kind "unknown" where no rule knows it. Raises ModelError where tensors have shapes that no model has."""
    try:
        first = (_lora, _checkpoint, _ltx, _motion_module, _ip_adapter, _embedding, _vae, _upscaler, _text_encoder, _unet, _other)
        for rule in (*first, _by_spandrel):
            if (found := rule(header)) is not None:
                return found
    except IndexError as error:
        raise ModelError(f"{header.path} is no model: some of its tensors have fewer axes than their names call for") from error
    return Found("unknown", unknown=tuple(header.tensors), faults=("nothing that Tower knows has such keys",))


def elsewhere(single: Found | None) -> tuple[str, ...]:
    """Parts of a diffusers folder that may lack their weights, because this file beside it holds them."""
    held = {"transformer": "transformer", "VAE": "vae"} if single and single.family == "ltx_video" else {}
    return tuple(folder for part, folder in held.items() if single and part in single.parts)


def shape(tensors: dict[str, Tensor], name: str, axis: int) -> int | None:
    """Length of a tensor along an axis; None where there is no such tensor or axis."""
    found = tensors.get(name)
    return found.shape[axis] if found and -len(found.shape) <= axis < len(found.shape) else None


def _rest(tensors: dict[str, Tensor], *known: str) -> tuple[str, ...]:
    return tuple(name for name in tensors if not name.startswith(known))


def _any(tensors: dict[str, Tensor], text: str) -> bool:
    return any(text in name for name in tensors)


def _checkpoint(header: Header) -> Found | None:
    """A Stable Diffusion checkpoint in one file, in the layout of the original code."""
    t = header.tensors
    first = shape(t, f"{UNET}input_blocks.0.0.weight", 1)
    if first is None:
        return None
    keys = (name for name in t if name.startswith(UNET) and name.endswith("attn2.to_k.weight"))
    width = shape(t, next(keys, ""), 1) or 0
    architecture = BY_WIDTH.get(width, f"a UNet that attends to text of width {width}")
    encoders = any(n.startswith(TEXT_PARTS) for n in t)
    has_vae = any(n.startswith(LDM_VAE) for n in t)
    parts = ("UNet", *(["VAE"] if has_vae else []), *(["text encoder" + ("s" if architecture == SDXL else "")] if encoders else []))
    faults = [f"it lacks its {part}" for part, there in (("VAE", has_vae), ("text encoder", encoders)) if not there]
    latents = shape(t, f"{LDM_VAE}decoder.conv_in.weight", 1) or 4
    if first != latents:
        what = {2 * latents: "an editing", 2 * latents + 1: "an inpainting"}.get(first, "another kind of")
        faults.append(f"it is {what} model: its UNet reads {first} channels, and drawing from a prompt gives {latents}")
    if architecture in (SD2, REFINER):
        faults.append(f"Tower has no family for {architecture}")
    if any(n.endswith(SCALES) for n in t):
        faults.append("its weights must be multiplied by scales, which Tower does for LTX-Video alone: take the file in 16 bits")
    known = (UNET, LDM_VAE, *TEXT_PARTS, "model_ema.", *MARKERS, *SCHEDULE)
    notes = [*_prediction(header), *_fp8(header)]
    if any(n.startswith("model_ema.") for n in t):
        notes.append("holds a second copy of the UNet (EMA), which is not used")
    base = f"a diffusers folder of {architecture}, for configurations and tokenizer"
    use = "" if faults else f"checkpoint: {in_yaml(header.path.name)}, and base: {base}"
    two = any(n.startswith("conditioner.embedders.1.") for n in t)  # text encoders
    family = "stable_diffusion_xl" if architecture == SDXL or two else "stable_diffusion"
    return Found("checkpoint", architecture, parts, tuple(notes), tuple(faults), _rest(t, *known), family, use)


# Buffers of the original code's noise schedule, which a loader computes anew.
SCHEDULE = (
    "alphas_cumprod", "betas", "sqrt_", "log_one_minus", "posterior_", "logvar", "lvlb_weights", "denoiser.", "embedding_manager.", "edm_",
)  # fmt: skip


def _prediction(header: Header) -> list[str]:
    """What the file says of its prediction type: by marker tensors, or by its metadata (modelspec)."""
    told = [f"{meaning} (its marker {marker})" for marker, meaning in MARKERS.items() if marker in header.tensors]
    spec = header.metadata.get("modelspec.prediction_type")
    if spec:
        told.append(f"{ {'v': 'v-prediction', 'epsilon': 'epsilon prediction'}.get(spec, spec) } (its metadata)")
    return told or ["prediction type not told: epsilon is assumed"]


def _fp8(header: Header) -> list[str]:
    eights = [n for n, x in header.tensors.items() if x.dtype.startswith("F8")]
    scales = [n for n in header.tensors if n.endswith(SCALES)]
    if not eights:
        return []
    return [
        f"{len(eights)} tensors in fp8, " + (f"with {len(scales)} scales, by which they are multiplied" if scales else "without scales")
    ]


def _ltx(header: Header) -> Found | None:
    t, head = header.tensors, UNET if f"{UNET}patchify_proj.weight" in header.tensors else ""
    has_model, has_vae = f"{head}patchify_proj.weight" in t, any(n.startswith((f"{LTX_VAE}encoder.", f"{LTX_VAE}decoder.")) for n in t)
    if any("av_ca_a2v_gate" in n for n in t) or not (has_model or has_vae):
        return None
    layers = len({n.split("transformer_blocks.")[1].split(".")[0] for n in t if n.startswith(f"{head}transformer_blocks.")})
    width = shape(t, f"{head}patchify_proj.weight", 0) or 0
    size = LTX_SIZES.get((layers, width), f"of {layers} layers of width {width}") if has_model else ""
    version = _ltx_version(t) if has_vae else "its VAE comes from the base, whose version must be the file's: nothing in the file tells it"
    parts = (*(["transformer"] if has_model else []), *(["VAE"] if has_vae else []))
    faults = () if has_model else ("it lacks its transformer",)
    steps = "allowed_inference_steps" in header.metadata.get("config", "")
    notes = [version, *(["distilled: its metadata lists its own noise levels"] if steps else []), *_fp8(header)]
    known = (f"{head}transformer_blocks.", f"{head}patchify_proj", f"{head}adaln_single", f"{head}caption_projection", f"{head}proj_out",
             f"{head}scale_shift_table", f"{head}scaled_fp8", LTX_VAE)  # fmt: skip
    lacks = "T5, tokenizer and configurations" if has_vae else "T5, tokenizer, VAE and configurations"
    use = f"checkpoint: {in_yaml(header.path.name)}, and base: a diffusers folder of {LTX} {size}, for {lacks}" if has_model else ""
    return Found("checkpoint", f"{LTX} {size}".strip(), parts, tuple(notes), faults, _rest(t, *known), "ltx_video", use)


LTX_VERSIONS = ("VAE of 0.9.0", "VAE of 0.9.1", "VAE of 0.9.5 or later")


def _ltx_version(t: dict[str, Tensor]) -> str:
    """By the VAE: from 0.9.1 its decoder knows the noise level; from 0.9.5 its encoder ends in 2048 channels, and folds what it halves."""
    if shape(t, f"{LTX_VAE}encoder.conv_out.conv.weight", 1) == 2048 or f"{LTX_VAE}encoder.down_blocks.1.conv.conv.weight" in t:
        return LTX_VERSIONS[2]
    return LTX_VERSIONS[1 if _any(t, f"{LTX_VAE}decoder.last_time_embedder") else 0]


def _motion_module(header: Header) -> Found | None:
    keys = motion_keys(header)
    if keys is None:
        return None
    told = f"AnimateDiff {keys.version} for {keys.architecture}"
    if keys.of_folder(header):
        return Found("motion module", told, (), ("diffusers' layout: its folder says how many frames it makes",), (PART,))
    notes = (f"makes up to {keys.longest} frames", "trained on linear betas")
    use = f"motion_adapter: {in_yaml(header.path.name)}" if not keys.faults else ""
    return Found("motion module", told, (), notes, keys.faults, keys.unknown, "animatediff", use)


def _lora(header: Header) -> Found | None:
    keys = lora_keys(header)
    if keys is None:
        return None
    kind = "motion LoRA" if keys.motion else "LoRA"
    family = {SD: "stable_diffusion", SDXL: "stable_diffusion_xl", LTX: "ltx_video"}.get(keys.architecture, "")
    family = "animatediff" if keys.motion and family else family
    use = f"loras: [{{file: {in_yaml(header.path.name)}, weight: 1.0}}]" if not keys.faults else ""
    return Found(kind, keys.architecture, keys.parts, keys.notes, keys.faults, keys.unknown, family, use, keys)


def _ip_adapter(header: Header) -> Found | None:
    keys = ip_keys(header)
    if keys is None:
        return None
    architecture = BY_WIDTH.get(keys.text_width, f"text of width {keys.text_width}")
    faults = (*([f"Tower applies those of {SD} alone"] if architecture == SDXL else []), *keys.faults)
    notes = (
        f"{keys.kind}: {keys.reads}",
        f"its image encoder's {keys.encoders_width} is {keys.image_width}" if keys.encoders_width else "",
    )
    use = f"ip_adapter: {in_yaml(header.path.name)}, and image_encoder: a folder of CLIP's vision model of that width" if not faults else ""
    return Found("IP-Adapter", architecture, (), notes, faults, keys.unknown, "animatediff", use)


def _embedding(header: Header) -> Found | None:
    t = header.tensors
    if len(t) > 4 or any(len(x.shape) > 2 or x.parameters > 200 * 4096 for x in t.values()) or not t:
        return None
    widths = {x.shape[-1] if x.shape else 0 for x in t.values()}
    told = f"vectors of width {' and '.join(map(str, sorted(widths)))}"
    architecture = SDXL if {"clip_l", "clip_g"} <= t.keys() else {frozenset({768}): SD, frozenset({1024}): SD2}.get(frozenset(widths), told)
    if architecture == told and (len(t) > 1 or not all(len(x.shape) == 2 for x in t.values())):
        return None
    vectors = max(x.shape[0] if len(x.shape) == 2 else 1 for x in t.values())
    word = header.path.stem
    use = f"embeddings: {{{in_yaml(word)}: {in_yaml(header.path.name)}}}"
    faults = (f"Tower has no family for {SD2}",) if architecture == SD2 else ()
    family = "stable_diffusion_xl" if architecture == SDXL else "stable_diffusion"
    return Found("embedding (textual inversion)", architecture, (), (f"{vectors} vectors",), faults, (), family, "" if faults else use)


def _vae(header: Header) -> Found | None:
    t = {n.removeprefix(LDM_VAE).removeprefix("vae."): x for n, x in header.tensors.items()}
    channels = shape(t, "decoder.conv_in.weight", 1)
    if channels is None or len(t["decoder.conv_in.weight"].shape) != 4:
        return None
    architecture = {4: f"{SD} or {SDXL}", 16: f"{FLUX} or {SD3}"}.get(channels, f"{channels} channels")
    half = ("float16 of SDXL's VAE overflows to black",) if any(x.dtype == "F16" for x in t.values()) else ()
    return Found(
        "VAE",
        architecture,
        (),
        half,
        () if channels == 4 else (f"no family of Tower reads latents of {channels} channels",),
        _rest(t, "encoder.", "decoder.", "quant_conv.", "post_quant_conv.", "loss."),
        "stable_diffusion",
        f"vae: {in_yaml(header.path.name)}" if channels == 4 else "",
    )


def _upscaler(header: Header) -> Found | None:
    t = header.tensors
    if _any(t, "initial_conv.weight") and _any(t, "upsampler."):
        return Found("latent upsampler", LTX, faults=("Tower reads latent upsamplers as diffusers folders",))
    if (scale := compact_scale(header)) is None:
        return None
    return _as_upscaler(header, COMPACT, scale, "")


def _by_spandrel(header: Header) -> Found | None:
    """Any other upscaler. Only for files that nothing else explains: it imports torch."""
    from .spandrel_models import told_by_spandrel

    told = told_by_spandrel(header)
    return _as_upscaler(header, *told) if told else None


def _as_upscaler(header: Header, name: str, scale: int, fault: str) -> Found:
    use = "" if fault else f"checkpoint: {in_yaml(header.path.name)}, and scale: {scale}"
    faults = (f"it {fault}",) if fault else ()
    return Found("upscaler", name, (), (f"makes pictures {scale} times as wide and high",), faults, (), "upscaler", use, scale=scale)


def _text_encoder(header: Header) -> Found | None:
    t = header.tensors
    rules: tuple[tuple[str, Callable[[str], bool]], ...] = (
        ("T5", lambda n: "SelfAttention.q.weight" in n),
        ("CLIP", lambda n: "text_model.encoder.layers." in n),
        ("CLIP's vision model", lambda n: "vision_model.encoder.layers." in n),
    )
    for name, rule in rules:
        if any(map(rule, t)):
            return Found(
                "text encoder" if "vision" not in name else "image encoder", name, faults=("it belongs into the checkpoint's folder",)
            )
    return None


def _unet(header: Header) -> Found | None:
    """A UNet in diffusers' layout."""
    width = next((x.shape[-1] for n, x in header.tensors.items() if n.endswith("attn2.to_k.weight") and n.startswith("down_blocks.")), None)
    if width is None or "conv_in.weight" not in header.tensors:
        return None
    return Found("UNet", BY_WIDTH.get(width, f"text of width {width}"), (), tuple(_fp8(header)), (PART,))


def _other(header: Header) -> Found | None:
    name = next((name for key, name in OTHERS.items() if _any(header.tensors, key)), None)
    if name is None and header.format == "gguf":
        name = header.metadata.get("general.architecture", "unknown architecture")
    return Found("checkpoint", name, faults=(f"Tower has no family for {name}",)) if name else None


def types(header: Header) -> dict[str, int]:
    """Type to number of parameters, most first."""
    count: Counter[str] = Counter()
    for tensor in header.tensors.values():
        count[tensor.dtype] += tensor.parameters
    return dict(count.most_common())
