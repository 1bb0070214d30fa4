"""`tower models …`: what model files are, before a workflow names them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import in_ascii
from .table import err, out, show

if TYPE_CHECKING:
    from actors.identify import Found

models_app = typer.Typer(help="Model files: what they are, and how a workflow would use them.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="print a JSON list of objects")]
Files = Annotated[list[Path], typer.Argument(metavar="FILE…", help="safetensors files, GGUF files, diffusers folders")]


@dataclass(frozen=True)
class Told:
    """A file, what it is, and how large. error: why it cannot be read; found is None then."""

    path: Path
    found: Found | None
    error: str = ""
    bytes: int = 0
    parameters: int = 0
    types: tuple[str, ...] = ()


@models_app.command()
def inspect(files: Files, as_json: AsJson = False) -> None:
    """What each file is, and the line of YAML that would use it. Headers are read, no weights. Exit code 1 if Tower cannot use one."""
    told = [_told(path) for path in files]
    if as_json:
        print(json.dumps([_as_row(t) for t in told], indent=2, ensure_ascii=False))
    else:
        for one in told:
            _print(one)
    if all(t.found is None for t in told):
        raise typer.Exit(2)
    if any(t.found is None or t.found.faults for t in told):
        raise typer.Exit(1)


@models_app.command("import")
def import_one(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="a checkpoint in TOWER_MODELS_DIR: a folder, .safetensors or .gguf")],
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="the workflow's name")],
    base: Annotated[str, typer.Option(metavar="FOLDER", help="for one file: a diffusers folder of the same architecture")] = "",
) -> None:
    """Write a starter workflow for a checkpoint, NAME.yaml, and register it as experimental."""
    from pipeline.registry.open_catalog import open_catalog
    from pipeline.registry.starter import starter
    from pipeline.registry.workflows import Registry, register
    from pipeline.story.errors import InputError
    from pipeline.story.settings import load_settings
    from pipeline.story.workflow import read_workflow

    settings, target = load_settings(), Path(f"{in_ascii(name, 'workflow')}.yaml")
    if target.exists():
        raise InputError(f"{target} is there already; choose another name, or move it")
    text = starter(file, name, base, settings)
    registry = Registry(open_catalog(settings), settings)
    try:
        target.write_text(text, encoding="utf-8")
        workflow = read_workflow(target)
        registry.prepare(workflow)
        register(registry, workflow, str(target))
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    registry.digests.save()
    out.print(f"{target} is written and {workflow.title} registered, as experimental", soft_wrap=True)
    out.print(f"try it: keyframe_workflow or clip_workflow: {name} in an episode, and `tower render --allow-experimental`", soft_wrap=True)


@models_app.command()
def pull(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="owner/repository, or owner/repository/FILE.safetensors")],
    revision: Annotated[str, typer.Option(metavar="COMMIT", help="the commit, 40 digits; for a branch you are told which it is now")],
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="in TOWER_MODELS_DIR; as on the hub, if not given")] = "",
) -> None:
    """Fetch what Tower would open of a model on a hub: of one commit, checked byte for byte; an interrupted pull goes on."""
    from pipeline.registry.pull import pull  # before all that imports `actors`, which closes the network
    from pipeline.story.settings import load_settings

    target = pull(source, revision, name, load_settings(), lambda told: out.print(told, soft_wrap=True))
    _print(_told(target))


@models_app.command()
def check(
    workflows: Annotated[list[str] | None, typer.Argument(metavar="[WORKFLOW…]", help="all but archived ones, if none is given")] = None,
    as_json: AsJson = False,
) -> None:
    """Whether workflows' files are here, and on each node of the cluster at RAY_ADDRESS: whole, fitting, the same. Exit code 2 if not."""
    from pipeline.doctor.model_files import check_models, sentences
    from pipeline.doctor.workflows import last_decision
    from pipeline.registry.open_catalog import open_catalog
    from pipeline.registry.workflows import Registry
    from pipeline.story.cluster_profile import cluster_profile
    from pipeline.story.settings import load_settings

    settings = load_settings()
    registry = Registry(open_catalog(settings), settings)
    known = [w for w in registry.all() if (last_decision(registry, w) or {}).get("action") != "archive"]
    chosen = [registry.resolve(in_ascii(name, "workflow"), "tower models check") for name in workflows or []]
    found = check_models(registry, chosen or known, cluster_profile(settings))
    rows = [asdict(row) for row in found]
    show(rows if as_json else [{k: v for k, v in row.items() if k != "fault"} for row in rows], as_json, "no workflows")
    for told in sentences(found):
        err.print(f"error: {told}", soft_wrap=True)
    if any(row.fault for row in found):
        raise typer.Exit(2)


def _told(path: Path) -> Told:
    from actors.folders import identify_folder
    from actors.headers import read_header
    from actors.identify import identify, types
    from actors.values import ModelError

    try:
        if path.is_dir():
            weights = list(path.rglob("*.safetensors"))
            return Told(path, identify_folder(path), bytes=sum(f.stat().st_size for f in weights))
        header = read_header(path)
        count = types(header)
        return Told(path, identify(header), "", path.stat().st_size, sum(count.values()), tuple(count))
    except ModelError as error:
        return Told(path, None, str(error))
    except (OSError, ValueError) as error:  # a name that no file can have
        return Told(path, None, f"{str(path)[:200]!r} cannot be read: {getattr(error, 'strerror', None) or error}")


def _print(told: Told) -> None:
    if told.found is None:
        err.print(f"error: {told.error}", soft_wrap=True)
        return
    found, size = told.found, f"{told.bytes / 1e9:.2f} GB" if told.bytes >= 1e9 else f"{told.bytes / 1e6:.1f} MB"
    amount = f", {told.parameters:,} parameters in {', '.join(told.types)}" if told.parameters else ""
    title = f"{found.kind}, {found.architecture}" if found.architecture else found.kind
    out.print(f"{told.path}: {title} ({size}{amount})", soft_wrap=True)
    lines = [("parts", ", ".join(found.parts)), *(("note", n) for n in found.notes if n), *(("fault", f) for f in found.faults)]
    if found.unknown:
        lines.append(("unknown", f"{len(found.unknown)} keys, such as {', '.join(found.unknown[:3])}"))
    for name, text in [*lines, ("use", found.use)]:
        if text:
            out.print(f"    {name + ':':9}{text}", soft_wrap=True)


def _as_row(told: Told) -> dict[str, Any]:
    row: dict[str, Any] = {"file": str(told.path), "bytes": told.bytes, "parameters": told.parameters, "types": list(told.types)}
    if told.found is None:
        return row | {"kind": None, "error": told.error}
    f = told.found
    row |= {"kind": f.kind, "architecture": f.architecture, "family": f.family, "parts": list(f.parts), "notes": [n for n in f.notes if n]}
    row |= {"faults": list(f.faults), "unknown": list(f.unknown), "use": f.use}
    return row | ({"ranks": f.lora.ranks, "alphas": f.lora.alphas} if f.lora else {})
