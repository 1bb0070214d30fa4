"""The context that every step of a run gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from rich.console import Console

from catalog.store import Catalog
from cluster.start import ClusterInfo, cluster
from pipeline.story.cluster_profile import cluster_profile
from pipeline.story.settings import Settings


class Ray:
    """Starts Ray or joins a cluster when it is first called. info: of it; None before."""

    def __init__(self, start: Callable[[], ClusterInfo]):
        self._start = start
        self.info: ClusterInfo | None = None

    def __call__(self) -> ClusterInfo:
        self.info = self.info or self._start()
        return self.info


@dataclass(frozen=True)
class Context:
    """settings: where things are. catalog: what has happened. console: where messages are printed."""

    settings: Settings
    catalog: Catalog
    console: Console
    ray: Ray


@contextmanager
def context(settings: Settings, catalog: Catalog, console: Console) -> Iterator[Context]:
    """A context whose Ray, if it was needed, ends with the `with` block."""
    with ExitStack() as stack:

        def start() -> ClusterInfo:
            waits = bool(cluster_profile(settings).wait_minutes)
            return stack.enter_context(cluster(settings.devices, settings.dashboard_port, waits=waits))

        yield Context(settings, catalog, console, Ray(start))
