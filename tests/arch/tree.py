"""What the arch tests look at: the tracked files, and Python modules as syntax trees."""

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ("GENERATED", "ROOT", "Module", "modules", "tracked")

ROOT = Path(__file__).parents[2]
GENERATED = "# Made by "
"""The first line of a generated file starts so, and says by what and from what."""


@dataclass(frozen=True)
class Module:
    """A Python file. `room` is its folder below src/belljar, or its top folder elsewhere: ``node/engine``, ``agent``."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        return self.path.as_posix()

    @property
    def room(self) -> str:
        folder = self.path.parent.as_posix()
        return folder.removeprefix("src/belljar").strip("/")

    @property
    def generated(self) -> bool:
        return self.text.startswith(GENERATED)

    @property
    def migration(self) -> bool:
        """Steps of the store's schema: scripts that alembic loads by path, not modules with a door."""
        return "migrations" in self.path.parts

    def imports(self) -> Iterator[tuple[int, str]]:
        """Line and full name of each module or name that is imported anywhere in the file."""
        for node in ast.walk(ast.parse(self.text)):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = "." * node.level + (node.module or "")
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


@cache
def tracked() -> tuple[Path, ...]:
    """Files of the repository, those not yet added among them; relative to the root."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    out = subprocess.run(words, cwd=ROOT, check=True, capture_output=True).stdout.decode()
    return tuple(sorted({Path(name) for name in out.split("\0") if name and (ROOT / name).is_file()}))


@cache
def modules(*tops: str) -> tuple[Module, ...]:
    """Python files below the given folders (all without any)."""
    return tuple(
        Module(path, (ROOT / path).read_text())
        for path in tracked()
        if path.suffix == ".py" and (not tops or path.parts[0] in tops)
    )
