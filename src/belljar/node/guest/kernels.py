"""The kernel's part of the guest runtime: its modules, and IPython for images that have none."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from belljar.base import proc
from belljar.base.tasks import in_thread
from belljar.model.errors import Error
from belljar.node.artifacts import Artifact, Store
from belljar.node.pip import install_into
from belljar.node.progress import Progress, size_text
from belljar.node.sources import agent_sources

__all__ = ("KIND", "find_or_fetch_packages", "put_kernel")

KIND = "kernel"
_SETS = {"py39": "3.9", "py311": "3.11"}
"""Folder → the oldest Python that it is for."""
_ROOM = 80 << 20
# A third of the bytes and half of the files: nothing of it runs in a kernel.
_TRIMMED_FOLDERS = frozenset(("tests", "sphinxext", "__pycache__", "bin", "share"))
_LEXERS = frozenset(
    ("__init__.py", "_mapping.py", "python.py", "special.py", "shell.py", "javascript.py", "html.py", "css.py")
)


async def find_or_fetch_packages(store: Store, progress: Progress) -> Artifact:
    """What the locked lists name, for each set of Pythons a folder. Raises Error with the words of what failed."""
    locks = {name: _sources() / "packages" / f"{name}.lock" for name in _SETS}
    inputs = {name: await in_thread(lock.read_text) for name, lock in locks.items()} | {"layout": "3"}

    async def fetch(folder: Path) -> Mapping[str, str]:
        with progress.step("guest IPython") as step:
            step.say("fetching IPython for images without one")
            for name, version in _SETS.items():
                await _fetch(folder / name, locks[name], version)
                await in_thread(_trim, folder / name)
            step.downloaded(f"IPython for Python 3.9 and newer ({size_text(await in_thread(_size, folder))})")
        return {}

    return await store.make(
        KIND,
        inputs,
        fetch,
        room=_ROOM,
        on_wait=lambda who: progress.found("guest IPython", f"waiting for process {who}"),
    )


def put_kernel(packages: Path, folder: Path) -> None:
    """Lays out `folder` as a sandbox sees it: `start.py`, the modules, and the packages as hard links."""
    folder.mkdir()
    sources = _sources()
    shutil.copyfile(sources / "start.py", folder / "start.py")
    shutil.copytree(sources, folder / sources.name, ignore=lambda _, names: [n for n in names if not n.endswith(".py")])
    for name in _SETS:
        shutil.copytree(packages / name, folder / name, copy_function=_link)


async def _fetch(folder: Path, lock: Path, version: str) -> None:
    chosen = ("--no-deps", "--only-binary", ":all:", "--require-hashes", "--python-version", version)
    try:
        await install_into(folder, *chosen, "-r", str(lock))
    except proc.CommandFailed as error:
        raise Error(
            f"IPython for sandboxes cannot be fetched: {error}",
            hint="check that pip on this machine reaches a package index",
        ) from error


def _trim(folder: Path) -> None:
    """Keeps the modules, and of the packages' own words the licenses."""
    texts = [
        f"{path.relative_to(folder)}\n\n{path.read_text(errors='replace')}"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name.lower().startswith(("license", "copying", "authors"))
    ]
    for path in sorted(folder.rglob("*"), reverse=True):
        name = path.relative_to(folder)
        lexer = name.parts[:2] == ("pygments", "lexers") and path.name not in _LEXERS
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.suffix not in (".py", ".json") or lexer or _TRIMMED_FOLDERS & set(name.parts):
            path.unlink()
    (folder / "LICENSES").write_text("\n\n".join(texts))


def _sources() -> Path:
    return agent_sources() / "belljar_kernel"


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
