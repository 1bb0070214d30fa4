"""Mends what `damage` finds. Nothing is deleted: what is damaged goes to `damaged/`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction

from .commit import HINT, LOG, commit, copies, copy_of, live_files, removed, seal, seal_new
from .damage import Checked, Problem, data_problems, log_problems
from .place import Place
from .schema import TABLES
from .store import CatalogError


@dataclass(frozen=True)
class Mended:
    """A problem, and what was done about it, in words; `lost` where rows or media are gone, which Tower then makes again."""

    problem: Problem
    done: str
    lost: bool = False


def repair(place: Place) -> Iterator[Mended]:
    """Mend the tables of a catalog, and tell what was done.

    A log and its copies mend each other, so a commit is lost only where both are damaged. Rows in a damaged data file are lost, and
    Tower renders their takes again; their media are still stored, and equal bytes become the same files.

    Raises:
        CatalogError: a table cannot be repaired.
    """
    for name in TABLES:
        try:
            yield from _mend_log(place, name)
            yield from _mend_data(place, name)
        except (DeltaError, OSError) as error:
            why = " ".join(str(error).split())[:200]
            raise CatalogError(
                f"{name} of catalog {place} cannot be repaired: {why}; `tower catalog verify` says what is damaged, "
                f"and a backup or an export is the way to its rows"
            ) from error


def _mend_log(place: Place, name: str) -> Iterator[Mended]:
    problems = [p for p in log_problems(place, name, Checked()) if p.harmful or p.kind == "unsealed"]
    spoilt = {p.path for p in problems if p.kind == "copy"}
    copied = {file: [d for d in digests if copy_of(name, file, d) not in spoilt] for file, digests in copies(place, name).items()}
    for problem in problems:
        if problem.kind == "log":
            yield _mend_entry(place, name, problem, copied)
    for problem in problems:
        if problem.kind != "log":
            if problem.kind == "copy":
                place.set_aside(problem.path)
            file = _log_file(problem.path)
            if place.files.get_file_info(f"{name}/{LOG}/{file}").is_file:
                seal(place, name, [file])
                yield Mended(problem, "copied from the log again")
            else:
                yield Mended(problem, "set aside")


def _mend_entry(place: Place, name: str, problem: Problem, copied: dict[str, list[str]]) -> Mended:
    """Put a file of a log back from its copy; without one, do what loses least."""
    file = _log_file(problem.path)
    whole = copied.get(file, [])
    if f"/{LOG}/" not in problem.path:
        return _commit_again(place, name, problem)
    place.set_aside(problem.path)
    if whole:
        place.write(problem.path, place.read(copy_of(name, file, whole[0])))
        return Mended(problem, "put back from its copy")
    if not file.endswith(".json"):
        return Mended(problem, "set aside: the log is read without it")
    newest = max((int(f[:20]) for f in place.list(f"{name}/{LOG}") if f.endswith(".json")), default=-1)
    if int(file[:20]) < newest:  # Delta reads no log with a gap
        nothing = {"commitInfo": {"timestamp": 0, "operation": "REPAIR", "operationParameters": {}}}
        place.write(problem.path, json.dumps(nothing).encode())
        seal(place, name, [file])
    return Mended(problem, "set aside; it has no whole copy, so its rows are lost", lost=True)


def _commit_again(place: Place, name: str, problem: Problem) -> Mended:
    """Commit once more what a lost commit had added: after its entry was gone, another commit took its number."""
    adds = [line["add"] for line in map(json.loads, place.read(problem.path).decode().splitlines()) if "add" in line]
    table = DeltaTable(place.table(name))
    there = live_files(table)
    actions: list[AddAction] = [
        AddAction(a["path"], a["size"], {}, a["modificationTime"], True, a.get("stats") or "{}") for a in adds if a["path"] not in there
    ]
    if actions:
        commit(place, name, table, actions)
    place.set_aside(problem.path)
    return Mended(problem, "committed once more")


def _mend_data(place: Place, name: str) -> Iterator[Mended]:
    problems = [p for p in data_problems(place, name, Checked()) if p.harmful]
    for problem in problems:
        if problem.kind == "log":
            raise DeltaError(problem.what)
        place.set_aside(problem.path)
    damaged = {p.path.removeprefix(f"{name}/"): p for p in problems if p.kind == "data"}
    if damaged:
        table = DeltaTable(place.table(name))
        sizes = live_files(table)
        seal_new(place, name)
        commit(place, name, table, [removed(path, sizes[path]) for path in damaged])
    for problem in problems:
        lost = problem.kind == "data"
        yield Mended(problem, "set aside" + ("; its rows are lost" if lost else ""), lost=lost)


def _log_file(path: str) -> str:
    """Name of the log's file that a path names: the file itself, or a copy of it."""
    name = path.rpartition("/")[2]
    return HINT if name.startswith(HINT) else name if name.endswith((".json", ".parquet")) else name[: -len(".") - 64]
