"""push: a tar stream unpacked below a folder, and nowhere else."""

from __future__ import annotations

import os
import tarfile

from belljar_agent.api import Refused
from belljar_agent.files.landing import Landing
from belljar_agent.files.make import make_parents
from belljar_agent.files.refusals import printable, refusing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from belljar_agent.api import Answer, Args, Context, Steps

__all__ = ("TreeSink", "push_tree")

_BLOCK = 512
_MAX_EXTENDED = 1 << 20
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_LONG = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
_EXTENDED = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE, *_LONG)


def push_tree(ctx: Context, args: Args) -> TreeSink:
    path = ctx.resolve(args.get("path"))
    owner = ctx.uid_gid(args.get("user"))
    made = not os.path.lexists(path)
    if made:
        make_parents(path, owner)
        with refusing(path):
            os.mkdir(path, 0o777)
            os.chown(path, *owner, follow_symlinks=False)
    return TreeSink(Landing(path, owner, dress_top=made))


class TreeSink:
    """Takes the archive in pieces of any size. Devices and FIFOs are passed over."""

    def __init__(self, landing: Landing) -> None:
        self._landing = landing
        self._taken = 0
        self._entries = 0
        self._block = bytearray()
        self._wanted = _BLOCK
        self._then: Callable[[bytes], None] = self._header
        self._left = 0
        self._padding = 0
        self._over = False
        self._extended: dict[str, str] = {}
        self._for_all: dict[str, str] = {}

    @property
    def offset(self) -> int:
        return self._taken

    def write(self, data: memoryview) -> None:
        self._taken += len(data)
        while data and not self._over:
            if self._left:
                piece = data[: self._left]
                self._landing.write(piece)
                self._left -= len(piece)
                if not self._left:
                    self._landing.end_file()
            elif self._padding:
                piece = data[: self._padding]
                self._padding -= len(piece)
            else:
                piece = data[: self._wanted - len(self._block)]
                self._block += piece
                if len(self._block) == self._wanted:
                    block, self._block = bytes(self._block), bytearray()
                    self._then(block)
            data = data[len(piece) :]

    def finish(self) -> Answer | Steps:
        if self._left or self._block or self._then != self._header:
            self.abort()
            raise Refused("invalid_argument", "the archive ends in the middle of an entry")
        return self._finish()

    def abort(self) -> None:
        self._landing.close()

    def _finish(self) -> Steps:
        try:
            yield from self._landing.finish()
        finally:
            self._landing.close()
        return {"entries": self._entries}

    def _header(self, block: bytes) -> None:
        if not any(block):
            self._over = True  # the end; what follows is filling
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            raise Refused("invalid_argument", f"this is no tar archive: {error}") from None
        if info.type in _EXTENDED:
            if not 0 < info.size <= _MAX_EXTENDED:
                raise Refused("invalid_argument", "an extended header of the archive is too large")
            self._wanted = info.size + -info.size % _BLOCK
            self._then = lambda content: self._extend(info.type, content[: info.size])
            return
        self._apply_extended(info)
        self._entry(info)

    def _extend(self, kind: bytes, content: bytes) -> None:
        self._wanted, self._then = _BLOCK, self._header
        if kind in _LONG:
            self._extended[_LONG[kind]] = content.rstrip(b"\0").decode("utf-8", "surrogateescape")
            return
        found = self._for_all if kind == tarfile.XGLTYPE else self._extended
        for key, value in _records(content):
            if key.startswith("GNU.sparse."):
                raise Refused("not_supported", "sparse entries of an archive cannot be unpacked")
            found[key] = value

    def _apply_extended(self, info: tarfile.TarInfo) -> None:
        fields = self._for_all | self._extended
        self._extended = {}
        info.name = fields.get("path", info.name)
        info.linkname = fields.get("linkpath", info.linkname)
        try:
            info.uid, info.gid = int(fields.get("uid", info.uid)), int(fields.get("gid", info.gid))
            info.size = int(fields.get("size", info.size))
            info.mtime = float(fields.get("mtime", info.mtime))
        except ValueError:
            raise Refused("invalid_argument", "an extended header of the archive has a wrong number") from None

    def _entry(self, info: tarfile.TarInfo) -> None:
        if info.type == tarfile.GNUTYPE_SPARSE:
            raise Refused("not_supported", "sparse entries of an archive cannot be unpacked")
        has_data = info.type in _FILES or info.type not in tarfile.SUPPORTED_TYPES
        if not 0 <= info.size < 1 << 50:
            raise Refused("invalid_argument", f"{printable(info.name)} has an impossible size")
        self._left = info.size if has_data else 0
        self._padding = -self._left % _BLOCK
        self._landing.belong_to(info.uid, info.gid)
        if info.type in _FILES:
            self._landing.begin_file(info.name, info.mode, info.mtime)
            if not self._left:
                self._landing.end_file()
        elif info.type == tarfile.DIRTYPE:
            self._landing.folder(info.name, info.mode, info.mtime)
        elif info.type == tarfile.SYMTYPE:
            self._landing.symbolic_link(info.name, info.linkname)
        elif info.type == tarfile.LNKTYPE:
            self._landing.hard_link(info.name, info.linkname)
        else:
            return
        self._entries += 1


def _records(content: bytes) -> Generator[tuple[str, str]]:
    """The records ``length key=value\\n`` of an extended header."""
    at = 0
    while at < len(content) and content[at]:
        digits, space, _ = content[at : at + 20].partition(b" ")
        if not space or not digits.isdigit() or int(digits) < len(digits) + 4 or at + int(digits) > len(content):
            raise Refused("invalid_argument", "an extended header of the archive is damaged")
        record = content[at + len(digits) + 1 : at + int(digits) - 1]
        key, _, value = record.partition(b"=")
        yield key.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")
        at += int(digits)
