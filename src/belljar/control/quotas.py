"""What a workspace and a key may have at once, and how fast: asked before anything is made."""

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from belljar.base.clock import Clock
from belljar.base.units import format_size
from belljar.control.index import Index
from belljar.control.keys import Keys, Principal
from belljar.control.rates import Rates
from belljar.control.workspaces import Workspaces
from belljar.model.errors import LimitExceeded
from belljar.model.sandbox import Limits, SandboxSpec
from belljar.model.workspace import Quota, Use

__all__ = ("Quotas",)

_HELD = ("sandboxes", "cpus", "memory", "disk")
_NO_BOUNDS = Quota()


@dataclass(frozen=True, slots=True)
class _Owner:
    """Whose bounds: a workspace's, or a key's."""

    id: str
    is_key: bool
    quota: Quota

    def __str__(self) -> str:
        return f"the key {self.id}" if self.is_key else f"the workspace {self.id}"


class Quotas:
    """Nothing here waits: what was admitted is to be in the index before anything else runs."""

    def __init__(self, index: Index, workspaces: Workspaces, keys: Keys, *, clock: Clock | None = None) -> None:
        self._index = index
        self._workspaces = workspaces
        self._keys = keys
        self._rates = Rates(clock=clock)
        self._growing: list[tuple[str, str | None, Use]] = []
        """Workspace, key, and what their live sandboxes are about to get."""

    def admit(self, workspace: str, key: str | None, specs: Sequence[SandboxSpec]) -> None:
        """Raises LimitExceeded (which bound, how much is in use, and for a rate when to try again); then nothing is counted."""
        owners = [owner for owner in self._owners(workspace, key) if owner.quota != _NO_BOUNDS]
        for owner in owners:
            _check_held(owner, self.use(workspace, owner.id if owner.is_key else None), Use.of(specs))
        self._take(owners, "creates", len(specs))

    @contextlib.contextmanager
    def growing(self, workspace: str, key: str | None, before: Limits, after: Limits) -> Generator[None]:
        """Counts what a live sandbox is about to get, until it is in the index: leave it and put that there in one go.

        Raises LimitExceeded as `admit` does.
        """
        memory, disk = max(0, after.memory - before.memory), max(0, after.disk - before.disk)
        more = Use(0, max(0.0, after.cpus - before.cpus), memory, disk)
        for owner in self._owners(workspace, key):
            _check_held(owner, self.use(workspace, owner.id if owner.is_key else None), more)
        pending = (workspace, key, more)
        self._growing.append(pending)
        try:
            yield
        finally:
            self._growing.remove(pending)

    def admit_request(self, who: Principal) -> None:
        """Raises LimitExceeded. Who comes through the unix socket is not counted: an operator must not be shut out."""
        if not who.local:
            self._take(self._owners(who.workspace, who.key), "requests", 1)

    def use(self, workspace: str, key: str | None = None) -> Use:
        """What the live sandboxes of a workspace hold, or of one key of it."""
        use = Use.of(
            entry.sandbox.spec
            for entry in self._index.live()
            if entry.workspace == workspace and (key is None or entry.key == key)
        )
        for owner, maker, more in self._growing:
            if owner == workspace and (key is None or maker == key):
                use += more
        return use

    def uses(self) -> dict[str, Use]:
        """The same of every workspace in which something lives."""
        specs: dict[str, list[SandboxSpec]] = {}
        for entry in self._index.live():
            specs.setdefault(entry.workspace, []).append(entry.sandbox.spec)
        return {workspace: Use.of(found) for workspace, found in specs.items()}

    def _owners(self, workspace: str, key: str | None) -> list[_Owner]:
        owners = [_Owner(workspace, False, self._workspaces.quota(workspace))]
        if key is not None:
            owners.append(_Owner(key, True, self._keys.quota(key)))
        return owners

    def _take(self, owners: Sequence[_Owner], what: str, count: int) -> None:
        rates = [(owner, rate) for owner in owners if (rate := getattr(owner.quota, what)) is not None]
        for owner, rate in rates:
            if (wait := self._rates.wait((what, owner.id), rate)) > 0:
                raise LimitExceeded(f"{owner} may have {rate:g} {what} a second", retry_after=wait)
        for owner, rate in rates:
            self._rates.take((what, owner.id), rate, count)


def _check_held(owner: _Owner, now: Use, more: Use) -> None:
    for name in _HELD:
        bound, held, wanted = getattr(owner.quota, name), getattr(now, name), getattr(more, name)
        # Rounded: the sum of fractions of a core may miss by the last bit.
        if bound is not None and wanted > 0 and round(held + wanted - bound, 6) > 0:
            show = format_size if name in ("memory", "disk") else "{:g}".format
            raise LimitExceeded(
                f"{owner} may have {name} up to {show(bound)}: {show(held)} in use, {show(wanted)} more asked for",
                hint="end some sandboxes, or ask for less",
            )
