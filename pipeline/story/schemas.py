"""Write the JSON Schemas of the files that people write: `make schemas`."""

from __future__ import annotations

import json

from pydantic import BaseModel

from pipeline import PROJECT

from .cluster_profile import ClusterProfile
from .episode import Episode
from .gate_profile import GateProfile
from .suite import Suite
from .workflow import Workflow

SCHEMAS: dict[str, type[BaseModel]] = {
    "episode": Episode,
    "workflow": Workflow,
    "gates": GateProfile,
    "suite": Suite,
    "cluster": ClusterProfile,
}


def schema_text(name: str) -> str:
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | SCHEMAS[name].model_json_schema()
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name in SCHEMAS:
        (PROJECT / "configs" / "schemas" / f"{name}.schema.json").write_text(schema_text(name), encoding="utf-8")
