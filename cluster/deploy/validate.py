"""Check the KubeRay manifests in this folder against KubeRay's published resource definitions.

    python cluster/deploy/validate.py CRD_FILE…  [--manifests FILE…]

Unknown fields are errors, as they are to `kubectl apply --validate=strict`. Rules that definitions write in CEL, and
rules that only the operator knows, are not checked. Exit code 0 if all is well, 1 if not, 2 for bad usage.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

HERE = Path(__file__).resolve().parent


def main(args: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="validate.py", description="Check manifests against custom resource definitions.")
    parser.add_argument("definitions", metavar="CRD_FILE", nargs="+", type=Path)
    parser.add_argument("--manifests", metavar="FILE", nargs="+", type=Path, default=sorted(HERE.glob("ray*.yaml")))
    given = parser.parse_args(args)
    schemas = schemas_of(given.definitions)
    faults = [fault for path in given.manifests for fault in faults_of(path, schemas)]
    for fault in faults:
        print(fault)
    print(f"{len(given.manifests)} manifests, {len(faults)} faults")
    return 1 if faults else 0


def schemas_of(files: list[Path]) -> dict[tuple[str, str], dict[str, Any]]:
    """(apiVersion, kind) to its schema, for every version that is served."""
    found = {}
    for file in files:
        for told in yaml.safe_load_all(file.read_text()):
            if told and told.get("kind") == "CustomResourceDefinition":
                spec = told["spec"]
                for version in spec["versions"]:
                    key = f"{spec['group']}/{version['name']}", spec["names"]["kind"]
                    found[key] = strict(version["schema"]["openAPIV3Schema"])
    return found


def strict(schema: dict[str, Any], top: bool = True) -> dict[str, Any]:
    """The schema as JSON Schema in which unknown fields are errors. Objects that only Kubernetes defines allow any field."""
    made = dict(schema)
    if "properties" in made:
        made["properties"] = {name: strict(part, False) for name, part in made["properties"].items()}
        if not made.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    for name in ("items", "additionalProperties"):
        if isinstance(made.get(name), dict):
            made[name] = strict(made[name], False)
    if top and "properties" in made:
        made["required"] = sorted({"apiVersion", "kind", "metadata", "spec", *made.get("required", ())})
    return made


def faults_of(path: Path, schemas: dict[tuple[str, str], dict[str, Any]]) -> list[str]:
    faults = []
    for told in yaml.safe_load_all(path.read_text()):
        schema = schemas.get((told.get("apiVersion"), told.get("kind")))
        if schema is None:
            faults.append(f"{path.name}: no definition of {told.get('kind')} {told.get('apiVersion')} was given")
            continue
        for error in Draft202012Validator(schema).iter_errors(told):
            faults.append(f"{path.name}: {'.'.join(map(str, error.absolute_path)) or 'the file'}: {error.message[:200]}")
    return sorted(faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
