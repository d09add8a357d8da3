"""What a workspace and a key may have at once, and how fast it may come."""

import asyncio
from dataclasses import replace

import pytest
from tests.unit.control.conftest import Plant

from belljar.control.branches import Fork
from belljar.control.changes import Changes
from belljar.control.keys import DEFAULT_WORKSPACE, Principal
from belljar.control.quotas import Quotas
from belljar.control.rates import Rates
from belljar.control.workspaces import Workspaces
from belljar.model.errors import (
    AlreadyExists,
    Conflict,
    InvalidArgument,
    LimitExceeded,
    NoCapacity,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)
from belljar.model.key import Scope
from belljar.model.sandbox import Limits, Sandbox, SandboxSpec
from belljar.model.workspace import Quota, Use

SPEC = SandboxSpec(limits=Limits(cpus=2, memory=1 << 30, disk=4 << 30))


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


@pytest.mark.parametrize(
    ("quota", "said"),
    [
        (Quota(sandboxes=2), "sandboxes up to 2: 2 in use, 1 more"),
        (Quota(cpus=5), "cpus up to 5: 4 in use, 2 more"),
        (Quota(memory=5 << 29), "memory up to 2.5 GiB: 2.0 GiB in use"),
        (Quota(disk=9 << 30), "disk up to 9.0 GiB: 8.0 GiB in use"),
    ],
)
async def test_what_lives_at_once_is_bounded_and_what_ends_makes_room(plant: Plant, quota: Quota, said: str):
    async with plant.control() as control:
        await control.workspaces.make("team", quota)
        first, _ = [await control.sandboxes.create("team", SPEC) for _ in range(2)]
        with pytest.raises(LimitExceeded, match=said) as refused:
            await control.sandboxes.create("team", SPEC)
        assert "workspace team" in str(refused.value)
        await control.sandboxes.create(DEFAULT_WORKSPACE, SPEC)
        await control.sandboxes.terminate("team", first.id)
        await control.sandboxes.create("team", SPEC)


async def test_creates_at_the_same_moment_do_not_pass_together(plant: Plant):
    async with plant.control() as control:
        await control.workspaces.make("team", Quota(sandboxes=3))
        came = await asyncio.gather(
            *(control.sandboxes.create("team", SPEC) for _ in range(10)), return_exceptions=True
        )
        assert sum(isinstance(each, LimitExceeded) for each in came) == 7
        assert control.quotas.use("team") == Use(3, 6, 3 << 30, 12 << 30)


async def test_a_fork_is_admitted_as_a_whole(plant: Plant):
    async with plant.control() as control:
        await control.workspaces.make("team", Quota(sandboxes=4))
        parent = await control.sandboxes.create("team", SPEC)
        with pytest.raises(LimitExceeded):
            await control.branches.fork("team", parent.id, Fork(4))
        assert control.quotas.use("team").sandboxes == 1
        assert len(await control.branches.fork("team", parent.id, Fork(3))) == 3


async def test_a_key_has_its_own_bounds_also_after_a_restart(plant: Plant):
    async with plant.control() as control:
        key, _ = await control.keys.make("ci", quota=Quota(sandboxes=1))
        other, _ = await control.keys.make("other", quota=Quota(sandboxes=1))
        await control.sandboxes.create(DEFAULT_WORKSPACE, SPEC, key=key.id)
    async with plant.control() as control:
        with pytest.raises(LimitExceeded, match=f"the key {key.id} may have sandboxes up to 1"):
            await control.sandboxes.create(DEFAULT_WORKSPACE, SPEC, key=key.id)
        await control.sandboxes.create(DEFAULT_WORKSPACE, SPEC, key=other.id)
        await control.sandboxes.create(DEFAULT_WORKSPACE, SPEC)
        assert control.quotas.use(DEFAULT_WORKSPACE).sandboxes == 3
        assert control.quotas.use(DEFAULT_WORKSPACE, key.id).sandboxes == 1


async def test_a_create_that_fails_holds_nothing(plant: Plant):
    async with plant.control() as control:
        await control.workspaces.make("team", Quota(sandboxes=1))
        plant.node.failure = NoCapacity("no")
        with pytest.raises(NoCapacity):
            await control.sandboxes.create("team", SPEC)
        assert control.quotas.use("team") == Use()
        await control.sandboxes.create("team", SPEC)


async def test_creates_come_at_their_rate(plant: Plant):
    clock = Clock()
    async with plant.control() as control:
        await control.workspaces.make("team", Quota(creates=2))
        quotas = Quotas(control.index, control.workspaces, control.keys, clock=clock)
        for _ in range(2):
            quotas.admit("team", None, [SPEC])
        with pytest.raises(LimitExceeded, match="2 creates a second") as refused:
            quotas.admit("team", None, [SPEC])
        assert refused.value.retry_after is not None
        assert 0 < refused.value.retry_after <= 0.5
        clock.at += 0.6
        quotas.admit(
            "team", None, [SPEC] * 20
        )  # more than a second's worth: it passes, and the next waits for all of it
        with pytest.raises(LimitExceeded) as refused:
            quotas.admit("team", None, [SPEC])
        assert refused.value.retry_after is not None
        assert 8 < refused.value.retry_after < 10
        clock.at += 10
        quotas.admit("team", None, [SPEC])


async def test_requests_are_counted_per_key_and_workspace_but_not_of_the_socket(plant: Plant):
    clock = Clock()
    async with plant.control() as control:
        await control.workspaces.make("team", Quota(requests=5))
        one, _ = await control.keys.make("one", workspace="team", quota=Quota(requests=1))
        two, _ = await control.keys.make("two", workspace="team")
        quotas = Quotas(control.index, control.workspaces, control.keys, clock=clock)
        quotas.admit_request(Principal("team", one.id))
        with pytest.raises(LimitExceeded, match=f"key {one.id} may have 1 requests"):
            quotas.admit_request(Principal("team", one.id))
        for _ in range(4):
            quotas.admit_request(Principal("team", two.id))
        with pytest.raises(LimitExceeded, match="workspace team may have 5 requests"):
            quotas.admit_request(Principal("team", two.id))
        for _ in range(100):
            quotas.admit_request(Principal("team", local=True))


def test_a_bucket_keeps_its_rate_over_time_and_forgets_the_oldest():
    clock = Clock()
    rates = Rates(clock=clock)
    passed = 0
    for _ in range(1000):
        if not rates.wait("x", 3.0):
            rates.take("x", 3.0)
            passed += 1
        clock.at += 0.01
    assert 30 <= passed <= 34
    for number in range(10_000):
        rates.take(number, 1.0, 1)
    assert len(rates._left) <= 4096


@pytest.mark.parametrize(
    "bad",
    [{"sandboxes": -1}, {"cpus": float("nan")}, {"memory": 1 << 70}, {"creates": 0}, {"requests": float("inf")}],
)
def test_a_quota_is_a_number_from_nothing_to_a_lot(bad: dict[str, float]):
    with pytest.raises(InvalidArgument):
        Quota.of(bad)


@pytest.mark.parametrize("bad", ["", "A", "a b", "-a", "a-", "a" * 64, "a\n", "ä", "a/b", "a_b"])
async def test_a_workspace_has_a_short_plain_name(plant: Plant, bad: str):
    async with plant.control() as control:
        with pytest.raises(InvalidArgument):
            await control.workspaces.make(bad, Quota())


async def test_a_name_is_used_once(plant: Plant):
    async with plant.control() as control:
        await control.workspaces.make("team", Quota())
        with pytest.raises(AlreadyExists):
            await control.workspaces.make("team", Quota())
        await control.workspaces.delete("team")
        with pytest.raises(AlreadyExists, match="or was"):
            await control.workspaces.make("team", Quota())
        with pytest.raises(AlreadyExists):
            await control.workspaces.make(DEFAULT_WORKSPACE, Quota())


async def test_only_an_empty_one_is_deleted_and_its_keys_open_nothing_then(plant: Plant):
    async with plant.control() as control:
        await control.workspaces.make("team", Quota())
        _, secret = await control.keys.make("ci", workspace="team")
        sandbox = await control.sandboxes.create("team", SPEC)
        with pytest.raises(Conflict, match="1 sandboxes"):
            await control.workspaces.delete("team")
        assert control.keys.check(secret).workspace == "team"
        await control.sandboxes.terminate("team", sandbox.id)
        assert (await control.workspaces.delete("team")).ended is not None
        with pytest.raises(Unauthenticated):
            control.keys.check(secret)
        with pytest.raises(LimitExceeded):
            await control.sandboxes.create("team", SPEC)
        with pytest.raises(NotFound):
            await control.workspaces.delete("team")
        with pytest.raises(Conflict):
            await control.workspaces.delete(DEFAULT_WORKSPACE)
    async with plant.control() as control:
        assert [workspace.id for workspace in control.workspaces.list()] == [DEFAULT_WORKSPACE]
        with pytest.raises(Unauthenticated):
            control.keys.check(secret)


async def test_no_key_outlives_the_workspace_it_is_made_for(plant: Plant):
    async with plant.control() as control:
        await control.workspaces.make("team", Quota())
        made, gone = await asyncio.gather(
            control.workspaces.make_key("team", "late", scope=Scope.RUN),
            control.workspaces.delete("team"),
            return_exceptions=True,
        )
        assert isinstance(made, tuple)
        assert not isinstance(gone, BaseException)
        with pytest.raises(Unauthenticated):
            control.keys.check(made[1])
        with pytest.raises(NotFound):
            await control.workspaces.make_key("team", "later", scope=Scope.RUN)


async def test_what_was_changed_holds_after_a_restart_and_what_lives_stays(plant: Plant):
    async with plant.control() as control:
        await control.workspaces.make("team", Quota(sandboxes=5))
        for _ in range(2):
            await control.sandboxes.create("team", SPEC)
        await control.workspaces.change("team", Quota(sandboxes=1, memory=1 << 40))
    async with plant.control() as control:
        assert control.workspaces.quota("team") == Quota(sandboxes=1, memory=1 << 40)
        assert control.quotas.use("team").sandboxes == 2
        with pytest.raises(LimitExceeded):
            await control.sandboxes.create("team", SPEC)


async def test_others_see_their_own_alone(plant: Plant):
    async with plant.control() as control:
        for name in ("a", "b"):
            await control.workspaces.make(name, Quota())
        own, operator = Principal("a", "key1"), Principal(DEFAULT_WORKSPACE, "key2")
        assert control.workspaces.get(own, "a").id == "a"
        with pytest.raises(NotFound):
            control.workspaces.get(own, "b")
        assert control.workspaces.get(operator, "b").id == "b"
        for who in (own, replace(operator, scope=Scope.RUN)):
            with pytest.raises(PermissionDenied):
                Workspaces.check_operator(who)


@pytest.mark.parametrize(
    ("quota", "change", "said"),
    [
        (Quota(memory=3 << 30), Changes(memory=5 << 29), "memory up to 3.0 GiB: 2.0 GiB in use, 1.5 GiB more"),
        (Quota(cpus=4.5), Changes(cpus=2.7), "cpus up to 4.5: 4 in use, 0.7 more"),
    ],
)
async def test_a_sandbox_that_grows_is_bounded_as_one_that_is_made(
    plant: Plant, quota: Quota, change: Changes, said: str
):
    async with plant.control() as control:
        await control.workspaces.make("team", quota)
        first, second = [await control.sandboxes.create("team", SPEC) for _ in range(2)]
        with pytest.raises(LimitExceeded, match=said):
            await control.sandboxes.update("team", first.id, change)
        assert plant.node.known[first.id].spec.limits == SPEC.limits
        assert control.quotas.use("team") == Use(2, 4.0, 2 << 30, 8 << 30)
        await control.sandboxes.update("team", second.id, Changes(memory=1 << 29, cpus=0.5))
        await control.sandboxes.update("team", first.id, change)


async def test_a_key_bounds_what_its_sandboxes_grow_to(plant: Plant):
    async with plant.control() as control:
        key, _ = await control.keys.make("one", quota=Quota(memory=1 << 30))
        made = await control.sandboxes.create(DEFAULT_WORKSPACE, SPEC, key=key.id)
        with pytest.raises(LimitExceeded, match=rf"the key {key.id}"):
            await control.sandboxes.update(DEFAULT_WORKSPACE, made.id, Changes(memory=2 << 30))


async def test_less_is_never_refused_by_a_quota_that_was_lowered(plant: Plant):
    async with plant.control() as control:
        await control.workspaces.make("team", Quota())
        made = await control.sandboxes.create("team", SPEC)
        await control.workspaces.change("team", Quota(cpus=1, memory=1 << 20, disk=1))
        changed = await control.sandboxes.update("team", made.id, Changes(memory=1 << 29))
        assert changed.spec.limits.memory == 1 << 29


async def test_what_is_about_to_be_given_is_given_to_nobody_else(plant: Plant, monkeypatch: pytest.MonkeyPatch):
    set_limits, go_on = plant.node.set_limits, asyncio.Event()

    async def slow(id: str, limits: Limits) -> Sandbox:
        await go_on.wait()
        return await set_limits(id, limits)

    monkeypatch.setattr(plant.node, "set_limits", slow)
    async with plant.control() as control:
        await control.workspaces.make("team", Quota(memory=3 << 30))
        made = await control.sandboxes.create("team", SPEC)
        growing = asyncio.ensure_future(control.sandboxes.update("team", made.id, Changes(memory=5 << 29)))
        await asyncio.sleep(0.01)
        with pytest.raises(LimitExceeded, match=r"2\.5 GiB in use"):
            await control.sandboxes.create("team", SPEC)
        go_on.set()
        await growing
        assert control.quotas.use("team").memory == 5 << 29
        await control.sandboxes.create("team", replace(SPEC, limits=replace(SPEC.limits, memory=1 << 29)))
