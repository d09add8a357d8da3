"""Files inside, on a session."""

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from typing import Any

from belljar.model.errors import Conflict
from belljar.model.file import Change, FileInfo, check_path
from belljar.node.guest.facts import change_of, file_of, integer, mounts_of, page_of
from belljar.node.guest.session import Session
from belljar.node.guest.streams import Outgoing
from belljar.wire.faults import WireFault
from belljar.wire.inflow import MAX_WINDOW

__all__ = ("Files",)

_CALL = 30.0
_TREE = 600.0
"""Seconds for what walks a whole tree; the agent does it in small steps, and the caller may leave earlier."""
_IDLE = 60.0
"""Seconds without a step forward after which a disk that takes nothing is given up."""
_MAX_LINE = 128 << 10


class Files:
    """Each call is one request; bulk data goes through streams with credit."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def stat(self, path: str, *, follow: bool) -> FileInfo:
        answer = await self._call("stat", {"path": check_path(path), "follow": follow})
        with self._trusting():
            return file_of(answer)

    async def list_directory(self, path: str, *, cursor: str | None, limit: int) -> tuple[list[FileInfo], str | None]:
        answer = await self._call("list", {"path": check_path(path), "cursor": cursor, "limit": limit})
        with self._trusting():
            return page_of(answer)

    async def glob(
        self, path: str, pattern: str, *, cursor: str | None, limit: int
    ) -> tuple[list[FileInfo], str | None]:
        args = {"path": check_path(path), "pattern": pattern, "cursor": cursor, "limit": limit}
        answer = await self._call("glob", args, timeout=_TREE)
        with self._trusting():
            return page_of(answer)

    async def simple(self, op: str, *, timeout: float = _CALL, **args: Any) -> None:
        """An operation whose answer is empty."""
        for name in ("path", "source", "target"):
            if name in args:
                check_path(args[name])
        await self._call(op, args, timeout=timeout)

    async def tree(self, op: str, **args: Any) -> None:
        """As `simple`, for one that may walk a whole tree."""
        await self.simple(op, timeout=_TREE, **args)

    # out of the sandbox ------------------------------------------------------------------------------------------------

    def read(self, path: str, *, offset: int, length: int | None) -> AsyncGenerator[bytes, None]:
        args: dict[str, Any] = {"path": check_path(path), "offset": offset}
        if length is not None:
            args["length"] = length
        return self._stream("read", args)

    def pull(self, path: str) -> AsyncGenerator[bytes, None]:
        return self._stream("pull", {"path": check_path(path)})

    async def watch(self, path: str, *, recursive: bool) -> AsyncGenerator[Change, None]:
        rest = b""
        args = {"path": check_path(path), "recursive": recursive}
        async with contextlib.aclosing(self._stream("watch", args, timeout=_TREE)) as chunks:
            async for chunk in chunks:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    with self._trusting():
                        change = _change(line)
                    yield change
                if len(rest) > _MAX_LINE:
                    raise self._session.distrust(WireFault("a change without an end"))

    async def _stream(self, op: str, args: dict[str, Any], *, timeout: float = _CALL) -> AsyncGenerator[bytes, None]:
        incoming = self._session.incoming()
        try:
            stream = incoming.open()
            await self._call(op, {**args, "stream": stream.id, "window": MAX_WINDOW}, timeout=timeout)
            while (piece := await incoming.take()) is not None:
                yield piece[2]
        finally:
            incoming.close()

    # into the sandbox --------------------------------------------------------------------------------------------------

    async def write(
        self,
        path: str,
        chunks: AsyncIterator[bytes],
        *,
        upload: str,
        offset: int,
        last: bool,
        mode: int | None,
        user: str | None,
        parents: bool,
        append: bool,
    ) -> int:
        out = self._session.outgoing()
        try:
            args: dict[str, Any] = {
                "path": check_path(path),
                "upload": upload,
                "offset": offset,
                "stream": out.id,
                "last": last,
                "parents": parents,
                "append": append,
            }
            args |= {name: value for name, value in (("mode", mode), ("user", user)) if value is not None}
            answer = await self._call("write", args)
            with self._trusting():
                taken = integer(answer, "offset")
                out.begin(taken, integer(answer, "credit", least=taken, most=taken + MAX_WINDOW))
            if taken < offset:
                raise Conflict(f"a part is missing: {taken} bytes were taken")
            await self._send(out, chunks, skip=taken - offset)
            result = await out.finish(idle=_IDLE, timeout=_TREE)
            with self._trusting():
                return integer(result, "offset")
        finally:
            out.close()

    async def uploaded(self, upload: str) -> int:
        answer = await self._call("uploaded", {"upload": upload})
        with self._trusting():
            return integer(answer, "offset")

    async def push(self, path: str, chunks: AsyncIterator[bytes], *, user: str | None) -> int:
        return await self._unpacked("push", path, chunks, {} if user is None else {"user": user})

    async def mount(self, path: str, label: str, chunks: AsyncIterator[bytes]) -> int:
        return await self._unpacked("mount", path, chunks, {"label": label})

    async def mounts(self) -> dict[str, str]:
        answer = await self._call("mounts", {})
        with self._trusting():
            return mounts_of(answer)

    async def _unpacked(self, op: str, path: str, chunks: AsyncIterator[bytes], more: dict[str, Any]) -> int:
        out = self._session.outgoing()
        try:
            args: dict[str, Any] = {"path": check_path(path), "stream": out.id, **more}
            answer = await self._call(op, args)
            with self._trusting():
                out.begin(0, integer(answer, "credit", most=MAX_WINDOW))
            await self._send(out, chunks, skip=0)
            result = await out.finish(idle=_IDLE, timeout=_TREE)
            with self._trusting():
                return integer(result, "entries")
        finally:
            out.close()

    @staticmethod
    async def _send(out: Outgoing, chunks: AsyncIterator[bytes], *, skip: int) -> None:
        """All chunks but the first `skip` bytes, which were taken before."""
        async for chunk in chunks:
            if skip >= len(chunk):
                skip -= len(chunk)
                continue
            await out.send(memoryview(chunk)[skip:] if skip else chunk, idle=_IDLE)
            skip = 0

    # -------------------------------------------------------------------------------------------------------------------

    async def _call(self, op: str, args: dict[str, Any], *, timeout: float = _CALL) -> dict[str, Any]:
        return await self._session.call(op, args, timeout=timeout)

    @contextlib.contextmanager
    def _trusting(self) -> Generator[None]:
        """What the agent says wrongly ends the session."""
        try:
            yield
        except WireFault as fault:
            raise self._session.distrust(fault) from None


def _change(line: bytes) -> Change:
    try:
        return change_of(json.loads(line))
    except (ValueError, RecursionError):
        raise WireFault("a change that is none") from None
