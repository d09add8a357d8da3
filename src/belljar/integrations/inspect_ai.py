"""Inspect's sandbox provider ``belljar``: each sample of an evaluation gets a sandbox of its own under gVisor.

>>> Task(dataset=…, solver=…, sandbox="belljar")
>>> Task(dataset=…, solver=…, sandbox=SandboxEnvironmentSpec("belljar", BelljarConfig(memory="2GiB", network="none")))

Installed with ``pip install 'belljar[inspect]'``, Inspect finds it by itself.
"""

import errno
import logging
import os
import shlex
from pathlib import Path
from typing import Any, Literal, overload

import yaml
from inspect_ai.util import (
    ExecResult,
    OutputLimitExceededError,
    SandboxConnection,
    SandboxEnvironment,
    SandboxEnvironmentConfigType,
    SandboxEnvironmentLimits,
    SandboxUserUnsupportedError,
    sandboxenv,
)
from inspect_ai.util._sandbox.environment import SandboxUnavailableError
from pydantic import BaseModel, ConfigDict
from typing_extensions import override

from belljar import (
    AsyncSandbox,
    Error,
    InvalidArgument,
    NotFound,
    NotSupported,
    PermissionDenied,
    ProcessTimeout,
    SandboxGone,
    ServerUnreachable,
    TooLarge,
)
from belljar.integrations.file_commands import FileCommand, Value, read_command, write_command

__all__ = ("BelljarConfig", "BelljarSandboxEnvironment")

_LABEL = "made-by"
_MAKER = "inspect-ai"
_FILE_SECONDS = 600.0
_log = logging.getLogger(__name__)


class BelljarConfig(BaseModel):
    """What the sandbox of a sample is like; the fields are the arguments of `belljar.Sandbox.create`.

    `lifetime` is the longest that a sample may take: it ends sandboxes of an evaluation that was killed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str = "base"
    cpu: float = 1.0
    memory: str = "1GiB"
    disk: str = "10GiB"
    pids: int = 1024
    env: dict[str, str] = {}
    workdir: str | None = None
    user: str | None = None
    network: str = "open"
    lifetime: str | None = "1d"


@sandboxenv(name="belljar")  # pyright: ignore[reportUntypedClassDecorator] # Inspect's decorator gives the class back
class BelljarSandboxEnvironment(SandboxEnvironment):
    """One sandbox. The config is a `BelljarConfig`, the path of a YAML or JSON file with its fields, or the name of an image."""

    def __init__(self, sandbox: AsyncSandbox, working_dir: str) -> None:
        super().__init__()
        self.sandbox = sandbox
        self._working_dir = working_dir

    # an evaluation's life --------------------------------------------------------------------------------------------

    @override
    @classmethod
    def default_concurrency(cls) -> int | None:
        return 2 * (os.cpu_count() or 1)

    @override
    def default_polling_interval(self) -> float:
        return 0.2

    @override
    @classmethod
    def config_deserialize(cls, config: dict[str, Any]) -> BelljarConfig:
        return BelljarConfig.model_validate(config)

    @override
    @classmethod
    async def task_init(cls, task_name: str, config: SandboxEnvironmentConfigType | None) -> None:
        """Starts the server, where that is due, before the first sample's clock runs; and reads the config once."""
        _config_of(config)
        async for _ in AsyncSandbox.list(limit=1):
            pass

    @override
    @classmethod
    async def sample_init(
        cls, task_name: str, config: SandboxEnvironmentConfigType | None, metadata: dict[str, str]
    ) -> dict[str, SandboxEnvironment]:
        wanted = _config_of(config)
        labels = {_LABEL: _MAKER, "task": "".join(letter for letter in task_name if letter.isprintable())[:60]}
        sandbox = await AsyncSandbox.create(labels=labels, **wanted.model_dump())
        try:
            working_dir = (await sandbox.run(["/bin/sh", "-c", "pwd"], check=True)).stdout.removesuffix("\n")
        except BaseException:
            await sandbox.terminate()
            raise
        return {"default": cls(sandbox, working_dir)}

    @override
    @classmethod
    async def sample_cleanup(
        cls,
        task_name: str,
        config: SandboxEnvironmentConfigType | None,
        environments: dict[str, SandboxEnvironment],
        interrupted: bool,
    ) -> None:
        # An interrupted sample too: ending one takes milliseconds.
        for environment in environments.values():
            try:
                await environment.as_type(cls).sandbox.terminate()
            except (NotFound, ServerUnreachable) as error:
                _log.warning("the sandbox of a sample could not be ended: %s", error)

    @override
    @classmethod
    async def cli_cleanup(cls, id: str | None) -> None:
        """``inspect sandbox cleanup belljar [ID]``: ends the sandbox with this id, or all that evaluations left."""
        async for sandbox in AsyncSandbox.list(labels={_LABEL: _MAKER}):
            if id in (None, sandbox.id):
                await sandbox.terminate()

    @override
    async def connection(self, *, user: str | None = None) -> SandboxConnection:
        try:
            await self.sandbox.refresh()
        except Error as error:
            raise ConnectionError(str(error)) from error
        if self.sandbox.ended is not None:
            raise ConnectionError(f"sandbox {self.sandbox.id} has ended: {self.sandbox.ended.reason}")
        words = ["belljar", "sandbox", "shell", *(["--user", user] if user else []), self.sandbox.id]
        return SandboxConnection(type="belljar", command=shlex.join(words), container=self.sandbox.id)

    # commands --------------------------------------------------------------------------------------------------------

    @override
    async def exec(
        self,
        cmd: list[str],
        input: str | bytes | None = None,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        user: str | None = None,
        timeout: int | None = None,
        timeout_retry: bool = True,
        concurrency: bool = True,
    ) -> ExecResult[str]:
        """As its contract says. A stream of more than the limit ends the command with OutputLimitExceededError.

        Output that is no UTF-8 has replacement characters. A command that cannot be found or started is a result (127, 126).
        """
        limit = SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE
        limit_text = SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE_STR
        try:
            done = await self.sandbox.run(
                cmd,
                input=input.encode() if isinstance(input, str) else input,
                text=False,
                timeout=timeout,
                cwd=self._resolved(cwd) if cwd is not None else self._working_dir,
                env=env,
                user=user,
                on_stdout=_Bound(limit, limit_text),
                on_stderr=_Bound(limit, limit_text),
            )
        except ProcessTimeout as error:
            timed_out = TimeoutError(f"the command did not end within {timeout} seconds")
            if partial := _text(error.stdout) + _text(error.stderr):
                timed_out.truncated_output = partial  # pyright: ignore[reportAttributeAccessIssue] # where Inspect looks for it
            raise timed_out from error
        except (SandboxGone, ServerUnreachable) as error:
            raise SandboxUnavailableError(str(error)) from error
        except NotSupported as error:
            raise SandboxUserUnsupportedError(str(error)) from error
        except PermissionDenied as error:
            raise PermissionError(errno.EACCES, error.message, cmd[0]) from error
        except NotFound as error:
            return ExecResult(False, 127, "", f"{error.message}\n")
        except (InvalidArgument, TooLarge) as error:
            return ExecResult(False, 126, "", f"{error.message}\n")
        # As a shell says it: signal n is 128 + n.
        status = 128 - done.returncode if done.returncode < 0 else done.returncode
        return ExecResult(status == 0, status, _text(done.stdout), _text(done.stderr))

    # files -----------------------------------------------------------------------------------------------------------

    @override
    async def write_file(self, file: str, contents: str | bytes) -> None:
        data = contents.encode() if isinstance(contents, str) else contents
        await self._do(write_command(self._resolved(file), data))

    @overload
    async def read_file(self, file: str, text: Literal[True] = True) -> str: ...

    @overload
    async def read_file(self, file: str, text: Literal[False]) -> bytes: ...

    @override
    async def read_file(self, file: str, text: bool = True) -> str | bytes:
        try:
            data = await self._do(read_command(self._resolved(file), most=SandboxEnvironmentLimits.MAX_READ_FILE_SIZE))
        except OSError as error:
            if error.errno == errno.EFBIG:
                raise OutputLimitExceededError(SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR, None) from error
            raise
        return data.decode() if text else data

    async def _do(self, command: FileCommand[Value]) -> Value:
        try:
            done = await self.sandbox.run(command.argv, input=command.input, text=False, timeout=_FILE_SECONDS)
        except (SandboxGone, ServerUnreachable) as error:
            raise SandboxUnavailableError(str(error)) from error
        return command.result(done)

    def _resolved(self, path: str) -> str:
        return path if path.startswith("/") else f"{self._working_dir.rstrip('/')}/{path}"


class _Bound:
    """Is told the pieces of one stream; raises when they are too many, which ends the command."""

    def __init__(self, limit: int, limit_text: str) -> None:
        self._limit = limit
        self._limit_text = limit_text
        self._pieces: list[bytes] = []
        self._size = 0

    def __call__(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > self._limit:
            raise OutputLimitExceededError(self._limit_text, _text(b"".join(self._pieces)[: self._limit]))


def _config_of(config: SandboxEnvironmentConfigType | None) -> BelljarConfig:
    match config:
        case None:
            return BelljarConfig()
        case BelljarConfig():
            return config
        case str() if config.endswith((".yaml", ".yml", ".json")):
            return BelljarConfig.model_validate(yaml.safe_load(Path(config).read_text()) or {})
        case str():
            return BelljarConfig(image=config)
        case _:
            raise ValueError(f"the config of sandbox 'belljar' is a BelljarConfig, a file or an image, not {config!r}")


def _text(data: str | bytes) -> str:
    return data if isinstance(data, str) else data.decode(errors="replace")
