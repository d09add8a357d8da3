"""The host's side of contexts, with kernels that the tests play under a real agent."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.guest.conftest import Real

from belljar.base.tasks import wait_until
from belljar.model.code import CodeEvent, CodeSpec, ContextSpec, ContextState, Done, HostCall, Printed, Raised, Status
from belljar.model.errors import Conflict, LimitExceeded, NotFound, NotSupported, SandboxGone
from belljar.model.process import Stream
from belljar.node.guest.contexts import context as contexts_module
from belljar.node.guest.guest import Guest

KERNEL = str(Path(__file__).with_name("played_kernel.py"))
SPEC = ContextSpec("one", "python")


@pytest.fixture
async def guest(real: Real) -> AsyncIterator[Guest]:
    opened = await real.guest(kernel=KERNEL)
    yield opened
    await opened.close()


async def execute(guest: Guest, code: str, *, key: str = "k1", after: int = 0, **more: object) -> list[CodeEvent]:
    spec = CodeSpec(key, code, **more)  # pyright: ignore[reportArgumentType]
    return [event async for event in guest.execute("one", spec, after=after, create=SPEC)]


async def test_events_come_in_order_and_end_with_done(guest: Guest) -> None:
    events = await execute(guest, "say(kind='stdout', text='a'); say(kind='stderr', text='b'); end()")
    assert events == [
        Printed(1, Stream.STDOUT, "a"),
        Printed(2, Stream.STDERR, "b"),
        Done(3, Status.OK, 1),
    ]
    assert (await guest.context("one")).state is ContextState.IDLE
    assert (await guest.context("one")).count == 1


async def test_a_long_event_comes_in_pieces(guest: Guest) -> None:
    code = (
        "import json\n"
        "whole = json.dumps({'key': key, 'seq': 1, 'kind': 'stdout', 'text': 'ä' * 300_000})\n"
        "while whole:\n"
        "    piece, whole = whole[:20_000], whole[20_000:]\n"
        "    line(piece=piece, more=bool(whole))\n"
        "line(key=key, seq=2, kind='done', status='ok', count=1)"
    )
    first, last = await execute(guest, code)
    assert first == Printed(1, Stream.STDOUT, "ä" * 300_000)
    assert isinstance(last, Done)


async def test_a_repeated_key_is_followed_and_not_run_again(guest: Guest) -> None:
    code = "say(kind='stdout', text='a'); say(kind='stdout', text='b'); end()"
    await execute(guest, code)
    again = await execute(guest, code, after=1)
    assert again == [Printed(2, Stream.STDOUT, "b"), Done(3, Status.OK, 1)]


async def test_a_second_follower_takes_over(guest: Guest) -> None:
    first = guest.execute("one", CodeSpec("k", "say(kind='stdout', text='a'); wait(); wait(); end()"), create=SPEC)
    assert isinstance(await anext(first), Printed)
    waiting = asyncio.create_task(anext(first))
    second = guest.execute("one", CodeSpec("k", ""), after=0)
    assert isinstance(await anext(second), Printed)
    with pytest.raises(Conflict):
        await waiting
    await second.aclose()


async def test_a_call_is_answered_once(guest: Guest) -> None:
    code = "say(kind='call', call='c1', name='add', payload='[1]')\nsay(kind='stdout', text=wait()['value'])\nend()"
    events = guest.execute("one", CodeSpec("k", code), create=SPEC)
    call = await anext(events)
    assert call == HostCall(1, "c1", "add", "[1]")
    with pytest.raises(NotFound):
        await guest.answer("one", "k", "c2", value="x")
    await guest.answer("one", "k", "c1", value="41")
    with pytest.raises(NotFound):
        await guest.answer("one", "k", "c1", value="x")
    assert await anext(events) == Printed(2, Stream.STDOUT, "41")
    await events.aclose()


async def test_a_kernel_that_ends_is_reported_and_the_next_call_has_a_new_one(guest: Guest) -> None:
    raised, done = await execute(guest, "import os; os._exit(7)")
    assert isinstance(raised, Raised)
    assert raised.name == "KernelDied"
    assert "status 7" in raised.value
    assert done == Done(2, Status.ERROR, 0)
    assert (await guest.context("one")).state is ContextState.DEAD
    assert isinstance((await execute(guest, "end()", key="k2"))[-1], Done)
    assert (await guest.context("one")).restarts == 1


async def test_a_kernel_that_takes_no_more_requests_is_reported(guest: Guest, tmp_path: Path) -> None:
    deaf = tmp_path / "deaf"
    await execute(guest, f"end(); import os, time; os.close(0); os.mkdir({str(deaf)!r}); time.sleep(100)")

    async def is_deaf() -> bool:
        return deaf.exists()

    assert await wait_until(is_deaf, timeout=20)
    swallowed = asyncio.create_task(execute(guest, "end()", key="k2"))  # the pipe is found broken only by this one
    await asyncio.sleep(0.5)
    for events in (await execute(guest, "end()", key="k3"), await swallowed):
        assert isinstance(events[0], Raised)
        assert events[0].name == "KernelDied"
    assert await execute(guest, "end()", key="k4") == [Done(1, Status.OK, 1)]


@pytest.mark.parametrize(
    "code",
    [
        "raw(b'x' * 70_000)",
        "raw(b'{\"piece\": 1}\\n')",
        "say(kind='nonsense')",
        "say(kind='stdout', text=5)",
        "say(kind='done', status='fine', count=1)",
        "line(key=key, seq=-1, kind='stdout', text='')",
        "say(kind='result', main=True, data={'text/plain': 5})",
        "say(kind='call', call='', name='x', payload='')",
        "while True: line(piece='x' * 60_000, more=True)",
    ],
)
async def test_a_kernel_that_breaks_the_protocol_is_ended(guest: Guest, code: str) -> None:
    raised, done = await execute(guest, code + "\nwait()\nwait()")
    assert isinstance(raised, Raised)
    assert raised.name == "KernelDied"
    assert isinstance(done, Done)


async def test_what_is_no_json_is_left_out(guest: Guest) -> None:
    code = "raw(b'\\xff\\xfe\\n[1,2]\\nnull\\n' + b'[' * 20_000 + b'\\n'); say(kind='stdout', text='a'); end()"
    assert len(await execute(guest, code)) == 2


async def test_a_timeout_interrupts_and_is_an_error(guest: Guest) -> None:
    code = (
        "assert wait()['reason'] == 'timeout'\n"
        "say(kind='error', name='KeyboardInterrupt', value='', traceback='t')\n"
        "end('error')"
    )
    raised, done = await execute(guest, code, timeout=0.2)
    assert isinstance(raised, Raised)
    assert (raised.name, done) == ("TimeoutError", Done(2, Status.ERROR, 1))
    assert "0.2 s" in raised.value
    # one that swallowed the interrupt has timed out all the same
    raised, done = await execute(guest, "wait(); end()", key="k2", timeout=0.2)
    assert isinstance(raised, Raised)
    assert (raised.name, done) == ("TimeoutError", Done(2, Status.ERROR, 2))


async def test_time_that_waits_for_the_host_does_not_count(guest: Guest) -> None:
    code = "say(kind='call', call='c', name='slow', payload=''); wait(); end()"
    events = guest.execute("one", CodeSpec("k", code, timeout=0.3), create=SPEC)
    await anext(events)
    await asyncio.sleep(0.6)
    await guest.answer("one", "k", "c", value="")
    assert await anext(events) == Done(2, Status.OK, 1)
    await events.aclose()


async def test_a_kernel_that_cannot_be_interrupted_ends(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts_module, "_GRACE_SECONDS", 0.5)
    raised, _ = await execute(guest, "while True: wait()", timeout=0.1)
    assert isinstance(raised, Raised)
    assert raised.name == "KernelDied"
    assert "did not stop" in raised.value


async def test_code_whose_caller_does_not_come_back_is_interrupted(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contexts_module, "_LEFT_SECONDS", 0.2)
    events = guest.execute(
        "one", CodeSpec("k", "say(kind='stdout', text='a'); wait(); end('interrupted')"), create=SPEC
    )
    await anext(events)
    await events.aclose()
    assert (await guest.context("one")).state is ContextState.BUSY

    async def idle() -> bool:
        return (await guest.context("one")).state is ContextState.IDLE

    assert await wait_until(idle, timeout=5)


async def test_a_slow_follower_holds_the_kernel_up_and_loses_nothing(guest: Guest) -> None:
    code = "for n in range(400): say(kind='stdout', text=str(n) + 'x' * 30_000)\nend()"
    events = guest.execute("one", CodeSpec("k", code), create=SPEC)
    seen = 0
    async for event in events:
        if isinstance(event, Printed):
            assert event.text.startswith(f"{seen}x")
            seen += 1
            if seen == 1:
                await asyncio.sleep(0.5)
                kernel = (await guest.processes())[-1]
                assert kernel.stdout.end < 8 << 20
    assert seen == 400


async def test_a_new_session_goes_on_where_the_old_one_was_cut(real: Real) -> None:
    old = await real.guest(kernel=KERNEL)
    # The kernel's hello must be answered while it waits, as a real one does.
    code = (
        "say(kind='stdout', text='a')\n"
        "say(kind='call', call='c', name='n', payload='')\n"
        "while (said := wait())['op'] != 'reply':\n"
        "    state = dict(running=key, elapsed=1.5, queued=[], calls=['c'], ended=['gone'])\n"
        "    if said['op'] == 'hello': line(kind='state', session=said['session'], **state)\n"
        "say(kind='stdout', text=said['value'])\n"
        "end()"
    )
    events = old.execute("one", CodeSpec("k", code, timeout=30), create=SPEC)
    assert isinstance(await anext(events), Printed)
    assert isinstance(await anext(events), HostCall)
    await old.close()
    with pytest.raises(SandboxGone):
        await anext(events)
    new = await real.guest(kernel=KERNEL)
    await new.find_contexts()
    with pytest.raises(NotFound):  # it was read up to what the kernel waits for before that was said
        await new.answer("one", "k", "other", value="")
    assert [(one.id, one.state) for one in await new.contexts()] == [("one", ContextState.BUSY)]
    again = new.execute("one", CodeSpec("k", code, timeout=30), after=1, create=SPEC)
    assert isinstance(await anext(again), HostCall)
    await new.answer("one", "k", "c", value="b")
    assert await anext(again) == Printed(3, Stream.STDOUT, "b")
    assert await anext(again) == Done(4, Status.OK, 1)
    await again.aclose()
    with pytest.raises(Conflict, match="lost"):
        await anext(new.execute("one", CodeSpec("gone", ""), create=SPEC))
    await new.close()


async def test_a_restart_ends_what_runs(guest: Guest) -> None:
    events = guest.execute("one", CodeSpec("k", "say(kind='stdout', text='a'); wait(); wait()"), create=SPEC)
    await anext(events)
    info = await guest.restart_context("one")
    assert (info.state, info.restarts) == (ContextState.IDLE, 1)
    raised = await anext(events)
    assert isinstance(raised, Raised)
    assert "was restarted" in raised.value
    await events.aclose()


async def test_contexts_are_made_once_and_closed(guest: Guest) -> None:
    made = await guest.create_context(SPEC)
    assert (await guest.create_context(SPEC)).pid == made.pid
    with pytest.raises(Conflict):
        await guest.create_context(ContextSpec("one", "bash"))
    await guest.close_context("one")
    await guest.close_context("one")
    with pytest.raises(NotFound):
        await guest.context("one")
    with pytest.raises(NotFound):
        await anext(guest.execute("one", CodeSpec("k", "end()")))


async def test_a_kernel_that_refuses_says_why(tmp_path: Path, real: Real) -> None:
    program = tmp_path / "refuses.py"
    program.write_text('print(\'{"kind": "refused", "message": "too old", "hint": "a newer one"}\', flush=True)')
    other = await real.guest(kernel=str(program))
    with pytest.raises(NotSupported, match="too old"):
        await other.create_context(SPEC)
    assert await other.contexts() == []
    with pytest.raises(NotSupported, match="too old"):
        await anext(other.execute("one", CodeSpec("k", ""), create=SPEC))
    assert await other.contexts() == []
    await other.close()


async def test_nobody_else_may_read_a_kernel_or_write_to_it(guest: Guest) -> None:
    made = await guest.create_context(SPEC)
    kernel = await guest.process(made.pid or 0, by_pid=True)
    with pytest.raises(Conflict):
        guest.output(kernel.id, {Stream.STDOUT: 0})
    with pytest.raises(Conflict):
        await guest.write_stdin(kernel.id, 0, b"x")
    with pytest.raises(Conflict):
        await guest.detach(kernel.id)


async def test_too_many_executions_that_wait_are_refused(guest: Guest) -> None:
    running = [asyncio.create_task(execute(guest, "wait()", key=f"k{n}")) for n in range(contexts_module.MAX_QUEUED)]
    await asyncio.sleep(0.5)
    with pytest.raises(LimitExceeded):
        await execute(guest, "end()", key="more")
    await guest.close_context("one")
    for events in await asyncio.gather(*running):
        assert isinstance(events[0], Raised)
        assert events[0].name == "KernelDied"
