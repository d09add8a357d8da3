# Made by scripts/make_sync.py from _async/snapshot.py: do not edit.
"""The snapshot, as its owner holds it."""

import builtins
import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Self, Unpack

from belljar.base.ids import new_id
from belljar.base.units import Duration
from belljar.model.errors import InvalidArgument, NotFound
from belljar.model.snapshot import MAX_FORKS, PathChange, SnapshotKind
from belljar.sdk._sync import flow
from belljar.sdk._sync.link import Link, Lost, shared_link
from belljar.sdk.answers import path_change_of, snapshot_of, trees_of
from belljar.sdk.asking import KEEP, SandboxOptions, duration_of, url
from belljar.sdk.kept import LineageNode, SnapshotInfo
from belljar.sdk.patience import Patience
from belljar.sdk.pure import path_text
from belljar.sdk.values import Progress

if TYPE_CHECKING:
    from belljar.sdk._sync.sandbox import Sandbox
__all__ = ("Snapshot", "lineages")
_PAGE = 100
_CHANGES = 1000
_PART = 1 << 20
_SECONDS = 600.0


class Snapshot:
    """A moment of a sandbox that was kept. Take one with `Sandbox.snapshot`, find one with `get` and `list`.

    >>> snapshot = sandbox.snapshot("clean", memory=True, ttl="7d")
    >>> with snapshot.create() as twin:
    ...     print(twin.run("hostname").stdout)
    """

    def __init__(self, link: Link, info: SnapshotInfo) -> None:
        """Not for users."""
        self._link = link
        self._info = info

    @classmethod
    def get(cls, id_or_name: str) -> Self:
        """Raises NotFound, with the reason for one that was deleted or has expired."""
        link = shared_link()
        return cls(link, snapshot_of(link.call("GET", url("snapshots", path_text(id_or_name)))))

    @classmethod
    def list(
        cls,
        *,
        kind: str | SnapshotKind | None = None,
        sandbox: str | None = None,
        labels: Mapping[str, str] | None = None,
        image: str | None = None,
        limit: int | None = None,
    ) -> Iterator[Self]:
        """Snapshots, newest first. `sandbox`: the id of what they were taken of.

        >>> [snapshot.name for snapshot in Snapshot.list(kind="memory")]
        ['clean']
        """
        link = shared_link()
        wanted = {
            "kind": str(kind) if kind is not None else None,
            "sandbox": sandbox,
            "label": [f"{key}={value}" for key, value in (labels or {}).items()],
            "image": image,
        }
        left, cursor = (limit, None)
        while left is None or left > 0:
            size = _PAGE if left is None else min(left, _PAGE)
            page = link.call("GET", url("snapshots", limit=size, cursor=cursor, **wanted))
            for item in page["items"]:
                yield cls(link, snapshot_of(item))
            left = None if left is None else left - len(page["items"])
            cursor = page.get("next")
            if cursor is None:
                return

    @classmethod
    def load(
        cls,
        file: str | os.PathLike[str],
        name: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        ttl: Duration | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Brings in what `export` wrote, here or on another machine. `progress(done, total)` in bytes.

        Raises SnapshotCorrupt (torn, or no snapshot), SnapshotIncompatible (made for another machine), AlreadyExists (the name),
        DiskFull; then nothing of it is kept.
        """
        link = shared_link()
        local, id, patience = (Path(file), new_id("sn"), Patience())
        said = [f"{key}={value}" for key, value in (labels or {}).items()]
        where = url("snapshots", "import", id=id, name=name, label=said, ttl=duration_of(ttl))
        while True:
            body = None
            try:
                with flow.in_thread(_opened, local, "rb") as source:
                    chunks = _counted(source, os.fstat(source.fileno()).st_size, progress)
                    body = link.open("POST", where, content=chunks, timeout=_SECONDS)
                    while body.read():
                        pass
                return cls.get(id)
            except Lost as lost:
                link.recover(patience, lost)
            finally:
                if body is not None:
                    body.close()

    @classmethod
    def lineages(cls, ref: str | None = None) -> Sequence[LineageNode]:
        """Where all that there is now came from: each tree begins with a sandbox that was made from an image.

        `ref`: the tree with the sandbox or snapshot of this id or name alone. Raises NotFound.
        """
        return lineages(shared_link(), ref)

    @property
    def id(self) -> str:
        return self._info.id

    @property
    def name(self) -> str | None:
        return self._info.name

    @property
    def kind(self) -> SnapshotKind:
        """``"memory"``, ``"filesystem"`` or ``"directory"``."""
        return self._info.kind

    @property
    def sandbox(self) -> str:
        """The id of the sandbox it was taken of."""
        return self._info.sandbox

    @property
    def image(self) -> str:
        return self._info.image

    @property
    def parent(self) -> str | None:
        """The id of the snapshot that its sandbox came from, or had last gone back to."""
        return self._info.parent

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return self._info.size

    @property
    def created(self) -> float:
        """Seconds since 1970."""
        return self._info.created

    @property
    def expires(self) -> float | None:
        """Seconds since 1970; None: never."""
        return self._info.expires

    @property
    def labels(self) -> Mapping[str, str]:
        return self._info.labels

    @property
    def last_info(self) -> SnapshotInfo:
        """All of it, as last seen."""
        return self._info

    def info(self) -> SnapshotInfo:
        """All that the server knows of it now. Raises NotFound."""
        self._info = snapshot_of(self._link.call("GET", self._url()))
        return self._info

    def update(
        self, *, name: str | None = KEEP, labels: Mapping[str, str] | None = None, ttl: Duration | None = KEEP
    ) -> SnapshotInfo:
        """Renames it (None: no name), replaces the labels, or has it expire after `ttl` from now on (None: never)."""
        body: dict[str, Any] = {}
        if name is not KEEP:
            body["name"] = name
        if labels is not None:
            body["labels"] = dict(labels)
        if ttl is not KEEP:
            body["ttl"] = duration_of(ttl)
        self._info = snapshot_of(self._link.call("PATCH", self._url(), json=body))
        return self._info

    def diff(self) -> Iterator[PathChange]:
        """What its sandbox had changed on the image, in the order of paths; of a directory all that it holds.

        Raises NotSupported (a memory snapshot), SnapshotCorrupt.

        >>> [change.path for change in snapshot.diff() if change.change == "deleted"]
        ['/root/old.txt']
        """
        cursor = None
        while True:
            page = self._link.call("GET", self._url("diff", limit=_CHANGES, cursor=cursor), timeout=_SECONDS)
            for item in page["items"]:
                yield path_change_of(item)
            cursor = page.get("next")
            if cursor is None:
                return

    def lineage(self) -> LineageNode:
        """The tree of all that has one origin with it."""
        return lineages(self._link, self.id)[0]

    def create(self, **options: Unpack[SandboxOptions]) -> "Sandbox":
        """A new sandbox that goes on from here; options as of `Sandbox.create`, the snapshot's own where none is given.

        Raises NotFound (it has gone), InvalidArgument (a directory: mount it), SnapshotIncompatible, SnapshotCorrupt.
        """
        from belljar.sdk._sync.sandbox import Sandbox

        return Sandbox.create(self, **options)

    def fork(
        self, n: int = 1, *, return_exceptions: bool = False, **options: Unpack[SandboxOptions]
    ) -> "builtins.list[Sandbox]":
        """`n` new sandboxes that go on from here, made at the same time; with several ``-1``, ``-2``… is added to a name.

        With `return_exceptions` what failed stands in the list as an exception; without it the others are ended and an
        ExceptionGroup is raised.
        """
        if not 1 <= n <= MAX_FORKS:
            raise InvalidArgument(f"a fork makes between 1 and {MAX_FORKS} sandboxes at once, not {n}")
        name = options.get("name")
        wanted: list[SandboxOptions] = [{**options} for _ in range(n)]
        for number, one in enumerate(wanted, 1):
            if name is not None and n > 1:
                one["name"] = f"{name}-{number}"
            if key := options.get("idempotency_key"):
                one["idempotency_key"] = f"{key}-{number}"
        made: list[Any] = flow.outcomes([partial(self.create, **one) for one in wanted])
        failures = [one for one in made if isinstance(one, BaseException)]
        if failures and (not return_exceptions):
            flow.outcomes([one.terminate for one in made if not isinstance(one, BaseException)])
            raise BaseExceptionGroup(f"{len(failures)} of {n} sandboxes from {self.id} failed", failures)
        return made

    def export(self, file: str | os.PathLike[str], *, progress: Progress | None = None) -> None:
        """Writes all of it into one file, which appears whole. `progress(done, total)` in bytes.

        Another machine needs beside it the same engine build, guest runtime and image. Raises SnapshotCorrupt.
        """
        local = Path(file)
        temporary = local.with_name(f".{local.name[:100]}.{secrets.token_hex(4)}.part")
        try:
            with flow.in_thread(_opened, temporary, "xb") as target:
                self._fetch(target, progress)
            flow.in_thread(temporary.replace, local)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()

    def _fetch(self, target: BinaryIO, progress: Progress | None) -> None:
        patience = Patience()
        while True:
            body = None
            done = 0
            try:
                body = self._link.open("GET", self._url("export"))
                while chunk := body.read():
                    flow.in_thread(target.write, chunk)
                    done += len(chunk)
                    if progress is not None:
                        flow.call(progress, done, None)
                return
            except Lost as lost:
                self._link.recover(patience, lost)
                flow.in_thread(target.seek, 0)
                flow.in_thread(target.truncate)
            finally:
                if body is not None:
                    body.close()

    def delete(self) -> None:
        """What was made from it goes on. Idempotent. Raises Conflict (a template is made of it)."""
        self._link.call("DELETE", self._url(), timeout=_SECONDS)

    def __repr__(self) -> str:
        named = f" name={self.name!r}" if self.name else ""
        return f"<{type(self).__name__} {self.id}{named} {self.kind}>"

    def _url(self, *verb: str, **query: Any) -> str:
        return url("snapshots", self.id, *verb, **query)


def lineages(link: Link, ref: str | None = None) -> Sequence[LineageNode]:
    """The trees with what is meant, or all. Raises NotFound."""
    trees = trees_of(link.call("GET", url("lineage", ref=ref))["items"])
    if ref is not None and (not trees):
        raise NotFound(f"nothing is known of where {ref} came from")
    return trees


def _opened(path: Path, mode: Literal["rb", "xb"]) -> BinaryIO:
    return open(path, mode)


def _counted(source: BinaryIO, total: int, progress: Progress | None) -> Iterator[bytes]:
    done = 0
    while chunk := flow.in_thread(source.read, _PART):
        yield chunk
        done += len(chunk)
        if progress is not None:
            flow.call(progress, done, total)
