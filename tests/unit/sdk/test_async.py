"""What the async SDK does otherwise than its twin: tasks, cancellation, callbacks that are coroutines, the end of the loop."""

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.sdk.scripted import ScriptedProcess, ScriptedServer
from tests.unit.sdk.test_run import LINES

import belljar
from belljar.sdk._async.link import shared_link


@pytest.fixture
async def sandbox(server: ScriptedServer) -> AsyncIterator[belljar.AsyncSandbox]:
    async with await belljar.AsyncSandbox.create() as sandbox:
        yield sandbox
    assert sandbox.status == "terminated"
    assert sandbox.ended is not None
    assert sandbox.ended.reason == "killed"


async def test_output_goes_on_behind_a_killed_server(server: ScriptedServer, sandbox: belljar.AsyncSandbox) -> None:
    process = ScriptedProcess(LINES, b"err", reads=True)
    server.next_processes = [process]

    async def crash() -> None:
        await asyncio.sleep(0.1)
        await asyncio.to_thread(server.restart_after(0.3).join)
        process.reads = False
        process.ends.set()

    done, _ = await asyncio.gather(sandbox.run("x", text=False), crash())
    assert (done.stdout, done.stderr) == (LINES, b"err")


async def test_large_input_is_given_across_broken_connections(
    server: ScriptedServer, sandbox: belljar.AsyncSandbox
) -> None:
    data = bytes(range(256)) * 20_000
    server.next_processes = [ScriptedProcess(LINES, reads=True)]
    server.next_processes[0].ends.set()
    server.cut_requests = [None, 100_000, 5]
    heard: list[str] = []

    async def hear(text: str) -> None:
        await asyncio.sleep(0)
        heard.append(text)

    done = await sandbox.run("cat", input=data, on_stdout=hear)
    assert done.stdout == "".join(heard) == LINES.decode()
    (process,) = server.processes.values()
    assert bytes(process.stdin) == data


async def test_a_timeout_keeps_the_output(server: ScriptedServer, sandbox: belljar.AsyncSandbox) -> None:
    process = ScriptedProcess(b"so far", reads=True)
    server.next_processes = [process]
    with pytest.raises(belljar.ProcessTimeout) as caught:
        await sandbox.run("sleep", timeout=0.1)
    assert caught.value.stdout == "so far"
    assert process.signals == [(9, True)]


async def test_a_cancelled_run_kills_the_process_group(server: ScriptedServer, sandbox: belljar.AsyncSandbox) -> None:
    process = ScriptedProcess(b"so far", reads=True)
    server.next_processes = [process]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await sandbox.run("sleep")
    assert process.signals == [(9, True)]


async def test_many_run_at_once_over_one_link(server: ScriptedServer, sandbox: belljar.AsyncSandbox) -> None:
    server.next_processes = [ScriptedProcess(b"%d" % number) for number in range(30)]
    results = await asyncio.gather(*(sandbox.run("x") for _ in range(30)))
    assert sorted(int(done.stdout) for done in results) == list(range(30))


async def test_a_process_is_read_line_by_line(server: ScriptedServer, sandbox: belljar.AsyncSandbox) -> None:
    server.next_processes = [ScriptedProcess(LINES)]
    async with await sandbox.popen("x") as process:
        server.cuts = [700]
        assert [line async for line in process.stdout] == LINES.splitlines(keepends=True)
    assert process.returncode == 0


async def test_trees_and_files_go_both_ways(
    server: ScriptedServer, sandbox: belljar.AsyncSandbox, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "f").write_bytes(LINES)
    await sandbox.upload(source, "/tree")
    server.cuts = [None, 900]
    await sandbox.download("/tree", tmp_path / "target")
    assert (tmp_path / "target" / "f").read_bytes() == LINES
    await sandbox.upload(source / "f", "/file")
    server.cuts = [None, 1500]
    await sandbox.download("/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == LINES


def test_nothing_stays_open_when_the_loop_ends(server: ScriptedServer) -> None:
    async def work() -> None:
        assert [one.name async for one in belljar.AsyncSandbox.list()] == ["web", "web"]
        assert (await belljar.AsyncSandbox.get("web")).id
        assert await shared_link() is await shared_link()

    asyncio.run(work())
    asyncio.run(work())
    gc.collect()  # an unclosed socket would warn, and warnings are errors here
