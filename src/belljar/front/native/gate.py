"""What every request passes: its id, who asks and how fast, the bounds of its body. Plain ASGI: 20 µs, streams stay streams."""

import re
import secrets
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from belljar.base.log import get_logger
from belljar.base.telemetry import Span, serving
from belljar.control.keys import LOCAL, Keys, Principal
from belljar.control.quotas import Quotas
from belljar.front.native.bodies import Bounded, Held
from belljar.front.native.metrics import Metrics
from belljar.front.native.witness import ERROR, LOOKS, Witness, note_error
from belljar.model.errors import Error, InvalidArgument
from belljar.model.key import Scope as KeyScope

__all__ = ("LISTENER", "Gate", "Refusal", "principal_of", "request_id_of")

LISTENER = "belljar.listener"
"""In the scope: `unix` or `tcp`, set by the server for each of its sockets. Anything but `unix` needs a key."""
_PRINCIPAL = "belljar.principal"
_REQUEST_ID = "belljar.request_id"
_GOOD_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_OPEN = frozenset({"/health"})
_ADMINISTRATION = re.compile(r"/v1/(keys|workspaces|audit|backup)(/|$)")
_log = get_logger("front.native")

Refusal = Callable[[Error, str], tuple[int, dict[str, str], bytes]]
"""Gives status, headers and body for an error, in the form of the API."""


class Gate:
    """Wraps the application. Bodies stay within the bound of their address; one that comes too slowly is left.

    `witness` is told of every change that somebody who is known asks for, also of one that is refused here, unless they ask
    faster than they may.
    """

    def __init__(
        self, app: ASGIApp, keys: Keys, quotas: Quotas, metrics: Metrics, witness: Witness, refusal: Refusal
    ) -> None:
        self._app = app
        self._keys = keys
        self._quotas = quotas
        self._metrics = metrics
        self._refusal = refusal
        self._witness = witness
        self._held = Held()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict[bytes, bytes](scope["headers"])
        with serving("request", headers) as span:
            await self._answer(scope, receive, send, headers, span)

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes], span: Span
    ) -> None:
        given = headers.get(b"x-request-id", b"")
        request_id = given.decode() if _GOOD_ID.fullmatch(given) else secrets.token_hex(8)
        scope[_REQUEST_ID] = request_id
        started, began = False, time.monotonic()
        given_up = False
        watch = None
        bounded: Bounded | None = None

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.answered(scope, message["status"], time.monotonic() - began)
                _tell(span, scope, message["status"])
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        async def answer(message: Message) -> None:
            nonlocal started, given_up
            if message["type"] == "http.response.start":
                started = True
                try:
                    if watch is not None:
                        await watch.begins(message)
                except Error as error:
                    given_up = True
                    await self._refuse(error, request_id, send_marked)
            if not given_up:
                await send_marked(message)

        try:
            scope[_PRINCIPAL] = who = self._who(scope, headers)
            if who is not None:
                watch = self._witness.watch(scope, who, str(scope.get(LISTENER)), request_id)
                who.require(_needed(scope))
            bounded = Bounded(receive, scope, headers.get(b"content-length"), self._held)
            await self._app(scope, bounded, answer)
        except Error as error:
            if not started:
                note_error(scope, error.code)
                await self._refuse(error, request_id, answer)
        except Exception as error:  # noqa: BLE001 (the request's boundary; the application has answered and said so in the log)
            if not started:
                _log.error("a request failed", path=scope["path"], request_id=request_id, exc_info=error)
        finally:
            if watch is not None:
                watch.ends()
            if bounded is not None:
                bounded.done()

    def _who(self, scope: Scope, headers: dict[bytes, bytes]) -> Principal | None:
        if scope.get(LISTENER) == "unix":
            return LOCAL
        if scope["path"] in _OPEN:
            return None
        kind, _, key = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        who = self._keys.check(key.strip() if kind.lower() == "bearer" and key.strip() else None)
        self._quotas.admit_request(who)
        return who

    async def _refuse(self, error: Error, request_id: str, send: Send) -> None:
        status, own, body = self._refusal(error, request_id)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        headers += [(name.encode(), value.encode()) for name, value in own.items()]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _tell(span: Span, scope: Scope, status: int) -> None:
    """Its route, never its address: that may hold a path."""
    route = getattr(scope.get("route"), "path", None)
    method = scope["method"] if route is not None else "_OTHER"
    span.name(f"{method} {route or 'none'}")
    span.set("http.request.method", method)
    if route is not None:
        span.set("http.route", route)
    span.set("http.response.status_code", status)
    span.set("belljar.request_id", request_id_of(scope))
    who = scope.get(_PRINCIPAL)
    if isinstance(who, Principal):
        span.set("belljar.workspace", who.workspace)
    if status >= 500:
        span.failed(str(scope.get(ERROR) or status))


def _needed(scope: Scope) -> KeyScope:
    """What a key must be allowed to: its method tells, except where keys are made and the audit log or all state is read."""
    if _ADMINISTRATION.match(scope["path"]):
        return KeyScope.ADMIN
    return KeyScope.READ if scope["method"] in LOOKS else KeyScope.RUN


def principal_of(scope: Scope) -> Principal:
    who = scope.get(_PRINCIPAL)
    if not isinstance(who, Principal):
        raise InvalidArgument("nobody asks")
    return who


def request_id_of(scope: Scope) -> str:
    return str(scope.get(_REQUEST_ID, ""))
