"""The accounts of what lives, in memory: what was read is added here, and written down whole."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Self

from belljar.base.clock import Clock, SystemClock
from belljar.base.log import get_logger
from belljar.control.index import Entry, Index
from belljar.control.store.place import Change
from belljar.control.store.usage import UsageStore, changes_of
from belljar.model.sandbox import Status
from belljar.model.usage import Amounts, Ledger, Reading, advance, close, hour_of, micros, millicores, opened, promise

__all__ = ("Meters",)

_CLOSED_KEPT = 8192
"""Ids of what has ended, more than the index knows: whatever is said of one again opens no second account."""
_log = get_logger("control.usage")


@dataclass(slots=True)
class _Account:
    """`hours`: the whole of each hour that is not written yet, and of the one that it has come to. `changed` counts changes,
    `written` is the last one that is in the store.
    """

    ledger: Ledger
    hours: dict[int, Amounts] = field(default_factory=dict[int, Amounts])
    changed: int = 1
    written: int = 0


class Meters:
    """Own it as an async context manager, entered before the store first follows the node: entering reads the accounts that go
    on, leaving writes what is not written.

    An account is opened when a sandbox is first known to run and closed with its end, in the transactions that write these. What
    is written is absolute, so a write may be repeated, and a successor goes on from the moment up to which it was counted.
    """

    def __init__(self, store: UsageStore, index: Index, *, clock: Clock | None = None) -> None:
        self._store = store
        self._clock = clock or SystemClock()
        self._index = index
        self._accounts: dict[str, _Account] = {}
        self._closed: OrderedDict[str, None] = OrderedDict()
        self._totals: dict[str, Amounts] = {}

    async def __aenter__(self) -> Self:
        for ledger, hours in await self._store.unclosed():
            self._accounts[ledger.sandbox] = _Account(ledger, hours, changed=0)
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.write()
        except Exception as error:  # noqa: BLE001 (the next server goes on from what is written)
            _log.error("what sandboxes used could not be written", error=str(error))
        self._accounts.clear()

    def open(self) -> Mapping[str, Ledger]:
        """By sandbox: accounts of what runs. First those are opened that were missing."""
        for entry in self._index.live():
            self._follow(entry)
        return {id: account.ledger for id, account in self._accounts.items() if not account.ledger.closed}

    def totals(self) -> Mapping[str, Amounts]:
        """By workspace: what was used since this server started."""
        return self._totals

    def add(self, readings: Mapping[str, Reading]) -> None:
        """By sandbox. Of one that has ended meanwhile its end has told."""
        for id, reading in readings.items():
            if (account := self._accounts.get(id)) is not None and not account.ledger.closed:
                self._take(account, *advance(account.ledger, micros(reading.at), reading))

    def close_orphans(self) -> None:
        """Accounts of sandboxes that nobody knows to live: as far as they were counted."""
        for id, account in self._accounts.items():
            if not account.ledger.closed and self._index.entry(id) is None:
                _log.warning("closing an account whose sandbox is not known", sandbox=id)
                self._take(account, *close(account.ledger, None, None))

    async def write(self) -> None:
        """Everything that is not written yet, in one transaction."""
        changes, written = self._changes([id for id, one in self._accounts.items() if one.written < one.changed])
        await self._store.write(changes)
        written()

    def changes(self, ids: Collection[str]) -> tuple[list[Change], Callable[[], None]]:
        for id in ids:
            if (entry := self._index.entry(id)) is not None:
                self._follow(entry)
        return self._changes(ids)

    def _follow(self, entry: Entry) -> None:
        sandbox, limits = entry.sandbox, entry.sandbox.spec.limits
        cpus = 0.0 if sandbox.status.rests else limits.cpus
        memory = 0 if sandbox.status.on_disk else limits.memory
        account = self._accounts.get(sandbox.id)
        if sandbox.started is None or sandbox.id in self._closed:
            return
        if account is None:
            account = self._accounts[sandbox.id] = _Account(
                opened(*(sandbox.id, entry.workspace), cpus=limits.cpus, memory=limits.memory, started=sandbox.started)
            )
        ledger = account.ledger
        if not ledger.closed and (ledger.millicores, ledger.memory) != (millicores(cpus), memory):
            # Told in the transaction that writes the change, so it holds since a moment ago.
            at = self._clock.now() if sandbox.ended is None else sandbox.ended.at
            self._take(account, *promise(ledger, micros(at), cpus=cpus, memory=memory))
        if sandbox.status.is_end and sandbox.ended is not None and not account.ledger.closed:
            # Of a lost one the end is when that was noticed.
            ended = None if sandbox.status is Status.LOST else micros(sandbox.ended.at)
            self._take(account, *close(account.ledger, ended, sandbox.final))

    def _take(self, account: _Account, ledger: Ledger, used: Mapping[int, Amounts]) -> None:
        account.ledger = ledger
        account.changed += 1
        total = self._totals.get(ledger.workspace, Amounts())
        for hour, amounts in used.items():
            account.hours[hour] = account.hours.get(hour, Amounts()) + amounts
            total += amounts
        self._totals[ledger.workspace] = total

    def _changes(self, ids: Collection[str]) -> tuple[list[Change], Callable[[], None]]:
        found = [(account, account.changed) for id in ids if (account := self._accounts.get(id)) is not None]
        state = [(account.ledger, dict(account.hours)) for account, _ in found]

        def written() -> None:
            for (account, number), (ledger, hours) in zip(found, state, strict=True):
                account.written = max(account.written, number)
                for hour in hours:
                    if hour < hour_of(ledger.until):  # time has gone on from there
                        account.hours.pop(hour, None)
                if ledger.closed:
                    self._accounts.pop(ledger.sandbox, None)
                    self._closed[ledger.sandbox] = None
            while len(self._closed) > _CLOSED_KEPT:
                self._closed.popitem(last=False)

        return changes_of(state), written
