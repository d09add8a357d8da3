"""A backup of all that is durable, as one stream, while everything goes on.

The order is what makes it consistent: from before the database is copied until the end nothing that is deleted goes from the
disk. So each snapshot that the copy says is there can be copied after it, and what is made later is in neither of the two.
"""

import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path

import belljar
from belljar.base.archive import ArchiveWriter
from belljar.base.clock import Clock, SystemClock
from belljar.base.log import get_logger
from belljar.base.tasks import in_thread, opened_in_thread
from belljar.control.audit import Audit
from belljar.control.store.copying import Copied, copy_store
from belljar.control.store.database import Database
from belljar.control.store.tables import HEAD
from belljar.model.backup import BackupFile, LeftOut
from belljar.model.errors import Conflict
from belljar.node.api import NodeApi, NodeBackup

__all__ = ("DATABASE", "Backups", "StateFiles")

DATABASE = "belljar.db"
_AUDIT_SECONDS = 5.0
_MOST_NAMED = 1000
"""Snapshots that are named as left out."""
_log = get_logger("control.backup")

StateFiles = Callable[[bool], Mapping[str, bytes]]
"""Settings and, if asked, secrets of the state directory: name → content. Blocks. Raises InvalidArgument."""


class Backups:
    """One at a time. Nothing of one is left when its reader leaves or the server is killed."""

    def __init__(
        self,
        database: Database,
        node: NodeApi,
        audit: Audit,
        files: StateFiles,
        home: Path,
        *,
        clock: Clock | None = None,
    ) -> None:
        """`home`: the state directory, where the copy of the store is made."""
        self._database = database
        self._node = node
        self._audit = audit
        self._files = files
        self._beside = home / DATABASE
        self._clock = clock or SystemClock()
        self._is_busy = False

    async def make(self, *, with_keys: bool = False, content: bool = True) -> AsyncGenerator[bytes]:
        """The archive. `with_keys`: also the first API key and the keys of snapshots. Without `content` what an object store has
        is left out.

        Raises Conflict, DiskFull, InvalidArgument (nothing but the state directory has the content; a secret is in the settings).
        """
        if self._is_busy:
            raise Conflict("a backup is being made already", hint="wait for its end")
        self._is_busy = True
        try:
            files = await in_thread(self._files, with_keys)
            async with self._node.backup(content=content) as kept:
                await self._audit.settled(_AUDIT_SECONDS)
                await self._database.settled()
                at = self._clock.now()
                copy = await opened_in_thread(_close, copy_store, self._database.place, self._beside)
                try:
                    async for packed in self._archive(kept, copy, files, at, with_keys, content):
                        yield packed
                finally:
                    _close(copy)
        finally:
            self._is_busy = False

    async def _archive(
        self, kept: NodeBackup, copy: Copied, files: Mapping[str, bytes], at: float, with_keys: bool, content: bool
    ) -> AsyncGenerator[bytes]:
        size = await kept.size(copy.snapshots)
        head = {"belljar": belljar.__version__, "schema": HEAD, "created": at, "keys": with_keys, "content": content}
        writer = ArchiveWriter(
            head,
            files=1 + len(files) + size.files,
            size=copy.size + sum(map(len, files.values())) + size.bytes,
            at=at,
        )
        yield writer.begin() + writer.file(DATABASE, copy.size)
        done = 0
        while piece := await in_thread(copy.read, done):
            done += len(piece)
            yield await in_thread(writer.data, piece)
        for name, text in files.items():
            yield writer.file(name, len(text)) + writer.data(text)
        left_out: dict[str, str] = {}
        async with contextlib.aclosing(kept.pieces()) as pieces:
            async for one in pieces:
                if isinstance(one, BackupFile):
                    yield writer.file(one.name, one.size)
                elif isinstance(one, LeftOut):
                    _log.error("a snapshot is not whole in the backup", snapshot=one.snapshot, reason=one.reason)
                    if len(left_out) < _MOST_NAMED:
                        left_out[one.snapshot] = one.reason[:500]
                else:
                    yield await in_thread(writer.data, one)
        yield writer.end({"left_out": left_out})


def _close(copy: Copied) -> None:
    with contextlib.suppress(OSError):
        os.close(copy.descriptor)
