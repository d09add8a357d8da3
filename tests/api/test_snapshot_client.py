"""The SDK's snapshots, forks and templates over the whole HTTP API, on a node that says what a real one rarely says."""

import asyncio
from pathlib import Path

import pytest
from tests.api.conftest import Front

import belljar
from belljar.model.errors import NoCapacity


@pytest.fixture
async def client(front: Front, monkeypatch: pytest.MonkeyPatch) -> Front:
    monkeypatch.setenv("BELLJAR_URL", front.tcp)
    _, key = await front.product.keys.make("test")
    monkeypatch.setenv("BELLJAR_API_KEY", key)
    return front


async def test_a_snapshot_has_all_its_verbs(client: Front, tmp_path: Path):
    async with await belljar.AsyncSandbox.create(image="base", name="box", env={"A": "1"}) as box:
        snapshot = await box.snapshot("s", memory=True, labels={"a": "b"}, ttl="7d")
        assert (snapshot.name, snapshot.kind, snapshot.sandbox, snapshot.size) == ("s", "memory", box.id, 100)
        assert snapshot.expires is not None
        assert (await belljar.AsyncSnapshot.get("s")).id == snapshot.id
        changed = await snapshot.update(name="t", ttl=None)
        assert (changed.name, changed.expires, snapshot.labels) == ("t", None, {"a": "b"})
        async with await snapshot.create(env={"B": "2"}, memory="2GiB") as twin:
            assert (twin.last_info.snapshot, twin.last_info.env) == (snapshot.id, {"A": "1", "B": "2"})
            assert twin.last_info.memory == 2 << 30
        files = await box.snapshot()
        assert [change.path async for change in files.diff()] == [f"/f{number}" for number in range(5)]
        seen: list[tuple[int, int | None]] = []
        await files.export(tmp_path / "files.belljar", progress=lambda done, total: seen.append((done, total)))
        assert [file.name for file in tmp_path.iterdir()] == ["files.belljar"]
        loaded = await belljar.AsyncSnapshot.load(tmp_path / "files.belljar", "again", ttl=60)
        assert (loaded.name, loaded.image, seen[-1][0]) == ("again", "base", 12)
        (tmp_path / "bad").write_bytes(b"garbage")
        with pytest.raises(belljar.SnapshotCorrupt):
            await belljar.AsyncSnapshot.load(tmp_path / "bad")
        assert len([one async for one in belljar.AsyncSnapshot.list()]) == 3
        assert [one.id async for one in belljar.AsyncSnapshot.list(kind="memory", limit=5)] == [snapshot.id]
        for _ in range(2):
            await loaded.delete()
        with pytest.raises(belljar.NotFound, match="deleted"):
            await loaded.create()
        tree = await box.lineage()
        assert (tree.id, [child.name for child in tree.children]) == (box.id, ["t", None])
        assert await snapshot.lineage() == tree
        (whole,) = await belljar.AsyncSnapshot.lineages()
        assert whole == tree


async def test_forks_come_as_a_list_or_not_at_all(client: Front):
    async with await belljar.AsyncSandbox.create(image="base") as box:
        kids = await box.fork(3, name="kid", labels={"a": "b"})
        assert [kid.name for kid in kids] == ["kid-1", "kid-2", "kid-3"]
        assert {kid.last_info.parent for kid in kids} == {box.id}
        for kid in kids:
            await kid.terminate()
        client.node.forked = {"kid-2": NoCapacity("no room")}
        with pytest.raises(ExceptionGroup, match="1 of 3 forks") as caught:
            await box.fork(3, name="kid")
        assert [type(one) for one in caught.value.exceptions] == [belljar.NoCapacity]
        assert [one.id async for one in belljar.AsyncSandbox.list()] == [box.id]
        first, second, third = await box.fork(3, name="kid", return_exceptions=True)
        assert isinstance(second, belljar.NoCapacity)
        assert (first.status, third.status) == ("running", "running")
        client.node.failure = NoCapacity("short of memory")
        with pytest.raises(belljar.NoCapacity):
            await box.fork(2)
        with pytest.raises(belljar.InvalidArgument):
            await box.fork(10_000)


async def test_a_caller_that_is_cancelled_leaves_no_child_and_no_snapshot(client: Front):
    async with await belljar.AsyncSandbox.create(image="base") as box:
        for work in (box.fork(2), box.snapshot(memory=True)):
            client.node.gate = asyncio.Event()
            call = asyncio.create_task(work)
            await asyncio.sleep(0.1)
            call.cancel()
            await asyncio.sleep(0.05)
            client.node.gate.set()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert [one.id async for one in belljar.AsyncSandbox.list()] == [box.id]
            assert client.node.kept == {}


async def test_sandboxes_from_a_snapshot_are_made_at_the_same_time(client: Front):
    async with await belljar.AsyncSandbox.create(image="base") as box:
        snapshot = await box.snapshot(memory=True)
        made = await snapshot.fork(3, name="from")
        assert sorted(one.name or "" for one in made) == ["from-1", "from-2", "from-3"]
        client.node.failure = NoCapacity("no room")
        with pytest.raises(ExceptionGroup, match="1 of 2"):
            await snapshot.fork(2)
        client.node.failure = NoCapacity("no room")
        mixed = await snapshot.fork(2, return_exceptions=True)
        assert sorted(type(one).__name__ for one in mixed) == ["AsyncSandbox", "NoCapacity"]
        assert len([one async for one in belljar.AsyncSandbox.list()]) == 5


async def test_going_back_and_mounts(client: Front):
    async with await belljar.AsyncSandbox.create(image="base") as box:
        before, data = await box.snapshot("before"), await box.snapshot("data", path="/srv")
        await box.rollback(before)
        await box.rollback("before")
        await box.mount(data, "/mnt/one")
        await box.mount("data", "/mnt/two")
        assert await box.mounts() == {"/mnt/one": data.id, "/mnt/two": data.id}
        await box.unmount("/mnt/one")
        assert list(await box.mounts()) == ["/mnt/two"]
        with pytest.raises(belljar.InvalidArgument):
            await box.mount(data, "/")


async def test_a_template_is_made_and_started_from(client: Front, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("belljar.sdk._async.template._LOOK_SECONDS", 0.02)
    steps: list[str] = []
    client.node.inside.hold = asyncio.Event()
    ready = belljar.Ready(port=8000, timeout="2m")
    making = asyncio.create_task(
        belljar.AsyncTemplate.create(
            "web", image="base", command="serve", ready=ready, on_progress=lambda info: steps.append(info.step)
        )
    )
    while "waiting for port 8000" not in steps:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    client.node.inside.hold.set()
    web = await making
    assert (web.name, web.last_info.ready.timeout, (await web.info()).snapshot) == ("web", 120.0, web.snapshot)
    for image in (web, "web"):
        async with await belljar.AsyncSandbox.create(image) as box:
            assert box.last_info.snapshot == web.snapshot
    assert [one.name for one in await belljar.AsyncTemplate.list()] == ["web"]
    with pytest.raises(belljar.AlreadyExists, match="another recipe"):
        await belljar.AsyncTemplate.create("web", image="base", command="other", ready=ready)
    await web.delete()
    with pytest.raises(belljar.NotFound):
        await belljar.AsyncTemplate.get("web")
