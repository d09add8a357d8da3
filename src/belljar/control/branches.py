"""What branches off a sandbox that runs, and what is mounted into it: fork, rollback, mounts."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from belljar.base.clock import Clock, SystemClock
from belljar.base.ids import is_id, new_id
from belljar.base.log import get_logger
from belljar.base.tasks import TaskSet
from belljar.base.telemetry import span
from belljar.control.changes import KEEP, Keep
from belljar.control.origins import Origins
from belljar.control.sandboxes import PREFIX, Sandboxes, gone
from belljar.model.errors import Conflict, Error, InvalidArgument, NotFound, SandboxGone
from belljar.model.sandbox import Network, Sandbox, SandboxSpec, Status, check_name
from belljar.model.snapshot import MAX_FORKS, SnapshotKind, check_mount_point
from belljar.node.api import NodeApi

__all__ = ("Branches", "Fork")

_log = get_logger("control.branches")


@dataclass(frozen=True, slots=True)
class Fork:
    """How children differ from their parent. `count` of them, or one for each of `ids`; with several, ``-1``, ``-2``… is added to
    `name`. `env` is added to the parent's, `labels` replace them; what is None or KEEP is as in the parent.
    """

    count: int = 1
    ids: Sequence[str] = ()
    name: str | None = None
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    labels: Mapping[str, str] | None = None
    network: Network | None = None
    lifetime: float | Keep | None = KEEP
    cpus: float | None = None
    memory: int | None = None
    pids: int | None = None
    reseed: bool = True


class Branches:
    """Own it as an async context manager: what was begun goes on when its caller leaves, and is awaited at the end."""

    def __init__(self, node: NodeApi, sandboxes: Sandboxes, origins: Origins, *, clock: Clock | None = None) -> None:
        self._node = node
        self._sandboxes = sandboxes
        self._origins = origins
        self._clock = clock or SystemClock()
        self._forking: dict[tuple[str, ...], asyncio.Task[Sequence[Sandbox | Error]]] = {}
        self._tasks = TaskSet(_report)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.close()

    async def fork(self, workspace: str, ref: str, fork: Fork, *, key: str | None = None) -> Sequence[Sandbox | Error]:
        """What became of each child, in their order. The same ids again give the children that are there. `key`: the API key
        that asks.

        Raises SandboxGone, Conflict (not running, being snapshotted, an id used before), AlreadyExists (the name),
        InvalidArgument, LimitExceeded (the quota), NoCapacity, DiskFull; then there is no child.
        """
        ids = _ids_of(fork)
        call = (workspace, ref, *ids)
        under_way = self._forking.get(call)
        if under_way is None:
            # The task is made before anything is awaited: a second call in the meantime finds it.
            under_way = self._forking[call] = self._tasks.start(self._fork(workspace, ref, ids, fork, key), name="fork")
            under_way.add_done_callback(lambda _: self._forking.pop(call, None))
        return await asyncio.shield(under_way)

    async def rollback(self, workspace: str, ref: str, snapshot: str) -> Sandbox:
        """Goes on from an earlier moment. Raises as NodeApi.rollback and Origins.snapshot do; then it runs as before."""
        sandbox = await self._sandboxes.running(workspace, ref)
        record = await self._origins.snapshot(workspace, snapshot)
        if record.snapshot.kind is SnapshotKind.DIRECTORY:
            raise InvalidArgument(f"snapshot {record.id} holds a directory, no sandbox", hint="mount it")
        return await asyncio.shield(
            self._tasks.start(self._rollback(workspace, sandbox.id, record.id), name="rollback")
        )

    async def mount(self, workspace: str, ref: str, snapshot: str, path: str) -> None:
        """Raises as NodeApi.mount does, InvalidArgument (another kind of snapshot, or a path of the system's)."""
        place = check_mount_point(path)
        sandbox = await self._sandboxes.running(workspace, ref)
        record = await self._origins.snapshot(workspace, snapshot)
        if record.snapshot.kind is not SnapshotKind.DIRECTORY:
            raise InvalidArgument(
                f"snapshot {record.id} is one of a whole sandbox ({record.snapshot.kind}), not of a directory",
                hint="a snapshot of one directory can be mounted: snapshot(path=…)",
            )
        await asyncio.shield(self._tasks.start(self._node.mount(sandbox.id, record.id, place), name="mount"))

    async def unmount(self, workspace: str, ref: str, path: str) -> None:
        """Raises NotFound, Conflict (in use)."""
        place = check_mount_point(path)
        sandbox = await self._sandboxes.running(workspace, ref)
        await asyncio.shield(self._tasks.start(self._node.unmount(sandbox.id, place), name="unmount"))

    async def mounts(self, workspace: str, ref: str) -> Mapping[str, str]:
        """Path → snapshot."""
        return await self._node.mounts((await self._sandboxes.running(workspace, ref)).id)

    async def _fork(
        self, workspace: str, ref: str, ids: Sequence[str], fork: Fork, key: str | None
    ) -> Sequence[Sandbox | Error]:
        if fork.ids and (there := await self._there(workspace, ref, ids)):
            return there
        with span("sandbox.fork", {"belljar.count": len(ids)}) as traced:
            parent = await self._sandboxes.running(workspace, ref)
            traced.set("belljar.sandbox", parent.id)
            return await self._children(workspace, parent, ids, fork, key)

    async def _children(
        self, workspace: str, parent: Sandbox, ids: Sequence[str], fork: Fork, key: str | None
    ) -> Sequence[Sandbox | Error]:
        specs = dict(zip(ids, _specs(parent, fork), strict=True))
        now = self._clock.now()
        planned = [  # brothers keep their order, by their age
            Sandbox(id, spec, Status.CREATING, now + number * 1e-6, parent=parent.id)
            for number, (id, spec) in enumerate(specs.items())
        ]
        return await self._sandboxes.make_all(workspace, key, planned, lambda: self._node.fork(parent.id, specs))

    async def _rollback(self, workspace: str, sandbox: str, snapshot: str) -> Sandbox:
        return await self._sandboxes.rolled_back(workspace, await self._node.rollback(sandbox, snapshot), snapshot)

    async def _there(self, workspace: str, ref: str, ids: Sequence[str]) -> Sequence[Sandbox | Error]:
        """What an earlier call with these ids made; empty when there was none."""
        found: list[Sandbox] = []
        for id in ids:
            try:
                found.append(await self._sandboxes.get(workspace, id))
            except SandboxGone:
                raise
            except NotFound:
                continue
        if not found:
            return ()
        parent = await self._sandboxes.get(workspace, ref)
        if len(found) != len(ids) or any(one.parent != parent.id for one in found):
            raise Conflict("one of the ids was used before, for something else")
        return [one if one.ended is None else gone(one) for one in found]


def _ids_of(fork: Fork) -> Sequence[str]:
    count = len(fork.ids) or fork.count
    if not 1 <= count <= MAX_FORKS:
        raise InvalidArgument(f"a fork makes between 1 and {MAX_FORKS} children at once, not {count}")
    if fork.ids and fork.count not in (1, count):
        raise InvalidArgument(f"count is {fork.count}, and there are {len(fork.ids)} ids")
    for id in fork.ids:
        if not is_id(id, PREFIX):
            raise InvalidArgument(f"an id starts with {PREFIX} and is made as Belljar makes them, not {id[:80]!r}")
    if len(set(fork.ids)) != len(fork.ids):
        raise InvalidArgument("an id stands twice among the ids")
    return list(fork.ids) or [new_id(PREFIX) for _ in range(count)]


def _specs(parent: Sandbox, fork: Fork) -> Sequence[SandboxSpec]:
    count = len(fork.ids) or fork.count
    spec = parent.spec
    child = replace(
        spec,
        snapshot=None,
        name=None,
        reseed=fork.reseed,
        limits=spec.limits.changed(cpus=fork.cpus, memory=fork.memory, pids=fork.pids),
        env=dict(spec.env) | dict(fork.env),
        labels=spec.labels if fork.labels is None else fork.labels,
        network=fork.network or spec.network,
        lifetime=spec.lifetime if isinstance(fork.lifetime, Keep) else fork.lifetime,
    )
    if fork.name is None:
        return [child] * count
    check_name(fork.name)
    names = [fork.name] if count == 1 else [f"{fork.name}-{number}" for number in range(1, count + 1)]
    return [replace(child, name=name) for name in names]


def _report(name: str, error: BaseException) -> None:
    if not isinstance(error, Error):
        _log.error("a task failed", task=name, exc_info=error)
