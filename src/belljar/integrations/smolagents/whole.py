"""The whole agent inside: its model calls, tools and code all run in a sandbox; only its output and its answer come out."""

import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import belljar
from belljar.base.units import Duration, Size
from belljar.integrations.smolagents.home import Home
from belljar.integrations.smolagents.output import plain, traceback_of
from belljar.integrations.smolagents.session import Session
from belljar.integrations.smolagents.settings import Settings
from belljar.integrations.smolagents.toolbox import unwrapped

__all__ = ("AgentRunFailed", "run_agent")

_WHOLE = "__import__('sys').modules['belljar_inside'].whole"
_INSIDE = "__import__('sys').modules['belljar_inside'].inside"


class AgentRunFailed(Exception):
    """The agent inside raised, ran out of time, or gave no answer; the message has the traceback."""


def run_agent(
    agent: Any,
    task: str,
    *,
    model: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    additional_args: Mapping[str, Any] | None = None,
    max_steps: int | None = None,
    packages: Iterable[str] = (),
    image: str = "code",
    sandbox: "belljar.Sandbox | str | None" = None,
    cpu: float | None = None,
    memory: Size | None = None,
    network: str = "open",
    user: str | None = "user",
    timeout: Duration | None = None,
    on_output: Callable[[str], Any] | None = None,
) -> Any:
    """Runs `agent` (an agent, or the folder that one was saved in) on `task` in a sandbox of its own, and returns its answer.

    Nothing of this machine goes in but the agent as ``agent.save`` writes it, the task, and what is passed here: no key, no
    variable. Its model needs its key inside, so pass that as `env`; the code that the agent writes can then read it too. `model`:
    a Python file with a function ``make_model()``, for models that cannot be saved. smolagents (this machine's version), what the
    agent's tools need and `packages` are installed inside with pip; a `sandbox` that is given keeps them for the next call, and
    is not ended. `timeout`: of the whole run. `on_output` gets the agent's output as it comes; by default it goes to stdout.
    Raises AgentRunFailed, belljar.Error, and what ``agent.save`` raises for tools that cannot be saved.
    """
    with tempfile.TemporaryDirectory(prefix="belljar-agent-") as temporary:
        folder = _folder_of(agent, Path(temporary))
        given = sandbox if isinstance(sandbox, belljar.Sandbox) else None
        settings = Settings(
            image=image,
            sandbox=sandbox.id if isinstance(sandbox, belljar.Sandbox) else sandbox,
            cpu=cpu,
            memory=memory,
            network=network,
            user=user,
            env=dict(env or {}),
            packages=(f"smolagents=={version('smolagents')}", *_requirements(folder), *packages),
        )
        tell = on_output or _to_stdout
        home = Home(settings, given, [], lambda text: tell(f"{text}\n"))
        try:
            session = home.session()
            place = _upload(session, folder, model, user)
            options = {"additional_args": dict(additional_args) if additional_args else None, "max_steps": max_steps}
            return _run(session, place, task, options, timeout, tell)
        finally:
            home.close()


def _run(
    session: Session,
    place: str,
    task: str,
    options: dict[str, Any],
    timeout: Duration | None,
    tell: Callable[[str], Any],
) -> Any:
    heard: list[str] = []
    nonce = secrets.token_hex(8)

    def hear(name: str, payload: str) -> str:
        if name == nonce:
            heard[:] = [payload]
        return "{}"

    said = session.exchange.encode(options, unwrapped)
    code = f"{_WHOLE}.run({_INSIDE}, {place!r}, {task!r}, {said!r}, {nonce!r})"

    def show(text: str) -> None:
        tell(plain(text))

    done = session.run(code, timeout=timeout, silent=True, on_stdout=show, on_stderr=show, on_call=hear)
    if done.error is not None:
        raise AgentRunFailed(traceback_of(done.error))
    if not heard:
        raise AgentRunFailed("the agent ended without an answer")
    return session.exchange.decode(heard[0])


def _folder_of(agent: Any, temporary: Path) -> Path:
    if isinstance(agent, str | Path):
        return Path(agent)
    agent.save(str(temporary))
    return temporary


def _upload(session: Session, folder: Path, model: str | os.PathLike[str] | None, user: str | None) -> str:
    place = f"{session.cwd}/.belljar/agent-{secrets.token_hex(4)}"
    session.sandbox.upload(folder, place, user=user)
    if model is not None:
        session.sandbox.upload(model, f"{place}/model.py", user=user)
    return place


def _requirements(folder: Path) -> list[str]:
    """What the saved agent says that it needs; smolagents itself comes in this machine's version."""
    file = folder / "requirements.txt"
    lines = [line.strip() for line in file.read_text().splitlines()] if file.is_file() else []
    names = [line for line in lines if line and not line.startswith(("#", "-")) and not line.startswith("smolagents")]
    return ["pillow" if name == "PIL" else name for name in names]


def _to_stdout(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
