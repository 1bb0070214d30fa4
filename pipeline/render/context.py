"""The context that every step of a run gets."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from catalog.store import Catalog
from pipeline.story.settings import Settings


@dataclass(frozen=True)
class Context:
    """settings: where things are. catalog: what has happened. console: where messages are printed."""

    settings: Settings
    catalog: Catalog
    console: Console
