"""Watching: does every panel of the dashboard show something, and does every alert look at something that is there?

    python -m benchmarks.watching            a render of 120 shots with stand-in models, watched by a real Prometheus
    python -m benchmarks.watching --quick    24 shots

A render starts Ray, and Prometheus, with the configuration that is shipped, finds it by Ray's own file. While it renders,
every query of the dashboard and every alert is asked, and each series that they name is looked for by itself, for an alert
that names a series which does not exist is as silent as one that has no reason. Exit 1 if a panel has no data, an alert
does not parse or names what is not there, or promtool finds fault with the files.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import yaml
from rich.console import Console
from rich.table import Table

from pipeline.story.settings import PROJECT

from .soak import Life, Site, write_episode

MONITORING = PROJECT / "cluster" / "monitoring"
HOW_TO_GET = "there is no prometheus on the PATH: `apt-get install prometheus`, or put the binaries of its release there"
REPORT_MS = "RAY_metrics_report_interval_ms"
GRAFANA = {"$__rate_interval": "10s", "$__range": "1m"}  # what Grafana puts in; short, as everything here is
SELECTOR = re.compile(r"ray_\w+(?:\{[^}]*\})?")
START_SECONDS = 120.0  # for the render to bring up Ray
READY_SECONDS = 30.0


@dataclass
class Asked:
    """One query, and what it told. first: seconds until it had data; series: how many at most; value: its latest."""

    where: str
    query: str
    needs_data: bool = True  # an alert that does not fire tells nothing, and should
    first: float | None = None
    series: int = 0
    value: float = math.nan
    error: str = ""

    @property
    def is_good(self) -> bool:
        return not self.error and (self.first is not None or not self.needs_data)


def panels(dashboard: dict[str, Any]) -> list[Asked]:
    return [
        Asked(f"{panel['title']} {target['refId']}", _as_asked(target["expr"]))
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    ]


def alerts(rules: dict[str, Any]) -> list[Asked]:
    return [Asked(rule["alert"], rule["expr"], needs_data=False) for group in rules["groups"] for rule in group["rules"]]


def selectors(asked: list[Asked]) -> list[Asked]:
    """Every series that the queries name, each once, by itself."""
    return [Asked(s, s) for s in dict.fromkeys(s for a in asked for s in SELECTOR.findall(a.query))]


def everything(dashboard: Path, rules: Path) -> list[Asked]:
    """All that is to be asked."""
    queries = [*panels(json.loads(dashboard.read_text())), *alerts(yaml.safe_load(rules.read_text()))]
    return queries + selectors(queries)


def _as_asked(query: str) -> str:
    for name, value in GRAFANA.items():
        query = query.replace(name, value)
    return query


def ask(url: str, asked: list[Asked], age: float) -> None:
    """Ask each once more."""
    for one in asked:
        answer = requests.get(f"{url}/api/v1/query", params={"query": one.query}, timeout=10).json()
        if answer["status"] != "success":
            one.error = answer["error"]
            continue
        values = [v for r in answer["data"]["result"] if not math.isnan(v := float(r["value"][1]))]
        if values:
            one.first = age if one.first is None else one.first
            one.series, one.value = max(one.series, len(values)), values[0]


@contextmanager
def prometheus(folder: Path, discovery: Path, rules: Path) -> Iterator[str]:
    """A Prometheus on loopback that asks Ray every second; gives its address."""
    config = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(rules)]
    config["scrape_configs"][0]["file_sd_configs"][0]["files"] = [str(discovery)]
    file, port = folder / "prometheus.yaml", _free_port()
    file.write_text(yaml.safe_dump(config))
    command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(process, url, folder / "prometheus.log")
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            if requests.get(f"{url}/-/ready", timeout=2).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.1)
    raise RuntimeError(f"prometheus did not start: {log.read_text()[-500:]}")


def rule_errors(url: str) -> list[str]:
    """What Prometheus itself says of rules that it could not evaluate."""
    groups = requests.get(f"{url}/api/v1/rules", timeout=10).json()["data"]["groups"]
    return [f"{rule['name']}: {rule['lastError']}" for group in groups for rule in group["rules"] if rule.get("lastError")]


def tool_errors(rules: Path) -> list[str]:
    """What promtool says of the files, where it is."""
    if not shutil.which("promtool"):
        return []
    checks = ["rules", str(rules)], ["config", str(MONITORING / "prometheus.yaml")]
    done = [subprocess.run(["promtool", "check", *check], capture_output=True, text=True, timeout=60, check=False) for check in checks]
    return [(one.stdout + one.stderr).strip() for one in done if one.returncode]


@dataclass
class Watched:
    """What came of it."""

    asked: list[Asked]
    failed: list[str] = field(default_factory=list)
    rounds: int = 0

    @property
    def is_good(self) -> bool:
        return not self.failed and all(one.is_good for one in self.asked)


def watch(folder: Path, shots: int, dashboard: Path, rules: Path) -> Watched:
    """Render, and ask until the render ends."""
    watched = Watched(everything(dashboard, rules), tool_errors(rules))
    temp = folder / "t"
    temp.mkdir()
    write_episode(folder / "render", shots)
    os.environ[REPORT_MS] = "1000"  # its least; the render inherits it
    life = Life(Site(folder / "render", temp, "stand-in"), 1)
    try:
        discovery = temp / "ray" / "prom_metrics_service_discovery.json"
        while not discovery.exists() and life.process.poll() is None and life.age < START_SECONDS:
            time.sleep(0.1)
        with prometheus(folder, discovery, rules) as url:
            while life.process.poll() is None and life.age < START_SECONDS + 10 * shots:
                ask(url, watched.asked, life.age)
                watched.rounds += 1
                time.sleep(1)
            watched.failed += rule_errors(url)
    finally:
        life.kill()
        life.bury()
    if life.process.returncode not in (0, 3):  # all accepted, or some exhausted
        watched.failed.append(f"the render ended with exit {life.process.returncode}: {life.text.strip().splitlines()[-1:]}")
    return watched


def report(watched: Watched, console: Console) -> None:
    table = Table("asked", "data after s", "series", "latest", "", title=f"{watched.rounds} rounds of {len(watched.asked)} queries")
    for one in watched.asked:
        first = "" if one.first is None else f"{one.first:.0f}"
        verdict = "ok" if one.is_good else one.error or f"NO DATA: {one.query}"
        table.add_row(one.where, first, str(one.series or ""), "" if math.isnan(one.value) else f"{one.value:.4g}", verdict)
    console.print(table)
    for failure in watched.failed:
        console.print(failure, highlight=False, markup=False, soft_wrap=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="24 shots")
    parser.add_argument("--dashboard", type=Path, default=MONITORING / "grafana.json", help="another one than is shipped")
    options = parser.parse_args()
    if not shutil.which("prometheus"):
        print(f"error: {HOW_TO_GET}", file=sys.stderr)
        sys.exit(2)
    folder = Path(tempfile.mkdtemp(prefix="watch-"))
    watched = watch(folder, 24 if options.quick else 120, options.dashboard, MONITORING / "alerts.yaml")
    report(watched, Console(width=150))
    if watched.is_good:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"kept: {folder}")
    sys.exit(0 if watched.is_good else 1)


if __name__ == "__main__":
    main()
