"""The host process that is a guest's kernel, as runsc wrote it down."""

import json
from pathlib import Path
from typing import cast

from belljar.node.engine.gvisor.layout import state_file
from belljar.node.engine.process import HostProcess, process_of

__all__ = ("find_kernel",)

_MAX_STATE = 4 << 20


def find_kernel(root: Path, id: str) -> tuple[HostProcess | None, int]:
    """The kernel process that runsc wrote down for `id`, if it is alive and really is that one, and its gofer's id or 0."""
    try:
        with open(state_file(root, id), "rb") as file:
            state = cast("dict[str, object]", json.loads(file.read(_MAX_STATE)))
        sandbox = cast("dict[str, object]", state["sandbox"])
        pid, gofer = cast("int", sandbox["pid"]), cast("int", state.get("goferPid") or 0)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None, 0
    found = process_of(pid)
    return (found if found is not None and _is_named(pid, root, id) else None), gofer


def _is_named(pid: int, root: Path, id: str) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"--root={root}".encode() in words and id.encode() in words
