"""The route that carries the whole state away."""

from collections.abc import AsyncIterator

from fastapi import APIRouter
from starlette.responses import Response

from belljar.front.native import schema
from belljar.front.native.route import CHECKED, ProductOf, Who, binary
from belljar.front.native.stream import Streaming, close, first_of
from belljar.model.errors import PermissionDenied

__all__ = ("router",)

router = APIRouter(prefix="/v1", tags=["server"], dependencies=CHECKED)
_ZSTD = "application/zstd"
PATIENCE_SECONDS = 300.0
"""With a client that takes nothing: as long as a backup lasts, nothing that is deleted frees its room."""


@router.post(
    "/backup",
    response_class=Response,
    responses=binary(_ZSTD, "A tar packed with zstd, for `belljar restore`"),
    summary="Carry the whole state away",
)
async def backup(body: schema.Backup, product: ProductOf, who: Who) -> Response:
    """All workspaces, keys, snapshots, templates and the audit log, for operators: admin keys of the workspace `default`.

    A body without its end broke off: a restore refuses it.
    """
    if not who.operates:
        raise PermissionDenied("a backup has all workspaces in it: it is for the server's operators")
    pieces = product.backups.make(with_keys=body.with_keys, content=body.content)
    first = await first_of(pieces)
    answer = Streaming(_all(first or b"", pieces), media_type=_ZSTD, patience=PATIENCE_SECONDS)
    answer.headers["content-disposition"] = 'attachment; filename="belljar.tar.zst"'
    return answer


async def _all(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        if first:
            yield first
        async for piece in rest:
            if piece:
                yield piece
    finally:
        await close(rest)
