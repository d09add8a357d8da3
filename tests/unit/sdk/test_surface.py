"""The public names: light to import, the same on both sides, and none of them made by hand twice."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import belljar
from belljar.sdk._async import (
    AsyncAuditLog,
    AsyncEvents,
    AsyncProcess,
    AsyncSandbox,
    AsyncSandboxPath,
    AsyncSnapshot,
    AsyncTemplate,
    AsyncUsage,
)
from belljar.sdk._async.branching import AsyncBranching
from belljar.sdk._sync import AuditLog, Events, Process, Sandbox, SandboxPath, Snapshot, Template, Usage
from belljar.sdk._sync.branching import Branching

ROOT = Path(__file__).parents[3]


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_sync_twin_is_current() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/make_sync.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_import_is_light() -> None:
    code = (
        "import belljar, sys; "
        "print(sorted({'httpx2', 'fastapi', 'pydantic', 'asyncio', 'rich', 'typer', 'sqlalchemy'} & set(sys.modules)))"
    )
    assert python(code) == "[]"


def test_the_sdk_brings_no_server() -> None:
    code = (
        "import sys, belljar; belljar.Sandbox, belljar.AsyncSandbox; "
        "print(sorted(name for name in sys.modules if name.startswith('belljar.') and name.split('.')[1] "
        "not in ('sdk', 'model', 'base')), 'fastapi' in sys.modules, 'pydantic' in sys.modules)"
    )
    assert python(code) == "[] False False"


@pytest.mark.parametrize("name", belljar.__all__)
def test_each_public_name_is_there(name: str) -> None:
    assert getattr(belljar, name) is not None


@pytest.mark.parametrize(
    ("ours", "twin"),
    [
        (AsyncSandbox, Sandbox),
        (AsyncBranching, Branching),
        (AsyncProcess, Process),
        (AsyncSandboxPath, SandboxPath),
        (AsyncSnapshot, Snapshot),
        (AsyncTemplate, Template),
        (AsyncAuditLog, AuditLog),
        (AsyncEvents, Events),
        (AsyncUsage, Usage),
    ],
)
def test_both_sides_have_the_same_names_and_no_coroutine_is_left(ours: type, twin: type) -> None:
    def names(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert {name.replace("aclose", "close") for name in names(ours)} == names(twin)
    for name in names(twin):
        member = inspect.unwrap(getattr(twin, name))
        assert not inspect.iscoroutinefunction(member)
        assert not inspect.isasyncgenfunction(member)
        text = inspect.getdoc(member) or ""
        assert "await " not in text
        assert "Async" not in text


def test_every_public_method_says_what_it_does() -> None:
    silent = [
        f"{kind.__name__}.{name}"
        for kind in (Sandbox, Branching, Process, Snapshot, Template, AuditLog, Usage)
        for name, member in vars(kind).items()
        if inspect.isfunction(member) and not name.startswith("_") and not member.__doc__
    ]
    assert silent == []


def test_client_errors_belong_to_the_tree() -> None:
    assert issubclass(belljar.ServerUnreachable, belljar.Error)
    assert issubclass(belljar.ServerUnreachable, ConnectionError)
    assert belljar.ProcessTimeout("x", 1).code == "process_timeout"
    failed = belljar.ProcessFailed(["a", "\x1b[31m" + "b" * 100], -9)
    assert "\x1b" not in str(failed)
    assert "signal 9" in str(failed)
