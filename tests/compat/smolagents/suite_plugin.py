"""The entry point as smolagents 1.27 is to use it: group ``smolagents.executors``, two arguments by position, options by keyword.

1.27 is not released; the loader here does what its accepted proposal (issue 2722 and the pull requests for it) describes.
"""

import json
from importlib.metadata import entry_points
from typing import Any

from agents import ScriptedModel
from smolagents import CodeAgent
from smolagents.local_python_executor import PythonExecutor
from smolagents.monitoring import AgentLogger, LogLevel

from belljar.integrations.smolagents import BelljarExecutor


class CodeAgentOf127(CodeAgent):
    """Finds executors of other names among the entry points, when an agent is made."""

    def create_python_executor(self) -> Any:
        if self.executor_type in ("local", "blaxel", "e2b", "modal", "docker"):
            return super().create_python_executor()
        (found,) = entry_points(group="smolagents.executors", name=self.executor_type)
        executor = found.load()(self.additional_authorized_imports, self.logger, **self.executor_kwargs)
        assert isinstance(executor, PythonExecutor)
        return executor


def agent_of(*actions: str, **options: Any) -> CodeAgent:
    return CodeAgentOf127(tools=[], model=ScriptedModel(*actions), verbosity_level=-1, **options)


def test_the_entry_point_is_the_executor_itself() -> None:
    (found,) = entry_points(group="smolagents.executors", name="belljar")
    assert found.load() is BelljarExecutor


def test_an_agent_finds_it_by_name_and_gives_it_its_imports_and_logger() -> None:
    with agent_of(
        "final_answer(6 * 7)",
        executor_type="belljar",
        executor_kwargs={"image": "base", "timeout": 20},
        additional_authorized_imports=["json"],
    ) as agent:
        assert isinstance(agent.python_executor, BelljarExecutor)
        assert agent.python_executor.logger is agent.logger
        assert agent.python_executor.additional_authorized_imports == ["json"]
        assert agent.run("go") == 42


def test_a_saved_agent_comes_back_with_it() -> None:
    options = {"image": "base", "timeout": 20.0}
    saved = json.loads(json.dumps(agent_of(executor_type="belljar", executor_kwargs=options).to_dict()))
    assert (saved["executor_type"], saved["executor_kwargs"]) == ("belljar", options)
    # smolagents hands the whole list of authorized imports back, its base modules among them: none of them is installed
    executor = BelljarExecutor(saved["authorized_imports"], AgentLogger(LogLevel.OFF), **saved["executor_kwargs"])
    with executor:
        assert executor("1 + 1").output == "2"
        assert executor.kwargs == options


def test_all_arguments_can_be_saved() -> None:
    executor = BelljarExecutor(
        name="mine", cpu=2, memory="4GiB", network="none", lifetime="2h", env={"A": "b"}, packages=["six"], user=None
    )
    again = BelljarExecutor(**json.loads(json.dumps(executor.kwargs)))
    assert again.kwargs == executor.kwargs
    assert again.kwargs["lifetime"] == 7200


def test_what_it_promises_an_agent_it_has() -> None:
    executor = BelljarExecutor()
    assert bool(executor), "a false one would be replaced by the local executor without a word"
    assert not hasattr(type(executor), "__len__")
    executor.cleanup()
    half_made = BelljarExecutor.__new__(BelljarExecutor)
    half_made.cleanup()
