"""Routes of what happened: page by page, or as it comes."""

import json
import re
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.responses import Response

from belljar.control.product import Product
from belljar.control.sandboxes import MAX_PAGE
from belljar.front.native import schema_events as schema
from belljar.front.native.render import reply
from belljar.front.native.route import CHECKED, ProductOf, Who, binary
from belljar.front.native.stream import Streaming, close
from belljar.model.errors import InvalidArgument
from belljar.model.events import Event, EventFilter, event_json, kinds_of

__all__ = ("router",)

router = APIRouter(prefix="/v1/events", tags=["events"], dependencies=CHECKED)
_STREAM = "text/event-stream"
_NUMBER = re.compile(r"[0-9]{1,18}")
_PATIENCE_SECONDS = 60.0
"""For a client that follows and takes nothing."""
_Sandbox = Annotated[str | None, Query(max_length=128, description="Id, or the name of a live one")]
_Kinds = Annotated[
    list[str], Query(max_length=32, description="Such as `sandbox.ended`, or a noun for all of its kinds")
]
_Time = Annotated[float | None, Query(ge=0, allow_inf_nan=False, description="Seconds since 1970")]


@router.get("", response_model=schema.EventPage, summary="List what happened")
async def list_(
    product: ProductOf,
    who: Who,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    cursor: Annotated[int | None, Query(ge=1, lt=1 << 63, description="`next` of the page before")] = None,
    sandbox: _Sandbox = None,
    kind: _Kinds = [],  # noqa: B006 (FastAPI copies it)
    since: _Time = None,
    until: _Time = None,
) -> Response:
    """To sandboxes, snapshots and templates of the workspace; the newest first, from `since` on and before `until`."""
    wanted = EventFilter(_id(product, who.workspace, sandbox), kinds_of(kind), since, until)
    items, following = await product.events.page(who.workspace, wanted, before=cursor, limit=limit)
    return reply({"items": [event_json(item) for item in items], "next": following})


@router.get(
    "/follow",
    response_class=Response,
    responses=binary(_STREAM, "Server-sent events; `id` is the event's `seq`, `data` the event as in a page"),
    summary="Follow what happens",
)
async def follow(
    product: ProductOf,
    who: Who,
    after: Annotated[
        int | None, Query(ge=0, lt=1 << 63, description="Behind this `seq`, as far as they are kept; else from now on")
    ] = None,
    last_event_id: Annotated[str | None, Header(description="As `after`, of one who comes back")] = None,
    sandbox: _Sandbox = None,
    kind: _Kinds = [],  # noqa: B006 (FastAPI copies it)
) -> Response:
    """The oldest first. It begins with an `id` alone: ask again behind the last one that came, and none is missed."""
    wanted = EventFilter(_id(product, who.workspace, sandbox), kinds_of(kind))
    parts = product.events.follow(who.workspace, wanted, after=_place(last_event_id, after))
    first = await anext(parts)  # an error before it still becomes one of HTTP
    return Streaming(_said(first, parts), media_type=_STREAM, idle=b":\n\n", patience=_PATIENCE_SECONDS)


async def _said(first: tuple[int, list[Event]], parts: AsyncIterator[tuple[int, list[Event]]]) -> AsyncIterator[bytes]:
    try:
        yield _piece(*first)
        async for place, events in parts:
            yield _piece(place, events)
    finally:
        await close(parts)


def _piece(place: int, events: list[Event]) -> bytes:
    if not events:
        return f"id: {place}\n\n".encode()
    return "".join(f"id: {event.seq}\nevent: {event.kind}\ndata: {_line(event)}\n\n" for event in events).encode()


def _line(event: Event) -> str:
    return json.dumps(event_json(event), separators=(",", ":"))


def _place(came_back: str | None, after: int | None) -> int | None:
    if came_back is None:
        return after
    if not _NUMBER.fullmatch(came_back):
        raise InvalidArgument("Last-Event-ID is the `id` of an event of this stream")
    return int(came_back)


def _id(product: Product, workspace: str, sandbox: str | None) -> str | None:
    return None if sandbox is None else product.sandboxes.id_of(workspace, sandbox)
