"""Routes of files."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from belljar.front.native import schema
from belljar.front.native.errors import error_json
from belljar.front.native.gate import request_id_of
from belljar.front.native.render import change_json, file_json, reply
from belljar.front.native.route import BINARY_BODY, CHECKED, Guest, GuestPath, binary
from belljar.front.native.stream import Streaming, close, first_of
from belljar.model.errors import Error
from belljar.model.file import Change, FileInfo, check_path

__all__ = ("router",)

router = APIRouter(prefix="/v1/sandboxes/{ref}/files", tags=["files"], dependencies=CHECKED)
_OCTETS = "application/octet-stream"
_TAR = "application/x-tar"
_LINES = "application/x-ndjson"
_Limit = Annotated[int, Query(ge=1, le=1000)]
_Cursor = Annotated[str | None, Query(max_length=8192)]
_Offset = Annotated[int, Query(ge=0, lt=1 << 63)]
_Upload = Annotated[
    str, Query(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$", description="Chosen by the caller")
]
_User = Annotated[str | None, Query(max_length=64)]


@router.get("/stat", response_model=schema.FileOut, summary="Show a file")
async def stat(path: GuestPath, guest: Guest, follow: bool = True) -> Response:
    return reply(file_json(await guest.stat(path, follow=follow)))


@router.get("/list", response_model=schema.FilePage, summary="List a directory")
async def list_(path: GuestPath, guest: Guest, cursor: _Cursor = None, limit: _Limit = 1000) -> Response:
    """In the order of names."""
    return _page(await guest.list_directory(path, cursor=cursor, limit=limit))


@router.get("/glob", response_model=schema.FilePage, summary="Find files by a pattern")
async def glob(
    path: GuestPath,
    guest: Guest,
    pattern: Annotated[str, Query(min_length=1, max_length=4096)],
    cursor: _Cursor = None,
    limit: _Limit = 1000,
) -> Response:
    """As pathlib's: `**` crosses directories; symbolic links are not followed."""
    return _page(await guest.glob(path, check_path(pattern), cursor=cursor, limit=limit))


def _page(found: tuple[list[FileInfo], str | None]) -> Response:
    items, cursor = found
    return reply({"items": [file_json(item) for item in items], "next": cursor})


@router.get(
    "/content", response_class=Response, responses=binary(_OCTETS, "The bytes of the file"), summary="Read a file"
)
async def read(
    path: GuestPath, guest: Guest, offset: _Offset = 0, length: Annotated[int | None, Query(ge=0, lt=1 << 63)] = None
) -> Response:
    """A body without its end broke off: ask again from the offset that was reached."""
    return await _bytes(guest.read(path, offset=offset, length=length), _OCTETS)


@router.put("/content", response_model=schema.OffsetOut, openapi_extra=BINARY_BODY, summary="Write a file in parts")
async def write(
    path: GuestPath,
    guest: Guest,
    request: Request,
    upload: _Upload,
    offset: _Offset = 0,
    last: bool = True,
    mode: Annotated[int | None, Query(ge=0, le=0o7777)] = None,
    user: _User = None,
    parents: bool = True,
    append: bool = False,
) -> Response:
    """A part has at most 16 MiB. The file appears whole with the part that is `last`; bytes taken before are not taken twice."""
    taken = await guest.write(
        path,
        _body(request),
        upload=upload,
        offset=offset,
        last=last,
        mode=mode,
        user=user,
        parents=parents,
        append=append,
    )
    return reply({"offset": taken})


@router.get("/uploads/{key}", response_model=schema.OffsetOut, summary="How much of an upload was taken")
async def uploaded(key: Annotated[str, Path(max_length=64, pattern=r"^[A-Za-z0-9._-]+$")], guest: Guest) -> Response:
    return reply({"offset": await guest.uploaded(key)})


@router.post("/mkdir", response_model=schema.Empty, summary="Make a directory")
async def mkdir(body: schema.MakeDirectory, guest: Guest) -> Response:
    await guest.make_directory(
        check_path(body.path), parents=body.parents, exist_ok=body.exist_ok, mode=body.mode, user=body.user
    )
    return reply({})


@router.post("/remove", response_model=schema.Empty, summary="Remove a file, link or directory")
async def remove(body: schema.Remove, guest: Guest) -> Response:
    await guest.remove(check_path(body.path), recursive=body.recursive, missing_ok=body.missing_ok)
    return reply({})


@router.post("/move", response_model=schema.Empty, summary="Move a file or directory")
async def move(body: schema.Move, guest: Guest) -> Response:
    await guest.move(check_path(body.source), check_path(body.target))
    return reply({})


@router.post("/chmod", response_model=schema.Empty, summary="Change permissions")
async def chmod(body: schema.Chmod, guest: Guest) -> Response:
    await guest.chmod(check_path(body.path), body.mode, recursive=body.recursive)
    return reply({})


@router.post("/chown", response_model=schema.Empty, summary="Change the owner")
async def chown(body: schema.Chown, guest: Guest) -> Response:
    await guest.chown(check_path(body.path), body.user, recursive=body.recursive)
    return reply({})


@router.post("/symlink", response_model=schema.Empty, summary="Make a symbolic link")
async def symlink(body: schema.Symlink, guest: Guest) -> Response:
    await guest.symlink(check_path(body.path), check_path(body.target), user=body.user)
    return reply({})


@router.post("/hardlink", response_model=schema.Empty, summary="Make a hard link")
async def hardlink(body: schema.Hardlink, guest: Guest) -> Response:
    await guest.hardlink(check_path(body.path), check_path(body.target))
    return reply({})


@router.post("/touch", response_model=schema.Empty, summary="Make a file, or renew its time")
async def touch(body: schema.Touch, guest: Guest) -> Response:
    await guest.touch(check_path(body.path), exist_ok=body.exist_ok, user=body.user)
    return reply({})


@router.get("/tree", response_class=Response, responses=binary(_TAR, "A tar stream"), summary="Read a tree")
async def pull(path: GuestPath, guest: Guest) -> Response:
    """Names relative to `path`. It was made inside the sandbox: unpack it as something hostile."""
    return await _bytes(guest.pull(path), _TAR)


@router.put(
    "/tree",
    response_model=schema.EntriesOut,
    openapi_extra={
        "requestBody": {"required": True, "content": {_TAR: {"schema": {"type": "string", "format": "binary"}}}}
    },
    summary="Write a tree",
)
async def push(path: GuestPath, guest: Guest, request: Request, user: _User = None) -> Response:
    """Unpacks a tar stream below `path`, which is made when missing; nothing lands outside of it."""
    return reply({"entries": await guest.push(path, _body(request), user=user)})


@router.get(
    "/watch", response_class=Response, responses=binary(_LINES, "One JSON object a line"), summary="Watch a path"
)
async def watch(path: GuestPath, guest: Guest, request: Request, recursive: bool = False) -> Response:
    """Changes from now on, each ``{kind, path, source}``; an empty line keeps the connection warm."""
    changes = guest.watch(path, recursive=recursive)
    first = asyncio.ensure_future(anext(changes, None))
    try:
        await asyncio.sleep(0)  # it has asked
        # The first change may be far away. The answer to this says that there is something to watch, and comes after the agent
        # has read what was asked before.
        await guest.stat(path)
        if first.done():
            first.result()
    except BaseException:
        first.cancel()
        await asyncio.wait([first])
        await close(changes)
        raise

    def failure(error: Error) -> bytes:
        return _line({"error": error_json(error, request_id_of(request.scope))})

    return Streaming(_changes(first, changes), media_type=_LINES, idle=b"\n", failure=failure)


async def _changes(first: "asyncio.Future[Change | None]", changes: AsyncIterator[Change]) -> AsyncIterator[bytes]:
    try:
        if (change := await first) is not None:
            yield _line(change_json(change))
            async for change in changes:
                yield _line(change_json(change))
    finally:
        first.cancel()
        await asyncio.wait([first])
        await close(changes)


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


async def _bytes(chunks: AsyncIterator[bytes], media_type: str) -> Response:
    first = await first_of(chunks)

    async def pieces() -> AsyncIterator[bytes]:
        try:
            if first is not None:
                yield first
                async for chunk in chunks:
                    yield chunk
        finally:
            await close(chunks)

    return Streaming(pieces(), media_type=media_type)


async def _body(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        if chunk:
            yield chunk
