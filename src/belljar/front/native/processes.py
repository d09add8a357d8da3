"""Routes of processes."""

from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from belljar.control.processes import Readers
from belljar.front.native import schema
from belljar.front.native.errors import error_json
from belljar.front.native.gate import request_id_of
from belljar.front.native.render import process_json, reply
from belljar.front.native.route import BINARY_BODY, CHECKED, Guest, ProcessId, ProductOf, Target, binary
from belljar.front.native.stream import Streaming, close, first_of, unless_left
from belljar.model import framing
from belljar.model.errors import Error, Internal
from belljar.model.process import OutputEvent, ProcessInfo, Stream

__all__ = ("router",)

router = APIRouter(prefix="/v1", tags=["processes"], dependencies=CHECKED)
_STDIN_SECONDS = 60.0
_LONGEST_WAIT = 60.0
_FRAMES = binary(framing.CONTENT_TYPE, "Pieces: kind (1 byte), offset (8), length (4), all big endian, then the data")


@router.post("/sandboxes/{ref}/processes", status_code=201, response_model=schema.ProcessOut, summary="Start a process")
async def start(body: schema.StartProcess, guest: Guest) -> Response:
    return reply(process_json(await guest.start(body.spec())), 201)


@router.post(
    "/sandboxes/{ref}/run", response_class=Response, responses=_FRAMES, summary="Start a process and read its output"
)
async def run(body: schema.RunProcess, guest: Guest, sandbox: Target, product: ProductOf, request: Request) -> Response:
    """First the process, then its output, then its exit. A client that leaves does not end the process."""
    spec, input = body.spec(), body.input_bytes()
    events = guest.start_attached(spec, input)
    first = await first_of(events)
    if not isinstance(first, ProcessInfo):
        await close(events)
        raise Internal("the process did not say that it started")
    return _streaming(_run(first, events, product.readers, sandbox.id), request)


async def _run(
    process: ProcessInfo, events: AsyncIterator[ProcessInfo | OutputEvent], readers: Readers, sandbox: str
) -> AsyncIterator[bytes]:
    yield framing.encode(framing.Started(process_json(process)))
    try:
        with readers.reading(sandbox, process.id):
            async for event in events:
                if not isinstance(event, ProcessInfo):
                    yield framing.encode(event)
    finally:
        await close(events)


@router.get("/sandboxes/{ref}/processes", response_model=schema.ProcessList, summary="List processes")
async def list_(guest: Guest) -> Response:
    """Those running, and the newest that ended."""
    return reply({"items": [process_json(process) for process in await guest.processes()]})


@router.get("/sandboxes/{ref}/processes/{id}", response_model=schema.ProcessOut, summary="Show a process")
async def get(id: ProcessId, guest: Guest, by: Annotated[Literal["id", "pid"], Query()] = "id") -> Response:
    """By its id, or the newest with this pid."""
    return reply(process_json(await guest.process(id, by_pid=by == "pid")))


@router.get(
    "/sandboxes/{ref}/processes/{id}/output",
    response_class=Response,
    responses=_FRAMES,
    summary="Read a process's output",
)
async def output(
    id: ProcessId,
    guest: Guest,
    sandbox: Target,
    product: ProductOf,
    request: Request,
    stdout: Annotated[
        int | None, Query(ge=0, lt=1 << 63, description="From this offset on; absent: not this stream")
    ] = None,
    stderr: Annotated[int | None, Query(ge=0, lt=1 << 63)] = None,
) -> Response:
    """To the end, then the exit. A gap between offsets was dropped. Each stream has one reader: the newest."""
    offsets: dict[Stream, int] = {}
    if stdout is not None:
        offsets[Stream.STDOUT] = stdout
    if stderr is not None:
        offsets[Stream.STDERR] = stderr
    await guest.process(id)  # a silent process sends nothing for long: say now that it is not there
    return _streaming(_output(guest.output(id, offsets), product.readers, sandbox.id, id), request)


async def _output(
    events: AsyncIterator[OutputEvent], readers: Readers, sandbox: str, process: int
) -> AsyncIterator[bytes]:
    try:
        with readers.reading(sandbox, process):
            async for event in events:
                yield framing.encode(event)
    finally:
        await close(events)


def _streaming(pieces: AsyncIterator[bytes], request: Request) -> Response:
    def failure(error: Error) -> bytes:
        return framing.encode(framing.Failure(error_json(error, request_id_of(request.scope))))

    return Streaming(pieces, media_type=framing.CONTENT_TYPE, idle=framing.NOTHING, failure=failure)


@router.post(
    "/sandboxes/{ref}/processes/{id}/stdin",
    response_model=schema.OffsetOut,
    openapi_extra=BINARY_BODY,
    summary="Give a process input",
)
async def stdin(
    id: ProcessId,
    guest: Guest,
    request: Request,
    offset: Annotated[
        int, Query(ge=0, lt=1 << 63, description="Of the first byte; bytes taken before are not taken twice")
    ],
    eof: Annotated[bool, Query(description="Close its stdin after this")] = False,
) -> Response:
    """At most 8 MiB. Waits while the process does not read, for 60 s; answers how far it came, maybe less than was given."""
    data = await request.body()
    work = guest.write_stdin(id, offset, data, eof=eof, timeout=_STDIN_SECONDS)
    return reply({"offset": await unless_left(request.receive, work)})


@router.post("/sandboxes/{ref}/processes/{id}/signal", response_model=schema.Empty, summary="Send a signal")
async def send_signal(id: ProcessId, body: schema.SendSignal, guest: Guest) -> Response:
    """With `group` to its whole process group. A process that has ended is fine."""
    await guest.signal(id, body.number(), group=body.group)
    return reply({})


@router.post("/sandboxes/{ref}/processes/{id}/resize", response_model=schema.Empty, summary="Resize a terminal")
async def resize(id: ProcessId, body: schema.Resize, guest: Guest) -> Response:
    await guest.resize(id, body.size())
    return reply({})


@router.post("/sandboxes/{ref}/processes/{id}/detach", response_model=schema.Empty, summary="Leave a process alone")
async def detach(id: ProcessId, guest: Guest) -> Response:
    """Nobody will read its output: it never waits for a reader."""
    await guest.detach(id)
    return reply({})


@router.get("/sandboxes/{ref}/processes/{id}/wait", response_model=schema.ProcessOut, summary="Wait for a process")
async def wait(
    id: ProcessId,
    guest: Guest,
    request: Request,
    timeout: Annotated[float, Query(ge=0, le=_LONGEST_WAIT, allow_inf_nan=False, description="Seconds")] = 30.0,
) -> Response:
    """Answers when it has ended or the time has passed; then `returncode` is null."""
    return reply(process_json(await unless_left(request.receive, guest.wait(id, timeout=timeout))))
