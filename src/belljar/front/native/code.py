"""Routes of contexts: code that runs with its state kept."""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from belljar.front.native import schema, schema_code
from belljar.front.native.bodies import MostlyText
from belljar.front.native.errors import error_json
from belljar.front.native.gate import request_id_of
from belljar.front.native.render import context_json, reply
from belljar.front.native.route import CHECKED, Guest, binary
from belljar.front.native.stream import Streaming, close, unless_left
from belljar.model.code import CodeEvent, encode_event
from belljar.model.errors import Error

__all__ = ("router",)

router = APIRouter(prefix="/v1", tags=["code"], dependencies=CHECKED, route_class=MostlyText)
_NDJSON = "application/x-ndjson"
_EVENTS = binary(_NDJSON, "A JSON object a line, the last one of kind `done` or `{error}`; blank lines keep it warm")
ContextId = Annotated[str, Path(max_length=64)]
CallId = Annotated[str, Path(max_length=128)]


@router.post(
    "/sandboxes/{ref}/contexts", status_code=201, response_model=schema_code.ContextOut, summary="Create a context"
)
async def create(body: schema_code.CreateContext, guest: Guest, request: Request) -> Response:
    """Answers when its kernel is ready."""
    made = await unless_left(request.receive, guest.create_context(body.spec()))
    return reply(context_json(made), 201)


@router.get("/sandboxes/{ref}/contexts", response_model=schema_code.ContextList, summary="List contexts")
async def list_(guest: Guest) -> Response:
    return reply({"items": [context_json(context) for context in await guest.contexts()]})


@router.get("/sandboxes/{ref}/contexts/{id}", response_model=schema_code.ContextOut, summary="Show a context")
async def get(id: ContextId, guest: Guest) -> Response:
    return reply(context_json(await guest.context(id)))


@router.delete("/sandboxes/{ref}/contexts/{id}", response_model=schema.Empty, summary="Close a context")
async def close_(id: ContextId, guest: Guest) -> Response:
    """Ends its kernel. One that is not there is fine."""
    await guest.close_context(id)
    return reply({})


@router.post(
    "/sandboxes/{ref}/contexts/{id}/restart", response_model=schema_code.ContextOut, summary="Restart a context"
)
async def restart(id: ContextId, guest: Guest) -> Response:
    """A new kernel; the state and what runs are gone."""
    return reply(context_json(await guest.restart_context(id)))


@router.post(
    "/sandboxes/{ref}/contexts/{id}/execute",
    response_class=Response,
    responses=_EVENTS,
    summary="Run code in a context",
)
async def execute(id: ContextId, body: schema_code.Execute, guest: Guest, request: Request) -> Response:
    """Its events as they come. A client that leaves has 30 s to come back with the same key; then the code is interrupted."""
    create = body.create.spec(id) if body.create else None
    events = guest.execute(id, body.spec(), after=body.after, create=create)
    if create is None:
        await guest.context(id)  # code may be silent for long: say now that there is no such context

    def failure(error: Error) -> bytes:
        return _line({"error": error_json(error, request_id_of(request.scope))})

    return Streaming(_events(events), media_type=_NDJSON, idle=b"\n", failure=failure)


async def _events(events: AsyncIterator[CodeEvent]) -> AsyncIterator[bytes]:
    try:
        async for event in events:
            yield _line(encode_event(event))
    finally:
        await close(events)


@router.post("/sandboxes/{ref}/contexts/{id}/interrupt", response_model=schema.Empty, summary="Interrupt code")
async def interrupt(id: ContextId, body: schema_code.Interrupt, guest: Guest) -> Response:
    """The state stays. Fine when nothing runs."""
    await guest.interrupt(id, body.key)
    return reply({})


@router.post(
    "/sandboxes/{ref}/contexts/{id}/calls/{call}", response_model=schema.Empty, summary="Answer a call of the code"
)
async def answer(id: ContextId, call: CallId, body: schema_code.AnswerCall, guest: Guest) -> Response:
    value, error = body.parts()
    await guest.answer(id, body.key, call, value=value, error=error)
    return reply({})


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
