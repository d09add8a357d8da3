"""What a backup is made of, on its way from the node to the archive."""

from dataclasses import dataclass
from typing import TypeAlias

__all__ = ("BackupFile", "BackupPiece", "BackupSize", "LeftOut")


@dataclass(frozen=True, slots=True)
class BackupFile:
    """A file begins: exactly `size` bytes of it follow. `name`: relative to the state directory."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The content of a snapshot that is not in the backup, or not all of it, and why."""

    snapshot: str
    reason: str


@dataclass(frozen=True, slots=True)
class BackupSize:
    """At most so many files and bytes."""

    files: int
    bytes: int


BackupPiece: TypeAlias = BackupFile | LeftOut | bytes
