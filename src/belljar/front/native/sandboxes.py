"""Routes of sandboxes."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.responses import Response

from belljar.control.processes import tails
from belljar.control.sandboxes import MAX_PAGE
from belljar.control.store.sandboxes import Filter, Repeat
from belljar.front.native import schema, schema_events
from belljar.front.native.render import reply, sandbox_json, tail_json, usage_json
from belljar.front.native.route import CHECKED, ProductOf, Ref, Target, Who, labels_of
from belljar.model.errors import InvalidArgument
from belljar.model.events import EventFilter, event_json
from belljar.model.sandbox import Status

__all__ = ("router",)

router = APIRouter(prefix="/v1", tags=["sandboxes"], dependencies=CHECKED)
_ALL = "all"
_LOG_BYTES = 64 << 10
_LOG_EVENTS = 64


@router.post("/sandboxes", status_code=201, response_model=schema.SandboxOut, summary="Create a sandbox")
async def create(
    body: schema.CreateSandbox,
    product: ProductOf,
    who: Who,
    idempotency_key: Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200)] = None,
) -> Response:
    """Answers when it runs. With an Idempotency-Key the same request, sent again within 24 hours, gives the same sandbox."""
    wanted = body.wanted()
    repeat = Repeat(idempotency_key, body.digest()) if idempotency_key is not None else None
    made = await product.sandboxes.create(who.workspace, wanted, repeat, key=who.key)
    return reply(sandbox_json(made), 201, made=f"/v1/sandboxes/{made.id}")


@router.get("/sandboxes", response_model=schema.SandboxPage, summary="List sandboxes")
async def list_(
    product: ProductOf,
    who: Who,
    status: Annotated[list[str], Query(description="One or more statuses, or `all`; default: the live ones")] = [],  # noqa: B006
    label: Annotated[list[str], Query(description="`key=value`; several must all fit", max_length=64)] = [],  # noqa: B006
    image: Annotated[str | None, Query(max_length=512)] = None,
    name: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """The newest first."""
    wanted = Filter(_statuses(status), labels_of(label), image, name)
    items, following = await product.sandboxes.list(who.workspace, wanted, cursor=cursor, limit=limit)
    return reply({"items": [sandbox_json(item) for item in items], "next": following})


@router.get("/sandboxes/{ref}", response_model=schema.SandboxOut, summary="Show a sandbox")
async def get(sandbox: Target) -> Response:
    """By id, also after its end, or by the name of a live one."""
    return reply(sandbox_json(sandbox))


@router.delete("/sandboxes/{ref}", response_model=schema.SandboxOut, summary="End a sandbox")
async def terminate(ref: Ref, product: ProductOf, who: Who) -> Response:
    """Answers when everything that it held is free. One that has ended is fine."""
    return reply(sandbox_json(await product.sandboxes.terminate(who.workspace, ref)))


@router.patch("/sandboxes/{ref}", response_model=schema.SandboxOut, summary="Change a sandbox")
async def update(ref: Ref, body: schema.UpdateSandbox, product: ProductOf, who: Who) -> Response:
    return reply(sandbox_json(await product.sandboxes.update(who.workspace, ref, body.changes())))


@router.post("/sandboxes/{ref}/pause", response_model=schema.SandboxOut, summary="Pause a sandbox")
async def pause(ref: Ref, product: ProductOf, who: Who) -> Response:
    """It stands still in memory and takes no processor. Its times stand still too. The next call to it wakes it."""
    return reply(sandbox_json(await product.sandboxes.rest(who.workspace, ref, Status.PAUSED)))


@router.post("/sandboxes/{ref}/standby", response_model=schema.SandboxOut, summary="Put a sandbox on standby")
async def standby(ref: Ref, product: ProductOf, who: Who) -> Response:
    """Its memory is on the disk when this answers, and it takes no more of the machine. The next call to it wakes it where it
    was."""
    return reply(sandbox_json(await product.sandboxes.rest(who.workspace, ref, Status.STANDBY)))


@router.post("/sandboxes/{ref}/stop", response_model=schema.SandboxOut, summary="Stop a sandbox")
async def stop(ref: Ref, product: ProductOf, who: Who) -> Response:
    """Its files are on the disk when this answers; what ran in it is gone. The next call to it starts it."""
    return reply(sandbox_json(await product.sandboxes.rest(who.workspace, ref, Status.STOPPED)))


@router.post("/sandboxes/{ref}/resume", response_model=schema.SandboxOut, summary="Resume or start a sandbox")
async def resume(ref: Ref, product: ProductOf, who: Who) -> Response:
    """Answers when it runs, from whatever rest; one that runs is fine."""
    return reply(sandbox_json(await product.sandboxes.resume(who.workspace, ref)))


@router.get("/sandboxes/{ref}/stats", response_model=schema.UsageOut, summary="What a sandbox uses now")
async def stats(ref: Ref, product: ProductOf, who: Who) -> Response:
    return reply(usage_json(await product.sandboxes.usage(who.workspace, ref)))


@router.get("/sandboxes/{ref}/stats/history", response_model=schema.StatsHistory, summary="What a sandbox used lately")
async def stats_history(
    ref: Ref,
    product: ProductOf,
    who: Who,
    since: Annotated[float, Query(ge=0, allow_inf_nan=False, description="Seconds since 1970")] = 0.0,
) -> Response:
    """Points from `since` on, the oldest first: one a minute for a day, those of the last hour closer together. Of a running
    one, since this server started."""
    sandbox = await product.sandboxes.running(who.workspace, ref)
    history = product.usage.history
    points = history.of(sandbox.id, since=since)
    return reply({"every": history.every, "items": [asdict(point) for point in points]})


@router.get("/sandboxes/{ref}/logs", response_model=schema_events.LogsOut, summary="What happened in a sandbox")
async def logs(
    sandbox: Target,
    product: ProductOf,
    who: Who,
    limit: Annotated[int, Query(ge=1, le=1 << 20, description="Bytes of each output")] = _LOG_BYTES,
) -> Response:
    """Its newest events, the oldest first, and the end of what its newest processes wrote; after its end 32 KiB of each, for as
    long as they are kept."""
    newest, _ = await product.events.page(who.workspace, EventFilter(sandbox.id), limit=_LOG_EVENTS)
    events = [event_json(event) for event in reversed(newest)]
    if sandbox.status is not Status.RUNNING:
        kept = sandbox.ended is not None or sandbox.status.on_disk
        last = [tail_json(tail, limit) for tail in await product.sandboxes.last_words(sandbox)] if kept else []
        return reply({"events": events, "processes": last})
    guest = await product.sandboxes.guest(who.workspace, sandbox.id)
    found = await tails(guest, sandbox.id, product.readers, limit=limit)
    return reply({"events": events, "processes": [tail_json(tail) for tail in found]})


def _statuses(words: list[str]) -> tuple[Status, ...] | None:
    if _ALL in words:
        return None
    try:
        return tuple(Status(word) for word in words)
    except ValueError:
        raise InvalidArgument(f"status is {_ALL} or one of {', '.join(Status)}") from None
