"""Mutation testing: changes one thing of a module at a time, and asks the module's tests whether they notice.

    python -m benchmarks.mutants [MODULE.py …] [--minutes 30] [--show]

Works on a copy of the tree in `.mutants/`, and goes on where it last stopped. A module that has changed begins again; survivors are
tried again when their tests have changed. `configs/mutants.yaml` names the modules, the quickest tests of each, and the changes that
no test can notice, with the reason. --show runs nothing, and prints what is known.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import cosmic_ray.commands
import cosmic_ray.plugins
import yaml
from cosmic_ray.mutating import mutate_code
from cosmic_ray.work_db import WorkDB
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkItem, WorkResult
from rich.console import Console
from rich.table import Table

from pipeline import PROJECT

from .statements import OPERATORS

TABLE = PROJECT / "configs" / "mutants.yaml"
WORK = PROJECT / ".mutants"
TREE = WORK / "tree"
SLACK_SECONDS, SLACK = 5.0, 4.0  # a run has this much time, and this many times as long as one without a change

# The library knows eleven replacements of each operator. These tell most; the others are killed by the same tests.
BINARY = "Add_Sub Sub_Add Mul_Div Div_Mul FloorDiv_Mul Mod_Mul Pow_Mul BitOr_BitAnd BitAnd_BitOr BitXor_BitAnd LShift_RShift RShift_LShift"
COMPARISON = "Eq_NotEq NotEq_Eq Lt_LtE Lt_GtE LtE_Lt LtE_Gt Gt_GtE Gt_LtE GtE_Gt GtE_Lt Is_IsNot IsNot_Is"
OTHERS = """ReplaceUnaryOperator_Delete_USub ReplaceUnaryOperator_Delete_Not AddNot ReplaceTrueWithFalse ReplaceFalseWithTrue
    ReplaceAndWithOr ReplaceOrWithAnd ReplaceBreakWithContinue ReplaceContinueWithBreak ExceptionReplacer NumberReplacer RemoveDecorator
    ZeroIterationForLoop"""
WANTED = {
    *(f"core/ReplaceBinaryOperator_{name}" for name in BINARY.split()),
    *(f"core/ReplaceComparisonOperator_{name}" for name in COMPARISON.split()),
    *(f"core/{name}" for name in OTHERS.split()),
    *(f"tower/{name}" for name in OPERATORS),
}


@dataclass(frozen=True)
class Change:
    """What a mutant changes: the lines before and after, each joined into one."""

    line: int
    before: str
    after: str


@dataclass
class Module:
    """A module, the arguments that give pytest its tests, and the changes that no test can notice: (before, after) to the reason."""

    path: str
    tests: list[str]
    equivalent: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def source(self) -> str:
        return (PROJECT / self.path).read_text()

    @property
    def session(self) -> Path:
        return WORK / f"{self.path.replace('/', '.')}-{_digest([PROJECT / self.path])}.sqlite"

    @cached_property
    def asked(self) -> str:
        """Digest of the tests, as they were when the copy was made: survivors of others are asked again."""
        files = [PROJECT / word.split("::")[0] for word in self.tests if word.startswith("tests/")]
        return hashlib.sha256("\n".join([*self.tests, _digest(files)]).encode()).hexdigest()[:12]


@dataclass
class Told:
    """A module's mutants, counted."""

    mutants: int = 0
    killed: int = 0
    timed_out: int = 0
    equivalent: int = 0
    waiting: int = 0
    survivors: list[Change] = field(default_factory=list)


class Tests:
    """A module's tests, in forks of a process that has imported their libraries. A context manager that ends the process."""

    def __init__(self, module: Module):
        words = [sys.executable, "-m", "benchmarks.forks", module.path, *module.tests]
        self.server = subprocess.Popen(words, cwd=TREE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment())

    def run(self, most: float) -> tuple[int | None, float]:
        """(pytest's exit code, None where the time was up; seconds)."""
        assert self.server.stdin and self.server.stdout
        self.server.stdin.write(f"{most}\n")
        self.server.stdin.flush()
        answer = self.server.stdout.readline()
        if not answer:
            raise SystemExit("error: the tests cannot be imported; see above")
        told = json.loads(answer)
        return told["code"], told["seconds"]

    def __enter__(self) -> Tests:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.server.stdin
        with contextlib.suppress(BrokenPipeError):
            self.server.stdin.close()  # ends it, once the run that it is at is over
        try:
            self.server.wait(1)
        except subprocess.TimeoutExpired:
            self._end()

    def _end(self) -> None:
        import psutil

        server = psutil.Process(self.server.pid)
        for one in [server, *server.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                one.kill()
        self.server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="all of the table if none is named")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cosmic_ray.plugins.OPERATOR_PROVIDERS["tower"] = OPERATORS
    modules = [m for m in load_table() if not options.modules or m.path in options.modules]
    try:
        if not options.show:
            _all(modules, time.monotonic() + 60 * options.minutes)
    except KeyboardInterrupt:
        print("stopped; what ran is kept")
    finally:
        tell(modules)


def load_table(file: Path = TABLE) -> list[Module]:
    """The modules of the table, in its order."""
    table = yaml.safe_load(file.read_text())
    modules = {path: Module(path, ["-m", "not ray and not models", *shlex.split(tests)]) for path, tests in table["modules"].items()}
    for one in table["equivalent"]:
        modules[one["module"]].equivalent[one["before"], one["after"]] = one["why"]
    return list(modules.values())


def _all(modules: Iterable[Module], until: float) -> None:
    copy_tree()
    for module in modules:
        with _session(module) as session:
            waiting = list(_waiting(session, module))
            if waiting and time.monotonic() < until:
                print(f"{module.path}: {len(waiting)} mutants to run", flush=True)
                _module(module, session, waiting, until)


def copy_tree() -> None:
    """A fresh copy of what git holds or would add."""
    shutil.rmtree(TREE, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=PROJECT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (PROJECT / name).is_file():
            (TREE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, TREE / name)


def _module(module: Module, session: WorkDB, waiting: list[WorkItem], until: float) -> None:
    source, file = module.source, TREE / module.path
    with Tests(module) as tests:
        code, seconds = tests.run(600)
        if code != 0:
            print(f"{module.path}: its tests fail without a change (pytest's code {code}); see {WORK / 'output.txt'}", flush=True)
            return
        most = SLACK_SECONDS + SLACK * seconds
        try:
            for item in waiting:
                if time.monotonic() > until:
                    return
                mutated = _mutated(source, item.mutations[0])
                _write(file, mutated)
                code, seconds = tests.run(most)
                if code is None:  # it hangs, or the machine was busy with something else
                    code, seconds = tests.run(2 * most)
                session.set_result(item.job_id, _result(module, source, mutated, code, seconds))
        finally:
            _write(file, source)


def _write(file: Path, source: str) -> None:
    file.write_text(source)
    for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
        compiled.unlink()  # Python tells a stale one by time and size, and a mutant can have both


def _result(module: Module, source: str, mutated: str, code: int | None, seconds: float) -> WorkResult:
    change = changed(source, mutated)
    outcome = TestOutcome.SURVIVED if code == 0 else TestOutcome.KILLED
    worker = WorkerOutcome.ABNORMAL if code is None else WorkerOutcome.NORMAL  # abnormal: the time was up
    kept = json.dumps([change.line, change.before, change.after])
    return WorkResult(worker, f"{module.asked} {seconds:.2f} s", outcome, kept)


def changed(source: str, mutated: str) -> Change:
    """The first place where the two differ. A mutant differs in one."""
    before, after = source.splitlines(), mutated.splitlines()
    for kind, i, j, k, m in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind != "equal":
            return Change(i + 1, " ".join(x.strip() for x in before[i:j]), " ".join(x.strip() for x in after[k:m]))
    return Change(0, "", "")


def _mutated(source: str, mutation: MutationSpec) -> str:
    operator = cosmic_ray.plugins.get_operator(mutation.operator_name)()
    return mutate_code(source, operator, mutation.occurrence) or source


# --- sessions -----------------------------------------------------------------------------------------------------------


@contextmanager
def _session(module: Module) -> Iterator[WorkDB]:
    """The module's session: its mutants and what became of them. A session of another version of the module is removed."""
    WORK.mkdir(exist_ok=True)
    for old in WORK.glob(f"{module.path.replace('/', '.')}-*.sqlite"):
        if old != module.session:
            old.unlink()
    session = WorkDB(module.session, WorkDB.Mode.create)
    try:
        if not session.num_work_items:
            session.add_work_items(_items(module))
        yield session
    finally:
        session.close()


def _items(module: Module) -> list[WorkItem]:
    """Every mutant that is wanted, in the order of the source. Annotations are never run, and nobody changes a frozen value."""
    from cosmic_ray.ast import ast_nodes, get_ast

    skipped, found, nodes = _never_run(module.source), [], list(ast_nodes(get_ast(module.source)))
    for name in sorted(WANTED):
        operator = cosmic_ray.plugins.get_operator(name)()
        places = [place for node in nodes for place in operator.mutation_positions(node)]
        for occurrence, (start, end) in enumerate(places):
            spec = MutationSpec(Path(module.path), name, occurrence, start, end)
            if not any(low <= start < high for low, high in skipped) and _is_new(module.source, spec):
                found.append(spec)
    found.sort(key=lambda spec: (spec.start_pos, spec.operator_name, spec.occurrence))
    return [WorkItem.single(f"{n:05}", spec) for n, spec in enumerate(found)]


def _is_new(source: str, spec: MutationSpec) -> bool:
    """Whether the mutant is other code, and code at all."""
    try:
        return ast.dump(ast.parse(_mutated(source, spec))) != ast.dump(ast.parse(source))
    except (SyntaxError, AttributeError):  # the library cannot replace one of several exceptions if its name has a dot
        return False


def _never_run(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where annotations and the options of dataclasses begin and end: (line, column) each."""
    every = list(ast.walk(ast.parse(source)))
    nodes = [a for n in every for a in (getattr(n, "annotation", None), getattr(n, "returns", None)) if a]
    nodes += [d for n in every for d in getattr(n, "decorator_list", ()) if "dataclass" in ast.unparse(d)]
    return [((n.lineno, n.col_offset), (n.end_lineno, n.end_col_offset)) for n in nodes]


def _waiting(session: WorkDB, module: Module) -> Iterator[WorkItem]:
    """Mutants that have not run, then survivors of other tests."""
    done = {item.job_id: result for item, result in session.completed_work_items}
    items = sorted(session.work_items, key=lambda item: item.job_id)
    yield from (item for item in items if item.job_id not in done)
    for item in items:
        result = done.get(item.job_id)
        if result is not None and _is_open(module, result) and not str(result.output).startswith(module.asked):
            yield item


def _is_open(module: Module, result: WorkResult) -> bool:
    """Whether the mutant survived, for no reason that is known."""
    return result.test_outcome == TestOutcome.SURVIVED and _reason(module, result) is None


def _reason(module: Module, result: WorkResult) -> str | None:
    _, before, after = json.loads(str(result.diff))
    return module.equivalent.get((before, after))


def told_of(module: Module) -> Told:
    """What is known of a module's mutants; nothing where none has run."""
    if not module.session.exists():
        return Told()
    with _session(module) as session:
        items, results = session.work_items, dict(session.results)
    told = Told(len(items), waiting=len(items) - len(results))
    for _, result in sorted(results.items()):
        if result.test_outcome != TestOutcome.SURVIVED:
            told.timed_out += result.worker_outcome == WorkerOutcome.ABNORMAL
            told.killed += result.worker_outcome == WorkerOutcome.NORMAL
        elif _reason(module, result) is not None:
            told.equivalent += 1
        else:
            told.survivors.append(Change(*json.loads(str(result.diff))))
    return told


def tell(modules: list[Module]) -> None:
    """Print the table, and every survivor."""
    table = Table(box=None)
    table.add_column("module")
    for name in ("mutants", "killed", "survived", "equivalent", "timed out", "not run yet"):
        table.add_column(name, justify="right")
    told = {module.path: told_of(module) for module in modules}
    for path, one in told.items():
        if not one.mutants:
            table.add_row(path, "not begun")
            continue
        table.add_row(path, *map(str, (one.mutants, one.killed, len(one.survivors), one.equivalent, one.timed_out, one.waiting)))
    console = Console(width=140)
    console.print(table)
    for path, one in told.items():
        for change in one.survivors:
            print(f"\n{path}:{change.line}\n  - {change.before}\n  + {change.after}")


# --- small things -------------------------------------------------------------------------------------------------------


def _digest(files: Iterable[Path]) -> str:
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:12]


def _environment() -> dict[str, str]:
    """Without a person's settings, and with the copy before whatever is on the path."""
    mine = {k: v for k, v in os.environ.items() if not k.startswith("TOWER_")}
    return mine | {"PYTHONPATH": os.pathsep.join(filter(None, [str(TREE), os.environ.get("PYTHONPATH")]))}


if __name__ == "__main__":
    main()
