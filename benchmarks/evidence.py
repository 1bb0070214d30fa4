"""The project's own evidence: measure what it ships and what it retired, decide by the numbers, write it down.

    python -m benchmarks.evidence           seven minutes on two cores; writes configs/evidence and the pages in docs/

What can be proven on this machine is: the demo workflows, and the retired ones with the reasons in
archive/reasons.yaml. Retired ones for real weights are not measured. A full-size workflow is proven by whoever runs it on real weights.
"""

from __future__ import annotations

import argparse
import tempfile

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from rich.console import Console

from catalog.schema import TABLES
from catalog.standing import Row
from pipeline.evidence.benchmark import run_benchmark
from pipeline.evidence.pages import pages
from pipeline.registry import promotions as promotions
from pipeline.registry.open_catalog import EVIDENCE, OURS, open_catalog
from pipeline.registry.workflows import Registry
from pipeline.story.settings import PROJECT, Settings, load_settings
from pipeline.story.suite import SUITES

PROVEN = {  # to the suite that it is measured on
    "sd15_keyframe_demo@1": "demo",
    "ltx_video_2b_demo@1": "demo",
    "animatediff_16_demo@2": "demo",
    "upscale_compact_demo@1": "demo_finish",
}
REASONS = PROJECT / "archive" / "reasons.yaml"


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    console = Console(width=150)
    with tempfile.TemporaryDirectory(prefix="tower-evidence-") as folder:
        settings = load_settings().model_copy(update={"catalog_uri": folder})
        open_catalog(settings, evidence=False)
        suite = SUITES / "demo.yaml"
        for ref, measured_on in PROVEN.items():
            done = run_benchmark(ref, SUITES / f"{measured_on}.yaml", None, False, settings, console)
            promotions.promote(registry_of(settings), ref, done.rows[0]["benchmark"], OURS)
        for ref, why in yaml.safe_load(REASONS.read_text()).items():
            measurable = registry_of(settings).resolve(ref, "evidence").checkpoint.startswith("demo:")
            benchmark = run_benchmark(ref, suite, None, False, settings, console).rows[0]["benchmark"] if measurable else ""
            promotions.retire(registry_of(settings), "archive", ref, " ".join(why.split()), OURS, benchmark)
        registry = registry_of(settings)
        for name, rows in (("benchmarks", [r for cells in registry.cells.values() for r in cells]), ("promotions", decisions(registry))):
            table = pa.Table.from_pylist(rows, schema=TABLES[name].schema)
            pq.write_table(table, EVIDENCE / f"{name}.parquet", compression="zstd")
        for name, text in pages(registry).items():
            (PROJECT / "docs" / name).write_text(text, encoding="utf-8")


def registry_of(settings: Settings) -> Registry:
    return Registry(open_catalog(settings, evidence=False), settings)


def decisions(registry: Registry) -> list[Row]:
    return [row for row in registry.ledger if row["action"] != "alias"]


if __name__ == "__main__":
    main()
