"""The documents: every command parses, every path exists, every setting and package is listed. For figures see test_figures.py.

Each check is a function from text to faults, and is shown a planted fault first: a check that finds nothing proves nothing.
"""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pyarrow.parquet as pq
import pytest
import typer
import yaml
from pydantic import BaseModel

from catalog.standing import name_of
from gates.rules import Declaration
from gates.verdict import LABELS
from pipeline.cli.main import app
from pipeline.evidence.pages import tables
from pipeline.story.audio import Audio
from pipeline.story.cluster_profile import ClusterProfile
from pipeline.story.dialogue import Line
from pipeline.story.episode import Character, Episode, Location, Sequence, Shot
from pipeline.story.settings import Settings

from .conftest import PROJECT

PAGES = sorted([PROJECT / "README.md", *PROJECT.glob("docs/*.md"), *(PROJECT / f / "README.md" for f in ("configs", "archive"))])
PAGES += [PROJECT / "actors" / "demo" / "README.md", PROJECT / "cluster" / "deploy" / "README.md"]
GUIDE = PROJECT / "docs" / "SETUP_GUIDE.md"
TO_BE_MADE = {"actors/wan_video.py", "configs/workflows/wan22_ti2v_5b.yaml"}  # docs/ADD_A_MODEL.md tells its reader to write them
OLD_NAMES = {"TOWER_PROFILE"}  # the code names it only to refuse it
PRODUCT = ("pipeline", "actors", "catalog", "cluster", "gates")
MODULES = (*PRODUCT, "benchmarks")


@dataclass(frozen=True)
class Code:
    """A piece of code in a document. block: a line of a block, which a reader may copy; else a word in a sentence."""

    text: str
    line: int
    block: bool


def code_in(text: str) -> Iterator[Code]:
    """Lines of indented and fenced blocks, and what stands in backticks, which may go over the end of a line."""
    fenced, prose = False, []
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
            prose.append("")
        elif fenced or line.startswith("    "):
            yield Code(line.strip(), number, True)
            prose.append("")
        else:
            prose.append(line)
    whole = "\n".join(prose)
    for found in re.finditer(r"`([^`]+)`", whole):
        yield Code(" ".join(found[1].split()), whole.count("\n", 0, found.start()) + 1, False)


# --- commands -----------------------------------------------------------------------------------------------------------

FITTING = {"N": "3", "HOURS": "24", "F": "24", "WxH": "768x512", "NAME@V": "name@1", "NAME@1": "name@1", "NAME@2": "name@2"}
ROOT: Any = typer.main.get_command(app)


def commands(code: Code) -> Iterator[str]:
    """The commands of a line: without comments, what follows in prose, assignments before them, and optional brackets."""
    text = re.split(r"\s#\s|\s{2,}" if code.block else r"\s#\s", code.text)[0]
    for part in re.split(r";|&&|\s&(?:\s|$)", text.replace("[", "").replace("]", "").replace("…", "").replace("...", "")):
        words = part.split()
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words.pop(0)
        if words:
            yield part[part.index(words[0]) :].strip()


def command_faults(text: str) -> Iterator[str]:
    for code in code_in(text):
        for command in commands(code):
            for fault in _command(command, code.block):
                yield f"line {code.line}: {command}: {fault}"


def _command(command: str, whole: bool) -> Iterable[str]:
    if re.match(r"tower( |$)", command):
        return _tower(shlex.split(command)[1:], whole)
    if found := re.search(r"(?:^|\s)(?:\S*/)?python3? -m ([\w.]+)(.*)", command):
        return _module(found[1], shlex.split(found[2]))
    if found := re.match(r"make ([a-z][\w-]*)$", command):
        targets = re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(), re.M)
        return [] if found[1] in targets else [f"the Makefile has no target {found[1]}"]
    return []


def _tower(words: list[str], whole: bool) -> Iterable[str]:
    """Parsed by the real command line, and not run. In a sentence a command may be named without what it needs."""
    words = [FITTING.get(word, word) for word in words]
    group, context = ROOT, None
    while hasattr(group, "commands"):
        name = words.pop(0) if words else ""
        if not name:
            return ["a command is missing"] if whole else []
        if name.startswith("--"):
            return [] if name == "--help" else [f"no option {name}"]
        if name not in group.commands:
            return [f"no command {name}"]
        group = group.commands[name]
    try:
        context = group.make_context(group.name, list(words))
        context.close()
    except Exception as error:  # the usage errors' classes are private to typer
        if not hasattr(error, "format_message"):
            raise
        if whole or type(error).__name__ != "MissingParameter":
            return [error.format_message()]
    return []


def _module(name: str, words: list[str]) -> Iterable[str]:
    """The module is there, and each option stands in its source; nothing of it is imported."""
    if name.split(".")[0] not in MODULES:
        return []  # pip, venv and other people's
    if name == "pipeline.cli":
        return _tower(words, False)
    folder = PROJECT.joinpath(*name.split("."))
    if not (files := [f for f in (folder.with_suffix(".py"), folder / "__main__.py") if f.is_file()]):
        return [f"no module {name} that can be run"]
    source = "".join(f.read_text() for f in files)
    return [f"no option {w}" for word in words if (w := word.split("=")[0]).startswith("--") and f'"{w}"' not in source]


# --- paths --------------------------------------------------------------------------------------------------------------

ENDINGS = "py|md|yaml|yml|toml|json|txt|parquet|png|sh|safetensors"
PATH = re.compile(rf"\.?[\w@*-][\w.@*-]*(?:/[\w.@*{{}},-]+)*/?(?:\.({ENDINGS}))?(?::\d+)?")
LINK = re.compile(r"\]\(([^)\s]+)\)")


@cache
def top() -> set[str]:
    return {p.name for p in PROJECT.iterdir() if p.name not in (".git", ".venv", "out", "catalog-data", "models", "train-work", ".mutants")}


def path_faults(text: str, page: Path) -> Iterator[str]:
    for found in LINK.finditer(text):
        target = found[1].partition("#")[0]
        if target and "://" not in target and not (page.parent / target).exists():
            yield f"link {found[1]} leads nowhere"
    for code in code_in(text):
        for word in code.text.split() if code.block else [code.text]:
            yield from (f"line {code.line}: {fault}" for fault in _path(word.strip("(),;"), page, code.block))
    for found in re.finditer(r"`(\w+)`[^`|\n]{0,12} (?:in|of)\s`([\w/.-]+\.(?:py|yaml|toml))`", text):
        file = PROJECT / found[2]
        if file.is_file() and not re.search(rf"\b{found[1]}\b", file.read_text()):
            yield f"{found[2]} has no {found[1]}"
    for found in re.finditer(r"`([a-z_]+)\.([a-z_]+)`", text):
        file = PROJECT / "gates" / f"{found[1]}.py"
        if file.is_file() and found[2] not in ENDINGS.split("|") and f"def {found[2]}(" not in file.read_text():
            yield f"gates/{file.name} has no function {found[2]}"


def _path(word: str, page: Path, block: bool) -> Iterable[str]:
    """Whether it is meant as a path of ours: it begins in one of our folders, or is a Python file."""
    if not PATH.fullmatch(word):
        return []
    name, _, line = word.partition(":")
    ours = name.split("/")[0] in top() and ("/" in name or "." in name)
    if (not ours and (block or not name.endswith(".py"))) or name in TO_BE_MADE:
        return []
    pattern = re.sub(r"\b[A-Z]+(?=\.)", "*", name) if not (PROJECT / name).exists() else name
    places = [
        f for folder in (PROJECT, page.parent) for f in (folder.glob(pattern) if "*" in pattern else [folder / pattern]) if f.exists()
    ]
    if not places:
        return [f"{name} does not exist"]
    if line and len(places[0].read_text().splitlines()) < int(line):
        return [f"{name} has no line {line}"]
    return []


# --- names --------------------------------------------------------------------------------------------------------------


@cache
def environment_names() -> set[str]:
    """Settings, and what other code reads."""
    code = [p for folder in (*MODULES, "tests") for p in (PROJECT / folder).rglob("*.py") if p != Path(__file__)]
    written = {name for p in code for name in re.findall(r"TOWER_[A-Z_]*[A-Z]", p.read_text())}
    return (written | settings()) - OLD_NAMES


def settings() -> set[str]:
    return {f"TOWER_{name.upper()}" for name in Settings.model_fields}


def environment_faults(text: str) -> Iterator[str]:
    for name in sorted(set(re.findall(r"TOWER_[A-Z_]*[A-Z]", text)) - environment_names()):
        yield f"no code reads {name}"


def table_after(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    below = text.partition(f"\n## {heading}\n")[2]
    lines = re.search(r"(?:^\|.*\n)+", below, re.M)
    assert lines, heading
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[0].splitlines()[2:]]


def settings_faults(text: str) -> Iterator[str]:
    told = {name for row in table_after(text, "Settings") for name in re.findall(r"TOWER_\w+", row[0])}
    yield from (f"{name} is not in the table" for name in sorted(settings() - told))
    yield from (f"{name} is no setting" for name in sorted(told - settings()))


def dependencies() -> set[str]:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    return {re.split(r"[\[<>=]", one)[0] for one in wanted} - {"tower"}


def package_faults(text: str) -> Iterator[str]:
    told = {name.strip() for row in table_after(text, "What is installed, and why") for name in re.sub(r"\(.*?\)", "", row[0]).split(",")}
    wanted = dependencies() | {"uv", "spandrel"}  # what the Makefile installs with, and by itself
    yield from (f"{name} is not in the table" for name in sorted(wanted - told))
    yield from (f"{name} is not installed" for name in sorted(told - wanted))


def missing_tests(text: str) -> Iterator[str]:
    told, there = set(re.findall(r"test_\w+\.py", text)), {p.name for p in (PROJECT / "tests").glob("test_*.py")}
    yield from (f"{name} is not told of" for name in sorted(there - told))
    yield from (f"{name} does not exist" for name in sorted(told - there))


# --- the checks ---------------------------------------------------------------------------------------------------------

everywhere = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))


@everywhere
def test_every_command_parses(page: Path) -> None:
    assert not list(command_faults(page.read_text()))


@everywhere
def test_every_path_exists(page: Path) -> None:
    assert not list(path_faults(page.read_text(), page))


@everywhere
def test_every_environment_name_is_read_by_code(page: Path) -> None:
    assert not list(environment_faults(page.read_text()))


def test_the_setup_guide_lists_every_setting_and_every_package() -> None:
    assert not [*settings_faults(GUIDE.read_text()), *package_faults(GUIDE.read_text())]


def test_the_list_of_tests_is_complete() -> None:
    assert not list(missing_tests((PROJECT / "tests" / "__init__.py").read_text()))


def test_the_page_of_documents_lists_them_all() -> None:
    told = (PROJECT / "docs" / "README.md").read_text()
    assert not [p.name for p in PROJECT.glob("docs/*.md") if p.name != "README.md" and f"]({p.name})" not in told]


def test_the_example_model_is_still_an_example() -> None:
    assert not [name for name in TO_BE_MADE if (PROJECT / name).exists()], "it is shipped now: say so in docs/ADD_A_MODEL.md"


def test_every_metric_and_every_alert_is_listed() -> None:
    told = (PROJECT / "docs" / "WATCHING.md").read_text()
    metrics = re.findall(r'"(tower_\w+)"', (PROJECT / "cluster" / "metrics.py").read_text())
    alerts = re.findall(r"alert: (\w+)", (PROJECT / "cluster" / "monitoring" / "alerts.yaml").read_text())
    assert metrics and alerts
    assert sorted(re.findall(r"^\| `ray_(tower_\w+)`", told, re.M)) == sorted(metrics)
    assert sorted(re.findall(r"^\| `(Tower\w+)`", told, re.M)) == sorted(alerts)


FILLED_IN = (
    "SH0010",
    "clip",
    "frozen",
    "takes",
    "experimental",
    "stale",
    "a device",
)  # the page's examples of what the code puts into a sentence


@cache
def sayings() -> tuple[str, ...]:
    """Every text in the product's code but docstrings, f-strings cut at their holes; and names of classes: errors begin with them."""
    trees = [ast.parse(file.read_text()) for folder in PRODUCT for file in sorted((PROJECT / folder).rglob("*.py"))]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    docstrings = {id(n.value) for n in nodes if isinstance(n, ast.Expr)}
    texts = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in docstrings]
    return (*texts, *(n.name for n in nodes if isinstance(n, ast.ClassDef)))


def message_faults(text: str) -> Iterator[str]:
    """Messages in the first column of a table that no code can print: their words between examples and `…` are the code's."""
    for row in re.findall(r"^\| (.+?) \|", text, re.M):
        for message in re.findall(r"`([^`]+)`", row):
            pieces = re.split(rf"[;:,…]|\b\d[\d.x]*\b|\b(?:{'|'.join(FILLED_IN)})\b", message)
            for piece in filter(None, map(str.strip, pieces)):
                if not any(piece in saying for saying in sayings()):
                    yield f"no code says {piece!r}: {message}"


def test_every_message_in_the_page_of_troubles_is_one_that_the_code_prints() -> None:
    page = (PROJECT / "docs" / "TROUBLESHOOTING.md").read_text().partition("\n## ")[0]
    assert page.count("`") > 60
    assert not list(message_faults(page))


def words(cell: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", cell))


def test_every_field_that_people_write_is_listed() -> None:
    levels: dict[str, type[BaseModel]] = {
        "episode": Episode,
        "character": Character,
        "location": Location,
        "sequence": Sequence,
        "shot": Shot,
        "audio": Audio,
        "line": Line,
    }
    head, told = (PROJECT / "docs" / "EPISODES.md").read_text(), {}
    for level, fields in re.findall(r"^\| (\w+)(?:, of `dialogue`)? \| (.+) \|$", head, re.M):
        told[level] = words(fields)
    assert {level: told.get(level) for level in levels} == {level: set(model.model_fields) for level, model in levels.items()}
    profile = table_after((PROJECT / "docs" / "POOL.md").read_text(), "Profiles")
    assert {name for row in profile for name in words(row[0])} == set(ClusterProfile.model_fields) - {"name", "description"}


def test_every_label_and_every_declaration_is_listed() -> None:
    told = (PROJECT / "docs" / "gates.md").read_text().partition("| label | gate |")[2].partition("\n## ")[0]
    first = {name for row in re.findall(r"^\| (`.+?) \|", told, re.M) for name in words(row)}
    assert first == {*LABELS, *get_args(Declaration)}


def test_the_generated_pages_are_todays() -> None:
    """The page of the tables is the schema's; the ledger, and the page that is written from it, tell the reasons in the same words."""
    assert (PROJECT / "docs" / "TABLES.md").read_text() == tables()
    reasons = {ref: " ".join(why.split()) for ref, why in yaml.safe_load((PROJECT / "archive" / "reasons.yaml").read_text()).items()}
    ledger = pq.read_table(PROJECT / "configs" / "evidence" / "promotions.parquet").to_pylist()
    assert {name_of(row): row["why"] for row in ledger if row["action"] == "archive"} == reasons
    page = (PROJECT / "docs" / "FAILED_ATTEMPTS.md").read_text()
    assert [why for why in reasons.values() if f"**Why**: {why}\n" not in page] == []


def mutants_faults(text: str) -> Iterator[str]:
    """What the table of `make mutants` names and is not there: modules, tests, and lines whose change no test can notice."""
    table = yaml.safe_load(text)
    for module, tests in table["modules"].items():
        for word in (module, *(word for word in tests.split() if word.startswith("tests/"))):
            file, _, test = word.partition("::")
            if not (PROJECT / file).is_file():
                yield f"{module}: {file} does not exist"
            elif test and f"def {test}(" not in (PROJECT / file).read_text():
                yield f"{module}: {file} has no {test}"
    for one in table["equivalent"]:
        source = " ".join(line.strip() for line in (PROJECT / one["module"]).read_text().splitlines())
        if one["before"] not in source:
            yield f"{one['module']} has no line {one['before']}"


def test_the_table_of_mutants_is_of_today() -> None:
    assert not list(mutants_faults((PROJECT / "configs" / "mutants.yaml").read_text()))


# --- the checks can fail ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Say `tower modles`.", "no command modles"),
        ("Say `tower workflows lst`.", "no command lst"),
        ("Say `tower render --frsh`.", "No such option"),
        ("    tower render episode.yaml --only", "requires an argument"),
        ("    tower render", "Missing argument"),
        ("    RAY_ADDRESS=a:1 tower status E01; tower pauze E01    # both", "no command pauze"),
        ("    tower catalog gc --older-than soon", "soon"),
        ("```\nray job submit -- python -m pipeline.cli benchmark x --suit y\n```", "No such option"),
        ("    python3 -m benchmarks.gpu --hours 8", "no option --hours"),
        ("`python -m benchmarks.gup`", "no module benchmarks.gup"),
        ("`make\nchek`", "no target chek"),
    ],
)  # fmt: skip
def test_a_wrong_command_is_found(text: str, fault: str) -> None:
    (found,) = command_faults(text)
    assert fault in found


def test_right_commands_are_let_through() -> None:
    text = (
        "`tower render` and `tower workflows`, `make`, `make check`, `python -m pip install x`, `tower gate video FILE --explain why.png`"
    )
    block = "    TOWER_DEVICES=2 tower plan episode.yaml     what would be rendered\n    tower benchmark NAME --suite x.yaml [--against OTHER]\n"
    assert not [*command_faults(text), *command_faults(block)]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("`pipeline/shot.py`", "pipeline/shot.py does not exist"),
        ("`shoot.py`", "shoot.py does not exist"),
        ("    commit   its row      catalog/writter.py   driver", "catalog/writter.py does not exist"),
        ("`configs/workflow/*.yaml`", "configs/workflow/*.yaml does not exist"),
        ("[there](docs/NOWHERE.md#x)", "link docs/NOWHERE.md#x leads nowhere"),
        ("`pyproject.toml:99999`", "pyproject.toml has no line 99999"),
        ("`_recoded` in `pipeline/render/studio.py`", "pipeline/render/studio.py has no _recoded"),
        ("`motion.longest_hodl`", "gates/motion.py has no function longest_hodl"),
    ],
)
def test_a_wrong_path_is_found(text: str, fault: str) -> None:
    (found,) = path_faults(text, PROJECT / "README.md")
    assert fault in found


def test_right_paths_are_let_through() -> None:
    text = (
        "`pipeline/render/shot.py:1`, `configs/suites/NAME.yaml`, `out/E01/`, `s3://bucket/prefix`, `media/ab/x.mp4`, [x](docs/README.md#x)"
    )
    assert not list(path_faults(text, PROJECT / "README.md"))


@pytest.mark.parametrize(
    ("check", "text", "fault"),
    [
        (environment_faults, "set `TOWER_DEVISES=2`", "no code reads TOWER_DEVISES"),
        (environment_faults, "set `TOWER_PROFILE`", "no code reads TOWER_PROFILE"),
        (settings_faults, GUIDE.read_text().replace("| `TOWER_DEVICES`", "| `TOWER_DEVISES`"), "TOWER_DEVISES is no setting"),
        (settings_faults, GUIDE.read_text().replace("| `TOWER_DEVICES`", "| `TOWER_DEVISES`"), "TOWER_DEVICES is not in the table"),
        (package_faults, GUIDE.read_text().replace("| duckdb |", "| duckbd |"), "duckdb is not in the table"),
        (package_faults, GUIDE.read_text().replace("| duckdb |", "| duckbd |"), "duckbd is not installed"),
        (message_faults, "| `no device began within 120 s` | x |", "no code says 'no device began within': no device began within 120 s"),
        (mutants_faults, "{modules: {gates/rule.py: tests/test_rules.py}, equivalent: []}", "gates/rule.py: gates/rule.py does not exist"),
        (mutants_faults, "{modules: {gates/rules.py: tests/test_rule.py}, equivalent: []}", "gates/rules.py: tests/test_rule.py does not exist"),
        (mutants_faults, "{modules: {gates/rules.py: 'tests/test_rules.py::test_x'}, equivalent: []}", "gates/rules.py: tests/test_rules.py has no test_x"),
        (mutants_faults, "{modules: {}, equivalent: [{module: gates/rules.py, before: x = 2}]}", "gates/rules.py has no line x = 2"),
        (missing_tests, "test_nothing.py", "test_docs.py is not told of"),
        (missing_tests, "test_nothing.py", "test_nothing.py does not exist"),
    ],
)  # fmt: skip
def test_a_wrong_name_is_found(check: Callable[[str], Iterator[str]], text: str, fault: str) -> None:
    assert fault in list(check(text))
