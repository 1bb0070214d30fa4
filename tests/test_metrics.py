"""What Prometheus sees of a render: the right numbers, few tags, and nothing on a chart that is not there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from benchmarks.watching import MONITORING, REPORT_MS, Asked, ask, everything, prometheus

from .conftest import PROJECT, environment

RAYS_OWN = {
    "Component",
    "NodeAddress",
    "SessionName",
    "Version",
    "WorkerId",
    "otel_scope_name",
    "otel_scope_schema_url",
    "otel_scope_version",
}
OURS = {"stage", "workflow", "outcome", "label", "part", "le"}

DRIVER = """
import select, sys
from pathlib import Path
import cluster.start as start
from cluster.metrics import Metrics
from cluster.specs import PoolStats

def take(metrics, stage, outcome, labels, queue, device, gate):
    metrics.take(stage, f"{stage}_demo@2", outcome, labels, {"queue": queue, "device": device, "gate": gate})

def stats(seconds):
    return PoolStats(2, 1, seconds, 2 * seconds, {"keyframe": 3}, {"clip": 1}, 7_000_000, 1, 4, 1.5, False)

with start.cluster(1, temp_dir=Path(sys.argv[1])):
    import ray
    for _ in range(2):  # a service renders one episode after the other in one process
        metrics = Metrics()
        take(metrics, "keyframe", "accepted", [], 0.0, 0.05, 0.02)
        take(metrics, "keyframe", "rejected", ["empty", "blur"], 5.0, 0.05, 0.02)
        take(metrics, "clip", "rejected", ["frozen"], 0.5, 20.0, 2.0)
        take(metrics, "clip", "error", [], None, None, None)
        take(metrics, "clip", "accepted", [], 700.0, 22.0, 2.5)
        metrics.shot("accepted")
    print(ray.nodes()[0]["MetricsExportPort"], flush=True)
    seconds, moving = 10.0, False
    while True:  # until its standard input ends; a line there, and it works on
        if select.select([sys.stdin], [], [], 0.2)[0]:
            moving = bool(sys.stdin.readline())
            if not moving:
                break
        metrics.pool(stats(seconds), ("prompt", "keyframe", "clip"))
        seconds = seconds + 5 if moving else min(30.0, seconds + 5)
        for stage in ("keyframe", "clip") if moving else ():
            take(metrics, stage, "accepted", [], 0.5, 2.0, 0.2)
"""


@dataclass(frozen=True)
class Driver:
    """A driver that has told all it had to tell. samples: what Ray's endpoint told then."""

    process: subprocess.Popen[str]
    discovery: Path
    samples: list[Sample]

    def work_on(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("go\n")
        self.process.stdin.flush()


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    temp = Path("/tmp") / f"m{time.monotonic_ns() % 10**9}"  # short: Ray's sockets lie in it
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(temp)],
        cwd=PROJECT, env=environment(tmp_path_factory.mktemp("driver"), **{REPORT_MS: "1000"}),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout and process.stdin
        port = process.stdout.readline().strip()
        assert port.isdigit(), port
        yield Driver(process, temp / "prom_metrics_service_discovery.json", settled(f"http://127.0.0.1:{port}/metrics"))
        process.stdin.close()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(temp, ignore_errors=True)


def settled(url: str) -> list[Sample]:
    """What the endpoint tells once the driver has reported all that it counted, and Ray its disks."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with urllib.request.urlopen(url, timeout=10) as page:
            found = [s for family in text_string_to_metric_families(page.read().decode()) for s in family.samples]
        if value(found, "ray_tower_device_busy_seconds_total") == 30 and any(s.name == "ray_node_disk_free" for s in found):
            return found
        time.sleep(0.3)
    raise AssertionError("the driver's numbers did not arrive in 60 s")


def value(samples: list[Sample], name: str, **tags: str) -> float:
    """The sum of the series that have this name and these tags."""
    return sum(s.value for s in samples if s.name == name and tags.items() <= s.labels.items())


def missing(samples: list[Sample], dashboard: Path) -> list[str]:
    """Series that the dashboard and the alerts name, and nobody exports."""
    there = []
    for one in everything(dashboard, MONITORING / "alerts.yaml"):
        if one.where == one.query:
            name, tags = one.query.partition("{")[0], dict(re.findall(r'(\w+)="([^"]*)"', one.query))
            there.append((one.query, any(s.name == name and tags.items() <= s.labels.items() for s in samples)))
    return [query for query, found in there if not found]


def planted(folder: Path) -> Path:
    """The dashboard with one panel's metric misspelt."""
    text = (MONITORING / "grafana.json").read_text()
    assert text.count("sum(ray_tower_busy_devices)") == 1
    file = folder / "planted.json"
    file.write_text(text.replace("sum(ray_tower_busy_devices)", "sum(ray_tower_busy_device)"))
    return file


def test_every_series_that_the_dashboard_and_the_alerts_name_is_there(driver: Driver, tmp_path: Path):
    samples = driver.samples
    assert missing(samples, MONITORING / "grafana.json") == []
    assert missing(samples, planted(tmp_path)) == ["ray_tower_busy_device"]


def test_the_numbers_are_right(driver: Driver):
    samples = driver.samples
    counted = {
        (s, o): value(samples, "ray_tower_takes_total", stage=s, outcome=o, workflow=f"{s}_demo@2")
        for s in ("keyframe", "clip")
        for o in ("accepted", "rejected", "error")
    }
    assert counted == {
        ("keyframe", "accepted"): 2, ("keyframe", "rejected"): 2, ("keyframe", "error"): pytest.approx(0),
        ("clip", "accepted"): 2, ("clip", "rejected"): 2, ("clip", "error"): 2,
    }  # fmt: skip
    assert value(samples, "ray_tower_shots_total", outcome="accepted") == 2
    assert value(samples, "ray_tower_shots_total", outcome="exhausted") == pytest.approx(0)
    assert {label: value(samples, "ray_tower_rejections_total", label=label) for label in ("empty", "blur", "frozen")} == {
        "empty": 2,
        "blur": 2,
        "frozen": 2,
    }
    assert value(samples, "ray_tower_work_seconds_total", stage="clip", part="device") == pytest.approx(2 * 42)
    assert value(samples, "ray_tower_work_seconds_total", stage="keyframe", part="queue") == pytest.approx(2 * 5)
    assert value(samples, "ray_tower_take_seconds_count", stage="clip", part="queue") == 4, "an error's unknown seconds are no observation"
    assert value(samples, "ray_tower_take_seconds_bucket", stage="clip", part="device", le="10.0") == 0
    assert value(samples, "ray_tower_take_seconds_bucket", stage="clip", part="device", le="30.0") == 4
    gauges = ("devices", "busy_devices", "frames_in_flight_bytes", "paused")
    assert {name: value(samples, f"ray_tower_{name}") for name in gauges} == {
        "devices": 2,
        "busy_devices": 1,
        "frames_in_flight_bytes": 7e6,
        "paused": 0,
    }
    assert [value(samples, "ray_tower_waiting_requests", stage=s) for s in ("prompt", "keyframe", "clip")] == [0, 3, 0]
    assert [value(samples, "ray_tower_running_requests", stage=s) for s in ("prompt", "keyframe", "clip")] == [0, 0, 1]
    totals = ("device_busy_seconds", "device_seconds", "device_restarts", "model_switches", "model_switch_seconds")
    assert {name: value(samples, f"ray_tower_{name}_total") for name in totals} == pytest.approx(
        dict(zip(totals, (30, 60, 1, 4, 1.5), strict=True))
    )


def test_tags_are_few_and_tell_no_shot(driver: Driver):
    ours = [s for s in driver.samples if s.name.startswith("ray_tower_")]
    assert {tag for s in ours for tag in s.labels} - RAYS_OWN == OURS
    assert len({s.name for s in ours}) > 15
    series = {s.name: sum(other.name == s.name for other in ours) for s in ours if "le" not in s.labels}
    assert max(series.values()) <= 9, series


@pytest.mark.skipif(not shutil.which("prometheus"), reason="needs a prometheus binary")
def test_prometheus_has_data_for_every_panel_and_none_for_a_misspelt_one(driver: Driver, tmp_path: Path):
    driver.work_on()
    rules = MONITORING / "alerts.yaml"
    asked, wrong = everything(MONITORING / "grafana.json", rules), everything(planted(tmp_path), rules)
    with prometheus(tmp_path, driver.discovery, rules) as url:
        end = time.monotonic() + 30
        while time.monotonic() < end and (bad(asked) or len(bad(wrong)) > 2):
            ask(url, [*asked, *wrong], 0)
            time.sleep(0.5)
    assert bad(asked) == []
    assert bad(wrong) == ["Devices up and busy B", "ray_tower_busy_device"]


def bad(asked: list[Asked]) -> list[str]:
    return [one.where for one in asked if not one.is_good]


# Each alert's reason, as series of one minute's samples; and what must keep it silent.
TOWER = '{SessionName="s", WorkerId="w"'
REASONS = {
    "TowerNoProgress": {
        f"ray_tower_waiting_requests{TOWER}}}": "5x60",
        f"ray_tower_running_requests{TOWER}}}": "1x60",
        f"ray_tower_paused{TOWER}}}": "0x60",
    },
    "TowerRejectedTooOften": {
        f'ray_tower_takes_total{TOWER}, stage="clip", workflow="a@1", outcome="rejected"}}': "0+3x60",
        f'ray_tower_takes_total{TOWER}, stage="clip", workflow="a@1", outcome="accepted"}}': "0+1x60",
    },
    "TowerDevicesIdle": {
        f"ray_tower_waiting_requests{TOWER}}}": "5x60",
        f"ray_tower_device_busy_seconds_total{TOWER}}}": "0+10x60",
        f"ray_tower_device_seconds_total{TOWER}}}": "0+60x60",
        f'ray_tower_takes_total{TOWER}, stage="clip", workflow="a@1", outcome="accepted"}}': "0+1x60",
    },
    "TowerDevicesRestarting": {f"ray_tower_device_restarts_total{TOWER}}}": "0+1x60"},
    "TowerSpilling": {'ray_spill_manager_objects_bytes{SessionName="s", NodeAddress="n", State="Spilled"}': "0+1000000x60"},
    "TowerDiskFilling": {'ray_node_disk_free{ip="n"}': "5x60", 'ray_node_disk_usage{ip="n"}': "95x60"},
}
SILENT = [
    {**REASONS["TowerNoProgress"], f"ray_tower_paused{TOWER}}}": "1x60"},
    {**REASONS["TowerDevicesIdle"], f"ray_tower_paused{TOWER}}}": "1x60"},
    {**REASONS["TowerDevicesIdle"], f"ray_tower_device_busy_seconds_total{TOWER}}}": "0+55x60"},
    {
        f'ray_tower_takes_total{TOWER}, stage="clip", workflow="a@1", outcome="{o}"}}': f"0+{n}x60"
        for o, n in (("rejected", 1), ("accepted", 4))
    },
    {'ray_spill_manager_objects_bytes{SessionName="s", NodeAddress="n", State="Spilled"}': "9000000x60"},
    {'ray_node_disk_free{ip="n"}': "50x60", 'ray_node_disk_usage{ip="n"}': "50x60"},
]


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs a promtool binary")
def test_every_alert_fires_for_its_reason_and_for_no_other(tmp_path: Path):
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
    names = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    assert names == set(REASONS)
    cases = [*((series, {alert}) for alert, series in REASONS.items()), *((series, set()) for series in SILENT)]
    for i, (series, wanted) in enumerate(cases):
        assert fires(tmp_path / f"case-{i}.yaml", series, names) == wanted, series


def fires(file: Path, series: dict[str, str], names: set[str]) -> set[str]:
    """Alerts that fire after an hour of these series, as promtool evaluates the shipped rules."""
    test: dict[str, Any] = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": "58m", "alertname": name, "exp_alerts": []} for name in sorted(names)],
    }
    file.write_text(json.dumps({"rule_files": [str(MONITORING / "alerts.yaml")], "tests": [test]}))
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=60, check=False)
    told = done.stdout + done.stderr
    found = set(re.findall(r"alertname: (\w+)", told))
    assert (done.returncode == 0) == (not found), told
    return found
