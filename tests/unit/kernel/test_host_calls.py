"""`belljar_host`: the code asks, the host answers."""

import time
from collections.abc import Callable

from .conftest import KernelProcess, on_each_python

Start = Callable[..., KernelProcess]


@on_each_python
def test_a_call_waits_for_its_answer(kernel_of: Start, python: str) -> None:
    kernel = kernel_of(python)
    key = kernel.start("import belljar_host\nanswer = belljar_host.call('tool', '{\"a\": 1}')\nanswer")
    asked = kernel.until(key, "call")
    assert (asked["name"], asked["payload"]) == ("tool", '{"a": 1}')
    assert kernel.hello()["calls"] == [asked["call"]]
    kernel.send(op="reply", call="unknown", value="no")
    kernel.send(op="reply", call=asked["call"], value="yes")
    assert kernel.until(key, "result")["data"]["text/plain"] == "'yes'"
    kernel.until(key, "done")


def test_the_hosts_error_is_raised_with_its_name(kernel: KernelProcess) -> None:
    key = kernel.start("import belljar_host\nbelljar_host.call('tool')")
    asked = kernel.until(key, "call")
    kernel.send(op="reply", call=asked["call"], error={"name": "KeyError", "message": "no such tool"})
    error = kernel.until(key, "error")
    assert (error["name"], error["value"]) == ("HostError", "KeyError: no such tool")
    assert "belljar_host.HostError" in error["traceback"]
    kernel.until(key, "done")
    key = kernel.start(
        "try:\n  belljar_host.call('t')\nexcept belljar_host.HostError as e:\n  print(e.name, '|', e.message)"
    )
    kernel.send(op="reply", call=kernel.until(key, "call")["call"], error={"name": "A", "message": "b"})
    assert kernel.until(key, "stdout")["text"] == "A | b\n"
    kernel.until(key, "done")


def test_threads_call_side_by_side(kernel: KernelProcess) -> None:
    code = """
import belljar_host
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as pool:
    found = list(pool.map(lambda n: belljar_host.call('t', str(n)), range(40)))
found == [f'r{n}' for n in range(40)]
"""
    key = kernel.start(code)
    for _ in range(40):
        asked = kernel.until(key, "call")
        kernel.send(op="reply", call=asked["call"], value="r" + asked["payload"])
    assert kernel.until(key, "result")["data"]["text/plain"] == "True"
    kernel.until(key, "done")


def test_an_interrupt_ends_every_wait(kernel: KernelProcess) -> None:
    code = """
import belljar_host, threading
def ask():
    try: belljar_host.call('in thread')
    except belljar_host.HostError as e: ended.append(e.name)
ended = []
t = threading.Thread(target=ask); t.start()
belljar_host.call('in main')
"""
    key = kernel.start(code)
    calls = [kernel.until(key, "call")["call"] for _ in range(2)]
    began = time.monotonic()
    kernel.send(op="interrupt", key=key)
    assert kernel.until(key, "done")["status"] == "interrupted"
    assert time.monotonic() - began < 5
    for call in calls:
        kernel.send(op="reply", call=call, value="late")
    assert kernel.run("t.join(5); ended").text == "['Ended']"


def test_calls_without_a_cell_or_of_a_cell_that_ended_are_refused(kernel: KernelProcess) -> None:
    code = """
import belljar_host, threading, time
said = []
def ask(after):
    time.sleep(after)
    try: said.append(belljar_host.call('t'))
    except belljar_host.HostError as e: said.append(e.name)
threads = [threading.Thread(target=ask, args=(n,)) for n in (0, 0.5)]
for t in threads: t.start()
time.sleep(0.2)
"""
    events = kernel.run(code).events
    assert [event["kind"] for event in events] == ["call", "done"]
    time.sleep(0.8)
    assert kernel.run("[t.join(5) for t in threads]; sorted(said)").text == "['Ended', 'NoExecution']"


def test_calls_are_bounded_and_typed(kernel: KernelProcess) -> None:
    kernel.run("import belljar_host")
    for arguments, name in (
        ("'t', 'x' * (12 * 2**20 + 1)", "ValueError"),
        ("'t', '\"' * (11 * 2**20)", "ValueError"),
        ("'', ''", "ValueError"),
        ("'n' * 200", "ValueError"),
        ("'t', b'x'", "TypeError"),
        ("5", "TypeError"),
    ):
        ran = kernel.run(f"belljar_host.call({arguments})")
        assert ran.error is not None and ran.error["name"] == name, arguments
        assert [event["kind"] for event in ran.events] == ["error", "done"]
    key = kernel.start("len(belljar_host.call('t', 'x' * (12 * 2**20)))")
    asked = kernel.until(key, "call")
    assert len(asked["payload"]) == 12 << 20
    kernel.send(op="reply", call=asked["call"], value="y" * (12 << 20))
    assert kernel.until(key, "result")["data"]["text/plain"] == str(12 << 20)
    kernel.until(key, "done")
    assert kernel.longest <= 64 << 10


def test_a_child_process_cannot_call(kernel: KernelProcess) -> None:
    code = """
import belljar_host, os
pid = os.fork()
if not pid:
    try: belljar_host.call('t')
    except belljar_host.HostError as e: print(e.name, flush=True)
    os._exit(0)
os.waitpid(pid, 0);
"""
    assert kernel.run(code).out == "NoExecution\n"
