"""Makes what a node needs before its first sandbox: host packages, engine, guest runtime, images.

Each of them is done once, by content; a second run only looks. ``python -m belljar.node.setup`` does it without a server.
"""

import argparse
import asyncio
import os
import stat
import sys
import time
from collections.abc import Collection, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from belljar.base.home import cache_home, state_home
from belljar.base.tasks import in_thread
from belljar.model.errors import Error, NotFound, PermissionDenied
from belljar.node.artifacts import Artifact, Store, state_store
from belljar.node.engine.gvisor.build import (
    KERNEL_ID,
    EngineBuild,
    engine_build,
    find_or_build_engine,
    kernels_may_enter,
)
from belljar.node.engine.gvisor.build import KIND as ENGINE
from belljar.node.guest.runtime import KIND as RUNTIME
from belljar.node.guest.runtime import LAYERS, GuestRuntime, find_or_build_runtime, guest_runtime, layers_of_runtime
from belljar.node.hostpackages import install_packages
from belljar.node.image.base import find_or_build_base
from belljar.node.image.catalog import KIND as IMAGE
from belljar.node.image.catalog import Catalog
from belljar.node.image.code import find_or_build_code
from belljar.node.progress import PlainProgress, Progress, Silent

__all__ = ("Installation", "damaged", "engine_named", "runtime_named", "set_up", "tidy")


@dataclass(frozen=True, slots=True)
class Installation:
    """What new sandboxes are made with; all of it is kept in the state directory."""

    engine: EngineBuild
    runtime: GuestRuntime
    images: Catalog


async def set_up(
    home: Path | None = None,
    progress: Progress | None = None,
    *,
    cache: Path | None = None,
    refresh: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> Installation:
    """Makes what is missing and returns all of it; under 50 ms when nothing is.

    `home`: the state directory, which gets its own hard link or copy, so that the cache may be wiped. `refresh`: makes the
    images anew from today's packages. May run several times at once: one makes, the others wait. When it is
    cancelled or fails, what was finished is kept and the rest removed. Raises PermissionDenied without root, Error with
    the words of the tool that failed.
    """
    progress = progress or Silent()
    home = home or state_home(environ)
    if os.geteuid() != 0:
        raise PermissionDenied("set-up needs root", hint="sudo belljar setup")
    own = state_store(home)
    store = Store(cache or cache_home(environ), behind=own)
    await install_packages(progress)
    (engine,), (runtime,), (base, code) = await _together(
        _alone(find_or_build_engine(store, progress, environ=environ)),
        _alone(find_or_build_runtime(store, progress, environ=environ)),
        _images(store, progress, refresh, environ),
    )
    kept_runtime = await own.adopt(runtime)
    for layer in await layers_of_runtime(store, runtime):
        await own.adopt(layer)
    await own.adopt(engine)
    images = Catalog(home)
    await images.put("base", base)
    await images.put("code", code)
    await _let_kernels_in(home, own, store)
    return Installation(engine_named(home, engine.key, cache=store.root), guest_runtime(kept_runtime, environ), images)


def engine_named(home: Path, key: str, *, cache: Path | None = None) -> EngineBuild:
    """The build that a sandbox or snapshot of this state directory was made by. Raises NotFound.

    The state directory's own copy, unless that lies where a kernel process may not enter; then the one in the cache.
    """
    reason = f"is not in {home}, or damaged"
    for store in (state_store(home), Store(cache or cache_home())) if key.isalnum() else ():
        if (artifact := store.get(ENGINE, key)) is not None:
            if kernels_may_enter(artifact.folder):
                return engine_build(artifact)
            reason = "lies where user nobody may not enter"
    raise NotFound(f"the engine {key[:40]!r} {reason}", hint="belljar setup")


def runtime_named(home: Path, key: str, environ: Mapping[str, str] = os.environ) -> GuestRuntime:
    """The same for its runtime."""
    return guest_runtime(_named(home, RUNTIME, key), environ)


async def tidy(home: Path, made: Installation, needed: Collection[str]) -> list[str]:
    """Removes engine builds, runtimes and images from the state directory that are neither of `made`, nor named by the catalog,
    nor among the keys that are `needed`; the cache keeps its own. Returns the keys. May be killed at any point.
    """
    own = state_store(home)
    images = {image.key for image in await in_thread(made.images.list)}
    keep = {*needed, made.engine.key, made.runtime.key, *images}
    runtimes = await in_thread(own.list, RUNTIME)
    # What a runtime was composed of stays as long as the runtime does.
    for runtime in runtimes:
        if runtime.key in keep:
            keep.update(runtime.facts.values())
    removed: list[str] = []
    for kind in (ENGINE, RUNTIME, IMAGE, *LAYERS):
        for artifact in await in_thread(own.list, kind):
            if artifact.key not in keep:
                await own.remove(kind, artifact.key)
                removed.append(artifact.key)
    return removed


def damaged(home: Path) -> list[str]:
    """What in the state directory differs from when it was made, one sentence each. Reads all of it (half a second)."""
    own = state_store(home)
    found: list[str] = []
    for kind in (ENGINE, RUNTIME, IMAGE):
        for artifact in own.list(kind):
            found += [f"{kind} {artifact.key}: {problem}" for problem in artifact.damage()]
    return found


async def _let_kernels_in(home: Path, own: Store, cache: Store) -> None:
    """A kernel process is user and group nobody when it executes its program: it has to reach the folder.

    The state directory lets that group through, not in (names cannot be listed), unless somebody gave it another group. Where
    a folder above it is closed the cache's copy is used, so each engine of this state has to be there.
    """
    now = home.stat()
    if now.st_gid == 0 and not now.st_mode & 0o011:
        os.chown(home, -1, KERNEL_ID)
        home.chmod(stat.S_IMODE(now.st_mode) | 0o010)
    for artifact in own.list(ENGINE):
        if kernels_may_enter(artifact.folder):
            continue
        if not kernels_may_enter((await cache.adopt(artifact)).folder):
            raise Error(
                f"neither {home} nor {cache.root} lets user nobody through to the engine, as which sandboxes' kernels run",
                hint="choose a BELLJAR_HOME or BELLJAR_CACHE whose parent folders everybody may enter, as /var/lib/belljar",
            )


def _named(home: Path, kind: str, key: str) -> Artifact:
    artifact = state_store(home).get(kind, key) if key.isalnum() else None
    if artifact is None:
        raise NotFound(f"the {kind} {key[:40]!r} is not in {home}, or damaged", hint="belljar doctor")
    return artifact


async def _alone(work: Coroutine[Any, Any, Artifact]) -> tuple[Artifact, ...]:
    return (await work,)


async def _images(store: Store, progress: Progress, refresh: bool, environ: Mapping[str, str]) -> tuple[Artifact, ...]:
    base = await find_or_build_base(store, progress, refresh=refresh, environ=environ)
    return base, await find_or_build_code(store, base, progress)


async def _together(*work: Coroutine[Any, Any, tuple[Artifact, ...]]) -> list[tuple[Artifact, ...]]:
    """All at once; the first error ends the others and is raised as itself, when they have cleaned up."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _main(arguments: argparse.Namespace) -> int:
    progress = PlainProgress()
    started = time.monotonic()
    try:
        made = await set_up(arguments.home, progress, refresh=arguments.refresh)
        if arguments.verify and (problems := await in_thread(damaged, arguments.home or state_home())):
            raise Error("\n  ".join(["damaged:", *problems]))
    except Error as error:
        progress.line(f"set-up failed: {error}")
        return 1
    progress.line(f"all there after {time.monotonic() - started:.1f} s")
    print(made.engine.folder, made.runtime.folder, made.images.get("base").path, sep="\n")  # noqa: T201
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m belljar.node.setup", description=__doc__)
    parser.add_argument("--home", type=Path, default=None, help="the state directory")
    parser.add_argument("--refresh", action="store_true", help="make the images from today's packages")
    parser.add_argument("--verify", action="store_true", help="compare every byte with the manifests")
    try:
        return asyncio.run(_main(parser.parse_args()))
    except KeyboardInterrupt:
        sys.stderr.write("set-up stopped; what was finished is kept, run it again to go on\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
