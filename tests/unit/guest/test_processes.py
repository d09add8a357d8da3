"""Processes through the real agent, as an ordinary process on this machine."""

import asyncio
import contextlib
import hashlib
import os
import signal
from typing import Any

import pytest

from belljar.model.errors import Conflict, NotFound
from belljar.model.process import Exit, Output, ProcessInfo, ProcessSpec, PtySize, Stream
from belljar.node.guest.guest import Guest

from .conftest import Real

_keys = iter(range(1_000_000))
BOTH = dict.fromkeys(Stream, 0)


def spec(*argv: str, **more: Any) -> ProcessSpec:
    return ProcessSpec(key=f"k{next(_keys)}", argv=argv, **more)


def shell(script: str, **more: Any) -> ProcessSpec:
    return spec("/bin/sh", "-c", script, **more)


async def outcome(events: Any) -> tuple[bytes, bytes, Exit | None]:
    """All output, and the end."""
    got = {stream: bytearray() for stream in Stream}
    end = None
    async with contextlib.aclosing(events):
        async for event in events:
            if isinstance(event, Output):
                assert event.offset == len(got[event.stream])
                got[event.stream] += event.data
            elif isinstance(event, Exit):
                end = event
    return bytes(got[Stream.STDOUT]), bytes(got[Stream.STDERR]), end


async def test_a_command_runs_and_ends_with_its_status(inside: Guest) -> None:
    events = inside.start_attached(shell("echo out; echo err >&2; exit 3"))
    info = await anext(events)
    assert isinstance(info, ProcessInfo)
    assert info.argv[0] == "/bin/sh"
    assert await outcome(events) == (b"out\n", b"err\n", Exit(3))
    assert (await inside.process(info.id)).returncode == 3


async def test_input_goes_in_and_is_closed(inside: Guest) -> None:
    data = os.urandom(3_000_000)
    events = inside.start_attached(spec("/usr/bin/env", "sha256sum"), data)
    await anext(events)
    out, _, end = await outcome(events)
    assert out.split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert end == Exit(0)


async def test_input_that_nobody_reads_does_not_hold_up_the_end(inside: Guest) -> None:
    events = inside.start_attached(spec("true"), bytes(3_000_000))
    await anext(events)
    assert (await outcome(events))[2] == Exit(0)


async def test_a_missing_program_is_not_found(inside: Guest) -> None:
    with pytest.raises(NotFound):
        await inside.start(spec("no-such-program"))


async def test_a_signal_ends_a_process_with_its_negative_number(inside: Guest) -> None:
    info = await inside.start(spec("sleep", "100"))
    waiting = asyncio.create_task(inside.wait(info.id, timeout=10))
    await asyncio.sleep(0.05)
    await inside.signal(info.id, signal.SIGTERM)
    assert (await waiting).returncode == -signal.SIGTERM
    await inside.signal(info.id, signal.SIGTERM)


async def test_waiting_ends_at_its_deadline_with_the_process_still_running(inside: Guest) -> None:
    info = await inside.start(spec("sleep", "100"))
    assert (await inside.wait(info.id, timeout=0.1)).returncode is None
    await inside.signal(info.id, signal.SIGKILL)


async def test_the_same_key_starts_one_process(inside: Guest) -> None:
    one = shell("sleep 0.2; echo once")
    infos = await asyncio.gather(inside.start(one), inside.start(one))
    assert infos[0].id == infos[1].id
    events = inside.start_attached(one)
    again = await anext(events)
    assert isinstance(again, ProcessInfo)
    assert again.id == infos[0].id
    assert (await outcome(events))[0] == b"once\n"


async def test_output_can_be_read_again_from_an_offset(inside: Guest) -> None:
    info = await inside.start(shell("echo 0123456789; echo err >&2"))
    await inside.wait(info.id, timeout=5)
    events = inside.output(info.id, {Stream.STDOUT: 4})
    got = [event async for event in events]
    assert got == [Output(Stream.STDOUT, 4, b"456789\n"), Exit(0)]
    assert await outcome(inside.output(info.id, BOTH)) == (b"0123456789\n", b"err\n", Exit(0))


async def test_output_of_an_unknown_process_is_not_found(inside: Guest) -> None:
    with pytest.raises(NotFound):
        await anext(inside.output(12345, BOTH))


async def test_a_new_reader_takes_over_and_the_old_one_ends_with_conflict(inside: Guest) -> None:
    info = await inside.start(shell("echo a; sleep 0.3; echo b"))
    old = inside.output(info.id, BOTH)
    assert await anext(old) == Output(Stream.STDOUT, 0, b"a\n")
    waiting = asyncio.ensure_future(anext(old))
    await asyncio.sleep(0.02)
    new = asyncio.create_task(outcome(inside.output(info.id, BOTH)))
    with pytest.raises(Conflict):
        await waiting
    assert await new == (b"a\nb\n", b"", Exit(0))
    await old.aclose()


async def test_a_reader_that_stops_holds_up_the_process_and_loses_nothing(inside: Guest) -> None:
    events = inside.start_attached(shell("head -c 30000000 /dev/zero; echo done >&2"))
    info = await anext(events)
    assert isinstance(info, ProcessInfo)
    await asyncio.sleep(0.5)
    assert (await inside.process(info.id)).returncode is None
    out, err, end = await outcome(events)
    assert (len(out), err, end) == (30_000_000, b"done\n", Exit(0))


async def test_a_reader_that_leaves_frees_the_process(inside: Guest) -> None:
    events = inside.start_attached(shell("head -c 30000000 /dev/zero; echo done >&2"))
    info = await anext(events)
    assert isinstance(info, ProcessInfo)
    await anext(events)
    await events.aclose()
    ended = await inside.wait(info.id, timeout=10)
    assert ended.returncode == 0
    assert ended.stdout.end == 30_000_000
    assert ended.stdout.dropped > 0
    first = await anext(inside.output(info.id, {Stream.STDOUT: 0}))
    assert isinstance(first, Output)
    assert first.offset == ended.stdout.start > 0


async def test_exec_stays_quick_while_a_reader_stops_and_bulk_flows(inside: Guest) -> None:
    stuck = inside.start_attached(spec("cat", "/dev/zero"))
    stuck_info = await anext(stuck)
    flowing = inside.start_attached(spec("cat", "/dev/zero"))
    flowing_info = await anext(flowing)

    async def drink() -> None:
        async for _ in flowing:
            pass

    drinking = asyncio.create_task(drink())
    times: list[float] = []
    loop = asyncio.get_running_loop()
    for _ in range(20):
        before = loop.time()
        events = inside.start_attached(spec("true"))
        await anext(events)
        assert (await outcome(events))[2] == Exit(0)
        times.append(loop.time() - before)
    for info in (stuck_info, flowing_info):
        assert isinstance(info, ProcessInfo)
        await inside.signal(info.id, signal.SIGKILL)
    await drinking
    await stuck.aclose()
    assert sorted(times)[10] < 0.5


async def test_stdin_takes_each_byte_once(inside: Guest) -> None:
    info = await inside.start(spec("cat"))
    assert await inside.write_stdin(info.id, 0, b"hello ") == 6
    assert await inside.write_stdin(info.id, 0, b"hello ") == 6
    assert await inside.write_stdin(info.id, 3, b"lo world") == 11
    with pytest.raises(Conflict):
        await inside.write_stdin(info.id, 50, b"x")
    assert await inside.write_stdin(info.id, 11, b"!", eof=True) == 12
    assert await inside.write_stdin(info.id, 11, b"!", eof=True) == 12
    with pytest.raises(Conflict):
        await inside.write_stdin(info.id, 12, b"more")
    assert (await outcome(inside.output(info.id, BOTH)))[0] == b"hello world!"


async def test_stdin_waits_for_a_process_that_does_not_read_and_says_how_far_it_came(inside: Guest) -> None:
    info = await inside.start(shell("sleep 0.5; cat | wc -c"))
    data = bytes(2_000_000)
    taken = await inside.write_stdin(info.id, 0, data, timeout=0.2)
    assert 0 < taken < len(data)
    assert await inside.write_stdin(info.id, taken, data[taken:], eof=True, timeout=10) == len(data)
    assert (await outcome(inside.output(info.id, BOTH)))[0].strip() == b"2000000"


async def test_writers_that_hurry_each_other_lose_nothing(inside: Guest) -> None:
    info = await inside.start(spec("cat"))
    await asyncio.gather(*(inside.write_stdin(info.id, 0, b"0123456789" * 1000) for _ in range(5)))
    writing = asyncio.create_task(inside.write_stdin(info.id, 10_000, bytes(5_000_000), timeout=20))
    await asyncio.sleep(0.05)
    writing.cancel()
    await asyncio.wait([writing])
    taken = (await inside.process(info.id)).stdin
    end = await inside.write_stdin(info.id, taken, b"end", eof=True)
    out, _, _ = await outcome(inside.output(info.id, BOTH))
    assert len(out) == end
    assert out.endswith(b"end")


async def test_a_terminal_echoes_resizes_and_hangs_up(inside: Guest) -> None:
    events = inside.start_attached(spec("/bin/sh", pty=PtySize(100, 30)))
    info = await anext(events)
    assert isinstance(info, ProcessInfo)
    assert info.pty
    await inside.resize(info.id, PtySize(120, 40))
    await inside.write_stdin(info.id, 0, b"stty size; exit 4\n")
    out, _, end = await outcome(events)
    assert b"40 120" in out
    assert end == Exit(4)


async def test_resizing_what_has_no_terminal_is_a_conflict(inside: Guest) -> None:
    info = await inside.start(spec("sleep", "1"))
    with pytest.raises(Conflict):
        await inside.resize(info.id, PtySize())


async def test_detaching_ends_the_reader(inside: Guest) -> None:
    info = await inside.start(spec("sleep", "2"))
    reading = asyncio.create_task(outcome(inside.output(info.id, BOTH)))
    await asyncio.sleep(0.1)
    await inside.detach(info.id)
    with pytest.raises(Conflict):
        await reading


async def test_a_successor_goes_on_where_the_first_server_stopped(real: Real) -> None:
    first = await real.guest()
    events = first.start_attached(shell("for i in $(seq 2000); do echo line $i; done; sleep 0.3; echo end"))
    info = await anext(events)
    assert isinstance(info, ProcessInfo)
    event = await anext(events)
    assert isinstance(event, Output)
    await first.close()
    with pytest.raises(NotFound):
        async for _ in events:
            pass
    second = await real.guest()
    got = event.data
    async for event in second.output(info.id, {Stream.STDOUT: len(got)}):
        if isinstance(event, Output):
            assert event.offset == len(got)
            got += event.data
    assert got == b"".join(b"line %d\n" % i for i in range(1, 2001)) + b"end\n"
    await second.close()


async def test_a_server_that_died_in_the_middle_of_a_frame_is_succeeded(real: Real) -> None:
    first = await real.guest()
    os.write(os.open(real.folder / "in", os.O_RDWR | os.O_NONBLOCK), b"\xb3\x4a\x01\x03half a frame")
    await first.close()
    second = await real.guest()
    assert await second.processes() == []
    await second.close()


async def test_processes_are_listed(inside: Guest) -> None:
    infos = [await inside.start(spec("sleep", "5")) for _ in range(3)]
    assert {info.id for info in infos} <= {info.id for info in await inside.processes()}
    assert (await inside.process(infos[1].pid, by_pid=True)).id == infos[1].id
