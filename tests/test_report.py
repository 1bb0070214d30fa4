"""The report tells every take of an episode as the catalog has it, in a page that loads nothing and runs nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

from catalog.store import Catalog
from gates.decode import read_video
from pipeline.post.preview import preview, small_size
from pipeline.post.report import Price, bytes_of, write_report
from pipeline.post.report_facts import GONE, Facts, gather
from pipeline.post.report_media import likely_bytes
from pipeline.render.video_file import write_clip
from pipeline.story.episode import Episode, load_episode

from .conftest import EPISODE, PROJECT, Done, refused, tower

EVIL = "<script>alert('x')</script><img src=http://evil.example/x onerror=alert(1)>\"'{{ 7*7 }}"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
AT = datetime(2026, 11, 26, 12, tzinfo=UTC)
FROZEN = json.dumps([{"label": "frozen", "measure": "reach", "value": 0.9, "threshold": 1.6, "outcome": "fail", "frames": [38, 46], "text": ""}])


class Studio:
    """A catalog with takes of E90: pictures and clips that are drawn here, and rows as a render writes them."""

    def __init__(self, folder: Path, size: tuple[int, int] = (192, 128), frames: int = 26):
        self.catalog, self.rows = Catalog.open(folder), list[dict[str, Any]]()
        wall = np.random.default_rng(0).integers(0, 256, (size[1] // 16, size[0] // 16 + frames // 16 + 1, 3), np.uint8).repeat(16, 0).repeat(16, 1)
        drawn = np.stack([wall[:, n : n + size[0]] for n in range(frames)])
        write_clip(folder / "clip.mp4", drawn, Fraction(24))
        still = BytesIO()
        Image.fromarray(drawn[0]).save(still, "PNG")
        put = self.catalog.media.put
        self.media = {"keyframe": put(still.getvalue(), ".png"), "clip": put((folder / "clip.mp4").read_bytes(), ".mp4")}
        self.size, self.frames = size, frames

    def take(self, shot: str, stage: str, attempt: int, outcome: str = "accepted", **more: Any) -> str:
        media, clip = self.media[stage], stage == "clip"
        made = {
            "take": f"E90/{shot}/{stage}/v{attempt:03}", "run": "r1", "at": AT + timedelta(seconds=len(self.rows)), "episode": "E90",
            "sequence": "S010", "shot": shot, "stage": stage, "attempt": attempt, "outcome": outcome, "workflow": f"w_{stage}", "workflow_version": 2,
            "seed": 1000 + len(self.rows), "prompt": "a girl by the sea", "media": media.digest, "media_path": media.path, "media_bytes": media.bytes,
            "width": self.size[0], "height": self.size[1], "frames": self.frames if clip else 1, "fps": 24.0 if clip else None, "labels": [],
            "findings": "[]", "queue_seconds": 1.5, "device_seconds": 90.0 if clip else 6.0, "gate_seconds": 0.25, "device": "RTX", "model_memory_bytes": 5,
        }  # fmt: skip
        self.rows.append(made | more)
        return str(made["take"])

    def record(self) -> Catalog:
        self.catalog.append("runs", [{"run": "r1", "event": "started", "at": AT, "episode": "E90", "workflows": {"w_keyframe@2": "proven"}}])
        self.catalog.append("takes", self.rows)
        return self.catalog

    def say(self, take: str, verdict: str, note: str = "", **more: Any) -> None:
        self.catalog.append_later("reviews", [{"take": take, "at": AT, "episode": "E90", "verdict": verdict, "note": note, "by": "Mika"} | more])


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    """SH0010: one still and two clips, of which the second stands. SH0020: rejected. SH0030: nothing yet. SH0770: gone from the file."""
    (tmp_path / "episode.yaml").write_text(EPISODE)
    made = Studio(tmp_path / "catalog-data")
    still = made.take("SH0010", "keyframe", 1)
    made.take("SH0010", "clip", 1, "rejected", labels=["frozen"], findings=FROZEN)
    made.take("SH0010", "clip", 2, upstream=still)
    made.take("SH0020", "keyframe", 1)
    made.take("SH0020", "clip", 1, "error", error="CUDA out of memory", media=None, media_path=None, findings=None)
    made.take("SH0770", "keyframe", 1)
    made.record()
    return made


class Page(HTMLParser):
    """What a page is made of: its tags with their attributes, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.said = list[tuple[str, dict[str, str | None]]](), list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.said).split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def page_of(file: Path) -> Page:
    return Page(file.read_text(encoding="utf-8"))


def facts_of(studio: Studio, episode: Episode | None = None) -> Facts:
    return gather(studio.catalog, "E90", episode)


Here = Callable[..., Done]


@pytest.mark.parametrize("form", ["--folder", "--one-file"])
def test_every_take_is_in_the_report_with_its_verdict_its_reason_and_its_seed(studio, tmp_path, here: Here, form):
    done = here("report", "episode.yaml", form)
    assert done.code == 0, done.err
    file = tmp_path / done.out.strip()
    assert file == tmp_path / ("out/E90/report/index.html" if form == "--folder" else "out/E90/report.html")
    page = page_of(file)
    rows = re.findall(r"<tr.*?</tr>", file.read_text().partition('<section class="used">')[0], re.S)
    told = [Page(row).text for row in rows if "<td" in row]
    assert len(told) == len(studio.rows)
    for row, text in zip(sorted(studio.rows, key=lambda r: r["shot"]), told, strict=True):
        for word in (f"{row['stage']} v{row['attempt']:03}", row["outcome"], str(row["seed"]), f"{row['workflow']}@2", f"{row['device_seconds']:.1f} s"):
            assert word in text, (word, text)
    assert "frozen (reach 0.9, threshold 1.6), frames 39–47" in page.text and "CUDA out of memory" in page.text
    assert [a["id"] for a in page.of("article")] == ["SH0010", "SH0020", "SH0030", "SH0770"] and GONE in page.text
    assert "w_keyframe@2 proven" in page.text and "A test" in page.text and "No takes yet." in page.text


def test_the_numbers_are_the_catalogs(studio, tmp_path):
    facts = facts_of(studio, load_episode(tmp_path / "episode.yaml"))
    assert [(s.id, s.state, len(s.takes)) for s in facts.shots] == [
        ("SH0010", "accepted", 3), ("SH0020", "rejected", 2), ("SH0030", "waiting", 0), ("SH0770", "rejected", 1)
    ]  # fmt: skip
    assert facts.seconds == pytest.approx(132 / 24)
    assert sum(t.device_seconds for t in facts.takes) == 3 * 6 + 3 * 90
    assert [(u.workflow, u.status, u.takes, u.accepted, u.device_seconds) for u in facts.used] == [("w_clip@2", "", 3, 1, 270), ("w_keyframe@2", "proven", 3, 3, 18)]
    first = facts.shots[0]
    assert (first.clip and first.clip.take, first.keyframe and first.keyframe.take) == ("E90/SH0010/clip/v002", "E90/SH0010/keyframe/v001")
    file = write_report(facts, studio.catalog.media, tmp_path / "out", 480, False, Price(2.5, "EUR"))
    text = page_of(file).text
    assert "GPU-minutes 4.8 0.20 EUR" in text and "3 takes, 3.1 GPU-minutes, 0.13 EUR" in text and "At 2.5 EUR a GPU-hour" in text
    assert "w_clip@2 not recorded 3 1 4.5 0.19 EUR" in text
    assert "EUR" not in page_of(write_report(facts, studio.catalog.media, tmp_path / "free", 480, False, None)).text


def test_time_on_other_devices_is_not_called_a_gpus(studio, tmp_path):
    studio.catalog.append("takes", [studio.rows[0] | {"take": "E90/SH0010/keyframe/v009", "attempt": 9, "model_memory_bytes": None}])
    text = page_of(write_report(facts_of(studio), studio.catalog.media, tmp_path / "out", 480, False, None)).text
    assert "device-minutes" in text and "GPU-minutes" not in text


def test_peoples_words_stand_beside_what_the_gate_said(studio, tmp_path):
    studio.say("E90/SH0010/clip/v002", "note", "left hand melts", first_frame=11, last_frame=16)
    studio.say("E90/SH0010/clip/v002", "approved")
    studio.say("E90/SH0020/keyframe/v001", "retake", "wrong coat", first_frame=0, last_frame=0)
    facts = facts_of(studio)
    assert [s.state for s in facts.shots] == ["approved", "retake", "rejected"]
    text = page_of(write_report(facts, studio.catalog.media, tmp_path / "out", 480, False, None)).text
    assert "note by Mika" in text and "frames 12–17 : “left hand melts”" in text.replace("frames 12–17:", "frames 12–17 :")
    assert "approved by Mika" in text and "retake by Mika" in text and "frame 1: “wrong coat”" in text
    assert "frozen (reach 0.9, threshold 1.6)" in text and "1 approved · 1 retake · 1 rejected" in text


@pytest.mark.parametrize("one_file", [False, True], ids=["folder", "one file"])
def test_nothing_is_loaded_from_elsewhere_and_nothing_runs(studio, tmp_path, one_file):
    file = write_report(facts_of(studio), studio.catalog.media, tmp_path / "out", 480, one_file, None)
    page, text = page_of(file), file.read_text()
    assert not re.search(r"https?:|//\w|<script|<link|<iframe|\son\w+=|url\(|@import", re.sub(r"data:[\w/]+;base64,[\w+/=]+", "", text))
    (policy,) = [m["content"] or "" for m in page.of("meta") if m.get("http-equiv")]
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert f"style-src 'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'" in policy
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy and "http" not in policy
    sources = [a["src"] or "" for tag in ("img", "video") for a in page.of(tag)]
    if one_file:
        assert all(source.startswith("data:") for source in sources) and [p.name for p in file.parent.iterdir()] == ["report.html"]
    else:
        assert {s for s in sources} == {f"media/{p.name}" for p in (file.parent / "media").iterdir()}
    assert len(page.of("video")) == 1 and len(sources) >= 8


def test_what_people_and_models_write_is_text_and_no_markup(studio, tmp_path):
    plain = page_of(write_report(facts_of(studio), studio.catalog.media, tmp_path / "plain", 480, False, Price(1, "EUR")))
    studio.take("SH0010", "clip", 3, "error", error=EVIL, findings=None, prompt=EVIL, workflow=EVIL, device=EVIL, media=None, media_path=None)
    finding = [{"label": "frozen", "measure": EVIL, "value": 1, "threshold": 2, "outcome": "fail", "frames": [], "text": EVIL}]
    studio.take("SH0010", "clip", 4, "accepted", prompt=EVIL, findings=json.dumps(finding))
    studio.catalog.append("takes", studio.rows[-2:])
    studio.say("E90/SH0010/clip/v004", "approved", EVIL, by=EVIL)
    story = (tmp_path / "episode.yaml").read_text().replace("title: A test\n", f"title: {json.dumps(EVIL)}\n", 1)
    story = story.replace("framing: wide shot", f"framing: {json.dumps(EVIL)}").replace("name: Hana", f"name: {json.dumps(EVIL)}")
    story = story.replace("  - id: S010", f"  - id: S010\n    title: {json.dumps(EVIL)}")
    (tmp_path / "episode.yaml").write_text(story)
    facts = facts_of(studio, load_episode(tmp_path / "episode.yaml"))
    for one_file in (False, True):
        page = page_of(write_report(facts, studio.catalog.media, tmp_path / "out", 480, one_file, Price(1, EVIL)))
        assert {tag for tag, _ in page.tags} == {tag for tag, _ in plain.tags}
        assert not [a for _, attrs in page.tags for a in attrs if a.startswith("on")]
        assert page.text.count("<script>alert('x')</script>") == page.text.count("{{ 7*7 }}") >= 20


PLAYED = """async () => {
    const video = document.querySelector('video');
    await video.play();
    while (!video.currentTime) await new Promise(requestAnimationFrame);
    return [video.videoWidth, video.videoHeight];
}"""


@pytest.mark.skipif(not CHROMIUM, reason="no chromium is installed on this machine")
@pytest.mark.parametrize("one_file", [False, True], ids=["folder", "one file"])
def test_it_opens_from_the_disk_without_a_network_plays_and_prints(studio, tmp_path, one_file):
    file = write_report(facts_of(studio), studio.catalog.media, tmp_path / "out", 480, one_file, None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        context, said, asked = browser.new_context(offline=True, viewport={"width": 390, "height": 800}), list[str](), list[str]()
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth)")
        assert page.evaluate(PLAYED) == [192, 128]
        assert page.evaluate("document.documentElement.scrollWidth") == 390, "nothing is wider than a phone"
        dark, light = (_background(page, scheme) for scheme in ("dark", "light"))
        assert sum(dark) < 150 and sum(light) > 600
        page.emulate_media(media="print")
        assert not page.locator("video").first.is_visible() and page.locator(".screen img").first.is_visible()
        assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
        browser.close()
    assert not said and all(url.startswith(("file:", "data:")) for url in asked)


def _background(page: Any, scheme: Any) -> list[int]:
    page.emulate_media(color_scheme=scheme)
    return [int(level) for level in re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))]


def test_a_person_who_approves_what_the_gate_rejected_is_told_beside_the_gate(studio, tmp_path):
    studio.say("E90/SH0010/clip/v001", "approved", "a held breath")
    facts = facts_of(studio)
    first = facts.shots[0]
    assert first.clip and (first.clip.take, first.state) == ("E90/SH0010/clip/v001", "approved")
    file = write_report(facts, studio.catalog.media, tmp_path / "out", 480, False, None)
    assert "accepted the gate: rejected frozen (reach 0.9, threshold 1.6), frames 39–47 approved by Mika" in page_of(file).text
    assert [p.name for p in (file.parent / "media").glob("*.mp4")] == ["SH0010_clip_v001.mp4"]


def test_a_shot_that_moved_to_another_sequence_has_one_clip_that_stands(studio, tmp_path):
    studio.take("SH0010", "clip", 3, sequence="S020")
    studio.catalog.append("takes", studio.rows[-1:])
    (shot,) = [shot for shot in facts_of(studio).shots if shot.id == "SH0010"]
    assert shot.clip and shot.clip.take == "E90/SH0010/clip/v003"
    assert [s.id for s in facts_of(studio).sequences if shot in s.shots] == ["S020"]


def test_the_clip_is_the_standing_take_small_and_made_for_stepping(studio, tmp_path):
    file = write_report(facts_of(studio), studio.catalog.media, tmp_path / "out", 96, False, None)
    (clip,) = (file.parent / "media").glob("*.mp4")
    whole, _ = read_video(tmp_path / "catalog-data" / studio.media["clip"].path)
    frames, fps = read_video(clip)
    assert clip.name == "SH0010_clip_v002.mp4" and frames.shape == (26, 64, 96, 3) and fps == 24
    small = np.asarray(Image.fromarray(whole[25]).resize((96, 64), Image.Resampling.BOX), int)
    assert np.abs(frames[25] - small).mean() < 12 < np.abs(frames[0] - small).mean(), "its last frame is the clip's last"
    with av.open(str(clip)) as video:
        stream = video.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        packets = [p for p in video.demux(stream) if p.size]
    assert [p.pts for p in packets] == [p.dts for p in packets] == sorted(p.pts for p in packets), "no B-frames"
    assert [i for i, p in enumerate(packets) if p.is_keyframe] == [0, 24]


@pytest.mark.parametrize(("size", "most", "wanted"), [((768, 512), 480, (480, 320)), ((96, 64), 480, (96, 64)), ((1920, 803), 333, (332, 140)), ((65, 35), 480, (64, 34))])
def test_a_preview_keeps_its_shape_and_is_never_enlarged(tmp_path, size, most, wanted):
    assert small_size(*size, most) == wanted
    write_clip(tmp_path / "a.mp4", np.zeros((2, size[1] // 2 * 2, size[0] // 2 * 2, 3), np.uint8), Fraction(24000, 1001))
    (tmp_path / "b.mp4").write_bytes(preview((tmp_path / "a.mp4").read_bytes(), most))
    frames, fps = read_video(tmp_path / "b.mp4")
    assert len(frames) == 2 and fps == Fraction(24000, 1001) and frames.shape[2] <= most


def test_a_report_takes_the_place_of_an_earlier_one_and_of_nothing_else(studio, tmp_path):
    facts, store, out = facts_of(studio), studio.catalog.media, tmp_path / "out"
    file = write_report(facts, store, out, 480, False, None)
    (file.parent / "media" / "old.jpg").touch()
    write_report(facts, store, out, 480, False, None)
    assert sorted(p.name for p in out.iterdir()) == ["report"] and not (file.parent / "media" / "old.jpg").exists()
    (file.parent / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"report holds notes\.txt, which is no report's"):
        write_report(facts, store, out, 480, False, None)
    assert (file.parent / "notes.txt").read_text() == "mine" and file.exists()


@pytest.mark.parametrize("one_file", [False, True], ids=["folder", "one file"])
def test_a_damaged_file_is_told_and_leaves_the_earlier_report(studio, tmp_path, here: Here, one_file):
    form = "--one-file" if one_file else "--folder"
    assert here("report", "E90", form).code == 0
    out = tmp_path / "out" / "E90"
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    (tmp_path / "catalog-data" / studio.media["clip"].path).write_bytes(b"damaged")
    refused(without_size(here("report", "E90", form)), studio.media["clip"].path, "promises")
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def without_size(done: Done) -> Done:
    """Without the line that says how large the report will be."""
    return replace(done, err="\n".join(line for line in done.err.splitlines() if not line.startswith("E90: ")))


def test_a_rejected_take_whose_file_is_lost_or_no_clip_is_told_without_a_picture(studio, tmp_path):
    broken = studio.catalog.media.put(b"no clip", ".mp4")
    studio.take("SH0020", "clip", 2, "rejected", labels=["undecodable"], media=broken.digest, media_path=broken.path)
    studio.take("SH0020", "clip", 3, "rejected", media="ab" * 32, media_path=f"media/ab/{'ab' * 32}.mp4")
    studio.catalog.append("takes", studio.rows[-2:])
    file = write_report(facts_of(studio), studio.catalog.media, tmp_path / "out", 480, False, None)
    text = page_of(file).text
    assert "undecodable no picture: Invalid data found" in text and f"no picture: media/ab/{'ab' * 32}.mp4 is missing" in text
    assert not list((file.parent / "media").glob("SH0020_clip*"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("E77",), ("no takes of episode E77",)),
        (("E90", "--width", "9"), ("--width",)),
        (("E90", "--gpu-hour", "-1"), ("--gpu-hour", "no price")),
        (("E90", "--gpu-hour", "nan"), ("--gpu-hour", "no price")),
        (("nowhere.yaml",), ("nowhere.yaml",)),
    ],
)
def test_bad_usage_is_one_sentence_and_nothing_is_written(studio, tmp_path, here: Here, words, said):
    refused(here("report", *words), *said)
    assert not (tmp_path / "out").exists()


# In a process of its own: one that ran other tests holds memory that it gives back or takes as it likes.
GROWTH = """
import sys, pathlib, psutil
from dataclasses import replace
from catalog.store import Catalog
from pipeline.post.report import write_report
from pipeline.post.report_facts import gather
folder = pathlib.Path(sys.argv[1])
catalog = Catalog.open(folder / "catalog-data")
facts = gather(catalog, "E90", None)
few = replace(facts, sequences=(replace(facts.sequences[0], shots=tuple(facts.shots[:30])),))
write_report(few, catalog.media, folder / "first", 96, True, None)
resident = psutil.Process().memory_info().rss
write_report(facts, catalog.media, folder / "second", 96, True, None)
print(psutil.Process().memory_info().rss - resident)
"""


def test_three_hundred_shots_stay_small_in_the_mail_and_in_memory(tmp_path):
    """What thirty shots weigh, times ten; and the memory of one shot at a time."""
    studio = Studio(tmp_path / "catalog-data", (96, 64), 12)
    for n in range(300):
        studio.take(f"SH{10 * (n + 1):04}", "keyframe", 1)
        studio.take(f"SH{10 * (n + 1):04}", "clip", 1)
    facts, store = gather(studio.record(), "E90", None), studio.catalog.media
    thirty = replace(facts, sequences=(replace(facts.sequences[0], shots=tuple(facts.shots[:30])),))
    few = bytes_of(write_report(thirty, store, tmp_path / "few", 96, True, None))
    file = write_report(facts, store, tmp_path / "out", 96, True, None)
    assert 8 * few < bytes_of(file) < 10 * few and bytes_of(file) < 25e6
    grown = subprocess.run([sys.executable, "-c", GROWTH, str(tmp_path)], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert float(grown.stdout) < 100e6
    assert bytes_of(file) / 4 < likely_bytes(facts, 96) * 4 / 3 < 4 * bytes_of(file)
    assert len(page_of(file).of("article")) == 300


def test_a_rendered_episode_is_reported_by_its_id_as_its_file_has_it(copied: Path):
    done = tower("report", "E90", "--one-file", cwd=copied)
    assert done.code == 0, done.err
    page = page_of(copied / "out" / "E90" / "report.html")
    takes = json.loads(tower("takes", "E90", "--json", cwd=copied).out)
    assert [a["id"] for a in page.of("article")] == ["SH0010", "SH0020", "SH0030"] and len(page.of("video")) == 3
    assert "A test" in page.text and "Hana, wide shot, walking right" in page.text
    for take in takes:
        assert str(take["seed"]) in page.text and f"{take['workflow']}@{take['workflow_version']} proven" in page.text
