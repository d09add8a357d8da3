"""Traces, as a collector gets them over HTTP: whole, without secrets, and never in anybody's way."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.api.collector import Collector, attributes_of, collecting
from tests.api.conftest import Front
from tests.api.process import ServerProcess, wipe
from tests.api.test_keys import ROUTES, client, filled, key_of, status

import belljar.server
from belljar.base.log import get_logger, set_up_logging
from belljar.base.tasks import wait_until
from belljar.base.telemetry import serving, span, trace_id
from belljar.model.errors import EngineFailed, InvalidArgument
from belljar.model.key import Scope
from belljar.server.settings import Settings
from belljar.server.tracing import traced

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = bytes.fromhex("0af7651916cd43dd8448eb211c80319c")
SECRET = "5ecre7-of-the-caller"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def collector() -> AsyncGenerator[Collector]:
    """Of this process's own spans."""
    with collecting() as found:
        async with traced(Settings(otel_endpoint=found.url)):
            yield found


async def until(collector: Collector, name: str, count: int = 1) -> list[Span]:
    async def there() -> bool:
        return len(collector.named(name)) >= count

    assert await wait_until(there, timeout=20), sorted(span.name for span in collector.spans())
    return collector.named(name)


async def test_a_request_and_its_steps_are_one_trace_of_the_caller(collector: Collector, front: Front):
    made = await front.http.post("/v1/sandboxes", json={}, headers={"traceparent": PARENT, "x-request-id": "r-1"})
    (request,) = await until(collector, "POST /v1/sandboxes")
    (create,) = await until(collector, "sandbox.create")
    assert (request.trace_id, request.parent_span_id) == (TRACE, bytes.fromhex("b7ad6b7169203331"))
    assert request.kind == Span.SPAN_KIND_SERVER
    assert (create.trace_id, create.parent_span_id) == (TRACE, request.span_id)
    assert attributes_of(request) == {
        "http.request.method": "POST",
        "http.route": "/v1/sandboxes",
        "http.response.status_code": 201,
        "belljar.request_id": "r-1",
        "belljar.workspace": "default",
    }
    assert attributes_of(create) == {"belljar.sandbox": made.json()["id"]}
    assert request.start_time_unix_nano <= create.start_time_unix_nano <= create.end_time_unix_nano
    assert collector.services() == {"belljar"}
    assert set(collector.paths) == {"/v1/traces"}


async def test_verbs_have_their_spans(collector: Collector, front: Front):
    made = await front.sandbox()
    at = f"/v1/sandboxes/{made['id']}"
    kept = (await front.http.post(f"{at}/snapshots", json={"memory": True})).json()
    await front.http.post(f"{at}/fork", json={"count": 3})
    await front.http.delete(at)
    assert attributes_of((await until(collector, "snapshot.create"))[0]) == {
        "belljar.snapshot": kept["id"],
        "belljar.kind": "memory",
    }
    (fork,) = await until(collector, "sandbox.fork")
    assert attributes_of(fork) == {"belljar.sandbox": made["id"], "belljar.count": 3}
    (end,) = await until(collector, "sandbox.terminate")
    (request,) = await until(collector, "DELETE /v1/sandboxes/{ref}")
    assert end.parent_span_id == request.span_id


async def test_an_error_names_its_trace_and_the_trace_its_code_and_nothing_more(collector: Collector, front: Front):
    front.node.failure = EngineFailed(f"no room for {SECRET}")
    answer = await front.http.post("/v1/sandboxes", json={})
    error = answer.json()["error"]
    (request,) = await until(collector, "POST /v1/sandboxes")
    (create,) = await until(collector, "sandbox.create")
    assert error["trace_id"] == request.trace_id.hex() == create.trace_id.hex()
    assert attributes_of(request)["error.type"] == attributes_of(create)["error.type"] == "engine_failed"
    assert request.status.code == create.status.code == Status.STATUS_CODE_ERROR
    assert not create.events and not create.status.message
    assert (await front.http.get("/v1/nothing")).json()["error"]["trace_id"]
    (unknown,) = await until(collector, "_OTHER none")
    assert "http.route" not in attributes_of(unknown)
    assert unknown.status.code == Status.STATUS_CODE_UNSET, "what the caller did wrong is no failure of the server"


async def test_no_word_of_the_caller_leaves_the_machine(collector: Collector, front: Front):
    """Every route, with a secret in each place that a caller can fill."""
    secret = await key_of(front, Scope.ADMIN)
    made = await front.sandbox(name="box", env={"TOKEN": SECRET}, labels={"a": SECRET}, user="u")
    headers = {"cookie": SECRET, "user-agent": SECRET, "baggage": f"a={SECRET}", "tracestate": f"a={SECRET}"}
    body = {"command": f"echo {SECRET}", "argv": [SECRET], "code": SECRET, "path": f"/{SECRET}", "name": SECRET}
    async with client(front, secret) as http:
        http.headers.update(headers)
        for method, path in ROUTES:
            if path in ("/v1/shutdown", "/v1/events/follow") or path.endswith(("/watch", "/output")):
                continue
            where = f"{filled(path, str(made['id']))}?path=/{SECRET}"
            await status(http, method, where)
            if method != "GET":
                await http.request(method, where, json=body)
        await http.post("/v1/sandboxes/box/run", json={"command": f"echo {SECRET}", "env": {"A": SECRET}})
        await http.put("/v1/sandboxes/box/files/content", params={"path": f"/{SECRET}"}, content=SECRET.encode())
        await http.request(SECRET, f"/v1/{SECRET}")
    await until(collector, "POST /v1/sandboxes/{ref}/run", 2)
    await until(collector, "PUT /v1/sandboxes/{ref}/files/content", 2)
    everything = b"".join(collector.bodies)
    assert len(collector.spans()) > 100
    assert SECRET.encode() not in everything
    assert secret.encode() not in everything


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "x",
        "00-" + "0" * 32 + "-" + "0" * 16 + "-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        PARENT + "-more",
        PARENT.upper(),
        "00-" + "g" * 32 + "-b7ad6b7169203331-01",
        "0" * 10_000,
        "\xff\xfe",
    ],
)
async def test_a_trace_context_that_is_none_begins_a_new_trace(collector: Collector, front: Front, parent: str):
    headers = {b"traceparent": parent.encode("latin-1"), b"tracestate": b"a=b," * 500}
    assert (await front.http.get("/v1/info", headers=headers)).status_code == 200
    (request,) = await until(collector, "GET /v1/info")
    assert request.parent_span_id == b""
    assert request.trace_id != bytes(16)


async def test_requests_at_once_do_not_mix(collector: Collector, front: Front):
    parents = [f"00-{number:032x}-{number:016x}-01" for number in range(1, 31)]
    await asyncio.gather(
        *(front.http.post("/v1/sandboxes", json={}, headers={"traceparent": parent}) for parent in parents)
    )
    creates = {span.trace_id: span for span in await until(collector, "sandbox.create", 30)}
    requests = {span.trace_id: span for span in await until(collector, "POST /v1/sandboxes", 30)}
    assert len(creates) == len(requests) == 30
    assert all(creates[trace].parent_span_id == requests[trace].span_id for trace in requests)


async def test_a_line_of_the_log_names_the_trace_while_it_is_open(
    collector: Collector, capsys: pytest.CaptureFixture[str]
):
    set_up_logging("info", json=True)
    log = get_logger("test")
    with serving("request", {b"traceparent": PARENT.encode()}):
        assert trace_id() == TRACE.hex()
        log.info("inside")
        later = asyncio.create_task(asyncio.sleep(0.05))
    log.info("outside")
    await later
    inside, outside = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert inside["trace_id"] == TRACE.hex()
    assert "trace_id" not in outside


async def test_what_the_sampler_leaves_out_is_neither_sent_nor_named(collector: Collector, front: Front):
    headers = {"traceparent": PARENT.removesuffix("1") + "0"}
    answer = await front.http.get("/v1/nothing", headers=headers)
    assert "trace_id" not in answer.json()["error"]
    await front.http.get("/v1/info")
    await until(collector, "GET /v1/info")
    assert all(span.trace_id != TRACE for span in collector.spans())


# set, not set, set badly -----------------------------------------------------------------------------------------------


async def test_without_a_collector_nothing_is_made(front: Front):
    assert span("a") is span("b") is serving("c", {})
    assert "trace_id" not in (await front.http.get("/v1/nothing")).json()["error"]


def test_without_a_collector_nothing_is_loaded():
    code = "import sys, belljar.server.serve; print('opentelemetry.sdk' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


async def test_a_missing_package_is_told_where_the_settings_name_a_collector(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "belljar.server.otlp", None)
    monkeypatch.delattr(belljar.server, "otlp", raising=False)
    with pytest.raises(InvalidArgument, match="not installed") as caught:
        async with traced(Settings(otel_endpoint="http://localhost:4318")):
            pass
    assert caught.value.hint == "pip install 'belljar[otel]'"
    # The variable may be meant for the program that started this server.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")
    async with traced(Settings()):
        assert span("a") is span("b")


@pytest.mark.parametrize("endpoint", ["x", "ftp://x", "http://", "localhost:4318", "http:///v1", "\x1b[2J"])
async def test_an_address_that_is_none_is_refused(endpoint: str):
    with pytest.raises(InvalidArgument, match="otel_endpoint"):
        async with traced(Settings(otel_endpoint=endpoint)):
            pass


async def test_the_standard_switch_switches_it_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    async with traced(Settings(otel_endpoint="http://localhost:1")):
        assert span("a") is span("b")


# a whole server --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def start(state: Path) -> AsyncGenerator[Callable[..., ServerProcess]]:
    made: list[ServerProcess] = []

    def start_one(*words: str, **more: Any) -> ServerProcess:
        made.append(ServerProcess(state / "home", *words, **more))
        return made[-1]

    yield start_one
    for server in made:
        server.close()
    await wipe(state / "home")


async def test_a_server_tells_of_the_steps_of_its_node(start: Callable[..., ServerProcess]):
    with collecting() as collector:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        server = start("--embedded", environ=environ)
        async with server.client() as http:
            made = (await http.post("/v1/sandboxes", json={}, headers={"traceparent": PARENT})).json()
            await http.post(f"/v1/sandboxes/{made['id']}/run", json={"command": "true"})
            (boot,) = await until(collector, "node.boot")
            (create,) = await until(collector, "sandbox.create")
            assert (boot.trace_id, boot.parent_span_id) == (TRACE, create.span_id)
            assert attributes_of(boot) == {"belljar.sandbox": made["id"]}
            (begun,) = await until(collector, "guest.start")
            (run,) = await until(collector, "POST /v1/sandboxes/{ref}/run")
            assert (begun.trace_id, begun.parent_span_id) == (run.trace_id, run.span_id)
            await http.delete(f"/v1/sandboxes/{made['id']}")
        assert server.end()[0] == 0
        assert collector.named("DELETE /v1/sandboxes/{ref}"), "the last spans are sent at an ordered end"


async def test_a_collector_that_hangs_is_in_nobodys_way(start: Callable[..., ServerProcess]):
    with collecting(hangs=True) as collector:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        server = start("--embedded", environ=environ)
        async with server.client() as http:
            await http.get("/v1/info")

            async def taken() -> bool:
                return bool(collector.paths)

            assert await wait_until(taken, timeout=20)
            before = memory_of(server.pid)
            slowest = 0.0
            for _ in range(60):  # more spans than may wait
                began = time.monotonic()
                answers = await asyncio.gather(*(http.get("/v1/nothing") for _ in range(60)))
                slowest = max(slowest, time.monotonic() - began)
                assert {answer.status_code for answer in answers} == {404}
            assert slowest < 5, "nobody waited for the collector, which takes ten seconds to be given up"
            assert memory_of(server.pid) - before < 60 << 20
        status, seconds = server.end()
        assert (status, seconds < 5) == (0, True)
        assert collector.bodies == []
        assert "Queue full" in server.said()


async def test_a_collector_that_is_not_there_is_told_in_the_log_and_nowhere_else(start: Callable[..., ServerProcess]):
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    server = start("--embedded", environ=environ)
    async with server.client() as http:
        assert (await http.get("/v1/info")).status_code == 200

        async def told() -> bool:
            return "of the collector of traces" in server.said()

        assert await wait_until(told, timeout=30)
    assert server.end()[0] == 0
    assert [line for line in server.said().splitlines() if not line.startswith(("{", "listening on "))] == []


def memory_of(pid: int) -> int:
    """Bytes, resident."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None and os.getpid() != pid
    return int(found[1]) << 10
