"""The fake engine passes the suite that ships, as far as it can; and the suite notices an engine that lies."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest

from belljar.model.sandbox import Limits
from belljar.node.engine.api import Instance, InstanceSpec
from belljar.node.engine.conformance import ALL_CHECKS, Bed, Check, Verdict, run_check, run_suite
from belljar.node.engine.fake import FakeEngine, FakePlan

SKIPPED_NEEDS = {"isolation", "limits", "checkpoint", "network", "live_mounts"}


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncGenerator[Bed]:
    run = tmp_path / "run"
    engine = FakeEngine(run)
    yield Bed(engine, lambda id, limits: spec(tmp_path, id, limits), lambda: FakeEngine(run), tmp_path)
    assert await engine.residue() == []


def spec(folder: Path, id: str, limits: Limits) -> InstanceSpec:
    nowhere = Path("/")
    return InstanceSpec(
        id, folder / "run" / id, "fake", nowhere, nowhere, folder / "overlay" / id, (), {}, "fake", limits, f"x/{id}"
    )


@pytest.mark.parametrize("check", ALL_CHECKS, ids=lambda check: check.name)
async def test_fake(check: Check, bed: Bed) -> None:
    result = await run_check(check, bed, await bed.engine.capabilities())
    if SKIPPED_NEEDS & set(check.needs):
        assert result.verdict is Verdict.NOT_SUPPORTED
        assert result.detail
    else:
        assert result.verdict is Verdict.PASSED, result.detail


async def test_an_engine_whose_guest_ends_at_once_passes_nothing_that_runs_in_one(bed: Bed) -> None:
    assert isinstance(bed.engine, FakeEngine)
    bed.engine.plan = lambda _: FakePlan(crash_on_start=True)
    check = replace(next(check for check in ALL_CHECKS if check.name == "exit codes come through"), timeout=0.5)
    (result,) = await run_suite(bed, [check])
    assert result.verdict is Verdict.FAILED
    assert result.detail


async def test_an_engine_that_deletes_nothing_is_found_out(bed: Bed) -> None:
    class Lazy(FakeEngine):
        async def delete(self, instance: Instance, *, timeout: float = 30.0) -> None:
            return

    run = bed.scratch / "run"
    check = next(check for check in ALL_CHECKS if check.name == "delete leaves nothing")
    (result,) = await run_suite(replace(bed, engine=Lazy(run)), [check])
    assert result.verdict is Verdict.FAILED
    assert "still there" in result.detail
    real = FakeEngine(run)
    for id in {thing.owner for thing in await real.residue()}:
        await real.delete(Instance(spec(bed.scratch, id, Limits())))
