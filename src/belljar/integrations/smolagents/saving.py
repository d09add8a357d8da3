"""Agents that are saved with their executor and come back with it, also where smolagents (below 1.27) knows nothing of it."""

import os
from pathlib import Path
from typing import Any

from belljar.integrations.smolagents.executor import BelljarExecutor
from belljar.integrations.smolagents.inside.loading import load_folder

__all__ = ("load_agent", "save_agent")

_TYPE = "belljar"
"""The executor's name as an entry point."""


def save_agent(agent: Any, folder: str | os.PathLike[str]) -> None:
    """As ``agent.save(folder)``, which alone would note ``"local"`` for any executor that was passed as an object."""
    _note(agent)
    agent.save(str(folder))


def load_agent(folder: str | os.PathLike[str], *, model: Any = None, **kwargs: Any) -> Any:
    """The agent of a folder; each that was saved with a `BelljarExecutor` has a new one like it.

    `model` instead of the saved one (a model of your own cannot be saved). Other `kwargs` go to the agent. Tools are loaded as
    smolagents does, by running their code on this machine. Raises ValueError.
    """
    return load_folder(Path(folder), model, _executor, **kwargs)


def _note(agent: Any) -> None:
    executor = getattr(agent, "python_executor", None)
    if isinstance(executor, BelljarExecutor):
        agent.executor_type = _TYPE
        agent.executor_kwargs = executor.kwargs
    for managed in agent.managed_agents.values():
        _note(managed)


def _executor(saved: dict[str, Any]) -> BelljarExecutor | None:
    if saved.get("executor_type") != _TYPE:
        return None
    options: dict[str, Any] = saved.get("executor_kwargs") or {}
    imports: list[str] = saved.get("authorized_imports") or []
    return BelljarExecutor(imports, **options)
