"""Errors that arise on the client's side; those of the server are in `belljar.model.errors`."""

from collections.abc import Sequence

from belljar.model.errors import Error

__all__ = ("OutputLost", "ProcessFailed", "ProcessTimeout", "ServerUnreachable", "UnsafeEntry", "describe_command")

_SHOWN = 2000


class ServerUnreachable(Error, ConnectionError):
    """No server answers: the message says what was tried, the hint names the command that starts one."""

    code = "server_unreachable"
    retryable = True


class ProcessFailed(Error):
    """A command ended with a status other than 0 (``run(…, check=True)``). A result, not a fault of the platform.

    `command`, `returncode` (negative for a signal), `stdout` and `stderr` as in the result.
    """

    code = "process_failed"

    def __init__(
        self, command: str | Sequence[str], returncode: int, stdout: str | bytes = "", stderr: str | bytes = ""
    ) -> None:
        how = f"exit status {returncode}" if returncode >= 0 else f"signal {-returncode}"
        super().__init__(f"{describe_command(command)} ended with {how}{_last_words(stderr)}")
        self.command = command
        self.returncode = returncode
        self.stdout = stdout
        self.stderr = stderr


class ProcessTimeout(Error, TimeoutError):
    """A command did not end in time; `run` has killed its whole process group. `timeout` in seconds.

    `stdout` and `stderr` hold the output so far.
    """

    code = "process_timeout"

    def __init__(
        self, command: str | Sequence[str], timeout: float, stdout: str | bytes = "", stderr: str | bytes = ""
    ) -> None:
        super().__init__(f"{describe_command(command)} did not end within {timeout:g} s{_last_words(stderr)}")
        self.command = command
        self.timeout = timeout
        self.stdout = stdout
        self.stderr = stderr


class OutputLost(Error):
    """Bytes of a stream were dropped before they were read: more than 16 MiB came while nobody was attached.

    Raised once for each gap, where it is; the next read goes on behind it. `dropped` is the number of bytes.
    """

    code = "output_lost"

    def __init__(self, stream: str, dropped: int) -> None:
        super().__init__(f"{dropped} bytes of {stream} were dropped while nobody was attached")
        self.dropped = dropped


class UnsafeEntry(Error):
    """A tree from a sandbox has an entry that would leave the target folder. What came before it was written."""

    code = "unsafe_entry"

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"refused {name[:200]!r}: {why}", hint="skip_unsafe=True leaves such entries out")
        self.name = name


def describe_command(command: str | Sequence[str]) -> str:
    """A command for people, cut to one short line."""
    words = command if isinstance(command, str) else " ".join(command)
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in words[:80])
    return f"{shown!r}" if len(words) <= 80 else f"{shown!r}…"


def _last_words(stderr: str | bytes) -> str:
    text = stderr[-_SHOWN:].decode(errors="replace") if isinstance(stderr, bytes) else stderr[-_SHOWN:]
    return f":\n{text.rstrip()}" if text.strip() else ""
