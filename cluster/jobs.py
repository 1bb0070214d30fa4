"""Ray's job API: submit, list, follow and stop jobs on a running cluster. The module does not know what the jobs do."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from .start import ClusterError  # before Ray: it sets the environment that Ray reads when it is imported

# isort: split
import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
ANSWER_SECONDS = 10  # limit for the job API's first answer
STOP_SECONDS = 30  # time for a stopped job to end by itself; then Ray kills it
POLL_SECONDS = 0.5
OVER = ("SUCCEEDED", "FAILED", "STOPPED")
CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env.packaging")
ATTEMPTS = 8  # to submit under a free id; an attempt fails where another submitter takes that id first


class NoSuchJob(ClusterError):
    """The cluster has no job of that id."""


@dataclass(frozen=True)
class Job:
    """A job as Ray reports it. state: PENDING, RUNNING, or one of OVER. exit_code: None until the job's command has ended."""

    id: str
    state: str
    message: str
    started: datetime | None
    ended: datetime | None
    exit_code: int | None
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        return self.state in OVER


def address_of(given: str | None) -> str:
    """Address of the job API: `given`, else RAY_API_SERVER_ADDRESS, else RAY_ADDRESS where it is a URL, else DEFAULT_ADDRESS.

    Raises:
        ClusterError: the address is no URL.
    """
    named = {"--address": given, "RAY_API_SERVER_ADDRESS": os.environ.get("RAY_API_SERVER_ADDRESS")}
    ray_address = os.environ.get("RAY_ADDRESS", "")
    if ray_address.startswith(("http://", "https://")):
        named["RAY_ADDRESS"] = ray_address
    source, address = next(((name, value) for name, value in named.items() if value), ("", DEFAULT_ADDRESS))
    if not address or not re.fullmatch(r"https?://[^/\s]\S*", address):
        raise ClusterError(f"{source} {address} is no address of Ray's job API; give one such as {DEFAULT_ADDRESS}")
    return address.rstrip("/")


def connect(address: str) -> JobSubmissionClient:
    """A client of the job API at that address.

    Raises:
        ClusterError: the job API does not answer within ANSWER_SECONDS, or refuses the token.
    """
    _no_proxy_on_loopback(address)
    headers = _headers(address)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # Ray prefers its variables to the address that is passed
    with _one_sentence(address):
        return JobSubmissionClient(address, headers=headers)


def _no_proxy_on_loopback(address: str) -> None:
    """A cluster on this machine is asked directly. A proxy would get its token, and the proxy's answer is not the cluster's.

    The exception is set in the environment, since Ray's own client reads it there.
    """
    host = urlsplit(address).hostname or ""
    if host == "localhost" or host.startswith("127.") or host == "::1":
        for name in ("no_proxy", "NO_PROXY"):
            known = [x for x in os.environ.get(name, "").split(",") if x]
            os.environ[name] = ",".join(dict.fromkeys([*known, host]))


def submit(
    client: JobSubmissionClient, wanted: str, command: str, folder: Path, env: dict[str, str], metadata: dict[str, str], id_in: str = ""
) -> tuple[Job, bool]:
    """Run a command on the cluster's head node. Returns its job, and whether the job is new.

    While a job with the wanted id is pending or running, that job is returned and nothing is submitted. Once it has
    ended, the next job is called ID-2, then ID-3, and so on.

    Args:
        wanted: id of the job. folder: Ray copies it to every node, and the command runs in it.
        env: environment variables of the command. metadata: stored with the job.
        id_in: environment variable of the command that holds the job's id; "" for none.

    Raises:
        ClusterError: the cluster refuses the job, or other submitters took every id that was tried.
    """
    variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)} | env
    for _ in range(ATTEMPTS):
        earlier = {number: job for job in jobs(client) if (number := _number(job.id, wanted))}
        for job in earlier.values():
            if not job.over:
                return job, False
        name = f"{wanted}-{max(earlier) + 1}" if earlier else wanted
        runtime = {"working_dir": str(folder), "env_vars": variables | ({id_in: name} if id_in else {})}
        try:
            with _one_sentence(client.get_address()):
                client.submit_job(entrypoint=command, submission_id=name, runtime_env=runtime, metadata=metadata)
        except ClusterError as error:
            if "already exists" not in str(error):
                raise
            continue  # another submitter was quicker; the next look finds its job
        return find(client, name), True
    raise ClusterError(f"{wanted}: others submit the same at the same time, and each of their jobs ends at once")


def jobs(client: JobSubmissionClient, prefix: str = "") -> list[Job]:
    """Submitted jobs whose ids begin with `prefix`, oldest first."""
    with _one_sentence(client.get_address()):
        found = [_job(told) for told in client.list_jobs() if (told.submission_id or "").startswith(prefix) and told.submission_id]
    return sorted(found, key=lambda job: job.started or datetime.max.replace(tzinfo=UTC))


def find(client: JobSubmissionClient, name: str) -> Job:
    """The job with the id `name`.

    Raises:
        NoSuchJob: there is no such job.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):  # the id becomes part of a URL
        raise NoSuchJob(f"{name!r} is no job's id; `tower jobs` lists them")
    try:
        with _one_sentence(client.get_address()):
            return _job(client.get_job_info(name))
    except ClusterError as error:
        if "does not exist" not in str(error):
            raise
        raise NoSuchJob(f"the Ray cluster at {client.get_address()} has no job {name}; `tower jobs` lists them") from error


def log_of(client: JobSubmissionClient, name: str) -> str:
    """What the job has printed so far."""
    with _one_sentence(client.get_address()):
        return client.get_job_logs(name)


def follow(client: JobSubmissionClient, name: str, tell: Callable[[str], None]) -> Job:
    """Pass what the job prints to `tell` until the job ends. Returns the ended job."""

    async def read() -> None:
        async for lines in client.tail_job_logs(name):
            tell(lines)

    with _one_sentence(client.get_address()):
        asyncio.run(read())
    return _ended(client, name, float("inf"))


def stop(client: JobSubmissionClient, name: str) -> Job:
    """Stop a job, and wait until it has ended.

    Raises:
        ClusterError: the job has not ended after STOP_SECONDS + 30 s.
    """
    with _one_sentence(client.get_address()):
        client.stop_job(name)
    return _ended(client, name, STOP_SECONDS + 30)


def _ended(client: JobSubmissionClient, name: str, seconds: float) -> Job:
    end = time.monotonic() + seconds
    while not (job := find(client, name)).over:
        if time.monotonic() > end:
            raise ClusterError(f"job {name} is still {job.state} after {seconds:.0f} s")
        time.sleep(POLL_SECONDS)
    return job


def _job(told: JobDetails) -> Job:
    def moment(milliseconds: int | None) -> datetime | None:
        return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None

    return Job(
        id=told.submission_id or "",
        state=str(told.status),
        message=told.message or "",
        started=moment(told.start_time),
        ended=moment(told.end_time),
        exit_code=told.driver_exit_code,
        metadata=told.metadata or {},
    )


def _number(name: str, wanted: str) -> int | None:
    """1 for the wanted id, n for ID-n, None for any other."""
    found = re.fullmatch(re.escape(wanted) + r"(?:-([2-9]|[1-9][0-9]+))?", name)
    return int(found[1] or 1) if found else None


def _headers(address: str) -> dict[str, str]:
    """HTTP headers that the cluster accepts. The first question has no token, so that the token goes only to a cluster that wants one.

    The question does not use Ray's client, which would retry, or wait for ever on a port that accepts and never answers.
    """
    token = {"Authorization": f"Bearer {_token()}"} if _token() else {}
    for headers in ({}, token):
        try:
            answer = requests.get(f"{address}/api/version", headers=headers, timeout=ANSWER_SECONDS)
            if answer.status_code in (401, 403):
                continue
            answer.json()["ray_version"]
        except requests.exceptions.JSONDecodeError as error:
            raise ClusterError(f"what answers at {address} is not Ray's job API; is it another port?") from error
        except (requests.exceptions.RequestException, KeyError, TypeError, UnicodeError) as error:
            raise ClusterError(f"no Ray cluster answers at {address} ({_reason(error)}); start one, or name it with --address") from error
        return headers
    if not token:
        raise ClusterError(
            f"the Ray cluster at {address} wants a token: put it into RAY_AUTH_TOKEN, or into the file that RAY_AUTH_TOKEN_PATH names"
        )
    raise ClusterError(f"the Ray cluster at {address} does not take this token: RAY_AUTH_TOKEN must be the one that it was started with")


def _token() -> str:
    """The token, from where Ray itself looks for it; "" where there is none."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return os.environ["RAY_AUTH_TOKEN"].strip()
    try:
        return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token").read_text().strip()
    except (OSError, RuntimeError, UnicodeError):
        return ""


@contextmanager
def _one_sentence(address: str) -> Iterator[None]:
    """Turn any error of Ray's client into a ClusterError of one sentence."""
    try:
        yield
    except (AuthenticationError, RuntimeError, ValueError, OSError, requests.exceptions.RequestException, aiohttp.ClientError) as error:
        if isinstance(error, ClusterError):
            raise
        raise ClusterError(f"the Ray cluster at {address}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """The error's message without class names, at most 300 characters."""
    inner = getattr(error.args[0], "reason", None) if error.args else None  # `requests` keeps the socket's own message here
    lines = [line.strip() for line in str(inner or error).splitlines() if line.strip(" .")]
    if not lines:
        return type(error).__name__
    said = lines[-1] if "Traceback" in lines[0] else lines[0]  # where the job API itself fails, it answers with a traceback
    return re.sub(r"^\w*Connection\w*\(.*?\): ", "", said)[:300].rstrip(".")
