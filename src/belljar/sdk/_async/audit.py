"""The server's audit log, for those who may read it."""

import contextlib
import json
import os
import secrets
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from belljar.model.audit import AuditEntry
from belljar.sdk._async import flow
from belljar.sdk._async.link import AsyncLink, Lost, shared_link
from belljar.sdk.answers import audit_entry_of
from belljar.sdk.asking import url
from belljar.sdk.patience import Patience

__all__ = ("AsyncAuditLog",)

_PAGE = 100


class AsyncAuditLog:
    """Who changed what, when, from where, and what came of it. Nobody can change it; what is in it fits together by hashes.

    >>> async for entry in AsyncAuditLog.list(limit=1):
    ...     print(entry.seq, entry.key, entry.method, entry.target, entry.status)
    12 key01kz… DELETE /v1/sandboxes/sb01kz… 200
    """

    @classmethod
    async def list(
        cls, *, since: float | None = None, until: float | None = None, limit: int | None = None
    ) -> AsyncIterator[AuditEntry]:
        """The newest first, from `since` on and before `until` (seconds since 1970). Raises PermissionDenied."""
        link = await shared_link()
        left, cursor = limit, None
        while left is None or left > 0:
            size = _PAGE if left is None else min(left, _PAGE)
            page = await link.call("GET", url("audit", limit=size, cursor=cursor, since=since, until=until))
            for item in page["items"]:
                yield audit_entry_of(item)
            left = None if left is None else left - len(page["items"])
            cursor = page.get("next")
            if cursor is None:
                return

    @classmethod
    async def export(cls, file: str | os.PathLike[str] | BinaryIO, *, after: int = 0) -> AuditEntry | None:
        """Writes the entries with a greater number than `after`, one a line as JSON, the oldest first; gives the newest of them.

        A path appears whole; to an open file what comes is added. Note number and hash of the newest elsewhere:
        ``belljar audit verify --head`` finds what was changed or is missing since.
        """
        link = await shared_link()
        if not isinstance(file, (str, os.PathLike)):
            return await _fetch(link, file, after)
        local = Path(file)
        temporary = local.with_name(f".{local.name[:100]}.{secrets.token_hex(4)}.part")
        try:
            with await flow.in_thread(_opened, temporary) as target:
                last = await _fetch(link, target, after)
            await flow.in_thread(temporary.replace, local)
            return last
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()


async def _fetch(link: AsyncLink, target: BinaryIO, after: int) -> AuditEntry | None:
    patience = Patience()
    last: AuditEntry | None = None
    while True:
        body = None
        try:
            rest = b""
            body = await link.open("GET", url("audit", "export", after=after if last is None else last.seq))
            while chunk := await body.read():
                whole, newline, rest = (rest + chunk).rpartition(b"\n")
                if newline:
                    await flow.in_thread(target.write, whole + newline)
                    last = audit_entry_of(json.loads(whole.rpartition(b"\n")[2]))
            return last
        except Lost as lost:  # on behind the last whole line
            await link.recover(patience, lost)
        finally:
            if body is not None:
                await body.aclose()


def _opened(path: Path) -> BinaryIO:
    # For its owner alone: it tells who does what.
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR), "wb")
