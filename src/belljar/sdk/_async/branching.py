"""What branches off a sandbox: snapshots, forks, going back, and directories that are mounted."""

import builtins
from collections.abc import Mapping, Sequence
from typing import Any, Self

from belljar.base.ids import new_id
from belljar.base.units import Duration, Size
from belljar.model.errors import Error, InvalidArgument
from belljar.model.sandbox import Network
from belljar.model.snapshot import MAX_FORKS
from belljar.sdk._async import flow
from belljar.sdk._async.link import AsyncLink
from belljar.sdk._async.snapshot import AsyncSnapshot, lineages
from belljar.sdk.answers import error_of_object, sandbox_of, snapshot_of
from belljar.sdk.asking import KEEP, fork_body, snapshot_body, url
from belljar.sdk.kept import LineageNode
from belljar.sdk.pure import PathLike, path_text
from belljar.sdk.values import SandboxInfo

__all__ = ("AsyncBranching",)

_SECONDS = 600.0
_END_SECONDS = 120.0


class AsyncBranching:
    """A part of `AsyncSandbox`."""

    _link: AsyncLink
    _info: SandboxInfo

    def __init__(self, link: AsyncLink, info: SandboxInfo) -> None:
        self._link = link
        self._info = info

    async def snapshot(
        self,
        name: str | None = None,
        *,
        memory: bool = False,
        path: PathLike | None = None,
        ttl: Duration | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> AsyncSnapshot:
        """Keeps this moment, and returns when it is safe on the disk; the sandbox goes on.

        Its files (a sandbox can start from them as from an image), with `memory` all of it (processes, code contexts, open files
        and listening servers go on from it), or with `path` one directory (which can be mounted into others). `ttl`: it is
        deleted after so long (seconds, ``"7d"``), None never. Raises AlreadyExists (the name), Conflict (it is being
        snapshotted), DiskFull, NotFound (no such path), SandboxGone.

        >>> before = await sandbox.snapshot("before", memory=True)
        """
        id = new_id("sn")
        body = snapshot_body(id, memory=memory, path=path, name=name, ttl=ttl, labels=labels)
        try:
            answer = await self._link.call("POST", self._url("snapshots"), json=body, timeout=_SECONDS)
        except Exception:
            raise
        except BaseException:  # the caller left, and nobody would know of it
            await flow.shielded(lambda: self._forget(id), timeout=_END_SECONDS)
            raise
        return AsyncSnapshot(self._link, snapshot_of(answer))

    async def fork(
        self,
        n: int = 1,
        *,
        return_exceptions: bool = False,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        network: str | Network | None = None,
        lifetime: Duration | None = KEEP,
        cpu: float | None = None,
        memory: Size | None = None,
        pids: int | None = None,
        reseed: bool = True,
    ) -> builtins.list[Self]:
        """Makes `n` sandboxes that all go on from this moment, with everything that runs in this one, which goes on too.

        They differ in what is given: `env` is added to this one's, `labels` replace them, with several ``-1``, ``-2``… is added
        to `name`; the rest is as here. `reseed` False: their global random generators all go on as this one's does. As with
        `asyncio.gather`, with `return_exceptions` what failed stands in the list as an exception; without it the others are
        ended and an ExceptionGroup is raised. Raises SandboxGone, Conflict (it is being snapshotted), NoCapacity, DiskFull; then
        there is none.

        >>> left, right = await sandbox.fork(2, labels={"search": "7"})
        """
        if not 1 <= n <= MAX_FORKS:
            raise InvalidArgument(f"a fork makes between 1 and {MAX_FORKS} sandboxes at once, not {n}")
        ids = [new_id("sb") for _ in range(n)]
        body = fork_body(
            ids,
            name=name,
            env=env,
            labels=labels,
            network=network,
            lifetime=lifetime,
            cpu=cpu,
            memory=memory,
            pids=pids,
            reseed=reseed,
        )
        try:
            answer = await self._link.call("POST", self._url("fork"), json=body, timeout=_SECONDS)
        except Exception:
            raise
        except BaseException:  # the caller left, and nobody would end them
            await flow.shielded(lambda: self._end(ids), timeout=_END_SECONDS)
            raise
        made: list[Any] = [
            type(self)(self._link, sandbox_of(item["sandbox"]))
            if item.get("sandbox")
            else error_of_object(item["error"])
            for item in answer["items"]
        ]
        failures = [one for one in made if isinstance(one, Error)]
        if failures and not return_exceptions:
            await self._end([one.id for one in made if not isinstance(one, Error)])
            raise ExceptionGroup(f"{len(failures)} of {n} forks of {self._info.id} failed", failures)
        return made

    async def rollback(self, snapshot: AsyncSnapshot | str) -> None:
        """Goes back to an earlier snapshot (or the one with this id or name), of memory or files. Whatever runs in it is gone.

        Id, name and lifetime stay. When it raises, the sandbox runs as it did before. Raises NotFound (the snapshot),
        InvalidArgument (one of a directory), SnapshotIncompatible, SnapshotCorrupt.
        """
        body = {"snapshot": _id_of(snapshot)}
        self._info = sandbox_of(await self._link.call("POST", self._url("rollback"), json=body, timeout=_SECONDS))

    async def mount(self, snapshot: AsyncSnapshot | str, path: PathLike) -> None:
        """Puts a private copy of a directory snapshot at `path`; what is written there reaches neither the snapshot nor others.

        Raises InvalidArgument (another kind of snapshot, or a path of the system's), Conflict (something is mounted there).
        """
        body = {"snapshot": _id_of(snapshot), "path": path_text(path)}
        await self._link.call("PUT", self._url("mounts"), json=body, timeout=_SECONDS)

    async def unmount(self, path: PathLike) -> None:
        """Takes away what `mount` put there, with all that was written to it. Raises NotFound, Conflict (in use)."""
        await self._link.call("DELETE", self._url("mounts", path=path_text(path)), timeout=_SECONDS)

    async def mounts(self) -> dict[str, str]:
        """Where a snapshot is mounted → the snapshot's id."""
        answer = await self._link.call("GET", self._url("mounts"))
        return {item["path"]: item["snapshot"] for item in answer["items"]}

    async def lineage(self) -> LineageNode:
        """The tree of all that has one origin with this sandbox: snapshots, forks, and what was made from them."""
        return (await lineages(self._link, self._info.id))[0]

    async def _forget(self, snapshot: str) -> None:
        await self._link.call("DELETE", url("snapshots", snapshot), timeout=_END_SECONDS)

    async def _end(self, ids: Sequence[str]) -> None:
        for id in ids:
            try:
                await self._link.call("DELETE", url("sandboxes", id), timeout=_END_SECONDS)
            except Error:  # it never was, or its lifetime ends it
                continue

    def _url(self, *verb: str, **query: Any) -> str:
        return url("sandboxes", self._info.id, *verb, **query)


def _id_of(snapshot: AsyncSnapshot | str) -> str:
    return snapshot.id if isinstance(snapshot, AsyncSnapshot) else path_text(snapshot)
