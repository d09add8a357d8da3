"""Routes of snapshots, and of who came from whom."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from belljar.control.sandboxes import MAX_PAGE
from belljar.control.store.snapshots import SnapshotFilter
from belljar.front.native import schema, schema_snapshots
from belljar.front.native.render import reply
from belljar.front.native.render_snapshots import node_json, path_change_json, snapshot_json
from belljar.front.native.route import BINARY_BODY, CHECKED, ProductOf, Ref, Who, binary, labels_of
from belljar.front.native.stream import Streaming, close, first_of
from belljar.model.snapshot import CHANGES_PAGE, SnapshotKind

__all__ = ("router",)

router = APIRouter(prefix="/v1", tags=["snapshots"], dependencies=CHECKED)
_OCTETS = "application/octet-stream"
SnapshotRef = Annotated[str, Path(description="The id or the name of a snapshot.", max_length=128)]
_Name = Annotated[str | None, Query(max_length=64)]


@router.post(
    "/sandboxes/{ref}/snapshots",
    status_code=201,
    response_model=schema_snapshots.SnapshotOut,
    summary="Take a snapshot",
)
async def create(ref: Ref, body: schema_snapshots.CreateSnapshot, product: ProductOf, who: Who) -> Response:
    """Answers when it is durable; the sandbox goes on."""
    made = await product.snapshots.create(who.workspace, ref, body.spec(), id=body.id)
    return reply(snapshot_json(made), 201, made=f"/v1/snapshots/{made.id}")


@router.get("/snapshots", response_model=schema_snapshots.SnapshotPage, summary="List snapshots")
async def list_(
    product: ProductOf,
    who: Who,
    kind: Annotated[SnapshotKind | None, Query()] = None,
    sandbox: Annotated[str | None, Query(max_length=64, description="Id of the sandbox they were taken of")] = None,
    label: Annotated[list[str], Query(description="`key=value`; several must all fit", max_length=64)] = [],  # noqa: B006
    image: Annotated[str | None, Query(max_length=512)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """The newest first."""
    wanted = SnapshotFilter(kind, sandbox, image, labels_of(label))
    items, following = await product.snapshots.list(who.workspace, wanted, cursor=cursor, limit=limit)
    return reply({"items": [snapshot_json(item) for item in items], "next": following})


@router.post(
    "/snapshots/import",
    status_code=201,
    response_model=schema_snapshots.SnapshotOut,
    openapi_extra=BINARY_BODY,
    summary="Bring in a snapshot",
)
async def import_(
    product: ProductOf,
    who: Who,
    request: Request,
    id: Annotated[str | None, Query(max_length=64, description="Chosen by the caller, as at its creation")] = None,
    name: _Name = None,
    label: Annotated[list[str], Query(description="`key=value`", max_length=64)] = [],  # noqa: B006
    ttl: Annotated[float | None, Query(gt=0, description="Seconds")] = None,
) -> Response:
    """The bytes of an export, of any size. What is torn or foreign is refused, and nothing of it is kept."""
    labels = labels_of(label)
    made = await product.snapshots.import_(who.workspace, _body(request), id=id, name=name, labels=labels, ttl=ttl)
    return reply(snapshot_json(made), 201, made=f"/v1/snapshots/{made.id}")


@router.get("/snapshots/{ref}", response_model=schema_snapshots.SnapshotOut, summary="Show a snapshot")
async def get(ref: SnapshotRef, product: ProductOf, who: Who) -> Response:
    return reply(snapshot_json(await product.snapshots.get(who.workspace, ref)))


@router.patch("/snapshots/{ref}", response_model=schema_snapshots.SnapshotOut, summary="Change a snapshot")
async def update(ref: SnapshotRef, body: schema_snapshots.UpdateSnapshot, product: ProductOf, who: Who) -> Response:
    return reply(snapshot_json(await product.snapshots.update(who.workspace, ref, body.changes())))


@router.delete("/snapshots/{ref}", response_model=schema.Empty, summary="Delete a snapshot")
async def delete(ref: SnapshotRef, product: ProductOf, who: Who) -> Response:
    """What was made from it goes on. By its id one that has gone is fine."""
    await product.snapshots.delete(who.workspace, ref)
    return reply({})


@router.get("/snapshots/{ref}/diff", response_model=schema_snapshots.ChangePage, summary="What a snapshot changed")
async def diff(
    ref: SnapshotRef,
    product: ProductOf,
    who: Who,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=CHANGES_PAGE)] = CHANGES_PAGE,
) -> Response:
    """On its image, in the order of paths; of a directory snapshot all that it holds."""
    items, following = await product.snapshots.changes(who.workspace, ref, cursor=cursor, limit=limit)
    return reply({"items": [path_change_json(item) for item in items], "next": following})


@router.get(
    "/snapshots/{ref}/export",
    response_class=Response,
    responses=binary(_OCTETS, "One file with all of it, for `import`"),
    summary="Carry a snapshot away",
)
async def export(ref: SnapshotRef, product: ProductOf, who: Who) -> Response:
    """A body without its end broke off: an import refuses it."""
    record, pieces = await product.snapshots.export(who.workspace, ref)
    first = await first_of(pieces)
    answer = Streaming(_all(first, pieces), media_type=_OCTETS)
    answer.headers["content-disposition"] = f'attachment; filename="{record.id}.belljar"'
    return answer


@router.get("/lineage", response_model=schema_snapshots.LineageOut, summary="Who came from whom")
async def lineage(
    product: ProductOf,
    who: Who,
    ref: Annotated[str | None, Query(max_length=128, description="Id or name of a sandbox or a snapshot")] = None,
) -> Response:
    """All with a common origin, parents before their children; without `ref` all that is there now, and where it came from."""
    family = await product.lineage.of(who.workspace, ref)
    return reply({"items": [node_json(node) for node in family.nodes], "whole": family.whole})


async def _all(first: bytes | None, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        if first is not None:
            yield first
            async for piece in rest:
                yield piece
    finally:
        await close(rest)


async def _body(request: Request) -> AsyncIterator[bytes]:
    async for piece in request.stream():
        if piece:
            yield piece
