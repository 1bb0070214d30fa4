"""Sound: at its sample, as long as the picture, as loud as asked; and what cannot sound is told before anything renders."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
import yaml

import pipeline.plan.sound_file
import pipeline.post.loudness
import pipeline.post.mix
from catalog.store import Catalog
from pipeline.plan.plan import make_plan
from pipeline.plan.sound_file import SoundFacts, sound_blocks
from pipeline.plan.sounds import placed_sounds, samples_of, seconds_of
from pipeline.plan.stories import check_out, record_story
from pipeline.post.aac import write_aac
from pipeline.post.loudness import HIGHEST, limited, measured
from pipeline.post.mix import Mix
from pipeline.post.sound import make_sound, sound_key
from pipeline.render.submission import named_files
from pipeline.render.video_file import VideoFile
from pipeline.story.episode import Episode, load_episode
from pipeline.story.errors import InputError
from pipeline.story.fingerprint import FileDigests
from pipeline.story.settings import load_settings

from .conftest import PROJECT, refused
from .service import asking, desk_app
from .sounds import CODECS, RATE, click, decoded, episode_with, placed, tone, write_sound


def mixed(episode: Episode, file: Path) -> np.ndarray:
    """The sound before its loudness is set: float32 (n, 2)."""
    return np.concatenate(list(Mix(placed(episode, file), samples_of(episode)).blocks()))


def peak_at(sound: np.ndarray, near: int, reach: int = 2000) -> int:
    """The sample of the highest peak around a place."""
    first = max(0, near - reach)
    return first + int(np.abs(sound[first : near + reach, 0]).argmax())


def level(sound: np.ndarray, start: float, end: float) -> float:
    """Root mean square between two seconds, in dB."""
    return 10 * np.log10(np.square(sound[round(start * RATE) : round(end * RATE)], dtype=np.float64).mean())


@pytest.mark.parametrize("fps", [24, 23.976, 25])
def test_a_click_is_at_its_sample_and_the_sound_as_long_as_the_picture(tmp_path, fps):
    write_sound(tmp_path / "fx" / "click.wav", click())
    audio = {"file": "fx/click.wav", "kind": "effect", "start": 0.25}
    shots = [{"audio": [audio]}, {"transition": {"type": "dissolve", "frames": 12}, "audio": [audio]}, {"frames": 31, "audio": [audio]}]
    episode, file = episode_with(tmp_path, shots, fps, sequence={"audio": [audio | {"start": 1.0}]})
    firsts = [Fraction(frames) / episode.fps for frames in (0, 36, 84)]
    want = sorted([round((first + Fraction(1, 4)) * RATE) for first in firsts] + [RATE])
    exact = mixed(episode, file)
    assert [peak_at(exact, place) for place in want] == want
    make_sound(episode, placed(episode, file), tmp_path / "sound.m4a")
    assert all(abs(peak_at(decoded(tmp_path / "sound.m4a"), place) - place) <= 2 for place in want)
    samples = round(Fraction(48 + 36 + 31) / episode.fps * RATE)
    assert len(exact) == samples
    with av.open(str(tmp_path / "sound.m4a")) as made:
        stream = made.streams.audio[0]
        assert (stream.start_time, stream.duration, stream.time_base) == (0, samples, Fraction(1, RATE))
        assert (stream.codec_context.name, stream.codec_context.layout.name, stream.rate) == ("aac", "stereo", RATE)


def test_a_click_a_minute_is_where_it_was_put_after_24_minutes(tmp_path):
    write_sound(tmp_path / "click.wav", click(at=0.05))
    clicks = [{"file": "click.wav", "kind": "effect", "start": 60.0 * minute} for minute in range(24)]
    shots = [{"frames": 14385, "fit": "hold"}, {"frames": 14385, "fit": "hold"}, {"frames": 5790, "fit": "hold"}]  # 34,560, all of them
    episode, file = episode_with(tmp_path, shots, 23.976, audio=clicks)
    exact = Mix(placed(episode, file), samples_of(episode))
    found = [begin * RATE + int(block[:, 0].argmax()) for begin, block in enumerate(exact.blocks()) if block.any()]
    assert found == [2400 + RATE * 60 * minute for minute in range(24)]
    write_aac(tmp_path / "sound.m4a", exact.blocks())
    with av.open(str(tmp_path / "sound.m4a")) as made:
        stream = made.streams.audio[0]
        assert stream.duration == samples_of(episode) == 34_560 * 2002
        for place in found[1:]:
            made.seek(place - RATE // 2, stream=stream)
            heard = [(frame.pts, frame.to_ndarray()[0]) for frame in islice(made.decode(stream), 60)]
            sound = np.concatenate([samples for _, samples in heard])
            assert abs(heard[0][0] + int(sound.argmax()) - place) <= 2


@pytest.mark.parametrize("suffix", [*CODECS])
def test_every_type_is_read_and_padding_of_codecs_is_left_out(tmp_path, suffix):
    path = write_sound(tmp_path / f"a{suffix}", click(1.5, at=0.7))
    sound = np.concatenate(list(sound_blocks(path)))
    assert abs(peak_at(sound, round(0.7 * RATE)) - 0.7 * RATE) <= 1 and len(sound) == 1.5 * RATE


@pytest.mark.parametrize("rate", [8000, 44_100, 96_000])
def test_other_rates_keep_time(tmp_path, rate):
    sound = np.concatenate(list(sound_blocks(write_sound(tmp_path / "a.wav", click(30, at=29.5, rate=rate), rate))))
    assert abs(peak_at(sound, round(29.5 * RATE)) - 29.5 * RATE) <= 1 and abs(len(sound) - 30 * RATE) <= 1


def test_channels_become_two(tmp_path):
    def heard(channels: int, loud: int) -> list[float]:
        samples = np.zeros((RATE // 10, channels))
        samples[:, loud] = 0.5
        sound = np.concatenate(list(sound_blocks(write_sound(tmp_path / "a.wav", samples))))
        return [round(float(x), 3) for x in sound[2000]]

    assert heard(1, 0) == [0.5, 0.5], "mono is as loud as it is, in both"
    assert [heard(2, 0), heard(2, 1)] == [[0.5, 0], [0, 0.5]]
    assert [heard(6, n) for n in range(6)] == [[0.5, 0], [0, 0.5], [0.354, 0.354], [0, 0], [0.354, 0], [0, 0.354]]


def test_gain_offset_length_and_fades_are_as_written(tmp_path):
    write_sound(tmp_path / "a.wav", np.concatenate([np.zeros(RATE // 2), np.full(RATE, 0.5)]), codec="pcm_f32le")
    audio = {"file": "a.wav", "kind": "effect", "start": 0.5, "offset": 0.5, "length": 0.8, "gain": -6.0, "fade_in": 0.2, "fade_out": 0.4}
    sound = mixed(*episode_with(tmp_path, [{"audio": [audio]}]))[:, 0]
    full, second = 0.5 * 10 ** (-6 / 20), RATE
    assert not sound[: second // 2].any() and not sound[round(1.3 * second) :].any()
    assert sound[round(0.8 * second)] == pytest.approx(full, abs=1e-6)
    assert sound[round(0.6 * second)] == pytest.approx(full * np.sqrt(0.5), abs=1e-4), "half of a fade has half the power"
    assert sound[round(1.1 * second)] == pytest.approx(full * np.sqrt(0.5), abs=1e-4)
    assert sound[second // 2] == 0 and abs(sound[round(1.3 * second) - 1]) < 1e-4


def test_two_fades_that_cross_keep_the_power(tmp_path):
    noise = np.random.default_rng(1).standard_normal((2, 2 * RATE)) * 0.1
    one, other = (write_sound(tmp_path / f"{n}.wav", noise[n]) for n in (0, 1))
    audio = [
        {"file": one.name, "kind": "effect", "length": 1.0, "fade_out": 0.5},
        {"file": other.name, "kind": "effect", "start": 0.5, "length": 1.0, "fade_in": 0.5},
    ]
    sound = mixed(*episode_with(tmp_path, audio=audio))
    assert level(sound, 0.65, 0.85) == pytest.approx(level(sound, 0.2, 0.4), abs=0.4)


@pytest.mark.parametrize("seconds", [0.25, 1.25])
def test_a_loop_goes_on_without_a_gap_to_the_end_of_what_it_stands_in(tmp_path, monkeypatch, seconds):
    monkeypatch.setattr(pipeline.post.mix, "HELD", RATE)  # what is longer is read again each time
    write_sound(tmp_path / "a.wav", tone(seconds, hertz=100), codec="pcm_f32le")
    frames = round(24 * (2 * seconds + 1))
    loop = {"file": "a.wav", "kind": "effect", "loop": True, "start": 0.1}
    shots = [{"frames": frames, "fit": "hold", "audio": [loop]}, {}]
    sound = mixed(*episode_with(tmp_path, shots))[:, 0]
    begin, end = RATE // 10, frames * RATE // 24
    times = np.arange(end - begin) / RATE
    assert np.abs(sound[begin:end] - 0.2 * np.sin(2 * np.pi * 100 * times)).max() < 1e-4, "each time follows the one before"
    assert not sound[:begin].any() and not sound[end:].any()


def test_what_is_longer_than_its_shot_rings_on_and_ends_with_the_episode(tmp_path):
    write_sound(tmp_path / "a.wav", tone(9))
    ring = {"file": "a.wav", "kind": "effect", "start": 1.0}
    sound = mixed(*episode_with(tmp_path, [{"audio": [ring]}, {}]))
    assert len(sound) == 4 * RATE and level(sound, 2, 4) == pytest.approx(level(sound, 1, 2), abs=0.01)
    sound = mixed(*episode_with(tmp_path, [{"audio": [ring | {"length": 1.0}]}, {}]))
    assert not sound[2 * RATE :].any(), "length says otherwise"


def test_what_starts_in_the_last_moment_is_no_trouble(tmp_path):
    write_sound(tmp_path / "a.wav", tone(1))
    last = {"file": "a.wav", "start": 2 - 1e-6}
    lines = [{"who": "mio", "text": "Hi", "start": 2 - 1e-6, "audio": "a.wav"}]
    audio = [last | {"kind": "music", "loop": True}, last | {"kind": "effect"}]
    assert len(mixed(*episode_with(tmp_path, [{"audio": audio, "dialogue": lines}]))) == 2 * RATE


def test_music_is_ducked_under_dialogue_and_nothing_else_is(tmp_path):
    write_sound(tmp_path / "music.wav", tone(20, hertz=1000))
    voice = np.concatenate([np.zeros(RATE), tone(2, level=1e-3), tone(1, level=1e-3), np.zeros(RATE)])
    write_sound(tmp_path / "voice.wav", voice)
    lines = [{"who": "mio", "text": "Hi", "start": 4.0, "audio": "voice.wav"}]
    shots = [{"frames": 480, "fit": "hold", "dialogue": lines}]

    def heard(kind: str) -> np.ndarray:
        return mixed(*episode_with(tmp_path, shots, audio=[{"file": "music.wav", "kind": kind}]))

    ducked, plain = heard("music"), heard("effect")
    before = level(plain, 1, 3)
    assert level(ducked, 1, 4.7) == pytest.approx(before, abs=0.01), "not while the voice's file is still silent"
    assert level(ducked, 5.0, 8.0) == pytest.approx(before - 12, abs=0.1), "down from the first word to the last"
    assert level(ducked, 9, 19) == pytest.approx(before, abs=0.01)
    assert level(plain, 5, 8) == pytest.approx(before, abs=0.01)
    steps = np.abs(np.diff(np.abs(ducked[::48, 0].astype(np.float64))))
    assert steps.max() < 0.01, "no step is heard"


MUSIC = {"file": "music.wav", "kind": "music", "loop": True, "fade_in": 0.5, "fade_out": 0.5}


def noisy(folder: Path, level: float) -> None:
    """Music whose level goes up and down, with drums that stand out of it."""
    times = np.arange(3 * RATE) / RATE
    chord = sum(np.sin(2 * np.pi * hertz * times) for hertz in (110, 220, 277, 330)) * (0.6 + 0.4 * np.sin(times * 3)) / 4
    drums = np.random.default_rng(1).standard_normal(len(times)) * np.exp(-(times % 0.5) * 30)
    write_sound(folder / "music.wav", level * np.stack([chord + drums, chord - drums], axis=1) / 5, codec="pcm_f32le")


@pytest.mark.parametrize(("level", "wanted"), [(0.01, -16), (0.6, -16), (1.0, -24), (0.3, -14)])
def test_the_sound_is_as_loud_as_asked_and_its_peaks_stay_low(tmp_path, level, wanted):
    noisy(tmp_path, level)
    episode, file = episode_with(tmp_path, [{"frames": 96, "fit": "hold"}], audio=[MUSIC], loudness=wanted)
    told = make_sound(episode, placed(episode, file), tmp_path / "sound.m4a")
    loudness, peak = measured([decoded(tmp_path / "sound.m4a")[: 4 * RATE]])
    assert told.reached and abs(loudness - wanted) <= 0.5 and peak <= -1
    assert (told.integrated, told.true_peak) == (loudness, peak) and f"{loudness:.1f} LUFS" in str(told)


def test_a_peak_that_only_the_decoded_file_has_is_brought_down_too(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline.post.loudness, "HEADROOM", -1.0)  # as if AAC moved peaks by more than it mostly does
    reached = []
    monkeypatch.setattr(pipeline.post.loudness, "write_aac", lambda out, blocks: reached.append(out) or write_aac(out, blocks))
    noisy(tmp_path, 1.0)
    episode, file = episode_with(tmp_path, audio=[MUSIC], loudness=-14)
    told = make_sound(episode, placed(episode, file), tmp_path / "sound.m4a")
    assert len(reached) > 1 and told.reached and told.true_peak <= -1


def test_where_peaks_forbid_the_loudness_it_is_told_what_was_reached(tmp_path):
    write_sound(tmp_path / "click.wav", click(0.5))
    audio = {"file": "click.wav", "kind": "effect", "loop": True}
    episode, file = episode_with(tmp_path, [{"frames": 96, "fit": "hold"}], audio=[audio], loudness=-8)
    told = make_sound(episode, placed(episode, file), tmp_path / "sound.m4a")
    assert not told.reached and told.true_peak <= HIGHEST and told.integrated < -20
    assert "-8 LUFS cannot be reached" in str(told)


def test_a_sound_too_short_to_be_measured_is_only_kept_below_the_peak(tmp_path):
    write_sound(tmp_path / "a.wav", tone(0.2, level=0.99))
    episode, file = episode_with(tmp_path, [{"frames": 5}], audio=[{"file": "a.wav", "kind": "effect", "gain": 6.0}])
    told = make_sound(episode, placed(episode, file), tmp_path / "sound.m4a")
    assert "too short or too quiet" in str(told) and told.true_peak <= HIGHEST


def test_the_limiter_changes_what_is_too_high_and_nothing_else(tmp_path):
    sound = (np.random.default_rng(1).standard_normal((2 * RATE + 7, 2)) * 0.05).astype(np.float32)
    sound[RATE] = 2.0
    kept = np.concatenate(list(limited(iter([sound[:RATE], sound[RATE:]]), 0.0, -3.0)))
    assert kept.shape == sound.shape and np.abs(kept).max() <= 10 ** (-3 / 20) + 1e-4 and peak_at(kept, RATE) == RATE
    assert (kept[: RATE - 2400] == sound[: RATE - 2400]).all() and (kept[RATE + 24_000 :] == sound[RATE + 24_000 :]).all()


def test_equal_sounds_give_equal_bytes(tmp_path):
    noisy(tmp_path, 0.5)
    episode, file = episode_with(tmp_path, audio=[MUSIC])
    for name in ("one.m4a", "other.m4a"):
        make_sound(episode, placed(episode, file), tmp_path / name)
    assert (tmp_path / "one.m4a").read_bytes() == (tmp_path / "other.m4a").read_bytes()
    assert sorted(path.name for path in tmp_path.glob("*.m4a")) == ["one.m4a", "other.m4a"] and not [*tmp_path.glob(".part-*")]


def test_the_key_is_of_what_is_heard(tmp_path):
    write_sound(tmp_path / "a.wav", tone(2))
    write_sound(tmp_path / "b.wav", tone(2, hertz=300))
    (tmp_path / "c.wav").write_bytes((tmp_path / "a.wav").read_bytes())
    shots = [{"frames": 48}, {"frames": 48}]

    def key(fps: float = 24, loudness: float = -16, **changed: object) -> str | None:
        episode, file = episode_with(tmp_path, shots, fps, loudness=loudness, audio=[{"file": "a.wav", "kind": "effect"} | changed])
        return sound_key(episode, placed(episode, file))

    other = [key(file="b.wav"), key(kind="music"), key(gain=-1.0), key(start=0.5), key(offset=0.5), key(length=1.0), key(loop=True)]
    other += [key(fade_in=0.1), key(fade_out=0.1), key(25), key(loudness=-20)]
    assert len({key(), *other}) == len(other) + 1, "each of these is heard"
    assert key(file="c.wav") == key() == key(file="./a.wav"), "a file's name is not"
    assert sound_key(*(lambda found: (found[0], placed(*found)))(episode_with(tmp_path, shots))) is None


def test_the_sound_joins_a_movie_without_being_encoded_again(tmp_path):
    write_sound(tmp_path / "click.wav", click(at=0.05))
    audio = [{"file": "click.wav", "kind": "effect", "start": 1.0}]
    episode, file = episode_with(tmp_path, [{"frames": 60}], 23.976, audio=audio)
    make_sound(episode, placed(episode, file), tmp_path / "sound.m4a")
    with VideoFile(tmp_path / "picture.mp4", 64, 64, episode.fps, 20) as picture:
        for n in range(60):
            picture.write(np.full((64, 64, 3), n, np.uint8))
    inputs = [av.open(str(tmp_path / name)) for name in ("picture.mp4", "sound.m4a")]
    with av.open(str(tmp_path / "movie.mp4"), "w", options={"movie_timescale": "48000"}) as movie:
        packets = []
        for source in inputs:
            stream = movie.add_stream_from_template(source.streams[0])
            for packet in source.demux(source.streams[0]):
                if packet.size:
                    packet.stream = stream
                    packets.append((packet.dts * packet.time_base, packet))
        for _, packet in sorted(packets, key=lambda found: found[0]):
            movie.mux(packet)
    with av.open(str(tmp_path / "movie.mp4")) as movie:
        sound, video = movie.streams.audio[0], movie.streams.video[0]
        assert (sound.start_time, video.start_time) == (0, 0)
        assert sound.duration * sound.time_base == video.duration * video.time_base == Fraction(60) / episode.fps
    assert abs(peak_at(decoded(tmp_path / "movie.mp4"), round(1.05 * RATE)) - 1.05 * RATE) <= 2


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\na.wav\n#EXT-X-ENDLIST\n"


def test_what_cannot_sound_is_one_sentence_with_its_place(tmp_path):
    write_sound(tmp_path / "a.wav", tone(1.0))
    write_sound(tmp_path / "quiet.wav", tone(3, level=1e-4), codec="pcm_f32le")
    write_sound(tmp_path / "late.wav", np.concatenate([np.zeros(2 * RATE), tone(1)]))
    write_sound(tmp_path / "nan.wav", np.full(RATE, np.nan), codec="pcm_f32le")
    write_sound(tmp_path / "b.flac", tone(5))
    for name, whole in (("cut.wav", "a.wav"), ("cut.flac", "b.flac")):
        (tmp_path / name).write_bytes((tmp_path / whole).read_bytes()[:40_000])
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "head.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:44])
    (tmp_path / "noise.mp3").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "list.wav").write_bytes(PLAYLIST)
    (tmp_path / "a.flac").write_bytes((tmp_path / "a.wav").read_bytes())
    with VideoFile(tmp_path / "mute.m4a", 64, 64, Fraction(24), 20) as mute:
        mute.write(np.zeros((64, 64, 3), np.uint8))

    def told(where: str = "shot SH0020: audio 1", **audio: object) -> str:
        episode, file = episode_with(tmp_path, [{}, {"audio": [{"kind": "effect"} | audio]}])
        with pytest.raises(InputError) as error:
            placed(episode, file)
        said = str(error.value)
        assert said.startswith(f"{file}: {where}") and "\n" not in said and len(said) < 400, said
        return said.removeprefix(str(file))

    assert "does not exist" in told(file="none.wav")
    assert "leads outside" in told(file="../a.wav")
    assert "the file is empty" in told(file="empty.wav")
    assert "no .wav file that can be read" in told(file="head.wav") and "no sound in it" in told(file="mute.m4a")
    assert "the file ends after 40000 of 96" in told(file="cut.wav") and "no .flac file that can be read" in told(file="cut.flac")
    assert "no .mp3 file that can be read" in told(file="noise.mp3") and "no .flac file that can be read" in told(file="a.flac")
    assert "no .wav file that can be read" in told(file="list.wav"), "a playlist is not followed"
    assert "no numbers" in told(file="nan.wav")
    assert "offset 1 s" in told(file="a.wav", offset=1.0) and "1.000 s" in told(file="a.wav", offset=1.0)
    assert "shorten length 1.5, or loop it" in told(file="a.wav", length=1.5)
    assert "silent from 0 to 2 s: it peaks at -80 dBFS" in told(file="quiet.wav")
    assert "silent from 0.5 to 1.5 s" in told(file="late.wav", offset=0.5, length=1.0)
    assert "fades of 0.6 and 0.6 s are longer than the 1.000 s" in told(file="a.wav", fade_in=0.6, fade_out=0.6)
    line = {"who": "mio", "text": "Hi", "start": 0.0, "audio": "none.wav"}
    episode, file = episode_with(tmp_path, [{"dialogue": [{"who": "mio", "text": "Hi", "start": 0.0, "end": 1.0}, line]}])
    with pytest.raises(InputError, match=r"shot SH0010: dialogue 2: file .*none\.wav does not exist"):
        placed(episode, file)
    episode, file = episode_with(tmp_path, sequence={"audio": [{"file": "none.wav", "kind": "music"}]})
    with pytest.raises(InputError, match=r"sequence S010: audio 1: file .*none\.wav does not exist"):
        placed(episode, file)


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ("audio", {"file": "a.mid", "kind": "music"}, "'a.mid' is no sound file that is read; its name must end in .wav, .flac"),
        ("audio", {"file": "a.wav", "kind": "song"}, "'kind' is 'song'"),
        ("audio", {"file": "a.wav", "kind": "music", "length": 1.0, "fade_in": 0.6, "fade_out": 0.6}, "longer than its length of 1 s"),
        ("audio", {"file": "a.wav", "kind": "music", "start": 2.0}, "audio: number 1 starts at 2 s, and all that it stands in lasts 2 s"),
        ("audio", {"file": "a.wav", "kind": "music", "gain": 40.0}, "'gain' is 40.0"),
        ("dialogue", {"who": "mio", "text": "Hi", "start": 1.0}, "neither an end nor audio"),
        ("dialogue", {"who": "mio", "text": "Hi", "start": 1.0, "end": 1.0}, "ends at 1 s, which is not after its start at 1 s"),
        ("dialogue", {"who": "mio", "text": "Hi", "start": 3.0, "end": 4.0}, "dialogue: number 1 starts at 3 s"),
        ("dialogue", {"who": "mio", "text": "", "start": 1.0, "end": 2.0}, "'text' is"),
        ("dialogue", {"who": "mio", "text": "Hi", "start": 1.0, "audio": "a.txt"}, "no sound file that is read"),
    ],
)
def test_a_faulty_entry_is_told_with_its_line(tmp_path, where, value, words):
    with pytest.raises(InputError) as error:
        episode_with(tmp_path, [{where: [value]}])
    said, file = str(error.value), tmp_path / "episode.yaml"
    number = int(said.removeprefix(f"{file}:").partition(":")[0])
    first = next(n for n, line in enumerate(file.read_text().splitlines(), 1) if line.strip().startswith(f"{where}:"))
    assert words in said and "shot SH0010" in said and first < number <= first + len(value), said


def test_a_plan_refuses_what_cannot_sound_and_a_job_takes_the_files_along(tmp_path, here):
    _, file = episode_with(tmp_path, [{"audio": [{"file": "fx/a.wav", "kind": "effect"}]}])
    refused(here("plan", file), "shot SH0010: audio 1", "fx/a.wav does not exist")
    write_sound(tmp_path / "fx" / "a.wav", tone(1))
    assert here("plan", file).code == 0
    assert named_files(load_episode(file), file) == {"fx/a.wav": tmp_path / "fx" / "a.wav"}


def test_a_file_is_read_once_for_its_bytes(tmp_path, monkeypatch):
    write_sound(tmp_path / "a.wav", tone(1.5))
    audio = [{"file": "a.wav", "kind": "effect"}, {"file": "a.wav", "kind": "effect", "start": 1.0}]
    episode, file = episode_with(tmp_path, audio=audio)
    read = []
    whole = pipeline.plan.sound_file.sound_blocks
    monkeypatch.setattr(pipeline.plan.sound_file, "sound_blocks", lambda path: read.append(path) or whole(path))
    for _ in range(2):  # as two runs do
        digests = FileDigests(tmp_path / "model-digests.json")
        assert len(placed_sounds(episode, file, SoundFacts(digests))) == 2
        assert seconds_of(file, "a.wav", "a test", SoundFacts(digests)) == 1.5
        digests.save()
    assert read == [tmp_path / "a.wav"]
    write_sound(tmp_path / "a.wav", tone(2.5))
    assert seconds_of(file, "a.wav", "a test", SoundFacts(FileDigests(tmp_path / "model-digests.json"))) == 2.5 and len(read) == 2


def test_a_file_that_changed_since_the_plan_is_not_mixed(tmp_path):
    write_sound(tmp_path / "a.wav", tone(1))
    episode, file = episode_with(tmp_path, audio=[{"file": "a.wav", "kind": "effect"}])
    planned = placed(episode, file)
    write_sound(tmp_path / "a.wav", tone(1, hertz=300))
    with pytest.raises(InputError, match="changed while the episode was rendered"):
        make_sound(episode, planned, tmp_path / "sound.m4a")
    assert not [*tmp_path.glob("*.m4a"), *tmp_path.glob(".part-*")]


def test_sound_makes_no_keyframe_and_no_clip_stale(tmp_path, seeded):
    write_sound(tmp_path / "a.wav", tone(1))
    settings = load_settings().model_copy(update={"catalog_uri": str(seeded), "models_dir": tmp_path / "models"})

    def inputs(**more: object) -> list[tuple[str, str]]:
        shot = {name: more.pop(name) for name in ("audio", "dialogue") if name in more}
        episode, file = episode_with(tmp_path, [shot], **more)
        plan = make_plan(episode, file, settings, Catalog.open(seeded))
        assert len(plan.sounds) == sum(map(len, shot.values()))
        return [(stage.stage, stage.inputs) for stage in plan.shots[0].stages]

    line = {"who": "mio", "text": "Hi", "start": 0.5, "audio": "a.wav"}
    assert inputs() == inputs(loudness=-20, audio=[{"file": "a.wav", "kind": "effect"}], dialogue=[line]), "no take is made from sound"


def test_a_story_keeps_its_sounds(tmp_path):
    write_sound(tmp_path / "fx" / "a.wav", tone(1))
    line = {"who": "mio", "text": "Hi", "start": 0.5, "audio": "fx/b.flac"}
    write_sound(tmp_path / "fx" / "b.flac", tone(1))
    episode, file = episode_with(tmp_path, [{"dialogue": [line]}], audio=[{"file": "fx/a.wav", "kind": "music"}])
    catalog = Catalog.open(tmp_path / "catalog-data")
    story = record_story(catalog, episode, file)
    assert sorted(story.files) == ["episode.yaml", "fx/a.wav", "fx/b.flac"]
    again = check_out(catalog, story, tmp_path / "again")
    same = [replace(sound, path=Path()) for sound in placed(episode, file)]
    assert [replace(sound, path=Path()) for sound in placed(load_episode(again), again)] == same


def test_the_desk_takes_sound_files_and_refuses_what_is_none(tmp_path, seeded):
    sound = write_sound(tmp_path / "voice" / "one.wav", tone(1)).read_bytes()
    line = {"who": "mio", "text": "Hi", "start": 0.5, "audio": "voice/one.wav"}
    _, file = episode_with(tmp_path, [{"dialogue": [line]}])
    with asking(desk_app(seeded)) as client:

        def answer(story: str, name: str, data: bytes) -> tuple[int, str]:
            parts = [("story", ("episode.yaml", story.encode())), ("files", (name, data))]
            found = client.post("/episodes/validate", files=parts)
            return found.status_code, found.json().get("detail", "")

        assert answer(file.read_text(), "voice/one.wav", sound) == (200, "")
        assert answer(file.read_text(), "one.wav", b"RIFF")[0] == 422
        status, told = answer(file.read_text().replace("one.wav", "one.aiff"), "one.aiff", sound)
        assert status == 422 and "'voice/one.aiff' is no sound file that is read" in told
        written = yaml.safe_load(file.read_text())
        del written["sequences"][0]["shots"][0]["dialogue"]
        assert "the episode names no such file" in answer(yaml.safe_dump(written), "one.wav", sound)[1]


def test_the_demos_sounds_are_small_and_fit_its_shots(tmp_path):
    file = PROJECT / "configs" / "episodes" / "demo.yaml"
    episode = load_episode(file)
    sounds = placed_sounds(episode, file, SoundFacts(FileDigests(tmp_path / "model-digests.json")))
    assert {sound.kind for sound in sounds} == {"music", "effect", "dialogue"}
    assert sum(path.stat().st_size for path in file.parent.glob("*.ogg")) < 400_000
