"""`tower submit`, `jobs`, `logs`, `cancel`: renders as jobs on a Ray cluster that runs already."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import AllowExperimental, Fresh, NewSeeds, shots_named
from .table import out, show

if TYPE_CHECKING:
    from cluster.jobs import Job

Address = Annotated[
    str | None, typer.Option(metavar="URL", help="Ray's job API; else RAY_API_SERVER_ADDRESS, RAY_ADDRESS, http://127.0.0.1:8265")
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="the job's id, as `tower jobs` lists it")]


def submit(
    episode: Annotated[Path, typer.Argument(metavar="EPISODE", help="episode file (YAML)")],
    out_dir: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="a folder here, or, if absolute, there: where the episode's folder is written")
    ] = Path("out"),
    only: Annotated[str, typer.Option(metavar="SHOTS", help="only these shots or sequences, separated by commas")] = "",
    fresh: Fresh = False,
    new_seeds: NewSeeds = False,
    allow_experimental: AllowExperimental = False,
    address: Address = None,
    wait: Annotated[bool, typer.Option("--wait", help="print the job's log, and end as it ends")] = False,
) -> None:
    """Render as a job on a Ray cluster. The same submission again, while it runs, is that job."""
    from cluster import jobs
    from pipeline.render.order import Order
    from pipeline.render.submission import JOB, submission
    from pipeline.story.settings import load_settings

    order = Order(episode, out_dir, shots_named(only), fresh, new_seeds, allow_experimental)
    ready = submission(order, load_settings())
    client = jobs.connect(jobs.address_of(address))
    with ready.staged() as folder:
        job, new = jobs.submit(client, ready.name, ready.command, folder, ready.env, ready.metadata, id_in=JOB)
    out.print(f"{'submitted' if new else 'already submitted'} as {job.id}, {job.state}", highlight=False, soft_wrap=True)
    if wait:
        _end_as(_followed(client, job))


def list_jobs(
    as_json: Annotated[bool, typer.Option("--json", help="print a JSON list of objects")] = False, address: Address = None
) -> None:
    """Tower's jobs on a Ray cluster."""
    from cluster import jobs
    from pipeline.render.submission import PREFIX

    client = jobs.connect(jobs.address_of(address))
    rows = [
        {
            "job": job.id,
            "episode": job.metadata.get("episode", ""),
            "state": job.state,
            "since": job.started,
            "seconds": ((job.ended or datetime.now(UTC)) - job.started).total_seconds() if job.started else None,
            "message": _why(job),
        }
        for job in jobs.jobs(client, PREFIX)
    ]
    show(rows, as_json, "no jobs")


def logs(
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", help="go on until the job ends, and end as it ends")] = False,
    address: Address = None,
) -> None:
    """What a job has printed."""
    from cluster import jobs

    client = jobs.connect(jobs.address_of(address))
    found = jobs.find(client, job)
    if follow:
        _end_as(_followed(client, found))
    _tell(jobs.log_of(client, job))


def cancel(job: JobId, address: Address = None) -> None:
    """Stop a job. Its takes so far stay in the catalog, and the same submission again goes on from there."""
    from cluster import jobs

    client = jobs.connect(jobs.address_of(address))
    found = jobs.find(client, job)
    ended = found if found.over else jobs.stop(client, job)
    out.print(f"{job} {'had ended already' if found.over else 'ended'}: {ended.state}", highlight=False, soft_wrap=True)


def _followed(client: Any, job: Job) -> Job:
    from cluster import jobs

    try:
        return jobs.follow(client, job.id, _tell)
    except KeyboardInterrupt:
        out.print(f"{job.id} goes on; `tower cancel {job.id}` stops it", highlight=False, soft_wrap=True)
        raise


def _end_as(job: Job) -> None:
    """End with the exit code of the job's own command; 130 if it was stopped."""
    out.print(f"{job.id} ended: {job.state}", highlight=False, soft_wrap=True)
    if job.state != "SUCCEEDED":
        raise typer.Exit(130 if job.state == "STOPPED" else job.exit_code or 1)
    raise typer.Exit(0)


def _why(job: Job) -> str:
    """Why a job failed: what its command printed last of it, else Ray's message. "" for any other job."""
    from pipeline.render.job import reason

    return reason(job.message.splitlines(), first=True) if job.state == "FAILED" else ""


def _tell(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
