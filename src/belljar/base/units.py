"""Sizes and durations as people write them."""

import math
import re
from datetime import timedelta
from typing import TypeAlias

__all__ = ("Duration", "Size", "format_duration", "format_size", "parse_duration", "parse_size")

Size: TypeAlias = str | int
Duration: TypeAlias = str | float | int | timedelta

_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
_SIZES = {
    "": 1, "b": 1,
    "k": 1 << 10, "kib": 1 << 10, "kb": 1000,
    "m": 1 << 20, "mib": 1 << 20, "mb": 1000**2,
    "g": 1 << 30, "gib": 1 << 30, "gb": 1000**3,
    "t": 1 << 40, "tib": 1 << 40, "tb": 1000**4,
}  # fmt: skip
_DURATIONS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST = 10 * 365 * 86400.0


def parse_size(value: Size) -> int:
    """Bytes of ``"512MiB"``, ``"1.5GB"``, ``"2g"`` or a number of bytes. Raises ValueError with what is legal."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"a size is text such as '512MiB' or a number of bytes, not {value!r}")
    if isinstance(value, int):
        if value < 0:
            raise ValueError(f"a size cannot be negative: {value}")
        return value
    match = _NUMBER.fullmatch(value)
    unit = match and _SIZES.get(match[2].lower())
    if not match or not unit or len(value) > 32:
        raise ValueError(f"not a size: {value[:40]!r} (say for example 512MiB, 2GiB or a number of bytes)")
    return int(float(match[1]) * unit)


def parse_duration(value: Duration) -> float:
    """Seconds of ``"90s"``, ``"5m"``, ``"1.5h"``, a timedelta or a number of seconds. Raises ValueError."""
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, str):
        match = _NUMBER.fullmatch(value)
        unit = match and _DURATIONS.get(match[2].lower())
        if not match or not unit or len(value) > 32:
            raise ValueError(f"not a duration: {value[:40]!r} (say for example 90s, 5m, 1h or a number of seconds)")
        seconds = float(match[1]) * unit
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"a duration is text such as '5m' or a number of seconds, not {value!r}")
    else:
        seconds = float(value)
    if not math.isfinite(seconds) or not 0 <= seconds <= _LONGEST:
        raise ValueError(f"a duration lies between 0 and 10 years, not {value!r}")
    return seconds


def format_size(size: int) -> str:
    """``1.5 GiB`` for people."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def format_duration(seconds: float) -> str:
    """``2h 5m``, ``3.1s`` or ``12ms`` for people."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes}m" if hours < 48 else f"{hours // 24}d {hours % 24}h"
