"""The engine's programs: taken from where the user says, from an installed wheel, from the cache, or built."""

import asyncio
import hashlib
import os
import platform
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from belljar.base import proc
from belljar.base.tasks import in_thread
from belljar.model.errors import EngineFailed, NotFound
from belljar.node.artifacts import Artifact, Store
from belljar.node.engine.gvisor.archive import given_archive, given_program, wheel_folder
from belljar.node.engine.gvisor.golang import find_go, go_environment
from belljar.node.engine.gvisor.mkelf import prewarmer
from belljar.node.engine.gvisor.versions import check_version, parse_version
from belljar.node.progress import Progress, Silent, Step, size_text
from belljar.node.sources import digest_tree, engine_sources

__all__ = (
    "KERNEL_ID",
    "KIND",
    "EngineBuild",
    "engine_build",
    "find_or_build_engine",
    "kernels_may_enter",
    "program_version",
)

KIND = "engine"
KERNEL_ID = 65534
"""User and group of a sandbox's kernel process on the host: nobody."""
_MODULE = "gvisor.dev/gvisor"
_SOURCES = ("*.go", "go.mod", "go.sum")
_BUILD_LIMIT = 1800.0
_ROOM = 1500 << 20
"""Bytes: modules and compiled packages took 714 MB."""
_STALE = 86400.0
_FILTER_TRIES = 4
_MODULE_LINE = "{{with .Module}}{{.Path}}\t{{.Dir}}{{end}}"
_HINT = "a runsc that you have can be used too: set BELLJAR_RUNSC or BELLJAR_ENGINE_ARCHIVE"


@dataclass(frozen=True, slots=True)
class EngineBuild:
    """One build. Sandboxes and memory snapshots name it by `key` and need exactly this one.

    `one_file`: no gvisor-bin beside it, so the strict side-car policy cannot be used. `own`: built by Belljar, so `free`
    and `nproc` inside show the sandbox's limits.
    """

    key: str
    version: str
    digest: str
    runsc: Path
    folder: Path
    one_file: bool
    own: bool


async def find_or_build_engine(
    store: Store, progress: Progress | None = None, *, environ: Mapping[str, str] = os.environ
) -> Artifact:
    """The engine to use for new sandboxes, in the store; `engine_build` tells about it.

    In this order: ``$BELLJAR_RUNSC``, ``$BELLJAR_ENGINE_ARCHIVE``, an installed wheel, the store, a build from the pinned
    sources (80 s on two cores). Raises NotSupported for one with known holes, InvalidArgument for a bad file or digest,
    EngineFailed when the build fails.
    """
    progress = progress or Silent()
    if given := environ.get("BELLJAR_RUNSC"):
        return await _imported(store, "runsc", await in_thread(given_program, Path(given)), progress)
    if given := environ.get("BELLJAR_ENGINE_ARCHIVE"):
        return await _imported(store, "archive", await in_thread(given_archive, Path(given)), progress)
    if (folder := wheel_folder()) is not None:
        return await _imported(store, "wheel", await in_thread(given_program, folder / "runsc"), progress)
    sources = engine_sources()
    inputs = {
        "from": "sources",
        "sources": await in_thread(digest_tree, sources, _SOURCES),
        "machine": platform.machine(),
        "prewarmer": (prewarmer(platform.machine()) or b"").hex(),
    }

    async def build(folder: Path) -> Mapping[str, str]:
        with progress.step("engine") as step:
            work = store.root / "work" / f"engine-{inputs['sources'][:16]}"
            return await _build(store, _Workshop(sources, work, folder), progress, step, environ)

    return await store.make(
        KIND, inputs, build, room=_ROOM, on_wait=lambda who: progress.found("engine", f"waiting for process {who}")
    )


def engine_build(artifact: Artifact) -> EngineBuild:
    """What an engine artifact is. Raises NotFound if it was not recorded as one."""
    if "version" not in artifact.facts:
        raise NotFound(f"{artifact.folder} is not an engine build")
    version = artifact.facts["version"]
    return EngineBuild(
        key=artifact.key,
        version=version,
        digest=artifact.digest,
        runsc=artifact.folder / "runsc",
        folder=artifact.folder,
        one_file="gvisor-bin/gvisor_sentry" not in artifact.files,
        own=version.startswith("belljar-"),
    )


def kernels_may_enter(folder: Path) -> bool:
    """Whether a kernel process, which is nobody before it executes its program, reaches this folder."""
    for place in (folder, *folder.parents):
        now = place.stat()
        wanted = 0o100 if now.st_uid == KERNEL_ID else 0o010 if now.st_gid == KERNEL_ID else 0o001
        if not now.st_mode & wanted:
            return False
    return True


async def program_version(runsc: Path) -> str:
    """What this runsc says of itself, checked. Raises EngineFailed, NotSupported."""
    try:
        said = await proc.run([runsc, "--version"], timeout=20)
    except proc.CommandFailed as error:
        raise EngineFailed(f"runsc does not run here: {error}") from error
    return check_version(parse_version(said.stdout.decode(errors="replace")))


async def _imported(store: Store, origin: str, files: Mapping[str, bytes], progress: Progress) -> Artifact:
    """A copy of somebody else's build, so that sandboxes keep it when its owner replaces it."""
    digests = {f"file {name}": _digest(data) for name, data in sorted(files.items())}

    async def copy(folder: Path) -> Mapping[str, str]:
        with progress.step("engine") as step:
            step.say(f"taking the build that was given ({origin})")
            await in_thread(_write_programs, folder, files)
            return {"version": await program_version(folder / "runsc")}

    artifact = await store.make(KIND, {"from": "files", "machine": platform.machine(), **digests}, copy)
    # Asked again for one that is there: a hole may have become known since.
    check_version(artifact.facts["version"])
    return artifact


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write_programs(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        path.write_bytes(data)
        path.chmod(0o755 if name == "runsc" or name.startswith("gvisor-bin/") else 0o644)


@dataclass(frozen=True, slots=True)
class _Workshop:
    """`work` is kept when a build is interrupted, so that the next one goes on from there, and removed when one is whole."""

    sources: Path
    work: Path
    result: Path


async def _build(
    store: Store, shop: _Workshop, progress: Progress, step: Step, environ: Mapping[str, str]
) -> Mapping[str, str]:
    requirement = (shop.sources / "go.mod").read_text()
    needed, stamp = (
        re.search(r"^go (\S+)", requirement, re.M),
        re.search(rf"{_MODULE} v0\.0\.0-(\d{{14}})-", requirement),
    )
    if needed is None or stamp is None:
        raise EngineFailed(f"{shop.sources / 'go.mod'} pins no Go or no gVisor")
    go = await find_go(store, needed[1], progress, environ)
    module = shop.work / "module"
    await in_thread(_copy_sources, shop.sources, module, shop.work / "tmp")
    run = _Runner(go.program, module, await _build_environment(go.program, shop.work, environ))
    step.say("downloading gVisor's sources")
    try:
        modules = await run("list", "-deps", "-f", _MODULE_LINE, "./cmd/runsc", "./cmd/gvisor_sentry")
    except proc.CommandFailed as error:
        raise EngineFailed(f"gVisor's sources cannot be fetched: {error}", hint=_HINT) from error
    if downloads := modules.stderr.count(b"go: downloading"):
        step.downloaded(f"{downloads} Go modules ({size_text(await in_thread(_zips, shop.work / 'modules'))})")
    step.say(f"building with Go {go.version} (about 80 s on two cores)")
    version = f"belljar-{stamp[1]}"
    programs = shop.work / "programs"
    try:
        await _make_filters(run)
        flags = f"-s -w -X {_MODULE}/runsc/version.version={version}"
        await run("build", "-ldflags", flags, "-o", f"{programs}/", "./cmd/runsc", "./cmd/gvisor_sentry")
    except proc.CommandFailed as error:
        raise EngineFailed(f"the engine does not build: {error}", hint=_HINT) from error
    await in_thread(_collect, programs, shop.result, set(modules.stdout.decode().splitlines()))
    said = await program_version(shop.result / "runsc")
    if said != version:
        raise EngineFailed(f"the engine that was built says {said}, not {version}")
    await asyncio.shield(in_thread(_clear, shop.work))
    return {"version": version, "go": go.version}


async def _build_environment(go: Path, work: Path, environ: Mapping[str, str]) -> dict[str, str]:
    return go_environment(environ) | {
        "GOPATH": str(work / "path"),
        "GOMODCACHE": str(work / "modules"),
        "GOCACHE": str(work / "cache"),
        "GOTMPDIR": str(work / "tmp"),
        "GOFLAGS": "-mod=readonly -modcacherw -trimpath -buildvcs=false",
        "GOPROXY": await _proxies(go, environ),
    }


async def _make_filters(run: "_Runner") -> None:
    for left in reversed(range(_FILTER_TRIES)):
        try:
            await run("run", "./cmd/filters", "cmd/gvisor_sentry/ready.go", "cmd/runsc/ready.go")
            return
        except proc.CommandFailed as error:
            # A process id that equals another constant of the filter: another run has another one.
            if not left or b"run again" not in error.stderr:
                raise


class _Runner:
    def __init__(self, go: Path, module: Path, env: Mapping[str, str]) -> None:
        self._go, self._module, self._env = go, module, env

    async def __call__(self, *arguments: str) -> proc.Completed:
        return await proc.run([self._go, *arguments], cwd=self._module, env=self._env, timeout=_BUILD_LIMIT)


async def _proxies(go: Path, environ: Mapping[str, str]) -> str:
    """Where modules come from: the user's own download cache first, so that what is on this machine is not fetched again."""
    said = await proc.run([go, "env", "GOPROXY", "GOMODCACHE"], env=dict(go_environment(environ)), timeout=20)
    proxy, _, cache = said.stdout.decode().strip().partition("\n")
    kept = Path(environ.get("GOMODCACHE") or cache) / "cache/download"
    return f"file://{kept},{proxy}" if kept.is_dir() else proxy


def _copy_sources(sources: Path, module: Path, scratch: Path) -> None:
    shutil.rmtree(module, ignore_errors=True)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    for pattern in _SOURCES:
        for path in sources.rglob(pattern):
            target = module / path.relative_to(sources)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _clear(work: Path) -> None:
    """Removes the work folder, and those that builds of other sources left more than a day ago."""
    for folder in work.parent.iterdir():
        if folder == work or folder.stat().st_mtime < time.time() - _STALE:
            shutil.rmtree(folder, ignore_errors=True)


def _zips(modules: Path) -> int:
    return sum(path.stat().st_size for path in (modules / "cache/download").rglob("*.zip"))


def _collect(output: Path, folder: Path, modules: Iterable[str]) -> None:
    """The programs, the start helper, and the licenses of everything that is linked in."""
    (folder / "gvisor-bin").mkdir(mode=0o755)
    shutil.move(output / "runsc", folder / "runsc")
    shutil.move(output / "gvisor_sentry", folder / "gvisor-bin/gvisor_sentry")
    if (helper := prewarmer(platform.machine())) is not None:
        (folder / "gvisor-bin/gvisor-sentry-prewarmer").write_bytes(helper)
    for program in (folder / "runsc", *(folder / "gvisor-bin").iterdir()):
        program.chmod(0o755)
    for line in modules:
        name, _, where = line.partition("\t")
        for text in sorted(Path(where).glob("LICENSE*")) if where else ():
            target = folder / "licenses" / name / text.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(text, target)
            target.chmod(0o644)
