"""What the routes share: settings, the catalog, what has changed in it, jobs."""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from catalog.store import Catalog
from cluster.cores import cores
from pipeline.registry.workflows import user_memory
from pipeline.render.job import Jobs
from pipeline.story.settings import Settings

from .rows import OPEN, Rows
from .tables import Kept, Tables

FILES_SECONDS = 10.0
PICTURES = 1024  # thumbnails and strips that are kept, of some 10 kB


@dataclass
class Desk:
    """folder: where the desk lays out stories and finished episodes; everything in it can be made again.

    jobs: what starts renders, here or on a cluster. token: what a person types; "" where nobody needs one.
    """

    settings: Settings
    catalog: Catalog
    folder: Path
    jobs: Jobs
    token: str = ""
    tables: Tables = field(init=False)
    rows: Rows = field(init=False)
    facts: Kept = field(init=False)  # of the episodes in `rows`, and what is larger than these
    opened: Kept = field(init=False)
    takes: Kept = field(init=False)  # of single shots
    frames: Kept = field(init=False)  # single pictures
    kept: Kept = field(init=False)

    def __post_init__(self) -> None:
        self.tables = Tables(self.catalog.place)
        self.rows = Rows(self.catalog, self.tables)
        self.facts, self.opened, self.takes, self.kept = Kept(OPEN), Kept(OPEN), Kept(1024), Kept()
        # Threads of their own: hundreds of thumbnails that wait to be drawn do not hold up a board.
        self.frames = Kept(PICTURES, ThreadPoolExecutor(cores(), "pictures"))

    @property
    def moment(self) -> int:
        """Changes every FILES_SECONDS. Model files come and go without a word in the catalog; what follows from them is made again then."""
        return int(time.monotonic() // FILES_SECONDS)


def desk_folder(settings: Settings) -> Path:
    """Beside a local catalog; for one in a bucket, in the user's cache."""
    place = settings.place
    if place.is_local:
        return place.folder / "desk"
    return user_memory().parent / f"desk-{hashlib.sha256(place.uri.encode()).hexdigest()[:12]}"
