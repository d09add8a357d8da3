"""What node tests make sandboxes with: the real engine, runtime and base image, set up once, and folders of their own."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path

import pytest

from belljar.base.mounts import unmount_below
from belljar.model.sandbox import Limits
from belljar.node.engine.api import Engine, InstanceSpec
from belljar.node.engine.conformance import Bed
from belljar.node.engine.gvisor.driver import GvisorEngine
from belljar.node.instance import Instance, instance_of
from belljar.node.setup import Installation, set_up


@pytest.fixture(scope="session")
def state() -> Generator[Instance]:
    """A state directory of the test run: its names on the host are nobody else's."""
    home = Path(tempfile.mkdtemp(prefix="belljar-tests-"))
    instance = instance_of(home)
    instance.make_run()
    yield instance
    unmount_below(instance.run)
    shutil.rmtree(instance.run, ignore_errors=True)
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def installation(state: Instance) -> Installation:
    return asyncio.run(set_up(state.home))


@pytest.fixture
def new_engine(state: Instance, installation: Installation) -> Callable[[], GvisorEngine]:
    """Each call is another server's engine on the same state."""
    return lambda: GvisorEngine(state.run, state.cgroup, lambda _: installation.engine)


@pytest.fixture
def new_spec(state: Instance, installation: Installation) -> Callable[[str, Limits], InstanceSpec]:
    image = installation.images.get("base").path

    def make(id: str, limits: Limits) -> InstanceSpec:
        return InstanceSpec(
            id=id,
            folder=state.run / "sandboxes" / id,
            build=installation.engine.key,
            root=image,
            runtime=installation.runtime.folder,
            overlay=state.overlays / id,
            argv=installation.runtime.argv,
            env=installation.runtime.env,
            hostname="test",
            limits=limits,
            cgroup=f"{state.cgroup}/{id}",
        )

    return make


@pytest.fixture
async def bed(
    new_engine: Callable[[], Engine], new_spec: Callable[[str, Limits], InstanceSpec], tmp_path: Path
) -> AsyncGenerator[Bed]:
    """Fails the test that leaves anything of the engine on the host."""
    engine = new_engine()
    yield Bed(engine, new_spec, new_engine, tmp_path)
    await engine.close()
    assert await engine.residue() == []
