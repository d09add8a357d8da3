# Made by scripts/make_sync.py from _async/files.py: do not edit.
"""Bytes into and out of a sandbox's files: parts that are taken once, reads that go on where they broke off."""

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

from belljar.model.errors import Conflict, NotFound
from belljar.model.file import FileInfo, FileKind
from belljar.sdk._sync import flow
from belljar.sdk._sync.link import Link, Lost
from belljar.sdk.answers import file_of
from belljar.sdk.asking import new_key, url
from belljar.sdk.packing import pack, tree_size
from belljar.sdk.patience import Patience
from belljar.sdk.unpacking import unpack
from belljar.sdk.values import Progress

__all__ = ("Files",)
PART = 16 << 20
_PART_SECONDS = 120.0


class Files:
    """The files of one sandbox (later: of a volume), by their paths as text."""

    def __init__(self, link: Link, base: tuple[str, ...]) -> None:
        self.link = link
        self._base = base

    def url(self, *words: str, **query: Any) -> str:
        return url(*self._base, "files", *words, **query)

    def ask(self, verb: str, **body: Any) -> None:
        """One of the changes that have no content. Repeated after a lost answer it may find its own work done."""
        settled = {"mkdir": (Conflict,), "symlink": (Conflict,), "hardlink": (Conflict,), "touch": (Conflict,)}
        said = {key: value for key, value in body.items() if value is not None}
        self.link.call("POST", self.url(verb), json=said, settled=settled.get(verb, (NotFound,)))

    def stat(self, path: str, *, follow: bool = True) -> FileInfo:
        return file_of(self.link.call("GET", self.url("stat", path=path, follow=follow)))

    def pages(self, verb: str, **query: Any) -> Iterator[FileInfo]:
        cursor: str | None = None
        while True:
            page = self.link.call("GET", self.url(verb, cursor=cursor, **query))
            for item in page["items"]:
                yield file_of(item)
            cursor = page.get("next")
            if cursor is None:
                return

    def read(self, path: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Chunks; across a lost connection each byte comes once."""
        patience = Patience()
        at = offset
        end = None if length is None else offset + length
        while end is None or at < end:
            body = None
            try:
                left = None if end is None else end - at
                body = self.link.open("GET", self.url("content", path=path, offset=at, length=left))
                while chunk := body.read():
                    at += len(chunk)
                    patience.reset()
                    yield chunk
                return
            except Lost as lost:
                self.link.recover(patience, lost)
            finally:
                if body is not None:
                    body.close()

    def write(
        self,
        path: str,
        source: BinaryIO | bytes,
        *,
        size: int,
        mode: int | None = None,
        user: str | None = None,
        parents: bool = True,
        append: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Writes the file whole: it appears with its last part. `source` is read in parts of 16 MiB."""
        upload = new_key()
        options: dict[str, Any] = {
            "path": path,
            "upload": upload,
            "user": user,
            "parents": parents,
            "append": append or None,
        }
        if mode is not None:
            options["mode"] = mode
        offset = 0
        while True:
            part = _part(source, offset)
            last = offset + len(part) >= size or len(part) < PART
            self._give(options, part, offset, last=last)
            offset += len(part)
            if progress is not None:
                flow.call(progress, offset, size)
            if last:
                return

    def _give(self, options: dict[str, Any], part: bytes, offset: int, *, last: bool) -> None:
        """One part. After a break it goes on behind the bytes that were taken."""
        taken = offset
        patience = Patience()
        while True:
            where = self.url("content", offset=taken, last=last, **options)
            try:
                self.link.call("PUT", where, content=part[taken - offset :], timeout=_PART_SECONDS, retry=False)
                return
            except Lost as lost:
                self.link.recover(patience, lost)
            answer = self.link.call("GET", self.url("uploads", options["upload"]))
            taken = min(max(int(answer["offset"]), offset), offset + len(part))

    def upload(self, local: Path, remote: str, *, user: str | None = None, progress: Progress | None = None) -> None:
        """A file becomes the file `remote` (or one inside of it, if that is a folder or ends with a slash); a folder's content
        goes into the folder `remote`."""
        if flow.in_thread(local.is_dir):
            self._upload_tree(local, remote, user=user, progress=progress)
            return
        if remote.endswith("/") or self._is_folder(remote):
            remote = f"{remote.rstrip('/')}/{local.name}"
        with flow.in_thread(_opened, local, "rb") as file:
            status = os.fstat(file.fileno())
            mode = stat.S_IMODE(status.st_mode)
            self.write(remote, file, size=status.st_size, mode=mode, user=user, progress=progress)

    def _is_folder(self, path: str) -> bool:
        try:
            return self.stat(path).kind == FileKind.DIRECTORY
        except NotFound:
            return False

    def _upload_tree(self, local: Path, remote: str, *, user: str | None, progress: Progress | None) -> None:
        total = flow.in_thread(tree_size, local) if progress is not None else None
        patience = Patience()
        while True:
            body = None
            try:
                chunks = _counted(flow.in_threads(pack(local)), total, progress)
                body = self.link.open(
                    "PUT", self.url("tree", path=remote, user=user), content=chunks, timeout=_PART_SECONDS
                )
                while body.read():
                    pass
                return
            except Lost as lost:
                self.link.recover(patience, lost)
            finally:
                if body is not None:
                    body.close()

    def download(
        self, remote: str, local: Path, *, skip_unsafe: bool = False, progress: Progress | None = None
    ) -> None:
        """As `upload`, the other way round. A file appears whole."""
        info = self.stat(remote)
        if info.kind == FileKind.DIRECTORY:
            self._download_tree(remote, local, skip_unsafe=skip_unsafe, progress=progress)
            return
        if flow.in_thread(local.is_dir):
            local = local / _safe_name(info)
        self._download_file(remote, info, local, progress)

    def _download_file(self, remote: str, info: FileInfo, local: Path, progress: Progress | None) -> None:
        flow.in_thread(partial(local.parent.mkdir, parents=True, exist_ok=True))
        temporary = local.with_name(f".{local.name[:100]}.{secrets.token_hex(4)}.part")
        done = 0
        try:
            with flow.in_thread(_opened, temporary, "xb") as file:
                for chunk in self.read(remote):
                    flow.in_thread(file.write, chunk)
                    done += len(chunk)
                    if progress is not None:
                        flow.call(progress, done, info.size)
                os.fchmod(file.fileno(), info.mode & 511)
            temporary.replace(local)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()

    def _download_tree(self, remote: str, local: Path, *, skip_unsafe: bool, progress: Progress | None) -> None:
        report = None if progress is None else partial(_report, progress)
        work = partial(unpack, target=local, skip_unsafe=skip_unsafe, progress=report)
        patience = Patience()
        while True:
            body = None
            try:
                body = self.link.open("GET", self.url("tree", path=remote))
                flow.consume(_chunks(body), work)
                return
            except Lost as lost:
                self.link.recover(patience, lost)
            finally:
                if body is not None:
                    body.close()


def _opened(path: Path, mode: Literal["rb", "xb"]) -> BinaryIO:
    return open(path, mode)


def _part(source: BinaryIO | bytes, offset: int) -> bytes:
    if isinstance(source, bytes):
        return source[offset : offset + PART] if len(source) > PART else source
    return flow.in_thread(source.read, PART)


def _chunks(body: Any) -> Iterator[bytes]:
    while chunk := body.read():
        yield chunk


def _counted(chunks: Iterator[bytes], total: int | None, progress: Progress | None) -> Iterator[bytes]:
    done = 0
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        if progress is not None:
            flow.call(progress, min(done, total or done), total)


def _report(progress: Progress, done: int) -> None:
    progress(done, None)


def _safe_name(info: FileInfo) -> str:
    """The last word of a remote path as the name of a local file."""
    name = info.name
    return name if name not in ("", ".", "..", "/") and "\x00" not in name else "download"
