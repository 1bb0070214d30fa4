"""The desk shows what the tables hold, whoever wrote it, and never another picture than the one that was asked for."""

from __future__ import annotations

import io
import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import yaml
from fastapi.testclient import TestClient
from PIL import Image

from actors.demo.train import scenes
from catalog.care import compact
from catalog.media import Media
from catalog.store import Catalog
from pipeline.plan.stories import record_story
from pipeline.render.live import FILE, FOLDER, Live
from pipeline.render.process import process_columns
from pipeline.story.episode import load_episode
from pipeline.story.gate_profile import load_profile, profile_identity

from .conftest import EPISODE, EPISODE_FRAMES
from .service import asking, desk_app

SHOTS = [f"SH{10 * number:04d}" for number in range(1, 10)]
FRAMES, WIDTH, HEIGHT = 48, 192, 128
FROZEN = json.dumps([{"label": "frozen", "measure": "reach", "value": 0.9, "threshold": 1.6, "outcome": "fail", "frames": [3], "text": ""}])


@dataclass
class Studio:
    """A catalog with one episode of nine shots, and what a driver and people would write into it."""

    catalog: Catalog
    client: TestClient
    clip: Media
    still: Media
    at: datetime = field(default_factory=lambda: datetime.now(UTC) - timedelta(hours=1))

    def _at(self) -> datetime:
        self.at += timedelta(seconds=1)
        return self.at

    def take(self, shot: str, stage: str = "clip", attempt: int = 1, outcome: str = "accepted", run: str = "one", **more: Any) -> str:
        """Record a take. Gives its id."""
        name, rejected = f"E90/{shot}/{stage}/v{attempt:03d}", outcome == "rejected"
        made = self.clip if stage == "clip" else self.still
        row = {"take": name, "run": run, "at": self._at(), "episode": "E90", "sequence": "S010", "shot": shot, "stage": stage, "attempt": attempt}
        row |= {"outcome": outcome, "labels": ["frozen"] if rejected else [], "findings": FROZEN if rejected else "[]", "warnings": []}
        row |= {"workflow": "ltx_video_2b_demo", "workflow_version": 1, "media": made.digest, "media_path": made.path, "media_bytes": made.bytes}
        row |= {"frames": FRAMES if stage == "clip" else 1, "fps": 24.0, "measures": {"reach": 0.9}}
        self.catalog.append("takes", [row | more])
        return name

    def run(self, event: str, run: str = "one", **more: Any) -> None:
        counts = {"shots": len(SHOTS), "stale": len(SHOTS), "accepted": 1, "exhausted": 1}
        self.catalog.append("runs", [{"run": run, "event": event, "at": self._at(), "episode": "E90"} | counts | more])

    def says(self, take: str, verdict: str, **more: Any) -> None:
        self.catalog.append("reviews", [{"take": take, "at": self._at(), "episode": "E90", "verdict": verdict, "by": "mei"} | more])

    def board(self) -> dict[str, Any]:
        """The board as of now: the service looks for commits a few times a second, here at once."""
        self.look()
        return self.client.get("/episodes/E90").raise_for_status().json()

    def look(self) -> None:
        assert self.client.portal
        self.client.portal.call(self.client.app.state.hub.look)  # type: ignore[attr-defined]

    def cards(self) -> dict[str, dict[str, Any]]:
        return {card["shot"]: card for sequence in self.board()["sequences"] for card in sequence["shots"]}


@pytest.fixture
def studio(seeded: Path, tmp_path: Path) -> Iterator[Studio]:
    catalog = Catalog.open(shutil.copytree(seeded, tmp_path / "catalog-data"))
    written = yaml.safe_load(EPISODE)
    written["sequences"] = [{"id": "S010", "shots": [{"id": shot, "frames": FRAMES, "action": "walking right"} for shot in SHOTS]}]
    file = tmp_path / "episode.yaml"
    file.write_text(yaml.safe_dump(written, sort_keys=False))
    record_story(catalog, load_episode(file), file, "mei")
    frames = scenes.clip(replace(scenes.sample(1), motion="walk right"), range(FRAMES), HEIGHT, WIDTH)
    with asking(desk_app(tmp_path / "catalog-data")) as client:
        yield Studio(catalog, client, catalog.media.put(_mp4(frames), ".mp4"), catalog.media.put(_png(frames[0]), ".png"))


def _mp4(frames: np.ndarray) -> bytes:
    from pipeline.render.video_file import write_clip

    path = Path("clip.mp4")
    write_clip(path, frames, Fraction(24))
    try:
        return path.read_bytes()
    finally:
        path.unlink()


def _png(image: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG")
    return data.getvalue()


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_each_shot_is_in_the_state_that_rows_and_words_give_it(studio):
    studio.run("started")
    for shot in SHOTS[:5]:
        studio.take(shot)
    studio.says(f"E90/{SHOTS[1]}/clip/v001", "approved")
    first, _ = f"E90/{SHOTS[2]}/clip/v001", studio.take(SHOTS[2], attempt=2)
    studio.says(first, "picked")
    studio.says(f"E90/{SHOTS[3]}/clip/v001", "retake", note="her hair flickers", attempts=1)
    studio.says(f"E90/{SHOTS[4]}/clip/v001", "note", note="lovely")
    studio.take(SHOTS[5], outcome="rejected")
    studio.take(SHOTS[5], attempt=2, outcome="rejected")
    studio.run("finished")
    studio.run("started", "two")
    studio.take(SHOTS[6], outcome="rejected", run="two")
    studio.take(SHOTS[7], outcome="error", run="two", error="the device was lost")
    studio.run("interrupted", "two")
    cards = studio.cards()
    states = ["accepted", "approved", "picked", "retake", "accepted", "exhausted", "rejected", "rejected", "waiting"]
    assert [cards[shot]["status"] for shot in SHOTS] == states
    assert studio.board()["counts"] == {
        "accepted": 2, "approved": 1, "picked": 1, "retake": 1, "rendering": 0, "exhausted": 1, "rejected": 2, "waiting": 1
    }  # fmt: skip
    assert cards[SHOTS[2]]["clip"] == first and cards[SHOTS[2]]["takes"] == 2
    assert cards[SHOTS[1]]["why"] == "by mei" and cards[SHOTS[3]]["why"] == "“her hair flickers”"
    assert cards[SHOTS[5]]["why"] == "frozen ×2: reach 0.9 < 1.6" and cards[SHOTS[7]]["why"] == "the device was lost"
    assert studio.board()["run"] | {"run": "two", "event": "interrupted", "living": False} == studio.board()["run"]


def test_what_a_render_does_now_is_on_the_board_as_long_as_its_driver_lives(studio):
    studio.run("started", "three", **process_columns())
    studio.take(SHOTS[1], outcome="rejected", run="three")
    studio.take(SHOTS[2], outcome="rejected", run="before")
    live = Live("three", "E90", datetime.now(UTC), False, 60.0, {}, (), {SHOTS[0]: "gate 2"}, {}, 1.0)
    studio.catalog.place.show(f"{FOLDER}/three.json", FILE.dump_json(live))
    cards = studio.cards()
    assert (cards[SHOTS[0]]["status"], cards[SHOTS[0]]["step"]) == ("rendering", "gate 2")
    assert cards[SHOTS[1]]["status"] == "exhausted" and cards[SHOTS[2]]["status"] == "waiting", "an earlier run's rejects are rendered again"
    assert studio.board()["run"]["living"] and studio.board()["live"]["eta_seconds"] == 60.0
    assert [row["rendering"] for row in studio.client.get("/episodes").json()] == [True]
    studio.run("interrupted", "three")
    assert studio.cards()[SHOTS[0]]["status"] == "waiting" and not studio.board()["run"]["living"] and studio.board()["live"] is None


def test_a_board_is_told_again_only_when_rows_of_its_episode_came(studio):
    studio.take(SHOTS[0])
    studio.look()
    answer = studio.client.get("/episodes/E90")
    seen = {"if-none-match": answer.headers["etag"]}
    assert studio.client.get("/episodes/E90", headers=seen).status_code == 304
    studio.take(SHOTS[0], take="E91/SH0010/clip/v001", episode="E91")
    compact(studio.catalog, ["takes"])
    studio.look()
    assert studio.client.get("/episodes/E90", headers=seen).status_code == 304, "another episode's take and a tidied table change nothing"
    studio.take(SHOTS[1])
    studio.look()
    assert studio.client.get("/episodes/E90", headers=seen).status_code == 200


def test_what_was_followed_commit_by_commit_is_what_a_new_service_reads(studio, tmp_path):
    """Boards, shots and counts, after every kind of row, and with tables that were compacted between."""
    chance = random.Random(5)
    studio.run("started")
    for number in range(30):
        shot, attempt = chance.choice(SHOTS), 1 + number
        take = studio.take(shot, chance.choice(["keyframe", "clip"]), attempt, chance.choice(["accepted", "rejected", "error"]))
        if number % 4 == 0:
            studio.says(take, chance.choice(["approved", "retake", "note"]), attempts=attempt)
        if number % 7 == 0:
            judged = {"take": take, "at": studio._at(), "episode": "E90", "outcome": "rejected", "labels": ["frozen"], "findings": FROZEN}
            studio.catalog.append("judgements", [judged])
        if number % 10 == 9:
            compact(studio.catalog, ["takes", "reviews"])
        studio.board()
    paths = ["/episodes", "/episodes/E90", "/reviews?episode=E90", *(f"/episodes/E90/shots/{shot}" for shot in SHOTS)]
    told = [studio.client.get(path).raise_for_status().json() for path in paths]
    with asking(desk_app(tmp_path / "catalog-data")) as anew:
        assert [anew.get(path).json() for path in paths] == told


def test_a_take_is_there_as_soon_as_it_is_committed(studio):
    studio.board()
    take = studio.take(SHOTS[0])
    assert studio.client.get(f"/takes/{take}").json()["outcome"] == "accepted", "although nobody has looked for commits since"
    assert studio.client.get(f"/takes/E90/{SHOTS[0]}/clip/v002").status_code == 404


def test_twenty_frames_are_the_frames_that_were_asked_for(studio):
    take = studio.take(SHOTS[0])
    studio.look()
    with av.open(str(studio.catalog.place.folder / studio.clip.path)) as video:
        decoded = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    for number in random.Random(20).sample(range(FRAMES), 20):
        answer = studio.client.get(f"/takes/{take}/frames/{number}.jpg")
        shown = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"), np.int16)
        apart = [np.abs(shown - frame).mean() for frame in decoded]
        assert apart[number] <= 3 and apart[number] == min(apart), f"frame {number}"
    assert studio.client.get(f"/takes/{take}/frames/{FRAMES}.jpg").status_code == 404


def test_a_filmstrip_shows_frames_side_by_side(studio):
    take, still = studio.take(SHOTS[0]), studio.take(SHOTS[0], "keyframe")
    studio.look()
    strip = Image.open(io.BytesIO(studio.client.get(f"/takes/{take}/filmstrip.jpg?frames=6&height=64").content))
    assert strip.height == 64 and strip.width >= 6 * 64 * WIDTH // HEIGHT
    picture = Image.open(io.BytesIO(studio.client.get(f"/takes/{still}/filmstrip.jpg?height=64").content))
    assert picture.size == (64 * WIDTH // HEIGHT, 64)
    assert studio.client.get(f"/takes/{still}/frames/1.jpg").status_code == 404


@pytest.mark.parametrize("harm", ["gone", "a bit", "another clip", "cut off"])
def test_damaged_media_are_410_and_never_another_picture(studio, harm):
    take = studio.take(SHOTS[0])
    studio.look()
    routes = ["media", "frames/7.jpg", "frames/7.jpg?width=96", "filmstrip.jpg", "curves"]
    before = [studio.client.get(f"/takes/{take}/{route}") for route in routes]
    assert [answer.status_code for answer in before] == [200] * 5
    path = studio.catalog.place.folder / studio.clip.path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if harm == "gone":
        path.unlink()
    else:
        other = scenes.clip(replace(scenes.sample(2), motion="walk right"), range(FRAMES), HEIGHT, WIDTH)
        path.write_bytes({"a bit": bytes(data), "another clip": _mp4(other), "cut off": bytes(data[:-100])}[harm])
    for route in routes:
        answer = studio.client.get(f"/takes/{take}/{route}")
        assert answer.status_code == 410 and studio.clip.path in answer.json()["detail"], route


def test_an_episode_that_a_shell_rendered_is_on_the_desk_and_a_new_service_shows_the_same(copied, rendered):
    paths = ["/episodes", "/episodes/E90", "/episodes/E90/plan", "/episodes/E90/delivery"]
    paths += [f"/episodes/E90/shots/{shot}" for shot in ("SH0010", "SH0020", "SH0030")]
    told = []
    for _ in range(2):
        with asking(desk_app(copied / "catalog-data")) as client:
            told.append([client.get(path).raise_for_status().json() for path in paths])
            clip = client.get("/episodes/E90").json()["sequences"][0]["shots"][0]["clip"]
            assert client.get(f"/takes/{clip}/media").content == rendered.media(rendered.accepted("clip")["SH0010"]).read_bytes()
    (row,), board, plan, delivery, *shots = told[0]
    assert told[0] == told[1]
    assert (row["episode"], row["with_accepted_clip"], row["takes"]) == ("E90", 3, len(rendered.takes))
    assert board["counts"]["accepted"] == 3 and board["frames"] == EPISODE_FRAMES and board["run"]["by_shell"]
    assert plan["stale"] == 0 and {shot["state"] for shot in plan["shots"]} == {"clean"}
    assert delivery["movie"] is None and "assembled" in delivery["why"], "the shell's movie lies where the shell put it"
    assert sum(len(shot["takes"]) for shot in shots) == len(rendered.takes)
    assert all(sum(take["stands"] for take in shot["takes"]) == 2 for shot in shots), "a still and a clip of each shot"


def test_a_movie_is_current_until_another_clip_stands(copied, rendered):
    shutil.copytree(rendered.out, copied / "catalog-data" / "desk" / "out" / "E90")
    with asking(desk_app(copied / "catalog-data")) as client:
        found = client.get("/episodes/E90/delivery").json()
        assert found["current"] and found["why"] == ""
        assert client.get(found["movie"]).content == (rendered.out / "episode.mp4").read_bytes()
        assert all(client.get(sheet).headers["content-type"] == "image/png" for sheet in found["contact_sheet"])
        part = client.get(found["movie"], headers={"range": "bytes=0-99"})
        assert part.status_code == 206 and len(part.content) == 100
        clip = client.get("/episodes/E90/shots/SH0020").json()["card"]["clip"]
        assert client.post("/reviews", json={"take": clip, "verdict": "retake", "note": "again"}).status_code == 201
        found = client.get("/episodes/E90/delivery").json()
        assert not found["current"] and "SH0020" in found["why"]
        assert client.get("/episodes/E90/plan").json()["stale"] == 1


def test_an_episode_comes_with_its_pictures_and_its_font(studio, tmp_path):
    written = yaml.safe_load(EPISODE)
    written["id"] = "E91"
    written["sequences"][0]["shots"][0]["keyframe"] = "stills/first.png"
    del written["sequences"][0]["shots"][1]["clip_workflow"]
    text, picture = yaml.safe_dump(written, sort_keys=False), _png(np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    story = ("episode.yaml", text.encode(), "application/yaml")
    alone = studio.client.post("/episodes", files={"story": story})
    assert alone.status_code == 422 and "stills/first.png" in alone.json()["detail"]
    both = studio.client.post("/episodes", files=[("story", story), ("files", ("first.png", picture, "image/png"))])
    assert both.status_code == 201 and both.json()["episode"] == "E91", both.text
    studio.look()
    assert {row["episode"] for row in studio.client.get("/episodes").json()} == {"E90", "E91"}
    assert studio.client.get("/episodes/E91/story").content == text.encode()
    plan = {shot["shot"]: shot for shot in studio.client.get("/episodes/E91/plan").json()["shots"]}
    assert plan["SH0010"]["keyframe"] == "given" and plan["SH0020"]["keyframe"] == "render"
    stray = studio.client.post("/episodes", files=[("story", story), ("files", ("other.png", picture, "image/png"))])
    assert stray.status_code == 422 and "other.png" in stray.json()["detail"]


def test_a_take_tells_the_limits_of_what_passed_too_and_only_those_that_judged_it(studio):
    identity = profile_identity(load_profile("anime"))
    measures = {"reach": 9.0, "cut": 0.2, "frames": 48.0, "expected_frames": 48.0}
    studio.take("SH0010", profile=identity, measures=measures)
    studio.take("SH0020", profile="anime#000000000000", measures=measures)
    studio.take("SH0030", outcome="rejected", profile=identity)
    studio.look()

    def told(shot: str) -> dict[str, tuple[str, float, float]]:
        take = studio.client.get(f"/takes/E90/{shot}/clip/v001").raise_for_status().json()
        return {found["measure"]: (found["outcome"], found["value"], found["threshold"]) for found in take["findings"]}

    (reach,) = (rule.below for rule in load_profile("anime").video if rule.measure == "reach" and rule.outcome == "fail")
    assert told("SH0010")["reach"] == ("pass", 9.0, reach) and told("SH0010")["frames"] == ("pass", 48.0, 48.0)
    assert told("SH0020") == {}, "its profile is another today"
    assert told("SH0030") == {"reach": ("fail", 0.9, 1.6)}


def test_a_render_with_a_workflow_that_is_not_proven_is_refused_with_what_would_allow_it(studio, tmp_path):
    text = (tmp_path / "episode.yaml").read_text().replace("clip_workflow: ltx_video_2b_demo", "clip_workflow: animatediff_16_demo_text")
    studio.client.post("/episodes", content=text, headers={"content-type": "application/yaml"}).raise_for_status()
    refused = studio.client.post("/jobs", json={"episode": "E90"})
    assert refused.status_code == 422 and refused.json()["needs"] == "allow_experimental" and "not proven" in refused.json()["detail"]
    assert studio.client.get("/jobs").json() == []


def test_what_is_told_of_a_take_follows_each_row_about_it(studio):
    """Takes of a shot are kept as they were told; a row of any table makes them new, and nothing else does."""
    name, other = studio.take(SHOTS[0]), studio.take(SHOTS[1])

    def told() -> dict[str, Any]:
        studio.look()
        (of_page,) = studio.client.get(f"/episodes/E90/shots/{SHOTS[0]}").json()["takes"][:1]
        alone = studio.client.get(f"/takes/{name}").json()
        assert alone == of_page
        return alone

    first = told()
    assert first["stands"] and first["gate"] == "accepted" and first["word"] is None
    studio.says(other, "approved")
    assert told() == first
    again = {"take": name, "episode": "E90", "at": studio._at(), "outcome": "rejected", "labels": ["frozen"], "warnings": [], "declared": []}
    studio.catalog.append("judgements", [again | {"profile": "anime#000000000000", "findings": FROZEN}])
    assert told()["gate"] == "rejected" and not told()["stands"]
    studio.says(name, "approved", note="as I want it")
    assert told()["stands"] and told()["word"]["note"] == "as I want it"
    studio.take(SHOTS[0], attempt=2)
    assert told()["stands"], "an approved take stands before newer ones"


def test_a_board_that_is_open_waits_for_nothing(studio):
    """What follows from a commit is made before anybody sees the commit, as long as somebody looks at the episode."""
    desk = studio.client.app.state.desk
    studio.take(SHOTS[0])
    assert studio.board()["counts"]["accepted"] == 1
    studio.take(SHOTS[1])
    before = desk.facts.entries["E90"].value
    studio.look()
    known = desk.facts.entries["E90"].value
    assert known is not before and known.shots[SHOTS[1]]["clip"]
    assert studio.board()["counts"]["accepted"] == 2
    assert desk.facts.entries["E90"].value is known


def test_rows_that_were_read_ahead_come_once(studio):
    studio.take(SHOTS[0])
    studio.board()
    desk, old = studio.client.app.state.desk, studio.client.app.state.desk.tables.seen
    studio.take(SHOTS[0], attempt=2)
    desk.tables.look()
    assert desk.rows.of("E90")["takes"].num_rows == 2
    assert desk.rows.of("E90", old)["takes"].num_rows == 2  # asked for before the look, answered after it
    assert desk.rows.of("E90")["takes"].num_rows == 2
