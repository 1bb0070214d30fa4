"""Figures in README.md and docs/: whoever reads one knows where it comes from.

A figure is a number with a unit: seconds, MB, per cent, times, shots a second. It has a source if one of these holds:

1. Its paragraph, list item, table row or line of a block names a command that measures (`python -m benchmarks.…`, `time …`, `du …`,
   `tower benchmark`), or the id of a benchmark's run. For a row, and for a line of a block, the text right above the table or block
   may name it, or the heading or the first text of the section.
2. The code decides it: `from_code` has the page's words with the number as the code has it, so the page cannot say another.
3. It is in `KNOWN`, with the reason why nobody measures it.

So a writer names the command near the figure. What stands in backticks, frames a second, and numbers without a unit are not looked at.
"""

from __future__ import annotations

import ast
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.code import copy_code
from gates.rules import Rule
from pipeline.render.process import BEAT_SECONDS, DEAD_AFTER
from pipeline.story.gate_profile import load_profile
from pipeline.story.settings import Settings

from .conftest import PROJECT

PAGES = [PROJECT / "README.md", *sorted(PROJECT.glob("docs/*.md"))]

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "fifteen", "twenty", "thirty", "sixty")
UNITS = (
    r"(?:[µm]s|s|min|h|(?:milli)?seconds?|minutes?|hours?|days?|[kMGT]i?B|bytes|%|per cent|dB|x|[A-Z]FLOP/s"
    r"|(?:\w+ )?(?:an?|each|per) (?:second|minute|hour)|\w+/s|times (?:as|the|longer|slower|faster|larger|smaller|more))"
)
FIGURE = re.compile(rf"(?<![\w./])(?:\d(?:[\d,.]*\d)?[ -]?|(?:half an?|{'|'.join(WORDS)})[ -]){UNITS}(?![\w/-])", re.I)

MEASURES = re.compile(
    r"python3? -m (?:benchmarks\.\w+|actors\.demo\.train\b)|benchmarks/\w+\.sh|`time \w|`du -|`tower benchmark\b"
    r"|\b(?:gates|demo)-[\w@-]+-\d{8}-[0-9a-f]{6}"
)

KNOWN = {  # words of a page, and why their figures have no command
    "12 GB card": "a size that cards are sold in",
    "| 12 GB: ": "the same",
    "95 % bounds": "the level of every interval here",
    "95 % interval": "the same",
    "Wilson 95 %": "the same",
    "0.1 % of the pull-down": "1 in 1001, by the definition of broadcast rates",
    "took 2 to 3 minutes and 8 GB of an RTX 3060, and its file about 810 KB": "measured in the system before this one, and told of it",
    "took about 30 s of an RTX 3060": "the same",
    "17 s gone, about 30 s left": "an example of the display",
    "2 of 2 busy, 50 % of the time": "the same",
    "47 % of the time; 30 s gone, about 28 s left": "the same, of a log",
    "report every 10 seconds": "Ray's own setting, named beside it",
    "3 s between the bounds 1 and 10": "an example of what Ray computes",
}


@dataclass(frozen=True)
class Block:
    """A piece of a page. kind: heading, text (a paragraph, a list item), line (a row of a table, a line of a block).

    text: with single spaces. above: where else the command of a line may stand.
    """

    kind: str
    line: int
    text: str
    above: str = ""


def blocks(page: str) -> Iterator[Block]:
    heading = first = before = ""  # of the section: its heading, its first text, the latest text
    for number, kind, text in _pieces(page):
        if kind == "heading":
            heading, first, before = text, "", ""
        elif kind == "text":
            first, before = first or text, text
        yield Block(kind, number, text, "\n".join((heading, first, before)) if kind == "line" else "")


def _pieces(page: str) -> Iterator[tuple[int, str, str]]:
    """(number of the first line, kind, text). Lines of a paragraph or list item are joined."""
    fenced, held, begins = False, [], 0
    for number, line in enumerate([*page.splitlines(), ""], 1):
        fence = line.lstrip().startswith("```")
        alone = fenced or fence or line.startswith(("|", "#")) or (line.startswith("    ") and not held) or not line.strip()
        if held and (alone or re.match(r"\s*(?:[-*]|\d+\.) ", line)):
            yield begins, "text", " ".join(" ".join(held).split())
            held = []
        if fence:
            fenced = not fenced
        elif not alone:
            begins = begins if held else number
            held.append(line)
        elif line.strip():
            yield number, "heading" if line.startswith("#") and not fenced else "line", " ".join(line.split())


def unsourced(page: str, told: tuple[str, ...] = ()) -> Iterator[str]:
    """Every figure without a source. told: sentences of the page that the code decides."""
    known = [" ".join(words.split()) for words in (*told, *KNOWN)]
    for block in blocks(page):
        if MEASURES.search(f"{block.text}\n{block.above}"):
            continue
        text = re.sub(r"`[^`]*`", lambda code: "`" * len(code[0]), block.text)
        decided = [range(m.start(), m.end()) for words in known for m in re.finditer(re.escape(words), block.text)]
        for figure in FIGURE.finditer(text):
            if not any(figure.start() in place and figure.end() - 1 in place for place in decided):
                yield f"line {block.line}: {figure[0]!r} in {block.text[max(0, figure.start() - 60) : figure.end() + 20]!r}"


# --- what the code decides ----------------------------------------------------------------------------------------------


def constant(file: str, name: str) -> Any:
    """The value of a constant, without importing its module."""
    for node in ast.parse((PROJECT / file).read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{file} has no constant {name}")


def word(number: float) -> str:
    """`four` for 4, `half a` for 0.5."""
    return {0.5: "half a", **dict(enumerate(WORDS[:10], 1)), 20: "twenty"}[number]


def rule(gate: str, label: str, measure: str, outcome: str = "fail") -> Rule:
    (found,) = (r for r in load_profile("anime").rules(gate) if (r.label, r.measure, r.outcome) == (label, measure, outcome))
    return found


@cache
def from_code() -> tuple[tuple[str, str], ...]:
    """(document, what it must say): numbers that the code decides."""
    return (*_of_the_pool(), *_of_the_gates(), *_of_the_alerts(), *_of_the_desk(), *_of_the_sound(), *_of_the_rest())


def _of_the_pool() -> Iterator[tuple[str, str]]:
    yield "docs/POOL.md", f"A device gives models {100 * constant('cluster/fleet.py', 'MEMORY_SHARE'):.0f} % of its memory"
    live = constant("pipeline/render/drive.py", "LIVE_IN_TURNS"), constant("pipeline/render/drive.py", "LIVE_PER_DEVICE")
    yield "docs/POOL.md", f"{live[0]} shots a device are under way at once and not {live[1]}"
    yield "docs/POOL.md", f"passed over {constant('cluster/choose.py', 'PATIENCE')} times"
    at_once, doubts = constant("cluster/pool.py", "AT_ONCE"), constant("cluster/pool.py", "DOUBTS")
    assert doubts == 2
    yield (
        "docs/POOL.md",
        f"lost within {word(at_once)} second may have found a device that was dead before: it gets the benefit of the doubt twice",
    )
    yield "docs/TROUBLESHOOTING.md", f"lost within {word(at_once)} second is given the benefit of the doubt, twice"
    yield "docs/POOL.md", f"Every {word(constant('cluster/fleet.py', 'WATCH_SECONDS'))} seconds the pool looks at Ray's nodes"
    yield "docs/POOL.md", f"A clip of 121x768x512 is {121 * 768 * 512 * 3 / 1e6:.0f} MB"
    yield "docs/TROUBLESHOOTING.md", f"`no device started within {constant('cluster/fleet.py', 'START_SECONDS')} s`"
    yield "docs/TROUBLESHOOTING.md", f"killed {constant('cluster/pool.py', 'BREAKER')} devices in a row"
    wait = yaml.safe_load((PROJECT / "configs" / "cluster" / "autoscaling.yaml").read_text())["wait_minutes"]
    yield "docs/CLUSTER.md", f"a render waits up to {word(wait)} minutes for workers"
    yield "docs/CLUSTER.md", f"It has {constant('cluster/jobs.py', 'STOP_SECONDS')} seconds to end"
    yield "docs/SETUP_GUIDE.md", f"gives up after {constant('cluster/look.py', 'JOIN_SECONDS')} s"


def _of_the_gates() -> Iterator[tuple[str, str]]:
    frozen = rule("video", "frozen", "reach")
    yield "docs/WATCHING.md", f"frozen ({frozen.measure} 0.42, threshold {frozen.below:.3g})"
    yield "docs/gates.md", f"{{label: frozen, measure: {frozen.measure}, below: {frozen.below}}}"
    yield "docs/gates.md", f"gets {frozen.below} levels further"
    light, texture = rule("video", "flicker", "flicker").above, rule("video", "flicker", "texture_flicker").above
    yield "docs/gates.md", f"light goes back and forth by over {light} % of itself, or that of textures by {texture} levels"
    yield (
        "docs/gates.md",
        f"{percent(rule('image', 'black', 'dark').above)} of a still is under {constant('gates/picture.py', 'DARK')} of 255",
    )
    yield "docs/gates.md", f"over {percent(rule('video', 'bars', 'bars').above)} of height or width is black"
    yield "docs/gates.md", f"than of its keyframe, or on {percent(rule('video', 'over_exposed', 'over_exposed').above)}"
    yield "docs/gates.md", f"fewer than {percent(rule('video', 'noise', 'flat').below)} of the pixels"


def percent(share: float | None) -> str:
    assert share is not None
    return f"{100 * share:.0f} %"


def _of_the_alerts() -> Iterator[tuple[str, str]]:
    """Their windows, as `[15m]` or `for: 15m` in the file."""
    groups = yaml.safe_load((PROJECT / "cluster" / "monitoring" / "alerts.yaml").read_text())["groups"]
    alerts = {alert["alert"]: alert for group in groups for alert in group["rules"]}

    def window(name: str) -> str:
        (found,) = set(re.findall(r"\[(\d+)m\]", alerts[name]["expr"]))
        return found

    patience = alerts["TowerNoProgress"]["for"].removesuffix("m")
    yield "docs/WATCHING.md", f"no take was recorded in {window('TowerNoProgress')} minutes, for {patience} minutes more"
    assert window("TowerRejectedTooOften") == "30"
    yield "docs/WATCHING.md", "there were 20 or more, in half an hour"
    yield "docs/WATCHING.md", f"work waited for {window('TowerDevicesIdle')} minutes without a break"
    yield "docs/WATCHING.md", f"more than two devices replaced in {window('TowerDevicesRestarting')} minutes"
    (hours,) = re.findall(r"\[1h\], (\d+) \* 3600", alerts["TowerDiskFilling"]["expr"])
    yield "docs/WATCHING.md", f"it will be full in {word(int(hours))} hours at this pace"


def _of_the_desk() -> Iterator[tuple[str, str]]:
    guard, query = "pipeline/api/guard.py", "pipeline/api/services/query.py"
    bodies = [f"{constant(guard, name) / 1e6:.0f} MB" for name in ("BODY", "JSON", "UPLOAD")]
    yield "docs/DESK.md", f"{bodies[0]}; {bodies[1]} of an episode as JSON; {bodies[2]} where files come with one"
    writes, starts, tries = (constant(guard, name) for name in ("WRITES", "STARTS", "TRIES"))
    yield "docs/DESK.md", f"{writes} a minute; submissions and renders, {starts} a minute; tokens tried, {tries} a minute"
    memory = constant(query, "MEMORY").removesuffix("MB")
    yield "docs/DESK.md", f"{constant(query, 'SECONDS'):.0f} seconds, {memory} MB, {constant(query, 'ROWS'):,} rows"
    yield "docs/DESK.md", f"| event streams | {constant('pipeline/api/routers/events.py', 'MOST'):,} |"
    yield "docs/DESK.md", f"a secret of at least {constant('pipeline/api/opened.py', 'SHORTEST')} letters"
    yield "docs/CLUSTER.md", f"to kill it after {constant('pipeline/render/local_jobs.py', 'STOP_SECONDS'):.0f} seconds"
    yield "docs/WATCHING.md", f"once a second on a disk, every {word(constant('pipeline/render/live.py', 'BUCKET_SECONDS'))} seconds in a bucket"


def _of_the_sound() -> Iterator[tuple[str, str]]:
    yield "docs/EPISODES.md", f"of at most {constant('pipeline/plan/sound_file.py', 'MOST_BYTES') / 1e6:.0f} MB each"
    yield "docs/EPISODES.md", f"music goes down by {-constant('pipeline/post/mix.py', 'DUCKED'):.0f} dB while somebody speaks"
    yield "docs/EPISODES.md", f"lowered by at most {constant('pipeline/post/loudness.py', 'MOST_LIMITED'):.0f} dB"
    yield "docs/EPISODES.md", f"(below {constant('pipeline/plan/sounds.py', 'SILENT')} dBFS)"


def _of_the_rest() -> Iterator[tuple[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        copy_code(Path(folder))
        sent = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    yield "docs/CLUSTER.md", f"({sent / 1e6:.0f} MB, uploaded once"
    scrape = yaml.safe_load((PROJECT / "cluster" / "monitoring" / "prometheus.yaml").read_text())["global"]["scrape_interval"]
    yield "docs/WATCHING.md", f"scrape interval {scrape}"
    version = constant("catalog/schema.py", "VERSION")
    yield "docs/TROUBLESHOOTING.md", f"has version {version + 1}, this Tower knows versions up to {version}`"
    yield "docs/WATCHING.md", f"up to {constant('pipeline/render/progress.py', 'LINES')} in an interval"
    yield "docs/WATCHING.md", f"one line every {Settings.model_fields['log_seconds'].default:.0f} seconds"
    yield "docs/CATALOG.md", f"after {word(DEAD_AFTER.total_seconds() / 60)} minutes elsewhere"
    assert BEAT_SECONDS == 60
    yield "docs/TABLES.md", "One row when a run starts, one a minute while it lives"
    shares = re.findall(
        r'^    "([\w -]+)": \(\w+(?:\.\w+)?, (0\.\d+)\),$', (PROJECT / "benchmarks" / "gpu" / "__main__.py").read_text(), re.M
    )
    yield from (("docs/GPU.md", f"| {name} | {percent(float(share))} |") for name, share in shares)


@pytest.mark.parametrize(("page", "told"), from_code(), ids=lambda value: value[:60])
def test_a_documents_numbers_are_the_codes(page: str, told: str) -> None:
    assert told in " ".join((PROJECT / page).read_text().split())


# --- the rule -----------------------------------------------------------------------------------------------------------


def told_in(page: Path) -> tuple[str, ...]:
    return tuple(words for name, words in from_code() if PROJECT / name == page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_figure_names_the_command_that_measured_it(page: Path) -> None:
    assert not list(unsourced(page.read_text(), told_in(page)))


def test_what_is_known_without_a_command_is_still_said() -> None:
    said = " ".join(" ".join(page.read_text().split()) for page in PAGES)
    assert [words for words in KNOWN if words not in said] == []


# --- the rule can fail --------------------------------------------------------------------------------------------------

PLANTED = "It took 12.5 s here."


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_a_planted_figure_is_found_in_every_section_of_every_page(page: Path) -> None:
    lines, told = page.read_text().splitlines(), told_in(page)
    headings = [block.line for block in blocks(page.read_text()) if block.kind == "heading"]
    assert headings
    for line in headings:
        (found,) = unsourced("\n".join([*lines[:line], "", PLANTED, "", *lines[line:]]), told)
        assert "'12.5 s'" in found


@pytest.mark.parametrize(
    ("page", "figure"),
    [
        ("A render takes half a minute.", "half a minute"),
        ("It is 20 to 40 times slower than float32.", "40 times slower"),
        ("It is 1.75 x as fast.", "1.75 x"),
        ("One driver feeds 263 shots a second.", "263 shots a second"),
        ("It feeds 263\nshots/s.", "263 shots/s"),
        ("Its memory grows by 1,024 MB.", "1,024 MB"),
        ("- a plan: 0.8 s\n- a status: `python -m benchmarks.catalog`", "0.8 s"),
        ("`python -m benchmarks.catalog` measures plans.\n\nA plan takes 0.8 s.", "0.8 s"),
        ("`tower plan` takes 0.8 s.", "0.8 s"),
        ("| what | is |\n|---|---|\n| plan | 0.8 s |", "0.8 s"),
        ("## One\n\nBy `python -m benchmarks.catalog`:\n\n## Two\n\n| plan | 0.8 s |", "0.8 s"),
        ("```\nplan 0.8 s\n```", "0.8 s"),
        ("    tower plan episode.yaml    # 0.8 s", "0.8 s"),
        ("Every interval has 95 % bounds, and 95 % of all takes pass.", "95 %"),
    ],
)  # fmt: skip
def test_a_figure_without_its_source_is_found(page: str, figure: str) -> None:
    (found,) = unsourced(page)
    assert repr(figure) in found


@pytest.mark.parametrize(
    "page",
    [
        "A plan takes 0.8 s\n(`python -m benchmarks.catalog`).",
        "- a plan: 0.8 s, by `time tower plan episode.yaml`",
        "By `python -m benchmarks.catalog`:\n\n| plan | 0.8 s |\n|---|---|\n| status | 0.6 s |",
        "## Plans\n\nBy `python -m benchmarks.catalog`.\n\nOn two cores:\n\n```\nplan 0.8 s\n```",
        "| plan | 0.8 s | `python -m benchmarks.catalog` |",
        "The prompt `0.8 s` is quoted, 768x512 is a size, 24 fps a rate, 0.98 a share, SH0010 a shot.",
    ],
)
def test_a_figure_beside_its_command_is_let_through(page: str) -> None:
    assert list(unsourced(page)) == []
