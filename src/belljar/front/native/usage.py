"""The route of what was used."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from belljar.control.sandboxes import MAX_PAGE
from belljar.front.native import schema_usage as schema
from belljar.front.native.render import reply
from belljar.front.native.route import CHECKED, ProductOf, Who
from belljar.model.usage import entry_json

__all__ = ("router",)

router = APIRouter(prefix="/v1/usage", tags=["usage"], dependencies=CHECKED)
_LATEST = 253_402_300_800
_Time = Annotated[float | None, Query(ge=0, le=_LATEST, allow_inf_nan=False, description="Seconds since 1970")]
_From = Annotated[float | None, Query(alias="from", ge=0, le=_LATEST, allow_inf_nan=False)]


@router.get("", response_model=schema.UsagePage, summary="Tell what was used")
async def list_(
    product: ProductOf,
    who: Who,
    since: _From = None,
    to: _Time = None,
    by: Literal["sandbox", "hour", "workspace"] = "sandbox",
    workspace: Annotated[str | None, Query(max_length=64, description="For operators; none given: all")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    cursor: Annotated[str | None, Query(max_length=64, description="`next` of the page before")] = None,
) -> Response:
    """In all hours that the time from `from` to `to` (seconds since 1970) touches. Sandboxes and hours: the newest first."""
    items, following = await product.usage.report(
        who, by, since=since, until=to, workspace=workspace, cursor=cursor, limit=limit
    )
    return reply({"items": [entry_json(item) for item in items], "next": following})
