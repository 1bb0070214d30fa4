"""What a clip passes through beside its keyframe: a person's pictures and clips, each at a frame of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from actors.families import FAMILIES
from actors.values import ModelError, ModelFiles
from pipeline.registry.files import inside
from pipeline.story.episode import Keyframe, Shot
from pipeline.story.errors import InputError
from pipeline.story.fingerprint import file_digest
from pipeline.story.workflow import Workflow


@dataclass(frozen=True, slots=True)
class Guide:
    """A picture or a part of a clip, and where it stands in the clip that is made.

    frame: of the clip that is made, at which it begins. start: number of its first frame that is used; None for a picture.
    frames: how many are used, from there. digest: SHA-256 of the file.
    """

    path: Path
    digest: str
    frame: int
    frames: int
    start: int | None
    strength: float

    @property
    def end(self) -> int:
        return self.frame + self.frames

    @property
    def inputs(self) -> list[object]:
        """What of it decides pixels."""
        return [self.digest, self.frame, self.frames, self.start, self.strength]


def guides_of(file: Path, shot: Shot, where: str, flow: Workflow, files: ModelFiles) -> tuple[Guide, ...]:
    """The shot's further keyframes, in the order of their frames.

    Args:
        file: of the episode, from whose folder their paths start. where: file and shot, for error messages.

    Raises:
        InputError: one is missing, cannot be read or does not fit the clip; or the workflow's family takes none.
    """
    if not shot.keyframes:
        return ()
    if flow.kind.guided is None:
        having = " and ".join(family.name for family in FAMILIES.values() if family.guided)
        raise InputError(f"{where}: keyframes: family {flow.family} of workflow {flow.name} takes none; {having} does")
    try:
        ratio = flow.kind.guided(files.folder)
    except ModelError as error:
        raise InputError(f"workflow {flow.name}: checkpoint: {error}") from error
    found = sorted((_guide(file, written, f"{where}: keyframes", flow, ratio) for written in shot.keyframes), key=lambda g: g.frame)
    for one, other in pairwise(found):
        if other.frame < one.end:
            raise InputError(f"{where}: keyframes: {one.path.name} and {other.path.name} both stand at frame {other.frame}")
    if found[0].frame == 0 and found[0].start is None:
        raise InputError(f"{where}: keyframes: {found[0].path.name} stands at frame 0, which the keyframe is; name it as keyframe")
    if found[0].frame == 0 and shot.keyframe:
        raise InputError(f"{where}: keyframe {shot.keyframe} and the clip {found[0].path.name} both stand at frame 0; leave out one")
    return tuple(found)


def first_of(guides: tuple[Guide, ...]) -> Guide | None:
    """The clip that the shot begins with; its first picture is the keyframe."""
    return guides[0] if guides and guides[0].frame == 0 else None


def guide_file(file: Path, written: Keyframe, where: str) -> Path:
    """Path of the picture or clip that is written.

    Raises:
        InputError: it is missing, or lies outside the episode's folder.
    """
    path = inside(file.absolute().parent, written.file, where)
    if not path.is_file():
        raise InputError(f"{where}: file {path} does not exist")
    return path


def _guide(file: Path, written: Keyframe, where: str, flow: Workflow, ratio: int) -> Guide:
    path = guide_file(file, written, where)
    assert flow.num_frames
    whole, where = _frames(path, path.stat().st_mtime_ns, where), f"{where}: {written.file}"
    if whole is None and (written.start or written.frames):
        raise InputError(f"{where}: start and frames belong to clips, and this is a picture")
    start = 0 if whole is None else written.start if written.start >= 0 else whole + written.start
    if whole is not None and not 0 <= start < whole:
        raise InputError(f"{where}: start {written.start} lies outside its {whole} frames")
    count = 1 if whole is None else _count(written, whole - start, flow.num_frames - max(0, written.frame), ratio, where)
    frame = flow.num_frames - count if written.frame == -1 else written.frame
    if frame < 0 or frame + count > flow.num_frames:
        length = f"{count} frames from frame {frame}" if count > 1 else f"frame {frame}"
        raise InputError(f"{where}: {length} lie outside the {flow.num_frames} frames, 0 to {flow.num_frames - 1}, that {flow.name} makes")
    if frame % ratio:
        near = round(frame / ratio) * ratio
        raise InputError(f"{where}: frame {frame} is no multiple of {ratio}, which this model's keyframes stand at, such as {near}")
    return Guide(path, file_digest(path), frame, count, None if whole is None else start, written.strength)


def _count(written: Keyframe, there: int, room: int, ratio: int, where: str) -> int:
    """How many frames of a clip are used: what is asked for, or the most that are there and have room; always a multiple and 1 more."""
    count = written.frames or (min(there, room) - 1) // ratio * ratio + 1
    if count > there:
        raise InputError(f"{where}: {count} frames are asked for, and {there} are there")
    if count % ratio != 1 or count <= ratio:
        raise InputError(f"{where}: {count} frames do not fit this model: it reads {ratio}k+1 frames of a clip, from {ratio + 1} on")
    return count


@lru_cache(maxsize=64)
def _frames(path: Path, _changed: int, where: str) -> int | None:
    """Number of frames of a clip; None for a picture.

    Raises:
        InputError: the file is neither, or cannot be read from its first frame to its last.
    """
    from gates.decode import MAX_FRAMES, VideoReader
    from gates.still import Undecodable, read_still

    try:
        if read_still(path).frames == 1:
            return None
    except Undecodable:
        pass
    try:
        with VideoReader(path) as reader:
            count = sum(1 for _ in reader)
    except Undecodable as error:
        raise InputError(f"{where}: file {path} is neither a picture nor a clip that can be read: {error}") from error
    if count > MAX_FRAMES:
        raise InputError(f"{where}: file {path} has more than {MAX_FRAMES} frames")
    return count
