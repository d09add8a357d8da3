"""The one translation of errors into HTTP."""

import json
import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from belljar.base.log import get_logger
from belljar.base.telemetry import trace_id
from belljar.front.native.gate import request_id_of
from belljar.front.native.route import methods_at
from belljar.front.native.witness import note_error
from belljar.model.errors import Error, Internal, InvalidArgument, NotFound, NotSupported, TooLarge

__all__ = ("STATUSES", "add_error_handlers", "error_headers", "error_json", "status_of")

_log = get_logger("front.native")
_SHOWN = 5
STATUSES = {
    "invalid_argument": 400,
    "unauthenticated": 401,
    "permission_denied": 403,
    "policy_denied": 403,
    "not_found": 404,
    "image_not_found": 404,
    "sandbox_gone": 404,
    "conflict": 409,
    "already_exists": 409,
    "too_large": 413,
    "snapshot_corrupt": 422,
    "snapshot_incompatible": 422,
    "template_failed": 422,
    "limit_exceeded": 429,
    "cancelled": 499,
    "engine_failed": 500,
    "internal": 500,
    "not_supported": 501,
    "no_capacity": 503,
    "starting": 503,
    "timeout": 504,
    "disk_full": 507,
}


def status_of(error: Error) -> int:
    return STATUSES.get(error.code, 500)


def error_json(error: Error, request_id: str) -> dict[str, Any]:
    """``{code, message, hint?, retryable, retry_after?, request_id, trace_id?}``."""
    said: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.hint:
        said["hint"] = error.hint
    said["retryable"] = error.retryable
    if error.retry_after is not None:
        said["retry_after"] = error.retry_after
    said["request_id"] = request_id
    if (trace := trace_id()) is not None:
        said["trace_id"] = trace
    return said


def error_headers(error: Error) -> dict[str, str]:
    """What HTTP has headers for: how to say who one is, and in how many whole seconds to try again."""
    headers: dict[str, str] = {}
    if error.code == "unauthenticated":
        headers["www-authenticate"] = "Bearer"
    if error.retry_after is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after))
    return headers


def add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(Error, _belljar)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _left)
    app.add_exception_handler(Exception, _unexpected)


def _response(error: Error, request: Request, status: int | None = None) -> Response:
    note_error(request.scope, error.code)
    body = json.dumps({"error": error_json(error, request_id_of(request.scope))})
    return Response(body, status or status_of(error), media_type="application/json", headers=error_headers(error))


async def _belljar(request: Request, error: Exception) -> Response:
    assert isinstance(error, Error)
    return _response(error, request)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    said = [_problem(problem) for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        said.append(f"and {len(problems) - _SHOWN} more")
    return _response(InvalidArgument("; ".join(said)), request)


def _problem(problem: dict[str, Any]) -> str:
    """Where and what, never the value: it may be a secret, or a megabyte."""
    where, *names = (str(part)[:80] for part in problem["loc"])
    what = str(problem["msg"]).removeprefix("Value error, ")[:400]
    if problem["type"] == "json_invalid":
        return f"the body is not JSON: {problem.get('ctx', {}).get('error', what)}"
    if problem["type"] == "extra_forbidden":
        return f"unknown field {'.'.join(names)}"
    return f"{'.'.join(names) or where}: {what}"


async def _http(request: Request, error: Exception) -> Response:
    """What the router says by itself, and what reading a body came to."""
    assert isinstance(error, HTTPException)
    cause = error.__cause__
    if isinstance(cause, Error):
        return _response(cause, request)
    if isinstance(cause, ClientDisconnect):
        return await _left(request, cause)
    if error.status_code == 404:
        return _response(NotFound(f"no such address: {request.url.path[:200]}"), request)
    if error.status_code == 405:
        allowed = ", ".join(sorted(methods_at(request.app, request.url.path)))
        response = _response(
            NotSupported(f"{request.method} is not for this address", hint=f"allowed: {allowed}"), request, 405
        )
        response.headers["allow"] = allowed
        return response
    if error.status_code == 413:
        return _response(TooLarge("the body is too large"), request)
    return _response(InvalidArgument("the body cannot be read: it is not JSON in UTF-8"), request)


async def _left(request: Request, error: Exception) -> Response:
    """Nobody hears this."""
    return Response(status_code=499)


async def _unexpected(request: Request, error: Exception) -> Response:
    _log.error("a request failed", path=request.url.path, request_id=request_id_of(request.scope), exc_info=error)
    return _response(Internal("something went wrong inside the server", hint="its log has the details"), request)
