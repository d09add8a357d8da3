"""The application: routes, errors, gate, and a description made when somebody asks for it."""

import json
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.types import ASGIApp

import belljar
from belljar.control.product import Product
from belljar.front.native import (
    audit,
    backup,
    branches,
    code,
    events,
    files,
    keys,
    processes,
    sandboxes,
    snapshots,
    system,
    templates,
    usage,
    workspaces,
)
from belljar.front.native.errors import add_error_handlers, error_headers, error_json, status_of
from belljar.front.native.gate import Gate
from belljar.front.native.metrics import Metrics
from belljar.front.native.route import template_at
from belljar.front.native.schema import ErrorBody
from belljar.front.native.witness import Witness
from belljar.model.errors import Error

__all__ = ("native_app", "native_routes")


def native_app(
    product: Product, shut_down: Callable[[], None], metrics: Metrics, listener: system.Listener | None = None
) -> ASGIApp:
    """`shut_down` only asks for the end; it returns at once. `listener`: what can be opened later."""
    app = native_routes()
    app.state.product = product
    app.state.shut_down = shut_down
    app.state.metrics = metrics
    app.state.listener = listener
    witness = Witness(
        product.audit, product.sandboxes.id_of, lambda scope: template_at(app, scope["method"], scope["path"])
    )
    return Gate(app, product.keys, product.quotas, metrics, witness, _refusal)


def native_routes() -> FastAPI:
    """Without anything behind them: enough for the OpenAPI."""
    app = FastAPI(
        title="Belljar",
        version=belljar.__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=None,
        # Our own spans say less: its would hold addresses, and what errors say.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    add_error_handlers(app)
    for router in (
        system.health_router,
        system.metrics_router,
        system.router,
        sandboxes.router,
        snapshots.router,
        branches.router,
        templates.router,
        processes.router,
        code.router,
        files.router,
        keys.router,
        workspaces.router,
        audit.router,
        backup.router,
        usage.router,
        events.router,
    ):
        # Not include_router, which analyses every route a second and a third time: 100 ms until the first answer.
        app.router.routes.extend(router.routes)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _refusal(error: Error, request_id: str) -> tuple[int, dict[str, str], bytes]:
    return status_of(error), error_headers(error), json.dumps({"error": error_json(error, request_id)}).encode()


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        app.openapi_schema = _described(app)
    return app.openapi_schema


def _described(app: FastAPI) -> dict[str, Any]:
    """The framework's description with our form of errors, on every route, instead of its own."""
    said = get_openapi(title=app.title, version=app.version, routes=app.routes, summary="Sandboxes inside gVisor")
    schemas = said["components"]["schemas"]
    form = ErrorBody.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(form.pop("$defs"), ErrorBody=form)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    error = {
        "description": "An error; `code` is for programs, `message` and `hint` are for people",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}, "example": _EXAMPLE}},
        "headers": {
            "x-request-id": {"schema": {"type": "string"}},
            "retry-after": {"schema": {"type": "integer", "minimum": 0}, "description": "`retry_after`, rounded up"},
        },
    }
    for path in said["paths"].values():
        for route in path.values():
            route["responses"].pop("422", None)
            route["responses"]["4XX"] = route["responses"]["5XX"] = error
    said["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    said["security"] = [{"key": []}]
    said["paths"]["/health"]["get"]["security"] = []
    return said


_EXAMPLE = {
    "error": {
        "code": "sandbox_gone",
        "message": "sandbox sb01kxyz is gone: terminated at 2026-01-31 12:00:00 UTC, lifetime",
        "retryable": False,
        "request_id": "5f1c0d9a7be34412",
    }
}
