"""Which builds of gVisor are fit for use: what `runsc --version` says, and the holes that older ones have."""

import datetime
import re
from dataclasses import dataclass

from belljar.model.errors import NotSupported

__all__ = ("Hole", "check_version", "parse_version", "source_date")


@dataclass(frozen=True, slots=True)
class Hole:
    name: str
    fixed: datetime.date
    what: str


_HOLES = (
    Hole(
        "CVE-2026-96812",
        datetime.date(2026, 8, 17),
        "a device node in an image is opened on the host, which lets its root out",
    ),
    Hole("CVE-2025-2713", datetime.date(2025, 3, 19), "local users read restricted files through runsc"),
    Hole("CVE-2024-10026", datetime.date(2024, 10, 28), "weak hashes give away local addresses and source ports"),
)
_LINE = re.compile(r"runsc version (\S+)")
_DATE = re.compile(r"(?<!\d)(20[1-9]\d)(\d\d)(\d\d)(?:\d{6})?(?!\d)")


def parse_version(said: str) -> str:
    """The version in the output of `runsc --version`. Raises NotSupported if there is none."""
    if (found := _LINE.search(said)) is None:
        raise NotSupported(f"this program does not speak like runsc: {said[:80]!r}")
    return found[1]


def source_date(version: str) -> datetime.date | None:
    """The day of the sources that a version names (release-20260914.0, belljar-20260905035102), if it names one."""
    for year, month, day in _DATE.findall(version):
        try:
            return datetime.date(int(year), int(month), int(day))
        except ValueError:
            continue
    return None


def check_version(version: str) -> str:
    """The version itself. Raises NotSupported, with the reason, for a build with a known hole or of unknown age."""
    date = source_date(version)
    if date is None:
        raise NotSupported(
            f"runsc {version} is refused: its version does not say from which day it is, so known holes cannot be ruled out",
            hint="use a release of gVisor, or leave BELLJAR_RUNSC and BELLJAR_ENGINE_ARCHIVE unset to build the engine",
        )
    # A build of the day of the fix may lack it.
    if open_holes := [hole for hole in _HOLES if date <= hole.fixed]:
        worst = open_holes[0]
        raise NotSupported(
            f"runsc {version} is refused: it is from {date} and has {worst.name}, fixed on {worst.fixed} ({worst.what})",
            hint="use a newer release of gVisor, or leave BELLJAR_RUNSC and BELLJAR_ENGINE_ARCHIVE unset to build the engine",
        )
    return version
