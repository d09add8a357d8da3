"""Which sandbox a name or id means, and what is live, from memory: whoever looks at that asks the store nothing."""

from bisect import bisect_left, insort
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from belljar.model.sandbox import Sandbox

__all__ = ("Entry", "Index")

_ENDED_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Entry:
    workspace: str
    sandbox: Sandbox
    key: str | None = None
    """The API key it was made with."""


class Index:
    """Every live sandbox, and the newest that ended. What has ended never lives again."""

    def __init__(self, changed: Callable[[str, Sandbox, Sandbox], None] | None = None) -> None:
        """`changed` hears of every look at one that may have changed something: its workspace, and what it was and is."""
        self._changed = changed
        self._live: dict[str, Entry] = {}
        self._order: defaultdict[str, list[str]] = defaultdict(list)
        """By workspace: the ids of its live ones, the oldest first."""
        self._named: dict[tuple[str, str], str] = {}
        self._ended: OrderedDict[str, Entry] = OrderedDict()

    def add(self, workspace: str, sandbox: Sandbox, key: str | None = None) -> None:
        """One that was just asked for, or that was found in the store."""
        entry = Entry(workspace, sandbox, key)
        if sandbox.status.is_end:
            self._end(entry)
            return
        if sandbox.id not in self._live:
            insort(self._order[workspace], sandbox.id)
        self._live[sandbox.id] = entry
        if sandbox.spec.name is not None:
            self._named[workspace, sandbox.spec.name] = sandbox.id

    def follow(self, sandbox: Sandbox) -> Sandbox | None:
        """Takes status, times, timers and limits over; the rest of the spec (labels may have changed since) and the parent stay.

        Gives what is known now, or None for one that is not known, or that had ended before.
        """
        entry = self._live.get(sandbox.id)
        if entry is None:
            return None
        said = sandbox.spec
        spec = replace(entry.sandbox.spec, lifetime=said.lifetime, idle=said.idle, limits=said.limits)
        now = replace(sandbox, spec=spec, created=entry.sandbox.created, parent=entry.sandbox.parent)
        if now.status.is_end:
            self._end(replace(entry, sandbox=now))
        else:
            self._live[sandbox.id] = replace(entry, sandbox=now)
        if self._changed is not None:
            self._changed(entry.workspace, entry.sandbox, now)
        return now

    def relabel(self, id: str, labels: dict[str, str]) -> None:
        if (entry := self._live.get(id)) is not None:
            spec = replace(entry.sandbox.spec, labels=labels)
            self._live[id] = replace(entry, sandbox=replace(entry.sandbox, spec=spec))

    def find(self, workspace: str, ref: str) -> Sandbox | None:
        """By the name of a live one, else by id."""
        id = self._named.get((workspace, ref), ref)
        entry = self._live.get(id) or self._ended.get(id)
        return entry.sandbox if entry is not None and entry.workspace == workspace else None

    def holder(self, workspace: str, name: str) -> str | None:
        """The id of the live one with this name."""
        return self._named.get((workspace, name))

    def entry(self, id: str) -> Entry | None:
        return self._live.get(id) or self._ended.get(id)

    def live(self) -> Iterator[Entry]:
        return iter(list(self._live.values()))

    def page(self, workspace: str, fits: Callable[[Sandbox], bool], *, after: str | None, limit: int) -> list[Sandbox]:
        """Live ones, the newest first, at most `limit` of them, those older than `after`."""
        ids = self._order.get(workspace, [])
        found: list[Sandbox] = []
        for at in range((len(ids) if after is None else bisect_left(ids, after)) - 1, -1, -1):
            if len(found) == limit:
                break
            if fits(sandbox := self._live[ids[at]].sandbox):
                found.append(sandbox)
        return found

    def __len__(self) -> int:
        """How many live ones."""
        return len(self._live)

    def _end(self, entry: Entry) -> None:
        sandbox = entry.sandbox
        if self._live.pop(sandbox.id, None) is not None:
            ids = self._order[entry.workspace]
            del ids[bisect_left(ids, sandbox.id)]
        name = sandbox.spec.name
        if name is not None and self._named.get((entry.workspace, name)) == sandbox.id:
            del self._named[entry.workspace, name]
        self._ended[sandbox.id] = entry
        self._ended.move_to_end(sandbox.id)
        while len(self._ended) > _ENDED_KEPT:
            self._ended.popitem(last=False)
