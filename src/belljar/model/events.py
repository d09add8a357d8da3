"""Events: what happened to sandboxes, snapshots and templates, each told once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

from belljar.model.audit import clean
from belljar.model.errors import InvalidArgument
from belljar.model.sandbox import Sandbox, Status

__all__ = ("Event", "EventFilter", "EventKind", "bounded", "event_json", "event_of", "kinds_of", "steps_of")


class EventKind(StrEnum):
    """What happened. The word before the dot is the noun that it happened to."""

    SANDBOX_CREATED = "sandbox.created"
    """Asked for: it is being made."""
    SANDBOX_STARTED = "sandbox.started"
    """It runs for the first time."""
    SANDBOX_UPDATED = "sandbox.updated"
    SANDBOX_PAUSED = "sandbox.paused"
    SANDBOX_STANDBY = "sandbox.standby"
    SANDBOX_STOPPED = "sandbox.stopped"
    SANDBOX_RESUMED = "sandbox.resumed"
    """It goes on from where it rested."""
    SANDBOX_ROLLED_BACK = "sandbox.rolled_back"
    SANDBOX_ENDED = "sandbox.ended"
    """Because somebody asked, or its lifetime or idle time was over."""
    SANDBOX_FAILED = "sandbox.failed"
    """It could not be made, or it died."""
    SANDBOX_LOST = "sandbox.lost"
    """Its machine or its record is gone."""
    SNAPSHOT_CREATED = "snapshot.created"
    SNAPSHOT_UPDATED = "snapshot.updated"
    SNAPSHOT_FAILED = "snapshot.failed"
    SNAPSHOT_DELETED = "snapshot.deleted"
    """`reason`: deleted, expired, or replaced (a template's, by a newer one)."""
    SNAPSHOT_LOST = "snapshot.lost"
    TEMPLATE_CREATED = "template.created"
    TEMPLATE_FAILED = "template.failed"
    TEMPLATE_DELETED = "template.deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`seq`: 1, 2, … in each workspace, in the order in which they were written down; 0 before that. `at`: when it happened, in
    seconds since 1970. `sandbox`, `snapshot` (ids) and `template` (a name): what it is about, and what that came from;
    `parent`: the sandbox that a child was forked from. `name` as it was called then. `reason` is for programs, `message` is for
    people.
    """

    id: str
    workspace: str
    kind: EventKind
    at: float
    sandbox: str | None = None
    snapshot: str | None = None
    template: str | None = None
    parent: str | None = None
    name: str | None = None
    reason: str | None = None
    message: str | None = None
    seq: int = 0


@dataclass(frozen=True, slots=True)
class EventFilter:
    """What is empty or None does not matter. `since` and before `until` in seconds since 1970."""

    sandbox: str | None = None
    kinds: tuple[EventKind, ...] = ()
    since: float | None = None
    until: float | None = None


_BOUNDS = {"template": 64, "name": 64, "reason": 64, "message": 500}
"""Characters of what others have chosen."""
_ORDER = ("seq", *(field.name for field in fields(Event) if field.name != "seq"))
_RESTS = {
    Status.PAUSED: EventKind.SANDBOX_PAUSED,
    Status.STANDBY: EventKind.SANDBOX_STANDBY,
    Status.STOPPED: EventKind.SANDBOX_STOPPED,
}
_ENDS = {
    Status.TERMINATED: EventKind.SANDBOX_ENDED,
    Status.FAILED: EventKind.SANDBOX_FAILED,
    Status.LOST: EventKind.SANDBOX_LOST,
}


def bounded(event: Event) -> Event:
    """As it is written: its text is cut to its bounds and free of control characters."""
    said: dict[str, Any] = {
        name: clean(text, most) for name, most in _BOUNDS.items() if (text := getattr(event, name)) is not None
    }
    return replace(event, **said)


def steps_of(before: Sandbox, now: Sandbox) -> list[tuple[EventKind, float | None, str | None, str | None]]:
    """Kind, time (None: now), reason and message of what lies between two looks at a sandbox, of which the first one had not
    ended."""
    found: list[tuple[EventKind, float | None, str | None, str | None]] = []
    if before.started is None and now.started is not None:
        found.append((EventKind.SANDBOX_STARTED, now.started, None, None))
    if now.status is not before.status and now.status in _RESTS:
        found.append((_RESTS[now.status], None, None, None))
    if before.status in _RESTS and now.status is Status.RUNNING:
        found.append((EventKind.SANDBOX_RESUMED, None, None, None))
    if now.ended is not None and (kind := _ENDS.get(now.status)) is not None:
        found.append((kind, now.ended.at, now.ended.reason, now.ended.message or None))
    return found


def kinds_of(words: Iterable[str]) -> tuple[EventKind, ...]:
    """Each is a kind, or a noun for all of its kinds. Raises InvalidArgument."""
    found: dict[EventKind, None] = {}
    for word in words:
        fitting = [kind for kind in EventKind if word in (kind.value, kind.partition(".")[0])]
        if not fitting:
            nouns = sorted({kind.partition(".")[0] for kind in EventKind})
            raise InvalidArgument(
                f"there is no kind of event {word[:40]!r}",
                hint=f"{', '.join(EventKind)}; all of one: {', '.join(nouns)}",
            )
        found |= dict.fromkeys(fitting)
    return tuple(found)


def event_json(event: Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in _ORDER}


def event_of(value: Mapping[str, Any]) -> Event:
    """Of its JSON. A kind that only a newer server knows stays the word it is."""
    said: dict[str, Any] = {name: value.get(name) for name in _ORDER}
    try:
        said["kind"] = EventKind(said["kind"])
    except ValueError:
        said["kind"] = str(said["kind"])
    return Event(**said)
