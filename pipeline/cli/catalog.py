"""`tower catalog …`: query, check, repair and tidy the catalog."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.story.errors import InputError

from .table import out, show

if TYPE_CHECKING:
    from catalog.damage import Checked, Problem
    from catalog.place import Place
    from catalog.store import Catalog

LONGEST_HOURS = 876_000  # a hundred years
catalog_app = typer.Typer(help="The record of everything that happened: ask it, prove it, tidy it.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="print a JSON list of objects")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="only tell what would be deleted")]
Older = Annotated[float, typer.Option("--older-than", metavar="HOURS", min=0, help="younger files stay: their rows may be on their way")]
Retain = Annotated[float, typer.Option("--retain", metavar="HOURS", min=0, help="how far back time travel must reach")]
Quick = Annotated[bool, typer.Option("--quick", help="tables only; media are not read")]
Sql = Annotated[str, typer.Argument(metavar="SQL", help='read by DuckDB; write the column "at" in double quotes')]


@catalog_app.command()
def verify(quick: Quick = False, as_json: AsJson = False) -> None:
    """Read every byte of tables and media again, and compare it with its digest. Exit code 1 if anything that counts is wrong."""
    from catalog.care import verify as look
    from catalog.damage import Checked

    place, checked = _place(), Checked()
    with _reading(place):
        problems = list(look(place, checked, media=not quick))
    rows = [{"kind": p.kind, "path": p.path, "what": p.what} for p in problems]
    if rows or as_json:
        show(rows, as_json)
    if not as_json:
        out.print(_verdict(problems, checked, quick), highlight=False, soft_wrap=True)
    if any(p.harmful for p in problems):
        raise typer.Exit(1)


def _verdict(problems: list[Problem], checked: Checked, quick: bool) -> str:
    """What was found and what was looked at: no more than was checked."""
    counts = ", ".join(f"{n} {kind}" for kind, n in Counter(p.kind for p in problems).items())
    media = "media were not looked at" if quick else f"{checked.media} media files"
    known = checked.data_files - checked.without_digest
    looked = f"{checked.log_files} files of logs, {known} data files, {media}"
    blind = f"; {checked.without_digest} data files are older than digests and could only be read, `tower catalog compact` gives them one"
    mend = "; `tower catalog repair` mends what can be mended" if any(p.harmful for p in problems) else ""
    return f"{counts or 'everything that was looked at is as it was written'} ({looked}{blind if checked.without_digest else ''}){mend}"


@catalog_app.command()
def repair() -> None:
    """Put damaged logs back from their copies, and set other damaged files aside (to damaged/). What they recorded renders again."""
    from catalog.care import verify as look
    from catalog.damage import Checked
    from catalog.repair import repair as mend

    place, lost, found = _place(), False, False
    with _reading(place):
        for mended in mend(place):
            out.print(f"{mended.problem.what}: {mended.done}", highlight=False, soft_wrap=True)
            found, lost = True, lost or mended.lost
        for problem in look(place, Checked()):
            if problem.kind in ("corrupt", "missing"):
                place.set_aside(problem.path)
                out.print(f"{problem.what}: {'set aside' if problem.kind == 'corrupt' else 'lost'}", highlight=False, soft_wrap=True)
                found = lost = True
    next_step = "`tower render` makes again what is missing" if lost else "nothing is lost" if found else "nothing was damaged"
    out.print(f"the catalog can be read; {next_step}", highlight=False)


@catalog_app.command()
def gc(older: Older = 24, dry_run: DryRun = False) -> None:
    """Delete media of no take and no story, and parts of movies that no render used since; these are made again when they are needed."""
    from catalog.care import collect_garbage

    gone = collect_garbage(_catalog(), _hours(older, "--older-than"), dry_run)
    for path, _ in gone:
        out.print(path, highlight=False, soft_wrap=True)
    deleted = "would be deleted" if dry_run else "deleted"
    out.print(f"{len(gone)} files, {sum(size for _, size in gone) / 1e6:.1f} MB {deleted}", highlight=False)


@catalog_app.command("compact")
def compact_tables() -> None:
    """Join the small data files of all tables. Renders may go on meanwhile."""
    from catalog.care import compact
    from catalog.schema import TABLES

    joined = compact(_catalog(), list(TABLES))
    show([{"table": name, "files_before": before, "files_after": after} for name, (before, after) in joined.items()], False)


@catalog_app.command()
def vacuum(retain: Retain = 168, dry_run: DryRun = False) -> None:
    """Delete data files that only older versions of the tables need. No live row and no media is touched."""
    from catalog.care import vacuum as sweep

    gone = sweep(_catalog(), _hours(retain, "--retain"), dry_run)
    out.print(f"{len(gone)} data files {'would be deleted' if dry_run else 'deleted'}", highlight=False)


@catalog_app.command()
def export(folder: Annotated[Path, typer.Argument(metavar="DIR", help="a new folder")]) -> None:
    """Write the live rows of all tables as plain Parquet: DIR/<table>/*.parquet."""
    from catalog.care import export as write

    show([{"table": name, "rows": rows} for name, rows in write(_catalog(), folder).items()], False)


@catalog_app.command()
def query(sql: Sql, as_json: AsJson = False) -> None:
    """Ask the live tables anything: runs, takes, judgements, reviews, workflows …, and the views verdicts, shots, episodes."""
    import duckdb

    from catalog.schema import TABLES
    from catalog.views import VIEWS

    try:
        rows = _catalog().sql(sql, TABLES, VIEWS).to_pylist(maps_as_pydicts="strict")
    except duckdb.Error as error:
        hint = '; the column "at" needs its quotes' if " at" in f" {sql}" and '"at"' not in sql else ""
        raise InputError(f"query: {str(error).splitlines()[0]}{hint}") from error
    show(rows, as_json, "no rows")


@catalog_app.command()
def history(table: Annotated[str, typer.Argument(metavar="TABLE")], as_json: AsJson = False) -> None:
    """The commits of a table, newest first."""
    from catalog.care import history as commits

    show(commits(_catalog(), table), as_json)


@contextmanager
def _reading(place: Place) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"catalog {place} cannot be reached: {' '.join(str(error).split())[:300]}") from error


def _hours(given: float, option: str) -> timedelta:
    if not math.isfinite(given) or given > LONGEST_HOURS:
        raise InputError(f"{option} {given:g} is no number of hours; give one from 0 to {LONGEST_HOURS:,}")
    return timedelta(hours=given)


def _place() -> Place:
    """The place of a catalog that exists."""
    from pipeline.story.settings import load_settings

    place = load_settings().place
    with _reading(place):
        if "takes" not in place.list(""):
            raise InputError(f"there is no catalog at {place}; `tower render` makes one, TOWER_CATALOG_URI names another")
    return place


def _catalog() -> Catalog:
    from catalog.store import Catalog

    return Catalog.open(_place())
