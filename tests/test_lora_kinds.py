"""Kinds of LoRAs beside the pair of matrices: each changes its weight as its formula says, on UNet and text encoder, and goes again without a trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from actors.keyframe import KeyframeModel, KeyframeXLModel
from actors.prompts import PromptEncoder
from actors.values import KeyframeSettings, Lora, ModelError, ModelFiles

from . import tiny_xl
from .test_actors import HANA, SD, STILLS, still

LINEAR, CONV = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", "down_blocks.1.resnets.0.conv1"
RANK, ALPHA = 4, 2.0


def made(kind: str, shape: tuple[int, ...]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Tensors of a module, and the change that they mean at scale 1, written out with loops of einsum."""
    out, width, *window = shape

    def r(*sides: int) -> torch.Tensor:
        return torch.randn(sides) * 0.3

    if kind == "loha":
        a1, b1, a2, b2 = r(out, RANK), r(RANK, width, *window), r(out, RANK), r(RANK, width, *window)
        return {"hada_w1_a": a1, "hada_w1_b": b1.flatten(1), "hada_w2_a": a2, "hada_w2_b": b2.flatten(1)}, (
            torch.einsum("or,ri...->oi...", a1, b1) * torch.einsum("or,ri...->oi...", a2, b2)
        )
    if kind == "loha in three parts":
        t1, t2, (a1, a2), (b1, b2) = r(RANK, RANK, *window), r(RANK, RANK, *window), (r(RANK, out), r(RANK, out)), (r(RANK, width), r(RANK, width))
        halves = [torch.einsum("pqhw,po,qi->oihw", t, a, b) for t, a, b in ((t1, a1, b1), (t2, a2, b2))]
        return {"hada_t1": t1, "hada_t2": t2, "hada_w1_a": a1, "hada_w2_a": a2, "hada_w1_b": b1, "hada_w2_b": b2}, halves[0] * halves[1]
    if kind == "lokr":
        one, a, b = r(4, 2), r(out // 4, RANK), r(RANK, width // 2, *window)
        two = torch.einsum("or,ri...->oi...", a, b)
        return {"lokr_w1": one, "lokr_w2_a": a, "lokr_w2_b": b}, torch.einsum("ab,cd...->acbd...", one, two).reshape(shape)
    if kind == "lokr, whole":
        one, two = r(4, 2), r(out // 4, width // 2, *window)
        return {"lokr_w1": one, "lokr_w2": two}, torch.einsum("ab,cd...->acbd...", one, two).reshape(shape) * RANK / ALPHA  # no rank, no scale
    if kind == "three parts":
        down, mid, up = r(RANK, width, 1, 1), r(RANK, RANK, *window), r(out, RANK, 1, 1)
        return {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up}, torch.einsum("or,rshw,si->oihw", up[..., 0, 0], mid, down[..., 0, 0])
    if kind == "difference":
        whole = r(*shape)
        return {"diff": whole}, whole * RANK / ALPHA
    down, up = r(RANK, width, *window), r(out, RANK, *([1] * len(window)))
    return {"lora_down.weight": down, "lora_up.weight": up}, torch.einsum("or,ri...->oi...", up.flatten(1), down)


def file_of(path: Path, module: str, tensors: dict[str, torch.Tensor], prefix: str = "lora_unet_") -> Lora:
    name = prefix + module.replace(".", "_")
    save_file({f"{name}.{kind}": value.contiguous() for kind, value in tensors.items()} | {f"{name}.alpha": torch.tensor(ALPHA)}, path)
    return Lora(str(path), 0.7)


def weight_of(model: KeyframeModel, module: str) -> torch.Tensor:
    return model.pipe.unet.get_submodule(module).weight


@pytest.fixture(scope="module")
def model() -> KeyframeModel:
    return KeyframeModel("k", SD, STILLS)


CASES = [
    ("loha", LINEAR), ("loha", CONV), ("loha in three parts", CONV), ("lokr", LINEAR), ("lokr", CONV), ("lokr, whole", CONV),
    ("three parts", CONV), ("difference", LINEAR),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "module"), CASES)
def test_a_weight_changes_as_the_files_formula_says_and_is_restored_bit_for_bit(model, tmp_path, kind, module):
    plain = weight_of(model, module).detach().clone()
    tensors, change = made(kind, tuple(plain.shape))
    lora = file_of(tmp_path / "a.safetensors", module, tensors)
    model.prepare((lora,))
    wanted = plain + 0.7 * ALPHA / RANK * change
    assert torch.allclose(weight_of(model, module), wanted, rtol=1e-4, atol=1e-6) and not torch.allclose(wanted, plain, atol=1e-3)
    other = file_of(tmp_path / "b.safetensors", module, made(kind, tuple(plain.shape))[0])
    model.prepare((lora, other))
    model.prepare(())
    assert torch.equal(weight_of(model, module), plain)


@pytest.mark.parametrize("by", ["output", "input"])
@pytest.mark.parametrize("module", [LINEAR, CONV])
def test_dora_turns_the_weight_and_gives_it_the_files_length(model, tmp_path, module, by):
    plain = weight_of(model, module).detach().clone()
    tensors, change = made("dora", tuple(plain.shape))
    turned = plain + ALPHA / RANK * change
    axis = 0 if by == "output" else 1
    sides = [n if i == axis else 1 for i, n in enumerate(plain.shape)]
    length = torch.rand(sides) + 0.5
    norm = turned.pow(2).sum(dim=[i for i in range(plain.ndim) if i != axis], keepdim=True).sqrt()
    model.prepare((file_of(tmp_path / "a.safetensors", module, tensors | {"dora_scale": length}),))
    assert torch.allclose(weight_of(model, module), plain + 0.7 * (turned * length / norm - plain), rtol=1e-4, atol=1e-5)
    model.prepare(())


def test_dora_as_peft_writes_it_has_a_length_for_each_output_of_a_convolution(model, tmp_path):
    square = CONV.replace("conv1", "conv2")  # as many inputs as outputs, so that the shape alone does not tell which is meant
    plain = weight_of(model, square).detach().clone()
    (tensors, change), length = made("dora", tuple(plain.shape)), torch.rand(len(plain), 1, 1, 1) + 0.5
    assert plain.shape[0] == plain.shape[1]
    names = {"lora_A.weight": tensors["lora_down.weight"], "lora_B.weight": tensors["lora_up.weight"], "lora_magnitude_vector": length.transpose(0, 1)}
    save_file({f"unet.{square}.{name}": value.contiguous() for name, value in names.items()}, tmp_path / "a.safetensors")
    model.prepare((Lora(str(tmp_path / "a.safetensors")),))
    turned = plain + change
    assert torch.allclose(weight_of(model, square), turned * length / turned.flatten(1).norm(dim=1).view(-1, 1, 1, 1), rtol=1e-4, atol=1e-5)
    model.prepare(())


def test_a_pair_of_matrices_and_a_loha_on_the_same_weight_are_both_there_whichever_came_first(tmp_path):
    plain, pictures = None, []
    (tmp_path / "pair").mkdir()
    for turn in (0, 1):
        model = KeyframeModel("k", SD, STILLS)
        plain = weight_of(model, LINEAR).detach().clone()
        torch.manual_seed(1)
        (pair, pair_change), (loha, loha_change) = made("pair", tuple(plain.shape)), made("loha", tuple(plain.shape))
        loras = (file_of(tmp_path / "pair.safetensors", LINEAR, pair), file_of(tmp_path / "loha.safetensors", LINEAR, loha))
        for lora in loras[:: 1 - 2 * turn]:
            model.prepare((lora,))
        model.prepare(loras)
        layer = model.pipe.unet.get_submodule(LINEAR)
        (name,) = layer.lora_A
        added = layer.scaling[name] * layer.lora_B[name].weight @ layer.lora_A[name].weight
        assert torch.allclose(layer.weight + added, plain + 0.7 * ALPHA / RANK * (pair_change + loha_change), rtol=1e-4, atol=1e-5)
        pictures.append(model.generate([still(HANA, 1, loras=loras)])[1][0])
        model.prepare(())
        assert torch.equal(layer.weight, plain)
    assert np.array_equal(*pictures)


def test_a_loha_for_a_text_encoder_changes_the_prompt_and_leaves_nothing_behind(tmp_path):
    encoder, by_hand = PromptEncoder("t", SD), PromptEncoder("t", SD)
    place = "encoder.layers.0.self_attn.q_proj"
    weight = by_hand.encoder.get_submodule(place).weight
    tensors, change = made("loha", tuple(weight.shape))
    lora = file_of(tmp_path / "a.safetensors", f"text_model.{place}", tensors, "lora_te_")
    before = encoder.encode([HANA])[0].embeds
    with torch.no_grad():
        weight += 0.7 * ALPHA / RANK * change
    assert np.allclose(encoder.encode([HANA], (lora,))[0].embeds, by_hand.encode([HANA])[0].embeds, atol=1e-5)
    assert np.array_equal(encoder.encode([HANA])[0].embeds, before)


def test_the_names_of_the_original_code_find_their_weights(tmp_path):
    folder = tiny_xl.write(tmp_path / "xl")
    model = KeyframeXLModel("k", ModelFiles(str(folder)), KeyframeSettings(64, 64, 2, 5.0))
    named = {
        "input_blocks_4_1_transformer_blocks_0_attn1_to_q": "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
        "input_blocks_4_0_in_layers_2": "down_blocks.1.resnets.0.conv1",
        "middle_block_1_transformer_blocks_0_attn2_to_k": "mid_block.attentions.0.transformer_blocks.0.attn2.to_k",
        "output_blocks_0_0_skip_connection": "up_blocks.0.resnets.0.conv_shortcut",
        "output_blocks_2_1_proj_in": "up_blocks.0.attentions.2.proj_in",
    }
    for original, ours in named.items():
        plain = weight_of(model, ours).detach().clone()
        tensors, change = made("loha", tuple(plain.shape))
        model.prepare((file_of(tmp_path / f"{original}.safetensors", original, tensors),))
        assert torch.allclose(weight_of(model, ours), plain + 0.7 * ALPHA / RANK * change, rtol=1e-3, atol=1e-5), original


@pytest.mark.parametrize("module", ["nowhere_at_all", LINEAR])
def test_a_loha_without_a_place_or_of_another_shape_is_refused(model, tmp_path, module):
    lora = file_of(tmp_path / "a.safetensors", module, made("loha", (6, 10))[0])
    with pytest.raises(ModelError, match="does not fit this checkpoint"):
        model.prepare((lora,))


def test_a_pair_for_a_convolution_changes_it_as_its_file_says(model, tmp_path):
    plain = weight_of(model, CONV).detach().clone()
    tensors, change = made("pair", tuple(plain.shape))
    model.prepare((file_of(tmp_path / "a.safetensors", CONV, tensors),))
    layer = model.pipe.unet.get_submodule(CONV)
    name = next(iter(layer.lora_A))
    added = layer.scaling[name] * torch.einsum("or,ri...->oi...", layer.lora_B[name].weight.flatten(1), layer.lora_A[name].weight)
    assert torch.allclose(added, 0.7 * ALPHA / RANK * change, rtol=1e-3, atol=1e-6)
    model.prepare(())
