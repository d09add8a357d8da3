"""What of this engine is on the host now: found by its names, whatever any record says."""

import contextlib
from pathlib import Path

from belljar.base.mounts import mounts_below
from belljar.node.engine.api import HostObject
from belljar.node.engine.gvisor.cgroup import Cgroups
from belljar.node.engine.gvisor.layout import CARRIER
from belljar.node.engine.process import HostProcess, process_of

__all__ = ("engine_processes", "residue")


def residue(roots: Path, cgroup: str, groups: Cgroups) -> list[HostObject]:
    """`roots` holds the engine roots, `cgroup` is the parent of all groups; carriers are looked for beside the roots."""
    processes = [
        HostObject("process", f"{process.pid} {word}", owner) for process, word, owner in engine_processes(roots)
    ]
    return [*processes, *_mounts(roots), *_cgroups(cgroup, groups), *_files(roots)]


def engine_processes(roots: Path) -> list[tuple[HostProcess, str, str]]:
    """runsc itself, kernels and gofers: the process, its first word, and the instance that it serves."""
    prefix = f"--root={roots}/".encode()
    found: list[tuple[HostProcess, str, str]] = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            if any(word.startswith(prefix) for word in words):
                process = process_of(int(folder.name))
                if process is not None:
                    # all of them end with the instance's id
                    found.append((process, words[0].decode(errors="replace"), words[-1].decode(errors="replace")))
    return found


def _mounts(roots: Path) -> list[HostObject]:
    found = [HostObject("mount", str(point)) for point in mounts_below(roots)]
    for point in mounts_below(roots.parent):
        parts = point.relative_to(roots.parent).parts
        if CARRIER in parts[1:]:
            found.append(HostObject("mount", str(point), parts[parts.index(CARRIER, 1) - 1]))
    return found


def _cgroups(cgroup: str, groups: Cgroups) -> list[HostObject]:
    found = [HostObject("cgroup", name, name.rpartition("/")[2]) for name in sorted(groups.children(cgroup))]
    if any(folder.is_dir() for folder in groups.folders(cgroup)):
        found.append(HostObject("cgroup", cgroup))
    return found


def _files(roots: Path) -> list[HostObject]:
    found: list[HostObject] = []
    for file in sorted(roots.glob("*/*")):
        owner = ""
        if file.name.startswith("runsc-"):
            owner = file.name.removeprefix("runsc-").removesuffix(".sock")
        elif "_sandbox:" in file.name:
            owner = file.name.partition("_sandbox:")[0]
        found.append(HostObject("file", str(file), owner))
    return found
