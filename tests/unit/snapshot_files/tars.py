"""Tars as a guest's kernel writes them, and as nobody should."""

import struct
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ("TOP", "Member", "joined", "tree_of")


@dataclass(frozen=True)
class Member:
    name: str
    data: bytes = b""
    kind: bytes = tarfile.REGTYPE
    link: str = ""
    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)
    attributes: dict[str, str] = field(default_factory=dict[str, str])

    def header(self, size: int) -> bytes:
        info = tarfile.TarInfo(self.name)
        info.type, info.size, info.linkname, info.mode = self.kind, size, self.link, self.mode
        info.uid, info.gid = self.owner
        info.pax_headers = {f"SCHILY.xattr.{name}": value for name, value in self.attributes.items()}
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


TOP = Member("./", kind=tarfile.DIRTYPE, mode=0o755)


def joined(members: Iterable[Member]) -> bytes:
    whole = b"".join(member.header(len(member.data)) + _padded(member.data) for member in members)
    return whole + bytes(1024)


def tree_of(members: Iterable[tuple[Member, int, list[tuple[int, int, int]]]]) -> bytes:
    """The kernel's form: of files their length, and their places as (start, end, place)."""
    whole = b""
    for member, length, places in members:
        if member.kind != tarfile.REGTYPE:
            whole += member.header(0)
            continue
        content = struct.pack("<Q", length) + b"".join(struct.pack("<QQQ", *place) for place in places)
        whole += member.header(len(content)) + _padded(content)
    return whole + bytes(1024)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)
