"""What happened to sandboxes, snapshots and templates."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from belljar.model.errors import Internal
from belljar.model.events import Event
from belljar.sdk._async.link import Lost, shared_link
from belljar.sdk.answers import event_of
from belljar.sdk.asking import url
from belljar.sdk.patience import Patience

__all__ = ("AsyncEvents",)

_PAGE = 500
_LONGEST_LINE = 1 << 16


class AsyncEvents:
    """The server's record of what happened in the workspace, bounded by age and number.

    >>> async for event in AsyncEvents.list(kind="sandbox.ended", limit=1):
    ...     print(event.seq, event.kind, event.sandbox, event.reason)
    12 sandbox.ended sb01kz… lifetime
    """

    @classmethod
    async def list(
        cls,
        *,
        sandbox: str | None = None,
        kind: str | Sequence[str] | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Event]:
        """The newest first, from `since` on and before `until` (seconds since 1970). `sandbox`: an id, or the name of a live one.
        `kind`: such as ``sandbox.ended``, a noun for all of its kinds, or several of these. Raises InvalidArgument.
        """
        link = await shared_link()
        wanted = {"sandbox": sandbox, "kind": _words(kind), "since": since, "until": until}
        left, cursor = limit, None
        while left is None or left > 0:
            size = _PAGE if left is None else min(left, _PAGE)
            page = await link.call("GET", url("events", limit=size, cursor=cursor, **wanted))
            for item in page["items"]:
                yield event_of(item)
            left = None if left is None else left - len(page["items"])
            cursor = page.get("next")
            if cursor is None:
                return

    @classmethod
    async def follow(
        cls, *, sandbox: str | None = None, kind: str | Sequence[str] | None = None, after: int | None = None
    ) -> AsyncIterator[Event]:
        """Events as they come, the oldest first, until you leave the loop: from now on, or behind the `seq` that is `after`, as
        far as they are kept. Over a restart of the server none is missed and none comes twice.

        Raises InvalidArgument, LimitExceeded (too many followers), ServerUnreachable.
        """
        link = await shared_link()
        patience = Patience()
        place = after
        while True:
            body = None
            try:
                body = await link.open("GET", url("events", "follow", after=place, sandbox=sandbox, kind=_words(kind)))
                rest = b""
                while chunk := await body.read():
                    patience.reset()
                    *lines, rest = (rest + chunk).split(b"\n")
                    if len(rest) > _LONGEST_LINE:
                        raise Internal("the server's events are none")
                    for line in lines:
                        name, _, value = line.partition(b": ")
                        if name == b"data":
                            event = event_of(json.loads(value))
                            place = event.seq
                            yield event
                        elif name == b"id" and place is None:  # where it begins
                            place = int(value)
                raise Lost("the events broke off")
            except Lost as lost:
                await link.recover(patience, lost)
            finally:
                if body is not None:
                    await body.aclose()


def _words(kind: str | Sequence[str] | None) -> Any:
    return kind if kind is None or isinstance(kind, str) else [*kind]
