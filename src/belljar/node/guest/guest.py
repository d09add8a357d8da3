"""The host's side of one sandbox's agent, as the rest of the node sees it."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any, Self

from belljar.base.log import get_logger
from belljar.model.code import CodeEvent, CodeSpec, ContextInfo, ContextSpec
from belljar.model.errors import Conflict, Error, SandboxGone
from belljar.model.file import Change, FileInfo
from belljar.model.process import OutputEvent, ProcessInfo, ProcessSpec, PtySize, Stream, Tail
from belljar.model.sandbox import Limits
from belljar.node.engine.api import Channel
from belljar.node.guest.contexts.contexts import Contexts
from belljar.node.guest.contexts.kernel import KERNEL
from belljar.node.guest.contexts.renewal import Renewal
from belljar.node.guest.failures import printable
from belljar.node.guest.files import Files
from belljar.node.guest.processes import Processes
from belljar.node.guest.session import OnLost, Session
from belljar.node.guest.tails import last_words

__all__ = ("Guest",)

_log = get_logger("node.guest")
_WORDS = ("out_of_memory", "namespace_lost")
_NOTE_EVERY = 10.0
_CALL = 10.0
_RECLAIM = 1.0
"""Seconds that the kernel inside may take to give back the memory of what has just ended."""
WARM_MODULES = ("numpy", "pandas")
"""What a warm kernel imports, where the image has it: 36 MiB a sandbox, and 0.45 s of the first cell that uses them. With
matplotlib.pyplot it would be 24 MiB more for 0.3 s of the first plot."""


class Guest:
    """A GuestApi on a session. Owns the channel from `open` to `close`."""

    def __init__(self, session: Session, processes: Processes, kernel: str) -> None:
        self._session = session
        self._processes = processes
        self._files = Files(session)
        self._contexts = Contexts(processes, kernel)
        processes.bind(session)

    @classmethod
    async def open(cls, channel: Channel, *, on_lost: OnLost, timeout: float, kernel: str = KERNEL) -> Self:
        """Returns when the agent has answered. Closes the channel if it does not.

        `on_lost` is called at most once, later, with a reason (``agent_silent``, ``bad_agent``) and a message: from then on
        every call raises SandboxGone. `kernel`: the program of contexts, as the sandbox sees it. Raises DeadlineExceeded,
        EngineFailed, NotSupported.
        """
        processes = Processes()
        notes = _Notes()

        def happened(event: dict[str, Any]) -> None:
            if event.get("event") == "exit":
                processes.exited(event)
            else:
                notes.happened(event)

        session = await Session.open(channel, on_lost=on_lost, on_event=happened, timeout=timeout)
        return cls(session, processes, kernel)

    async def close(self, error: Error | None = None) -> None:
        """Ends the session; the sandbox goes on. What waits ends with `error`, or SandboxGone. May be repeated."""
        error = error or SandboxGone("the connection to the sandbox was closed")
        self._session.close(error)
        await self._contexts.leave(error)

    async def configure(self, *, timeout: float = 10.0, **settings: object) -> None:
        """Tells the agent what sandbox it is in: see ``configure`` in docs/wire.md. May be repeated."""
        await self._session.call("configure", dict(settings), timeout=timeout)

    async def limit(self, limits: Limits, *, force: bool = False, timeout: float = 10.0) -> None:
        """Gives what runs inside other limits of memory and processes.

        Raises Conflict when more memory is in use, unless `force`; NotSupported by an agent of an earlier release. Then nothing
        is changed.
        """
        said = {"memory": limits.memory, "pids": limits.pids, "force": force}
        until = time.monotonic() + _RECLAIM
        while True:
            try:
                await self._session.call("limit", said, timeout=timeout)
                return
            except Conflict as error:
                if time.monotonic() > until:
                    hint = "end some of its processes, or empty its /tmp and /dev/shm"
                    raise Conflict(error.message, hint=hint) from None
            await asyncio.sleep(_RECLAIM / 10)

    def take_over(self, on_lost: OnLost) -> None:
        """`on_lost` is told from now on, instead of the one before: for a session that was opened before its sandbox had an
        owner. Raises SandboxGone when the session has ended already (then only the one before was told).
        """
        self._session.take_over(on_lost)

    async def warm(
        self, language: str = "python", *, modules: Sequence[str] = WARM_MODULES, timeout: float = 60.0
    ) -> None:
        """Before a template is snapshotted (after `configure`, before `quiesce`): starts the kernel of the default context of
        `language`, as the sandbox's user in its directory, and imports those of `modules` that the image has.

        Returns when it is idle. Nobody sees the context, nor the kernel among `processes`, until somebody asks for it (`execute`
        with `create`, `create_context`); its names, count and history are then those of a new one. Raises NotSupported (the image
        has no Python, or none new enough), DeadlineExceeded.
        """
        await self._contexts.warm(language, modules, timeout=timeout)

    async def prime(self, *, timeout: float = 5.0) -> None:
        """After `find_contexts` in a member of the pool, before it is paused: warm kernels and a command or two touch the memory
        that a first cell and a first command need, which a restore has brought back but the processes do not have yet. Both
        then take half the time. Nobody sees what ran."""
        await asyncio.gather(self._contexts.prime(timeout=timeout), self._processes.prime(timeout=timeout))

    async def wake(
        self,
        *,
        reseed: bool = True,
        env: Mapping[str, str | None] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float = 2.0,
    ) -> None:
        """After a restore: tells all kernels that they are in another sandbox now, and frees processes that wait for a reader
        of the sandbox that this is a clone of. Call it before anybody may run code; `configure` goes before it, or beside it
        in the same `asyncio.gather`. May be repeated.

        Finds the contexts first, if `find_contexts` was not called on this session (do so when a pool member is made: then
        this waits for nobody, else for two round trips). `reseed`: global generators go another way than in other clones, as
        Python does after `os.fork`; what the user made stays. `env`: the sandbox's variables, all of them or those that
        differ, None takes one away: every kernel sets those that are others than it was told before, unless its context
        has that one of its own; so what code has changed stays. `cwd` and `user` (as they were configured; None: as when
        the snapshot was taken) are for warm kernels: one that cannot become what is wanted (another user, a variable that
        counts at the start of an interpreter, a directory that is not there) is ended, and the first code starts another.

        A kernel that does not take it within `timeout` seconds is ended, its context is dead; never raises because of one.
        Raises SandboxGone, DeadlineExceeded.
        """
        renewal = Renewal(reseed, dict(env or {}), cwd)
        await asyncio.gather(self._release(), self._contexts.wake(renewal, user=user, timeout=timeout))

    async def _release(self) -> None:
        if "clones" in self._session.welcome.features:
            await self._session.call("release", {}, timeout=_CALL)

    async def quiesce(self, *, timeout: float = 10.0) -> None:
        """Returns when nothing is half done inside: a checkpoint may be taken."""
        await self._session.call("quiesce", {}, timeout=timeout)

    def stand_still(self, still: bool) -> None:
        """True before the sandbox is stopped (a pause, a checkpoint), False when it goes on: its silence does not count."""
        self._session.stand_still(still)

    # processes -------------------------------------------------------------------------------------------------------

    async def start(self, spec: ProcessSpec) -> ProcessInfo:
        return await self._processes.start(spec)

    def start_attached(
        self, spec: ProcessSpec, input: bytes | None = b""
    ) -> AsyncGenerator[ProcessInfo | OutputEvent, None]:
        return self._processes.start_attached(spec, input)

    async def processes(self) -> list[ProcessInfo]:
        return [info for info in await self._processes.processes() if not self._contexts.hides(info.id)]

    async def process(self, ref: int, *, by_pid: bool = False) -> ProcessInfo:
        return await self._processes.process(ref, by_pid=by_pid)

    def output(self, ref: int, offsets: Mapping[Stream, int]) -> AsyncGenerator[OutputEvent, None]:
        self._refuse_kernel(ref)
        return self._processes.output(ref, offsets)

    async def write_stdin(self, ref: int, offset: int, data: bytes, *, eof: bool = False, timeout: float = 60.0) -> int:
        self._refuse_kernel(ref)
        return await self._processes.write_stdin(ref, offset, data, eof=eof, timeout=timeout)

    async def wait(self, ref: int, *, timeout: float) -> ProcessInfo:
        return await self._processes.wait(ref, timeout=timeout)

    async def signal(self, ref: int, number: int, *, group: bool = False) -> None:
        await self._processes.signal(ref, number, group=group)

    async def resize(self, ref: int, size: PtySize) -> None:
        await self._processes.resize(ref, size)

    async def detach(self, ref: int) -> None:
        self._refuse_kernel(ref)
        await self._processes.detach(ref)

    async def last_words(self, *, ask: bool, seconds: float) -> list[Tail]:
        """The end of what its newest processes wrote; see `tails.last_words`."""
        found = await last_words(self, self._processes.tails, self._processes.is_read, ask=ask, seconds=seconds)
        return [tail for tail in found if not self._contexts.owns(tail.process.id)]

    def _refuse_kernel(self, ref: int) -> None:
        if self._contexts.owns(ref):
            raise Conflict("this process is the kernel of a context", hint="run code in the context instead")

    # code ------------------------------------------------------------------------------------------------------------

    async def find_contexts(self) -> None:
        """After an earlier server, or a restore: goes on with the kernels that are there. A kernel that is warm stays unseen."""
        await self._contexts.find()

    async def contexts(self) -> list[ContextInfo]:
        return self._contexts.all()

    async def context(self, id: str) -> ContextInfo:
        return self._contexts.get(id)

    async def create_context(self, spec: ContextSpec) -> ContextInfo:
        return await self._contexts.create(spec)

    async def restart_context(self, id: str) -> ContextInfo:
        return await self._contexts.restart(id)

    async def close_context(self, id: str) -> None:
        await self._contexts.close(id)

    def execute(
        self, context: str, code: CodeSpec, *, after: int = 0, create: ContextSpec | None = None
    ) -> AsyncGenerator[CodeEvent, None]:
        return self._contexts.execute(context, code, after=after, create=create)

    async def interrupt(self, context: str, key: str | None = None) -> None:
        await self._contexts.interrupt(context, key)

    async def answer(
        self, context: str, key: str, call: str, *, value: str | None = None, error: Mapping[str, str] | None = None
    ) -> None:
        await self._contexts.answer(context, key, call, value=value, error=error)

    # files -----------------------------------------------------------------------------------------------------------

    async def stat(self, path: str, *, follow: bool = True) -> FileInfo:
        return await self._files.stat(path, follow=follow)

    async def list_directory(
        self, path: str, *, cursor: str | None = None, limit: int = 1000
    ) -> tuple[list[FileInfo], str | None]:
        return await self._files.list_directory(path, cursor=cursor, limit=limit)

    async def glob(
        self, path: str, pattern: str, *, cursor: str | None = None, limit: int = 1000
    ) -> tuple[list[FileInfo], str | None]:
        return await self._files.glob(path, pattern, cursor=cursor, limit=limit)

    def read(self, path: str, *, offset: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        return self._files.read(path, offset=offset, length=length)

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
        return await self._files.write(
            path,
            chunks,
            upload=upload,
            offset=offset,
            last=last,
            mode=mode,
            user=user,
            parents=parents,
            append=append,
        )

    async def uploaded(self, upload: str) -> int:
        return await self._files.uploaded(upload)

    async def make_directory(
        self, path: str, *, parents: bool = False, exist_ok: bool = False, mode: int = 0o777, user: str | None = None
    ) -> None:
        await self._files.simple("mkdir", path=path, parents=parents, exist_ok=exist_ok, mode=mode, user=user)

    async def remove(self, path: str, *, recursive: bool = False, missing_ok: bool = False) -> None:
        await self._files.tree("remove", path=path, recursive=recursive, missing_ok=missing_ok)

    async def move(self, source: str, target: str) -> None:
        await self._files.tree("move", source=source, target=target)

    async def chmod(self, path: str, mode: int, *, recursive: bool = False) -> None:
        await self._files.tree("chmod", path=path, mode=mode, recursive=recursive)

    async def chown(self, path: str, user: str, *, recursive: bool = False) -> None:
        await self._files.tree("chown", path=path, user=user, recursive=recursive)

    async def symlink(self, path: str, target: str, *, user: str | None = None) -> None:
        await self._files.simple("symlink", path=path, target=target, user=user)

    async def hardlink(self, path: str, target: str) -> None:
        await self._files.simple("hardlink", path=path, target=target)

    async def touch(self, path: str, *, exist_ok: bool = True, user: str | None = None) -> None:
        await self._files.simple("touch", path=path, exist_ok=exist_ok, user=user)

    def pull(self, path: str) -> AsyncGenerator[bytes, None]:
        return self._files.pull(path)

    async def push(self, path: str, chunks: AsyncIterator[bytes], *, user: str | None = None) -> int:
        return await self._files.push(path, chunks, user=user)

    async def mount_tree(self, path: str, label: str, chunks: AsyncIterator[bytes]) -> int:
        """Puts what a tar stream holds over `path`, with its owners and modes. `label` is what `mounted_trees` tells of it.

        Returns the number of entries. Raises InvalidArgument (a path of the system's), Conflict (mounted already), DiskFull.
        """
        return await self._files.mount(path, label, chunks)

    async def unmount_tree(self, path: str) -> None:
        """With all that was written to it. Raises NotFound, Conflict (in use)."""
        await self._files.tree("unmount", path=path)

    async def mounted_trees(self) -> dict[str, str]:
        """Path → label."""
        return await self._files.mounts()

    def watch(self, path: str, *, recursive: bool = False) -> AsyncGenerator[Change, None]:
        return self._files.watch(path, recursive=recursive)


class _Notes:
    """Logs what the agent tells beside the ends of processes: words that we know, and not too many."""

    def __init__(self) -> None:
        self._last = dict.fromkeys(_WORDS, -_NOTE_EVERY)

    def happened(self, event: dict[str, Any]) -> None:
        word = event.get("event")
        if not isinstance(word, str) or word not in _WORDS:
            return
        now = time.monotonic()
        if now - self._last[word] >= _NOTE_EVERY:
            self._last[word] = now
            _log.info("an agent tells", word=word, of=printable(str(event.get("name", "")))[:64])
