"""Routes of the server itself."""

import os
from typing import Protocol

from fastapi import APIRouter, Request
from starlette.responses import Response

import belljar
from belljar.control.keys import DEFAULT_WORKSPACE
from belljar.front.native import schema
from belljar.front.native.gate import principal_of
from belljar.front.native.metrics import CONTENT_TYPE
from belljar.front.native.render import reply
from belljar.front.native.route import CHECKED, ProductOf, Who
from belljar.model.errors import NotSupported, PermissionDenied

__all__ = ("Listener", "health_router", "metrics_router", "router")


class Listener(Protocol):
    """The server's TCP listener, open or not."""

    @property
    def key_file(self) -> str: ...

    async def open(self) -> tuple[str, bool]:
        """Its address, and whether this opened it. Raises Conflict, InvalidArgument."""
        ...


health_router = APIRouter(tags=["server"], dependencies=CHECKED)
metrics_router = APIRouter(tags=["server"], dependencies=CHECKED)
router = APIRouter(prefix="/v1", tags=["server"], dependencies=CHECKED)


@health_router.get("/health", response_model=schema.HealthOut, summary="Whether the server answers")
async def health() -> Response:
    """Needs no key."""
    return reply({"status": "ok", "version": belljar.__version__, "pid": os.getpid()})


@router.get("/info", response_model=schema.InfoOut, summary="What this server has and can do")
async def info(product: ProductOf) -> Response:
    node = await product.sandboxes.node()
    return reply(
        {
            "version": belljar.__version__,
            "api": 1,
            "engine": node.engine,
            "engine_build": node.engine_build,
            "images": list(node.images),
            "capabilities": dict(node.capabilities),
        }
    )


@metrics_router.get("/metrics", response_class=Response, summary="Numbers for Prometheus")
async def metrics(request: Request, who: Who) -> Response:
    """In the text format 0.0.4, for keys of the workspace `default`: the numbers are those of all workspaces."""
    if who.workspace != DEFAULT_WORKSPACE:
        raise PermissionDenied("the server's numbers are for its operators", hint="belljar workspace show")
    return Response(await request.app.state.metrics.text(), headers={"content-type": CONTENT_TYPE})


@router.post("/listener", response_model=schema.ListenerOut, summary="Have the server listen on TCP")
async def listener(body: schema.Listen, request: Request) -> Response:
    """Only through the unix socket. Where the server does not listen on TCP it opens a port on loopback, asks for a key there,
    and no longer leaves when it is idle; else this only says where it listens. `key_file`: its first key, for its owner."""
    if not principal_of(request.scope).local:
        raise PermissionDenied("only who is at the unix socket may have the server listen")
    listener: Listener | None = request.app.state.listener
    if listener is None:
        raise NotSupported("this server has no way to listen")
    url, opened = await listener.open()
    return reply({"url": url, "key_file": listener.key_file, "opened": opened})


@router.post("/shutdown", response_model=schema.Empty, summary="End the server")
async def shutdown(body: schema.Shutdown, product: ProductOf, request: Request) -> Response:
    """Only through the unix socket. Without `sandboxes` they stay, and the next server goes on with them."""
    if not principal_of(request.scope).local:
        raise PermissionDenied("the server is ended only through its unix socket")
    if body.sandboxes:
        await product.sandboxes.terminate_all()
    request.app.state.shut_down()
    return reply({})
