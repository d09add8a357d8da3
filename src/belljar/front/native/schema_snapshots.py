"""What comes in and goes out of snapshots, forks, mounts and templates, as the OpenAPI shows it."""

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from belljar.control.branches import Fork
from belljar.control.changes import KEEP
from belljar.control.snapshots import SnapshotChanges
from belljar.front.native.schema import ErrorOut, In, Out, SandboxOut
from belljar.front.native.text import Duration, Size, Text
from belljar.model.errors import InvalidArgument
from belljar.model.sandbox import DEFAULT_IMAGE, Limits, Network
from belljar.model.snapshot import MAX_FORKS, SnapshotKind, SnapshotSpec
from belljar.model.template import Ready, TemplateSpec

__all__ = (
    "ChangePage",
    "CreateSnapshot",
    "CreateTemplate",
    "ForkResults",
    "ForkSandbox",
    "LineageOut",
    "Mount",
    "MountList",
    "Rollback",
    "SnapshotOut",
    "SnapshotPage",
    "TemplateList",
    "TemplateOut",
    "UpdateSnapshot",
)

Kind = Literal["memory", "filesystem", "directory"]
_Id = Annotated[Text | None, Field(max_length=64, description="Chosen by the caller: `sn`, and 19 letters and digits.")]


class CreateSnapshot(In):
    """Of the files (as an image), with `memory` of all of it, with `path` of one directory.

    A repeated request with the same `id` gives the snapshot that is there. `ttl`: seconds or text such as ``7d``.
    """

    id: _Id = None
    memory: bool = False
    path: Annotated[Text | None, Field(description="An absolute path.")] = None
    name: Annotated[Text | None, Field(description="1 to 63 lower-case letters, digits and inner hyphens")] = None
    labels: Annotated[dict[str, str], Field(default_factory=dict[str, str])]
    ttl: Annotated[Duration | None, Field(examples=["7d"])] = None

    def spec(self) -> SnapshotSpec:
        if self.memory and self.path is not None:
            raise InvalidArgument("a snapshot is one of the memory or of a path, not of both")
        kind = (
            SnapshotKind.MEMORY
            if self.memory
            else SnapshotKind.FILESYSTEM
            if self.path is None
            else SnapshotKind.DIRECTORY
        )
        return SnapshotSpec(kind, self.path, self.name, self.labels, self.ttl)


class UpdateSnapshot(In):
    """What is not named stays. `ttl` counts from now on, null never; a null `name` takes it away; `labels` replace."""

    name: Text | None = None
    labels: dict[str, str] | None = None
    ttl: Duration | None = None

    def changes(self) -> SnapshotChanges:
        given = self.model_fields_set
        return SnapshotChanges(
            self.name if "name" in given else KEEP, self.labels, self.ttl if "ttl" in given else KEEP
        )


class SnapshotOut(Out):
    """Times in seconds since 1970, sizes in bytes. `sandbox`: what it was taken of; `parent`: the snapshot that one came from.

    `stored`: what it takes on the disk now; `paused`: for how many seconds the sandbox stood still.
    """

    id: str
    name: str | None
    kind: Kind
    sandbox: str
    image: str
    parent: str | None
    path: str | None
    size: int
    stored: int
    created: float
    expires: float | None
    labels: dict[str, str]
    cpu: float
    memory: int
    disk: int
    paused: float
    template: bool


class SnapshotPage(Out):
    items: list[SnapshotOut]
    next: str | None


class ChangeOut(Out):
    """`path` is absolute (in a directory snapshot: relative to the directory); bytes that are no UTF-8 are ``\\udcff``."""

    path: str
    change: Literal["added", "modified", "deleted"]
    kind: Literal["file", "directory", "symlink", "other"]
    size: int


class ChangePage(Out):
    items: list[ChangeOut]
    next: str | None


class ForkSandbox(In):
    """`count` children, or one for each of `ids` (``sb``, and 19 letters and digits): the same ids give those that are there.

    With several, ``-1``, ``-2``… is added to `name`. `env` is added to the parent's, `labels` replace them; what is not given is
    as in the parent.
    """

    count: Annotated[int, Field(description=f"At most {MAX_FORKS}")] = 1
    ids: Annotated[list[Annotated[Text, Field(max_length=64)]], Field(max_length=MAX_FORKS, default_factory=list[str])]
    name: Annotated[Text | None, Field(description="1 to 63 lower-case letters, digits and inner hyphens")] = None
    env: Annotated[dict[str, str], Field(default_factory=dict[str, str])]
    labels: dict[str, str] | None = None
    network: Literal["open", "none"] | None = None
    lifetime: Duration | None = None
    cpu: FiniteFloat | None = None
    memory: Size | None = None
    pids: int | None = None
    reseed: Annotated[bool, Field(description="False: the random generators of its code go on as in the parent.")] = (
        True
    )

    def fork(self) -> Fork:
        return Fork(
            count=self.count,
            ids=self.ids,
            name=self.name,
            env=self.env,
            labels=self.labels,
            network=Network(self.network) if self.network else None,
            lifetime=self.lifetime if "lifetime" in self.model_fields_set else KEEP,
            cpus=self.cpu,
            memory=self.memory,
            pids=self.pids,
            reseed=self.reseed,
        )


class ForkResult(Out):
    """Either of the two."""

    sandbox: SandboxOut | None = None
    error: ErrorOut | None = None


class ForkResults(Out):
    items: list[ForkResult]


class Rollback(In):
    snapshot: Annotated[Text, Field(min_length=1, max_length=64, description="Id or name")]


class Mount(In):
    snapshot: Annotated[Text, Field(min_length=1, max_length=64, description="Id or name of a directory snapshot")]
    path: Annotated[Text, Field(min_length=1, examples=["/srv/data"])]


class MountOut(Out):
    path: str
    snapshot: str


class MountList(Out):
    items: list[MountOut]


class ReadyCheck(In):
    """One of: a `port` on loopback takes connections; a `url` answers 2xx or 3xx; the `file` is there; a `process` of this name
    runs; the `command` ends with 0. None of them: the start command has ended with 0. All is looked at from inside.
    """

    port: int | None = None
    url: Text | None = None
    file: Text | None = None
    process: Text | None = None
    command: Text | None = None
    timeout: Duration = 60.0
    interval: Duration = 0.1

    def ready(self) -> Ready:
        return Ready(self.port, self.url, self.file, self.process, self.command, self.timeout, self.interval)


class CreateTemplate(In):
    """A sandbox from `image` (or another template), its `command` for ``/bin/sh -c``, and its memory kept once it is `ready`.

    The same recipe again gives what is there; `replace` makes it anew.
    """

    name: Annotated[Text, Field(description="1 to 63 lower-case letters, digits and inner hyphens", examples=["web"])]
    image: Annotated[Text, Field(max_length=512, examples=["base"])] = DEFAULT_IMAGE
    command: Annotated[str | None, Field(examples=["exec python3 -m http.server 8000"])] = None
    ready: Annotated[ReadyCheck, Field(default_factory=ReadyCheck)]
    cpu: FiniteFloat = 1.0
    memory: Size = 1 << 30
    disk: Size = 10 << 30
    pids: int = 1024
    env: Annotated[dict[str, str], Field(default_factory=dict[str, str])]
    labels: Annotated[dict[str, str], Field(default_factory=dict[str, str])]
    workdir: Text | None = None
    user: Text | None = None
    replace: bool = False

    def spec(self) -> TemplateSpec:
        return TemplateSpec(
            name=self.name,
            image=self.image,
            command=self.command,
            ready=self.ready.ready(),
            limits=Limits(self.cpu, self.memory, self.disk, self.pids),
            env=self.env,
            labels=self.labels,
            workdir=self.workdir,
            user=self.user,
        )


class ReadyOut(Out):
    port: int | None
    url: str | None
    file: str | None
    process: str | None
    command: str | None
    timeout: float
    interval: float


class TemplateOut(Out):
    """`snapshot` is null until it is made the first time. `step`: what is being done now; `output`: the command's last words."""

    name: str
    image: str
    command: str | None
    ready: ReadyOut
    cpu: float
    memory: int
    disk: int
    pids: int
    env: dict[str, str]
    labels: dict[str, str]
    workdir: str | None
    user: str | None
    created: float
    snapshot: str | None
    size: int
    stored: int
    step: str
    output: str


class TemplateList(Out):
    items: list[TemplateOut]


class LineageNode(Out):
    """`type` decides: a snapshot has a kind and sizes, a sandbox a status. `parent`: what it came from, an item before it.

    `ended` and `reason`: when and why it went.
    """

    id: str
    type: Literal["sandbox", "snapshot"]
    parent: str | None
    name: str | None
    kind: Kind | None
    status: str | None
    image: str
    created: float
    ended: float | None
    reason: str | None
    size: int | None
    stored: int | None
    template: bool


class LineageOut(Out):
    """`whole` false: there is more than one answer may hold."""

    items: list[LineageNode]
    whole: bool
