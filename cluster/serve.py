"""Ray Serve: runs a web app in a cluster that runs already."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .address import in_one_line
from .start import ClusterError, code_for_a_cluster, joined  # before Ray: it sets the environment that Ray reads when it is imported

# isort: split
import ray
from ray import serve
from ray.dashboard.utils import ray_address_to_api_server_url
from ray.exceptions import RayActorError, RayTaskError
from ray.serve._private.constants import SERVE_NAMESPACE
from ray.serve.context import _get_global_client
from ray.serve.exceptions import RayServeException

STREAMS = 5000  # requests that a replica answers at once; most are event streams, which wait
CLOSING_SECONDS = 3.0  # for answers that are under way; event streams never end by themselves
ENDING_SECONDS = 60.0  # for Serve's own processes
LOOK_SECONDS = 1.0
ON_THE_HEAD = {"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}}  # where the job API listens; no CPU is taken from the work


def application(name: str, build: Callable[[], Any]) -> serve.Application:
    """An app of Serve with one replica, on the head node.

    Args:
        build: makes the ASGI app, in the replica.
    """
    options: dict[str, Any] = {
        "num_replicas": 1,
        "max_ongoing_requests": STREAMS,
        "graceful_shutdown_timeout_s": CLOSING_SECONDS,
        "graceful_shutdown_wait_loop_s": 0.5,
        "ray_actor_options": ON_THE_HEAD,
    }
    return serve.deployment(**options)(serve.ingress(build)(type(name, (), {}))).bind()  # type: ignore[attr-defined]


@contextmanager
def served(name: str, app: serve.Application, check: Callable[[], None], host: str, port: int, env: dict[str, str]) -> Iterator[None]:
    """Run an app on the cluster at RAY_ADDRESS for the length of a `with` block. The cluster and its jobs stay.

    Args:
        check: is called on the head node first; what it raises, this raises.
        host, port: where the head node listens. env: environment variables of the replica.

    Raises:
        ClusterError: there is no cluster, the app runs there already, or Serve cannot listen there.
    """
    with _joined(env) as address:
        with _one_sentence(address):
            before = _applications()
        if before is not None:
            _check_free(name, before, host, port)
        try:
            with _one_sentence(address):
                _on_the_head(check)
                if before is None:
                    _start(host, port)
                serve.run(app, name=name, route_prefix="/")
            yield
        finally:
            _remove(name, alone=before is None)


@contextmanager
def _joined(env: dict[str, str]) -> Iterator[str]:
    """Join the cluster, and leave it with the block. Gives its address."""
    address, at_sigterm = joined(), signal.getsignal(signal.SIGTERM)
    if not address:
        raise ClusterError("no cluster is named: set RAY_ADDRESS, such as to 127.0.0.1:6379, or leave out --on-ray")
    try:
        with _one_sentence(address), code_for_a_cluster() as runtime_env:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=runtime_env | {"env_vars": env})
        signal.signal(signal.SIGTERM, at_sigterm)  # Ray has set its own, which ends the process with exit code 15
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        yield address
    finally:
        ray.shutdown()


def _applications() -> set[str] | None:
    """Names of the apps that Serve runs; None where Serve does not run."""
    if _get_global_client(raise_if_no_controller_running=False) is None:
        return None
    return set(serve.status().applications)


def _check_free(name: str, running: set[str], host: str, port: int) -> None:
    """Raises ClusterError where Serve, which runs already, cannot take the app: it ignores another address with a warning only."""
    there = "{0.host}:{0.port}".format(_get_global_client().http_config)  # type: ignore[union-attr]
    if name in running:
        raise ClusterError(f"{name} runs on this cluster already, at http://{there}; open it there, or end it first with `serve shutdown`")
    if there != f"{host}:{port}":
        raise ClusterError(
            f"Ray Serve runs on this cluster already and listens on {there}, so it cannot listen on {host}:{port}; name that address, or "
            f"end Serve first with `serve shutdown`"
        )


def _start(host: str, port: int) -> None:
    try:
        serve.start("HeadOnly", {"host": host, "port": port}, logging_config={"enable_access_log": False})
    except RuntimeError as error:
        if "Failed to bind" in str(error):
            raise ClusterError(f"the cluster's head cannot listen on {host}:{port}; give another --port or --host") from error
        raise


def _on_the_head(does: Callable[[], None]) -> None:
    try:
        ray.get(ray.remote(max_retries=0, **ON_THE_HEAD)(_call).remote(does))
    except RayTaskError as error:
        raise error.cause from error


def _call(does: Callable[[], None]) -> None:
    does()


def _remove(name: str, alone: bool) -> None:
    """End the app; and Serve too, where it was started for this app alone and nobody else has come to use it."""
    with suppress(RayServeException, RayActorError):  # somebody has ended Serve before
        serve.delete(name)
        if alone and not _applications():
            _end_serve()


def _end_serve() -> None:
    """End Serve, and wait for that. With `serve.shutdown`, Ray would print that a task of Serve's has failed."""
    ray.get(_get_global_client()._controller.graceful_shutdown.remote(wait=False))  # type: ignore[union-attr]
    end = time.monotonic() + ENDING_SECONDS
    while time.monotonic() < end and any(a["namespace"] == SERVE_NAMESPACE for a in ray.util.list_named_actors(all_namespaces=True)):
        time.sleep(0.2)


@contextmanager
def _one_sentence(address: str) -> Iterator[None]:
    """Turn Ray's errors into a ClusterError of one sentence."""
    try:
        yield
    except (ray.exceptions.RayError, RayServeException, RuntimeError, ConnectionError, TimeoutError) as error:
        if isinstance(error, ClusterError):
            raise
        raise ClusterError(f"the desk could not be started on the cluster at {address}: {in_one_line(error)}") from error


def wait_while_running(name: str) -> None:
    """Return when the app does not run any more, such as after `serve shutdown`."""
    with suppress(RayServeException, RayActorError):
        while name in serve.status().applications:
            time.sleep(LOOK_SECONDS)


def listening_host() -> str:
    """The address on which Serve listens in the cluster that this process is part of."""
    return _get_global_client().http_config.host  # type: ignore[union-attr]


def jobs_address() -> str:
    """Address of the job API of the cluster that this process is part of."""
    return ray_address_to_api_server_url(ray.get_runtime_context().gcs_address)
