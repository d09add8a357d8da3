"""What can be done inside a running sandbox. The control plane sees this protocol, never the session behind it."""

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from belljar.model.code import CodeEvent, CodeSpec, ContextInfo, ContextSpec
from belljar.model.file import Change, FileInfo
from belljar.model.process import OutputEvent, ProcessInfo, ProcessSpec, PtySize, Stream

__all__ = ("GuestApi",)


class GuestApi(Protocol):
    """All paths are the sandbox's own; relative ones start at its working directory.

    Every call raises SandboxGone when the sandbox ends meanwhile, DeadlineExceeded when the agent does not answer in time,
    and otherwise the errors named. `user` (a name or uid, default the sandbox's user) becomes the owner of what is made.
    """

    # processes -------------------------------------------------------------------------------------------------------

    async def start(self, spec: ProcessSpec) -> ProcessInfo:
        """Raises NotFound (no such program or directory), PermissionDenied, InvalidArgument (no such user), LimitExceeded
        (pids)."""
        ...

    def start_attached(self, spec: ProcessSpec, input: bytes | None = b"") -> AsyncIterator[ProcessInfo | OutputEvent]:
        """Starts it in the same round trip as it attaches: first the ProcessInfo, then as `output`.

        `input` goes to stdin, which is then closed (only with ``spec.stdin``); None leaves it open for `write_stdin`. Leaving the
        iterator detaches.
        """
        ...

    async def processes(self) -> list[ProcessInfo]:
        """Those running and the newest that ended."""
        ...

    async def process(self, ref: int, *, by_pid: bool = False) -> ProcessInfo:
        """By the agent's id, or the newest with this pid. Raises NotFound."""
        ...

    def output(self, ref: int, offsets: Mapping[Stream, int]) -> AsyncIterator[OutputEvent]:
        """The streams named, each from its offset (or the oldest byte kept), to the end; then Exit.

        While the caller reads slowly the process waits (back-pressure); when the iterator is closed it is free to run, and
        the newest 16 MiB of each stream are kept. Only one reader per stream: a new one takes over, the old one ends with
        Conflict.
        """
        ...

    async def write_stdin(self, ref: int, offset: int, data: bytes, *, eof: bool = False, timeout: float = 60.0) -> int:
        """Gives input that starts at `offset`; what was taken before is not taken twice. Returns the offset taken so far.

        Waits while the process does not read; after `timeout` seconds returns how far it came, maybe less than was given.
        Raises Conflict for a gap (offset beyond what was taken), and BrokenPipe-like Conflict when stdin is closed (unless
        this is the repeated call that closed it).
        """
        ...

    async def wait(self, ref: int, *, timeout: float) -> ProcessInfo:
        """Its info when it has ended or when `timeout` has passed (then `returncode` is None)."""
        ...

    async def signal(self, ref: int, number: int, *, group: bool = False) -> None:
        """`group`: the process and everything in its process group; SIGHUP then hangs up all that runs in its terminal.

        One that has ended is fine.
        """
        ...

    async def resize(self, ref: int, size: PtySize) -> None:
        """Raises Conflict when the process has no terminal."""
        ...

    async def detach(self, ref: int) -> None:
        """Nobody will read: the process never waits for a reader."""
        ...

    # code ------------------------------------------------------------------------------------------------------------

    async def contexts(self) -> list[ContextInfo]:
        """Where code runs with its state kept."""
        ...

    async def context(self, id: str) -> ContextInfo:
        """Raises NotFound."""
        ...

    async def create_context(self, spec: ContextSpec) -> ContextInfo:
        """Returns when its kernel has answered. The same id again gives the context that is there.

        Raises NotSupported (no such language in the image), NotFound (no such cwd), InvalidArgument (no such user),
        LimitExceeded, Conflict (the id is taken by another language).
        """
        ...

    async def restart_context(self, id: str) -> ContextInfo:
        """Ends its kernel, with the state and what runs in it, and starts a new one. Raises NotFound."""
        ...

    async def close_context(self, id: str) -> None:
        """Ends its kernel and forgets it. One that is not there is fine."""
        ...

    def execute(
        self, context: str, code: CodeSpec, *, after: int = 0, create: ContextSpec | None = None
    ) -> AsyncIterator[CodeEvent]:
        """Runs code, after what waits in the context, and gives its events; the last one is Done.

        With a key that is known it is followed, from the event after `after`. `create`: makes the context where it is not there
        yet. What goes wrong with the code (also its timeout, and the end of its kernel) is an event. A caller that leaves
        has 30 s to come back, then the execution is interrupted. Raises NotFound, LimitExceeded (too many wait), Conflict
        (somebody else follows it now; events are not kept any more), and as `create_context`.
        """
        ...

    async def interrupt(self, context: str, key: str | None = None) -> None:
        """Interrupts the execution with this key, or what runs; the state stays. Fine when nothing does. Raises NotFound."""
        ...

    async def answer(
        self, context: str, key: str, call: str, *, value: str | None = None, error: Mapping[str, str] | None = None
    ) -> None:
        """Answers a HostCall of an execution, with a value or with `{name, message}`. Raises NotFound when none waits for it."""
        ...

    # files -----------------------------------------------------------------------------------------------------------

    async def stat(self, path: str, *, follow: bool = True) -> FileInfo:
        """Raises NotFound, PermissionDenied."""
        ...

    async def list_directory(
        self, path: str, *, cursor: str | None = None, limit: int = 1000
    ) -> tuple[list[FileInfo], str | None]:
        """Entries of a directory in the order of their names, and the cursor of the next page. Raises NotFound, Conflict."""
        ...

    async def glob(
        self, path: str, pattern: str, *, cursor: str | None = None, limit: int = 1000
    ) -> tuple[list[FileInfo], str | None]:
        """As pathlib's: ``**`` crosses directories; symbolic links are not followed."""
        ...

    def read(self, path: str, *, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Chunks of at most 64 KiB. Raises NotFound, Conflict (a directory), PermissionDenied."""
        ...

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
        """A part of an upload; the file appears whole (renamed into place) with the part that is `last`.

        `upload` is the caller's key: after a lost connection the same key goes on, and bytes before what was taken are not
        taken twice. Returns the offset taken so far. Raises Conflict for a gap or a directory in the way, DiskFull, NotFound.
        """
        ...

    async def uploaded(self, upload: str) -> int:
        """How many bytes of this upload were taken; 0 for an unknown one."""
        ...

    async def make_directory(
        self, path: str, *, parents: bool = False, exist_ok: bool = False, mode: int = 0o777, user: str | None = None
    ) -> None: ...

    async def remove(self, path: str, *, recursive: bool = False, missing_ok: bool = False) -> None:
        """A file, link or empty directory; with `recursive` a tree. Raises NotFound, Conflict (not empty)."""
        ...

    async def move(self, source: str, target: str) -> None:
        """As `os.replace`, also between file systems."""
        ...

    async def chmod(self, path: str, mode: int, *, recursive: bool = False) -> None: ...

    async def chown(self, path: str, user: str, *, recursive: bool = False) -> None:
        """`user` as in ``chown``: ``name``, ``uid``, ``name:group``. Raises InvalidArgument for an unknown one."""
        ...

    async def symlink(self, path: str, target: str, *, user: str | None = None) -> None: ...

    async def hardlink(self, path: str, target: str) -> None: ...

    async def touch(self, path: str, *, exist_ok: bool = True, user: str | None = None) -> None: ...

    def pull(self, path: str) -> AsyncIterator[bytes]:
        """A tree as an uncompressed tar stream, names relative to `path` (itself ``.``; one file under its own name).

        Sockets and devices are left out, and what the kernel shows as files (/proc, /sys). The receiver must treat it as
        hostile.
        """
        ...

    async def push(self, path: str, chunks: AsyncIterator[bytes], *, user: str | None = None) -> int:
        """Unpacks a tar stream below `path` (made when missing); nothing lands outside of it. Returns the number of entries."""
        ...

    def watch(self, path: str, *, recursive: bool = False) -> AsyncIterator[Change]:
        """Changes from now on; the first item comes only with the first change. Raises NotFound."""
        ...
