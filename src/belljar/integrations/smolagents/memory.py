"""What an agent remembers of the steps that its executor has run: to rewind both."""

from typing import Any

from belljar.integrations.smolagents.executor import BelljarExecutor

__all__ = ("remembered", "rewind_agent")


def rewind_agent(agent: Any, step: int) -> None:
    """The agent goes back to the moment after its executor's step `step` (0: before the first): the sandbox and the memory.

    ``agent.run(task, reset=False)`` goes on from there. Raises LookupError (no snapshot of the step, or the agent does not
    remember it), belljar.Error, TypeError (it has another executor); then both are as before.

    >>> rewind_agent(agent, 2)
    >>> agent.run("Try it with a list.", reset=False)
    """
    steps = remembered(agent, step)
    agent.python_executor.rewind(step)
    agent.memory.steps = steps


def remembered(agent: Any, step: int) -> list[Any]:
    """The agent's memory up to its executor's step `step`, that step included: for an agent that goes on from a fork.

    Empty for a step before all that it remembers. Raises LookupError, TypeError.

    >>> other = CodeAgent(tools, model, executor=agent.python_executor.fork(2))
    >>> other.memory.steps = remembered(agent, 2)
    """
    executor = getattr(agent, "python_executor", None)
    if not isinstance(executor, BelljarExecutor):
        raise TypeError("the agent's executor is no BelljarExecutor")
    steps: list[Any] = agent.memory.steps
    places = [number for number, one in enumerate(steps) if getattr(one, "code_action", None) is not None]
    first = _first([steps[place].code_action for place in places], executor.codes)
    if step <= first:
        return []
    if step > first + len(places):
        raise LookupError(f"the agent remembers the steps {first + 1} to {first + len(places)} and not {step}")
    return steps[: places[step - first - 1] + 1]


def _first(known: list[str], codes: list[str]) -> int:
    """How many steps the executor had run before the first that is known; where they fit best, as late as possible.

    The executor may have run others before (the agent forgets them with each new run), and may have been rewound alone.
    """
    if not known:
        return len(codes)
    fits = [
        (min(len(known), len(codes) - first), first)
        for first in range(len(codes))
        if all(one == other for one, other in zip(known, codes[first:], strict=False))
    ]
    if not fits:
        raise LookupError("the agent remembers other code than its executor has run")
    return max(fits)[1]
