"""What every step of a run is given."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from catalog.store import Catalog
from pipeline.story.settings import Settings


@dataclass(frozen=True)
class Context:
    """Where things are, what has happened, and where to say what happens now."""

    settings: Settings
    catalog: Catalog
    console: Console
