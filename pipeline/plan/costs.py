"""What a take will cost, from what takes have cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

from catalog.standing import name_of
from catalog.store import Catalog
from pipeline.registry.workflows import Ready, Registry

HISTORY = """
SELECT workflow || '@' || workflow_version AS name, median(device_seconds) AS seconds,
    count(*) / greatest(count(*) FILTER (outcome = 'accepted'), 1) AS takes
FROM takes WHERE device_seconds IS NOT NULL GROUP BY ALL
"""


@dataclass(frozen=True)
class Costs:
    """Workflow `name@version` to seconds on a device for one accepted result, rejected takes included."""

    known: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, catalog: Catalog, registry: Registry) -> Costs:
        """From the catalog's own takes; where a workflow has none, from its benchmarks, on whatever device they ran."""
        known: dict[str, float] = {}
        for rows in registry.cells.values():
            timed = [r["device_seconds"] for r in rows if r["device_seconds"] is not None]
            passed = sum(r["outcome"] == "accepted" for r in rows)
            if timed:
                known[name_of(rows[0])] = median(timed) * len(rows) / max(passed, 1)
        history = catalog.sql(HISTORY, ("takes",)).to_pylist()
        return cls(known | {row["name"]: row["seconds"] * row["takes"] for row in history})

    def seconds(self, ready: Ready) -> float | None:
        return self.known.get(ready.name)
