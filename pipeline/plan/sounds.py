"""The episode's sound files, each with its place in the episode to the sample. What cannot sound as it is written is an error here."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from gates.still import Undecodable
from pipeline.registry.files import inside
from pipeline.story.audio import Audio, Kind
from pipeline.story.episode import Episode, Sound
from pipeline.story.errors import InputError

from .sound_file import RATE, Facts, SoundFacts

SILENT = -60  # dBFS; what peaks below it is a track that was never recorded, or a wrong offset


@dataclass(frozen=True, slots=True)
class Placed:
    """A sound file's part that sounds, and where. Lengths and places are in samples at RATE.

    where: who names it. name: the path in the episode's file. digest: SHA-256 of the file. start: in the episode. offset: in the file.
    part: how much the file has from there; looped, it sounds again and again. length: how long it sounds, at most to the episode's end.
    gain: dB.
    """

    where: str
    name: str
    path: Path
    digest: str
    kind: Kind
    start: int
    offset: int
    part: int
    length: int
    gain: float
    fade_in: int
    fade_out: int
    loop: bool


def samples_of(episode: Episode) -> int:
    """Length of the episode's sound in samples at RATE: exactly that of the picture, rounded once."""
    return round(Fraction(episode.total_frames) / episode.fps * RATE)


def placed_sounds(episode: Episode, file: Path, facts: SoundFacts) -> tuple[Placed, ...]:
    """All sounds of an episode, in the order of the file.

    Args:
        file: the episode's file, from whose folder paths start.

    Raises:
        InputError: a file is missing, outside the episode's folder, unreadable, too short or silent, or its fades do not fit.
    """
    found = tuple(_placed(episode, sound, file, facts) for sound in episode.sounds)
    facts.save()
    return found


def seconds_of(file: Path, name: str, where: str, facts: SoundFacts) -> float:
    """Length of a sound file that an episode's file names, in seconds. Raises InputError as `placed_sounds`."""
    return _read(_path(file, name, where), where, facts)[1].samples / RATE


def _placed(episode: Episode, sound: Sound, file: Path, facts: SoundFacts) -> Placed:
    audio, where = sound.audio, f"{file}: {sound.where}"
    path = _path(file, audio.file, where)
    digest, known = _read(path, where, facts)
    first = Fraction(sound.first) / episode.fps
    start = round((first + Fraction(audio.start)) * RATE)
    until = round((first + sound.frames / episode.fps) * RATE)  # the end of what it stands in
    offset = round(audio.offset * RATE)
    part = known.samples - offset
    if part <= 0:
        raise InputError(f"{where}: offset {audio.offset:g} s of {path} lies beyond its end at {known.samples / RATE:.3f} s; lessen it")
    length = _length(audio, part, until - start, f"{where}: {path}")
    length = max(1, min(length, samples_of(episode) - start))  # one that starts in the last sample sounds for that
    _check_peak(known, offset, part if audio.loop else min(part, length), f"{where}: {path}")
    fades = round(audio.fade_in * RATE), round(audio.fade_out * RATE)
    if sum(fades) > length:
        told = f"fades of {audio.fade_in:g} and {audio.fade_out:g} s are longer than the {length / RATE:.3f} s that {path} sounds"
        raise InputError(f"{where}: {told}; shorten them")
    return Placed(sound.where, audio.file, path, digest, audio.kind, start, offset, part, length, audio.gain, *fades, audio.loop)


def _path(file: Path, name: str, where: str) -> Path:
    path = inside(file.absolute().parent, name, where)
    if not path.is_file():
        raise InputError(f"{where}: file {path} does not exist")
    return path


def _read(path: Path, where: str, facts: SoundFacts) -> tuple[str, Facts]:
    try:
        return facts.of(path)
    except OSError as error:
        raise InputError(f"{where}: file {path} cannot be read: {error.strerror or error}") from error
    except Undecodable as error:
        raise InputError(f"{where}: file {path} is no {path.suffix.lower()} file that can be read: {error}") from error


def _length(audio: Audio, part: int, rest: int, where: str) -> int:
    """How long the file sounds. part: what it has. rest: what is left of what it stands in."""
    if audio.length is None:
        return rest if audio.loop else part
    wanted = round(audio.length * RATE)
    if wanted > part + 1 and not audio.loop:  # one sample, for lengths that were rounded
        raise InputError(f"{where} has {part / RATE:.3f} s from offset {audio.offset:g} s on; shorten length {audio.length:g}, or loop it")
    return wanted if audio.loop else min(wanted, part)


def _check_peak(known: Facts, offset: int, length: int, where: str) -> None:
    if (peak := known.peak(offset, length)) < SILENT:
        span = f"from {offset / RATE:g} to {(offset + length) / RATE:g} s"
        raise InputError(f"{where} is silent {span}: it peaks at {peak} dBFS, below {SILENT}; give another file or offset")
