"""The devices that there are: they come and go with their nodes, and a dead one's place gets a new actor."""

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
from .specs import PoolOptions

START_SECONDS = 120  # for an actor to answer; longer means that its device is somebody else's
WATCH_SECONDS = 2.0  # between looks at the cluster's nodes
MEMORY_SHARE = 0.9  # of a device's memory, for models: the rest is the driver's, and lost between blocks


@dataclass(eq=False)
class Post(Seat):
    """A seat with its actor. batches: what was sent there, oldest first; the first executes, the other waits behind it."""

    actor: Any = None
    pid: int = 0
    life: int = 0  # how many actors it has had
    up: bool = False
    batches: list[list[Request]] = field(default_factory=list)
    asked: float = 0.0  # when the actor was asked for
    up_since: float = 0.0
    busy_since: float = 0.0

    @property
    def name(self) -> str:
        kind = f", {self.node.accelerator}" if self.node.accelerator else ""
        return f"device {self.number} on {self.node.name}{kind}"

    @property
    def requests(self) -> list[Request]:
        """Everything that was sent there and is not answered."""
        return [r for batch in self.batches for r in batch]


class Fleet:
    """All posts, and how many seconds they were up and busy.

    Args:
        threads: of each device, where devices share a machine's cores; 0 for no limit.
        changed: called when a device came. lost: called when nodes are gone, with the requests that were on their devices.
    """

    def __init__(self, threads: int, options: PoolOptions, changed: Callable[[], None], lost: Callable[[list[Request]], None]):
        self.threads, self.options, self.changed, self.lost = threads, options, changed, lost
        self.posts: list[Post] = []
        self.seen: set[str] = set()  # nodes, at the last look
        self.numbers = itertools.count()
        self.tasks: set[asyncio.Task[None]] = set()
        self.first_up = asyncio.Event()
        self.restarts = 0
        self.busy_seconds = self.up_seconds = 0.0  # of what is over

    @property
    def working(self) -> list[Post]:
        """Those that take work: up, and not about to leave."""
        return [p for p in self.posts if p.up and not p.node.leaving]

    def spawn(self, work: Any) -> None:
        """Run it beside, until the fleet is closed."""
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
        """Busy seconds and seconds up of all devices together, until now."""
        now, up = time.monotonic(), [p for p in self.posts if p.up]
        busy = sum(now - p.busy_since for p in up if p.batches)
        return self.busy_seconds + busy, self.up_seconds + sum(now - p.up_since for p in up)

    def replace(self, post: Post) -> None:
        """A new actor in a dead or sick one's place."""
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
        # num_cpus=0: a device that held a CPU for life would starve the gates on a small machine.
        # max_restarts=0: Ray would send a retry to the same, perhaps broken, place and blame the wrong take.
        options: dict[str, Any] = {"num_gpus": 1, "num_cpus": 0, "max_restarts": 0, "max_task_retries": 0, "max_concurrency": 1}
        where = NodeAffinitySchedulingStrategy(post.node.id, soft=False)
        name = post.name + (f", actor {post.life + 1}" if post.life else "")
        try:
            post.actor = ray.remote(Device).options(name=name, scheduling_strategy=where, **options).remote(self.threads)
            post.pid, memory = await asyncio.wait_for(_reply(post.actor.describe.remote()), START_SECONDS)
        except (RayError, TimeoutError, ValueError):
            if post.life == life:
                self._drop(post)  # the next look at the nodes tries again, where the node still offers it
            return
        if post.life != life:
            return
        told = self.options.device_memory.get(post.node.accelerator, self.options.device_memory.get(""))
        post.memory = told if told is not None else int(memory * MEMORY_SHARE) if memory else None
        post.up, post.up_since = True, time.monotonic()
        self.first_up.set()
        self.changed()

    @staticmethod
    def is_there(node: Node) -> bool:
        """Whether Ray still counts on it, asked now: the last look may be older than what has just happened."""
        try:
            return any(n.id == node.id for n in nodes())
        except (RayError, RuntimeError):
            return False  # the head does not answer, so nobody knows better

    async def watch(self, after: Callable[[], None]) -> None:
        """Follow the cluster for ever; `after` each look."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                found = await asyncio.to_thread(nodes)
            except (RayError, RuntimeError):
                continue  # the head does not answer just now; what runs goes on
            self.look(found)
            after()

    def look(self, found: list[Node]) -> None:
        """Take note of nodes that came, that leave, and that are gone."""
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
                    post = Post(next(self.numbers), node, self.options.resident)
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
