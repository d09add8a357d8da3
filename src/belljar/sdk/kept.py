"""What the SDK hands out of snapshots, templates, keys and workspaces: plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from belljar.base.units import Duration, Size
from belljar.model.snapshot import SnapshotKind

__all__ = ("KeyInfo", "LineageNode", "Quota", "Ready", "SnapshotInfo", "TemplateInfo", "WorkspaceInfo")


@dataclass(frozen=True, slots=True)
class Quota:
    """Bounds of a workspace or of one key; None is no bound but the machine's.

    Of live sandboxes: how many `sandboxes`, `cpus` cores, `memory` and `disk` (bytes, or text such as ``"64GiB"``; as they were
    asked for). `creates` (sandboxes) and `requests` are per second, on average.
    """

    sandboxes: int | None = None
    cpus: float | None = None
    memory: Size | None = None
    disk: Size | None = None
    creates: float | None = None
    requests: float | None = None


@dataclass(frozen=True, slots=True)
class WorkspaceInfo:
    """Times in seconds since 1970. `use`: what its live sandboxes hold, by the names of `Quota`; sizes in bytes."""

    id: str
    created: float
    ended: float | None
    quota: Quota
    use: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """Times in seconds since 1970. `used`: when the server saw it last, to the minute."""

    id: str
    name: str
    scope: str
    created: float
    expires: float | None
    used: float | None
    revoked: float | None
    workspace: str
    quota: Quota


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """Times in seconds since 1970, sizes in bytes. `sandbox`: what it was taken of, `parent`: the snapshot that one came from.

    `size`: of its files; `stored`: what it takes on the disk now; `paused`: seconds for which the sandbox stood still.
    `template`: a template is made of it.
    """

    id: str
    name: str | None
    kind: SnapshotKind
    sandbox: str
    image: str
    parent: str | None
    path: str | None
    size: int
    stored: int
    created: float
    expires: float | None
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    cpu: float = 0.0
    memory: int = 0
    disk: int = 0
    paused: float = 0.0
    template: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """When a template is ready: one thing, looked at from inside the sandbox.

    `port`: something listens there on loopback. `url`: an address on loopback answers 2xx or 3xx. `file`: the path is there.
    `process`: one of this name runs. `command`: ends with 0 in ``/bin/sh -c``. Without any of them: the template's own command
    has ended with 0. `timeout`: how long it may take, `interval`: how often it is looked at; seconds or ``"90s"``.

    >>> belljar.Ready(port=8000, timeout="2m")
    Ready(port=8000, url=None, file=None, process=None, command=None, timeout='2m', interval=0.1)
    """

    port: int | None = None
    url: str | None = None
    file: str | None = None
    process: str | None = None
    command: str | None = None
    timeout: Duration = 60.0
    interval: Duration = 0.1


@dataclass(frozen=True, slots=True)
class TemplateInfo:
    """`snapshot`: what sandboxes go on from, None until it is made for the first time. Sizes in bytes, as of the snapshot.

    `step`: what is being done now, and `output`: the last words of its command; both empty once it is made.
    """

    name: str
    image: str
    command: str | None
    ready: Ready
    cpu: float
    memory: int
    disk: int
    pids: int
    created: float
    snapshot: str | None
    size: int
    stored: int
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    workdir: str | None = None
    user: str | None = None
    step: str = ""
    output: str = ""


@dataclass(frozen=True, slots=True)
class LineageNode:
    """A sandbox or a snapshot, and what came of it, the oldest first.

    `type` is ``"sandbox"`` (which has a `status`) or ``"snapshot"`` (which has a `kind`, `size` and `stored` in bytes).
    `ended` and `reason`: when and why it went; it stays in the tree because of what came from it.
    """

    id: str
    type: str
    name: str | None
    kind: SnapshotKind | None
    status: str | None
    image: str
    created: float
    ended: float | None
    reason: str | None
    size: int | None
    stored: int | None
    template: bool
    children: "tuple[LineageNode, ...]" = ()
