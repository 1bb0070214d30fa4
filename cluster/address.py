"""RAY_ADDRESS: what it means, and whether a Ray cluster answers there. Asked before anything is recorded or started."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

from .code import project

CONNECT_SECONDS = 10
ANSWER_SECONDS = 30  # importing Ray takes some of them
EXAMPLE = "give the head's, such as head:6379"


class AddressError(ValueError):
    """No Ray cluster can be joined at this address. The message is one sentence."""


def cluster_address(given: str) -> str:
    """The host:port of the cluster's head, proven to answer as Ray does.

    Args:
        given: as in RAY_ADDRESS: host:port, [IPv6]:port, or "auto" for the cluster that was started on this machine.

    Raises:
        AddressError: it is another kind of address, or nobody answers there as Ray of this version does.
    """
    address = _on_this_machine() if given == "auto" else given
    host, port = _host_and_port(address, given)
    named = f"RAY_ADDRESS {given}" + (f", which is {address}" if address != given else "")
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise AddressError(f"could not join the Ray cluster at {named}: {error}") from error
    if fault := _fault(address):
        raise AddressError(f"could not join the Ray cluster at {named}: {fault}")
    return address


def _on_this_machine() -> str:
    """What Ray wrote down when a cluster was started here."""
    folder = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray"
    try:
        return (folder / "ray_current_cluster").read_text().strip()
    except OSError:
        raise AddressError(f"RAY_ADDRESS is auto, but no Ray cluster was started on this machine; {EXAMPLE}, or unset it") from None


def _host_and_port(address: str, given: str) -> tuple[str, int]:
    scheme, separator, _ = address.partition("://")
    if separator and scheme == "ray":
        raise AddressError(f"RAY_ADDRESS {given} is an address of Ray Client, through which frames cannot travel; {EXAMPLE}")
    if separator:
        raise AddressError(f"RAY_ADDRESS {given} is an address of Ray's job API, which `tower submit` takes; to join, {EXAMPLE}")
    if address == "local":
        raise AddressError("RAY_ADDRESS is local, which would start a Ray without devices for every render; unset it")
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):([0-9]{1,5})", address)
    if not match:
        raise AddressError(f"RAY_ADDRESS {given} is no host:port; {EXAMPLE}")
    return match[1].strip("[]"), int(match[2])


@cache
def _fault(address: str) -> str:
    """What is wrong with whoever listens there; "" if it is a Ray of this version.

    A process of its own asks: Ray's client would wait for minutes where a port is open and nobody answers, and hears no signal then.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", "cluster.address", address], cwd=project(), capture_output=True, text=True, timeout=ANSWER_SECONDS,
            check=False,
        )  # fmt: skip
        return json.loads(done.stdout.splitlines()[-1])["fault"]
    except subprocess.TimeoutExpired:
        return f"the port is open, but nobody answered as Ray does within {ANSWER_SECONDS} s"
    except (OSError, ValueError, IndexError, KeyError):
        return "the port is open, but who answers there is no Ray"


def _ask(address: str) -> str:
    import ray
    from ray._common.usage.usage_lib import get_cluster_metadata
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    there = get_cluster_metadata(GcsClient(address=address)) or {}
    mine = {"ray_version": ray.__version__, "python_version": ".".join(map(str, sys.version_info[:3]))}
    for name, version in mine.items():
        if there.get(name, version) != version:
            return f"it runs {name.removesuffix('_version').title()} {there[name]}, and this is {version}; they must be the same"
    return ""


def in_one_line(error: BaseException) -> str:
    """The error's own words. Ray often gives the reason in its second line, so all of them are kept, as far as 300 characters go."""
    return " ".join(str(error).split())[:300] or type(error).__name__


if __name__ == "__main__":
    try:
        answer = _ask(sys.argv[1])
    except Exception as error:  # noqa: BLE001 - a person is told whatever Ray says
        answer = in_one_line(error)
    print(json.dumps({"fault": answer}), flush=True)
