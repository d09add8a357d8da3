"""Lines, keys, order and interrupts."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import KernelProcess, on_each_python

Start = Callable[..., KernelProcess]


@on_each_python
def test_an_interrupt_wakes_a_sleep_and_keeps_the_state(kernel_of: Start, python: str) -> None:
    kernel = kernel_of(python)
    kernel.run("kept = [1]")
    for code in ("import time; time.sleep(60)", "while True: pass", "import threading; threading.Event().wait()"):
        key = kernel.start(f"kept.append(len(kept))\nprint('in')\n{code}")
        kernel.until(key, "stdout")
        began = time.monotonic()
        kernel.send(op="interrupt", key=key)
        error = kernel.until(key, "error")
        assert error["name"] == "KeyboardInterrupt" and "<cell" in error["traceback"]
        assert kernel.until(key, "done")["status"] == "interrupted"
        assert time.monotonic() - began < 5
    assert kernel.run("kept").text == "[1, 1, 2, 3]"


@on_each_python
def test_a_timeout_is_an_error_of_that_name(kernel_of: Start, python: str) -> None:
    kernel = kernel_of(python)
    kernel.run("import time")
    key = kernel.start("try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    raise ValueError('mine')")
    time.sleep(0.3)
    kernel.send(op="interrupt", key=key, reason="timeout", message="longer than 0.5 s")
    error, done = kernel.events(key)
    assert (error["name"], error["value"], done["status"]) == ("TimeoutError", "longer than 0.5 s", "interrupted")
    assert "ValueError: mine" in error["traceback"]


def test_an_interrupt_ends_only_its_own_cell(kernel: KernelProcess) -> None:
    first = kernel.start("import time; time.sleep(1); 'first'")
    second = kernel.start("'second'")
    third = kernel.start("'third'")
    kernel.send(op="interrupt", key=third)
    kernel.send(op="interrupt", key="unknown")
    (dropped,) = kernel.events(third)
    assert (dropped["status"], dropped["seq"]) == ("interrupted", 1)
    assert kernel.events(first)[0]["data"]["text/plain"] == "'first'"
    assert kernel.events(second)[0]["data"]["text/plain"] == "'second'"
    kernel.send(op="interrupt", key=second)
    assert kernel.run("import time; time.sleep(0.3); 'fourth'").text == "'fourth'"


def test_interrupts_at_any_moment_hit_their_cell_or_nothing(kernel: KernelProcess) -> None:
    kernel.run("import time")
    for number in range(150):
        key = kernel.start("for _ in range(200): print(_)")
        time.sleep(number % 15 / 3000)
        kernel.send(op="interrupt", key=key)
        kernel.send(op="interrupt", key=key)
        after = kernel.start("time.sleep(0.002); 'whole'")
        status = kernel.events(key)[-1]["status"]
        assert status in ("ok", "interrupted")
        events = kernel.events(after)
        assert [event["kind"] for event in events] == ["result", "done"], events


def test_an_interrupt_just_before_a_call_that_blocks_is_not_lost(kernel: KernelProcess) -> None:
    kernel.run("import time, threading")
    for number in range(150):
        key = kernel.start("print(1)\n" + ("threading.Event().wait(60)" if number % 2 else "time.sleep(60)"))
        kernel.until(key, "stdout")
        kernel.send(op="interrupt", key=key)
        assert kernel.until(key, "done")["status"] == "interrupted"


def test_an_interrupt_also_goes_to_what_the_cell_started(kernel: KernelProcess) -> None:
    kernel.run("import subprocess\nolder = subprocess.Popen(['sleep', '60'])")
    for code in ("!sleep 60", "%%bash\nsleep 60", "subprocess.run(['sh', '-c', 'sleep 60; true'])", "x = !sleep 60"):
        key = kernel.start("print('in')\n" + code if not code.startswith("%%") else code)
        time.sleep(0.6)
        began = time.monotonic()
        kernel.send(op="interrupt", key=key)
        status = kernel.events(key)[-1]["status"]
        # IPython's own magic may say "Process is interrupted." and go on.
        assert status == "interrupted" or (code.startswith("%%") and status == "ok"), code
        assert time.monotonic() - began < 4, code
    assert kernel.run("older.poll() is None").text == "True", "what an earlier cell started goes on"
    kernel.run("older.kill(); older.wait()")
    assert kernel.run("!pgrep -P $PPID -x sleep").out == ""


def test_an_interrupted_coroutine_is_over(kernel: KernelProcess) -> None:
    key = kernel.start("import asyncio\nprint('in')\nawait asyncio.sleep(60)")
    kernel.until(key, "stdout")
    kernel.send(op="interrupt", key=key)
    assert kernel.until(key, "done")["status"] == "interrupted"
    assert kernel.run("await asyncio.sleep(0)\nlen(asyncio.all_tasks())").text == "1"


def test_code_that_catches_its_interrupt_goes_on(kernel: KernelProcess, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    key = kernel.start(
        "import time\n"
        f"try:\n    open({str(begun)!r}, 'w').close()\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    print('caught')"
    )
    while not begun.exists():
        time.sleep(0.01)
    kernel.send(op="interrupt", key=key)
    assert [event["kind"] for event in kernel.events(key)] == ["stdout", "done"]
    key = kernel.start("import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(60)")
    time.sleep(0.3)
    kernel.send(op="interrupt", key=key)
    assert kernel.events(key)[-1]["status"] == "interrupted", "also where SIGINT is ignored"


def test_keys_run_once_and_a_state_tells_of_them(kernel: KernelProcess) -> None:
    kernel.run("n = 0")
    kernel.send(op="execute", key="once", code="n += 1")
    kernel.send(op="execute", key="once", code="n += 1")
    kernel.events("once")
    kernel.send(op="execute", key="once", code="n += 1")
    assert kernel.run("n").text == "1"
    slow = kernel.start("import time; time.sleep(0.5)")
    waits = kernel.start("1")
    kernel.send(op="execute", key=waits, code="2")
    time.sleep(0.2)
    state = kernel.hello()
    assert (state["session"], state["version"], state["running"], state["queued"]) == ("s", 1, slow, [waits])
    assert 0.1 < state["elapsed"] < 5
    assert "once" in state["ended"] and state["calls"] == []
    assert kernel.events(waits)[0]["data"]["text/plain"] == "1"


def test_what_is_no_request_is_dropped(kernel: KernelProcess) -> None:
    half = json.dumps({"op": "execute", "key": "half", "code": "1"}).encode()[:20]
    kernel.send_bytes(half + b"\n\n[]\n{}\nnull\n\xff\xfe\n" + b"[" * 100_000 + b"\n")
    for wrong in ({"op": "execute"}, {"op": "execute", "key": 1, "code": "1"}, {"op": "reply"}, {"op": "no"}):
        kernel.send(**wrong)
    kernel.send(op="interrupt", key=["x"])
    kernel.send(op="execute", key="e", code="1", env=[1])
    assert kernel.events("e")[0]["data"] == {"text/plain": "1"}


def test_long_events_come_in_pieces_and_long_requests_are_read(kernel: KernelProcess) -> None:
    text = '\\\\"ü€😀' * 20_000
    ran = kernel.run(f"from IPython.display import HTML\nHTML({text!r})")
    assert ran.main["text/html"] == text
    assert kernel.longest <= 64 << 10
    big = "x" * (7 << 20)
    assert kernel.run(f"len({big!r})").text == str(7 << 20)
    assert kernel.run("print('\\ud800 \\x00 \\x1b[0m')").out == "\\ud800 \x00 \x1b[0m\n"
    assert kernel.run("from IPython.display import HTML\nHTML('\\ud800')").main["text/html"] == "?"


def test_the_end_of_the_host_ends_the_kernel(kernel_of: Start) -> None:
    idle = kernel_of()
    idle.hello()
    assert idle.process.stdin is not None
    idle.process.stdin.close()
    assert idle.end()[0] == 0
    busy = kernel_of()
    busy.run("import atexit, os\natexit.register(os.write, 2, b'')")
    busy.until(busy.start("print(1)\nwhile True: pass"), "stdout")
    assert busy.process.stdin is not None
    busy.process.stdin.close()
    assert busy.end()[0] == 0
    stubborn = kernel_of()
    stubborn.until(
        stubborn.start("print(1)\nwhile True:\n  try:\n    while True: pass\n  except BaseException: pass"), "stdout"
    )
    assert stubborn.process.stdin is not None
    stubborn.process.stdin.close()
    assert stubborn.end()[0] == 0


@pytest.mark.timeout(120)
def test_a_thousand_cells_take_a_second_and_no_memory(
    kernel: KernelProcess, report_line: Callable[[str], None]
) -> None:
    def cells(count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            assert kernel.run("1 + 1").text == "2"
        return (time.perf_counter() - began) / count * 1000

    cells(300)
    before = kernel.memory()
    each = cells(1000)
    grown = kernel.memory() - before
    report_line(f"kernel: a cell takes {each:.2f} ms; 1,000 cells grow it by {grown >> 10} KiB")
    assert grown < 2 << 20
    assert each < 5
