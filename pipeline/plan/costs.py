"""What an accepted take costs in device seconds, from earlier takes and benchmarks."""

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
    """known: workflow `name@version` to device seconds for one accepted take. They include the rejected takes before it."""

    known: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, catalog: Catalog, registry: Registry) -> Costs:
        """Costs from the catalog's takes; for a workflow without takes, from its latest benchmark, whatever device that ran on."""
        known: dict[str, float] = {}
        for rows in registry.cells.values():
            timed = [r["device_seconds"] for r in rows if r["device_seconds"] is not None]
            passed = sum(r["outcome"] == "accepted" for r in rows)
            if timed:
                known[name_of(rows[0])] = median(timed) * len(rows) / max(passed, 1)
        history = catalog.sql(HISTORY, ("takes",)).to_pylist()
        return cls(known | {row["name"]: row["seconds"] * row["takes"] for row in history})

    def seconds(self, ready: Ready) -> float | None:
        """Device seconds for one accepted take; None if the workflow never ran."""
        return self.known.get(ready.name)
