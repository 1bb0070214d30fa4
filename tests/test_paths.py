"""Names are names: a path is no URL and no protocol, a person's text is no markup; and what no longer belongs is removed."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pytest
from PIL import Image
from rich.console import Console

from catalog.care import NAMED
from catalog.place import Place, PlaceError
from catalog.store import Catalog, CatalogError
from gates.decode import ffmpeg_path, read_video
from pipeline.plan.plan import Plan
from pipeline.post.deliver import deliver, movie_removed
from pipeline.registry.files import inside
from pipeline.render.context import context
from pipeline.render.render import Rendered
from pipeline.render.shot import ShotOutcome
from pipeline.render.video_file import write_clip
from pipeline.story.episode import load_episode
from pipeline.story.errors import InputError
from pipeline.story.settings import Settings

from .conftest import EPISODE, PROJECT, refused
from .test_catalog import row

GREY = np.full((4, 64, 64, 3), 90, np.uint8)
FIT = ["a b", "ä", "#1", "?x", "100%", "a:b", "s3:x", "日本", "&;'\"`{}<>", "...", "%zz"]
UNFIT = ["season%201", "100%25", "out [v2]", "a\\b", "a|b", "a^b", "two\nlines"]


@pytest.mark.parametrize(
    "name", ["ep1: take 2.mp4", "concat:a.mp4", "data:x", "pipe:0", "http:y", "file:z", "a%20b%d.mp4", "a,b?c#d", "l'x\\y.mp4", "-i"]
)
def test_a_video_is_written_to_the_file_of_that_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_clip(Path(name), GREY, Fraction(24))
    assert os.listdir() == [name]
    os.rename(name, "plain.mp4")
    assert read_video(Path("plain.mp4"))[0].shape == GREY.shape
    assert ffmpeg_path(Path(name)) == f"file:{tmp_path}/{name}"


@pytest.mark.parametrize("name", FIT)
def test_a_catalog_is_where_its_name_says(tmp_path, here, monkeypatch, name):
    monkeypatch.setenv("TOWER_CATALOG_URI", name)
    assert here("workflows", "list").code == 0
    assert sorted(os.listdir()) == [name], "and nowhere else"
    catalog = Catalog.find(tmp_path / name)
    catalog.append("takes", [row(1)])
    assert [r["take"] for r in Catalog.find(tmp_path / name).rows("takes")] == ["E01/SH0010/clip/v001"]
    done = here("catalog", "query", "SELECT count(*) AS n FROM takes", "--json")
    assert json.loads(done.out) == [{"n": 1}]
    assert here("catalog", "compact").code == 0 and here("catalog", "vacuum", "--retain", "0").code == 0
    assert here("catalog", "export", f"plain {name}").code == 0
    assert ds.dataset(tmp_path / f"plain {name}" / "takes", format="parquet").count_rows() == 1


@pytest.mark.parametrize("name", ["a b", "ä", "#1", "?x", "100%", "link"])
def test_a_whole_catalog_verifies_whatever_its_name(tmp_path, here, monkeypatch, name):
    (tmp_path / "true").mkdir()
    if name == "link":
        (tmp_path / name).symlink_to(tmp_path / "true")
    monkeypatch.setenv("TOWER_CATALOG_URI", name)
    Catalog.open(tmp_path / name).append("takes", [row(1)])
    assert "everything that was looked at" in here("catalog", "verify").out
    assert "nothing was damaged" in here("catalog", "repair").out


@pytest.mark.parametrize("name", UNFIT)
@pytest.mark.parametrize(
    "command", [["workflows", "list"], ["plan", "episode.yaml"], ["catalog", "verify"], ["catalog", "repair"], ["status"]]
)
def test_a_catalog_that_its_engine_would_look_for_elsewhere_is_refused_and_nothing_is_made(tmp_path, here, monkeypatch, name, command):
    (tmp_path / "episode.yaml").write_text(EPISODE)
    monkeypatch.setenv("TOWER_CATALOG_URI", name)
    done = here(*command)
    assert done.code == 2 and "TOWER_CATALOG_URI" in done.err and "cannot read" in done.err and "repair" not in done.err, done.err
    assert os.listdir() == ["episode.yaml"]


def test_a_link_is_judged_by_the_folder_that_it_means(tmp_path):
    for name in ("true", "season%201"):
        (tmp_path / name).mkdir()
    (tmp_path / "a%20link").symlink_to(tmp_path / "true")
    (tmp_path / "link").symlink_to(tmp_path / "season%201")
    Catalog.open(tmp_path / "a%20link").append("takes", [row(1)])
    assert len(Catalog.open(tmp_path / "true").rows("takes")) == 1
    with pytest.raises(CatalogError, match=r"link cannot be opened.*'%20'"):
        Catalog.open(tmp_path / "link")


def test_a_prefix_in_a_bucket_is_escaped_once_for_tables_and_never_for_files():
    place = Place.of("s3://films/a b/#1?ä")
    assert (place.uri, place.table("takes")) == ("s3://films/a b/#1?ä", "s3://films/a%20b/%231%3F%C3%A4/takes")
    assert Place.of("s3://films/one").table("takes") == "s3://films/one/takes"
    with pytest.raises(PlaceError, match="prefix"):
        Place.of("s3://films/season%201")


LONG, NUL, HALF = "x" * 300, "a\0b", "a\ud800b"


@pytest.mark.parametrize("name", [LONG, NUL, HALF, "\udc80"])
def test_a_name_that_no_file_has_is_one_sentence(tmp_path, here, name):
    def one_sentence(text: str) -> None:
        assert len(text.splitlines()) == 1 and text.startswith("error: ") and "Traceback" not in text, text

    (tmp_path / "episode.yaml").write_text(EPISODE)
    for args in (
        ["gate", "image", name],
        ["gate", "video", "episode.yaml", "--keyframe", name],
        ["gate", "video", "episode.yaml", "--explain", f"{name}/x.png"],
        ["gate", "image", "episode.yaml", "--profile", f"{name}.yaml"],
        ["plan", name],
        ["plan", f"{name}.json"],
        ["status", f"{name}.yaml"],
        ["workflows", "register", name],
        ["benchmark", "ltx_video_2b_demo", "--suite", name],
        ["review", "E90", "SH0010", "--retake", "--note", name],
        ["catalog", "export", name],
    ):
        done = here(*args)
        assert done.code == 2, (args, done)
        one_sentence(done.err)
    with pytest.raises(CatalogError):
        Catalog.open(tmp_path / name)
    with pytest.raises(CatalogError):
        Catalog.find(tmp_path / name / "x") or Catalog.open(tmp_path / name / "x")
    if name != "\udc80":  # bytes that are no text are a file's name all the same
        with pytest.raises(InputError, match="is not a name that can be read"):
            inside(tmp_path, name, "keyframe")


@pytest.mark.parametrize("name", ["x" * 300, "a\\0b", "x/" * 3000])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("title: A test}", 'keyframe: "%s"}'),
        ("fps: 24", 'fps: 24\ntitle_font: "%s"'),
        ("yellow coat}", 'yellow coat, lora: {file: "%s"}}'),
    ],
)
def test_a_file_that_an_episode_names_and_nobody_can_have_is_one_sentence(tmp_path, here, old, new, name):
    (tmp_path / "models").mkdir()
    (tmp_path / "episode.yaml").write_text(EPISODE.replace(old, new % name))
    refused(here("plan", "episode.yaml"), "is not a name that can be read")


@pytest.mark.parametrize("file", ["x" * 300, "demo:" + "x" * 300, '"a\\0b"'])
@pytest.mark.parametrize("field", ["checkpoint: %s", "loras: [{file: %s}]"])
def test_a_model_that_nobody_can_have_is_one_sentence(tmp_path, here, field, file):
    text = (PROJECT / "configs" / "workflows" / "ltx_video_2b_demo.yaml").read_text().replace("name: ltx_video_2b_demo", "name: mine")
    text = text.replace("checkpoint: demo:ltx-video", field % file) if "checkpoint" in field else text + field % file + "\n"
    (tmp_path / "models").mkdir()
    (tmp_path / "w.yaml").write_text(text)
    assert here("workflows", "register", "w.yaml").code == 0, "a version is recorded by its settings, whatever is here"
    (tmp_path / "episode.yaml").write_text(EPISODE.replace("clip_workflow: ltx_video_2b_demo\n", "clip_workflow: mine\n"))
    refused(here("plan", "episode.yaml"), "is not a name that can be read")
    assert here("workflows", "list").code == 0


@pytest.mark.parametrize("text", ["[/b]", "[red]fan[/red]", "[/]", ":tea:", "[link=x]y", "\\[b]"])
def test_a_persons_text_is_no_markup(tmp_path, here, text):
    (tmp_path / "episode.yaml").write_text(EPISODE.replace("action: walking right", f"action: {json.dumps(text)}"))
    assert here("plan", "episode.yaml").code == 0
    done = here("catalog", "query", f"""SELECT '{text}' AS "{text} x" """)
    assert done.code == 0 and done.out.count(text) == 2
    Catalog.open(tmp_path / "catalog-data").append("takes", [row(1, outcome="rejected", labels=[text], at=datetime.now(UTC))])
    assert text in here("takes", "E01").out and text in here("status", "E01").out
    docs = here("docs", "--out", f"out {text}".replace("/", "") + "/d")
    assert docs.code == 0 and f"out {text}".replace("/", "") in docs.out.replace("\n", "")
    assert f"unknown workflow {text!r}" in here("workflows", "show", text).err


def test_media_are_known_by_names_in_ascii():
    assert (
        NAMED.match(f"media/ab/{'ab' * 32}.mp4")
        and not NAMED.match(f"media/ab/{'ab' * 32}.mp４")
        and not NAMED.match(f"media/ab/{'ab' * 32}.mp4\n")
    )


class Studio:
    """An episode whose shots are all rendered: what `deliver` is given after a run, without the run."""

    def __init__(self, folder: Path):
        self.folder, self.file, self.catalog = folder / "out", folder / "episode.yaml", Catalog.open(folder / "catalog")
        self.folder.mkdir()
        self.file.write_text(
            EPISODE.replace("transition: {type: dissolve, frames: 12}", "fit: hold")
            .replace("declares: [hold]", "fit: hold")
            .replace("title: A test}", "fit: hold}")
        )
        clip, still = folder / "clip.mp4", folder / "still.png"
        write_clip(clip, GREY, Fraction(24))
        Image.fromarray(GREY[0]).save(still)
        self.media = {
            "clip": self.catalog.media.put(clip.read_bytes(), ".mp4"),
            "keyframe": self.catalog.media.put(still.read_bytes(), ".png"),
        }
        for shot in ("SH0010", "SH0020", "SH0030"):
            self.take(shot)

    def take(self, shot: str, n: int = 1) -> None:
        rows = [
            row(
                n,
                take=f"E90/{shot}/{stage}/v{n:03d}",
                episode="E90",
                shot=shot,
                stage=stage,
                outcome="accepted",
                media=m.digest,
                media_path=m.path,
                media_bytes=m.bytes,
            )
            for stage, m in self.media.items()
        ]
        self.catalog.append("takes", rows)

    def word(self, take: str, verdict: str) -> None:
        self.catalog.append("reviews", [{"take": take, "verdict": verdict, "at": datetime.now(UTC)}])

    def run(self, *only: str, n: int = 1, spent: tuple[str, ...] = ()) -> dict:
        episode = load_episode(self.file)
        outcomes = [
            ShotOutcome(s.id, "exhausted", {}, "flat")
            if s.id in spent
            else ShotOutcome(s.id, "accepted", {stage: f"E90/{s.id}/{stage}/v{n:03d}" for stage in self.media})
            for _, s in episode.shots
            if not only or s.id in only
        ]
        with context(Settings(catalog_uri=str(self.catalog.place)), self.catalog, Console(quiet=True)) as here:
            deliver(episode, Rendered(Plan(episode, self.file, "", [])), outcomes, here, self.folder, "run", partial=bool(only))
        return json.loads((self.folder / "summary.json").read_text())

    def edit(self, old: str, new: str) -> None:
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))

    @property
    def movie(self) -> bytes | None:
        file = self.folder / "episode.mp4"
        return file.read_bytes() if file.exists() else None

    @property
    def shots(self) -> set[str]:
        return {p.name for p in (self.folder / "shots").iterdir()}


@pytest.fixture
def studio(tmp_path) -> Studio:
    return Studio(tmp_path)


def test_a_movie_that_is_still_right_stays(studio):
    assert studio.run()["movie"] == "episode.mp4"
    whole = studio.movie
    for _ in range(2):  # the summary of a run of one shot still knows what the movie was made from
        assert studio.run("SH0010")["movie"] == "episode.mp4" and studio.movie == whole
    studio.edit("frames: 60", "priority: 3, frames: 60")
    assert studio.run("SH0020")["movie_removed"] is None and studio.movie == whole


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda s: s.edit("frames: 60", "frames: 61"), "episode file"),
        (lambda s: s.take("SH0010", 2), "SH0010 has another clip"),
        (lambda s: s.catalog.append("reviews", [{"take": "E90/SH0030/clip/v001", "verdict": "retake", "at": datetime.now(UTC)}]), "SH0030"),
        (lambda s: (s.take("SH0030", 2), s.word("E90/SH0030/clip/v002", "approved")), "SH0030 has a clip now that a person chose"),
        (lambda s: (s.take("SH0030", 2), s.word("E90/SH0030/clip/v002", "picked")), "SH0030 has a clip now that a person chose"),
        (lambda s: (s.folder / "summary.json").unlink(), "nothing says"),
        (lambda s: (s.folder / "summary.json").write_text('{"movie_from": {"episode": 1, "font": 2, "clips": {"a": []}}}'), "nothing says"),
    ],
)
def test_a_movie_that_is_no_longer_right_is_removed_with_a_sentence(studio, change, why):
    studio.run()
    change(studio)
    summary = studio.run("SH0010", n=2 if "another" in why else 1)
    assert studio.movie is None and summary["movie"] is None
    assert (
        movie_removed(studio.folder) == summary["movie_removed"]
        and why in summary["movie_removed"]
        and "episode.mp4 was removed" in summary["movie_removed"]
    )
    assert studio.run("SH0010", n=2 if "another" in why else 1)["movie_removed"] is None, "it is said once"


def test_a_shot_without_a_clip_takes_the_movie_away_and_says_so(studio):
    studio.run()
    assert "SH0020 has no accepted clip now" in studio.run(spent=("SH0020",))["movie_removed"] and studio.movie is None


def test_the_files_of_a_deleted_shot_are_removed_and_no_others(studio):
    studio.run()
    (studio.folder / "shots" / "mine.png").write_bytes(b"a person's")
    (studio.folder / "shots" / "SH0077.png").write_bytes(b"a person's too")
    studio.run("SH0010")
    studio.edit("      - {id: SH0020", "      # {id: SH0020")
    studio.run("SH0010")
    assert studio.shots == {"SH0010.png", "SH0010.mp4", "SH0030.png", "SH0030.mp4", "mine.png", "SH0077.png"}


def test_a_summary_that_lies_removes_nothing_elsewhere(studio):
    studio.run()
    (studio.folder / "contact.png").write_bytes(b"x")
    lies = {"outcomes": [{"shot": "../contact"}, {"shot": 3}, 4, {"shot": "SH٠٠٢٠"}], "files": ["../contact.png", "/etc/x", 7, None]}
    (studio.folder / "summary.json").write_text(json.dumps(lies))
    studio.run()
    assert (studio.folder / "contact.png").exists() and len(studio.shots) == 6


def test_what_killed_runs_left_is_swept_and_what_runs_is_not(studio):
    studio.run()
    dead, alive, mine = (
        studio.folder / "shots" / name for name in (".SH0010.mp4.999999999.part", f".SH0010.mp4.{os.getppid()}.part", "my.part")
    )
    old, young = studio.folder / ".part-old", studio.folder / ".part-young"
    for folder in (old, young):
        folder.mkdir()
        (folder / "episode.mp4").write_bytes(b"half")
    for file in (dead, alive, mine):
        file.write_bytes(b"half")
    for path in (old / "episode.mp4", old):
        os.utime(path, (1, 1))
    studio.run()
    assert [p.exists() for p in (dead, alive, mine, old, young)] == [False, True, True, False, True]
