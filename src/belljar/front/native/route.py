"""What the routes share: their dependencies, and how their answers look in the OpenAPI."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts

from belljar.control.keys import Principal
from belljar.control.product import Product
from belljar.front.native.gate import principal_of
from belljar.front.native.text import PathQuery, check_query
from belljar.model.errors import InvalidArgument
from belljar.model.sandbox import Sandbox, check_labels
from belljar.node.api import GuestApi

__all__ = (
    "BINARY_BODY",
    "CHECKED",
    "Guest",
    "GuestPath",
    "ProcessId",
    "ProductOf",
    "Ref",
    "Target",
    "Who",
    "binary",
    "labels_of",
    "methods_at",
    "template_at",
)

_QUERIES: dict[int, frozenset[str]] = {}


async def _product(request: Request) -> Product:
    return request.app.state.product


async def _who(request: Request) -> Principal:
    return principal_of(request.scope)


ProductOf = Annotated[Product, Depends(_product)]
Who = Annotated[Principal, Depends(_who)]
Ref = Annotated[str, Path(description="The id of a sandbox, or the name of a live one.", max_length=128)]
ProcessId = Annotated[int, Path(ge=0, lt=1 << 63)]


async def _guest(ref: Ref, product: ProductOf, who: Who) -> GuestApi:
    return await product.sandboxes.guest(who.workspace, ref)


async def _target(ref: Ref, product: ProductOf, who: Who) -> Sandbox:
    return await product.sandboxes.get(who.workspace, ref)


Guest = Annotated[GuestApi, Depends(_guest)]
"""The inside of the running sandbox that the address names."""
Target = Annotated[Sandbox, Depends(_target)]
GuestPath = Annotated[str, Depends(PathQuery)]


async def _known_query(request: Request) -> None:
    """A parameter that nobody looks at is a mistake of the caller, who should hear of it."""
    if not request.scope["query_string"]:
        return
    route = request.scope["route"]
    known = _QUERIES.get(id(route))
    if known is None:
        assert isinstance(route, APIRoute)
        known = _QUERIES[id(route)] = frozenset(_queries(route.dependant))
    check_query(known, request)


CHECKED = [Depends(_known_query)]
"""For every router's `dependencies`."""


def _queries(dependant: Dependant) -> Iterator[str]:
    for parameter in dependant.query_params:
        yield parameter.alias
    for inner in dependant.dependencies:
        yield from _queries(inner)


def methods_at(app: FastAPI, path: str) -> set[str]:
    """Of all routes of the address; the framework names only those of the first."""
    return {method for route in _routes_at(app, path) for method in route.methods or ()}


def template_at(app: FastAPI, method: str, path: str) -> str | None:
    """Of the route that answers there, or of one that does for another method; None: there is no such address."""
    found = _routes_at(app, path)
    fitting = [route for route in found if method in (route.methods or ())]
    return next((route.path for route in fitting or found), None)


def _routes_at(app: FastAPI, path: str) -> list[RouteContext]:
    """One with this very path is meant alone."""
    fitting = [route for route in iter_route_contexts(app.routes) if route.path_regex.match(path)]
    return [route for route in fitting if route.path == path] or fitting


def labels_of(pairs: Sequence[str]) -> dict[str, str]:
    """``key=value``, each. Raises InvalidArgument."""
    labels: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InvalidArgument("label is key=value")
        labels[key] = value
    check_labels(labels)
    return labels


def binary(media_type: str, description: str) -> dict[int | str, dict[str, Any]]:
    """For `responses=`: an answer that is not JSON."""
    schema = {"type": "string", "format": "binary"}
    return {200: {"description": description, "content": {media_type: {"schema": schema}}}}


BINARY_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
"""For `openapi_extra=`: a body that is not JSON."""
