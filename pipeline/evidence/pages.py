"""The generated pages: what works, what was tried and failed, and what every column of the catalog holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from catalog.schema import TABLES, VERSION
from catalog.standing import Row, figures
from pipeline.registry.workflows import Registry
from pipeline.story.workflow import Workflow

HEAD = "<!-- Written by `make docs` from the registry, the ledger and benchmark rows; do not edit. -->\n"


def pages(registry: Registry) -> dict[str, str]:
    """The generated pages: file name to text."""
    return {"WORKING_SOLUTIONS.md": working(registry), "FAILED_ATTEMPTS.md": failed(registry), "TABLES.md": tables()}


def working(registry: Registry) -> str:
    """The page of proven workflows with their figures, and of workflows that are not proven yet."""
    proven, others = [], []
    for workflow in registry.all():
        standing = registry.standing(workflow)
        if standing.status == "proven":
            proven.append(_proven(registry, workflow, standing.evidence[0]))
        elif standing.status not in ("archived", "deprecated"):
            others.append({"workflow": workflow.title, "makes": workflow.makes, "status": standing.status, "why": standing.why})
    return "\n".join(
        [
            HEAD,
            "# What works\n",
            "A workflow stands here because benchmark rows say so: a frozen suite of shots and seeds, one take each, through the true "
            "pipeline and gates. `tower workflows explain NAME` shows the rows; anything that changes (a model file, a library, the suite, "
            "a gate profile) takes it off this list by itself.\n",
            markdown_table(proven) if proven else "Nothing is proven in this catalog yet.\n",
            "## Not proven\n",
            markdown_table(others) if others else "Nothing.\n",
            "These render with `--allow-experimental`. To prove one: `tower benchmark NAME --suite configs/suites/SUITE.yaml`, then "
            "`tower workflows promote NAME@V --evidence BENCHMARK`.\n",
        ]
    )


def failed(registry: Registry) -> str:
    """The page of retired workflows: description, reason and figures of each."""
    parts = [
        HEAD,
        "# What was tried and failed\n",
        "Retired workflows stay registered and load by name or digest (`tower workflows show NAME@V`, settings in `archive/workflows`), "
        "so that nobody tries the same thing again without knowing.\n",
    ]
    retired = [(w, s) for w in registry.all() if (s := registry.standing(w)).status in ("archived", "deprecated")]
    for workflow, standing in retired:
        parts += [f"## {workflow.title}: {standing.status}\n", f"{workflow.description}\n", f"**Why**: {standing.why}\n"]
        rows = registry.cells.get(standing.evidence[0], []) if standing.evidence else []
        if rows:
            parts.append(markdown_table([_proven(registry, workflow, standing.evidence[0])]))
        digest = registry.versions[workflow.name][workflow.version]["settings_digest"]
        parts.append(f"Settings `#{digest[:12]}`.\n")
    if not retired:
        parts.append("Nothing has been retired in this catalog yet.\n")
    return "\n".join(parts)


def tables() -> str:
    """The page of the catalog's tables, column by column."""
    parts = [
        HEAD,
        "# The catalog's tables\n",
        f"Version {VERSION}. Seconds are wall-clock seconds, sizes bytes, digests SHA-256 in hexadecimal, times UTC. Rows are only ever "
        "added. `since` is the version that brought a column; in rows that are older it is null.\n",
    ]
    for table in TABLES.values():
        columns = [{"column": f"`{c.name}`", "type": f"`{c.type}`", "holds": c.doc, "since": c.since} for c in table.columns]
        parts += [f"## {table.name}\n", f"{table.doc}\n", markdown_table(columns)]
    return "\n".join(parts)


def _proven(registry: Registry, workflow: Workflow, benchmark: str) -> dict[str, Any]:
    rows: Sequence[Row] = registry.cells[benchmark]
    f = figures(rows)
    rejected = ", ".join(f"{label} {n}" for label, n in f.labels.items())
    return {
        "workflow": workflow.title,
        "makes": workflow.makes,
        "first takes accepted (95 % bounds)": f"{f.passed}/{f.judged} = {f.rate:.3f} ({f.low:.3f}–{f.high:.3f})",
        "rejected for": rejected or "–",
        "device seconds p50, p95": f"{f.seconds_p50:.2f}, {f.seconds_p95:.2f}",
        "peak GB": f"{f.peak_memory_bytes / 1e9:.2f}",
        "device": f.device,
        "benchmark": f"`{benchmark}`",
        "date": f"{rows[0]['at']:%Y-%m-%d}",
    }


def markdown_table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows with the same keys as a Markdown table."""
    keys = list(rows[0])
    lines = [keys, ["---"] * len(keys), *([str(r[k]).replace("|", "\\|") for k in keys] for r in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
