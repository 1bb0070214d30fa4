"""The command line: `tower`."""

from __future__ import annotations

import os
import signal
import sys

import typer

from pipeline.story.errors import InputError, StorageError
from pipeline.story.yaml_values import shortened

from .catalog import catalog_app
from .doctor import doctor
from .gate import gate_app
from .imports import import_story, new
from .jobs import cancel, list_jobs, logs, submit
from .models import models_app
from .render import plan, render
from .report import report
from .review import review
from .serve import serve
from .table import err
from .takes import pause, rejudge, resume, status, takes
from .terminal import MayBeLost
from .timeline import conform, timeline
from .workflows import benchmark, docs, workflows_app

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help="Render whole anime episodes in batch.")
shown, spoken, others = (render, plan, serve, status, takes, report, timeline, conform), (review, pause, resume), (rejudge, benchmark, docs)
for command in (*shown, *spoken, *others, submit, logs, cancel, doctor):
    app.command()(command)
app.command()(new)
app.command("import")(import_story)
app.command("jobs")(list_jobs)
app.add_typer(gate_app, name="gate")
app.add_typer(workflows_app, name="workflows")
app.add_typer(catalog_app, name="catalog")
app.add_typer(models_app, name="models")


def main() -> None:
    """The console script. A failure that is no bug gives one sentence and an exit code; a bug keeps its traceback."""
    sys.stdout, sys.stderr = MayBeLost(sys.stdout), MayBeLost(sys.stderr)  # type: ignore[assignment]
    code = _run()
    sys.stdout.flush()
    sys.stderr.flush()
    # All files are closed by now. A normal exit could crash: native threads of deltalake can abort during Python's shutdown.
    os._exit(code)


def _run() -> int:
    # A scheduler's SIGTERM and a terminal that is closed (SIGHUP, unless nohup has it ignored) count as Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a file's name may hold bytes that are no text
    try:
        _check_words(sys.argv[1:])
        code = app(standalone_mode=False) or 0
    except typer.Exit as stop:
        code = stop.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except SystemExit as stop:  # while Ray starts, its handler exits with the signal's number
        code = 130 if stop.code == signal.SIGTERM else int(stop.code or 0)
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        err.print(f"error: {sentence}", highlight=False, markup=False, soft_wrap=True)
        return 2
    if code == 130:  # typer turns KeyboardInterrupt into this code
        err.print("interrupted; every take so far is in the catalog, and `tower render` goes on from there", highlight=False)
    return code


def _check_words(words: list[str]) -> None:
    """Raises InputError where a word of the command line can be neither text nor a file's name."""
    for word in words:
        try:
            os.fsencode(word).index(0)
        except UnicodeEncodeError as error:
            raise InputError(f"{shortened(word)!r} on the command line holds half a character; give it whole") from error
        except ValueError:
            continue
        raise InputError(f"{shortened(word)!r} on the command line holds a NUL; no file's name and no text has one")


def _sentence(error: Exception) -> str | None:
    """The sentence of an error that a person can act on; None for a bug, which keeps its traceback."""
    from catalog.media import MediaDamaged
    from catalog.place import PlaceError
    from catalog.store import CatalogError
    from cluster.code import CodeError
    from cluster.specs import ModelBroken, NothingCanRun
    from cluster.start import ClusterError
    from gates.still import Undecodable

    if hasattr(error, "format_message"):  # typer's usage errors; their class is private to it
        return " ".join(error.format_message().split()) or "a command is missing; see tower --help"
    if isinstance(error, PlaceError):
        return f"TOWER_CATALOG_URI: {error}"
    if isinstance(error, UnicodeEncodeError):  # bytes that are no UTF-8, where the catalog or a model wants text
        return f"{shortened(error.object)!r} is not text in UTF-8"
    expected = (InputError, StorageError, CatalogError, ClusterError, CodeError, MediaDamaged, ModelBroken, NothingCanRun, Undecodable)
    return str(error) if isinstance(error, expected) else None
