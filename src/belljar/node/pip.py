"""Python packages from the package index into a folder, by uv where it is, else by a pip of our own."""

import asyncio
import shutil
import sys
from pathlib import Path

from belljar.base import proc

__all__ = ("install_into",)

_LIMIT = 600.0


async def install_into(folder: Path, *words: str) -> None:
    """`words` are a package or options that uv and pip share. Raises proc.CommandFailed."""
    if uv := shutil.which("uv"):
        into = ["pip", "install", "--quiet", "--target", str(folder), "--python", sys.executable]
        await proc.run([uv, *into, *words], timeout=_LIMIT)
        return
    # Debian's Python has no pip of its own.
    tool = folder.with_name(f"{folder.name}.pip.making")
    try:
        await proc.run([sys.executable, "-m", "venv", str(tool)], timeout=_LIMIT)
        python = str(tool / "bin/python")
        await proc.run([python, "-m", "pip", "install", "--quiet", "--target", str(folder), *words], timeout=_LIMIT)
    finally:
        await asyncio.to_thread(shutil.rmtree, tool, ignore_errors=True)
