"""The host's side of a clone: its kernels are told, warm ones become what is asked for, and bad ones harm nobody."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from tests.unit.guest.conftest import Played, Real

from belljar.base.tasks import wait_until
from belljar.model.code import CodeEvent, CodeSpec, ContextSpec, ContextState, Done, Printed, Status
from belljar.model.errors import NotFound, SandboxGone
from belljar.node.guest.guest import Guest

KERNEL = str(Path(__file__).with_name("played_kernel.py"))
TELL = "import json; say(kind='stdout', text=json.dumps(told)); end()"


@pytest.fixture
async def guest(real: Real) -> AsyncIterator[Guest]:
    opened = await real.guest(kernel=KERNEL)
    yield opened
    await opened.close()


async def again(real: Real, guest: Guest) -> Guest:
    """The session of whoever restored the sandbox: the one before never says good-bye."""
    await guest.close()
    return await real.guest(kernel=KERNEL)


async def execute(guest: Guest, code: str, id: str = "python", key: str = "k1", **more: Any) -> list[CodeEvent]:
    create = ContextSpec(id, "python", **more)
    return [event async for event in guest.execute(id, CodeSpec(key, code), create=create)]


async def told(guest: Guest, id: str = "python", **more: Any) -> list[dict[str, Any]]:
    said, done = await execute(guest, TELL, id, key="told", **more)
    assert isinstance(said, Printed)
    assert isinstance(done, Done)
    return [{name: value for name, value in one.items() if name not in ("op", "name")} for one in json.loads(said.text)]


async def test_every_kernel_is_told_before_anything_else(real: Real, guest: Guest) -> None:
    for id in ("one", "two"):
        await execute(guest, "end()", id)
    clone = await again(real, guest)
    await clone.wake(env={"A": "1", "B": None}, cwd="/usr", reseed=True)
    assert {info.id for info in await clone.contexts()} == {"one", "two"}
    for id in ("one", "two"):
        # Where a context has gone is its user's state.
        assert await told(clone, id) == [{"reseed": True, "env": {"A": "1", "B": None}}]
    await clone.wake(reseed=False)
    await execute(clone, TELL, "two", key="again")
    await clone.close()


async def test_a_warm_kernel_is_seen_by_nobody_until_somebody_asks(real: Real, guest: Guest) -> None:
    await guest.warm(modules=("numpy",))
    for _ in range(2):
        assert await guest.contexts() == await guest.processes() == []
        with pytest.raises(NotFound):
            await guest.context("python")
        guest = await again(real, guest)
        await guest.find_contexts()
        await guest.prime()
    await guest.wake(env={"A": "1"}, cwd="/usr", user=None)
    assert await told(guest) == [{"reseed": True, "env": {"A": "1"}, "cwd": "/usr"}, {"reseed": False, "taken": True}]
    (info,) = await guest.contexts()
    assert (info.restarts, info.state) == (0, ContextState.IDLE)
    assert [one.pid for one in await guest.processes()] == [info.pid]
    guest = await again(real, guest)
    await guest.wake()
    assert [info.id for info in await guest.contexts()] == ["python"]  # somebody's for good
    await guest.close()


async def test_a_context_with_wishes_gets_the_warm_kernel_too(guest: Guest) -> None:
    await guest.warm()
    info = await guest.create_context(ContextSpec("python", cwd="/usr", env={"A": "2"}))
    assert info.cwd == "/usr"
    assert await told(guest) == [{"reseed": False, "cwd": "/usr", "env": {"A": "2"}, "taken": True}]
    assert len(await guest.processes()) == 1


async def test_one_of_another_user_is_ended(guest: Guest) -> None:
    await guest.warm()
    await guest.wake(user="somebody-else")
    assert await told(guest) == []
    assert len(await guest.processes()) == 1
    (info,) = await guest.contexts()
    assert info.restarts == 0


ANSWERS = {
    "refuses": "line(kind='renewed', name=request['name'], error='HOME counts')",
    "says nothing": "pass",
    "ends": "os._exit(1)",
    "garbage": "raw(b'{}\\n[]\\n\\xff\\xfe\\n' + b'x' * 70_000)",
    "another name": "line(kind='renewed', name={'a': 1}); line(kind='renewed'); line(kind='renewed', name='r', error=5)",
    "a gigabyte": "[raw(b'y' * 60_000 + b'\\n') for _ in range(20_000)]",
    "a huge event": "[line(piece='z' * 60_000, more=True) for _ in range(2_000)]",
    "no end of states": "[line(kind='state', session='x', running=5, queued=5, warm=5) for _ in range(100_000)]",
}


@pytest.mark.parametrize("how", ANSWERS)
async def test_a_warm_kernel_that_does_not_become_what_is_asked_for_is_replaced(
    real: Real, guest: Guest, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("belljar.node.guest.contexts.context._FIT_SECONDS", 0.5)
    await guest.configure(env={"ANSWER": ANSWERS[how]})
    await guest.warm()
    await guest.configure(env={})
    began = monotonic()
    await guest.wake(env={"A": "1"})
    assert monotonic() - began < 1.0
    if how != "a gigabyte":
        assert await told(guest, env={"B": "1"}) == []  # a new one, which nobody has told anything
    else:  # lines that say nothing: it is slow, not bad
        assert isinstance((await execute(guest, "end()", env={"B": "1"}))[-1], Done)
    assert len(await guest.processes()) == 1
    (info,) = await guest.contexts()
    assert info.restarts == 0


async def test_a_killed_kernel_whose_last_words_take_long_is_not_waited_for(
    real: Real, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("belljar.node.guest.contexts.context._FIT_SECONDS", 0.05)
    monkeypatch.setattr("belljar.node.guest.contexts.context._GRACE_SECONDS", 0.0)
    await guest.configure(env={"ANSWER": ANSWERS["no end of states"]})
    await guest.warm()
    await guest.configure(env={})
    await guest.wake(env={"A": "1"})
    assert await told(guest, env={"B": "1"}) == []
    (info,) = await guest.contexts()
    assert (info.restarts, info.count) == (0, 1)


@pytest.mark.parametrize("how", ANSWERS)
async def test_a_bad_kernel_of_a_clone_harms_its_own_context_alone(real: Real, guest: Guest, how: str) -> None:
    await execute(guest, "end()", "good")
    await execute(guest, "end()", "bad", env={"ANSWER": ANSWERS[how]})
    clone = await again(real, guest)
    began = monotonic()
    await clone.wake(reseed=True)
    assert monotonic() - began < 1.0
    assert len(await told(clone, "good")) == 1
    if how in ("ends", "garbage", "a huge event"):

        async def dead() -> bool:
            return (await clone.context("bad")).state is ContextState.DEAD

        assert await wait_until(dead, timeout=5)
    assert (await execute(clone, "end()", "bad", key="k2"))[-1].__class__ is Done
    await clone.close()


async def test_one_that_reads_nothing_is_ended_and_the_claim_goes_on(real: Real, guest: Guest) -> None:
    deaf = asyncio.create_task(execute(guest, "import time; time.sleep(1000)", "deaf"))
    await asyncio.sleep(0.3)
    (kernel,) = await guest.processes()
    write = guest._processes.write_stdin  # pyright: ignore[reportPrivateUsage]
    taken, size = kernel.stdin, 1 << 20
    while size:  # until not a byte more goes in
        before, taken = taken, await write(kernel.id, taken, b"x" * size, eof=False, timeout=0.2)
        size = size if taken > before else size // 32
    deaf.cancel()
    await asyncio.wait((deaf,))
    clone = await again(real, guest)
    began = monotonic()
    await clone.wake(timeout=0.5)
    assert monotonic() - began < 3.0

    async def dead() -> bool:
        return (await clone.context("deaf")).state is ContextState.DEAD

    assert await wait_until(dead, timeout=5)
    await clone.close()


async def test_what_runs_in_a_clone_is_not_interrupted_because_nobody_follows_it(
    real: Real, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("belljar.node.guest.contexts.context._LEFT_SECONDS", 0.3)
    code = "say(kind='stdout', text='a'); import time; time.sleep(1.5); end()"
    events = guest.execute("python", CodeSpec("k1", code), create=ContextSpec("python"))
    assert isinstance(await anext(events), Printed)
    clone = await again(real, guest)
    await clone.wake()
    await asyncio.sleep(0.6)
    assert (await clone.context("python")).state is ContextState.BUSY
    found = [event async for event in clone.execute("python", CodeSpec("k1", code), after=1)]
    assert found == [Done(2, Status.OK, 1)]
    assert (await clone.context("python")).restarts == 0
    await clone.close()
    with pytest.raises(SandboxGone):
        await anext(events)


async def test_a_session_has_a_new_owner_who_is_told_of_its_loss(played: Played) -> None:
    guest = await played.guest()
    lost: list[str] = []
    guest.take_over(lambda reason, message: lost.append(reason))
    played.session.tell({"event": "exit"})
    played.flush()
    assert await wait_until(_holds(lambda: lost == ["bad_agent"]), timeout=5)
    assert played.lost == []
    with pytest.raises(SandboxGone):
        guest.take_over(lambda reason, message: lost.append(reason))
    with pytest.raises(SandboxGone):
        await guest.wake()


async def test_an_agent_without_clones_is_not_asked_for_them(played: Played) -> None:
    asked: list[str] = []
    played.on["processes"] = lambda request: asked.append(request.op) or {"processes": []}
    guest = await played.guest()
    await guest.wake()
    assert asked == ["processes"]
    await guest.close()


def _holds(condition: Any) -> Any:
    async def holds() -> bool:
        return bool(condition())

    return holds
