"""Judge any file, outside of a render. Each file is judged in its own process, so that a crash of the decoder ends only that process."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from actors.values import ModelError
from gates.decode import VideoReader
from gates.frames import frames_at
from gates.image import judge_image, keyframe_hash, nearest
from gates.rules import Declaration, Profile, judge
from gates.still import Undecodable, read_still
from gates.verdict import Verdict
from gates.video import Expectation, measure_video
from pipeline.render.picture import fill
from pipeline.story.errors import InputError
from pipeline.story.rate import WORDS, parse_rate
from pipeline.story.yaml_values import shortened

if TYPE_CHECKING:
    from actors.judges import Judge, Opinion

FILE_SECONDS = 600.0  # time limit for one file; 4,096 frames of 8K take less


@dataclass(frozen=True)
class Question:
    """What every file is judged by.

    frames, fps, size (width, height): what the file must have; None is not checked.
    keyframe, last: pictures that clips must start from and end in. source: clip that they must be, only larger.
    explain: PNG file for the plot of curves and offending frames; None for no plot.
    judges: names of learned judges. They only add measures; the verdict does not depend on them.
    prompt: what the pictures should show, for the judge `clip`.
    """

    gate: Literal["image", "video"]
    profile: Profile
    declared: tuple[str, ...] = ()
    frames: int | None = None
    fps: Fraction | None = None
    size: tuple[int, int] | None = None
    keyframe: Path | None = None
    last: Path | None = None
    source: Path | None = None
    explain: Path | None = None
    judges: tuple[str, ...] = ()
    prompt: str = ""


@dataclass(frozen=True)
class FileVerdict:
    """The verdict on one file.

    pictures: frames for the learned judges, uint8 RGB (height, width, 3); empty without judges. opinions: the judges' measures.
    """

    verdict: Verdict
    pictures: tuple[np.ndarray, ...] = ()
    opinions: tuple[Opinion, ...] = ()


def gate_files(files: Iterable[Path], question: Question, models_dir: Path = Path("models")) -> list[FileVerdict]:
    """Judge files. Gives one answer for each file, in the same order. Stills are also compared with each other.

    Args:
        models_dir: the folder with the files of learned judges.

    Raises:
        InputError: a file, a given picture or a learned judge is missing or cannot be read. Nothing is judged then.
    """
    files = list(files)
    for file in (*files, question.keyframe, question.last, question.source):
        if file is not None and not file.is_file():
            raise InputError(f"{file} " + ("is a folder; a file is wanted" if file.is_dir() else "does not exist"))
    for file in (question.keyframe, question.last):
        if file is not None:
            _still(file)
    judges = _judges(question, models_dir)
    answers = [_apart(file, question) for file in files]
    if question.gate == "image":
        compared = _compared([a.verdict for a in answers], question)
        answers = [replace(a, verdict=v) for a, v in zip(answers, compared, strict=True)]
    return [replace(a, opinions=tuple(j.opinion(a.pictures, question.prompt) for j in judges)) for a in answers]


def _judges(question: Question, models_dir: Path) -> list[Judge]:
    if not question.judges:
        return []
    from actors.judges import load_judges  # imports torch, which nothing else here needs

    try:
        return load_judges(question.judges, models_dir)
    except ModelError as error:
        raise InputError(f"--judge: {error}") from error


def _apart(file: Path, question: Question) -> FileVerdict:
    """Judge one file in a child process. If the child crashes or takes too long, the verdict is `undecodable`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__])
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(sender, file, question), daemon=True)
    child.start()
    sender.close()
    try:
        if not receiver.poll(FILE_SECONDS):
            return _undecodable(question, f"no verdict within {FILE_SECONDS:.0f} s")
        answer = receiver.recv()
    except EOFError:
        child.join()
        return _undecodable(question, f"the decoder crashed (exit code {child.exitcode})")
    finally:
        child.kill()
        child.join()
    if isinstance(answer, InputError):
        raise answer
    return answer


def _child(sender: Connection, file: Path, question: Question) -> None:
    try:
        sender.send(judge_file(file, question))
    except InputError as error:
        sender.send(error)
    except MemoryError:
        sender.send(_undecodable(question, "there is not enough memory to decode it"))


def judge_file(file: Path, question: Question) -> FileVerdict:
    """Judge one file in this process.

    Raises:
        InputError: the plot cannot be written, or a given picture cannot be read.
    """
    if question.gate == "image":
        verdict, curves = judge_image(file, question.profile, question.size, question.declared), {}
    else:
        measured = measure_video(file, _expectation(file, question))
        verdict = judge("video", measured.values, question.profile, question.declared, measured.texts)
        curves = measured.curves
    if question.explain:
        from .plot import explain  # imported only when needed: matplotlib takes a second

        explain(file, verdict, curves, question.explain)
    return FileVerdict(verdict, _pictures(file, verdict) if question.judges else ())


def _pictures(file: Path, verdict: Verdict) -> tuple[np.ndarray, ...]:
    """The pictures for learned judges: the still, or the clip's first, middle and last frame."""
    if "undecodable" in verdict.failures:
        return ()
    if verdict.gate == "image":
        return (read_still(file).image,)
    count = int(verdict.measures["frames"])
    return tuple(frames_at(file, sorted({0, count // 2, count - 1})))


def _expectation(file: Path, question: Question) -> Expectation:
    width, height = question.size or (None, None)
    expect = Expectation(question.frames, question.fps, width, height, source=question.source)
    if question.keyframe is None and question.last is None:
        return expect
    try:
        with VideoReader(file) as reader:
            shape = next(iter(reader)).picture
            size = (shape.width, shape.height)
    except Undecodable:
        return expect  # the verdict will report that the file cannot be decoded
    still, last = (fill(_still(p), *size) if p else None for p in (question.keyframe, question.last))
    return replace(expect, keyframe=still, last=last)


def _still(file: Path) -> np.ndarray:
    try:
        return read_still(file).image
    except Undecodable as error:
        raise InputError(f"{file} is not a picture that can be read: {error}") from error


def _compared(verdicts: list[Verdict], question: Question) -> Iterator[Verdict]:
    """The verdicts on stills, judged again with a measure of how similar each still is to the others."""
    hashes = {i: keyframe_hash(v.measures) for i, v in enumerate(verdicts) if "hash_high" in v.measures}
    for i, verdict in enumerate(verdicts):
        others = np.array([bits for k, bits in hashes.items() if k != i], np.uint64)
        if i not in hashes or not len(others):
            yield verdict
        else:
            yield judge("image", verdict.measures | nearest(verdict.measures, others), question.profile, question.declared)


def _undecodable(question: Question, why: str) -> FileVerdict:
    return FileVerdict(judge(question.gate, {"undecodable": 1.0}, question.profile, question.declared, {"undecodable": why}))


def parse_size(text: str) -> tuple[int, int]:
    """`768x512` as (768, 512).

    Raises:
        InputError: the text is not a size.
    """
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isascii() and p.isdigit() and int(p) > 0 for p in parts):
        raise InputError(f"--size {text!r} is not a size; WIDTHxHEIGHT, such as 768x512, is wanted")
    return int(parts[0]), int(parts[1])


def parse_fps(text: str) -> Fraction:
    """Frames a second, over 0 and up to 1000, from `24`, `24000/1001` or `23.976`.

    Raises:
        InputError: the text is not a rate.
    """
    rate = parse_rate(text)
    if rate is None or not 0 < rate <= 1000:
        raise InputError(f"--fps {shortened(text)!r} is not a rate; {WORDS} is wanted")
    return rate


def parse_declared(text: str) -> tuple[str, ...]:
    """`hold,fade` as ("hold", "fade").

    Raises:
        InputError: a name is not a declaration.
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in get_args(Declaration):
            raise InputError(f"--declare {name!r} is unknown; known are {', '.join(get_args(Declaration))}")
    return names


def as_json_line(file: Path, answer: FileVerdict, profile: Profile) -> dict[str, Any]:
    """One line of `--json`. It lists the learned judges' measures among the gate's."""
    line = {"file": str(file), "profile": profile.name} | answer.verdict.to_dict()
    line["measures"] = line["measures"] | {k: v for o in answer.opinions for k, v in o.measures.items()}
    return line | {"judges": [{"judge": o.judge, "looked": o.looked, "why": o.why} for o in answer.opinions]}
