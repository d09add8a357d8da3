"""A Belljar sandbox as the backend of LangChain's deepagents: their shell and file tools work in a machine under gVisor.

>>> with BelljarSandbox.create(memory="2GiB") as backend:
...     agent = create_deep_agent(model=…, backend=backend)
...     agent.invoke({"messages": [("user", "…")]})
"""

import asyncio
import errno
from types import TracebackType
from typing import Self

from deepagents.backends.protocol import (
    ExecuteResponse,
    FileDownloadResponse,
    FileOperationError,
    FileUploadResponse,
)
from deepagents.backends.sandbox import BaseSandbox
from typing_extensions import override

from belljar import AsyncSandbox, CompletedProcess, ProcessTimeout, Sandbox
from belljar.base.units import Duration, Size
from belljar.integrations.file_commands import FileCommand, Value, read_command, write_command

__all__ = ("BelljarSandbox",)

_DEFAULT_SECONDS = 30 * 60
_FILE_SECONDS = 600.0
_MOST_OUTPUT = 10 << 20
_MOST_READ = 256 << 20
_ERRORS: dict[int, FileOperationError] = {
    errno.ENOENT: "file_not_found",
    errno.EACCES: "permission_denied",
    errno.EISDIR: "is_directory",
    errno.ENOTDIR: "invalid_path",
    errno.EINVAL: "invalid_path",
}


class BelljarSandbox(BaseSandbox):
    """One sandbox. Its methods with an ``a`` in front wait without a thread; they and the others may be mixed.

    What a command prints to stdout and stderr comes as one text, in the order in which it was printed. Commands and files have
    the rights of the sandbox's user. A sandbox that is gone raises belljar.SandboxGone.
    """

    def __init__(self, sandbox: Sandbox, *, timeout: int = _DEFAULT_SECONDS) -> None:
        """Around a sandbox that you have; it is yours to end. `timeout`: of a command, in seconds, when a call names none."""
        self.sandbox = sandbox
        self._timeout = timeout
        self._async: tuple[asyncio.AbstractEventLoop, AsyncSandbox] | None = None

    @classmethod
    def create(
        cls,
        image: str = "base",
        *,
        timeout: int = _DEFAULT_SECONDS,
        cpu: float = 1.0,
        memory: Size = "1GiB",
        disk: Size = "10GiB",
        env: dict[str, str] | None = None,
        labels: dict[str, str] | None = None,
        workdir: str | None = None,
        user: str | None = None,
        network: str = "open",
        lifetime: Duration | None = "1d",
    ) -> Self:
        """In a new sandbox, which ends with the `with` block, by `terminate`, or after `lifetime`."""
        sandbox = Sandbox.create(
            image,
            cpu=cpu,
            memory=memory,
            disk=disk,
            env=env,
            labels=labels,
            workdir=workdir,
            user=user,
            network=network,
            lifetime=lifetime,
        )
        return cls(sandbox, timeout=timeout)

    def terminate(self) -> None:
        """Ends the sandbox. Idempotent."""
        self.sandbox.terminate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.terminate()

    @property
    @override
    def id(self) -> str:
        return self.sandbox.id

    # commands --------------------------------------------------------------------------------------------------------

    @override
    def execute(self, command: str, *, timeout: int | None = None) -> ExecuteResponse:
        """Runs it with ``/bin/sh``. After `timeout` seconds (0: never) all of it is killed and the exit code is 124.

        One that prints more than 10 MiB is ended: its output is then cut there, `truncated`, and it has no exit code.
        """
        run = _Run(self._timeout if timeout is None else timeout)
        try:
            done = self.sandbox.run(_argv(command), text=False, timeout=run.timeout, on_stdout=run.take)
            return run.response(done)
        except (ProcessTimeout, _TooMuch) as error:
            return run.ended(error)

    @override
    async def aexecute(self, command: str, *, timeout: int | None = None) -> ExecuteResponse:
        run = _Run(self._timeout if timeout is None else timeout)
        try:
            twin = await self._twin()
            return run.response(await twin.run(_argv(command), text=False, timeout=run.timeout, on_stdout=run.take))
        except (ProcessTimeout, _TooMuch) as error:
            return run.ended(error)

    # files -----------------------------------------------------------------------------------------------------------

    @override
    def upload_files(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        return [self._upload(path, content) for path, content in files]

    @override
    async def aupload_files(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        return [await self._aupload(path, content) for path, content in files]

    @override
    def download_files(self, paths: list[str]) -> list[FileDownloadResponse]:
        return [self._download(path) for path in paths]

    @override
    async def adownload_files(self, paths: list[str]) -> list[FileDownloadResponse]:
        return [await self._adownload(path) for path in paths]

    def _upload(self, path: str, content: bytes) -> FileUploadResponse:
        try:
            command = write_command(_absolute(path), content)
            self._do(command)
        except OSError as error:
            return FileUploadResponse(path, error=_named(error))
        return FileUploadResponse(path)

    async def _aupload(self, path: str, content: bytes) -> FileUploadResponse:
        try:
            command = write_command(_absolute(path), content)
            await self._ado(command)
        except OSError as error:
            return FileUploadResponse(path, error=_named(error))
        return FileUploadResponse(path)

    def _download(self, path: str) -> FileDownloadResponse:
        try:
            command = read_command(_absolute(path), most=_MOST_READ)
            content = self._do(command)
        except OSError as error:
            return FileDownloadResponse(path, error=_named(error))
        return FileDownloadResponse(path, content)

    async def _adownload(self, path: str) -> FileDownloadResponse:
        try:
            command = read_command(_absolute(path), most=_MOST_READ)
            content = await self._ado(command)
        except OSError as error:
            return FileDownloadResponse(path, error=_named(error))
        return FileDownloadResponse(path, content)

    def _do(self, command: FileCommand[Value]) -> Value:
        done = self.sandbox.run(command.argv, input=command.input, text=False, timeout=_FILE_SECONDS)
        return command.result(done)

    async def _ado(self, command: FileCommand[Value]) -> Value:
        twin = await self._twin()
        return command.result(await twin.run(command.argv, input=command.input, text=False, timeout=_FILE_SECONDS))

    async def _twin(self) -> AsyncSandbox:
        """The same sandbox for this event loop: a connection belongs to one."""
        loop = asyncio.get_running_loop()
        if self._async is None or self._async[0] is not loop:
            self._async = (loop, await AsyncSandbox.get(self.id))
        return self._async[1]


class _TooMuch(Exception):
    """A command printed more than is kept."""


class _Run:
    """One command: how it is run, and what is said of its end."""

    def __init__(self, timeout: int) -> None:
        self.timeout = timeout or None
        self._pieces: list[bytes] = []
        self._size = 0

    def response(self, done: CompletedProcess[bytes]) -> ExecuteResponse:
        status = 128 - done.returncode if done.returncode < 0 else done.returncode
        return ExecuteResponse(self._output(), exit_code=status)

    def ended(self, error: Exception) -> ExecuteResponse:
        if isinstance(error, _TooMuch):
            return ExecuteResponse(self._output(), exit_code=None, truncated=True)
        told = f"The command did not end within {self.timeout} seconds and was killed."
        return ExecuteResponse("\n".join([*filter(None, [self._output()]), told]), exit_code=124)

    def take(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > _MOST_OUTPUT:
            raise _TooMuch

    def _output(self) -> str:
        return b"".join(self._pieces)[:_MOST_OUTPUT].decode(errors="replace")


def _argv(command: str) -> list[str]:
    # One stream for both, so that their order is kept; by a shell around it, whatever the command's own syntax is.
    return ["/bin/sh", "-c", 'exec /bin/sh -c "$1" 2>&1', "sh", command]


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise OSError(errno.EINVAL, "a path is absolute", path)
    return path


def _named(error: OSError) -> str:
    return _ERRORS.get(error.errno or 0) or str(error)
