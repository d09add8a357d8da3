"""Agents as people build them, in real sandboxes."""

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from agents import agent_of, executor, observations
from PIL import Image
from smolagents import CodeAgent, Tool, ToolCallingAgent, ToolCollection, tool

import belljar
from belljar.integrations.smolagents import BelljarExecutor, load_agent, run_agent, save_agent

__all__ = ("executor",)
EXAMPLES = Path(__file__).parents[3] / "examples" / "smolagents"


@pytest.fixture(scope="module")
def code():
    """The image with numpy, pandas and the like."""
    with BelljarExecutor(image="code") as made:
        yield made


def counter() -> tuple[Tool, list[int]]:
    seen: list[int] = []

    @tool
    def count(step: int) -> int:
        """Counts on.

        Args:
            step: By how much.
        """
        seen.append(step)
        return sum(seen)

    return count, seen


def test_one_agent_runs_twice_and_goes_on_with_reset_false(executor: BelljarExecutor) -> None:
    agent = agent_of(
        executor, "x = 6", "final_answer(x * 7)", "final_answer(x + 1)", "y = x\nfinal_answer(y)", max_steps=5
    )
    assert agent.run("one") == 42
    assert agent.run("two", reset=False) == 7
    assert agent.run("three") == 6
    assert "final_answer" in agent.tools
    assert type(agent.tools["final_answer"]).__name__ == "FinalAnswerTool", "the tool itself was changed"


def test_a_closure_keeps_its_state_on_the_host(executor: BelljarExecutor) -> None:
    count, seen = counter()
    agent = agent_of(executor, "a = [count(n) for n in (1, 2, 3)]", "final_answer((a, count(step=4)))", tools=[count])
    assert agent.run("count") == ([1, 3, 6], 10)
    assert seen == [1, 2, 3, 4]


class Limited(Tool):
    name = "limited"
    description = "Says its limit."
    inputs = {"text": {"type": "string", "description": "Any.", "nullable": True}}  # noqa: RUF012
    output_type = "string"

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.set_up = 0

    def setup(self) -> None:
        self.set_up += 1
        super().setup()

    def forward(self, text: str | None = None) -> str:
        return f"{text} {self.limit}"


def test_a_tool_keeps_what_its_constructor_got_and_is_set_up_once(executor: BelljarExecutor) -> None:
    limited = Limited(99)
    agent = agent_of(executor, "final_answer([limited('a'), limited(text='b'), limited()])", tools=[limited])
    assert agent.run("go") == ["a 99", "b 99", "None 99"]
    assert limited.set_up == 1


def test_what_a_tool_raises_is_raised_in_the_code_by_name_and_text(executor: BelljarExecutor) -> None:
    class Unknown(Exception):
        pass

    @tool
    def fail(kind: str) -> str:
        """Fails.

        Args:
            kind: How.
        """
        raise {"value": ValueError, "own": Unknown}[kind](f"no {kind}")

    agent = agent_of(
        executor,
        "try:\n    fail('value')\nexcept ValueError as error:\n    print('caught', error)\nfail('own')",
        "final_answer('went on')",
        tools=[fail],
    )
    assert agent.run("fail") == "went on"
    step = agent.memory.steps[1]
    assert "caught no value" in step.observations
    assert "Unknown: no own" in step.error.message
    assert "belljar" not in step.error.message, "the bridge's own lines are shown"


def test_a_managed_agent_runs_on_the_host_in_a_sandbox_of_its_own(executor: BelljarExecutor) -> None:
    with BelljarExecutor(image="base") as other:
        helper = agent_of(other, "import os\nfinal_answer(os.uname().nodename)", name="helper", description="Helps.")
        agent = agent_of(
            executor, "import os\nfinal_answer((os.uname().nodename, helper('where?')))", managed_agents=[helper]
        )
        mine, report = agent.run("go")
        assert report.strip().endswith(other.sandbox.id) or mine not in report


def test_a_managed_agent_gets_additional_args_and_shares_a_sandbox(code: BelljarExecutor) -> None:
    with BelljarExecutor(sandbox=code.sandbox) as shared:
        helper = agent_of(
            shared, "final_answer(int(table['a'].sum()))", name="helper", description="Sums.", max_steps=2
        )
        agent = agent_of(
            code,
            "import pandas as pd\nfinal_answer(helper('sum', additional_args={'table': pd.DataFrame({'a': [1, 41]})}))",
            managed_agents=[helper],
        )
        assert agent.run("go").strip().endswith("42")
    assert code("1 + 1").output == "2", "ending the shared one has ended the sandbox"


def test_an_agent_that_calls_itself_through_a_tool_is_told_that_it_cannot(executor: BelljarExecutor) -> None:
    helper = agent_of(executor, "final_answer(1)", name="helper", description="Helps.", max_steps=1)
    agent = agent_of(executor, "final_answer(helper('go'))", managed_agents=[helper])
    agent.run("go")
    assert "executor of its own" in str(helper.memory.steps[1].error)


def test_an_mcp_tool_of_a_real_server_is_called(executor: BelljarExecutor) -> None:
    from mcp import StdioServerParameters

    server = StdioServerParameters(command=sys.executable, args=[str(EXAMPLES / "mcp_server.py")])
    with ToolCollection.from_mcp(server, trust_remote_code=True, structured_output=False) as found:
        agent = agent_of(
            executor,
            "final_answer([high_tide(harbour='Kiel', day=3), high_tide(harbour='Husum')])",
            tools=[*found.tools],
        )
        assert agent.run("go") == ["Kiel: 9:40", "Husum: 7:40"]


def test_images_come_as_answers_go_in_and_are_shown(code: BelljarExecutor) -> None:
    red = Image.new("RGB", (20, 10), (255, 0, 0))
    agent = agent_of(
        code,
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()",
        "final_answer(red.resize((4, 2)))",
    )
    answer = agent.run("draw", additional_args={"red": red}).to_raw()
    assert answer.size == (4, 2)
    assert answer.getpixel((0, 0)) == (255, 0, 0)
    assert isinstance(agent.memory.steps[1].action_output, Image.Image)


def test_tables_go_in_and_out_whole(code: BelljarExecutor) -> None:
    table = pd.DataFrame(
        {
            "number": [1.5, None, -3.0],
            "text": ["a", None, "ü\n"],
            "when": pd.date_range("2024-02-28", periods=3, tz="Europe/Berlin"),
            "kind": pd.Categorical(["x", "y", "x"], ordered=True),
            "count": pd.array([1, None, 3], dtype="Int64"),
            "mixed": [1, "a", (2, 3)],
        },
        index=pd.MultiIndex.from_tuples([(1, "a"), (1, "b"), (2, "a")], names=["n", "l"]),
    )
    agent = agent_of(code, "print(table.dtypes)", "final_answer((table, table['number'], table.index))")
    same, column, index = agent.run("look", additional_args={"table": table})
    pd.testing.assert_frame_equal(same, table)
    pd.testing.assert_series_equal(column, table["number"])
    pd.testing.assert_index_equal(index, table.index)


def test_large_values_travel_both_ways(code: BelljarExecutor) -> None:
    numbers = np.random.default_rng(0).normal(size=(1_000_000, 4))
    agent = agent_of(code, "final_answer((numbers * 2, 'x' * 3_000_000, list(range(300_000))))")
    doubled, text, many = agent.run("double", additional_args={"numbers": numbers})
    np.testing.assert_array_equal(doubled, numbers * 2)
    assert (len(text), many[-1]) == (3_000_000, 299_999)


def test_what_cannot_travel_stays_and_comes_back_as_itself(code: BelljarExecutor) -> None:
    connection = object()
    got: list[Any] = []

    @tool
    def connect() -> object:
        """Gives a connection."""
        return connection

    @tool
    def use(connection: object, model: object) -> object:
        """Uses it.

        Args:
            connection: The connection.
            model: A model of the sandbox.
        """
        got.append(connection)
        return model

    agent = agent_of(
        code,
        "from sklearn.linear_model import LinearRegression\nmodel = LinearRegression()\nc = connect()\nprint(repr(c))",
        "final_answer(use(c, model) is model)",
        tools=[connect, use],
    )
    assert agent.run("go") is True
    assert got == [connection]
    assert got[0] is connection


def test_files_are_put_in_and_come_out(executor: BelljarExecutor, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a,b\n1,2\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "deep.txt").write_text("deep")
    agent = agent_of(
        executor,
        "print(type(file).__name__, file.read_text(), data, (folder / 'deep.txt').read_text())\n"
        "open('out.txt', 'w').write(file.read_text() * 2)",
        "final_answer(file)",
    )
    handed = {"file": tmp_path / "in.csv", "data": b"\x00\xff", "folder": tmp_path / "folder"}
    executor.files.changed()
    where = agent.run("copy", additional_args=handed)
    assert str(where) == "/home/user/inputs/in.csv"
    assert not hasattr(where, "read_text"), "a path of the sandbox must open nothing here"
    assert "PosixPath a,b\n1,2\n b'\\x00\\xff' deep" in observations(agent)[0]
    assert {one.path for one in executor.files.changed()} >= {"/home/user/out.txt"}
    assert executor.files.changed() == []
    assert executor.files.download("out.txt", tmp_path / "out.txt").read_text() == "a,b\n1,2\n" * 2
    assert executor.files.upload(tmp_path / "out.txt", "again.txt") == "/home/user/again.txt"
    assert executor.files.read("again.txt") == b"a,b\n1,2\n" * 2


def test_missing_packages_are_installed_once_and_the_standard_library_never() -> None:
    with BelljarExecutor(["six", "os.*", "datetime", "*", "collections"], image="base") as executor:
        agent = agent_of(executor, "import six\nprint(six.__file__)\nfinal_answer(six.PY3)")
        started = time.monotonic()
        assert agent.run("go") is True
        assert "/home/user/.local/" in observations(agent)[0]
        assert time.monotonic() - started < 60


def test_code_can_install_packages_itself() -> None:
    with BelljarExecutor(image="base") as executor:
        executor("!pip install --quiet six")
        executor("%pip install --quiet colorama")
        assert executor("import six, colorama\nsix.PY3").output == "True"


def test_packages_that_are_not_to_be_had_are_an_error_with_the_words_of_pip() -> None:
    with BelljarExecutor(["belljar_no_such_package"], image="base") as executor:
        agent = agent_of(executor, "1", max_steps=1)
        agent.run("go")
        message = agent.memory.steps[1].error.message
        assert "pip install belljar-no-such-package failed" in message
        assert "No matching distribution" in message or "Could not find" in message


def test_output_is_seen_while_the_code_runs() -> None:
    moments: list[tuple[float, str]] = []
    with BelljarExecutor(image="base", on_output=lambda text: moments.append((time.monotonic(), text))) as executor:
        agent = agent_of(
            executor, "import time\nfor n in range(3):\n    print(n)\n    time.sleep(0.4)\nfinal_answer(n)"
        )
        assert agent.run("go") == 2
    assert "".join(text for _, text in moments) == "0\n1\n2\n"
    assert moments[-1][0] - moments[0][0] > 0.6


def test_the_logger_of_the_agent_is_told_the_output_live(capsys: pytest.CaptureFixture[str]) -> None:
    with BelljarExecutor(image="base", stream_outputs=True) as executor:
        executor("print('[bold]live[/bold] \\x1b[31mred\\x1b[0m')")
    assert "[bold]live[/bold] red" in capsys.readouterr().out


def test_an_agent_saved_with_its_executor_comes_back_with_it(tmp_path: Path) -> None:
    first = BelljarExecutor(["json"], image="base", timeout="7s", env={"MODE": "saved"}, packages=["six"])
    helper = agent_of(BelljarExecutor(image="base"), name="helper", description="Helps.")
    agent = agent_of(first, managed_agents=[helper], tools=[Shout()], additional_authorized_imports=["json"])
    save_agent(agent, tmp_path)
    from agents import ScriptedModel

    model = ScriptedModel("import os\nfinal_answer(shout(os.environ['MODE']))")
    with load_agent(tmp_path, model=model, verbosity_level=-1) as again:
        assert isinstance(again.python_executor, BelljarExecutor)
        assert again.python_executor.kwargs == first.kwargs
        assert isinstance(again.managed_agents["helper"].python_executor, BelljarExecutor)
        assert again.run("go") == "SAVED"
    with pytest.raises(ValueError, match="Unsupported executor type"):
        # smolagents below 1.27 refuses what was saved: it never falls back to no sandbox
        CodeAgent(
            tools=[], model=model, executor_type=json.loads((tmp_path / "agent.json").read_text())["executor_type"]
        )


class Shout(Tool):
    name = "shout"
    description = "Says it louder."
    inputs = {"text": {"type": "string", "description": "What."}}  # noqa: RUF012
    output_type = "string"

    def forward(self, text: str) -> str:
        return text.upper()


def test_an_agent_can_use_a_sandbox_that_somebody_else_made() -> None:
    with belljar.Sandbox.create("base", user="user", workdir="/home/user") as sandbox:
        sandbox.path("hello.txt").write_text("hello")
        for given in (sandbox, sandbox.id):
            with BelljarExecutor(sandbox=given) as executor:
                agent = agent_of(executor, "final_answer(open('/home/user/hello.txt').read())")
                assert agent.run("go") == "hello"
                assert executor.kwargs == {"sandbox": sandbox.id}
        assert sandbox.refresh().status == "running"
        assert sandbox.contexts() == []


def test_nothing_starts_before_the_first_step_and_all_ends_with_the_agent() -> None:
    before = {one.id for one in belljar.Sandbox.list()}
    executor = BelljarExecutor(image="base")
    executor.cleanup()
    agent = agent_of(executor, "final_answer(1)")
    assert {one.id for one in belljar.Sandbox.list()} == before
    with agent:
        agent.run("go")
        assert len({one.id for one in belljar.Sandbox.list()} - before) == 1
    assert {one.id for one in belljar.Sandbox.list()} == before
    executor.cleanup()
    assert executor("2 + 2").output == "4", "a step after cleanup starts anew"
    sandbox = executor.sandbox
    assert sandbox.info().lifetime == 900
    del agent, executor
    gc.collect()
    assert sandbox.refresh().status == "terminated"


def test_a_step_works_before_any_tools_were_sent(executor: BelljarExecutor) -> None:
    assert executor("6 * 7").output == "42"
    assert bool(executor)


def test_a_tool_calling_agent_can_be_managed_too(executor: BelljarExecutor) -> None:
    class Once(ToolCallingAgent):
        def run(self, task: str, **options: Any) -> Any:
            return "called"

    from agents import ScriptedModel

    helper = Once(tools=[], model=ScriptedModel(), name="helper", description="Helps.")
    agent = agent_of(executor, "final_answer(helper(task='x'))", managed_agents=[helper])
    assert "called" in agent.run("go")


def test_the_whole_agent_runs_inside_and_its_answer_comes_out(tmp_path: Path) -> None:
    model = tmp_path / "any_name.py"
    model.write_text(
        (EXAMPLES / "scripted.py").read_text()
        + "\ndef make_model():\n    import os\n    return ScriptedModel('print(shout(word))', "
        + "'import pandas as pd\\nfinal_answer(pd.DataFrame({\"a\": [len(word)]}))', os.environ['KEY'])\n"
    )
    agent = agent_of(None, tools=[Shout()], additional_authorized_imports=["pandas"], verbosity_level=1)
    lines: list[str] = []
    answer = run_agent(
        agent,
        "Shout.",
        model=model,
        env={"KEY": "only what is passed goes in"},
        additional_args={"word": "jar"},
        on_output=lines.append,
    )
    pd.testing.assert_frame_equal(answer, pd.DataFrame({"a": [3]}))
    assert "JAR" in "".join(lines)
