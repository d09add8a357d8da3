# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
"""Inside only: a saved agent run from its folder, its answer told to the host."""

from __future__ import annotations

import importlib.util
import pathlib
from typing import Any

from .loading import load_folder
from .stubs import Inside

__all__ = ("run",)


def run(inside: Inside, folder: str, task: str, options: str, answer: str) -> None:
    """`options` is a message with the arguments of the agent's `run`; `answer` the name under which its result is told.

    A file ``model.py`` in the folder makes the model: a function ``make_model`` in it, called without arguments.
    """
    place = pathlib.Path(folder)
    agent = load_folder(place, _made_model(place / "model.py"))
    value = agent.run(task, **inside.decoded(options))
    if type(value).__module__ == "smolagents.agent_types":
        value = value.to_raw()
    inside.send(answer, value)


def _made_model(file: pathlib.Path) -> Any:
    if not file.exists():
        return None
    spec = importlib.util.spec_from_file_location("belljar_agent_model", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_model()
