"""The only place that starts host processes."""

import asyncio
import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

__all__ = (
    "CommandFailed",
    "Completed",
    "Stdio",
    "describe_status",
    "is_alive",
    "run",
    "run_sync",
    "start_daemon",
)

Stdio: TypeAlias = int | IO[bytes] | None
_STDERR_KEPT = 64 << 10
_ENTER_CGROUPS = 'while [ "$1" != -- ]; do echo 0 > "$1/cgroup.procs" || exit 125; shift; done; shift; exec "$@"'


@dataclass(frozen=True, slots=True)
class Completed:
    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes


class CommandFailed(Exception):
    """A host command ended badly: the message has the command, ready to paste into a shell, and what it said."""

    def __init__(self, argv: Sequence[str], returncode: int | None, stderr: bytes) -> None:
        said = stderr[-2000:].decode(errors="replace").strip()
        super().__init__(f"{shlex.join(argv)}\n  {describe_status(returncode)}" + (f": {said}" if said else ""))
        self.argv = tuple(argv)
        self.returncode = returncode
        self.stderr = stderr


def describe_status(returncode: int | None) -> str:
    """``exit status 3``, ``killed by SIGKILL`` or ``did not end in time``."""
    if returncode is None:
        return "did not end in time"
    if returncode >= 0:
        return f"exit status {returncode}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-returncode).name}"
    return f"killed by signal {-returncode}"


def is_alive(pid: int) -> bool:
    """Whether a process with this id exists and is not a zombie. Says nothing about what it is."""
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in (b"Z", b"X")


def _wrapped(argv: Sequence[str | os.PathLike[str]], cgroups: Iterable[Path]) -> list[str]:
    words = [os.fspath(word) for word in argv]
    groups = [str(group) for group in cgroups]
    if not groups:
        return words
    # A shell enters the groups and becomes the command: no race, and no fork of this big process (measured 1 ms).
    return ["/bin/sh", "-c", _ENTER_CGROUPS, "sh", *groups, "--", *words]


async def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    input: bytes | None = None,
    stdin: Stdio = None,
    stdout: Stdio = None,
    stderr: Stdio = None,
    timeout: float = 60.0,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    cgroups: Iterable[Path] = (),
    pass_fds: Sequence[int] = (),
    check: bool = True,
) -> Completed:
    """Runs a host command to its end; kills it on timeout and on cancellation.

    `timeout` in seconds. Descriptors given as `stdin`, `stdout`, `stderr` go to the command as they are; else stdin
    is `input` (or nothing) and the outputs are captured. `cgroups`: folders that the command enters before exec.
    Raises CommandFailed on a status other than 0 (with `check`), on timeout, and when the program is missing.
    """
    words = _wrapped(argv, cgroups)
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=stdin if stdin is not None else (subprocess.DEVNULL if input is None else subprocess.PIPE),
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE if stderr is None else stderr,
            env=env,
            cwd=cwd,
            pass_fds=pass_fds,
        )
    except OSError as error:
        raise CommandFailed(words, 127, str(error).encode()) from error
    try:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate(input)
    except TimeoutError:
        raise CommandFailed(words, None, b"") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    result = Completed(tuple(words), process.returncode or 0, out or b"", (err or b"")[-_STDERR_KEPT:])
    if check and result.returncode:
        raise CommandFailed(words, result.returncode, result.stderr or result.stdout)
    return result


def run_sync(
    argv: Sequence[str | os.PathLike[str]],
    *,
    input: bytes | None = None,
    stdout: Stdio = None,
    stderr: Stdio = None,
    timeout: float = 60.0,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
) -> Completed:
    """As `run`, for code without an event loop (set-up, command line, worker threads)."""
    words = [os.fspath(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE if stderr is None else stderr,
            timeout=timeout,
            env=env,
            cwd=cwd,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(words, None, b"") from error
    except OSError as error:
        raise CommandFailed(words, 127, str(error).encode()) from error
    result = Completed(tuple(words), done.returncode, done.stdout or b"", (done.stderr or b"")[-_STDERR_KEPT:])
    if check and result.returncode:
        raise CommandFailed(words, result.returncode, result.stderr or result.stdout)
    return result


def start_daemon(
    argv: Sequence[str | os.PathLike[str]],
    *,
    log: Path | None = None,
    stdio: tuple[int, int, int] | None = None,
    env: Mapping[str, str] | None = None,
) -> "subprocess.Popen[bytes]":
    """Starts a process that outlives this one, in a session of its own.

    Its output is appended to `log` (or lost), unless `stdio` gives it the descriptors for input, output and error. Raises
    OSError when the program is missing.
    """
    words = [os.fspath(word) for word in argv]
    if stdio is not None:
        return subprocess.Popen(
            words, stdin=stdio[0], stdout=stdio[1], stderr=stdio[2], env=env, cwd="/", start_new_session=True
        )
    with open(log or os.devnull, "ab") as file:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=env,
            cwd="/",
            start_new_session=True,
        )
