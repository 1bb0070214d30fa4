"""The devices of the cluster. They come and go with their nodes, and a dead device gets a new actor."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from .choose import Request, Seat
from .device import Device
from .nodes import Node, nodes
from .specs import DeviceStats, PoolOptions

START_SECONDS = 120  # limit for a new actor to answer; one that takes longer waits for a GPU that somebody else uses
WATCH_SECONDS = 2.0  # seconds between two looks at the cluster's nodes
MEMORY_SHARE = 0.9  # share of a GPU's memory for models; the CUDA driver and fragmentation take the rest


@dataclass(eq=False)
class Post(Seat):
    """A seat with its actor.

    life: number of actors that the seat had before this one.
    batches: batches sent to the actor and not yet answered, oldest first. The first executes; at most one waits behind it.
    asked, up_since, busy_since: time.monotonic() when the actor was asked for, came up, and began to execute.
    """

    actor: Any = None
    pid: int = 0
    life: int = 0
    up: bool = False
    batches: list[list[Request]] = field(default_factory=list)
    asked: float = 0.0
    up_since: float = 0.0
    busy_since: float = 0.0

    @property
    def name(self) -> str:
        kind = f", {self.node.accelerator}" if self.node.accelerator else ""
        return f"device {self.number} on {self.node.name}{kind}"

    @property
    def requests(self) -> list[Request]:
        """Every request that was sent to the actor and is not yet answered."""
        return [r for batch in self.batches for r in batch]


class Fleet:
    """All posts, and the seconds for which they were up and busy.

    Args:
        threads: CPU threads of each device, where devices share a machine's cores; 0 for no limit.
        changed: called when a device has come up.
        lost: called when nodes are gone, with the requests that were on their devices.
    """

    def __init__(self, threads: int, options: PoolOptions, changed: Callable[[], None], lost: Callable[[list[Request]], None]):
        self.threads, self.options, self.changed, self.lost = threads, options, changed, lost
        self.posts: list[Post] = []
        self.seen: set[str] = set()  # ids of the nodes that were alive at the last look
        self.numbers = itertools.count()
        self.tasks: set[asyncio.Task[None]] = set()
        self.first_up = asyncio.Event()
        self.restarts = 0
        self.busy_seconds = self.up_seconds = 0.0  # of batches and actors that have ended

    @property
    def working(self) -> list[Post]:
        """The posts that take new work: they are up, and their nodes are not about to leave."""
        return [p for p in self.posts if p.up and not p.node.leaving]

    def spawn(self, work: Any) -> None:
        """Run a coroutine in the background; `close` cancels it."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def close(self) -> None:
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for post in self.posts:
            self._end(post)

    def begin_work(self, post: Post, batch: list[Request]) -> None:
        if not post.batches:
            post.busy_since = time.monotonic()
        post.batches.append(batch)

    def end_work(self, post: Post, batch: list[Request]) -> None:
        now = time.monotonic()
        self.busy_seconds += now - post.busy_since
        post.busy_since = now
        post.batches.remove(batch)
        if post.node.leaving and not post.batches:
            self._drop(post)

    def seconds(self) -> tuple[float, float]:
        """Seconds for which devices were busy and were up until now, each summed over all devices."""
        now, up = time.monotonic(), [p for p in self.posts if p.up]
        busy = sum(now - p.busy_since for p in up if p.batches)
        return self.busy_seconds + busy, self.up_seconds + sum(now - p.up_since for p in up)

    def stats(self) -> tuple[DeviceStats, ...]:
        """What each device does now."""
        now = time.monotonic()
        return tuple(
            DeviceStats(
                p.name,
                p.node.name,
                p.up,
                tuple((r.title, r.take) for r in p.batches[0]) if p.batches else (),
                now - p.busy_since if p.batches else None,
            )
            for p in self.posts
        )

    def replace(self, post: Post) -> None:
        """Start a new actor in place of a dead or unhealthy one."""
        self.restarts += 1
        self._end(post)
        self.spawn(self._start(post))

    def _end(self, post: Post) -> None:
        now = time.monotonic()
        self.busy_seconds += now - post.busy_since if post.batches else 0.0
        self.up_seconds += now - post.up_since if post.up else 0.0
        if post.actor is not None:
            ray.kill(post.actor)
        post.actor, post.up, post.life = None, False, post.life + 1
        post.batches.clear()
        post.resident.clear()

    def _drop(self, post: Post) -> None:
        self._end(post)
        if post in self.posts:
            self.posts.remove(post)

    async def _start(self, post: Post) -> None:
        life, post.asked = post.life, time.monotonic()
        # num_cpus=0: an actor reserves its CPUs for life, and would leave none to the gates on a small machine.
        # max_restarts=0: a restart by Ray would run the same call in the same, perhaps broken, place and blame the wrong take.
        options: dict[str, Any] = {"num_gpus": 1, "num_cpus": 0, "max_restarts": 0, "max_task_retries": 0, "max_concurrency": 1}
        where = NodeAffinitySchedulingStrategy(post.node.id, soft=False)
        name = post.name + (f", actor {post.life + 1}" if post.life else "")
        try:
            post.actor = ray.remote(Device).options(name=name, scheduling_strategy=where, **options).remote(self.threads)
            post.pid, memory = await asyncio.wait_for(_reply(post.actor.describe.remote()), START_SECONDS)
        except (RayError, TimeoutError, ValueError):
            if post.life == life:
                self._drop(post)  # the next look at the nodes tries again, if the node still offers the GPU
            return
        if post.life != life:
            return
        configured = self.options.device_memory.get(post.node.accelerator, self.options.device_memory.get(""))
        post.memory = configured if configured is not None else int(memory * MEMORY_SHARE) if memory else None
        post.up, post.up_since = True, time.monotonic()
        self.first_up.set()
        self.changed()

    @staticmethod
    def is_there(node: Node) -> bool:
        """Whether Ray reports the node as alive. Ray is asked now, because the last look may be older than the failure."""
        try:
            return any(n.id == node.id for n in nodes())
        except (RayError, RuntimeError):
            return False  # the head node does not answer, so the node counts as lost

    async def watch(self, after: Callable[[], None]) -> None:
        """Look at the nodes every WATCH_SECONDS, for ever. `after` is called after each look."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                found = await asyncio.to_thread(nodes)
            except (RayError, RuntimeError):
                continue  # the head node does not answer now; running work goes on
            self.look(found)
            after()

    def look(self, found: list[Node]) -> None:
        """Update the posts: add devices of new nodes, drop idle devices of nodes that leave, and drop devices of nodes that are gone.

        Args:
            found: the nodes that are alive.
        """
        alive = {n.id: n for n in found}
        if gone := self.seen - alive.keys():
            self._leave(gone)
        self.seen = set(alive)
        for post in list(self.posts):
            post.node = alive[post.node.id]
            if post.node.leaving and not post.batches:
                self._drop(post)
        for node in found:
            have = sum(p.node.id == node.id for p in self.posts)
            for _ in range(0 if node.leaving else node.gpus - have):
                if self.options.devices is None or len(self.posts) < self.options.devices:
                    post = Post(next(self.numbers), node, most=self.options.resident)
                    self.posts.append(post)
                    self.spawn(self._start(post))

    def _leave(self, gone: set[str]) -> None:
        posts = [p for p in self.posts if p.node.id in gone]
        requests = [r for p in posts for r in p.requests]
        for post in posts:
            self._drop(post)
        self.lost(requests)


async def _reply(ref: Any) -> Any:
    return await ref
