"""Routes of workspaces."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import Response

from belljar.control.product import Product
from belljar.front.native import schema_workspaces as schema
from belljar.front.native.render import reply
from belljar.front.native.route import CHECKED, ProductOf, Who
from belljar.model.workspace import Workspace

__all__ = ("router",)

router = APIRouter(prefix="/v1", tags=["workspaces"], dependencies=CHECKED)
_Id = Annotated[str, Path(description="The name of a workspace.", max_length=64)]


@router.post("/workspaces", status_code=201, response_model=schema.WorkspaceOut, summary="Make a workspace")
async def make(body: schema.MakeWorkspace, product: ProductOf, who: Who) -> Response:
    """For operators. A name that was used once is never given again."""
    product.workspaces.check_operator(who)
    made = await product.workspaces.make(body.id, body.quota.quota())
    return reply(workspace_json(product, made), 201, made=f"/v1/workspaces/{made.id}")


@router.get("/workspaces", response_model=schema.WorkspaceList, summary="List workspaces")
async def list_(product: ProductOf, who: Who) -> Response:
    """For operators all of them, by name; for others their own."""
    found = product.workspaces.list() if who.operates else [product.workspaces.get(who, who.workspace)]
    return reply({"items": [workspace_json(product, item) for item in found]})


@router.get("/workspaces/{id}", response_model=schema.WorkspaceOut, summary="Show a workspace")
async def get(id: _Id, product: ProductOf, who: Who) -> Response:
    """Its bounds, and what its live sandboxes hold of them."""
    return reply(workspace_json(product, product.workspaces.get(who, id)))


@router.patch("/workspaces/{id}", response_model=schema.WorkspaceOut, summary="Change a workspace")
async def change(id: _Id, body: schema.ChangeWorkspace, product: ProductOf, who: Who) -> Response:
    """For operators. What lives already stays, also beyond the new bounds."""
    known = product.workspaces.get(who, id)
    product.workspaces.check_operator(who)
    return reply(workspace_json(product, await product.workspaces.change(known.id, body.quota.quota())))


@router.delete("/workspaces/{id}", response_model=schema.WorkspaceOut, summary="Delete a workspace")
async def delete(id: _Id, product: ProductOf, who: Who) -> Response:
    """For operators; an empty one, with its keys."""
    known = product.workspaces.get(who, id)
    product.workspaces.check_operator(who)
    return reply(workspace_json(product, await product.workspaces.delete(known.id)))


def workspace_json(product: Product, workspace: Workspace) -> dict[str, object]:
    return {
        "id": workspace.id,
        "created": workspace.created,
        "ended": workspace.ended,
        "quota": asdict(workspace.quota),
        "use": asdict(product.quotas.use(workspace.id)),
    }
