"""Who came from whom: sandboxes and snapshots as one tree."""

from collections.abc import Sequence
from dataclasses import dataclass

from belljar.base.ids import is_id
from belljar.control.origins import Origins
from belljar.control.sandboxes import Sandboxes
from belljar.control.store.lineage import LineageStore
from belljar.control.store.snapshots import SnapshotRecord
from belljar.model.errors import NotFound, SandboxGone
from belljar.model.sandbox import Sandbox
from belljar.model.snapshot import PREFIX

__all__ = ("MAX_NODES", "Family", "Lineage", "Node")

MAX_NODES = 2000
"""Of one answer."""
_DEEPEST = 1000


@dataclass(frozen=True, slots=True)
class Node:
    """`parent`: the id of what it came from, None for one that came from an image."""

    of: Sandbox | SnapshotRecord
    parent: str | None

    @property
    def id(self) -> str:
        return self.of.id


@dataclass(frozen=True, slots=True)
class Family:
    """Parents come before their children. `whole` False: there are more than one answer may hold."""

    nodes: Sequence[Node]
    whole: bool


class Lineage:
    def __init__(self, store: LineageStore, sandboxes: Sandboxes, origins: Origins) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._origins = origins

    async def of(self, workspace: str, ref: str | None = None) -> Family:
        """All that has a common origin with the sandbox or snapshot of this id or name; without one, what is there now.

        Raises NotFound.
        """
        if ref is None:
            snapshots, sandboxes = await self._store.newest(workspace, limit=MAX_NODES)
        else:
            snapshots, sandboxes = await self._meant(workspace, ref)
        search = _Search(self._store, workspace)
        await search.up(snapshots, sandboxes)
        return await search.down()

    async def _meant(self, workspace: str, ref: str) -> tuple[list[str], list[str]]:
        if is_id(ref, PREFIX):
            if not await self._store.snapshots(workspace, ids=[ref], limit=1):
                raise NotFound(f"no snapshot {ref}")
            return [ref], []
        try:
            return [], [(await self._sandboxes.get(workspace, ref)).id]
        except SandboxGone:
            raise
        except NotFound:
            try:
                return [(await self._origins.snapshot(workspace, ref)).id], []
            except NotFound:
                raise NotFound(f"no sandbox and no snapshot {ref[:80]!r}") from None


class _Search:
    """First up to where everything began, then down to all that came of it."""

    def __init__(self, store: LineageStore, workspace: str) -> None:
        self._store = store
        self._workspace = workspace
        self._found: dict[str, Sandbox | SnapshotRecord] = {}

    async def up(self, snapshots: Sequence[str], sandboxes: Sequence[str]) -> None:
        """Finds the ancestors of these, and these."""
        for _ in range(_DEEPEST):
            if not (snapshots or sandboxes) or len(self._found) > MAX_NODES:
                return
            found: list[Sandbox | SnapshotRecord] = [
                record.sandbox
                for record in await self._store.sandboxes(self._workspace, ids=sandboxes, limit=MAX_NODES)
            ]
            found += await self._store.snapshots(self._workspace, ids=snapshots, limit=MAX_NODES)
            self._take(found)
            wanted = {parent for one in found for parent in _parents(one)} - self._found.keys()
            snapshots = [id for id in wanted if is_id(id, PREFIX)]
            sandboxes = [id for id in wanted if not is_id(id, PREFIX)]

    async def down(self) -> Family:
        """Adds all that came of what was found."""
        looked_at: set[str] = set()
        while (fresh := self._found.keys() - looked_at) and len(self._found) <= MAX_NODES:
            looked_at |= fresh
            snapshots = [id for id in fresh if is_id(id, PREFIX)]
            sandboxes = [id for id in fresh if not is_id(id, PREFIX)]
            children = await self._store.sandboxes(
                self._workspace, parents=sandboxes, snapshots=snapshots, limit=MAX_NODES
            )
            found: list[Sandbox | SnapshotRecord] = [record.sandbox for record in children]
            found += await self._store.snapshots(self._workspace, sandboxes=sandboxes, limit=MAX_NODES)
            self._take(found)
        nodes = _sorted([self._node(one) for one in self._found.values()])
        return Family(nodes[:MAX_NODES], whole=len(self._found) <= MAX_NODES)

    def _take(self, found: Sequence[Sandbox | SnapshotRecord]) -> None:
        for one in found:
            self._found.setdefault(one.id, one)

    def _node(self, one: Sandbox | SnapshotRecord) -> Node:
        if isinstance(one, Sandbox):
            return Node(one, next((parent for parent in _parents(one) if parent in self._found), None))
        snapshot = one.snapshot
        earlier = self._found.get(snapshot.parent or "")
        if (
            isinstance(earlier, SnapshotRecord)
            and earlier.id != one.id
            and earlier.snapshot.sandbox == snapshot.sandbox
        ):
            # Taken after its sandbox had gone back to an earlier snapshot of its own: it goes on from there.
            return Node(one, earlier.id)
        return Node(one, snapshot.sandbox if snapshot.sandbox in self._found else None)


def _parents(one: Sandbox | SnapshotRecord) -> Sequence[str]:
    if isinstance(one, Sandbox):
        origin = one.parent or one.spec.snapshot
        return () if origin is None else (origin,)
    return tuple(id for id in (one.snapshot.sandbox, one.snapshot.parent) if id)


def _sorted(found: Sequence[Node]) -> Sequence[Node]:
    """Parents first; brothers by age, which their ids tell."""
    children: dict[str | None, list[Node]] = {}
    for node in found:
        children.setdefault(node.parent, []).append(node)
    ordered: list[Node] = []
    left = sorted(children.get(None, []), key=_age, reverse=True)
    while left:
        node = left.pop()
        ordered.append(node)
        left.extend(sorted(children.get(node.id, []), key=_age, reverse=True))
    return ordered


def _age(node: Node) -> tuple[float, str]:
    created = node.of.created if isinstance(node.of, Sandbox) else node.of.snapshot.created
    return created, node.id
