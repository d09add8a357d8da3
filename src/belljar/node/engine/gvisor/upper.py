"""The upper layer of a guest's root as a plain tar: what changed on its image.

gVisor can write such a tar itself, but takes each file into its own memory as a whole, holes and all, and dies of one that is
bigger than the guest's limit. So it is asked for the tree alone (its checkpoint of a file system: a tar whose files hold places
in the file that keeps all contents), and the contents are copied here, while the guest stands still.
"""

import errno
import os
import struct
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

from belljar.model.errors import EngineFailed, TooLarge
from belljar.node.engine.gvisor.copying import copy_part
from belljar.node.engine.process import HostProcess

__all__ = ("open_contents", "write_upper")

_BLOCK: Final = 512
_NOTHING: Final = bytes(_BLOCK)
_OURS: Final = b"./.belljar/"
"""What the agent keeps there is another in each sandbox: the boot id, trees that are mounted."""
_FILES: Final = (b"0", b"\0")
_EXTENSIONS: Final = (b"x", b"g", b"L", b"K")
_LONGEST_EXTENSION: Final = 1 << 20
_GATHERED: Final = 1 << 20
_SMALL: Final = 64 << 10
"""Bytes: a shorter piece is read and gathered with others, a longer one is copied by the kernel."""
_HOLE: Final = 4096
_PIECE: Final = 64 << 20


def open_contents(process: HostProcess, overlay: Path) -> int:
    """Opens, to read, the unlinked file in `overlay` where a kernel process keeps what its guest wrote.

    Raises OSError when there is none.
    """
    # The process may have left the mount it opened it through: then the link begins at that mount's root.
    mark = f"/{overlay.parent.name}/{overlay.name}/"
    for entry in Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            found = mark in str(entry.readlink())
        except FileNotFoundError:
            continue
        if found:
            return os.open(entry, os.O_RDONLY | os.O_CLOEXEC)
    raise FileNotFoundError(errno.ENOENT, "the kernel has no such file", str(overlay))


def write_upper(tree: BinaryIO, contents: int, target: int, limit: int, go_on: Callable[[], bool]) -> None:
    """Fills the tree with the contents. `limit`: bytes that `target` may get, its holes counted as bytes.

    Gives up with InterruptedError once `go_on` says so. Raises TooLarge, EngineFailed for a tree that is none, OSError.
    """
    _Conversion(tree, contents, _Writer(contents, target, go_on), limit).run()


class _Conversion:
    """The tree was written by the guest's kernel: what an attacker inside would own first."""

    def __init__(self, tree: BinaryIO, contents: int, writer: "_Writer", limit: int) -> None:
        self._tree = tree
        self._end = os.fstat(contents).st_size
        self._writer = writer
        self._limit = limit
        self._extensions = bytearray()
        self._deleted: set[bytes] = set()
        self._ours = False

    def run(self) -> None:
        while (block := self._read(_BLOCK)) != _NOTHING:
            kind = block[156:157]
            size = _number(block[124:136])
            if kind in _EXTENSIONS:
                if size > _LONGEST_EXTENSION:
                    raise EngineFailed("the kernel wrote an impossible name")
                self._extensions += block
                self._extensions += self._read(size + -size % _BLOCK)
                continue
            self._ours = block.startswith(_OURS) or (block[345:357] + b"/").startswith(_OURS)
            if kind in _FILES:
                self._file(block, size)
            elif size:
                raise EngineFailed("the kernel wrote contents where none can be")
            elif kind in (b"1", b"3"):
                self._link_or_device(block, kind)
            else:
                self._header(block)
        self._writer.put(bytes(2 * _BLOCK))
        self._writer.flush()

    def _file(self, block: bytes, size: int) -> None:
        if size < 8 or (size - 8) % 24:
            raise EngineFailed("the kernel wrote a file without places")
        places = self._read(size + -size % _BLOCK)[:size]
        if self._ours:
            self._extensions.clear()
            return
        length = int.from_bytes(places[:8], "little")
        if length > self._limit - self._writer.size:
            raise TooLarge(
                f"{self._name(block)} has {length} bytes, and there is room for {max(0, self._limit - self._writer.size)}",
                hint="holes in files count as bytes: a filesystem snapshot has none",
            )
        self._header(_resized(block, length))
        at = 0
        for start, end, place in struct.iter_unpack("<QQQ", places[8:]):
            if not at <= start < end or place + end - start > self._end:
                raise EngineFailed("the kernel wrote impossible places of a file")
            if start >= length:
                break  # what was allocated ahead of the end
            self._writer.skip(start - at)
            at = min(end, length)
            self._writer.copy(place, at - start)
        self._writer.skip(length - at + -length % _BLOCK)

    def _link_or_device(self, block: bytes, kind: bytes) -> None:
        """All deletions share one node, so the tree has them as links to the first: each becomes a node of its own."""
        if kind == b"3":
            if not _number(block[329:337]) and not _number(block[337:345]):
                self._deleted.add(self._info(block).name.encode("utf-8", "surrogateescape"))
            self._header(block)
            return
        info = self._info(block)
        if info.linkname.encode("utf-8", "surrogateescape") in self._deleted:
            self._extensions.clear()
            node = tarfile.TarInfo(info.name)
            node.type, node.mode, node.mtime = tarfile.CHRTYPE, 0, info.mtime
            self._header(node.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        elif not info.linkname.encode("utf-8", "surrogateescape").startswith(_OURS):
            self._header(block)
        else:
            self._extensions.clear()

    def _header(self, block: bytes) -> None:
        if self._ours:
            self._extensions.clear()
            return
        if self._limit - self._writer.size < len(self._extensions) + 8 * _BLOCK:
            raise TooLarge(f"there is room for {self._limit} bytes, and more has changed")
        if self._extensions:
            self._writer.put(self._extensions)
            self._extensions.clear()
        self._writer.put(block)

    def _info(self, block: bytes) -> tarfile.TarInfo:
        try:
            if not self._extensions:
                return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            whole = BytesIO(bytes(self._extensions) + block + bytes(2 * _BLOCK))
            with tarfile.open(fileobj=whole, encoding="utf-8", errors="surrogateescape") as archive:
                found = archive.next()
        except (tarfile.TarError, ValueError) as error:
            raise EngineFailed(f"the kernel wrote an impossible entry: {error}") from error
        if found is None:
            raise EngineFailed("the kernel wrote an impossible entry")
        return found

    def _name(self, block: bytes) -> str:
        name = self._info(block).name.removeprefix(".")
        shown = "".join(char if char.isprintable() else "?" for char in name)
        return shown if len(shown) <= 200 else f"{shown[:100]}…{shown[-100:]}"

    def _read(self, size: int) -> bytes:
        data = self._tree.read(size)
        if len(data) != size:
            raise EngineFailed("the kernel's list of files ends in the middle")
        return data


class _Writer:
    """Gathers small pieces; leaves holes where there is nothing."""

    def __init__(self, contents: int, target: int, go_on: Callable[[], bool]) -> None:
        self._contents = contents
        self._target = target
        self._go_on = go_on
        self._buffer = bytearray()
        self.size = 0

    def put(self, data: bytes | bytearray) -> None:
        self._buffer += data
        self.size += len(data)
        if len(self._buffer) >= _GATHERED:
            self.flush()

    def skip(self, size: int) -> None:
        if size < _HOLE:
            self.put(bytes(size))
            return
        self.flush()
        os.lseek(self._target, size, os.SEEK_CUR)
        self.size += size

    def copy(self, place: int, size: int) -> None:
        if size < _SMALL:
            data = os.pread(self._contents, size, place)
            if len(data) != size:
                raise EngineFailed("the kernel's file became shorter")
            self.put(data)
            return
        self.flush()
        self.size += size
        while size:
            self._check()
            moved = copy_part(self._contents, place, self._target, min(size, _PIECE))
            if not moved:
                raise EngineFailed("the kernel's file became shorter")
            place, size = place + moved, size - moved

    def flush(self) -> None:
        self._check()
        rest = memoryview(self._buffer)
        while rest:
            rest = rest[os.write(self._target, rest) :]
        self._buffer = bytearray()

    def _check(self) -> None:
        if not self._go_on():
            raise InterruptedError


def _number(field: bytes) -> int:
    if field[:1] in (b"\x80", b"\xff"):
        return int.from_bytes(field[1:], "big") if field[0] == 0x80 else -1
    digits = field.strip(b" \0")
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        raise EngineFailed("the kernel wrote an impossible number") from None


def _resized(block: bytes, size: int) -> bytes:
    field = b"%011o\0" % size if size < 1 << 33 else b"\x80" + size.to_bytes(11, "big")
    block = block[:124] + field + block[136:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]
