"""A node without an engine: sandboxes are entries of a dictionary, their processes are scripted. For the front alone.

The whole server runs on the real node (see conftest); this one says what a real one rarely says, and costs no time.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from dataclasses import replace

from belljar.model.backup import BackupFile, BackupPiece, BackupSize, LeftOut
from belljar.model.code import CodeEvent, CodeSpec, ContextInfo, ContextSpec, ContextState, Done, Printed
from belljar.model.code import Status as CodeStatus
from belljar.model.errors import Conflict, Error, InvalidArgument, NotFound, SandboxGone, SnapshotCorrupt
from belljar.model.file import Change, ChangeKind, FileInfo, FileKind
from belljar.model.process import Exit, Output, OutputEvent, ProcessInfo, ProcessSpec, PtySize, Stream, Tail
from belljar.model.sandbox import Ended, Limits, Sandbox, SandboxSpec, Status
from belljar.model.snapshot import ChangeKind as PathChangeKind
from belljar.model.snapshot import PathChange, PathKind, Snapshot, SnapshotKind
from belljar.model.usage import Reading
from belljar.node.api import NodeEvent, NodeInfo, SandboxUsage

__all__ = ("ScriptedGuest", "ScriptedNode")


class ScriptedGuest:
    """Every process is number 7 and says what the test put into `events`; `failure` is raised instead, if set."""

    def __init__(self) -> None:
        self.events: list[OutputEvent] = [Output(Stream.STDOUT, 0, b"hello\n"), Exit(0)]
        self.said: list[CodeEvent] = [Printed(1, Stream.STDOUT, "hello"), Done(2, CodeStatus.OK, 1)]
        self.made: dict[str, ContextInfo] = {}
        self.failure: Exception | None = None
        self.late_failure: Exception | None = None
        self.hold: asyncio.Event | None = None
        self.started: list[tuple[ProcessSpec, bytes | None]] = []
        self.inputs: list[bytes] = []
        self.sizes: list[PtySize] = []
        self.signals: list[tuple[int, bool]] = []
        self.closed = 0
        self.calls: list[tuple[str, tuple[object, ...]]] = []
        self.files: dict[str, bytes] = {"/f": b"content"}
        self.pieces = 0
        self.endless = False

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _info(self, spec: ProcessSpec | None = None) -> ProcessInfo:
        argv = spec.argv if spec else ("true",)
        return ProcessInfo(7, 42, argv, "root", 1000.0, returncode=None)

    async def start(self, spec: ProcessSpec) -> ProcessInfo:
        self._fail()
        self.started.append((spec, b""))
        return self._info(spec)

    async def start_attached(
        self, spec: ProcessSpec, input: bytes | None = b""
    ) -> AsyncIterator[ProcessInfo | OutputEvent]:
        self._fail()
        self.started.append((spec, input))
        yield self._info(spec)
        async for event in self.output(7, {}):
            yield event

    async def processes(self) -> list[ProcessInfo]:
        self._fail()
        return [self._info()]

    async def process(self, ref: int, *, by_pid: bool = False) -> ProcessInfo:
        self._fail()
        if ref != (42 if by_pid else 7):
            raise NotFound(f"no process {ref}")
        return self._info()

    async def output(self, ref: int, offsets: Mapping[Stream, int]) -> AsyncIterator[OutputEvent]:
        try:
            while self.endless:
                self.pieces += 1
                yield Output(Stream.STDOUT, 0, bytes(65536))
            for event in self.events:
                yield event
            if self.hold is not None:
                await self.hold.wait()
            if self.late_failure is not None:
                raise self.late_failure
        finally:
            self.closed += 1

    async def write_stdin(self, ref: int, offset: int, data: bytes, *, eof: bool = False, timeout: float = 60.0) -> int:
        self._fail()
        if self.hold is not None:
            try:
                await self.hold.wait()
            finally:
                self.closed += 1
        self.inputs.append(data)
        return offset + len(data)

    async def wait(self, ref: int, *, timeout: float) -> ProcessInfo:
        self._fail()
        if self.hold is not None:
            try:
                await self.hold.wait()
            finally:
                self.closed += 1
        return replace(self._info(), returncode=0, ended=1001.0)

    async def signal(self, ref: int, number: int, *, group: bool = False) -> None:
        self.signals.append((number, group))

    async def resize(self, ref: int, size: PtySize) -> None:
        self.sizes.append(size)

    async def detach(self, ref: int) -> None:
        self.calls.append(("detach", (ref,)))

    async def contexts(self) -> list[ContextInfo]:
        return list(self.made.values())

    async def context(self, id: str) -> ContextInfo:
        self._fail()
        if id not in self.made:
            raise NotFound(f"no context {id}")
        return self.made[id]

    async def create_context(self, spec: ContextSpec) -> ContextInfo:
        self._fail()
        self.calls.append(("create_context", (spec,)))
        return self.made.setdefault(
            spec.id, ContextInfo(spec.id, spec.language, ContextState.IDLE, pid=9, cwd=spec.cwd)
        )

    async def restart_context(self, id: str) -> ContextInfo:
        return replace(await self.context(id), restarts=1)

    async def close_context(self, id: str) -> None:
        self.made.pop(id, None)

    async def execute(
        self, context: str, code: CodeSpec, *, after: int = 0, create: ContextSpec | None = None
    ) -> AsyncIterator[CodeEvent]:
        self._fail()
        self.calls.append(("execute", (context, code, after, create)))
        try:
            for event in self.said:
                yield event
            if self.hold is not None:
                await self.hold.wait()
            if self.late_failure is not None:
                raise self.late_failure
        finally:
            self.closed += 1

    async def interrupt(self, context: str, key: str | None = None) -> None:
        self.calls.append(("interrupt", (context, key)))

    async def answer(
        self, context: str, key: str, call: str, *, value: str | None = None, error: Mapping[str, str] | None = None
    ) -> None:
        self._fail()
        self.calls.append(("answer", (context, key, call, value, error)))

    def _file(self, path: str) -> FileInfo:
        return FileInfo(path, FileKind.FILE, 7, 0o644, 0, 0, "root", "root", 1.5)

    async def stat(self, path: str, *, follow: bool = True) -> FileInfo:
        self._fail()
        self.calls.append(("stat", (path, follow)))
        return self._file(path)

    async def list_directory(
        self, path: str, *, cursor: str | None = None, limit: int = 1000
    ) -> tuple[list[FileInfo], str | None]:
        self.calls.append(("list", (path, cursor, limit)))
        return [self._file("/d/\udcff")], "more"

    async def glob(
        self, path: str, pattern: str, *, cursor: str | None = None, limit: int = 1000
    ) -> tuple[list[FileInfo], str | None]:
        self.calls.append(("glob", (path, pattern, cursor, limit)))
        return [self._file("/d/x")], None

    async def read(self, path: str, *, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        self._fail()
        if path not in self.files:
            raise NotFound(f"no file {path}")
        data = self.files[path][offset:]
        yield data if length is None else data[:length]
        if self.late_failure is not None:
            raise self.late_failure

    async def write(
        self,
        path: str,
        chunks: AsyncIterator[bytes],
        *,
        upload: str,
        offset: int = 0,
        last: bool = True,
        mode: int | None = None,
        user: str | None = None,
        parents: bool = True,
        append: bool = False,
    ) -> int:
        self._fail()
        data = b"".join([chunk async for chunk in chunks])
        self.files[path] = data
        self.calls.append(("write", (path, upload, offset, last, mode, user, parents, append)))
        return offset + len(data)

    async def uploaded(self, upload: str) -> int:
        return 5

    async def make_directory(
        self, path: str, *, parents: bool = False, exist_ok: bool = False, mode: int = 0o777, user: str | None = None
    ) -> None:
        self.calls.append(("mkdir", (path, parents, exist_ok, mode, user)))

    async def remove(self, path: str, *, recursive: bool = False, missing_ok: bool = False) -> None:
        self.calls.append(("remove", (path, recursive, missing_ok)))

    async def move(self, source: str, target: str) -> None:
        self.calls.append(("move", (source, target)))

    async def chmod(self, path: str, mode: int, *, recursive: bool = False) -> None:
        self.calls.append(("chmod", (path, mode, recursive)))

    async def chown(self, path: str, user: str, *, recursive: bool = False) -> None:
        self.calls.append(("chown", (path, user, recursive)))

    async def symlink(self, path: str, target: str, *, user: str | None = None) -> None:
        self.calls.append(("symlink", (path, target, user)))

    async def hardlink(self, path: str, target: str) -> None:
        self.calls.append(("hardlink", (path, target)))

    async def touch(self, path: str, *, exist_ok: bool = True, user: str | None = None) -> None:
        self.calls.append(("touch", (path, exist_ok, user)))

    async def pull(self, path: str) -> AsyncIterator[bytes]:
        self._fail()
        yield b"tar"

    async def push(self, path: str, chunks: AsyncIterator[bytes], *, user: str | None = None) -> int:
        self.files[path] = b"".join([chunk async for chunk in chunks])
        return 3

    async def watch(self, path: str, *, recursive: bool = False) -> AsyncIterator[Change]:
        self._fail()
        if self.hold is not None:
            try:
                await self.hold.wait()
            finally:
                self.closed += 1
        yield Change(ChangeKind.MOVED, "/new", "/old")
        if self.late_failure is not None:
            raise self.late_failure


class ScriptedBackup:
    """One file for each snapshot; `hold` is waited for before the last."""

    def __init__(self, node: "ScriptedNode") -> None:
        self._node = node
        self._ids: list[str] = []

    async def size(self, snapshots: Collection[str]) -> BackupSize:
        self._ids = sorted(snapshots)
        return BackupSize(len(self._ids), len(self._node.bulk) * len(self._ids))

    async def pieces(self) -> AsyncGenerator[BackupPiece]:
        for id in self._ids:
            if id not in self._node.kept:
                yield LeftOut(id, "it is not there")
                continue
            yield BackupFile(f"snapshots/{id}/manifest.json", len(self._node.bulk))
            if id == self._ids[-1] and self._node.hold is not None:
                await self._node.hold.wait()
            yield self._node.bulk


class ScriptedNode:
    """`failure` is raised by the next create, whose sandbox ended with `last_words`; `gate` holds creates until it is set."""

    def __init__(self) -> None:
        self.known: dict[str, Sandbox] = {}
        self.inside = ScriptedGuest()
        self.failure: BaseException | None = None
        self.last_words: Ended | None = None
        self.gate: asyncio.Event | None = None
        self.creates = 0
        self.backups = 0
        self.bulk = b"kept"
        self.hold: asyncio.Event | None = None
        self.kept: dict[str, Snapshot] = {}
        self.mounted: dict[str, dict[str, str]] = {}
        self.changed = [PathChange(f"/f{number}", PathChangeKind.ADDED, PathKind.FILE, number) for number in range(5)]
        self.snapshot_failure: BaseException | None = None
        self.delete_failure: Error | None = None
        self.forked: dict[str, Error] = {}
        """What becomes of a child instead, by its name."""
        self.said: dict[str, list[Tail]] = {}
        """What is kept of those that have ended."""
        self.readings: dict[str, Reading] = {}
        """What the running ones use, and of an ended one its last."""
        self._queues: list[asyncio.Queue[NodeEvent]] = []
        self._number = 0

    async def info(self) -> NodeInfo:
        return NodeInfo(1, "scripted", "0", ("base",), {"isolation": "there is none"})

    async def create(self, id: str, spec: SandboxSpec) -> Sandbox:
        self.creates += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            failure, self.failure = self.failure, None
            if self.last_words is not None:
                self.known[id] = Sandbox(id, spec, Status.FAILED, time.time(), ended=self.last_words)
            raise failure
        now = time.time()
        expires = None if spec.lifetime is None else now + spec.lifetime
        self.known[id] = Sandbox(id, spec, Status.RUNNING, now, now, expires)
        self.say(self.known[id])
        return self.known[id]

    async def fork(self, id: str, children: Mapping[str, SandboxSpec]) -> dict[str, Sandbox | Error]:
        parent = await self.get(id)
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        made: dict[str, Sandbox | Error] = {}
        for child, spec in children.items():
            error = self.forked.get(spec.name or "")
            made[child] = error or await self.create(child, spec)
        assert parent.id not in made
        return made

    async def rollback(self, id: str, snapshot: str) -> Sandbox:
        if snapshot not in self.kept:
            raise NotFound(f"no snapshot {snapshot}")
        return await self.get(id)

    async def snapshot(
        self, id: str, snapshot: str, kind: SnapshotKind, *, path: str | None = None, template: bool = False
    ) -> Snapshot:
        sandbox = await self.get(id)
        if self.gate is not None:
            await self.gate.wait()
        if self.snapshot_failure is not None:
            raise self.snapshot_failure
        limits, image, now = sandbox.spec.limits, sandbox.spec.image, time.time()
        self.kept[snapshot] = Snapshot(
            snapshot, kind, id, image, now, 100, 40, limits.cpus, limits.memory, limits.disk, None, path, 0.05, template
        )
        return self.kept[snapshot]

    async def snapshots(self) -> list[Snapshot]:
        return list(self.kept.values())

    async def delete_snapshot(self, snapshot: str) -> None:
        if self.delete_failure is not None:
            raise self.delete_failure
        self.kept.pop(snapshot, None)

    async def changes(self, snapshot: str) -> AsyncGenerator[PathChange]:
        for change in self.changed:
            yield change

    async def export_snapshot(self, snapshot: str) -> AsyncGenerator[bytes]:
        if snapshot not in self.kept:
            raise NotFound(f"no snapshot {snapshot}")
        yield b"belljar:"
        yield self.kept[snapshot].image.encode()

    async def import_snapshot(self, snapshot: str, chunks: AsyncIterator[bytes]) -> Snapshot:
        data = b"".join([chunk async for chunk in chunks])
        head, _, image = data.partition(b":")
        if head != b"belljar":
            raise SnapshotCorrupt("this is no export of Belljar's")
        kind, now = SnapshotKind.FILESYSTEM, time.time()
        self.kept[snapshot] = Snapshot(
            snapshot,
            kind,
            "sb0",
            image.rstrip(b"\0").decode(errors="replace"),
            now,
            len(data),
            9,
            1.0,
            1 << 30,
            10 << 30,
        )
        return self.kept[snapshot]

    @contextlib.asynccontextmanager
    async def backup(self, *, content: bool) -> AsyncGenerator["ScriptedBackup"]:
        if not content:
            raise InvalidArgument("there is no object store")
        self.backups += 1
        try:
            yield ScriptedBackup(self)
        finally:
            self.backups -= 1

    async def mount(self, id: str, snapshot: str, path: str) -> None:
        here = self.mounted.setdefault(id, {})
        if here.get(path, snapshot) != snapshot:
            raise Conflict(f"something is mounted at {path}")
        here[path] = snapshot

    async def unmount(self, id: str, path: str) -> None:
        if self.mounted.get(id, {}).pop(path, None) is None:
            raise NotFound(f"nothing is mounted at {path}")

    async def mounts(self, id: str) -> dict[str, str]:
        return dict(self.mounted.get(id, {}))

    async def get(self, id: str) -> Sandbox:
        if id not in self.known:
            raise NotFound(f"no sandbox {id}")
        return self.known[id]

    async def sandboxes(self) -> list[Sandbox]:
        return list(self.known.values())

    async def terminate(self, id: str, *, reason: str = "killed") -> Sandbox:
        sandbox = await self.get(id)
        if sandbox.ended is None:
            self.end(id, reason)
        return self.known[id]

    def end(self, id: str, reason: str, status: Status = Status.TERMINATED) -> None:
        """As if it had ended by itself."""
        ended = Ended(reason, time.time(), "scripted")
        self.known[id] = replace(self.known[id], status=status, ended=ended, final=self.readings.pop(id, None))
        self.say(self.known[id])

    async def set_lifetime(self, id: str, lifetime: float | None) -> Sandbox:
        sandbox = await self.get(id)
        spec = replace(sandbox.spec, lifetime=lifetime)
        expires = None if lifetime is None else time.time() + lifetime
        self.known[id] = replace(sandbox, spec=spec, expires=expires)
        return self.known[id]

    async def set_idle(self, id: str, idle: float | None) -> Sandbox:
        sandbox = await self.get(id)
        self.known[id] = replace(sandbox, spec=replace(sandbox.spec, idle=idle))
        return self.known[id]

    async def rest(self, id: str, status: Status) -> Sandbox:
        return self._turned(await self.get(id), status)

    async def resume(self, id: str) -> Sandbox:
        return self._turned(await self.get(id), Status.RUNNING)

    def _turned(self, sandbox: Sandbox, status: Status) -> Sandbox:
        if sandbox.ended is not None:
            raise SandboxGone(f"sandbox {sandbox.id} is gone")
        self.known[sandbox.id] = replace(sandbox, status=status)
        return self.known[sandbox.id]

    async def set_limits(self, id: str, limits: Limits) -> Sandbox:
        sandbox = await self.get(id)
        self.known[id] = replace(sandbox, spec=replace(sandbox.spec, limits=limits))
        return self.known[id]

    def guest(self, id: str) -> ScriptedGuest:
        if self.known[id].ended is not None:
            raise SandboxGone(f"sandbox {id} is gone")
        return self.inside

    async def last_output(self, id: str) -> list[Tail]:
        if id not in self.said:
            raise NotFound(f"what the processes of {id} wrote is not kept any more")
        return self.said[id]

    async def usage(self, id: str) -> SandboxUsage:
        return SandboxUsage(1, 2, 3.5, 1.0, 4, 5)

    async def meter(self, ids: Collection[str]) -> dict[str, Reading]:
        return {id: reading for id, reading in self.readings.items() if id in ids}

    async def events(self) -> AsyncIterator[NodeEvent]:
        queue: asyncio.Queue[NodeEvent] = asyncio.Queue()
        self._queues.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._queues.remove(queue)

    def say(self, sandbox: Sandbox, *, skip: int = 0) -> None:
        """Sends an event; `skip`: as if so many before it had been lost."""
        self._number += 1 + skip
        event = NodeEvent(
            *(self._number, sandbox.id, sandbox.status, time.time()),
            *(sandbox.started, sandbox.expires, sandbox.ended, sandbox.final),
        )
        for queue in self._queues:
            queue.put_nowait(event)
