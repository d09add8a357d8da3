"""Routes of what branches off a sandbox: fork, rollback, mounts."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from belljar.front.native import schema, schema_snapshots
from belljar.front.native.errors import error_json
from belljar.front.native.gate import request_id_of
from belljar.front.native.render import reply, sandbox_json
from belljar.front.native.route import CHECKED, ProductOf, Ref, Who
from belljar.model.errors import Error
from belljar.model.sandbox import Sandbox

__all__ = ("router",)

router = APIRouter(prefix="/v1/sandboxes/{ref}", tags=["snapshots"], dependencies=CHECKED)


@router.post("/fork", status_code=201, response_model=schema_snapshots.ForkResults, summary="Fork a sandbox")
async def fork(
    ref: Ref, body: schema_snapshots.ForkSandbox, product: ProductOf, who: Who, request: Request
) -> Response:
    """Children that all go on from this moment. Each item is a sandbox that runs, or an error in its place."""
    made = await product.branches.fork(who.workspace, ref, body.fork(), key=who.key)
    return reply({"items": [_result(one, request) for one in made]}, 201)


@router.post("/rollback", response_model=schema.SandboxOut, summary="Go back to a snapshot")
async def rollback(ref: Ref, body: schema_snapshots.Rollback, product: ProductOf, who: Who) -> Response:
    """Whatever runs in it is gone; id, name and lifetime stay. After an error it runs as before."""
    return reply(sandbox_json(await product.branches.rollback(who.workspace, ref, body.snapshot)))


@router.get("/mounts", response_model=schema_snapshots.MountList, summary="List what is mounted")
async def mounts(ref: Ref, product: ProductOf, who: Who) -> Response:
    found = await product.branches.mounts(who.workspace, ref)
    return reply({"items": [{"path": path, "snapshot": snapshot} for path, snapshot in sorted(found.items())]})


@router.put("/mounts", response_model=schema.Empty, summary="Mount a directory snapshot")
async def mount(ref: Ref, body: schema_snapshots.Mount, product: ProductOf, who: Who) -> Response:
    """A private copy, readable and writable. The same snapshot at the same path again is fine."""
    await product.branches.mount(who.workspace, ref, body.snapshot, body.path)
    return reply({})


@router.delete("/mounts", response_model=schema.Empty, summary="Unmount a directory snapshot")
async def unmount(
    ref: Ref, product: ProductOf, who: Who, path: Annotated[str, Query(min_length=1, max_length=4096)]
) -> Response:
    """With all that was written to it."""
    await product.branches.unmount(who.workspace, ref, path)
    return reply({})


def _result(one: Sandbox | Error, request: Request) -> dict[str, Any]:
    if isinstance(one, Error):
        return {"error": error_json(one, request_id_of(request.scope))}
    return {"sandbox": sandbox_json(one)}
