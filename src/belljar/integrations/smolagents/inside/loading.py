# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportMissingTypeStubs=false, reportMissingModuleSource=false
"""An agent from the folder that it was saved in. On the host, with a given model and executor; inside, for the whole agent."""

from __future__ import annotations

import importlib
import json
import pathlib
from typing import Any, Callable

__all__ = ("load_folder",)

_CLASSES = ("CodeAgent", "ToolCallingAgent")


def load_folder(
    folder: pathlib.Path,
    model: Any = None,
    executor_of: Callable[[dict[str, Any]], Any] | None = None,
    **kwargs: Any,
) -> Any:
    """`model` instead of the saved one, which only the models of smolagents itself can be; `executor_of` gets what was saved of
    an agent and gives its executor, or None for smolagents' own. `kwargs` are for the agent, not for its managed agents.

    Runs the code of its tools here: only for agents that you would run here. Raises ValueError.
    """
    smolagents = importlib.import_module("smolagents")
    saved = json.loads((folder / "agent.json").read_text(encoding="utf-8"))
    managed = [
        load_folder(folder / "managed_agents" / name, model, executor_of) for name in saved.get("managed_agents") or {}
    ]
    name = saved.get("class", "CodeAgent")
    if name not in _CLASSES:
        raise ValueError(f"an agent of the class {name!r} cannot be loaded; {' and '.join(_CLASSES)} can")
    tools = [
        smolagents.Tool.from_code((folder / "tools" / f"{tool}.py").read_text(encoding="utf-8"))
        for tool in saved.get("tools") or []
        if tool != "final_answer" or (folder / "tools" / "final_answer.py").exists()
    ]
    options: dict[str, Any] = {
        key: saved[key]
        for key in ("prompt_templates", "max_steps", "verbosity_level", "planning_interval", "name", "description")
        if saved.get(key) is not None
    }
    if name == "CodeAgent":
        options["additional_authorized_imports"] = saved.get("authorized_imports") or []
        for key in ("max_print_outputs_length", "code_block_tags"):
            if saved.get(key) is not None:
                options[key] = saved[key]
        executor = executor_of(saved) if executor_of is not None else None
        if executor is not None:
            options["executor"] = executor
            options["executor_type"] = saved.get("executor_type") or "local"
            options["executor_kwargs"] = saved.get("executor_kwargs") or {}
    if model is None:
        model = _saved_model(saved["model"])
    return getattr(smolagents, name)(tools=tools, model=model, managed_agents=managed, **{**options, **kwargs})


def _saved_model(saved: dict[str, Any]) -> Any:
    models = importlib.import_module("smolagents.models")
    kind = getattr(models, str(saved.get("class")), None)
    if not (isinstance(kind, type) and issubclass(kind, models.Model)):
        raise ValueError(f"smolagents has no model {saved.get('class')!r}: pass the model yourself")
    return kind.from_dict(saved["data"])
