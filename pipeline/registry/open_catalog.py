"""Open the catalog that the settings name. A new catalog starts with the project's own workflows and the evidence for them."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow.parquet as pq
import yaml

from catalog.schema import TABLES, VERSION
from catalog.store import Catalog
from pipeline import PROJECT
from pipeline.story.settings import Settings
from pipeline.story.workflow import RETIRED, WORKFLOWS, read_workflow

from .workflows import Registry, registry_row

EVIDENCE = PROJECT / "configs" / "evidence"
ALIASES = PROJECT / "configs" / "aliases.yaml"
OURS = "the project"  # recorded as the person who registered and promoted these workflows


def open_catalog(settings: Settings, evidence: bool = True) -> Catalog:
    """Open the catalog. A new one is created and seeded; an old version is upgraded and seeded.

    Args:
        evidence: False seeds no benchmarks and promotions, for a catalog that will measure them anew.
    """
    catalog = Catalog.open(settings.place)
    if catalog.was_version < VERSION or not catalog.rows("workflows", columns=["workflow"]):
        seed(catalog, settings, evidence)
    return catalog


def seed(catalog: Catalog, settings: Settings, evidence: bool) -> None:
    """Add the project's workflows, aliases, benchmarks and promotions that the catalog lacks.

    A benchmark row names the digest that it was measured on. If model files or libraries differ on this machine, the row
    proves nothing here, and the workflow's status says so.
    """
    for table, key in (("benchmarks", "benchmark"), ("promotions", "at")) if evidence else ():
        _add_evidence(catalog, table, key)
    _add_aliases(catalog)
    registry = Registry(catalog, settings)
    missing = []
    for path in [*sorted(WORKFLOWS.glob("*.yaml")), *sorted(RETIRED.glob("*.yaml"))]:
        workflow = read_workflow(path)
        if workflow.version not in registry.versions.get(workflow.name, {}):
            missing.append(registry_row(registry, workflow, f"{path.parent.parent.name}/{path.parent.name}/{path.name}", OURS))
    if missing:  # written last: a new catalog without workflows is seeded again, so a killed process leaves no gap
        catalog.append("workflows", missing)
    registry.digests.save()


def _add_evidence(catalog: Catalog, table: str, key: str) -> None:
    file = EVIDENCE / f"{table}.parquet"
    if not file.is_file():
        return
    have = {row[key] for row in catalog.rows(table, columns=list({key, "at"}))}
    rows = pq.read_table(file, schema=TABLES[table].schema).to_pylist(maps_as_pydicts="strict")
    new = [row for row in rows if row[key] not in have]
    if new:
        catalog.append(table, new)


def _add_aliases(catalog: Catalog) -> None:
    have = {row["alias"] for row in catalog.rows("promotions", columns=["alias", "at"])}
    now = datetime.now(UTC)
    new = []
    for name, target in yaml.safe_load(ALIASES.read_text()).items():
        workflow, _, version = target.partition("@")
        if name not in have:
            number = int(version) if version else None
            new.append({"at": now, "action": "alias", "alias": name, "workflow": workflow, "version": number, "by": OURS})
    if new:
        catalog.append("promotions", new)
