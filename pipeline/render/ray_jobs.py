"""Renders as jobs on a Ray cluster that runs already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from catalog.store import Catalog
from cluster import jobs
from pipeline.story.errors import InputError
from pipeline.story.settings import Settings

from .job import ENDS, LOG_BYTES, End, Facts, Job, log_part, reason
from .order import Order
from .run_log import living_runs, taken
from .submission import JOB, PREFIX, submission


class RayJobs:
    """`Jobs` on a cluster.

    Args:
        address: of Ray's job API; None: as Ray's variables have it. settings: of the renders. catalog: of the settings.
    """

    def __init__(self, address: str | None, settings: Settings, catalog: Catalog):
        self.address, self.settings, self.catalog = jobs.address_of(address), settings, catalog

    def start(self, order: Order) -> Job:
        """Submit a render. The same order again, while its job waits, is that job."""
        ready = submission(order, self.settings)
        for row in living_runs(self.catalog, ready.metadata["episode"]):
            raise InputError(taken(ready.metadata["episode"], row))
        client = self._client()
        with ready.staged() as folder:
            job, _ = jobs.submit(client, ready.name, ready.command, folder, ready.env, ready.metadata, id_in=JOB)
        return self._told(job)

    def list(self, episode: str | None = None) -> Sequence[Job]:
        found = jobs.jobs(self._client(), PREFIX)[::-1]
        facts = Facts(self.catalog)  # after the cluster was asked: of a job that has ended, every row is there
        return [self._told(job, facts) for job in found if episode in (None, job.metadata.get("episode"))]

    def find(self, job: str) -> Job:
        return self._told(jobs.find(self._client(), job))

    def log(self, job: str, offset: int = 0) -> tuple[str, int]:
        client = self._client()
        jobs.find(client, job)
        whole = jobs.log_of(client, job).encode(errors="replace")
        return log_part(whole[offset : offset + LOG_BYTES], offset)

    def stop(self, job: str) -> Job:
        client = self._client()
        found = jobs.find(client, job)
        return self._told(found if found.over else jobs.stop(client, job))

    def _client(self) -> Any:
        return jobs.connect(self.address)

    def _told(self, job: jobs.Job, facts: Facts | None = None) -> Job:
        return (facts or Facts(self.catalog)).job(job.id, job.metadata.get("episode", ""), job.started, end_of(job))


def end_of(job: jobs.Job) -> End | None:
    """How the job ended; None while it lives."""
    if not job.over:
        return None
    if job.state == "STOPPED":
        return End("stopped", job.ended)
    state = ENDS.get(job.exit_code, "failed") if job.exit_code is not None else "succeeded" if job.state == "SUCCEEDED" else "failed"
    return End(state, job.ended, reason(job.message.splitlines(), first=True) if state == "failed" else "")
