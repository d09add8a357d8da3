"""The store follows the node: once when the server starts, then with every event."""

import asyncio
import contextlib
from dataclasses import replace
from typing import Self

from belljar.base.clock import Clock, SystemClock, boot_id
from belljar.base.log import get_logger
from belljar.base.tasks import TaskSet
from belljar.control.eventlog import EventLog
from belljar.control.index import Index
from belljar.control.store.sandboxes import Record, SandboxStore
from belljar.control.store.tables import DEFAULT_WORKSPACE
from belljar.model.errors import AlreadyExists, Error
from belljar.model.events import EventKind
from belljar.model.sandbox import Ended, Sandbox, Status
from belljar.node.api import NodeApi, NodeEvent

__all__ = ("Reconciler",)

_log = get_logger("control.reconcile")
_AGAIN_SECONDS = 1.0


class Reconciler:
    """Own it as an async context manager: entering brings the store in line with the node, then a task follows."""

    def __init__(
        self,
        node: NodeApi,
        store: SandboxStore,
        index: Index,
        events: EventLog,
        *,
        clock: Clock | None = None,
        boot: str | None = None,
    ) -> None:
        self._node = node
        self._store = store
        self._index = index
        self._events = events
        self._clock = clock or SystemClock()
        self._boot = boot or boot_id()
        self._tasks = TaskSet(lambda name, error: _log.error("a task failed", task=name, exc_info=error))

    async def __aenter__(self) -> Self:
        self._tasks.start(self._follow_events(), name="node events")
        await asyncio.sleep(0)  # so that it listens before the node is asked
        try:
            await self._first_sync()
        except BaseException:
            await self._tasks.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.close()

    async def sync(self) -> None:
        """Compares everything: what the node knows is written down, what it no longer knows is lost."""
        there = {sandbox.id: sandbox for sandbox in await self._node.sandboxes()}
        for entry in self._index.live():
            sandbox = entry.sandbox
            if sandbox.id in there:
                await self._take(there[sandbox.id])
            elif sandbox.status is not Status.CREATING:  # that one is on its way to the node
                await self._end(sandbox, Status.LOST, "node_lost", "the node does not know it any more")

    async def _first_sync(self) -> None:
        there = {sandbox.id: sandbox for sandbox in await self._node.sandboxes()}
        for record in await self._store.live():
            sandbox = record.sandbox
            self._index.add(record.workspace, sandbox, record.key)
            if sandbox.id in there:
                await self._take(there[sandbox.id])
            elif sandbox.status is Status.CREATING:
                await self._end(sandbox, Status.FAILED, "start_failed", "the server ended while it was being made")
                await self._store.forget_repeat(sandbox.id)
            elif record.boot != self._boot:
                await self._end(sandbox, Status.LOST, "host_reboot", "the machine was started anew")
            else:
                await self._end(sandbox, Status.LOST, "node_lost", "the node does not know it any more")
        for sandbox in there.values():
            if not sandbox.status.is_end and self._index.entry(sandbox.id) is None:
                await self._meet(sandbox)
        await self._store.prune_repeats(now=self._clock.now())

    async def _take(self, sandbox: Sandbox) -> None:
        before = self._index.entry(sandbox.id)
        now = self._index.follow(sandbox)
        if now is None:
            return
        self._store.follow(now)
        if before is not None and before.sandbox.status is Status.CREATING and now.status.is_end:
            await self._store.forget_repeat(now.id)

    async def _end(self, sandbox: Sandbox, status: Status, reason: str, message: str) -> None:
        _log.warning("a sandbox is gone", sandbox=sandbox.id, status=status.value, reason=reason)
        await self._take(replace(sandbox, status=status, ended=Ended(reason, self._clock.now(), message)))

    async def _meet(self, sandbox: Sandbox) -> None:
        """The node runs one that is not live here."""
        if await self._store.get(sandbox.id) is not None:
            # Its end was acknowledged, so nobody will end it a second time.
            _log.warning("an ended sandbox runs: ending it", sandbox=sandbox.id)
            with contextlib.suppress(Error):
                await self._node.terminate(sandbox.id)
            return
        _log.warning("the node runs a sandbox that the store does not know: taking it in", sandbox=sandbox.id)
        of = {
            "sandbox": sandbox.id,
            "parent": sandbox.parent,
            "message": "the node runs it, and the store did not know it",
        }
        self._events.note(DEFAULT_WORKSPACE, EventKind.SANDBOX_CREATED, at=sandbox.created, **of)
        try:
            await self._store.insert(Record(DEFAULT_WORKSPACE, sandbox, self._boot))
        except AlreadyExists:
            sandbox = replace(sandbox, spec=replace(sandbox.spec, name=None))
            await self._store.insert(Record(DEFAULT_WORKSPACE, sandbox, self._boot))
        self._index.add(DEFAULT_WORKSPACE, sandbox)

    async def _follow_events(self) -> None:
        while True:
            try:
                expected: int | None = None
                async for event in self._node.events():
                    if expected is not None and event.number != expected:
                        await self.sync()
                    expected = event.number + 1
                    if (entry := self._index.entry(event.sandbox)) is not None:
                        await self._take(_applied(entry.sandbox, event))
            except Exception:  # noqa: BLE001 (the task's boundary)
                _log.exception("following the node failed, trying again")
            await asyncio.sleep(_AGAIN_SECONDS)
            with contextlib.suppress(Error):
                await self.sync()


def _applied(sandbox: Sandbox, event: NodeEvent) -> Sandbox:
    return replace(
        sandbox,
        status=event.status,
        started=event.started,
        expires=event.expires,
        ended=event.ended,
        final=event.final,
    )
