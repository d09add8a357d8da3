"""Routes of the audit log. There is none that changes it."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from belljar.control.sandboxes import MAX_PAGE
from belljar.front.native import schema_audit as schema
from belljar.front.native.render import reply
from belljar.front.native.route import CHECKED, ProductOf, Who, binary
from belljar.front.native.stream import Streaming, close
from belljar.model.audit import AuditEntry, entry_json, entry_line

__all__ = ("router",)

router = APIRouter(prefix="/v1/audit", tags=["audit"], dependencies=CHECKED)
_LINES = "application/x-ndjson"
_Number = Annotated[int | None, Query(ge=1, lt=1 << 63, description="`next` of the page before")]
_Time = Annotated[float | None, Query(ge=0, allow_inf_nan=False, description="Seconds since 1970")]


@router.get("", response_model=schema.AuditPage, summary="List who changed what")
async def list_(
    product: ProductOf,
    who: Who,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    cursor: _Number = None,
    since: _Time = None,
    until: _Time = None,
) -> Response:
    """The newest first, from `since` on and before `until`."""
    items, following = await product.audit.page(who.workspace, before=cursor, since=since, until=until, limit=limit)
    return reply({"items": [entry_json(item) for item in items], "next": following})


@router.get(
    "/export",
    response_class=Response,
    responses=binary(_LINES, "An entry a line, as JSON"),
    summary="Carry the audit log away",
)
async def export(
    product: ProductOf,
    who: Who,
    after: Annotated[int, Query(ge=0, lt=1 << 63, description="Only entries with a greater number")] = 0,
) -> Response:
    """The oldest first. A body without its end broke off: ask again after the last number that came."""
    return Streaming(_lines(product.audit.export(who.workspace, after=after)), media_type=_LINES)


async def _lines(pages: AsyncIterator[list[AuditEntry]]) -> AsyncIterator[bytes]:
    try:
        async for entries in pages:
            yield b"".join(entry_line(entry) for entry in entries)
    finally:
        await close(pages)
