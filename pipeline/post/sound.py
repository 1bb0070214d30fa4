"""The episode's sound: a file of its own, exactly as long as the picture, which joins the movie without being encoded again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import av

from gates.decode import ffmpeg_path
from gates.still import Undecodable
from pipeline.plan.sound_file import RATE
from pipeline.plan.sounds import Placed, samples_of
from pipeline.story.episode import Episode
from pipeline.story.errors import InputError, StorageError
from pipeline.story.fingerprint import digest, file_digest

from .loudness import Loudness, write_at_loudness
from .mix import Mix

MIXER = 1  # counts up where equal sounds are mixed otherwise
NOT_HEARD = ("where", "name", "path")  # of a placed sound


def sound_key(episode: Episode, sounds: Sequence[Placed]) -> str | None:
    """Digest of all that decides the bytes of an episode's sound; None where it has none.

    Args:
        sounds: of the episode's plan.
    """
    if not sounds:
        return None
    heard = [{name: value for name, value in asdict(sound).items() if name not in NOT_HEARD} for sound in sounds]
    return digest([MIXER, av.__version__, samples_of(episode), episode.loudness, heard])


def make_sound(episode: Episode, sounds: Sequence[Placed], out: Path) -> Loudness:
    """Write an episode's sound as an MP4 with one stream of AAC, 48 kHz, stereo. Equal sounds give equal bytes.

    It is as long as the picture, to the sample. It is brought to the episode's loudness where peaks allow that; see `Loudness`.

    Args:
        sounds: of the episode's plan; at least one. out: path of the file, whose name ends in .m4a. An error leaves no partial file.

    Raises:
        InputError: a sound file changed since it was planned.
        StorageError: the file cannot be written.
    """
    for path, planned in {sound.path: sound.digest for sound in sounds}.items():
        if not path.is_file() or file_digest(path) != planned:
            raise InputError(f"{path} changed while the episode was rendered; render it again")
    samples = samples_of(episode)
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".part-") as folder:
            part = Path(folder) / out.name
            loudness = write_at_loudness(Mix(sounds, samples).blocks, episode.loudness, part)
            _prove(part, samples)
            os.replace(part, out)
    except (OSError, av.FFmpegError, Undecodable) as error:
        raise StorageError(f"{out} cannot be written: {getattr(error, 'strerror', None) or error}") from error
    return loudness


def _prove(path: Path, samples: int) -> None:
    """Raises StorageError where a file's sound does not begin at 0, or is not as long as the picture."""
    with av.open(ffmpeg_path(path)) as file:
        stream = file.streams.audio[0]
        start, length, unit = stream.start_time, stream.duration, stream.time_base
    if start != 0 or not length or not unit or length * unit * RATE != samples:
        raise StorageError(f"{path.name}: the sound was written from {start} on with a length of {length}; wanted were {samples} samples")
