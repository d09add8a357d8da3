"""What goes out of the record of events."""

from belljar.front.native.schema import Out, TailOut

__all__ = ("EventOut", "EventPage", "LogsOut")


class EventOut(Out):
    """`seq`: 1, 2, … in each workspace. `kind`: what happened, such as `sandbox.ended`. `at`: seconds since 1970. `sandbox`,
    `snapshot`, `template`: what it is about and what that came from; `parent`: what a child was forked from. `reason` is for
    programs, `message` for people.
    """

    seq: int
    id: str
    workspace: str
    kind: str
    at: float
    sandbox: str | None
    snapshot: str | None
    template: str | None
    parent: str | None
    name: str | None
    reason: str | None
    message: str | None


class EventPage(Out):
    items: list[EventOut]
    next: int | None


class LogsOut(Out):
    events: list[EventOut]
    processes: list[TailOut]
