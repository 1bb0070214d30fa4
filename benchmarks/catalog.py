"""How the catalog behaves with many writers, many rows and many shots.

    python -m benchmarks.catalog            everything, up to 1,000,000 takes: about six minutes and 2 GB of disk
    python -m benchmarks.catalog --quick    the same up to 10,000 takes and 1,000 shots

The takes are made up but as wide as real ones: prompt, thirty measures, findings, parameters. Commands are
timed as a person runs them, each in its own process, its start included.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from rich.console import Console
from rich.table import Table

from actors.loading import device_name
from catalog.commit import commit, write_data
from catalog.schema import TABLES
from catalog.store import Catalog
from catalog.writer import Writer
from pipeline.plan.plan import make_plan
from pipeline.plan.resolve import inputs_from
from pipeline.registry.open_catalog import open_catalog
from pipeline.story.episode import load_episode
from pipeline.story.settings import PROJECT, load_settings

SHOTS = 300  # of the episode that is planned, and of every other
SCHEMA = TABLES["takes"].schema
MEDIA, MEDIA_BYTES = 10_000, 100_000


@dataclass(frozen=True)
class Measured:
    what: str
    value: str


# --- many writers ---------------------------------------------------------------------------------------------------


def write_batches(where: str, writer: int, batches: int, together: Any) -> None:
    catalog = Catalog.open(where)
    together.wait()
    for batch in range(batches):
        catalog.append("takes", [take_row(f"E{writer:02d}", 10 * batch + n) for n in range(4)])


def many_writers(folder: Path, writers: int, batches: int) -> Measured:
    """Every batch of every driver lands, whatever the race."""
    Catalog.open(folder)
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(writers + 1)
    drivers = [context.Process(target=write_batches, args=(str(folder), n, batches, together)) for n in range(writers)]
    for d in drivers:
        d.start()
    together.wait(120)
    started = time.monotonic()
    for d in drivers:
        d.join(300)
    seconds = time.monotonic() - started
    landed = Catalog.open(folder).dataset("takes").count_rows()
    return Measured(f"{writers} writers x {batches} batches", f"{landed // 4} of {writers * batches} landed, {seconds:.1f} s")


def rows_a_second(folder: Path, rows: int, live: int) -> Measured:
    """One driver, `live` shots that each wait for their row to be safe on disk; the media itself is no work here."""
    catalog = Catalog.open(folder)

    async def story() -> float:
        numbers = iter(range(rows))
        async with Writer(catalog) as writer:

            async def shot() -> None:
                for n in numbers:
                    await writer.add("takes", take_row("E01", n))

            started = time.monotonic()
            await asyncio.gather(*(shot() for _ in range(live)))
            return time.monotonic() - started

    seconds = asyncio.run(story())
    commits = len(list((folder / "takes" / "_delta_log").glob("*.json"))) - 1
    assert catalog.dataset("takes").count_rows() == rows
    return Measured(
        f"take rows a second, one driver, {live} shots alive", f"{rows / seconds:,.0f} ({rows} rows, {commits} commits, fsync each)"
    )


def take_row(episode: str, n: int) -> dict[str, Any]:
    """A row as wide as a real one."""
    shot = f"SH{10 * (n // 2 + 1):04d}"
    stage = ("keyframe", "clip")[n % 2]
    media = f"{n:064x}"
    return {
        "take": f"{episode}/{shot}/{stage}/v{n:06d}",
        "run": "20261123T120000-abcdef",
        "at": datetime.now(UTC),
        "episode": episode,
        "sequence": "S010",
        "shot": shot,
        "stage": stage,
        "attempt": 1,
        "variation": 0,
        "inputs": f"{n:064x}",
        "workflow": "ltx_video_2b_demo" if n % 2 else "sd15_keyframe_demo",
        "workflow_version": 1,
        "workflow_digest": "d" * 64,
        "seed": n,
        "prompt": "wide shot, a girl with pink hair and a yellow coat, walking right, by the sea, by day, static camera, anime",
        "negative_prompt": "",
        "media": media,
        "media_path": f"media/{media[:2]}/{media}.mp4",
        "media_bytes": 4_000_000 + n,
        "width": 768,
        "height": 512,
        "frames": 121,
        "fps": 24.0,
        "outcome": "rejected" if n % 10 == 9 else "accepted",
        "labels": ["frozen"] if n % 10 == 9 else [],
        "warnings": [],
        "profile": "anime#0123456789ab",
        "declared": [],
        "measures": {f"measure_{k}": n * 0.001 + k for k in range(30)},
        "findings": "[]",
        "queue_seconds": 0.2,
        "device_seconds": 4.2,
        "gate_seconds": 0.9,
        "encode_seconds": 0.4,
        "peak_memory_bytes": 8_000_000_000,
        "device": "a device",
        "node": "a-node",
        "parameters": '{"guidance_scale": 1.0, "num_inference_steps": 8}',
        "reference_files": {},
        "shot_variation": 0,
    }


# --- many takes -----------------------------------------------------------------------------------------------------


def episode_file(folder: Path, shots: int, name: str = "E77") -> Path:
    """An episode of so many shots, as a program writes it."""
    made = [
        {"id": f"SH{n:06d}", "frames": 60, "framing": "wide shot", "characters": ["hana"], "action": f"walking right, step {n}"}
        for n in range(1, shots + 1)
    ]
    sequences = [
        {"id": f"S{i // 100 + 1:05d}", "location": "shore", "time": "by day", "shots": made[i : i + 100]} for i in range(0, shots, 100)
    ]
    story = {
        "id": name,
        "title": "Many shots",
        "width": 192,
        "height": 128,
        "fps": 24,
        "style": "anime",
        "keyframe_workflow": "sd15_keyframe_demo",
        "clip_workflow": "ltx_video_2b_demo",
        "characters": {"hana": {"name": "Hana", "description": "a girl with pink hair and a yellow coat"}},
        "locations": {"shore": {"description": "by the sea"}},
        "sequences": sequences,
    }
    file = folder / "episode.json"
    file.write_text(json.dumps(story))
    return file


def accepted_takes(catalog: Catalog, file: Path) -> None:
    """Rows and (tiny) media for every shot of the episode, so that its plan finds everything accepted."""
    plan = make_plan(load_episode(file), file, load_settings(), catalog)
    media = [catalog.media.put(f"media {n}".encode(), ".mp4") for n in range(min(2000, 2 * len(plan.shots)))]
    rows = []
    for i, shot in enumerate(plan.shots):
        still = None
        for j, stage in enumerate(shot.stages):
            made = media[(2 * i + j) % len(media)]
            inputs, still = inputs_from(stage, still), made.digest
            mine = {
                "take": f"E77/{shot.shot.id}/{stage.stage}/v001",
                "shot": shot.shot.id,
                "stage": stage.stage,
                "inputs": inputs,
                "outcome": "accepted",
            }
            stored = {"media": made.digest, "media_path": made.path, "media_bytes": made.bytes, "labels": []}
            ready = stage.ready
            rows.append(take_row("E77", i) | mine | stored | {"profile": ready.profile_identity, "workflow_digest": ready.digest})
        if len(rows) >= 50_000:
            catalog.append("takes", rows)
            rows = []
    if rows:
        catalog.append("takes", rows)


def other_takes(catalog: Catalog, count: int) -> None:
    """Takes of other episodes, 900 each, in files as `tower catalog compact` leaves them."""
    base = pa.Table.from_pylist([take_row("E01", n) for n in range(1000)], schema=SCHEMA)
    began = datetime(2026, 1, 1, tzinfo=UTC)
    for start in range(0, count, 100_000):
        numbers = np.arange(start, min(count, start + 100_000))
        rows = base.take(pa.array(numbers % 1000))
        episodes = [f"E{1000 + n // 900}" for n in numbers]
        shots = [f"SH{10 * (n % 900 // 3 + 1):04d}" for n in numbers]
        stages = rows["stage"].to_pylist()
        new = {
            "take": [f"{e}/{s}/{g}/v{n % 3 + 1:03d}" for e, s, g, n in zip(episodes, shots, stages, numbers, strict=True)],
            "episode": episodes,
            "shot": shots,
            "inputs": [f"{n:064x}" for n in numbers],
            "at": [began + timedelta(seconds=int(n)) for n in numbers],
            "media": [None] * len(numbers),
            "media_path": [None] * len(numbers),
        }
        for name, values in new.items():
            i = SCHEMA.get_field_index(name)
            rows = rows.set_column(i, SCHEMA.field(i), pa.array(values, SCHEMA.field(i).type))
        file = write_data(catalog.place, "takes", rows.to_batches(), SCHEMA)
        commit(catalog.place, "takes", DeltaTable(catalog.place.table("takes")), [file])


def commands(folder: Path, file: Path, names: list[list[str]]) -> list[tuple[float, float]]:
    """Seconds (best of three) and peak megabytes of each command."""
    return [min(_timed(folder, [*name, str(file)] if name[0] == "plan" else name) for _ in range(3)) for name in names]


def _timed(folder: Path, args: list[str]) -> tuple[float, float]:
    env = os.environ | {"TOWER_CATALOG_URI": str(folder), "PYTHONPATH": str(PROJECT)}
    program = (
        "import os, sys; from pipeline.cli.main import _run; code = _run(); sys.stdout.flush(); "
        + PEAK
        + "; sys.stderr.flush(); os._exit(code)"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program, *args], env=env, capture_output=True, text=True, timeout=300, check=True)
    return time.monotonic() - started, float(done.stderr.split()[-1])


# VmHWM and not ru_maxrss, which a process inherits from the one that started it.
PEAK = "print(next(int(x.split()[1]) / 1e3 for x in open('/proc/self/status') if x.startswith('VmHWM')), file=sys.stderr)"


def many_takes(folder: Path, counts: list[int]) -> list[Measured]:
    """`plan` of an episode of 300 accepted shots and `status`, as the catalog grows."""
    file = episode_file(folder, SHOTS)
    settings = load_settings().model_copy(update={"catalog_uri": str(folder / "catalog")})
    catalog = open_catalog(settings)
    accepted_takes(catalog, file)
    rows, have = [], 2 * SHOTS
    for count in counts:
        other_takes(catalog, count - have)
        have = count
        size = sum(f.stat().st_size for f in (folder / "catalog" / "takes").glob("*.parquet")) / 1e6
        (plan, plan_mb), (status, status_mb) = commands(folder / "catalog", file, [["plan"], ["status", "--json"]])
        told = f"plan {plan:.2f} s, {plan_mb:.0f} MB; status {status:.2f} s, {status_mb:.0f} MB"
        rows.append(Measured(f"{count:,} takes ({size:.0f} MB): {SHOTS}-shot plan, status of all", told))
    return [*rows, *proof(folder / "catalog", catalog, counts[-1])]


def proof(folder: Path, catalog: Catalog, takes: int) -> list[Measured]:
    """`tower catalog verify`, with MEDIA media files and without."""
    random = np.random.default_rng(0)
    made = [catalog.media.put(random.bytes(MEDIA_BYTES), ".mp4") for _ in range(MEDIA)]
    stored = [{"media": m.digest, "media_path": m.path, "media_bytes": m.bytes} for m in made]
    catalog.append("takes", [take_row("E02", n) | media for n, media in enumerate(stored)])
    (quick, quick_mb), (whole, whole_mb) = commands(folder, Path(), [["catalog", "verify", "--quick"], ["catalog", "verify"]])
    return [
        Measured(f"verify --quick, {takes:,} takes", f"{quick:.2f} s, {quick_mb:.0f} MB"),
        Measured(f"verify, {takes:,} takes and {MEDIA:,} media files of {MEDIA_BYTES // 1000} kB", f"{whole:.2f} s, {whole_mb:.0f} MB"),
    ]


def many_shots(folder: Path, shots: int) -> list[Measured]:
    """`plan` of one huge episode, nothing rendered yet and everything accepted."""
    file = episode_file(folder, shots)
    settings = load_settings().model_copy(update={"catalog_uri": str(folder / "catalog")})
    catalog = open_catalog(settings)
    rows = []
    for what in ("nothing rendered", "all accepted"):
        if what == "all accepted":
            accepted_takes(catalog, file)
        ((seconds, peak),) = commands(folder / "catalog", file, [["plan"]])
        rows.append(Measured(f"plan of {shots:,} shots, {what}", f"{seconds:.2f} s, {peak:.0f} MB"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="up to 10,000 takes and 1,000 shots")
    options = parser.parse_args()
    console = Console(width=150)
    console.print(f"{device_name('cpu')}, {os.cpu_count()} cores, Python {platform.python_version()}", highlight=False)
    table = Table("what", "measured", box=None)
    with tempfile.TemporaryDirectory(prefix="tower-catalog-") as temporary:
        folders = [Path(temporary) / name for name in ("writers", "rows", "takes", "shots")]
        for folder in folders:
            folder.mkdir()
        results = [many_writers(folders[0], 8, 25), rows_a_second(folders[1], 1000 if options.quick else 10_000, 400)]
        results += many_takes(folders[2], [1_000, 10_000] if options.quick else [10_000, 100_000, 1_000_000])
        results += many_shots(folders[3], 1_000 if options.quick else 100_000)
    for result in results:
        table.add_row(result.what, result.value)
    console.print(table)


if __name__ == "__main__":
    main()
