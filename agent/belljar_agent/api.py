"""What the agent's core and its operations know of each other."""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` is not needed at run time and costs milliseconds to import
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any, Protocol

    Args = dict[str, Any]
    """What the server asked, straight from its JSON: check every type."""
    Answer = dict[str, Any]
    Steps = Generator[None, None, Answer]
    """A long operation: yields about every 5 ms of work, so that the loop stays responsive; closed when it is cancelled."""

    class Context(Protocol):
        """What an operation may ask the core."""

        def resolve(self, path: object) -> str:
            """An absolute path of this process. Relative ones start at the configured working directory.

            Raises Refused for what is no path. Symbolic links are not looked at.
            """
            ...

        def shown(self, path: str) -> str:
            """The inverse of `resolve`: the path as the sandbox's user knows it."""
            ...

        def uid_gid(self, user: object) -> tuple[int, int]:
            """Of ``name``, ``uid``, ``name:group``; None means the configured user. Raises Refused (invalid_argument)."""
            ...

        def user_name(self, uid: int) -> str:
            """The name, or the number as text."""
            ...

        def group_name(self, gid: int) -> str: ...

        def own(self, path: str, user: object, *, follow: bool = False) -> None:
            """Gives `path` to `user` (None: the configured one); does nothing where users cannot be switched (plain mode)."""
            ...

    class Source(Protocol):
        """What the server reads. Opened with the answer already known; raises Refused or OSError in `read`."""

        def size_info(self) -> Answer | Steps:
            """The answer to the request. Steps: what must be done before the answer is true."""
            ...

        def read(self, limit: int) -> bytes | None:
            """At most `limit` bytes (`limit` > 0); b"" is the end, None: nothing now, wait for `fileno` to be readable."""
            ...

        def fileno(self) -> int | None:
            """A descriptor that becomes readable when `read` has something again; None: `read` never returns None."""
            ...

        def close(self) -> None:
            """Always called, once."""
            ...

    class Sink(Protocol):
        """What the server writes. Raises Refused or OSError, which end the stream with that error."""

        @property
        def offset(self) -> int:
            """Bytes taken so far: where the server goes on."""
            ...

        def write(self, data: memoryview) -> None:
            """The next bytes, in order. Must not take longer than a write of 64 KiB to a disk."""
            ...

        def finish(self) -> Answer | Steps:
            """All bytes came: the result of the stream."""
            ...

        def abort(self) -> None:
            """The server left or cancelled; or `write` or `finish` raised. Called once unless `finish` answered."""
            ...

    Operation = Callable[[Context, Args], Answer | Steps]
    # The package `files` exports:
    #   OPERATIONS: dict[str, Operation]
    #   def open_source(op: str, context: Context, args: Args) -> Source      for read, pull, watch
    #   def open_sink(op: str, context: Context, args: Args) -> Sink          for write, push
    #   def housekeeping(now: float) -> None      about every 10 s: drops silent uploads (monotonic clock)
    #   def quiesce() -> None                     before a checkpoint; may raise Refused

__all__ = ("Refused", "refusal_of")


class Refused(Exception):
    """An operation that cannot be done, with a `code` of the project's error tree."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


_CODES = {
    1: "permission_denied",  # EPERM
    2: "not_found",  # ENOENT
    7: "too_large",  # E2BIG
    11: "limit_exceeded",  # EAGAIN
    12: "limit_exceeded",  # ENOMEM
    13: "permission_denied",  # EACCES
    16: "conflict",  # EBUSY
    17: "conflict",  # EEXIST
    20: "conflict",  # ENOTDIR
    21: "conflict",  # EISDIR
    22: "invalid_argument",  # EINVAL
    23: "limit_exceeded",  # ENFILE
    24: "limit_exceeded",  # EMFILE
    26: "conflict",  # ETXTBSY
    27: "too_large",  # EFBIG
    28: "disk_full",  # ENOSPC
    30: "permission_denied",  # EROFS
    31: "limit_exceeded",  # EMLINK
    32: "conflict",  # EPIPE
    36: "invalid_argument",  # ENAMETOOLONG
    39: "conflict",  # ENOTEMPTY
    40: "invalid_argument",  # ELOOP
    95: "not_supported",  # EOPNOTSUPP
    122: "disk_full",  # EDQUOT
}


def refusal_of(error: OSError, path: str | None = None) -> Refused:
    """An operating system error as the tree's; `path` is what the user called it."""
    words = error.strerror or str(error)
    return Refused(_CODES.get(error.errno or 0, "internal"), f"{path}: {words}" if path else words)
