"""Which room may use what from outside the project, and the few things that only one place may do."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .tree import Module, modules

STANDARD_LIBRARY_ONLY = {
    "agent": ("belljar_agent", "belljar.wire"),
    "agent/belljar_kernel": ("belljar_kernel", "IPython", "traitlets", "matplotlib", "jupyter_client", "zmq"),
    "wire": ("belljar.wire",),
}
"""Room → what else it may import: its own modules, for the agent the wire that it carries, and for the kernel, which runs on an
image's Python, what it finds there."""

ONLY_IN = {
    "sqlalchemy": ("control/store",),
    "alembic": ("control/store",),
    "psycopg": ("control/store",),
    "sqlite3": ("control/store",),
    "pyroute2": ("node/net",),
    "obstore": ("node/storage",),
    "pyfastcdc": ("node/storage",),
    "cryptography": ("node/storage",),
    "blake3": ("node/storage", "node/snapshot"),
    "zstandard": ("node/storage", "node/snapshot", "base"),
    "fastapi": ("front", "server", "edge", "dashboard"),
    "starlette": ("front", "server", "edge", "dashboard"),
    "uvicorn": ("server",),
    "httpx2": ("sdk", "cli", "front"),
    "opentelemetry": ("server",),
    "typer": ("cli",),
    "mcp": ("integrations/mcp",),
    "mcp_types": ("integrations/mcp",),
    "rich": ("cli",),
    "subprocess": ("base",),
    "multiprocessing": (),
    "pty": (),
}
"""Package → rooms that may import it. `agent/` and the folders beside src/ have their own rules."""

STARTS_PROCESSES = {
    "os": {
        "fork", "forkpty", "popen", "system", "posix_spawn", "posix_spawnp",
        "spawnl", "spawnle", "spawnlp", "spawnlpe", "spawnv", "spawnve", "spawnvp", "spawnvpe",
    },
    "asyncio": {"create_subprocess_exec", "create_subprocess_shell"},
}  # fmt: skip


def lives_in(room: str, rooms: tuple[str, ...]) -> bool:
    return any(room == one or room.startswith(one + "/") for one in rooms)


def foreign_imports(module: Module) -> Iterator[str]:
    """Imports that the standard-library rooms may not have."""
    own = STANDARD_LIBRARY_ONLY.get(module.room) or STANDARD_LIBRARY_ONLY[module.room.split("/")[0]]
    for line, name in module.imports():
        top = name.split(".")[0]
        if name.startswith(".") or top in sys.stdlib_module_names:
            continue
        if not any(name == one or name.startswith(one + ".") for one in own):
            yield f"{module.name}:{line}: {name}"


def misplaced_imports(module: Module) -> Iterator[str]:
    for line, name in module.imports():
        rooms = ONLY_IN.get(name.split(".")[0])
        if rooms is not None and not lives_in(module.room, rooms):
            yield f"{module.name}:{line}: {name} belongs to {' or '.join(rooms) or 'nobody'}"


def process_starts(module: Module) -> Iterator[str]:
    """Uses of anything that makes a host process, whatever name it was imported under."""
    for node in ast.walk(ast.parse(module.text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in STARTS_PROCESSES.get(node.value.id, ()):
                yield f"{module.name}:{node.lineno}: {node.value.id}.{node.attr}"
        elif isinstance(node, ast.ImportFrom):
            yield from (
                f"{module.name}:{node.lineno}: {node.module}.{alias.name}"
                for alias in node.names
                if alias.name in STARTS_PROCESSES.get(node.module or "", ())
            )


def test_wire_and_agent_use_the_standard_library_alone() -> None:
    rooms = [module for module in modules("src", "agent") if module.room.split("/")[0] in STANDARD_LIBRARY_ONLY]
    found = {module.room for module in rooms} | {module.room.split("/")[0] for module in rooms}
    assert set(STANDARD_LIBRARY_ONLY) <= found, "a room is missing"
    assert [found for module in rooms for found in foreign_imports(module)] == []


def test_packages_stay_in_their_rooms() -> None:
    assert [found for module in modules("src") for found in misplaced_imports(module)] == []


def test_only_base_proc_starts_host_processes() -> None:
    others = [module for module in modules("src") if module.name != "src/belljar/base/proc.py"]
    assert [found for module in others for found in process_starts(module)] == []
    subprocess_users = [m.name for m in modules("src") for _, name in m.imports() if name.split(".")[0] == "subprocess"]
    assert set(subprocess_users) <= {"src/belljar/base/proc.py"}


@pytest.mark.parametrize(
    ("check", "room", "text"),
    [
        (foreign_imports, "src/belljar/wire", "import structlog"),
        (foreign_imports, "src/belljar/wire", "def late():\n    from belljar.model import errors"),
        (foreign_imports, "agent", "import belljar.base.ids"),
        (foreign_imports, "agent", "import IPython"),
        (foreign_imports, "agent/belljar_kernel", "import belljar_agent.ring"),
        (misplaced_imports, "src/belljar/control", "from sqlalchemy import select"),
        (misplaced_imports, "src/belljar/node/engine", "import subprocess as quiet"),
        (process_starts, "src/belljar/node", "import os\nos.posix_spawn('/bin/true', [], {})"),
        (process_starts, "src/belljar/node", "from asyncio import create_subprocess_exec as run"),
    ],
)
def test_a_planted_violation_is_found(check: type[Iterator[str]], room: str, text: str) -> None:
    assert len(list(check(Module(Path(room) / "planted.py", text)))) == 1


HEAVY = (
    "fastapi",
    "starlette",
    "uvicorn",
    "sqlalchemy",
    "alembic",
    "pyroute2",
    "pydantic",
    "belljar.server",
    "belljar.node",
)


@pytest.mark.parametrize("entry", ["belljar", "belljar.sdk", "belljar.cli.main"])
def test_clients_start_light(entry: str) -> None:
    """FastAPI alone costs 350 ms to import: neither the SDK nor the command line waits for server parts."""
    code = f"import sys, {entry}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
