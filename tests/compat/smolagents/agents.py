"""What the suites make agents with: a model that says what the test wants said, and quiet executors."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from smolagents import CodeAgent, FinalAnswerTool
from smolagents.utils import AgentError

sys.path.insert(0, str(Path(__file__).parents[3] / "examples" / "smolagents"))

from scripted import ScriptedModel

from belljar.integrations.smolagents import BelljarExecutor

__all__ = ("ScriptedModel", "agent_of", "answer_of", "base", "error_of", "executor", "observations")


@pytest.fixture(scope="module")
def base() -> Iterator[BelljarExecutor]:
    """One for the tests that leave nothing behind; Debian's Python without packages."""
    with BelljarExecutor(image="base") as made:
        made.send_tools({"final_answer": FinalAnswerTool()})
        yield made


@pytest.fixture
def executor() -> Iterator[BelljarExecutor]:
    with BelljarExecutor(image="base") as made:
        yield made


def agent_of(executor: Any, *actions: str, **options: Any) -> CodeAgent:
    options = {"tools": [], "verbosity_level": -1} | options
    return CodeAgent(model=ScriptedModel(*actions), executor=executor, **options)


def answer_of(executor: BelljarExecutor, code: str) -> Any:
    done = executor(code)
    assert done.is_final_answer
    return done.output


def error_of(executor: BelljarExecutor, code: str) -> str:
    with pytest.raises(AgentError) as raised:
        executor(code)
    return str(raised.value)


def observations(agent: CodeAgent) -> list[str]:
    """What each step of the last run gave the model to see."""
    return [step.observations for step in agent.memory.steps if getattr(step, "observations", None) is not None]
