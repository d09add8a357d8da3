"""A newer `mkfs.erofs` than Debian 12 has, for Ray alone: Debian 13's, with its own libraries, unpacked into the cache."""

import os
import shutil
import tempfile
from pathlib import Path

from belljar.base import proc
from belljar.node.image.debian import debian_tree, mirror_lines

__all__ = ("erofs_tools",)

_WRAPPER = """#!/bin/sh
root=$(dirname "$(readlink -f "$0")")/../tree
exec "$root"{loader} --library-path "$root/usr/lib/{machine}-linux-gnu:$root/lib/{machine}-linux-gnu" \\
    "$root/usr/bin/mkfs.erofs" "$@"
"""
_LOADERS = {"x86_64": "/usr/lib64/ld-linux-x86-64.so.2", "aarch64": "/usr/lib/ld-linux-aarch64.so.1"}


async def erofs_tools(cache: Path) -> Path:
    """A folder for PATH with nothing but `mkfs.erofs` in it. Raises belljar.Error when Debian 13 cannot be reached."""
    machine = os.uname().machine
    folder = cache / "bench" / f"erofs-utils-13-{machine}"
    if (folder / "bin/mkfs.erofs").exists():
        return folder / "bin"
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent))
    scratch.chmod(0o755)
    try:
        await debian_tree(scratch / "tree", ["erofs-utils"], variant="extract", mirror=await mirror_lines())
        wrapper = scratch / "bin/mkfs.erofs"
        wrapper.parent.mkdir()
        wrapper.write_text(_WRAPPER.format(loader=_LOADERS[machine], machine=machine))
        wrapper.chmod(0o755)
        await proc.run([wrapper, "--version"])
        shutil.rmtree(folder, ignore_errors=True)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder / "bin"
