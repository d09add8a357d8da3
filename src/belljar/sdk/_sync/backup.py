# Made by scripts/make_sync.py from _async/backup.py: do not edit.
"""Carries the whole state of a server away. For the command line: a server's operators alone may ask for it."""

from collections.abc import Callable
from typing import BinaryIO

from belljar.sdk._sync import flow
from belljar.sdk._sync.link import Lost, shared_link
from belljar.sdk.asking import url
from belljar.sdk.places import unreachable

__all__ = ("fetch_backup",)
_SECONDS = 600.0
"Until the first byte: the database is copied before."


def fetch_backup(
    target: BinaryIO,
    *,
    with_keys: bool = False,
    content: bool = True,
    progress: Callable[[int, int | None], None] | None = None,
) -> int:
    """Writes it as it comes, and gives its size in bytes. `progress(done, None)`.

    Raises PermissionDenied, Conflict, DiskFull (of the server), InvalidArgument, and ServerUnreachable when it breaks off: it is
    of one moment, so there is no going on.
    """
    link = shared_link()
    link.call("GET", url("info"))
    body = None
    done = 0
    try:
        body = link.open("POST", url("backup"), json={"with_keys": with_keys, "content": content}, timeout=_SECONDS)
        while chunk := body.read():
            flow.in_thread(target.write, chunk)
            done += len(chunk)
            if progress is not None:
                flow.call(progress, done, None)
        return done
    except Lost as lost:
        raise unreachable(link.settings, f"the backup broke off ({lost})") from lost
    finally:
        if body is not None:
            body.close()
