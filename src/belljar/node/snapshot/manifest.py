"""What is written down of a snapshot: all that decides whether and how it can be used."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from belljar.model.sandbox import SandboxSpec
from belljar.model.snapshot import SnapshotKind

__all__ = ("VERSION", "Draft", "FileEntry", "Manifest")

VERSION = 1


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of a snapshot: bytes, and the BLAKE3 of its content in hex."""

    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Draft:
    """A manifest before its files are known.

    `spec` is the source's, as it was. `image_key`: the artifact of the image that the changes are relative to. `build`,
    `runtime`: the engine build and the guest runtime (artifact keys) that a memory snapshot needs; `platform`: gVisor's
    platform and the machine, such as ``systrap/x86_64``; `cpu`: the processor features that its processes may be using.
    `mounts`: names of what was mounted from the host's side. `processors`: how many its source saw; None: as many as its limits
    say, which may be others since they can be changed. `rest`: `sandbox` rests in it, and nobody else is told of it.
    """

    id: str
    kind: SnapshotKind
    created: float
    sandbox: str
    spec: SandboxSpec
    image_key: str
    engine: str
    build: str
    runtime: str
    platform: str
    cpu: tuple[str, ...] = ()
    parent: str | None = None
    path: str | None = None
    paused: float = 0.0
    template: bool = False
    mounts: tuple[str, ...] = ()
    processors: int | None = None
    rest: bool = False


@dataclass(frozen=True, slots=True)
class Manifest:
    """A whole snapshot. `files`: name → size and digest; names are flat (letters, digits, ``.``, ``_``, ``-``)."""

    draft: Draft
    files: Mapping[str, FileEntry] = field(default_factory=dict[str, FileEntry])
    version: int = VERSION

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.files.values())
