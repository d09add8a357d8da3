"""Processes inside a sandbox."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from belljar.model.errors import InvalidArgument
from belljar.model.sandbox import check_env

__all__ = (
    "KEPT_OUTPUT",
    "MAX_ARGUMENTS",
    "Exit",
    "Output",
    "OutputEvent",
    "ProcessInfo",
    "ProcessSpec",
    "PtySize",
    "Stream",
    "StreamState",
    "Tail",
)

KEPT_OUTPUT = 16 << 20
"""Bytes of each stream that are kept while nobody is attached; the oldest go first and are counted."""
MAX_ARGUMENTS = 2 << 20


class Stream(StrEnum):
    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True)
class PtySize:
    cols: int = 80
    rows: int = 24

    def __post_init__(self) -> None:
        if not (1 <= self.cols <= 4096 and 1 <= self.rows <= 4096):
            raise InvalidArgument("a terminal has between 1 and 4096 columns and rows")


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A process to start.

    `key` is chosen by the caller: a second start with the same key gives the process that is there (so a call can be
    repeated after a lost answer). `env` is added to the sandbox's; `cwd` and `user` default to the sandbox's (another user
    starts at home); `user` is a name, a uid, or ``name:group``. `pty`: stdin and stdout are a terminal and there is no
    stderr. `stdin` False: empty. `history`: bytes of stdout that a reader got and may ask for again (default 4 MiB).
    """

    key: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    cwd: str | None = None
    user: str | None = None
    stdin: bool = True
    pty: PtySize | None = None
    keep_alive: bool = False
    history: int | None = None

    def __post_init__(self) -> None:
        if not self.argv or not self.argv[0]:
            raise InvalidArgument("a command has at least one word")
        if any("\0" in word for word in self.argv):
            raise InvalidArgument("a command cannot contain NUL")
        if sum(len(word) for word in self.argv) + len(self.argv) > MAX_ARGUMENTS:
            raise InvalidArgument(
                f"a command has at most {MAX_ARGUMENTS >> 20} MiB", hint="pass the data through stdin"
            )
        if not self.key or len(self.key) > 64 or not self.key.isascii() or not self.key.isprintable():
            raise InvalidArgument("a process key has 1 to 64 printable ASCII characters")
        check_env(self.env, raw=True)


@dataclass(frozen=True, slots=True)
class StreamState:
    """Of an output: `start` is the oldest offset still kept, `end` the bytes written so far, `dropped` those lost."""

    start: int = 0
    end: int = 0
    dropped: int = 0
    closed: bool = False


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """`id` is the agent's number for it (never used twice); `pid` is what the sandbox sees. Times since 1970.

    `returncode` is None while it runs, negative for a signal. `out_of_memory`: ended at the sandbox's memory limit.
    `keep_alive`: it counts as activity while it runs.
    """

    id: int
    pid: int
    argv: tuple[str, ...]
    user: str
    started: float
    pty: bool = False
    keep_alive: bool = False
    returncode: int | None = None
    ended: float | None = None
    out_of_memory: bool = False
    stdin: int = 0
    """Bytes of input that the agent has taken so far: where a writer goes on."""
    stdout: StreamState = field(default_factory=StreamState)
    stderr: StreamState = field(default_factory=StreamState)


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of what a process wrote. `attached`: somebody reads it, so it was left alone."""

    process: ProcessInfo
    attached: bool
    stdout: bytes = b""
    stderr: bytes = b""


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of output; `offset` counts the bytes of this stream before it. A gap to the one before was dropped."""

    stream: Stream
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Exit:
    """The process ended; nothing follows."""

    returncode: int
    out_of_memory: bool = False


OutputEvent: TypeAlias = Output | Exit
