"""Ray Serve: runs a web app in a cluster that runs already."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .address import in_one_line
from .start import ClusterError, code_for_a_cluster, joined  # before Ray: it sets the environment that Ray reads when it is imported

# isort: split
import ray
from ray import serve
from ray.dashboard.utils import ray_address_to_api_server_url
from ray.serve.context import _get_global_client

STREAMS = 5000  # requests that a replica answers at once; most are event streams, which wait
LOOK_SECONDS = 1.0


def application(name: str, build: Callable[[], Any]) -> serve.Application:
    """An app of Serve with one replica, which takes no CPU from the work of the cluster.

    Args:
        build: makes the ASGI app, in the replica.
    """
    options: dict[str, Any] = {"num_replicas": 1, "max_ongoing_requests": STREAMS, "ray_actor_options": {"num_cpus": 0}}
    return serve.deployment(**options)(serve.ingress(build)(type(name, (), {}))).bind()  # type: ignore[attr-defined]


@contextmanager
def served(name: str, app: serve.Application, host: str, port: int, env: dict[str, str]) -> Iterator[None]:
    """Run an app on the cluster at RAY_ADDRESS for the length of a `with` block.

    Args:
        host, port: where the head node listens. env: environment variables of the replica.

    Raises:
        ClusterError: there is no cluster, or Serve runs there already at another address.
    """
    address = joined()
    if not address:
        raise ClusterError("no cluster is named: set RAY_ADDRESS, such as to 127.0.0.1:6379, or leave out --on-ray")
    try:
        with code_for_a_cluster() as runtime_env:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=runtime_env | {"env_vars": env})
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        serve.start(http_options={"host": host, "port": port, "location": "HeadOnly"}, logging_config={"enable_access_log": False})
        _check_listener(host, port)
        serve.run(app, name=name, route_prefix="/")
    except ClusterError:
        raise
    except Exception as error:
        raise ClusterError(f"the desk could not be started on the cluster at {address}: {in_one_line(error)}") from error
    try:
        yield
    finally:
        serve.delete(name)
        ray.shutdown()


def _check_listener(host: str, port: int) -> None:
    """Raises ClusterError where Serve listens elsewhere: it ignores the address, with a warning only, once it runs."""
    options = _get_global_client().http_config  # type: ignore[union-attr]
    if (options.host, options.port) != (host, port):
        raise ClusterError(
            f"Ray Serve runs there already and listens on {options.host}:{options.port}, so the desk cannot listen on {host}:{port}; "
            f"name that address, or shut Serve down first"
        )


def wait_while_running(name: str) -> None:
    """Return when the app does not run any more, such as after `serve delete`."""
    while name in serve.status().applications:
        time.sleep(LOOK_SECONDS)


def jobs_address() -> str:
    """Address of the job API of the cluster that this process is part of."""
    return ray_address_to_api_server_url(ray.get_runtime_context().gcs_address)
