"""Train all demo checkpoints anew, judge them and pack them up, in a given time.

    python -m actors.demo.train [--minutes 6] [--device cuda|cpu] [--out DIR] [--tiny]

Writes at most eight files, flat, of at most 16 MB each: checkpoints-N.tar (see `unpack`), figures.json, sheet.jpg, train.log.
Exit code 1 if anything failed; what did not fail is packed all the same.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from .children import Children
from .pack import FOLDERS, contact_sheet, pack
from .recipe import RECIPES, Recipe

NAMES = {"sd": "Stable Diffusion and motion adapter", "ltx": "LTX-Video"}


@dataclass(frozen=True)
class Times:
    """Moments of time.monotonic. trained: the trainings' last step; columns: the checkpoints are written;
    judged: the validation is over."""

    start: float
    trained: float
    columns: float
    judged: float


def times(recipe: Recipe, start: float, minutes: float) -> Times:
    seconds = 60 * minutes
    judged = start + seconds - max(1.5, 0.01 * seconds)  # the contact sheet, and the end of the processes
    columns = judged - recipe.validation_share * seconds
    return Times(start, columns - max(1.5, 0.02 * seconds), columns, judged)


def main() -> int:
    start = time.monotonic()
    for number in (signal.SIGINT, signal.SIGTERM):  # so that the processes it started end too
        signal.signal(number, lambda n, _: sys.exit(128 + n))
    args = arguments()
    wrong = refusal(args)
    if wrong:
        print(f"error: {wrong}", file=sys.stderr)
        return 2
    recipe, out = RECIPES[args.recipe], args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tower-train-") as scratch, Children(out / "train.log") as children:
        when, work = times(recipe, start, args.minutes), args.work.resolve() / recipe.name if args.work else None
        checkpoints = (work or Path(scratch)) / "checkpoints"
        checkpoints.mkdir(parents=True, exist_ok=True)
        failed = train(children, recipe, args.device, checkpoints, work, when)
        packed = pack(checkpoints, out)  # before anything else can go wrong
        children.say(f"{len(packed)} tar files with {sum(f.stat().st_size for f in packed) / 1e6:.1f} MB")
        judge(children, args.device, checkpoints, out, Path(scratch) / "pictures", when)
        contact_sheet(Path(scratch) / "pictures", out / "sheet.jpg")
    for sentence in failed:
        print(f"error: {sentence}", file=sys.stderr)
    return 1 if failed else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m actors.demo.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=6, help="all in all; default 6")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--out", type=Path, default=Path("train-work/out"), help="an empty folder, made if it is not there; default train-work/out"
    )
    parser.add_argument("--recipe", choices=RECIPES, default="gpu", help="see recipe.py; shipped made the checkpoints in this repository")
    parser.add_argument("--tiny", dest="recipe", action="store_const", const="tiny", help="a rehearsal: --recipe tiny")
    parser.add_argument("--work", type=Path, help="keep every stage's state here, and go on from it")
    return parser.parse_args()


def refusal(args: argparse.Namespace) -> str | None:
    """What is wrong with the arguments, in one sentence."""
    if not args.minutes >= 0.3:
        return f"--minutes {args.minutes:g} is too short: the models' libraries alone take some seconds; give 0.3 or more"
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        return f"--out {args.out} is not an empty folder; give another one, or empty it"
    if args.device == "cuda":
        import torch  # seconds, that only a GPU's training spends here

        if not torch.cuda.is_available():
            return "--device cuda: PyTorch finds no GPU here; a CPU trains with --device cpu"
    return None


def train(children: Children, recipe: Recipe, device: str, checkpoints: Path, work: Path | None, when: Times) -> list[str]:
    """Both columns side by side; a sentence for each that failed."""
    for name in NAMES:
        given = ["--recipe", recipe.name, "--device", device, "--checkpoints", checkpoints]
        given += ["--seconds", when.trained - when.start, "--end", when.trained, *(["--work", work] if work else [])]
        children.start(name, "actors.demo.train.columns", name, *given)
    failed = []
    for name, title in NAMES.items():
        why = children.wait(name, when.judged)
        if why:
            failed.append(
                f"training the {title} failed ({why}); whatever else was finished is in the output folder, and train.log tells more"
            )
    return failed


def judge(children: Children, device: str, checkpoints: Path, out: Path, pictures: Path, when: Times) -> None:
    """Validation in what is left of the time. It can be cut short or left out, and then says so; the weights come back all the same."""
    left = when.judged - time.monotonic()
    if not all((checkpoints / name).exists() for name in FOLDERS):
        children.say("no validation: it needs all three checkpoints")
    elif left < 5:
        children.say(f"no validation: only {max(0, left):.0f} seconds are left")
    else:
        given = ["--checkpoints", checkpoints, "--device", device, "--quick", "--until", when.judged - 1]
        children.start("figures", "benchmarks.demo_models", *given, "--json", out / "figures.json", "--pictures", pictures)
        why = children.wait("figures", when.judged)
        if why:
            children.say(f"validation is not complete ({why})")


if __name__ == "__main__":
    sys.exit(main())
