"""Files of a sandbox as bounded answers."""

import asyncio
import base64
import binascii

from mcp_types import ImageContent

import belljar
from belljar.integrations.mcp.arguments import ListFiles, ReadFile, WriteFile
from belljar.integrations.mcp.results import Answer, Entry, FileContent, Listing, Written, clean, fitted
from belljar.model.errors import Conflict, InvalidArgument, NotFound, TooLarge
from belljar.model.file import FileKind

__all__ = ("list_files", "read_file", "write_file")

_MAX_IMAGE = 512 << 10
_LOOKS = 16
_IMAGES = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))
_LEGAL_CONTROLS = frozenset("\t\n\r\f\b\x1b")


async def read_file(sandbox: belljar.AsyncSandbox, said: ReadFile) -> Answer:
    """Text as it is, an image as an image, all else as base64. Raises Conflict for a directory."""
    path = sandbox.path(said.path)
    info = await path.stat()
    if info.kind == FileKind.DIRECTORY:
        raise Conflict(f"{clean(str(path))} is a directory", hint="list_files lists it")
    data = await path.read_bytes(offset=said.offset, length=said.length)
    name = clean(str(path))
    if said.offset == 0 and (kind := _image_kind(data)):
        return await _image(sandbox, path, kind, name, info.size)
    text, used = _as_text(data, at_end=len(data) < said.length)
    end = said.offset + used
    more = end if used and (end < info.size or (len(data) == said.length > 0 and info.size == 0)) else None
    value = FileContent(
        sandbox_id=sandbox.id,
        path=name,
        encoding="base64" if text is None else "utf-8",
        content=base64.b64encode(data).decode() if text is None else text,
        size=info.size,
        offset=said.offset,
        next_offset=more,
    )
    head = f"[base64 of {len(data)} bytes]\n" if text is None else ""
    tail = f"\n[bytes {said.offset} to {end} of {info.size}; read on with offset {more}]" if more is not None else ""
    shown = f"{head}{value.content}{tail}"
    return Answer(shown or "[empty]", value)


async def _image(
    sandbox: belljar.AsyncSandbox, path: belljar.AsyncSandboxPath, kind: str, name: str, size: int
) -> Answer:
    if size > _MAX_IMAGE:
        raise TooLarge(
            f"{name} is an image of {size:,} bytes; {_MAX_IMAGE:,} can be shown",
            hint="make it smaller in the sandbox first",
        )
    content = base64.b64encode(await path.read_bytes(length=_MAX_IMAGE)).decode()
    value = FileContent(
        sandbox_id=sandbox.id, path=name, encoding="image", content="", size=size, offset=0, next_offset=None
    )
    return Answer(f"{name}: {kind}, {size:,} bytes", value, images=[ImageContent(data=content, mime_type=kind)])


def _image_kind(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _IMAGES if data.startswith(magic)), None)


def _as_text(data: bytes, *, at_end: bool) -> tuple[str | None, int]:
    """The text and how many bytes it took (a character that is cut in two waits for the next read); None: it is no text."""
    try:
        text, used = data.decode(), len(data)
    except UnicodeDecodeError as error:
        if at_end or len(data) - error.start > 3 or error.reason != "unexpected end of data":
            return None, len(data)
        text, used = data[: error.start].decode(), error.start
    if any(letter < " " and letter not in _LEGAL_CONTROLS for letter in text):
        return None, len(data)
    return text, used


async def write_file(sandbox: belljar.AsyncSandbox, said: WriteFile) -> Answer:
    """Raises InvalidArgument for what is no base64."""
    if said.encoding == "base64":
        try:
            data = base64.b64decode(said.content, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidArgument(f"content is no base64: {error}") from error
    else:
        try:
            data = said.content.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgument("content has half a surrogate pair, which is no text") from error
    path = sandbox.path(said.path)
    await path.write_bytes(data, append=said.append, mode=0o755 if said.executable else None)
    name = clean(str(path))
    verb = "added" if said.append else "written"
    return Answer(f"{len(data):,} bytes {verb} to {name}", Written(sandbox_id=sandbox.id, path=name, bytes=len(data)))


async def list_files(sandbox: belljar.AsyncSandbox, said: ListFiles) -> Answer:
    """In the order of names. Raises NotFound, Conflict when it is no directory."""
    top = sandbox.path(said.path)
    if said.pattern is not None and not await top.is_dir():
        await top.stat()
        raise Conflict(f"{clean(str(top))} is no directory", hint="list_files takes the directory and a pattern")
    found: list[belljar.AsyncSandboxPath] = []
    walk = top.iterdir() if said.pattern is None else top.glob(said.pattern)
    async for path in walk:
        found.append(path)
        if len(found) > said.limit:
            break
    looks = asyncio.Semaphore(_LOOKS)

    async def look(path: belljar.AsyncSandboxPath) -> Entry | None:
        async with looks:
            try:
                info = await path.stat(follow_symlinks=False)
            except NotFound as error:
                if error.code != "not_found":
                    raise
                return None  # it went between the listing and the look
        return Entry(path=clean(str(path)), kind=info.kind.value, size=info.size, modified=info.mtime)

    looked = await asyncio.gather(*(look(path) for path in found[: said.limit]))
    entries = [entry for entry in looked if entry is not None]
    more = len(found) > said.limit
    return fitted(lambda limit: _listing(sandbox.id, entries, limit, more=more), said.limit, least=1)


def _listing(sandbox_id: str, entries: list[Entry], limit: int, *, more: bool) -> Answer:
    shown = entries[:limit]
    more = more or len(entries) > limit
    lines = [f"{entry.path}{'/' if entry.kind == 'directory' else f'  ({entry.size:,} bytes)'}" for entry in shown]
    if more:
        lines.append("[there are more: a larger limit, a pattern or a directory further down shows them]")
    value = Listing(sandbox_id=sandbox_id, entries=shown, truncated=more)
    return Answer("\n".join(lines) or "[empty]", value)
