"""Which libraries a program wants, read from its ELF headers: binutils are not on every machine."""

import struct
from pathlib import Path

from belljar.model.errors import InvalidArgument

__all__ = ("interpreter_of", "libraries_of")

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB = 1, 5


def libraries_of(path: Path) -> list[str]:
    """Names of the shared libraries it asks for, in its order. Raises InvalidArgument for no 64-bit little-endian ELF."""
    data, segments = _read(path)
    dynamic = next((segment for segment in segments if segment[0] == _PT_DYNAMIC), None)
    if dynamic is None:
        return []
    entries = [struct.unpack_from("<qQ", data, dynamic[1] + at) for at in range(0, dynamic[3], 16)]
    table = next((value for tag, value in entries if tag == _DT_STRTAB), None)
    if table is None:
        return []
    start = _offset(segments, table)
    return [_text(data, start + value) for tag, value in entries if tag == _DT_NEEDED]


def interpreter_of(path: Path) -> str:
    """The loader it names. Raises InvalidArgument for a static program."""
    data, segments = _read(path)
    for kind, offset, _, _ in segments:
        if kind == _PT_INTERP:
            return _text(data, offset)
    raise InvalidArgument(f"{path} is a static program")


def _read(path: Path) -> tuple[bytes, list[tuple[int, int, int, int]]]:
    """The content, and of each segment: kind, offset, address, size in the file."""
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        raise InvalidArgument(f"{path} is no 64-bit little-endian ELF file")
    (start,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    segments: list[tuple[int, int, int, int]] = []
    for number in range(count):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", data, start + number * size)
        segments.append((kind, offset, address, length))
    return data, segments


def _offset(segments: list[tuple[int, int, int, int]], address: int) -> int:
    for kind, offset, base, length in segments:
        if kind == _PT_LOAD and base <= address < base + length:
            return offset + address - base
    raise InvalidArgument("an address of the ELF file lies in none of its segments")


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()
