"""Many shots at once: how many live, in which order, and what ends them. The pool here only says whether it is stopping."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from actors.values import Lora
from catalog.writer import Writer
from cluster.specs import DeviceLost, ModelBroken, PoolStats, RequestFailed, Stopped
from gates.image import judge_image, keyframe_hash
from pipeline.plan.plan import ShotPlan
from pipeline.render import controls
from pipeline.render import drive as module
from pipeline.render.context import Context, Ray
from pipeline.render.drive import LIVE_IN_TURNS, LIVE_PER_DEVICE, WARM_GATES, drive, live_limit, studio_for, warm_gates
from pipeline.render.live import living_now
from pipeline.render.needs import ModelNeeds
from pipeline.render.run_log import RunLog
from pipeline.render.shot import ShotOutcome
from pipeline.render.studio import Studio
from pipeline.render.watcher import Watcher
from pipeline.story.cluster_profile import ClusterProfile
from pipeline.story.errors import InputError
from pipeline.story.settings import load_settings

from .conftest import never
from .planted import ANIME, GOOD, good, judged, png
from .test_models import lora as lora_file
from .test_past import Desk
from .test_shot import Script, past, plan

PATIENCE = 10  # seconds, after which what should have happened never will


class Counted(Watcher):
    def __init__(self) -> None:
        super().__init__()
        self.ended: list[str] = []

    def shot(self, outcome: str, stages: Sequence[str]) -> None:
        self.ended.append(outcome)


class Floor(Script):
    """A studio in which each take waits for its turn, and whose shots are counted while they live."""

    def __init__(self, *answers: Any):
        super().__init__()
        self.errors = dict(enumerate(answers))
        self.pool, self.watcher = SimpleNamespace(stopping=False), Counted()
        self.alive = self.most = self.count = 0
        self.begun: list[str] = []
        self.spoilt: set[str] = set()  # shots whose takes are all rejected
        self.frozen = 0

    async def take(self, plan: ShotPlan, stage: Any, attempt: int, variation: int, start: Any) -> Any:
        number, self.count = self.count, self.count + 1
        self.begun.append(plan.shot.id)
        self.frozen = gc.get_freeze_count()
        self.alive += 1
        self.most = max(self.most, self.alive)
        try:
            for _ in range(3):
                await asyncio.sleep(0)
            if error := self.errors.get(number):
                raise error
        finally:
            self.alive -= 1
        self.answers.append("flat" if plan.shot.id in self.spoilt else "ok")
        return await super().take(plan, stage, attempt, variation, start)


def shots(n: int) -> list[ShotPlan]:
    """Shots whose keyframe is there: one take each."""
    one = plan(accepted=(past(1, 0, "accepted"),))
    return [replace(one, shot=one.shot.model_copy(update={"id": f"SH{i:04d}"})) for i in range(n)]


def driven(floor: Floor, plans: Iterable[ShotPlan], limit: Any) -> list[ShotOutcome]:
    return asyncio.run(asyncio.wait_for(drive(plans, floor, limit), PATIENCE))  # type: ignore[arg-type]


def play(floor: Floor, n: int, limit: Any) -> list[str]:
    return [one.shot for one in driven(floor, shots(n), limit)]


@pytest.mark.parametrize("most", [1, 3])
def test_so_many_shots_live_at_once_and_they_begin_in_order(most):
    floor = Floor()
    assert sorted(play(floor, 7, lambda: most)) == sorted(floor.begun) == [f"SH{i:04d}" for i in range(7)]
    assert floor.most == most and floor.begun == sorted(floor.begun) and floor.watcher.ended == ["accepted"] * 7
    assert floor.frozen > 0 == gc.get_freeze_count()


def test_each_shot_is_told_with_its_own_outcome():
    floor = Floor()
    floor.spoilt = {"SH0001"}
    ended = driven(floor, shots(3), lambda: 1)
    assert [one.outcome for one in ended] == floor.watcher.ended == ["accepted", "exhausted", "accepted"]


def test_the_limit_is_that_of_the_moment():
    floor = Floor()
    play(floor, 9, lambda: 1 if floor.count < 4 else 3)
    assert floor.most == 3


def test_a_pool_that_stops_begins_no_shot_and_those_it_drops_have_no_outcome():
    floor = Floor(None, Stopped("stop"), None)

    def limit() -> int:
        floor.pool.stopping = floor.count >= 2
        return 2

    waiting = iter(shots(6))
    assert [one.shot for one in driven(floor, waiting, limit)] == ["SH0000"]
    assert [one.shot.id for one in waiting] == ["SH0003", "SH0004", "SH0005"], "nobody looks at the shots behind"
    assert floor.begun == ["SH0000", "SH0001"] and floor.watcher.ended == ["accepted"]


@pytest.mark.parametrize("before", [[], [None]], ids=["together with another", "before another"])
def test_the_first_error_ends_all_and_is_the_one_that_is_told(before):
    floor = Floor(*before, OSError("first"), OSError("second"))
    with pytest.raises(OSError, match="first"):
        play(floor, 6, lambda: 2)
    assert floor.alive == 0 and gc.get_freeze_count() == 0


def test_more_shots_live_where_models_take_turns_and_a_profile_has_the_last_word():
    def limit(devices: int, turns: bool, each: int | None = None) -> int:
        pool = SimpleNamespace(takes_turns=lambda models: turns, fleet=SimpleNamespace(posts=[None] * devices))
        return live_limit(pool, ModelNeeds(ClusterProfile(name="p")), ClusterProfile(name="p", live_shots_per_device=each))  # type: ignore[arg-type]

    assert (limit(1, False), limit(3, False), limit(3, True)) == (LIVE_PER_DEVICE, 3 * LIVE_PER_DEVICE, 3 * LIVE_IN_TURNS)
    assert (limit(0, False), limit(2, True, 5)) == (LIVE_PER_DEVICE, 10), "a device that is on its way counts as one"


@pytest.mark.parametrize("cpus", [3, WARM_GATES, 100])
def test_gate_workers_start_one_a_core_and_not_too_many_and_a_lost_one_ends_nothing(cpus):
    asked = []

    async def cpu(function: Any, name: str) -> None:
        asked.append((function, name))
        if len(asked) == 2:
            raise DeviceLost("gone")

    asyncio.run(warm_gates(SimpleNamespace(cpu=cpu, info=SimpleNamespace(cpus=cpus))))  # type: ignore[arg-type]
    assert asked == [(module.warm, "gates start")] * min(cpus, WARM_GATES)


# --- models -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory) -> dict[str, Any]:
    return {"keyframe": judge_image(png(GOOD[0]), ANIME), "clip": judged(tmp_path_factory.mktemp("clip"), good())}


@pytest.fixture
def desk(tmp_path, seeded, verdicts) -> Desk:
    shutil.copytree(seeded, tmp_path / "catalog")
    settings = load_settings().model_copy(update={"catalog_uri": str(tmp_path / "catalog"), "models_dir": tmp_path / "models"})
    return Desk(tmp_path, settings, verdicts)


def test_every_model_of_a_stale_stage_is_loaded_once_and_none_of_a_finished_one(desk):
    needs = ModelNeeds(ClusterProfile(name="p"))
    every = module._needed(needs, desk.plan())
    assert {(spec.stage, name) for spec, _, name in every} == {
        ("prompt", "sd15_keyframe_demo"), ("keyframe", "sd15_keyframe_demo"), ("prompt", "ltx_video_2b_demo"), ("clip", "ltx_video_2b_demo"),
        ("clip", "animatediff_16_demo"),
    }  # fmt: skip
    assert len({spec.key for spec, _, _ in every}) == len(every)
    assert [[(identity.split("#")[0], loras) for identity, _, loras in calls] for spec, calls, _ in every if spec.stage == "clip"] == [
        [("ltx_video_2b_demo@1", ())], [("animatediff_16_demo@2", ())]
    ]  # fmt: skip
    assert all(calls == [] for spec, calls, _ in every if spec.stage == "prompt")
    desk.render("SH0010", "SH0030")
    desk.take("SH0020", "keyframe")
    left = module._needed(needs, desk.plan())
    assert {(spec.stage, name) for spec, _, name in left if spec.stage != "prompt"} == {("clip", "animatediff_16_demo")}


def test_each_set_of_loras_is_prepared_once(desk, tmp_path):
    whole = desk.plan()
    lora = (Lora(str(lora_file(tmp_path / "a.safetensors")), 1.0),)
    marked = [replace(s, stages=(replace(s.stages[0], loras=lora), s.stages[1])) for s in whole.shots]
    calls = {spec.stage: calls for spec, calls, _ in module._needed(ModelNeeds(ClusterProfile(name="p")), replace(whole, shots=marked))}
    assert [loras for _, _, loras in calls["keyframe"]] == [lora] and [loras for _, _, loras in calls["clip"]] == [()] and calls["prompt"] == []


def test_a_lora_that_changes_texts_is_prepared_by_the_encoder_too(desk, tmp_path):
    layer = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    more = {f"{layer}.lora_down.weight": torch.zeros(8, 768), f"{layer}.lora_up.weight": torch.zeros(3072, 8), f"{layer}.alpha": torch.tensor(4.0)}
    lora = (Lora(str(lora_file(tmp_path / "a.safetensors", **more)), 1.0),)
    whole = desk.plan()
    marked = [replace(s, stages=(replace(s.stages[0], loras=lora), s.stages[1])) for s in whole.shots]
    needed = module._needed(ModelNeeds(ClusterProfile(name="p")), replace(whole, shots=marked))
    assert [[call[-1] for call in calls] for spec, calls, name in needed if name == "sd15_keyframe_demo"] == [[lora], [lora]]


@pytest.mark.parametrize("error", [RequestFailed("OSError", "no such file"), ModelBroken("kills its devices")])
def test_a_model_that_cannot_be_loaded_is_one_sentence_with_its_workflow(desk, error):
    async def prepare(spec: Any, *calls: Any) -> None:
        await asyncio.sleep(0)
        if spec.stage == "clip":
            raise error

    pool = SimpleNamespace(prepare=prepare, cpu=lambda *_, **__: asyncio.sleep(0), info=SimpleNamespace(cpus=1))
    with pytest.raises(InputError, match=f"^workflow ltx_video_2b_demo: {error}$"):  # of two, the first
        asyncio.run(module._load(pool, ModelNeeds(ClusterProfile(name="p")), desk.plan()))  # type: ignore[arg-type]


def test_the_display_knows_what_is_wanted_and_what_it_takes(desk):
    desk.render("SH0010")
    desk.take("SH0020", "keyframe", device_seconds=10.0)
    plan, here = desk.plan(), Context(desk.settings, desk.catalog, Console(), Ray(never))
    shown = module._progress(here, plan)
    assert shown.totals == {"keyframe": 1, "clip": 2, "finish": 0} and shown.log_seconds == desk.settings.log_seconds
    ltx, animate = (plan.costs.known[name] for name in ("ltx_video_2b_demo@1", "animatediff_16_demo@2"))
    assert shown.eta.history == {"clip": (ltx + animate) / 2, "keyframe": 20.0}
    plan.costs.known.pop("ltx_video_2b_demo@1")
    assert module._progress(here, plan).eta.history == {"clip": animate, "keyframe": 20.0}


def test_accepted_keyframes_of_earlier_runs_are_known(desk):
    desk.render("SH0010")
    desk.take("SH0030", "keyframe")
    bits = keyframe_hash(desk.verdicts["keyframe"].measures)
    assert module._known_keyframes(desk.catalog, desk.plan()) == {"SH0010": bits, "SH0030": bits}


# --- beside the shots ---------------------------------------------------------------------------------------------------


def test_what_runs_beside_a_render_ends_with_it(desk, monkeypatch):
    seconds = module.LOOK_SECONDS
    monkeypatch.setattr(module, "BEAT_SECONDS", 0)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0)
    looked: list[Any] = []

    async def story() -> None:
        async with asyncio.timeout(PATIENCE), Writer(desk.catalog) as writer:
            log = RunLog(desk.catalog, desk.plan(), False, {})
            watcher = SimpleNamespace(pool=looked.append)
            with module._beside(module._beat(writer, log), module._look(SimpleNamespace(stats=lambda: "stats"), watcher)):  # type: ignore[arg-type]
                while len(desk.catalog.rows("runs")) < 2 or len(looked) < 2:  # noqa: ASYNC110 - the two have no event to wait for
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task(), writer.task}

    asyncio.run(story())
    assert {row["event"] for row in desk.catalog.rows("runs")} == {"alive"} and set(looked) == {"stats"}
    assert 0 < seconds < 5, "metrics disappear that are not told again"


def test_a_heart_does_not_beat_before_its_time(desk, monkeypatch):
    monkeypatch.setattr(module, "BEAT_SECONDS", 3600)

    async def story() -> None:
        async with Writer(desk.catalog) as writer:
            with module._beside(module._beat(writer, RunLog(desk.catalog, desk.plan(), False, {}))):
                await asyncio.sleep(0.01)

    asyncio.run(story())
    assert desk.catalog.rows("runs") == []


def test_the_first_interrupt_lets_takes_end_and_the_second_does_not():
    said, stopped = [], []
    pool = SimpleNamespace(stats=lambda: SimpleNamespace(busy=3), stop=lambda: stopped.append(1))

    async def story() -> None:
        module._stop_politely_on(signal.SIGUSR1, pool, SimpleNamespace(line=said.append))  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.sleep(0.01)
        assert stopped == [1] and said[0].startswith("stopping: 3 devices finish")
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.sleep(10)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(story())
    assert stopped == [1]


def test_some_signals_end_a_run_at_once():
    async def story() -> None:
        module._stop_at_once_on(signal.SIGUSR1, signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGUSR2)
        await asyncio.sleep(10)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(story())


# --- all of it ----------------------------------------------------------------------------------------------------------


class Rack:
    """The pool around a whole run, which loads models at once. `loading` is called for each."""

    def __init__(self, loading: Callable[[], Any] = lambda: None):
        self.loading, self.info, self.asked = loading, SimpleNamespace(cpus=1), []  # type: ignore[var-annotated]
        self.paused = self.open = False

    async def __aenter__(self) -> Rack:
        self.open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self.open = False

    async def prepare(self, spec: Any, *calls: Any) -> None:
        self.asked.append(spec.stage)
        self.loading()
        await asyncio.sleep(0.01)

    async def cpu(self, function: Any, name: str) -> None:
        self.asked.append(name)

    def stats(self) -> PoolStats:
        return PoolStats(1, 0, 0.0, 0.0, {}, {}, 0, 0, 0, 0.0, self.paused)

    def pause(self) -> None:
        self.paused = True

    def stop(self) -> None:
        self.asked.append("stop")


@pytest.fixture
def run(desk, monkeypatch) -> Callable[..., Any]:
    """A run of the desk's episode, with the scene that is played while its studio is open."""

    class Silent:
        """Ray's metrics without Ray."""

        def pool(self, *_: object) -> None: ...

    for where, name, value in ((module, "Metrics", Silent), (module, "BEAT_SECONDS", 0.01), (module, "LOOK_SECONDS", 0.01), (controls, "POLL_SECONDS", 0.01)):
        monkeypatch.setattr(where, name, value)
    def run(rack: Rack, scene: Callable[[Studio, RunLog], Any]) -> str:
        plan, printed = desk.plan(), io.StringIO()

        async def story() -> None:
            log = RunLog(desk.catalog, plan, False, {})
            here = Context(desk.settings, desk.catalog, Console(file=printed), Ray(never))
            needs = ModelNeeds(ClusterProfile(name="p"))
            async with asyncio.timeout(PATIENCE), studio_for(plan, here, log, rack, needs) as studio:  # type: ignore[arg-type]
                await scene(studio, log)
            await asyncio.sleep(0)
            assert not rack.open and asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(story())
        return printed.getvalue()

    return run


def test_an_open_studio_has_its_models_and_is_followed(desk, run):
    rack = Rack()

    async def scene(studio: Studio, log: RunLog) -> None:
        assert rack.open and sorted(rack.asked) == ["clip", "clip", "gates start", "keyframe", "prompt", "prompt"]
        assert studio.run == log.run and studio.pool is rack
        request = {"run": log.run, "episode": "E90", "action": "pause", "by": "Mika"}
        desk.catalog.append_later("controls", [request])
        while not (rack.paused and desk.catalog.rows("runs") and studio.watcher.progress.stats):  # type: ignore[attr-defined]  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    assert "paused by Mika" in run(rack, scene)


def test_an_open_studio_is_told_of_in_a_file_that_ends_with_it(desk, run):
    async def scene(studio: Studio, log: RunLog) -> None:
        log.claim()
        studio.watcher.step("E90/SH0010/clip/v002", "waits")
        while not (told := living_now(desk.catalog)) or not told[0].shots:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        (live,) = told
        assert (live.run, live.episode, live.shots, live.stages["clip"].total) == (log.run, "E90", {"SH0010": "clip v002 waits"}, 3)

    run(Rack(), scene)
    assert desk.catalog.place.list("live") == []


def test_an_open_studio_knows_the_keyframes_of_earlier_runs(desk, run):
    desk.take("SH0030", "keyframe")
    bits = keyframe_hash(desk.verdicts["keyframe"].measures)

    async def scene(studio: Studio, log: RunLog) -> None:
        assert studio.keyframes.of_others("SH0010").tolist() == [bits]

    run(Rack(), scene)


def test_the_first_interrupt_of_an_open_studio_is_polite(run):
    rack = Rack()

    async def scene(studio: Studio, log: RunLog) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0.05)
        assert rack.asked[-1] == "stop"

    assert "stopping: 0 devices finish" in run(rack, scene)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_while_models_load_every_signal_ends_the_run(run, number):
    rack = Rack(lambda: os.kill(os.getpid(), number))
    with pytest.raises(asyncio.CancelledError):
        run(rack, lambda *_: pytest.fail("nothing is rendered"))
    assert not rack.open


def test_a_run_that_nohup_began_lives_on_when_its_terminal_is_gone(run):
    was = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run(Rack(lambda: os.kill(os.getpid(), signal.SIGHUP)), lambda *_: asyncio.sleep(0))
    finally:
        signal.signal(signal.SIGHUP, was)
