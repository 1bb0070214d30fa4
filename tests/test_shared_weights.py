"""Workflows that load the same files share one set of weights on a device; each samples by its own settings, and draws what it draws alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from actors.animatediff import AnimateDiffModel
from actors.beside import Workflows
from actors.families import FAMILIES
from actors.keyframe import KeyframeModel
from actors.ltx_video import LtxVideoModel
from actors.values import ClipRequest, ClipSettings, Hires, KeyframeRequest, Lora, ModelError
from pipeline.registry.files import files_of
from pipeline.render.needs import weights_key
from pipeline.story.settings import load_settings
from pipeline.story.workflow import WORKFLOWS, read_workflow

from .conftest import EPISODE, takes_of, tower
from .test_actors import ANIMATE, HANA, LTX, SD, SHORT, SIXTEEN, STILLS, first_frame, words
from .test_loading import ATTENTION, kohya

EULER = replace(STILLS, scheduler="euler", num_inference_steps=5, guidance_scale=5.0, prediction_type="epsilon")
TALL = replace(STILLS, width=64, height=96, hires=Hires(2.0, 0.5, 4))


def still(identity: str, settings, seed: int = 1, **more) -> KeyframeRequest:
    return KeyframeRequest(f"t{seed}", seed, workflow=identity, settings=settings, prompt=words(HANA), negative=words(""), **more)


def clip(identity: str, settings, ltx: bool = True) -> ClipRequest:
    prompt, negative = words(HANA, ltx), words("", ltx)
    return ClipRequest("t", 1, workflow=identity, settings=settings, prompt=prompt, negative=negative, keyframe=first_frame(3))


def test_three_workflows_of_stills_draw_what_each_draws_alone_in_any_order_and_hold_one_unet():
    settings = {"plain@1#a": STILLS, "euler@1#b": EULER, "tall@1#c": TALL}
    alone = {name: KeyframeModel(name, SD, s).generate([still(name, s)])[1][0] for name, s in settings.items()}
    shared = Workflows(FAMILIES["stable_diffusion"].model, "plain@1#a", SD, STILLS)
    for name in ("plain@1#a", "euler@1#b", "tall@1#c", "plain@1#a", "tall@1#c", "euler@1#b"):
        (receipt,), (made,) = shared.generate([still(name, settings[name])])
        assert receipt.model == name and np.array_equal(made, alone[name]), name
    assert len({id(model.pipe.unet) for model in shared.models.values()}) == 1 == len({id(model.pipe.vae) for model in shared.models.values()})
    assert len({id(model.pipe.scheduler) for model in shared.models.values()}) == 3


def test_a_lora_of_one_workflows_take_is_gone_for_the_next_one(tmp_path):
    kohya(tmp_path / "a.safetensors", {f"{ATTENTION}.to_q": (4, 4.0)})
    lora = (Lora(str(tmp_path / "a.safetensors")),)
    plain = KeyframeModel("x", SD, EULER).generate([still("euler@1#b", EULER)])[1][0]
    shared = Workflows(FAMILIES["stable_diffusion"].model, "plain@1#a", SD, STILLS)
    (styled,) = shared.generate([still("plain@1#a", STILLS, loras=lora)])[1]
    assert np.array_equal(shared.generate([still("euler@1#b", EULER)])[1][0], plain)
    assert np.array_equal(shared.generate([still("plain@1#a", STILLS, loras=lora)])[1][0], styled)


@pytest.mark.parametrize("family", ["ltx_video", "animatediff"])
def test_two_workflows_of_clips_make_what_each_makes_alone(family):
    ltx = family == "ltx_video"
    model, files = (LtxVideoModel, LTX) if ltx else (AnimateDiffModel, ANIMATE)
    settings = {"a@1#a": SHORT, "b@1#b": ClipSettings(64, 96, 17, 24, 3, 2.0)} if ltx else {"a@1#a": SIXTEEN, "b@1#b": replace(SIXTEEN, scheduler="euler", beta_schedule="linear", num_frames=4)}
    alone = {name: model(name, files, s).generate([clip(name, s, ltx)])[1][0] for name, s in settings.items()}
    shared = Workflows(FAMILIES[family].model, "a@1#a", files, SHORT if ltx else SIXTEEN)
    for name in ("b@1#b", "a@1#a", "b@1#b"):
        (receipt,), (made,) = shared.generate([clip(name, settings[name], ltx)])
        assert receipt.model == name and np.array_equal(made, alone[name]), name


def test_settings_that_cannot_work_are_told_when_their_workflow_is_prepared():
    shared = Workflows(FAMILIES["ltx_video"].model, "good@1#a", LTX, SHORT)
    with pytest.raises(ModelError, match="bad@1 cannot make a take: "):
        shared.prepare("bad@1#b", replace(SHORT, scheduler="ddim"), ())
    shared.prepare("good@1#a", SHORT, ())


def test_what_is_built_into_a_model_keeps_workflows_apart_and_other_settings_do_not():
    flow, settings = read_workflow(WORKFLOWS / "animatediff_16_demo.yaml"), load_settings()
    files = files_of(flow, settings)

    def key(files=files, **changes) -> str:
        return weights_key(flow.model_copy(update=changes), files)

    assert key() == key(num_inference_steps=30, scheduler="euler", width=64, guidance_scale=1.0, name="other")
    assert len({key(), key(context_length=16), key(context_overlap=2), key(batch_size=2), key(replace(files, dtype="bfloat16")), key(replace(files, loras=(Lora("a"),)))}) == 6


@pytest.mark.ray
def test_two_workflows_of_one_checkpoint_render_in_one_episode_each_as_its_settings_say(tmp_path):
    text = (WORKFLOWS / "sd15_keyframe_demo.yaml").read_text().replace("sd15_keyframe_demo", "mine")
    (tmp_path / "mine.yaml").write_text(text.replace("num_inference_steps: 24", "num_inference_steps: 20"))
    assert tower("workflows", "register", "mine.yaml", cwd=tmp_path).code == 0
    short = EPISODE[: EPISODE.index("      - {id: SH0020")].replace("frames: 60", "frames: 24")
    second = "      - {id: SH0015, frames: 24, framing: close-up, characters: [hana], action: standing still, declares: [hold], keyframe_workflow: mine}\n"
    (tmp_path / "episode.yaml").write_text(short + second)
    done = tower("render", "episode.yaml", "--allow-experimental", cwd=tmp_path)
    takes = [t for t in takes_of(tmp_path) if t["stage"] == "keyframe"]
    assert {t["workflow"] for t in takes} == {"sd15_keyframe_demo", "mine"} and all(t["outcome"] != "error" for t in takes), done.out + done.err
