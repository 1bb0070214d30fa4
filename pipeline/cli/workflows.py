"""`tower workflows …`, `tower benchmark`, `tower docs`: the workflows, and the evidence for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from catalog.standing import name_of

from .common import in_ascii
from .table import out, show

if TYPE_CHECKING:
    from pipeline.registry.workflows import Registry

workflows_app = typer.Typer(help="The registry: versions that never change, and a status that evidence gives.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
Ref = Annotated[str, typer.Argument(metavar="NAME[@V]", help="name, name@version, alias, or # and the beginning of a digest")]
By = Annotated[str, typer.Option(metavar="WHO", help="who decides; you, if not given")]
Why = Annotated[str, typer.Option(metavar="TEXT", help="the reason")]
Evidence = Annotated[str, typer.Option(metavar="BENCHMARK", help="id of a benchmark")]


@workflows_app.command("list")
def list_all(as_json: AsJson = False) -> None:
    """Every registered version: the status that holds here and now, what it makes, and whether its files are here."""
    from pipeline.registry.told import listing

    show(listing(_registry()), as_json)


@workflows_app.command("show")
def show_one(ref: Ref, as_json: AsJson = False) -> None:
    """Everything that a version is: settings, files, libraries, digests, status."""
    from pipeline.registry.told import details

    registry = _registry()
    told = details(registry, registry.resolve(in_ascii(ref, "workflow"), "tower workflows show"))
    if as_json:
        print(json.dumps(told, indent=2, default=str, ensure_ascii=False))
        return
    flat = {k: v for k, v in told.items() if k != "settings"} | told["settings"]
    show([{"what": k, "is": json.dumps(v, ensure_ascii=False) if isinstance(v, dict) else v} for k, v in flat.items()], False)


@workflows_app.command("register")
def register_file(file: Annotated[Path, typer.Argument(metavar="FILE")], by: By = "") -> None:
    """Record a workflow file as a version, for ever."""
    from pipeline.registry.workflows import register
    from pipeline.story.workflow import read_workflow

    registry = _registry()
    row, new = register(registry, read_workflow(file), str(file), by)
    registry.digests.save()
    state = "registered" if new else "was registered before, and is the same"
    out.print(f"{name_of(row)} {state}; settings {row['settings_digest'][:12]}", highlight=False)


@workflows_app.command()
def diff(a: Ref, b: Ref, as_json: AsJson = False) -> None:
    """What differs between two versions: settings, model files, libraries."""
    from pipeline.registry.told import differences

    registry = _registry()
    one, two = (registry.resolve(in_ascii(ref, "workflow"), "tower workflows diff") for ref in (a, b))
    show(differences(registry, one, two, (a, b)), as_json, "nothing differs")


@workflows_app.command()
def explain(ref: Ref, as_json: AsJson = False) -> None:
    """The status, and the rows that it is derived from."""
    from pipeline.registry.told import explained

    registry = _registry()
    workflow = registry.resolve(in_ascii(ref, "workflow"), "tower workflows explain")
    told = explained(registry, workflow)
    if as_json:
        print(json.dumps(told, indent=2, default=str, ensure_ascii=False))
        return
    out.print(f"{workflow.title} is {told['status']}: {told['why']}", highlight=False, soft_wrap=True)
    for row in told["ledger"]:
        decision = f"{row['at']:%Y-%m-%d} {row['action']} by {row['by']}"
        said = [row["evidence"], row["why"] if row["why"] != told["why"] else ""]  # the first line has told that reason
        out.print(": ".join(filter(None, (f"  ledger: {decision}", ", ".join(filter(None, said))))), highlight=False, soft_wrap=True)
    keys = ("benchmark", "case", "seed", "outcome", "labels", "device_seconds", "take", "device")
    show([{k: row[k] for k in keys} for row in told["cells"]], False, "no benchmark rows")


@workflows_app.command()
def promote(ref: Ref, evidence: Evidence, by: By = "") -> None:
    """Call a version proven. Refused, with the numbers, where the benchmark does not reach what its suite demands."""
    from pipeline.registry import promotions

    registry = _registry()
    row = promotions.promote(registry, in_ascii(ref, "workflow"), evidence, by)
    out.print(f"{name_of(row)} is proven by {evidence}", highlight=False)


@workflows_app.command()
def deprecate(ref: Ref, why: Why = "", by: By = "", evidence: Evidence = "") -> None:
    """It works, but something better has its place."""
    _retire("deprecate", ref, why, by, evidence)


@workflows_app.command()
def archive(ref: Ref, why: Why = "", by: By = "", evidence: Evidence = "") -> None:
    """Retire a version, with the reason."""
    _retire("archive", ref, why, by, evidence)


@workflows_app.command()
def alias(name: Annotated[str, typer.Argument(metavar="ALIAS")], ref: Ref, by: By = "") -> None:
    """Let a name stand for a workflow (its newest version), or for name@version; moves it if it stood for another."""
    from pipeline.registry import promotions

    row = promotions.alias(_registry(), in_ascii(name, "alias"), in_ascii(ref, "workflow"), by)
    out.print(f"{name} is {row['workflow']}" + (f"@{row['version']}" if row["version"] else ""), highlight=False)


def benchmark(
    ref: Ref,
    suite: Annotated[Path, typer.Option(metavar="FILE", help="configs/suites/NAME.yaml")],
    against: Annotated[str, typer.Option(metavar="NAME[@V]", help="the incumbent, on the same cells")] = "",
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="where the report is written")] = Path("out"),
    fresh: Annotated[bool, typer.Option(help="render again even cells that have their take")] = False,
) -> None:
    """Measure a workflow on a frozen suite, through the true pipeline and gates; rows go to the catalog, a report to DIR."""
    from pipeline.evidence.benchmark import run_benchmark
    from pipeline.evidence.report import write_report
    from pipeline.story.settings import load_settings

    done = run_benchmark(in_ascii(ref, "workflow"), suite, in_ascii(against, "--against") or None, fresh, load_settings(), out)
    folder, rows = write_report(done, out_dir)
    show(rows, False)
    out.print(f"{done.rows[0]['benchmark']}", highlight=False)
    out.print(f"{folder / 'report.md'}", highlight=False, soft_wrap=True)


def docs(
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="where the pages are written")] = Path("docs"),
) -> None:
    """Write WORKING_SOLUTIONS.md and FAILED_ATTEMPTS.md from this catalog's registry and ledger, and TABLES.md."""
    from pipeline.evidence.pages import pages

    for name, text in pages(_registry()).items():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
        out.print(str(folder / name), highlight=False)


def _retire(action: str, ref: str, why: str, by: str, evidence: str) -> None:
    from pipeline.registry import promotions

    row = promotions.retire(_registry(), action, in_ascii(ref, "workflow"), why, by, evidence)
    out.print(f"{name_of(row)} is {action}d: {row['why']}", highlight=False, soft_wrap=True)


def _registry() -> Registry:
    from pipeline.registry.open_catalog import open_catalog
    from pipeline.registry.workflows import Registry
    from pipeline.story.settings import load_settings

    settings = load_settings()
    return Registry(open_catalog(settings), settings)
