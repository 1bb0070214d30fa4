"""The command line: `tower`."""

from __future__ import annotations

import os
import signal
import sys

import typer

from pipeline.story.errors import InputError, StorageError

from .catalog import catalog_app
from .doctor import doctor
from .gate import gate_app
from .jobs import cancel, list_jobs, logs, submit
from .render import plan, render
from .table import err
from .takes import pause, rejudge, resume, review, status, takes
from .workflows import benchmark, docs, workflows_app

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help="Render whole anime episodes in batch.")
for command in (render, plan, status, takes, review, pause, resume, rejudge, benchmark, docs, submit, logs, cancel, doctor):
    app.command()(command)
app.command("jobs")(list_jobs)
app.add_typer(gate_app, name="gate")
app.add_typer(workflows_app, name="workflows")
app.add_typer(catalog_app, name="catalog")


def main() -> None:
    """The console script. A failure that is no bug gives one sentence and an exit code; a bug keeps its traceback."""
    code = _run()
    sys.stdout.flush()
    sys.stderr.flush()
    # All files are closed by now. A normal exit could crash: native threads of deltalake can abort during Python's shutdown.
    os._exit(code)


def _run() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's SIGTERM counts as Ctrl-C
    try:
        code = app(standalone_mode=False) or 0
    except typer.Exit as stop:
        code = stop.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        err.print(f"error: {sentence}", highlight=False, markup=False, soft_wrap=True)
        return 2
    if code == 130:  # typer turns KeyboardInterrupt into this code
        err.print("interrupted; every take so far is in the catalog, and `tower render` goes on from there", highlight=False)
    return code


def _sentence(error: Exception) -> str | None:
    """The sentence of an error that a person can act on; None for a bug, which keeps its traceback."""
    from catalog.media import MediaDamaged
    from catalog.store import CatalogError
    from cluster.specs import ModelBroken, NothingCanRun
    from cluster.start import ClusterError
    from gates.still import Undecodable

    if hasattr(error, "format_message"):  # typer's usage errors; their class is private to it
        return " ".join(error.format_message().split()) or "a command is missing; see tower --help"
    expected = InputError | StorageError | CatalogError | ClusterError | MediaDamaged | ModelBroken | NothingCanRun | Undecodable
    return str(error) if isinstance(error, expected) else None
