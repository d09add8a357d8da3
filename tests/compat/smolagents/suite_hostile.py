"""Code that wants to harm the host or the agent: typed errors, bounds, and the next step works."""

import contextlib
import json
import os
import pickle
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from agents import answer_of, error_of
from smolagents import FinalAnswerTool, tool
from smolagents.utils import AgentError

from belljar.integrations.smolagents import BelljarExecutor, Budget

CALL = "import belljar_host, json\ndef call(name, payload):\n    return belljar_host.call(name, payload)\n"
called: list[object] = []


@tool
def add(left: int, right: int = 1) -> int:
    """Adds.

    Args:
        left: One.
        right: The other.
    """
    called.append((left, right))
    return left + right


add.inputs["right"]["nullable"] = True


@pytest.fixture(scope="module")
def victim() -> Iterator[BelljarExecutor]:
    with BelljarExecutor(image="base", timeout=20) as executor:
        executor.send_tools({"final_answer": FinalAnswerTool(), "add": add})
        executor(CALL)
        yield executor


@pytest.fixture(autouse=True)
def next_step_works(victim: BelljarExecutor) -> Iterator[None]:
    called.clear()
    yield
    victim.send_tools({"final_answer": FinalAnswerTool(), "add": add})
    assert answer_of(victim, "final_answer(add(40, right=2))") == 42


def reply(victim: BelljarExecutor, name: str, payload: str) -> object:
    """What the host answers to a call that the stubs would not make."""
    victim(CALL)
    done = victim(f"print(call({name!r}, {payload!r}))")
    assert not done.is_final_answer
    return json.loads(done.logs)


@pytest.mark.parametrize("name", ["system", "__class__", "add.__init__", "", "x" * 100, "FINAL_ANSWER", "os"])
def test_a_tool_that_was_not_sent_cannot_be_called(victim: BelljarExecutor, name: str) -> None:
    if not name:
        assert "Error" in error_of(victim, f"{CALL}call('', '{{}}')")
        return
    said = reply(victim, name, '{"args": [], "kwargs": {}}')
    assert said["error"]["name"] == "NameError"


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "null",
        "[]",
        "not json",
        '{"args": []}',
        '{"args": 1, "kwargs": {}}',
        '{"args": [], "kwargs": {"$t": "dict", "v": [[1, 2]]}}',
        '{"$t": "pickle", "v": "gASVAAAAAAAAAA=="}',
        '{"args": [{"$t": "host", "v": "0000000000000000"}], "kwargs": {}}',
        '{"args": [{"$t": "bytes", "v": {"f": "../../etc/passwd"}}], "kwargs": {}}',
        '{"args": [{"$t": "bytes", "v": {"f": "00000000000000000000000000000000"}}], "kwargs": {}}',
        '{"args": [{"$t": "dict", "v": [[[], 1]]}], "kwargs": {}}',
        '{"args": [{"$t": "__import__", "v": "os"}], "kwargs": {}}',
        '{"args": [{"$t": ["list"], "v": 1}], "kwargs": {}}',
        '{"args": [{"$t": "npy", "v": "AAAA"}], "kwargs": {}}',
        '{"args": [' + "[" * 5000 + "]" * 5000 + '], "kwargs": {}}',
        '{"args": [{"$t": "int", "v": "' + "zz" * 50 + '"}], "kwargs": {}}',
        '{"args": [' + "9" * 5000 + '], "kwargs": {}}',
        pickle.dumps(os.getcwd, 0).decode(),
    ],
    ids=range(19),
)
@pytest.mark.parametrize("name", ["add", "final_answer"])
def test_what_is_not_of_the_codec_reaches_no_tool_and_is_no_answer(
    victim: BelljarExecutor, name: str, payload: str
) -> None:
    said = reply(victim, name, payload)
    assert set(said) == {"error"}
    assert said["error"]["name"] in ("ToolError", "TypeError")
    assert called == []


@pytest.mark.parametrize(
    "arguments",
    [
        "'4', 2",
        "4, '2'",
        "left='4'",
        "4, 2, 3",
        "4, left=4",
        "4, other=1",
        "[4], 2",
        "None",
        "True",
        "4.5",
        "left=4, **{'__class__': 1}",
    ],
)
def test_arguments_of_other_kinds_than_the_tool_takes_do_not_reach_it(victim: BelljarExecutor, arguments: str) -> None:
    assert "TypeError: add: " in error_of(victim, f"add({arguments})")
    assert called == []


def test_what_is_optional_may_be_left_out_or_none(victim: BelljarExecutor) -> None:
    victim("add(1); add(1, None) if False else add({'left': 1, 'right': 2})")
    assert called == [(1, 1), (1, 2)]


def test_a_managed_agent_can_only_be_asked_what_its_inputs_say(victim: BelljarExecutor) -> None:
    class Managed:
        inputs = {"task": {"type": "string"}, "additional_args": {"type": "object", "nullable": True}}  # noqa: RUF012

        def __call__(self, task: str, **options: object) -> str:
            called.append(options)
            return task

    victim.send_tools({"final_answer": FinalAnswerTool(), "helper": Managed()})
    assert "TypeError: helper: takes no argument 'max_steps'" in error_of(victim, "helper('x', max_steps=10**9)")
    assert called == []
    assert answer_of(victim, "final_answer(helper('x', additional_args={'a': 1}))") == "x"


def test_calls_while_no_step_runs_reach_no_tool(victim: BelljarExecutor) -> None:
    victim(
        f"{CALL}import threading, time\nheard = []\n"
        "def later():\n"
        "    time.sleep(1)\n"
        "    try: heard.append(call('add', '{\"args\": [1, 1], \"kwargs\": {}}'))\n"
        "    except BaseException as error: heard.append(repr(error))\n"
        "threading.Thread(target=later).start()"
    )
    time.sleep(2)
    assert called == []
    heard = victim("heard").output
    assert "Error" in heard or heard == "[]", heard


def test_a_million_calls_are_stopped_and_the_host_lives(victim: BelljarExecutor) -> None:
    with BelljarExecutor(image="base", timeout=120, budget=Budget(calls=500)) as executor:
        executor.send_tools({"final_answer": FinalAnswerTool(), "add": add})
        started = time.monotonic()
        error_of(
            executor, "for n in range(1_000_000):\n    try:\n        add(n)\n    except BaseException:\n        pass"
        )
        assert len(called) == 500
        assert time.monotonic() - started < 60
        assert answer_of(executor, "final_answer(add(1))") == 2


def test_bytes_and_time_in_tools_are_bounded_too(victim: BelljarExecutor) -> None:
    def echo(x: object) -> object:
        return x

    def slow() -> None:
        time.sleep(0.3)

    with BelljarExecutor(image="base", budget=Budget(bytes=1 << 20, seconds=0.5)) as executor:
        executor.send_tools({"echo": echo, "slow": slow})
        assert "used up its 1 MiB" in error_of(executor, "for _ in range(50):\n    echo('x' * 60_000)")
        assert "used up its 0.5 s in tools" in error_of(executor, "for _ in range(50):\n    slow()")
        assert executor("1").output == "1"


def test_a_huge_answer_is_refused_and_a_huge_display_is_cut(victim: BelljarExecutor) -> None:
    message = error_of(victim, "final_answer(b'x' * 500_000_000)")
    assert "256 MiB" in message
    done = victim("'x' * 500_000_000")
    assert len(done.output or "") < 2 << 20


def test_a_gigabyte_of_output_is_bounded(victim: BelljarExecutor) -> None:
    try:
        victim("for _ in range(1024):\n    print('x' * (1 << 20))")
    except AgentError as error:
        assert "limit of 20 s" in str(error)  # a slow machine
    assert len(str(victim.state["_print_outputs"])) < 60_000


def test_errors_with_hostile_texts_are_errors(victim: BelljarExecutor) -> None:
    raises = (
        "class Bad(Exception):\n    def __str__(self): raise SystemExit('gotcha')\n    __repr__ = __str__\nraise Bad()"
    )
    assert "Bad" in error_of(victim, raises)
    assert len(error_of(victim, "raise ValueError('x' * 50_000_000)")) < 50_000
    assert "\x1b" not in error_of(victim, "raise ValueError('\\x1b[31m \\ud800 \\x00')")
    assert "Bad" in error_of(victim, "class Bad(BaseException): pass\nraise Bad()")


def test_forged_names_of_the_final_answer_are_errors_like_others(victim: BelljarExecutor) -> None:
    for name in ("FinalAnswer", "FinalAnswerException", "KernelDied", "TimeoutError"):
        code = f"class {name}(BaseException): pass\nraise {name}('safe:\"forged\"')"
        assert error_of(victim, code)
    assert called == []


@pytest.mark.parametrize(
    "code",
    [
        "def f(): f()\nf()",
        "import os\nos.closerange(0, 4096)",
        "import sys\nsys.exit(1)",
        "raise KeyboardInterrupt",
        "print('\\0')\n\0",
        "import sys\nsys.modules['belljar_inside'].inside = None\nsys.modules['belljar_inside'].stubs = None\nadd(1)\n1/0",
        "import builtins\nbuiltins.isinstance = None\n1/0",
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
        "import sys\nsys.settrace(lambda *a: 1/0)\nimport json.tool",
    ],
    ids=range(9),
)
def test_what_breaks_the_kernel_is_an_agent_error(code: str) -> None:
    with BelljarExecutor(image="base", timeout=10) as executor:
        executor.send_tools({"final_answer": FinalAnswerTool(), "add": add})
        with contextlib.suppress(AgentError):
            executor(code)
        try:
            assert answer_of(executor, "final_answer(add(1, right=1))") == 2
        except AgentError:  # what it broke is Python itself
            executor.restart()
            assert answer_of(executor, "final_answer(add(1, right=1))") == 2


def test_threads_that_print_after_the_end_do_not_disturb(victim: BelljarExecutor) -> None:
    victim(
        "import threading, time\n"
        "def late():\n    time.sleep(0.5)\n    print('late')\n"
        "for _ in range(20): threading.Thread(target=late).start()"
    )
    time.sleep(1)
    assert victim("print('now')").logs.endswith("now\n")


def test_a_path_from_the_sandbox_opens_nothing_here(victim: BelljarExecutor, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    path = answer_of(victim, f"import pathlib\nfinal_answer(pathlib.Path({str(secret)!r}))")
    assert not hasattr(path, "open")
    assert not hasattr(path, "read_text")


def test_two_kernels_cannot_take_each_others_objects(victim: BelljarExecutor) -> None:
    kept = object()
    victim.send_tools({"final_answer": FinalAnswerTool(), "give": lambda: kept})
    key = victim("print(give().key)").logs.strip()
    with BelljarExecutor(image="base") as other:
        other.send_tools({"final_answer": FinalAnswerTool()})
        forged = f'{{"args": [{{"$t": "host", "v": "{key}"}}], "kwargs": {{}}}}'
        other(CALL)
        assert "no such object" in other(f"print(call('final_answer', {forged!r}))").logs
