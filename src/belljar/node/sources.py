"""Where the sources are that set-up works from: beside the package in a checkout, within it in an installed wheel."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import belljar
from belljar.model.errors import Internal

__all__ = ("agent_sources", "digest_tree", "engine_sources", "wire_sources")

_PACKAGE = Path(belljar.__file__).parent


def engine_sources() -> Path:
    """The Go module."""
    return _find("engine", "go.mod")


def agent_sources() -> Path:
    """The folder that holds the agent's package."""
    return _find("agent", "belljar_agent")


def wire_sources() -> Path:
    """The package `belljar.wire`, which the agent carries as it is."""
    return _PACKAGE / "wire"


def digest_tree(folder: Path, patterns: Iterable[str] = ("*",)) -> str:
    """SHA-256 over names and contents of the files that match, compiled ones left out."""
    digest = hashlib.sha256()
    names = {path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()}
    for path in sorted(names):
        if "__pycache__" in path.parts:
            continue
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _find(name: str, landmark: str) -> Path:
    for folder in (_PACKAGE / f"_{name}", _PACKAGE.parents[1] / name):
        if (folder / landmark).exists():
            return folder
    raise Internal(f"this installation of Belljar lacks its {name} sources", hint="install it again")
