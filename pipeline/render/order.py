"""An order: what a render is asked for, in this process or as a job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Order:
    """What to render.

    file: the episode. allow_experimental: also render with workflows that are not proven.
    out: the folder that gets the episode's folder. only: ids of shots or sequences; empty for all. fresh: render accepted shots
    too, with the same seeds. new_seeds: as fresh, with seeds that no take has had.
    """

    file: Path
    out: Path
    only: tuple[str, ...] = ()
    fresh: bool = False
    new_seeds: bool = False
    allow_experimental: bool = False

    @property
    def options(self) -> list[str]:
        """The order as options of `tower render`, without --out."""
        flags = {"--fresh": self.fresh, "--new-seeds": self.new_seeds, "--allow-experimental": self.allow_experimental}
        only = ["--only", ",".join(self.only)] if self.only else []
        return only + [option for option, wanted in flags.items() if wanted]
