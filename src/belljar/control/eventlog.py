"""Events on their way into the store: each is written in the transaction of the change that it tells of."""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Generator
from typing import Any

from belljar.base.clock import Clock, SystemClock
from belljar.base.ids import new_id
from belljar.base.log import get_logger
from belljar.control.store.events import changes_of
from belljar.control.store.place import Change
from belljar.model.errors import LimitExceeded
from belljar.model.events import Event, EventKind, bounded, steps_of
from belljar.model.sandbox import Sandbox

__all__ = ("MOST_FOLLOWERS", "MOST_WAITING", "EventLog")

MOST_WAITING = 10_000
"""Events that the store does not take: then the newest are lost, and the log says so."""
MOST_FOLLOWERS = 64
"""Of one workspace at once."""
_PREFIX = "ev"
_ONCE = {
    EventKind.SANDBOX_CREATED: "c",
    EventKind.SANDBOX_STARTED: "s",
    EventKind.SANDBOX_ENDED: "e",
    EventKind.SANDBOX_FAILED: "e",
    EventKind.SANDBOX_LOST: "e",
}
"""Steps that a sandbox takes once in its life: what the id of the event has behind that of the sandbox."""
_log = get_logger("control.events")


class EventLog:
    """A companion of the store of sandboxes: what was noted is in the next transaction that follows the node, which is also that
    of the change. What is told with `told` is in the caller's own, behind all that waits.

    Writing one again is harmless, so whatever is not known to be written waits and is written with the next. Steps that a sandbox
    takes once have one id whoever tells of them: a server that was killed between the event and its change told it for the next.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._waiting: dict[str, Event] = {}
        self._lost = 0
        self._followers: dict[str, set[asyncio.Event]] = {}

    def note(self, workspace: str, kind: EventKind, *, at: float | None = None, **said: Any) -> None:
        """Right before the store of sandboxes is told of the change, with nothing awaited in between."""
        if len(self._waiting) >= MOST_WAITING:
            self._lost += 1
            if self._lost == 1:
                _log.error("events are lost: the store takes nothing", waiting=len(self._waiting))
            return
        event = self._made(workspace, kind, at, said)
        self._waiting[event.id] = event

    def followed(self, workspace: str, before: Sandbox, now: Sandbox) -> None:
        """What the node said of a sandbox, as it is known from here on; the store is told next."""
        for kind, at, reason, message in steps_of(before, now):
            self.note(
                workspace,
                kind,
                at=at,
                sandbox=now.id,
                name=now.spec.name,
                snapshot=now.spec.snapshot,
                parent=now.parent,
                reason=reason,
                message=message,
            )

    @contextlib.contextmanager
    def told(self, workspace: str, kind: EventKind, **said: Any) -> Generator[list[Change]]:
        """Gives what the caller writes together with its change, in this moment. With an error nothing was told."""
        event = self._made(workspace, kind, None, said)
        taken = [*self._waiting.values(), event]
        yield changes_of(taken)
        self._written(taken)

    def changes(self, ids: Collection[str]) -> tuple[list[Change], Callable[[], None]]:
        """Whatever waits, of these sandboxes or others."""
        taken = list(self._waiting.values())
        return changes_of(taken), lambda: self._written(taken)

    @contextlib.contextmanager
    def following(self, workspace: str) -> Generator[asyncio.Event]:
        """Set when there may be news of the workspace. Raises LimitExceeded."""
        others = self._followers.setdefault(workspace, set())
        if len(others) >= MOST_FOLLOWERS:
            raise LimitExceeded(
                f"{MOST_FOLLOWERS} clients follow the events of this workspace, more are not allowed",
                hint="let one follower tell the others",
            )
        news = asyncio.Event()
        others.add(news)
        try:
            yield news
        finally:
            others.discard(news)
            if not others:
                self._followers.pop(workspace, None)

    def _made(self, workspace: str, kind: EventKind, at: float | None, said: dict[str, Any]) -> Event:
        when = self._clock.now() if at is None else at
        once = _ONCE.get(kind)
        id = new_id(_PREFIX) if once is None else f"{_PREFIX}{said['sandbox'][len(_PREFIX) :]}{once}"
        return bounded(Event(id=id, workspace=workspace, kind=kind, at=when, **said))

    def _written(self, events: Collection[Event]) -> None:
        for event in events:
            self._waiting.pop(event.id, None)
        if events and self._lost:
            _log.warning("events were lost", events=self._lost)
            self._lost = 0
        for workspace in {event.workspace for event in events}:
            for news in self._followers.get(workspace, ()):
                news.set()
