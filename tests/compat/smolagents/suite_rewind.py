"""An agent's run goes back to any step, and on from there: on the same executor, on a fork of it, or in another process."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from agents import agent_of, answer_of, error_of, executor
from smolagents import FinalAnswerTool, Tool, tool
from smolagents.utils import AgentError

import belljar
from belljar.integrations.smolagents import BelljarExecutor, remembered, rewind_agent

__all__ = ("executor",)
RUN = "belljar-run"


def recorder() -> tuple[Tool, list[int]]:
    seen: list[int] = []

    @tool
    def note(value: int) -> int:
        """Writes it down here, and says how many there are.

        Args:
            value: What to write down.
        """
        seen.append(value)
        return len(seen)

    return note, seen


def recorded(**options: Any) -> BelljarExecutor:
    executor = BelljarExecutor(image="base", **{"snapshot_each_step": True, **options})
    executor.send_tools({"final_answer": FinalAnswerTool()})
    return executor


def steps_of(executor: BelljarExecutor) -> list[int]:
    return [one.step for one in executor.snapshots]


def there(executor: BelljarExecutor) -> set[str]:
    """What the server has of the snapshots of one executor."""
    run = executor.snapshots[0].snapshot.labels[RUN]
    return {one.labels["belljar-step"] for one in belljar.Snapshot.list(labels={RUN: run})}


FOUR = (
    "x = [given]\nopen('kept.txt', 'w').write('one')\nprint('first', note(1))",
    "x.append(2)\nopen('kept.txt', 'w').write('two')\ndef twice(n):\n    return 2 * n",
    "x = None\ndel twice\nimport os\nos.remove('kept.txt')\nnote(3)",
    "final_answer('wrong')",
)


def test_an_agent_goes_back_to_its_second_step_and_on_with_other_code() -> None:
    note, seen = recorder()
    with recorded() as executor:
        agent = agent_of(
            executor, *FOUR, "final_answer((twice(note(9)), x, given, open('kept.txt').read()))", tools=[note]
        )
        assert agent.run("go", additional_args={"given": 1}) == "wrong"
        assert steps_of(executor) == [0, 1, 2, 3, 4]
        shown = executor.snapshots[1]
        assert (shown.code, shown.excerpt) == (FOUR[0], "first 1\n")
        assert shown.snapshot.labels["belljar-step"] == "1"
        assert shown.snapshot.name is not None
        assert executor.snapshots[4].excerpt == "wrong"
        sandbox = executor.sandbox.id

        rewind_agent(agent, 2)
        assert executor.sandbox.id == sandbox, "rewound, but not in its place"
        assert [getattr(step, "code_action", None) for step in agent.memory.steps] == [None, FOUR[0], FOUR[1]]
        assert agent.run("Do it otherwise.", reset=False) == (6, [1, 2], 1, "two")
        assert seen == [1, 3, 9], "what a tool did here is not taken back"
        said = "".join(str(message) for message in agent.model.messages[-1])
        assert "x.append(2)" in said
        assert "os.remove" not in said, "the model was told of steps that did not happen"
        assert steps_of(executor) == [0, 1, 2, 3]
        assert there(executor) == {"0", "1", "2", "3"}


def test_files_alone_go_back_and_the_given_variables_and_tools_are_there_again() -> None:
    note, _ = recorder()
    with recorded(snapshot_each_step="filesystem") as executor:
        executor.send_tools({"final_answer": FinalAnswerTool(), "note": note})
        executor.send_variables({"given": 5})
        executor("own = 1\nopen('kept.txt', 'w').write('one')")
        executor("open('kept.txt', 'w').write('two')\nopen('/tmp/other', 'w').write('x')")
        assert {one.snapshot.kind for one in executor.snapshots} == {"filesystem"}
        executor.rewind(1)
        code = (
            "import os\nfinal_answer((open('kept.txt').read(), os.path.exists('/tmp/other'), given, 'own' in globals(),"
            " note(1)))"
        )
        assert answer_of(executor, code) == ("one", False, 5, False, 1)


HARMS = {
    "its files and its kernel": "import os\nos.system('rm -rf ~/* ~/.??*')\nos._exit(3)",
    "all its processes": "import os, signal\nos.kill(-1, signal.SIGKILL)",
    "its interpreter": "import sys, builtins, belljar_host\nsys.modules.clear()\nbuiltins.__dict__.clear()",
    "processes and disk": (
        "import subprocess\nfor _ in range(20): subprocess.Popen(['sleep', '1000'])\n"
        "open('fill', 'wb').write(b'x' * (50 << 20))"
    ),
}


def test_what_hostile_code_has_broken_is_whole_again() -> None:
    note, _ = recorder()
    with recorded(keep=3) as executor:
        executor.send_tools({"final_answer": FinalAnswerTool(), "note": note})
        executor(
            "import subprocess\nx = 41\nopen('kept.txt', 'w').write('here')\nchild = subprocess.Popen(['sleep', '999'])"
        )
        for count, (what, harm) in enumerate(HARMS.items(), 1):
            with contextlib.suppress(AgentError):
                executor(harm)
            executor.rewind(1)
            code = (
                "import os\nfinal_answer((x + 1, open('kept.txt').read(), child.poll(), note(1), os.path.exists('fill'),"
                " sum('sleep' in open(f'/proc/{p}/cmdline').read() for p in os.listdir('/proc') if p.isdigit())))"
            )
            assert answer_of(executor, code) == (42, "here", None, count, False, 1), what


def test_an_executor_goes_back_where_its_sandbox_has_ended() -> None:
    with recorded() as executor:
        executor("x = 1")
        first = executor.sandbox
        executor("x = 2")
        first.terminate()
        executor.rewind(1)
        assert executor.sandbox.id != first.id
        assert answer_of(executor, "final_answer(x)") == 1
        assert executor.sandbox.lineage().id == first.id


def test_one_can_go_forward_again_until_another_step_is_run() -> None:
    with recorded() as executor:
        for number in range(1, 4):
            executor(f"x = {number}")
        executor.rewind(1)
        executor.rewind(3)
        assert executor("x").output == "3"
        executor.rewind(0)
        assert "NameError" in error_of(executor, "x")
        assert steps_of(executor) == [0, 1]
        executor.rewind(0)
        assert executor("'again'").output == "'again'"
        names = [one.snapshot.name for one in executor.snapshots]
        assert names[1] is not None
        assert names[1].endswith("-step-1-3"), "two snapshots of one name"
        with pytest.raises(LookupError, match="no snapshot of step 3; there are: 0, 1"):
            executor.rewind(3)


def test_two_agents_go_on_from_one_moment_each_with_its_own_tools() -> None:
    note, _ = recorder()
    other_note, other_seen = recorder()
    with recorded() as executor:
        agent = agent_of(executor, *FOUR, "final_answer((x, note(4)))", tools=[note])
        agent.run("go", additional_args={"given": 1})
        with executor.fork(2) as forked:
            other = agent_of(
                forked, "x.append(twice(other := note(5)))", "final_answer((x, other))", tools=[other_note]
            )
            other.memory.steps = remembered(agent, 2)
            assert other.run("Go on.", reset=False) == ([1, 2, 2], 1)
            assert other_seen == [5]
            assert steps_of(forked) == [2, 3, 4]
            rewind_agent(agent, 2)
            assert agent.run("Go on.", reset=False) == ([1, 2], 3)
            rewind_agent(other, 3)
            assert len(other.memory.steps) == 5
            assert forked("x").output == "[1, 2, 2]"
            assert forked.sandbox.id != executor.sandbox.id
            assert {one.id for one in belljar.Sandbox.list(labels={"made-by": "smolagents"})} >= {forked.sandbox.id}
        assert executor("x").output == "[1, 2]", "the end of the fork has ended more"


def test_a_fork_of_now_has_all_that_is_there(executor: BelljarExecutor, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("from here")
    connection = object()
    got: list[Any] = []

    def use(connection: object) -> bool:
        got.append(connection)
        return True

    executor.send_tools({"final_answer": FinalAnswerTool(), "use": use})
    executor.send_variables({"file": tmp_path / "in.txt", "connection": connection})
    executor("handle = open('log', 'w')\nclass Own: pass\nown = Own()")
    with executor.fork() as forked:
        assert forked.snapshots == []
        code = "handle.write('fork'); handle.flush()\nfinal_answer((use(connection), file.read_text(), open('log').read()))"
        assert answer_of(forked, code) == (True, "from here", "fork")
        assert got[0] is connection
        assert answer_of(executor, "final_answer((open('log').read(), use(connection)))") == ("", True)
        # What is sent later is of one alone.
        forked.send_variables({"late": object()})
        assert "NameError" in error_of(executor, "late")
        assert forked.kwargs == executor.kwargs
    with pytest.raises(LookupError, match="snapshot_each_step=True"):
        executor.rewind(1)


def test_the_newest_are_kept_and_none_stays_behind() -> None:
    with recorded(keep=2) as executor:
        for number in range(4):
            executor(f"x = {number}")
        assert steps_of(executor) == [3, 4]
        assert there(executor) == {"3", "4"}
        run = executor.snapshots[0].snapshot.labels[RUN]
        assert executor.snapshots[0].snapshot.expires is not None, "one of a killed process would stay for ever"
        with pytest.raises(LookupError, match="there are: 3, 4"):
            executor.rewind(1)
        with pytest.raises(LookupError):
            executor.fork(1)
        executor.rewind(3)
        assert executor("x").output == "2"
    assert executor.snapshots == []
    assert list(belljar.Snapshot.list(labels={RUN: run})) == []


def test_snapshots_that_are_to_stay_start_an_executor_in_another_process() -> None:
    note, seen = recorder()
    with recorded(keep_snapshots=True) as executor:
        executor.send_tools({"final_answer": FinalAnswerTool(), "old_tool": lambda: 1})
        executor("import threading\nx = [1]\nopen('kept.txt', 'w').write('one')\nlock = threading.Lock()")
        executor("x.append(2)")
    try:
        assert there(executor) == {"0", "1", "2"}
        assert executor.snapshots[1].snapshot.expires is None
        for given in (executor.snapshots[1].snapshot, executor.snapshots[1].snapshot.id):
            with BelljarExecutor(sandbox=given) as again:
                again.send_tools({"final_answer": FinalAnswerTool(), "note": note})
                code = "final_answer((x, open('kept.txt').read(), note(3), 'old_tool' in globals(), lock.locked()))"
                assert answer_of(again, code) == ([1], "one", len(seen), False, False)
        executor.rewind(2)
        assert executor("x").output == "[1, 2]", "kept, but not to be gone back to"
    finally:
        executor.cleanup()
        for one in executor.snapshots:
            one.snapshot.delete()


def test_an_executor_goes_on_from_a_snapshot_that_a_user_took(executor: BelljarExecutor) -> None:
    executor("x = 'from before'\nopen('kept.txt', 'w').write('file')")
    whole, files = executor.sandbox.snapshot(memory=True), executor.sandbox.snapshot()
    try:
        with BelljarExecutor(sandbox=whole, snapshot_each_step=True) as again:
            assert again("x").output == "'from before'"
            again("x = 0")
            again.rewind(1)
            assert again("x").output == "'from before'"
            assert again.sandbox.lineage().id == executor.sandbox.id
        with BelljarExecutor(sandbox=files, cpu=1) as again:
            assert "NameError" in error_of(again, "x")
            assert again("open('kept.txt').read()").output == "'file'"
    finally:
        whole.delete()
        files.delete()
    message = error_of(BelljarExecutor(sandbox=whole), "1")
    assert "NotFound" in message
    assert "deleted" in message


def test_a_sandbox_of_ones_own_is_rewound_and_not_ended() -> None:
    with belljar.Sandbox.create("base", user="user", workdir="/home/user") as sandbox:
        with BelljarExecutor(sandbox=sandbox, snapshot_each_step=True) as executor:
            executor("x = 1")
            sandbox.path("beside").write_text("by somebody else")
            executor.rewind(1)
            assert executor("x").output == "1"
            assert not sandbox.path("beside").exists()
        assert sandbox.run("echo lives").stdout == "lives\n"
        assert list(belljar.Snapshot.list(sandbox=sandbox.id)) == []


def test_neither_is_done_while_a_step_runs() -> None:
    with recorded() as executor:
        executor.send_tools({"final_answer": FinalAnswerTool(), "back": executor.rewind, "aside": executor.fork})
        assert "RuntimeError: a step is running" in error_of(executor, "back(0)")
        assert "RuntimeError: a step is running" in error_of(executor, "aside()")
        assert answer_of(executor, "final_answer('on')") == "on"


class Told:
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def log(self, *args: Any, **kwargs: Any) -> None: ...

    def log_error(self, error_message: str) -> None:
        self.errors.append(error_message)


def test_a_step_counts_also_when_its_snapshot_cannot_be_taken() -> None:
    told = Told()
    with recorded(logger=told) as executor:
        executor.send_tools({"final_answer": FinalAnswerTool(), "end": lambda: executor.sandbox.terminate()})
        executor("x = 1")
        error_of(executor, "end()")
        assert steps_of(executor) == [0, 1]
        assert any("no snapshot of step 2" in error for error in told.errors)
        assert "NameError" in error_of(executor, "x")
        executor.rewind(1)
        assert executor("x").output == "1"


def test_an_agent_that_forgot_a_run_goes_back_into_it_with_an_empty_memory() -> None:
    with recorded() as executor:
        executor("x = 'before any agent'")
        agent = agent_of(
            executor, "x = 'first'", "final_answer(1)", "x = 'second'", "final_answer(x)", "final_answer(x)"
        )
        assert agent.run("one") == 1
        assert agent.run("two") == "second"
        with pytest.raises(LookupError, match="no snapshot of step 6"):
            executor.rewind(6)
        with pytest.raises(LookupError, match="remembers the steps 4 to 5 and not 6"):
            rewind_agent(agent, 6)
        assert len(remembered(agent, 4)) == 2
        assert remembered(agent, 3) == []
        rewind_agent(agent, 2)
        assert agent.memory.steps == []
        assert agent.run("three", reset=False) == "first"
    with pytest.raises(TypeError):
        rewind_agent(agent_of(None), 1)


def test_a_step_that_says_no_code_or_that_never_ran_does_not_confuse_the_count() -> None:
    with recorded() as executor:
        agent = agent_of(executor, "x = 1", "final_answer(x)")
        spoken = agent.model.generate

        def generate(*args: Any, **kwargs: Any) -> Any:
            said = spoken(*args, **kwargs)
            if len(agent.model.messages) == 1:
                agent.model.actions.insert(0, "x = 1")
                said.content = "No code at all."
            return said

        agent.model.generate = generate
        assert agent.run("go") == 1
        assert executor.codes == ["x = 1", "final_answer(x)"]
        rewind_agent(agent, 1)
        assert [getattr(step, "code_action", None) for step in agent.memory.steps] == [None, None, "x = 1"]


BROKEN_OFF = """
import os, sys, threading, time, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may ignore it
from belljar.integrations.smolagents import BelljarExecutor

executor = BelljarExecutor(image="base", snapshot_each_step=True)
executor("x = 1")
print(executor.snapshots[0].snapshot.labels["belljar-run"], executor.sandbox.id, flush=True)
"""


def test_no_snapshot_stays_when_the_program_breaks_off() -> None:
    ends = {
        'executor(\'import time; open("/tmp/begun", "w").close(); time.sleep(60)\')': -signal.SIGINT,
        "raise ValueError": 1,
        "del executor\nimport gc; gc.collect()\ninput()": 0,
    }
    with contextlib.ExitStack() as stack:
        programs = [stack.enter_context(program(BROKEN_OFF + end)) for end in ends]
        places = [words(one).split() for one in programs]
        wait_for(lambda: not left_of(places[2][0]), 20)
        assert programs[2].poll() is None, "it was its end that deleted them"
        wait_for(belljar.Sandbox.get(places[0][1]).path("/tmp/begun").exists, 20)
        programs[0].send_signal(signal.SIGINT)
        for one in programs:
            try:
                one.communicate("\n", timeout=60)
            except subprocess.TimeoutExpired:
                one.send_signal(signal.SIGABRT)  # it says where it stands
                pytest.fail(f"{one.args} goes on: {one.communicate(timeout=20)[0][-4000:]}")
    assert [one.returncode for one in programs] == list(ends.values())
    for run, sandbox in places:
        assert left_of(run) == []
        with pytest.raises(belljar.NotFound):
            belljar.Sandbox.get(sandbox).run("true")


def program(code: str) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    words = [sys.executable, "-X", "faulthandler", "-c", code]
    return subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def words(program: "subprocess.Popen[str]") -> str:
    assert program.stdout is not None
    return program.stdout.readline()


def left_of(run: str) -> list[belljar.Snapshot]:
    return list(belljar.Snapshot.list(labels={RUN: run}))


def wait_for(done: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_wrong_words_are_refused_at_once() -> None:
    for options in ({"snapshot_each_step": "disk"}, {"keep": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            BelljarExecutor(**options)
    options = {"snapshot_each_step": True, "keep": 3, "keep_snapshots": True, "sandbox": "sn" + "0" * 19}
    assert BelljarExecutor(**options).kwargs == options
