"""What a workspace and a key may have at once, and how fast: asked before anything is made."""

from collections.abc import Iterator, Sequence

from belljar.base.clock import Clock
from belljar.base.units import format_size
from belljar.control.index import Index
from belljar.control.keys import Keys, Principal
from belljar.control.rates import Rates
from belljar.control.workspaces import Workspaces
from belljar.model.errors import LimitExceeded
from belljar.model.sandbox import SandboxSpec
from belljar.model.workspace import Quota, Use

__all__ = ("Quotas",)

_HELD = ("sandboxes", "cpus", "memory", "disk")


class Quotas:
    """Nothing here waits: what was admitted is to be in the index before anything else runs."""

    def __init__(self, index: Index, workspaces: Workspaces, keys: Keys, *, clock: Clock | None = None) -> None:
        self._index = index
        self._workspaces = workspaces
        self._keys = keys
        self._rates = Rates(clock=clock)

    def admit(self, workspace: str, key: str | None, specs: Sequence[SandboxSpec]) -> None:
        """Raises LimitExceeded (which bound, how much is in use, and for a rate when to try again); then nothing is counted."""
        bounds = [bound for bound in self._bounds(workspace, key) if bound[2] != Quota()]
        for owner, is_key, quota in bounds:
            _check_held(_words(owner, is_key), quota, self.use(workspace, owner if is_key else None), Use.of(specs))
        rates = [((owner, is_key, "creates"), quota.creates) for owner, is_key, quota in bounds]
        self._take([(name, rate) for name, rate in rates if rate is not None], "sandboxes a second", len(specs))

    def admit_request(self, who: Principal) -> None:
        """Raises LimitExceeded. Who comes through the unix socket is not counted: an operator must not be shut out."""
        if who.local:
            return
        rates = [
            ((owner, is_key, "requests"), quota.requests)
            for owner, is_key, quota in self._bounds(who.workspace, who.key)
        ]
        self._take([(name, rate) for name, rate in rates if rate is not None], "requests a second", 1)

    def use(self, workspace: str, key: str | None = None) -> Use:
        """What the live sandboxes of a workspace hold, or of one key of it."""
        return Use.of(
            entry.sandbox.spec
            for entry in self._index.live()
            if entry.workspace == workspace and (key is None or entry.key == key)
        )

    def uses(self) -> dict[str, Use]:
        """The same of every workspace in which something lives."""
        specs: dict[str, list[SandboxSpec]] = {}
        for entry in self._index.live():
            specs.setdefault(entry.workspace, []).append(entry.sandbox.spec)
        return {workspace: Use.of(found) for workspace, found in specs.items()}

    def _bounds(self, workspace: str, key: str | None) -> Iterator[tuple[str, bool, Quota]]:
        yield workspace, False, self._workspaces.quota(workspace)
        if key is not None:
            yield key, True, self._keys.quota(key)

    def _take(self, rates: Sequence[tuple[tuple[str, bool, str], float]], what: str, count: int) -> None:
        for (owner, is_key, _), rate in rates:
            name = (owner, is_key, what)
            if (wait := self._rates.wait(name, rate)) > 0:
                raise LimitExceeded(f"{_words(owner, is_key)} may have {rate:g} {what}", retry_after=wait)
        for (owner, is_key, _), rate in rates:
            self._rates.take((owner, is_key, what), rate, count)


def _words(owner: str, is_key: bool) -> str:
    return f"the key {owner}" if is_key else f"the workspace {owner}"


def _check_held(owner: str, quota: Quota, now: Use, more: Use) -> None:
    for name in _HELD:
        bound, held, wanted = getattr(quota, name), getattr(now, name), getattr(more, name)
        if bound is not None and held + wanted > bound:
            show = format_size if name in ("memory", "disk") else "{:g}".format
            raise LimitExceeded(
                f"{owner} may have {name} up to {show(bound)}: {show(held)} in use, {show(wanted)} more asked for",
                hint="end some sandboxes, or ask for less",
            )
