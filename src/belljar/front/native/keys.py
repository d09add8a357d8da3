"""Routes of API keys."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from belljar.control.sandboxes import MAX_PAGE
from belljar.front.native import schema_keys as schema
from belljar.front.native.render import reply
from belljar.front.native.route import CHECKED, ProductOf, Who
from belljar.model.key import Key

__all__ = ("router",)

router = APIRouter(prefix="/v1", tags=["keys"], dependencies=CHECKED)
_Id = Annotated[str, Path(description="The id of a key.", max_length=64)]


@router.post("/keys", status_code=201, response_model=schema.MadeKeyOut, summary="Make a key")
async def make(body: schema.MakeKey, product: ProductOf, who: Who) -> Response:
    """`secret` is the key; it is shown this once."""
    workspace = who.workspace
    if body.workspace is not None and body.workspace != workspace:
        product.workspaces.check_operator(who)
        workspace = product.workspaces.get(who, body.workspace).id
    key, secret = await product.workspaces.make_key(
        workspace, body.name, scope=body.scope_of(), ttl=body.ttl, quota=body.quota.quota()
    )
    return reply(key_json(key) | {"secret": secret}, 201, made=f"/v1/keys/{key.id}")


@router.get("/keys", response_model=schema.KeyPage, summary="List keys")
async def list_(
    product: ProductOf,
    who: Who,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """The newest first, also those that are revoked or expired."""
    items, following = await product.keys.list(who.workspace, cursor=cursor, limit=limit)
    return reply({"items": [key_json(item) for item in items], "next": following})


@router.get("/keys/{id}", response_model=schema.KeyOut, summary="Show a key")
async def get(id: _Id, product: ProductOf, who: Who) -> Response:
    return reply(key_json(await product.keys.get(who.workspace, id)))


@router.delete("/keys/{id}", response_model=schema.KeyOut, summary="Revoke a key")
async def revoke(id: _Id, product: ProductOf, who: Who) -> Response:
    """From the answer on nobody gets in with it. One that was revoked before is fine."""
    return reply(key_json(await product.keys.revoke(who.workspace, id)))


def key_json(key: Key) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "scope": key.scope.value,
        "created": key.created,
        "expires": key.expires,
        "used": key.used,
        "revoked": key.revoked,
        "workspace": key.workspace,
        "quota": asdict(key.quota),
    }
