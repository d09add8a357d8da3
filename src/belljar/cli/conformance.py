"""The engine's conformance suite on this machine, in a state directory of its own that is gone afterwards."""

import contextlib
import tempfile
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from belljar.base.files import remove_tree
from belljar.base.home import state_home
from belljar.base.mounts import unmount_below
from belljar.base.tasks import in_thread
from belljar.model.errors import EngineFailed
from belljar.model.sandbox import Limits
from belljar.node.engine.api import Engine, InstanceSpec
from belljar.node.engine.conformance import ALL_CHECKS, Bed, Result, run_suite
from belljar.node.engine.fake.driver import FakeEngine
from belljar.node.engine.gvisor.driver import GvisorEngine
from belljar.node.guest.runtime import GuestRuntime
from belljar.node.instance import Instance, instance_of
from belljar.node.progress import PlainProgress
from belljar.node.setup import engine_named, set_up
from belljar.server.machine import NO_RUNTIME, check_rights
from belljar.server.settings import read_settings

__all__ = ("Result", "check_engine")


async def check_engine(on_result: Callable[[Result], None]) -> list[Result]:
    """Every check with the engine that is set; sets up what is missing first. Raises PermissionDenied, Error."""
    home = state_home()
    settings = read_settings(home)
    check_rights(settings)
    async with _place() as instance:
        if settings.engine == "fake":
            bed = _bed(instance, lambda: FakeEngine(instance.run), "fake", Path("/"), NO_RUNTIME)
        else:
            made = await set_up(home, PlainProgress())
            bed = _bed(
                instance,
                lambda: GvisorEngine(instance.run, instance.cgroup, lambda key: engine_named(home, key)),
                made.engine.key,
                made.images.get("base").path,
                made.runtime,
            )
        try:
            return await run_suite(bed, ALL_CHECKS, on_result=on_result)
        finally:
            await bed.engine.close()
            if left := await bed.engine.residue():
                raise EngineFailed(f"the engine left {len(left)} things on the host: {left[:3]}")


@contextlib.asynccontextmanager
async def _place() -> AsyncGenerator[Instance]:
    with tempfile.TemporaryDirectory(prefix="belljar-doctor-") as folder:
        instance = instance_of(Path(folder))
        instance.make_run()
        try:
            yield instance
        finally:
            await in_thread(unmount_below, instance.run)
            await in_thread(remove_tree, instance.run)


def _bed(instance: Instance, make: Callable[[], Engine], build: str, image: Path, runtime: GuestRuntime) -> Bed:
    scratch = instance.home / "scratch"
    scratch.mkdir()

    def spec(id: str, limits: Limits) -> InstanceSpec:
        return InstanceSpec(
            id=id,
            folder=instance.run / "sandboxes" / id,
            build=build,
            root=image,
            runtime=runtime.folder,
            overlay=instance.overlays / id,
            argv=runtime.argv,
            env=runtime.env,
            hostname="doctor",
            limits=limits,
            cgroup=f"{instance.cgroup}/{id}",
        )

    return Bed(make(), spec, make, scratch)
