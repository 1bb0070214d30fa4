"""A driver's metrics for Prometheus, exported by Ray's own endpoint. docs/WATCHING.md lists every metric.

Ray 2.60 was measured to treat metrics as follows, and the files in monitoring/ rely on it:
- Ray puts `ray_` before each name, and adds SessionName, WorkerId (the driver), NodeAddress, Version and Component.
- Processes report every 10 s (RAY_metrics_report_interval_ms, 1 s at least), so a query over a shorter window finds nothing.
- A gauge that is not set again within two reports disappears. A driver's gauges therefore disappear with the driver.
- Counters and histograms of a dead driver keep their last value until Ray stops on its node, so queries must use `increase`.
- A histogram's sum is computed from the middles of its buckets: quantiles are right, means are not. A separate counter
  therefore adds up the same seconds exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .start import ClusterError  # noqa: F401 - before Ray: it sets the environment that Ray reads when it is imported

# isort: split
from ray.util.metrics import Counter, Gauge, Histogram

# Counters are created before their first event, because `increase` does not see the first value of a counter. Ray refuses
# to add 0, so the smallest positive float is added; it vanishes in any later sum.
BEGIN = 5e-324
OUTCOMES = ("accepted", "rejected", "error")
# Bounds of the histogram's buckets, from the milliseconds of a gate to the hour of a queue.
SECONDS = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0]


class Metrics:
    """A driver's metrics.

    The tags are stage, workflow, outcome, label and part, which have few values. A tag never names a shot or a take, since
    every new value makes a new time series.
    """

    def __init__(self) -> None:
        """Create the metrics. Ray must be running."""
        self._shots = Counter("tower_shots_total", "Shots that ended", ("outcome",))
        self._takes = Counter("tower_takes_total", "Takes recorded", ("stage", "workflow", "outcome"))
        self._labels = Counter("tower_rejections_total", "Labels of rejected takes; a take may have several", ("stage", "label"))
        self._spread = Histogram("tower_take_seconds", "Seconds of one take: queued, on a device, in its gate", SECONDS, ("stage", "part"))
        self._seconds = Counter("tower_work_seconds_total", "The same seconds, added up exactly", ("stage", "part"))
        self._waiting = Gauge("tower_waiting_requests", "Requests that wait for a device", ("stage",))
        self._running = Gauge("tower_running_requests", "Requests that execute on a device", ("stage",))
        self._devices = Gauge("tower_devices", "Devices that are up")
        self._busy = Gauge("tower_busy_devices", "Devices that execute something")
        self._frames = Gauge("tower_frames_in_flight_bytes", "Frames of clips that are being made, or made and not yet judged")
        self._paused = Gauge("tower_paused", "1 while the render is paused, else 0")
        self._totals = {
            "busy_seconds": Counter("tower_device_busy_seconds_total", "Seconds in which devices executed something, of all together"),
            "device_seconds": Counter("tower_device_seconds_total", "Seconds for which devices were up, of all together"),
            "restarts": Counter("tower_device_restarts_total", "Devices that were replaced"),
            "switches": Counter("tower_model_switches_total", "Models that had to make room for another"),
            "switch_seconds": Counter("tower_model_switch_seconds_total", "Seconds of loading models where another had to go"),
        }
        self._told = dict.fromkeys(self._totals, 0.0)
        self._begun: set[tuple[str, str]] = set()
        self._begin()

    def _begin(self) -> None:
        for outcome in ("accepted", "exhausted"):
            self._shots.inc(BEGIN, {"outcome": outcome})
        for counter in self._totals.values():
            counter.inc(BEGIN)

    def take(self, stage: str, workflow: str, outcome: str, labels: Sequence[str], seconds: Mapping[str, float | None]) -> None:
        """Count a recorded take.

        Args:
            workflow: name@version. outcome: accepted, rejected or error. labels: of a rejected take.
            seconds: part (queue, device, gate) to seconds; None where they are not known.
        """
        if (stage, workflow) not in self._begun:
            self._begun.add((stage, workflow))
            for each in OUTCOMES:
                self._takes.inc(BEGIN, {"stage": stage, "workflow": workflow, "outcome": each})
        self._takes.inc(1, {"stage": stage, "workflow": workflow, "outcome": outcome})
        for label in labels:
            self._labels.inc(1, {"stage": stage, "label": label})
        for part, amount in seconds.items():
            if amount is not None and amount >= 0:
                self._spread.observe(amount, {"stage": stage, "part": part})
                self._seconds.inc(amount or BEGIN, {"stage": stage, "part": part})

    def shot(self, outcome: str) -> None:
        """Count a shot that has ended. outcome: accepted or exhausted."""
        self._shots.inc(1, {"outcome": outcome})

    def pool(self, stats: Any, stages: Sequence[str]) -> None:
        """Report the pool's PoolStats. Call it every few seconds, or the gauges disappear.

        Args:
            stages: names of all stages. Those without requests are set to 0, or their gauges would show the last value.
        """
        for stage in stages:
            self._waiting.set(stats.waiting.get(stage, 0), {"stage": stage})
            self._running.set(stats.running.get(stage, 0), {"stage": stage})
        self._devices.set(stats.devices)
        self._busy.set(stats.busy)
        self._frames.set(stats.frame_bytes)
        self._paused.set(int(stats.paused))
        for name, counter in self._totals.items():
            more = getattr(stats, name) - self._told[name]
            if more > 0:
                counter.inc(more)
                self._told[name] += more
