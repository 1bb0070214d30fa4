"""`tower doctor`: what can render here, and how to fix what cannot."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from .table import out, show


def doctor(as_json: Annotated[bool, typer.Option("--json", help="print a JSON list of objects")] = False) -> None:
    """What this machine, or the cluster at RAY_ADDRESS, can run, and what to do about what is missing. Nothing is made or started."""
    from pipeline.doctor.doctor import can_render, examine
    from pipeline.story.settings import load_settings

    findings = examine(load_settings())
    if as_json:
        show([asdict(f) for f in findings], True)
    else:
        for f in findings:
            out.print(f"{f.state:8} {f.check:9} {f.told}", highlight=False, markup=False, soft_wrap=True)
            if f.do:
                out.print(f"{'':18} → {f.do}", highlight=False, markup=False, soft_wrap=True)
    if not can_render(findings):
        raise typer.Exit(1)
