"""The pool: one actor pinned to each device. It holds models and runs requests.

`choose` decides which work a device does next, and `fleet` knows the devices. The pool sends the work, waits for it, and
settles the requests. When a device dies, only a request that executed there alone fails. The pool moves all other requests
to another device, and their callers notice nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources
from ray.exceptions import ActorUnavailableError, NodeDiedError, RayError, RayTaskError

from .choose import Learned, Queue, Request, choose
from .cpu import CpuTasks
from .device import Answer
from .fleet import START_SECONDS, WATCH_SECONDS, Fleet, Post
from .nodes import nodes
from .specs import DeviceLost, ModelBroken, ModelSpec, NothingCanRun, PoolOptions, PoolStats, RequestFailed, Stopped, Stored, pack, unpack
from .start import ClusterError, ClusterInfo

BREAKER = 3  # devices that a model may kill in a row, without one success, before the pool refuses it
MOVES = 5  # times that the pool moves a request whose device was lost through no fault of its own
STORE_SHARE = 0.25  # share of the object store for large results; the rest is room for the tasks that read them
AT_ONCE = 0.5  # seconds: a call that is lost sooner may have met a device that was already dead
DOUBTS = 2  # times that a request is not blamed for a loss within AT_ONCE
GONE = (ActorUnavailableError, NodeDiedError)  # Ray's errors for an actor whose node cannot be reached
SICK = ("AcceleratorError", "OutOfMemoryError", "MemoryError")  # errors after which an actor's process cannot be trusted


class Pool:
    """Runs models on the cluster's devices. Use as an async context manager, inside `cluster()`."""

    def __init__(self, info: ClusterInfo, options: PoolOptions | None = None):
        self.info, self.options = info, options or PoolOptions()
        self.fleet = Fleet(info.threads_per_device, self.options, self._dispatch, self._lose)
        self.queue, self.learned, self.cpu_tasks = Queue(), Learned(), CpuTasks()
        self.deaths: dict[str, list[tuple[Hashable, str]]] = {}  # model's key to (owner, reason) of each kill since its last success
        self.suspects: set[Hashable] = set()  # owners whose request has killed a device
        self.crowded: set[str] = set()  # keys of models that ran out of memory beside others
        self.count = itertools.count()
        self.paused = self.stopping = self.dispatching = False
        self.stranded: dict[str, float] = {}  # model's key to the time since when no device can run it
        self.frame_bytes = self.switches = 0
        self.switch_seconds = 0.0

    async def __aenter__(self) -> Pool:
        self.frame_cap = STORE_SHARE * ray.cluster_resources().get("object_store_memory", 0)
        if self.options.wait_seconds:
            request_resources(bundles=[{"GPU": 1}] * (self.options.devices or 1))
        self.fleet.look(await asyncio.to_thread(nodes))
        self.fleet.spawn(self.fleet.watch(self._after_a_look))
        limit = max(START_SECONDS, self.options.wait_seconds)
        try:
            # An actor whose creation never ends would make the render hang without a word, so the wait has a limit.
            await asyncio.wait_for(self.fleet.first_up.wait(), limit)
        except (TimeoutError, asyncio.CancelledError) as error:
            await self._close()
            if isinstance(error, asyncio.CancelledError):
                raise
            raise ClusterError(f"no device started within {limit:.0f} s; {self._there()}") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def _close(self) -> None:
        await self.fleet.close()
        if self.options.wait_seconds:
            request_resources(bundles=[])
        _fail(self.queue.clear(), Stopped("the pool is closed"))

    # --- public methods --------------------------------------------------------------------------------------------

    async def prepare(self, spec: ModelSpec, *calls: tuple[Any, ...]) -> None:
        """Build a model on a device, so that a bad file is an error before anything renders.

        Args:
            calls: arguments for the model's `prepare`, one tuple a call.

        Raises:
            NothingCanRun, RequestFailed, ModelBroken, Stopped.
        """
        try:
            await self._ask(spec, None, {}, priority=(), together=None, owner=("prepare", spec.key), calls=calls)
        except DeviceLost as error:
            raise ModelBroken(f"{spec.called}: the device died while it was loading; it may need more memory than there is") from error

    async def submit(
        self,
        spec: ModelSpec,
        request: Any,
        parts: dict[str, Stored] | None = None,
        priority: tuple[int, ...] = (0,),
        together: Hashable = None,
        owner: Hashable = None,
    ) -> tuple[Any, Stored]:
        """Run one request on some device. Returns its receipt and a reference to its result.

        Args:
            parts: field of the request to its value in the object store; the device fills these fields.
            priority: requests with higher values go first; tuples are compared item by item.
            together: only requests with equal values may share a batch.
            owner: whom the pool blames if the request kills a device. Requests of one owner are counted together.

        Raises:
            DeviceLost, RequestFailed, ModelBroken, NothingCanRun, Stopped.
        """
        return await self._ask(spec, request, parts or {}, priority=priority, together=together, owner=owner, calls=None)

    def release(self, part: Stored) -> None:
        """Stop counting the bytes of a result that nobody needs any more, so that the next large result may be made."""
        self.frame_bytes -= part.bytes
        self._dispatch()

    async def cpu(self, function: Callable[..., Any], *args: Any, name: str = "") -> Any:
        """Run a function as a CPU task. `Stored` arguments reach it as their values. Raises its exceptions, or DeviceLost."""
        return await self.cpu_tasks.run(function, args, name)

    async def cpu_part(self, function: Callable[..., Any], *args: Any, name: str = "") -> Stored:
        """Like `cpu`, but leaves the result in the object store. The function must return a list; the reference is to its item 0."""
        return await self.cpu_tasks.keep(function, args, name)

    def pause(self) -> None:
        """Start no more batches until `resume`. Running batches go on."""
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        self._dispatch()

    def stop(self) -> None:
        """Finish running batches and start no more. Requests that wait, and later ones, fail with `Stopped`."""
        self.stopping = True
        _fail(self.queue.clear(), Stopped("the render was told to stop"))

    def takes_turns(self, specs: Iterable[ModelSpec]) -> bool:
        """Whether some device cannot hold at once all those of these models that it may run. Stages take turns there."""
        wanted = list({spec.key: spec for spec in specs}.values())
        kinds = {(p.memory, p.most, p.node.labels): p for p in self.fleet.posts}  # a rack has many devices of few kinds
        for post in kinds.values():
            mine = [(s, need) for s in wanted if post.could_ever(s, need := self.learned.need(s, post))]
            if (post.most or len(mine)) < len(mine) or (post.memory is not None and sum(need for _, need in mine) > post.memory):
                return True
        return False

    def stats(self) -> PoolStats:
        busy = [p for p in self.fleet.posts if p.batches]
        busy_seconds, device_seconds = self.fleet.seconds()
        return PoolStats(
            devices=sum(p.up for p in self.fleet.posts),
            busy=len(busy),
            busy_seconds=busy_seconds,
            device_seconds=device_seconds,
            waiting=dict(Counter(r.spec.stage for r in self.queue)),
            running=dict(Counter(r.spec.stage for p in busy for r in p.batches[0])),
            frame_bytes=self.frame_bytes,
            restarts=self.fleet.restarts,
            switches=self.switches,
            switch_seconds=self.switch_seconds,
            paused=self.paused,
            each=self.fleet.stats(),
        )

    # --- from a request to its device ------------------------------------------------------------------------------

    async def _ask(
        self,
        spec: ModelSpec,
        work: Any,
        parts: dict[str, Stored],
        *,
        priority: tuple[int, ...],
        together: Hashable,
        owner: Hashable,
        calls: tuple[Any, ...] | None,
    ) -> Any:
        await self._wait_for_a_place(spec)
        self._refuse_broken(spec)
        if self.stopping:  # checked just before the push, since nothing may enter the queue after `stop` has emptied it
            raise Stopped("the render was told to stop")
        order = (*(-p for p in priority), next(self.count))
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        request = Request(
            spec, work, parts, together=together, owner=owner, order=order, result=future, calls=calls, alone=owner in self.suspects
        )
        self.queue.push(request)
        self._dispatch()
        try:
            return await future
        finally:
            if request.waits:  # the caller was cancelled
                self.queue.remove(request)

    def _refuse_broken(self, spec: ModelSpec) -> None:
        killers = self.deaths.get(spec.key, [])
        # If all deaths are of one owner, its requests may be at fault and not the model; the caller counts those deaths.
        if len(killers) >= BREAKER and (len({owner for owner, _ in killers}) > 1 or killers[0][0] is None):
            raise ModelBroken(f"{spec.called} killed {len(killers)} devices in a row; the last one: {killers[-1][1]}")

    async def _wait_for_a_place(self, spec: ModelSpec) -> None:
        """Wait until the cluster has a device that could run the model.

        Raises:
            NothingCanRun: there is still no such device after `_grace` seconds.
        """
        end = time.monotonic() + self._grace
        while not self._has_a_place(spec):
            if time.monotonic() > end:
                raise self._no_place(spec)
            await asyncio.sleep(0.2)

    @property
    def _grace(self) -> float:
        """Seconds for which the pool waits for a device that is missing: two looks at the nodes, or the autoscaler's time."""
        return max(2 * WATCH_SECONDS, self.options.wait_seconds)

    def _has_a_place(self, spec: ModelSpec) -> bool:
        return any(p.could_ever(spec, self.learned.need(spec, p)) for p in self.fleet.posts)

    def _no_place(self, spec: ModelSpec) -> NothingCanRun:
        return NothingCanRun(f"{spec.called} needs {self._needs(spec)}; {self._there()}{f'; {spec.lighter}' if spec.lighter else ''}")

    def _needs(self, spec: ModelSpec) -> str:
        known = self.learned.memory.get(spec.key, spec.memory_bytes)
        labels = " and ".join(f"{name}={value}" for name, value in spec.labels)
        memory = f" with {known / 1e9:.1f} GB for it" if known else ""
        return "a device" + memory + (f" on a node with {labels}" if labels else "")

    def _there(self) -> str:
        told = [f"{p.name} ({'up' if p.up else 'not up'}{f', {p.memory / 1e9:.1f} GB' if p.memory else ''})" for p in self.fleet.posts]
        return "the cluster has " + (", ".join(told[:8]) + (" …" if told[8:] else "") if told else "no device")

    def _dispatch(self) -> None:
        """Schedule `_send_all`, because something has changed. Several changes at once schedule it only once."""
        if not self.dispatching:
            self.dispatching = True
            asyncio.get_running_loop().call_soon(self._send_all)

    def _send_all(self) -> None:
        """Send work to every device that can take some."""
        self.dispatching = False
        if self.paused or self.stopping:
            return
        working = self.fleet.working
        for post in working:
            while not post.batches and self._send_next(post, working):
                pass
        # A second batch waits on the device behind the first, so that the device is never idle between them. Where few
        # requests wait, they are left for devices that become free.
        for post in working:
            if len(post.batches) == 1 and len(self.queue) > len(working) and not post.batches[0][0].alone:
                self._send_next(post, working, behind=True)

    def _send_next(self, post: Post, working: list[Post], behind: bool = False) -> bool:
        """Send the device its next batch, or fail the batch of a broken model. Returns False where there is nothing to send.

        Args:
            behind: the device executes a batch, so only models that it holds may be sent.
        """
        allowed = [key for key, lane in self.queue.lanes.items() if self._has_room(lane[0].spec)]
        key = choose(post, self.queue, working, self.learned, allowed, behind) if allowed else None
        if key is None:
            return False
        batch = self.queue.take(key)
        try:
            self._refuse_broken(batch[0].spec)
        except ModelBroken as error:
            _fail(batch, error)
            return True
        self._send(post, batch)
        return True

    def _has_room(self, spec: ModelSpec) -> bool:
        """Whether the object store has room for another result. A single large result is always allowed."""
        return not spec.result_bytes or self.frame_bytes == 0 or self.frame_bytes + spec.result_bytes <= self.frame_cap

    def _send(self, post: Post, batch: list[Request]) -> None:
        spec = batch[0].spec
        need = self.learned.need(spec, post)
        evict = [k for k in post.resident if k != spec.key] if spec.key in self.crowded else post.evictions(spec.key, need)
        post.place(spec.key, need, evict)
        self.switches += len(evict)
        self.frame_bytes += spec.result_bytes * len(batch)
        self.fleet.begin_work(post, batch)
        self.fleet.spawn(self._execute(post, post.life, batch, evict))

    async def _execute(self, post: Post, life: int, batch: list[Request], evict: list[str]) -> None:
        """Run a batch on a device. Whatever goes wrong, its requests fail or are moved, so that no caller waits for ever.

        Args:
            life: of the actor that the batch was sent to. evict: keys of the models that the device removes first.
        """
        stored, began = False, time.monotonic()
        try:
            async with asyncio.timeout(self.options.call_seconds):
                answer, results = await self._call(post, batch, evict)
            stored = self._settle(post, batch, answer, results, bool(evict))
        except RayTaskError as error:  # the task that makes an input failed; errors of the actor itself are in its Answer
            lost = DeviceLost(f"an input of {batch[0].spec.called} was lost ({type(error.cause).__name__})")
            _fail(batch, lost if isinstance(error.cause, RayError) else error.cause)
        except (RayError, TimeoutError) as error:
            seconds = time.monotonic() - began
            node_alive = await asyncio.to_thread(self.fleet.is_there, post.node)
            self._bury(post, life, error, seconds, node_alive)
        except Exception as error:  # noqa: BLE001 - every request of the batch fails with it
            _fail(batch, RequestFailed(type(error).__name__, str(error)))
        finally:
            if not stored:
                self.frame_bytes -= batch[0].spec.result_bytes * len(batch)
            if batch in post.batches and post.life == life:
                self.fleet.end_work(post, batch)
            self._dispatch()

    async def _call(self, post: Post, batch: list[Request], evict: list[str]) -> tuple[Answer, Any]:
        spec, first = batch[0].spec, batch[0]
        if first.calls is not None:
            answer = post.actor.prepare._remote(args=(spec.key, spec.written, evict, first.calls), name=first.title)
            return unpack(await answer)[0], None
        slots = [(i, name, part.index) for i, r in enumerate(batch) for name, part in r.parts.items()]
        refs = [part.ref for r in batch for part in r.parts.values()]
        packed = pack(spec.key, spec.written, evict, [r.work for r in batch], slots)
        answer, results = post.actor.run._remote(args=(packed, *refs), name=first.title, num_returns=2)
        return unpack(await answer)[0], results

    def _settle(self, post: Post, batch: list[Request], answer: Answer, results: Any, switched: bool) -> bool:
        """Settle the requests of a batch with the device's answer. Returns whether the batch has results in the object store.

        Args:
            switched: whether the device evicted a model for this batch.
        """
        spec = batch[0].spec
        seconds = answer.seconds if batch[0].calls is None else 0.0
        self.learned.note(spec.key, seconds=seconds, load=answer.load_seconds, memory=answer.memory)
        if switched:
            self.switch_seconds += answer.load_seconds
        if answer.error is None:
            post.place(spec.key, self.learned.need(spec, post), ())
            self.deaths.pop(spec.key, None)
            if batch[0].calls is not None:
                _give(batch[0], None)
            for i, (request, receipt) in enumerate(zip(batch, answer.receipts or (), strict=False)):
                if not _give(request, (receipt, Stored(results, i, spec.result_bytes))):
                    self.frame_bytes -= spec.result_bytes  # its caller was cancelled, and will not release it
            return batch[0].calls is None
        if answer.error[0] == "OutOfMemoryError" and len(post.resident) > 1 and spec.key not in self.crowded:
            self.crowded.add(spec.key)  # the other models on the device took the memory, so no take is to blame
            self._requeue(batch)
        else:
            _fail(batch, RequestFailed(*answer.error))
        if answer.error[0] in SICK:  # the device would fail its next batches too, and take them from healthy devices
            behind = [r for r in post.requests if r not in batch]
            self.fleet.replace(post)
            self._requeue(behind)
        return False

    # --- devices that are lost -----------------------------------------------------------------------------

    def _bury(self, post: Post, life: int, error: BaseException, seconds: float, node_alive: bool) -> None:
        """Replace a dead device, and fail the request that executed there alone. All other requests run again elsewhere.

        The request does not fail where the device was lost with its node, or may have been dead before (AT_ONCE). Unless the
        device was lost with its node, requests that run again run alone, so that the next death has one cause.

        Args:
            life: of the actor that died. seconds: from sending the call to its error. node_alive: Ray's word on the node.
        """
        if post.life != life:
            return  # another batch of this actor has already reported its death
        first, others = post.batches[0], post.requests
        key, why = first[0].spec.key, _why(error)
        with_its_node = isinstance(error, GONE) or post.node.leaving or not node_alive
        found_dead = seconds < AT_ONCE and first[0].moved < DOUBTS
        if len(first) == 1 and not with_its_node and not found_dead:
            others.remove(first[0])
            self.suspects.add(first[0].owner)
            self.deaths.setdefault(key, []).append((first[0].owner, why))
            _fail(first, DeviceLost(f"{post.name} died while it ran {key}: {why}"))
        for request in others:
            request.alone |= not with_its_node
        self.fleet.replace(post)
        self._requeue(others)

    def _lose(self, requests: list[Request]) -> None:
        """Move the requests of devices whose nodes are gone, and send all CPU tasks again."""
        self._requeue(requests)
        self.cpu_tasks.send_again()

    def _requeue(self, requests: list[Request]) -> None:
        for request in requests:
            request.moved += 1
            if request.moved > MOVES:
                _fail([request], DeviceLost(f"{request.spec.called}: {MOVES} devices in a row were lost around it"))
            elif self.stopping:
                _fail([request], Stopped("the render was told to stop"))
            elif not request.result.done():
                self.queue.push(request)

    def _after_a_look(self) -> None:
        self._refuse_stranded()
        self._dispatch()

    def _refuse_stranded(self) -> None:
        """Fail the waiting requests that no device has been able to run for more than `_grace` seconds."""
        now, heads = time.monotonic(), [lane[0] for lane in self.queue.lanes.values()]
        lost = [r.spec for r in heads if not self._has_a_place(r.spec)]
        self.stranded = {spec.key: self.stranded.get(spec.key, now) for spec in lost}
        for spec in lost:
            if now - self.stranded[spec.key] > self._grace:
                for request in list(self.queue.lanes[spec.key]):
                    self.queue.remove(request)
                    _fail([request], self._no_place(spec))


def _give(request: Request, value: Any) -> bool:
    if request.result.done():
        return False
    request.result.set_result(value)
    return True


def _fail(batch: Iterable[Request], error: BaseException) -> None:
    for request in batch:
        if not request.result.done():
            request.result.set_exception(error)


def _why(error: BaseException) -> str:
    """Why a device died, from the paragraphs of Ray's error; at most 200 characters."""
    if isinstance(error, TimeoutError):
        return "the call did not end in time"
    text = " ".join(str(error).split())
    for mark in ("Worker exit detail:", "The actor is dead because", "The actor died because"):
        if mark in text:
            return text.split(mark, 1)[1].strip(" .")[:200] or type(error).__name__
    return type(error).__name__
