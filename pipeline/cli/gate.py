"""`tower gate image|video`: judge any file, outside of a render."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipeline.story.errors import InputError
from pipeline.story.yaml_values import shortened

from .common import in_ascii, nameable
from .table import out, show

if TYPE_CHECKING:
    from gates.verdict import Verdict
    from pipeline.evidence.gate_file import Question

gate_app = typer.Typer(help="Judge any file: exit code 0 if all pass or warn, 1 if one fails, 2 for bad usage.", no_args_is_help=True)
GateFiles = Annotated[list[Path], typer.Argument(metavar="FILE…", help="files to judge")]
SizeOption = Annotated[str | None, typer.Option(metavar="WxH", help="size that they must have, such as 768x512")]
ProfileOption = Annotated[str, typer.Option(metavar="PROFILE", help="thresholds: a name in configs/gates, or a file")]
DeclareOption = Annotated[str, typer.Option(metavar="WHAT", help="what is meant and no fault: hold,camera_only,fade,effects,night")]
JudgeOption = Annotated[str, typer.Option(metavar="NAMES", help="learned judges to ask too: clip,aesthetic,text; they decide nothing")]
PromptOption = Annotated[str, typer.Option(metavar="TEXT", help="what the pictures should show, for --judge clip")]
AsJsonLines = Annotated[bool, typer.Option("--json", help="print one JSON object a line, one line a file")]
ExplainOption = Annotated[Path | None, typer.Option(metavar="OUT.png", help="draw the measures' curves and the offending frames")]


def _count(text: str | int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", str(text)) or int(text) < 1:
        raise typer.BadParameter(f"{shortened(str(text))!r} is not a number of frames, such as 121")
    return int(text)


@gate_app.command("image")
def gate_image(
    files: GateFiles,
    size: SizeOption = None,
    profile: ProfileOption = "anime",
    declare: DeclareOption = "",
    judge: JudgeOption = "",
    prompt: PromptOption = "",
    as_json: AsJsonLines = False,
    explain: ExplainOption = None,
) -> None:
    """Judge stills, as Gate 1 judges keyframes. Several files are compared with each other too."""
    question = _question(gate="image", size=size, profile=profile, declare=declare, judge=judge, prompt=prompt, explain=explain)
    _gate(files, question, as_json)


@gate_app.command("video")
def gate_video(
    files: GateFiles,
    keyframe: Annotated[Path | None, typer.Option(metavar="PICTURE", help="still that the clips must start from")] = None,
    last_frame: Annotated[Path | None, typer.Option(metavar="PICTURE", help="still that the clips must end in")] = None,
    source: Annotated[Path | None, typer.Option(metavar="CLIP", help="clip that they were made larger from; with --profile finish")] = None,
    frames: Annotated[int | None, typer.Option(metavar="N", parser=_count, help="frames that they must have")] = None,
    fps: Annotated[str | None, typer.Option(metavar="F", help="frames a second: 24, 23.976, 24000/1001")] = None,
    size: SizeOption = None,
    profile: ProfileOption = "anime",
    declare: DeclareOption = "",
    judge: JudgeOption = "",
    prompt: PromptOption = "",
    as_json: AsJsonLines = False,
    explain: ExplainOption = None,
) -> None:
    """Judge clips, as Gate 2 does; and against the clip that they were made from, as Gate 3 does."""
    from pipeline.evidence.gate_file import parse_fps

    question = _question(gate="video", size=size, profile=profile, declare=declare, judge=judge, prompt=prompt, explain=explain)
    for picture, option in ((keyframe, "--keyframe"), (last_frame, "--last-frame"), (source, "--source")):
        nameable(picture, option)
    wanted = {"frames": frames, "fps": parse_fps(fps) if fps else None, "keyframe": keyframe, "last": last_frame, "source": source}
    _gate(files, replace(question, **wanted), as_json)  # type: ignore[arg-type]


def _question(
    *, gate: Literal["image", "video"], size: str | None, profile: str, declare: str, judge: str, prompt: str, explain: Path | None
) -> Question:
    """What every file is judged by, as far as both commands have the same options."""
    from pipeline.evidence.gate_file import Question, parse_declared, parse_size
    from pipeline.story.gate_profile import load_profile

    return Question(
        gate=gate,
        profile=load_profile(profile, "--profile"),
        declared=parse_declared(declare),
        size=parse_size(in_ascii(size, "--size")) if size else None,
        explain=explain,
        judges=tuple(name.strip() for name in judge.split(",") if name.strip()),
        prompt=prompt,
    )


def _gate(files: list[Path], question: Question, as_json: bool) -> None:
    from pipeline.evidence.gate_file import as_json_line, gate_files
    from pipeline.story.settings import load_settings

    for file in files:
        nameable(file, "file")
    nameable(question.explain, "--explain")
    if question.explain and len(files) > 1:
        raise InputError(f"--explain draws one file; {len(files)} are given")
    answers = gate_files(files, question, load_settings().models_dir)
    verdicts = [answer.verdict for answer in answers]
    for file, answer in zip(files, answers, strict=True):
        if as_json:
            print(json.dumps(as_json_line(file, answer, question.profile), ensure_ascii=False))
        for opinion in [] if as_json else answer.opinions:
            text = ", ".join(f"{k} {v:.3g}" for k, v in opinion.measures.items()) if opinion.looked else f"did not look: {opinion.why}"
            out.print(f"{file}: judge {opinion.judge}: {text}", highlight=False, soft_wrap=True)
    if not as_json:
        _show_verdicts(files, verdicts)
    if any(v.outcome == "fail" for v in verdicts):
        raise typer.Exit(1)


def _show_verdicts(files: list[Path], verdicts: list[Verdict]) -> None:
    rows = []
    for file, verdict in zip(files, verdicts, strict=True):
        for finding in verdict.findings or [None]:
            rows.append(
                {
                    "file": str(file),
                    "outcome": finding.outcome if finding else "pass",
                    "label": finding.label if finding else "",
                    "value": (finding.text or f"{finding.measure} {finding.figures[0]}") if finding else "",
                    "threshold": finding.figures[1] if finding else "",
                    "frames": "-".join(map(str, finding.frames)) if finding else "",
                }
            )
    show(rows, False)
    blind = sorted({label for v in verdicts if "undecodable" not in v.failures for label in v.not_looked})
    if blind:
        out.print(f"not looked for: {', '.join(blind)}; that needs what was not given", highlight=False, soft_wrap=True)
