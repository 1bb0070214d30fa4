"""What every picture and movie says of itself: read back by Pillow, by FFmpeg, and by hand from its chunks and boxes."""

from __future__ import annotations

import io
import json
import shutil
import zlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from catalog.store import Catalog
from gates.decode import read_video
from gates.frames import frames_at, listing
from gates.still import read_still
from pipeline.api.services.media import frame_jpeg
from pipeline.plan.guides import Guide
from pipeline.post.contact_sheet import contact_sheet
from pipeline.post.preview import preview
from pipeline.post.provenance import episode_marks, provenance, shot_marks
from pipeline.post.result import Result
from pipeline.render.context import context
from pipeline.render.marks import Marks, marked, take_marks, xmp, xmp_box, xmp_in
from pipeline.render.take import Start
from pipeline.render.video_file import write_clip
from pipeline.story.episode import load_episode
from pipeline.story.settings import load_settings

from .conftest import EPISODE
from .planted import ANOTHER, FPS, GOOD, png
from .test_migrations import OLD, unpack
from .test_movie import edit_of_clips
from .test_studio import Set, accepted, clip, keyframe

MADE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
MIXED = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
SOURCE_TYPE = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
TITLE = "海辺 & <灯> \"é\"\n2"
MARKS = Marks("trainedAlgorithmicMedia", {"title": TITLE, "workflow": "w@3", "seed": "7"})


@pytest.fixture
def stage(tmp_path, seeded) -> Set:
    shutil.copytree(seeded, tmp_path / "catalog")
    return Set(tmp_path)


def said(data: bytes) -> ElementTree.Element:
    """The description in the XMP of a file, which is found by hand."""
    if data.startswith(b"\x89PNG"):
        texts = {name: text for kind, content in chunks(data) if kind == b"iTXt" for name, text in [content.split(b"\0", 1)]}
        packet = texts[b"XML:com.adobe.xmp"][4:]  # flag, method, no language, no translated keyword
    else:
        (packet,) = (content[16:] for kind, content in boxes(data) if kind == b"uuid" and content.startswith(bytes.fromhex("be7acfcb97a942e89c71999491e3afac")))
    return ElementTree.fromstring(packet.decode())[0][0]


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert int.from_bytes(data[at + 8 + size : at + 12 + size], "big") == zlib.crc32(kind + content)
        found.append((kind, content))
        at += 12 + size
    assert at == len(data) and found[0][0] == b"IHDR" and found[-1] == (b"IEND", b"")
    return found


def boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], data[at + 8 : at + size]))
        at += size
    assert at == len(data)
    return found


def mp4(folder: Path, frames: int = 13, fps: Fraction = FPS) -> bytes:
    write_clip(folder / "clip.mp4", GOOD[:frames], fps)
    return (folder / "clip.mp4").read_bytes()


def keys(data: bytes) -> dict[str, str]:
    """As FFmpeg reads them."""
    with av.open(io.BytesIO(data), options={"export_xmp": "1"}) as file:
        return dict(file.metadata)


def test_a_picture_says_what_it_is_in_xmp_and_in_plain_words_and_keeps_its_pixels():
    data = marked(png(GOOD[0]), ".png", MARKS)
    with Image.open(io.BytesIO(data)) as image:
        assert (np.asarray(image) == GOOD[0]).all()
        assert {"Title": TITLE, "Comment": "AI-generated", "Software": "Tower", "workflow": "w@3", "seed": "7"}.items() <= image.text.items()
        assert image.info["xmp"] == xmp(MARKS)
    assert said(data).get(SOURCE_TYPE) == MADE and said(data).get("{urn:tower:provenance:}seed") == "7"
    assert said(data)[0][0][0].text == TITLE, "whatever letters are in it"


@pytest.mark.parametrize(("frames", "fps"), [(13, FPS), (1, FPS), (2, Fraction(8)), (41, Fraction(24000, 1001))])
def test_a_movie_says_what_it_is_in_keys_and_in_xmp_and_keeps_its_frames_and_times(tmp_path, frames, fps):
    plain = mp4(tmp_path, frames, fps)
    data = marked(plain, ".mp4", MARKS)
    assert {"title": TITLE, "comment": "AI-generated", "software": "Tower", "workflow": "w@3", "digital_source_type": MADE}.items() <= keys(data).items()
    assert keys(data)["xmp"].encode() == xmp(MARKS) and said(data).get(SOURCE_TYPE) == MADE
    assert [kind for kind, _ in boxes(data)][:2] == [b"ftyp", b"moov"] and data.endswith(xmp_box(xmp(MARKS))), "players begin before they have all of it"
    (tmp_path / "marked.mp4").write_bytes(data)
    (before, rate), (after, same) = read_video(tmp_path / "clip.mp4"), read_video(tmp_path / "marked.mp4")
    assert (before == after).all() and rate == same == fps
    assert listing(tmp_path / "marked.mp4") == listing(tmp_path / "clip.mp4")
    assert (frames_at(data, [frames - 1])[0] == frames_at(plain, [frames - 1])[0]).all(), "another decoder agrees"


def test_equal_marks_give_equal_bytes_and_new_ones_take_the_place_of_old_ones(tmp_path):
    other = replace(MARKS, facts={"title": "Other", "take": "E01/SH0010/clip/v002"})
    for suffix, data in ((".png", png(GOOD[0])), (".mp4", mp4(tmp_path))):
        once = marked(data, suffix, MARKS)
        assert once == marked(data, suffix, MARKS) == marked(marked(data, suffix, other), suffix, MARKS) != data
        assert b"v002" not in once


def test_letters_that_xml_has_no_place_for_do_not_break_it(tmp_path):
    odd = Marks("trainedAlgorithmicMedia", {"title": "a\x00\x0b\ud800\ufffeb\U0001f3ee"})
    for suffix, data in ((".png", png(GOOD[0])), (".mp4", mp4(tmp_path))):
        assert said(marked(data, suffix, odd))[0][0][0].text == "ab\U0001f3ee"


def test_what_is_taken_from_a_file_says_what_the_file_says(tmp_path):
    for suffix, plain in ((".png", png(GOOD[0])), (".mp4", mp4(tmp_path))):
        file = tmp_path / f"marked{suffix}"
        file.write_bytes(marked(plain, suffix, MARKS))
        with Image.open(io.BytesIO(frame_jpeg(file, 0, None))) as frame:
            assert frame.format == "JPEG" and frame.info["xmp"] == xmp(MARKS)
        with Image.open(io.BytesIO(frame_jpeg(file, 0, 64))) as small:
            assert "xmp" not in small.info, "a thumbnail says nothing"
        assert xmp_in(io.BytesIO(plain)) == b"" == xmp_in(io.BytesIO(plain[:20])) == xmp_in(io.BytesIO(b""))
    assert keys(preview(file.read_bytes(), 96))["xmp"].encode() == xmp(MARKS) and "xmp" not in keys(preview(plain, 96))


def test_stored_takes_say_what_made_them_and_are_the_same_when_they_are_made_again(stage):
    plan = stage.shot()
    start = accepted(stage, plan)
    stage.act(keyframe(plan, attempt=1))
    stage.act(keyframe(plan, attempt=5))
    stage.act(clip(plan, start))
    first, again, moving = sorted(stage.takes(), key=lambda row: (row["stage"] == "clip", row["attempt"]))
    assert first["media"] == again["media"], "the number of the attempt is not in the file"
    for row, what in ((first, plan.stages[0]), (moving, plan.stages[1])):
        data = stage.catalog.media.read(row["media_path"], row["media"])
        words = {"stage": what.stage, "workflow": what.workflow.title, "workflow_digest": what.workflow_digest, "seed": str(row["seed"])}
        assert {f"{{urn:tower:provenance:}}{name}": text for name, text in words.items()}.items() <= said(data).attrib.items()
        assert said(data).get(SOURCE_TYPE) == MADE
        assert row["take"].encode() not in data and row["run"].encode() not in data


def test_a_picture_that_a_person_gave_is_not_called_generated_and_a_clip_of_it_is_called_mixed(stage):
    Image.fromarray(GOOD[0]).save(stage.file.parent / "mine.png")
    stage.file.write_text(EPISODE.replace("title: A test}", "keyframe: mine.png}"))
    plan = stage.shot()
    start = Start.of(stage.act(keyframe(plan)))
    stage.act(clip(plan, start))
    moving, still = sorted(stage.takes(), key=lambda row: row["stage"])
    ((_, digest),) = dict(still["reference_files"]).items()
    for row, source in ((still, None), (moving, MIXED)):
        assert said(stage.catalog.media.read(row["media_path"], row["media"])).get(SOURCE_TYPE) == source
    data = stage.catalog.media.read(still["media_path"], still["media"])
    assert b"AI-generated" not in data and digest.encode() in data


def test_a_take_that_needs_no_seed_is_generated_all_the_same_and_says_none():
    row = {"seed": None, "keyframe_media": "0" * 64, "stage": "finish", "workflow": "up", "workflow_version": 2, "workflow_digest": "d" * 64}
    marks = take_marks(row, composite=False)
    assert (marks.source, dict(marks.facts)) == ("trainedAlgorithmicMedia", {"stage": "finish", "workflow": "up@2", "workflow_digest": "d" * 64})


def test_a_clip_that_passes_through_a_persons_picture_is_called_mixed(stage):
    plan = stage.shot()
    guide = Guide(Path("mine.png"), "0" * 64, 120, 1, None, 1.0)
    Image.fromarray(ANOTHER[0]).save(stage.file.parent / "mine.png")
    shown = replace(plan, stages=(plan.stages[0], replace(plan.stages[1], guides=(replace(guide, path=stage.file.parent / "mine.png"),))))
    stage.act(clip(shown, accepted(stage, shown)))
    (row,) = stage.takes()
    assert said(stage.catalog.media.read(row["media_path"], row["media"])).get(SOURCE_TYPE) == MIXED


def test_delivered_files_say_what_their_takes_say_and_which_takes_they_are(stage):
    plan = stage.shot()
    start = Start.of(stage.act(keyframe(plan)))
    stage.act(clip(plan, start))
    takes = {row["stage"]: row for row in stage.takes()}
    for name, row in takes.items():
        stored = stage.catalog.media.read(row["media_path"], row["media"])
        file = said(marked(stored, Path(row["media_path"]).suffix, shot_marks(takes, name, "A test")))
        assert file.get("{urn:tower:provenance:}take") == row["take"] and file[0][0][0].text == "A test, SH0010"
        assert said(stored).attrib.items() < file.attrib.items()


def test_the_list_beside_the_movie_tells_takes_models_and_what_people_gave_and_no_paths_of_this_machine(stage):
    Image.fromarray(GOOD[0]).save(stage.file.parent / "mine.png")
    stage.file.write_text(EPISODE.replace("title: A test}", "keyframe: mine.png}"))
    for n in (0, 1):
        plan = stage.shot(n)
        stage.act(clip(plan, Start.of(stage.act(keyframe(plan)))))
    shots = {shot: {row["stage"]: row for row in stage.takes() if row["shot"] == shot} for shot in ("SH0010", "SH0020")}
    episode = load_episode(stage.file)
    told = provenance(episode, "d" * 64, shots, stage.catalog)
    assert told == json.loads(json.dumps(told)) and str(stage.file.parent) not in json.dumps(told)
    assert (told["episode"], told["episode_digest"], told["digital_source_type"]) == ("E90", "d" * 64, MIXED)
    first, second, third = told["shots"]
    assert (first["shot"], third) == ("SH0010", {"shot": "SH0030", "takes": []})
    assert list(first["takes"][0]["given"]) == ["mine.png"] and "seed" not in first["takes"][0] and first["takes"][1]["given"] == {}
    moving = shots["SH0020"]["clip"]
    wanted = {"take": moving["take"], "media": moving["media"], "workflow": plan.stages[1].workflow.title, "seed": moving["seed"]}
    assert wanted.items() <= second["takes"][1].items()
    used = {row["workflow"]: row for row in told["workflows"]}
    assert set(used) == {what.workflow.title for n in (0, 1) for what in stage.shot(n).stages}, "the keyframe's of the second shot too"
    assert all(row["models"] and row["libraries"]["torch"] for row in used.values()), "with a digest of each file"
    assert told["tools"]["ffmpeg"] == av.ffmpeg_version_info
    del shots["SH0010"]
    assert provenance(episode, "d" * 64, shots, stage.catalog)["digital_source_type"] == MADE


def test_the_movie_and_the_sheet_say_which_episode_they_are(stage):
    plan = stage.shot()
    start = Start.of(stage.act(keyframe(plan)))
    stage.act(clip(plan, start))
    takes = {row["stage"]: row for row in stage.takes()}
    marks = episode_marks(load_episode(stage.file), "d" * 64, {"SH0010": takes})
    assert marks.keys["title"] == "A test" and marks.keys["episode_digest"] == "d" * 64 and marks.source == "trainedAlgorithmicMedia"
    assert marks.keys["workflows"] == ", ".join(f"{what.workflow.title} {what.workflow_digest}" for what in reversed(plan.stages))
    stage.file.write_text(EPISODE.replace("sequences:", "audio: [{file: theme.ogg, kind: music}]\nsequences:"))
    assert episode_marks(load_episode(stage.file), "d" * 64, {"SH0010": takes}).source == "compositeWithTrainedAlgorithmicMedia"
    edit = replace(edit_of_clips(load_episode(stage.file), {"SH0010": takes["clip"]}), marks=marks)
    first, result = stage.file.parent / "contact_sheet.png", Result("SH0010", "accepted", "", takes)
    with context(load_settings(), stage.catalog, Console(quiet=True)) as here:
        contact_sheet(edit, [result], {"SH0010": 2}, None, here, first)
    assert said(first.read_bytes()).get(SOURCE_TYPE) == MADE and read_still(first).image.shape[2] == 3


@pytest.mark.parametrize("version", [min(OLD), max(OLD)])
def test_takes_of_older_catalogs_that_say_nothing_get_their_marks_where_they_are_delivered(tmp_path, version):
    catalog = Catalog.open(unpack(version, tmp_path / "catalog"))
    takes = {row["stage"]: row for row in catalog.rows("takes")}
    for name, row in takes.items():
        data = catalog.media.read(row["media_path"], row["media"])
        assert b"tower:provenance" not in data
        file = said(marked(data, Path(row["media_path"]).suffix, shot_marks(takes, name, "A test")))
        assert (file.get("{urn:tower:provenance:}take"), file.get(SOURCE_TYPE)) == (row["take"], MADE)
