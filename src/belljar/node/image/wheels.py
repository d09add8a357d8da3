"""Python packages of a locked list, from the package index into the system Python of a tree."""

import asyncio
import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from belljar.base import proc
from belljar.base.tasks import in_thread
from belljar.model.errors import Error, NotSupported
from belljar.node.image.tree import run_inside
from belljar.node.progress import Step, size_text

__all__ = ("PLACE", "install_wheels", "locked")

PYTHON = "3.13"
PLACE = f"usr/local/lib/python{PYTHON}/dist-packages"
"""Where Debian's pip puts what root installs, so that a later `pip install --upgrade` replaces it like any other package."""
# The newest glibc first: a package may have several files that would do.
_GLIBC = ("2_41", "2_39", "2_34", "2_31", "2_28", "2_27", "2_26", "2_24", "2_17", "2_12", "2_5")
_OFFLINE = ("--no-index", "--find-links", "/tmp/wheels")
_LIMIT = 900.0


def locked(text: str) -> list[str]:
    """``name==version`` of each package of a lock file."""
    return re.findall(r"(?m)^([\w.-]+==[\w.!+-]+)", text)


async def install_wheels(root: Path, lock: Path, work: Path, step: Step, *, date: int) -> None:
    """Fetches what `lock` names by digest and installs it, compiled, every file dated `date` (seconds since 1970).

    `work` keeps the files until all is done, so that an interrupted set-up fetches only the rest. Raises Error with pip's words.
    """
    count = len(locked(await in_thread(lock.read_text)))
    step.say(f"fetching {count} Python packages")
    wheels = work / "wheels"
    new = await _fetch(root, lock, wheels)
    if new:
        step.downloaded(f"{count} Python packages ({size_text(new)})")
    step.say("installing and compiling them")
    await in_thread(_lay, wheels, lock, root / "tmp")
    try:
        pip = ("python3", "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--require-hashes")
        await run_inside(root, [*pip, *_OFFLINE, "-r", "/tmp/lock.txt"], timeout=_LIMIT)
        # Before they are compiled: a compiled file is good for a source of one date, and the image has none newer.
        await in_thread(_date, root / "usr/local", date)
        words = ("python3", "-W", "ignore", "-m", "compileall", "-q", "-j", "0", "-x", "/tests/", f"/{PLACE}")
        await run_inside(root, words, timeout=_LIMIT)
    except proc.CommandFailed as error:
        raise Error(f"the Python packages cannot be installed: {error}") from error
    await in_thread(shutil.rmtree, root / "tmp/wheels")
    await in_thread((root / "tmp/lock.txt").unlink)
    await asyncio.shield(in_thread(shutil.rmtree, work))


async def _fetch(root: Path, lock: Path, wheels: Path) -> int:
    """Bytes that came. By the tree's own pip, run by this Python with this host's settings, which may have no pip of its own."""
    wheels.mkdir(parents=True, exist_ok=True)
    had = await in_thread(_size, wheels)
    pip = [sys.executable, str(root / "usr/lib/python3/dist-packages/pip"), "--disable-pip-version-check", "download"]
    chosen = [f"--platform={name}" for name in _platforms(platform.machine())]
    chosen += [f"--python-version={PYTHON}", "--only-binary=:all:", "--no-deps", "--require-hashes"]
    try:
        await proc.run(
            [*pip, "--quiet", *chosen, "-d", str(wheels), "-r", str(lock)], timeout=_LIMIT, env=_environment()
        )
    except proc.CommandFailed as error:
        said = error.stderr.decode(errors="replace")
        raise Error(
            f"Python packages cannot be fetched: {_gist(said)}",
            hint="check that pip on this machine reaches a package index; PIP_INDEX_URL names another one",
        ) from error
    return await in_thread(_size, wheels) - had


def _platforms(machine: str) -> list[str]:
    if machine not in ("x86_64", "aarch64"):
        raise NotSupported(f"there are no wheels of the packages in the image code for {machine}")
    return [*(f"manylinux_{glibc}_{machine}" for glibc in _GLIBC), f"manylinux2014_{machine}", f"linux_{machine}"]


def _environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The caller's, with pip's settings and proxies, without what changes this Python."""
    return {name: value for name, value in environ.items() if not name.startswith("PYTHON")}


def _lay(wheels: Path, lock: Path, target: Path) -> None:
    shutil.copytree(wheels, target / "wheels", copy_function=_link)
    shutil.copyfile(lock, target / "lock.txt")


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


def _date(folder: Path, date: int) -> None:
    for path in folder.rglob("*"):
        if path.lstat().st_mtime > date:
            os.utime(path, (date, date), follow_symlinks=False)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _gist(said: str) -> str:
    lines = [line for line in said.splitlines() if line.startswith("ERROR:")]
    return "; ".join(lines[:4])[:800] or said[-400:]
