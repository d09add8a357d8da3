"""Pydantic AI workspaces in a Belljar sandbox: ``ctx.workspace`` of an agent's tools is a machine of its own under gVisor.

>>> agent = Agent("…", capabilities=[BelljarWorkspace(BelljarOptions(memory="2GiB"))])
>>> result = await agent.run("…", workspace=BelljarWorkspaceBackend())  # or for one run

A workspace outlives its runs: its ref is in the messages, and a later run goes on in the same sandbox. It ends after `lifetime`,
or when whoever holds the backend calls `terminate`.
"""

import asyncio
import errno
import math
import os
import posixpath
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field
from typing import Any, NoReturn

from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.tools import AgentDepsT, RunContext
from pydantic_ai.workspaces import (
    CommandResult,
    FileEntry,
    SupportsCommands,
    SupportsFilesystem,
    SupportsRealpath,
    WorkspaceBackend,
    WorkspaceCommand,
    WorkspaceOutputLimitError,
    WorkspaceRef,
    WorkspaceTimeoutError,
    WorkspaceUnavailableError,
)
from typing_extensions import override

from belljar import (
    AsyncSandbox,
    CompletedProcess,
    NotFound,
    PermissionDenied,
    ProcessTimeout,
    SandboxGone,
)
from belljar.base.units import Duration, Size
from belljar.integrations import file_commands as files
from belljar.integrations.file_commands import Entry, FileCommand, Value

__all__ = ("PROVIDER", "BelljarOptions", "BelljarWorkspace", "BelljarWorkspaceBackend")

PROVIDER = "belljar"
"""Of our refs; their ids are those of sandboxes."""
_MOST_OUTPUT = 10 << 20
"""Bytes, of both streams of a command together."""
_MOST_READ = 256 << 20
_PREVIEW = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class BelljarOptions:
    """What a new sandbox is like; the arguments of `belljar.Sandbox.create`."""

    image: str = "base"
    cpu: float = 1.0
    memory: Size = "1GiB"
    disk: Size = "10GiB"
    pids: int = 1024
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    workdir: str | None = None
    user: str | None = None
    network: str = "open"
    lifetime: Duration | None = "1d"


class BelljarWorkspaceBackend(WorkspaceBackend, SupportsCommands, SupportsFilesystem, SupportsRealpath):
    """A workspace in one sandbox: a new one, made at the first use, or the one that `ref` names.

    Nothing is asked when it is built. Commands and files have the rights of the sandbox's user. One that is gone raises
    WorkspaceUnavailableError; a server that cannot be reached raises belljar.ServerUnreachable, which may be tried again.
    """

    def __init__(self, ref: WorkspaceRef | None = None, *, options: BelljarOptions | None = None) -> None:
        """`options`: of a new sandbox. Raises ValueError for a ref of another provider."""
        if ref is not None and ref.provider != PROVIDER:
            raise ValueError(f"a workspace of {ref.provider!r} is none of ours")
        self._options = options or BelljarOptions()
        self._ref = ref
        self._key = secrets.token_hex(16)
        self._making: asyncio.Task[None] | None = None
        self._sandbox: AsyncSandbox | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._working_dir: str | None = None

    @property
    def ref(self) -> WorkspaceRef | None:
        return self._ref

    async def terminate(self) -> None:
        """Ends the sandbox, if there is one. Idempotent."""
        if self._ref is not None:
            try:
                await (await self._attached()).terminate()
            except (NotFound, WorkspaceUnavailableError):
                return

    @override
    async def working_dir(self) -> str:
        sandbox = await self._attached()
        if self._working_dir is None:
            done = await self._run(sandbox, ["/bin/sh", "-c", "pwd -P"])
            done.check_returncode()
            self._working_dir = os.fsdecode(done.stdout.removesuffix(b"\n"))
        return self._working_dir

    # commands --------------------------------------------------------------------------------------------------------

    @override
    async def run(
        self,
        command: WorkspaceCommand,
        *,
        shell: bool = False,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> CommandResult:
        """As its protocol says. More than 10 MiB of output ends the command with WorkspaceOutputLimitError."""
        if isinstance(command, str) != shell:
            raise TypeError("a string needs shell=True, and a list of words shell=False")
        if not command:
            raise ValueError("the command is empty")
        if timeout is not None and not (math.isfinite(timeout) and timeout > 0):
            raise ValueError("a timeout is a positive, finite number of seconds, or None")
        cwd = await self.working_dir()
        output = _Output()
        try:
            done = await self._run(
                await self._attached(),
                command if isinstance(command, str) else list(command),
                cwd=cwd,
                env=env,
                timeout=timeout,
                on_stdout=output.stdout,
                on_stderr=output.stderr,
            )
        except ProcessTimeout as error:
            raise WorkspaceTimeoutError(
                f"the command did not end within {timeout:g} s and was killed",
                stdout=_text(error.stdout),
                stderr=_text(error.stderr),
            ) from error
        except NotFound as error:
            return CommandResult(exit_code=127, stdout="", stderr=f"{error.message}\n")
        except PermissionDenied as error:
            return CommandResult(exit_code=126, stdout="", stderr=f"{error.message}\n")
        # As a shell says it: signal n is 128 + n.
        status = 128 - done.returncode if done.returncode < 0 else done.returncode
        return CommandResult(exit_code=status, stdout=_text(done.stdout), stderr=_text(done.stderr))

    # files -----------------------------------------------------------------------------------------------------------

    @override
    async def read_bytes(self, path: str) -> bytes:
        return await self._do(files.read_command(_absolute(path), most=_MOST_READ))

    @override
    async def write_bytes(self, path: str, data: bytes) -> None:
        await self._do(files.write_command(_absolute(path), data))

    @override
    async def stat(self, path: str) -> FileEntry:
        return _entry(path, await self._do(files.stat_command(_absolute(path))))

    @override
    async def list_dir(self, path: str) -> Sequence[FileEntry]:
        entries = await self._do(files.list_command(_absolute(path)))
        return [_entry(posixpath.join(path, os.fsdecode(entry.name)), entry) for entry in entries]

    @override
    async def make_dir(self, path: str) -> None:
        await self._do(files.make_dir_command(_absolute(path)))

    @override
    async def remove(self, path: str) -> None:
        plain = posixpath.normpath(_absolute(path))
        parent, name = posixpath.split(plain)
        # The last part itself is not followed: of a link the link goes.
        target = posixpath.join(await self.realpath(parent), name)
        root = await self.working_dir()
        if root == target or root.startswith(target.rstrip("/") + "/"):
            raise ValueError(f"{path} is the working directory or above it")
        await self._do(files.remove_command(plain))

    @override
    async def exists(self, path: str) -> bool:
        try:
            await self.stat(path)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return False
        return True

    @override
    async def realpath(self, path: str) -> str:
        return await self._do(files.realpath_command(_absolute(path)))

    # the sandbox -----------------------------------------------------------------------------------------------------

    async def _do(self, command: FileCommand[Value]) -> Value:
        return command.result(await self._run(await self._attached(), command.argv, input=command.input))

    async def _run(self, sandbox: AsyncSandbox, command: str | list[str], **options: Any) -> CompletedProcess[bytes]:
        try:
            done = await sandbox.run(command, text=False, **options)
        except SandboxGone as error:
            raise WorkspaceUnavailableError(str(error)) from error
        if done.returncode == -9 and (await _looked_at(sandbox)).ended is not None:
            _gone(sandbox)
        return done

    async def _attached(self) -> AsyncSandbox:
        """The sandbox; made or looked for at the first call, and again in another event loop."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._making, self._sandbox = loop, None, None
        while self._sandbox is None:
            if self._making is None or (self._making.done() and self._making.exception() is not None):
                self._making = loop.create_task(self._make())
            # Whoever is cancelled here leaves the task alone: the sandbox that it makes must not get lost.
            await asyncio.shield(self._making)
        return self._sandbox

    async def _make(self) -> None:
        if self._ref is None:
            # With one key for all tries there is one sandbox, whatever becomes of the answer.
            sandbox = await AsyncSandbox.create(**asdict(self._options), idempotency_key=self._key)
            self._ref = WorkspaceRef(provider=PROVIDER, id=sandbox.id)
        else:
            try:
                sandbox = await AsyncSandbox.get(self._ref.id)
            except NotFound as error:
                raise WorkspaceUnavailableError(f"there is no sandbox {self._ref.id}") from error
            if sandbox.ended is not None:
                _gone(sandbox)
        self._sandbox = sandbox


@dataclass
class BelljarWorkspace(AbstractCapability[AgentDepsT]):
    """Gives each run of an agent a workspace of its own, or the one that the messages before it speak of."""

    options: BelljarOptions = BelljarOptions()
    _: KW_ONLY
    id: str | None = "belljar_workspace"

    @override
    def get_workspace(self, ctx: RunContext[AgentDepsT], *, ref: WorkspaceRef | None) -> WorkspaceBackend | None:
        if ref is not None and ref.provider != PROVIDER:
            return None
        return BelljarWorkspaceBackend(ref, options=self.options)


class _Output:
    """Counts what a command prints, and ends it when it is too much."""

    def __init__(self) -> None:
        self._previews = {"stdout": b"", "stderr": b""}
        self._size = 0

    def stdout(self, piece: bytes) -> None:
        self._take("stdout", piece)

    def stderr(self, piece: bytes) -> None:
        self._take("stderr", piece)

    def _take(self, stream: str, piece: bytes) -> None:
        self._size += len(piece)
        self._previews[stream] += piece[: _PREVIEW - len(self._previews[stream])]
        if self._size > _MOST_OUTPUT:
            raise WorkspaceOutputLimitError(
                f"the command printed more than {_MOST_OUTPUT >> 20} MiB; have it write to a file and read a part of that",
                limit=_MOST_OUTPUT,
                stdout=_text(self._previews["stdout"]),
                stderr=_text(self._previews["stderr"]),
            )


async def _looked_at(sandbox: AsyncSandbox) -> AsyncSandbox:
    try:
        return await sandbox.refresh()
    except NotFound:
        _gone(sandbox)


def _gone(sandbox: AsyncSandbox) -> NoReturn:
    reason = f": {sandbox.ended.reason}" if sandbox.ended is not None else ""
    raise WorkspaceUnavailableError(f"sandbox {sandbox.id} is gone{reason}")


def _entry(path: str, entry: Entry) -> FileEntry:
    return FileEntry(name=os.fsdecode(entry.name), path=path, is_dir=entry.is_dir, size=entry.size)


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"a path of a workspace backend is absolute, not {path!r}")
    if "\0" in path:
        raise OSError(errno.EINVAL, "a path has no NUL", path)
    return path


def _text(data: str | bytes) -> str:
    return data if isinstance(data, str) else data.decode(errors="replace")
