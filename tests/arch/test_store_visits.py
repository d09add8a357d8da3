"""Who holds a connection of the store waits for nothing else: no module has both a connection and a coroutine."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from .tree import Module, modules

CONNECTIONS = {"Connection", "Engine", "Session", "create_engine", "Link"}
ASYNCHRONOUS = (ast.AsyncFunctionDef, ast.Await, ast.AsyncWith, ast.AsyncFor)
GIVES_OUT_VISITS = "src/belljar/control/store/database.py"
"""Its threads have links; none of its coroutines is given one."""


def mixed(module: Module) -> Iterator[str]:
    named = {
        name.split(".")[-1]
        for _, name in module.imports()
        if name.startswith(("sqlalchemy", "belljar.control.store.place"))
    }
    tree = ast.parse(module.text)
    waiting = [node for node in ast.walk(tree) if isinstance(node, ASYNCHRONOUS)]
    if named & CONNECTIONS and waiting:
        yield f"{module.name}:{getattr(waiting[0], 'lineno', 0)}: it has {named & CONNECTIONS} and waits"
    for _, name in module.imports():
        if name.startswith("sqlalchemy.ext.asyncio"):
            yield f"{module.name}: {name} lets a transaction wait for the event loop"


def test_no_module_has_a_connection_and_waits() -> None:
    found = [problem for one in modules("src") if one.name != GIVES_OUT_VISITS for problem in mixed(one)]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "from sqlalchemy import Connection\nasync def f(c: Connection):\n    await g()",
        "from belljar.control.store.place import Link\nasync def f(): ...",
        "from sqlalchemy.ext.asyncio import AsyncSession",
    ],
)
def test_a_planted_violation_is_found(text: str) -> None:
    assert len(list(mixed(Module(Path("src/belljar/control/store/planted.py"), text)))) == 1
