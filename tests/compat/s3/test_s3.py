"""The content store on the S3 protocol, spoken by moto's server, through a wire that can be cut."""

import asyncio
import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest
from tests.compat.environments import Say, environment_of
from tests.unit.storage.conftest import keep, read_all

from belljar.model.errors import Conflict, Internal
from belljar.node.snapshot.store import SnapshotStore
from belljar.node.storage.keys import Key, Keys

MARK = b"the treasure lies below the old oak. "
FILES = {"pages.img": MARK * 1000 + os.urandom(3_000_000) + bytes(2_000_000), "checkpoint.img": b"c" * 5000}
URL = "s3://belljar-tests/some/prefix"


@pytest.fixture(scope="module")
def server(say: Say) -> Iterator[int]:
    """The port of a server with a bucket."""
    environment = environment_of(Path(__file__).with_name("requirements.txt"), say)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryFile() as log:
        words = [environment.python, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(words, env=environment.environ(), stdout=log, stderr=log)
        try:
            for _ in range(300):
                with contextlib.suppress(httpx2.HTTPError):
                    httpx2.put(f"http://127.0.0.1:{port}/belljar-tests").raise_for_status()
                    break
                time.sleep(0.1)
            else:
                log.seek(0)
                pytest.fail(f"the server does not answer: {log.read()[-2000:]!r}")
            yield port
        finally:
            process.terminate()
            process.wait(30)


class Wire:
    """Carries bytes to the server. `left`: how many more before it breaks, None without end; broken, it takes nobody any more."""

    def __init__(self, server: int) -> None:
        self._server = server
        self.left: int | None = None
        self.carried = 0
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["Wire"]:
        listener = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = listener.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            listener.close()
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.sleep(0.01)  # what was aborted is closed in the loop's next turn

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            if self.left == 0:
                return
            there, back = await asyncio.open_connection("127.0.0.1", self._server)
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._carry(reader, back))
                    both.create_task(self._carry(there, writer))
            except* OSError:
                pass
            finally:
                back.transport.abort()
        finally:
            writer.transport.abort()

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(1 << 14):
            self.carried += len(data)
            if self.left is not None:
                self.left = max(0, self.left - len(data))
                if not self.left:
                    raise ConnectionResetError
            target.write(data)
            await target.drain()
        target.write_eof()


@pytest.fixture
async def wire(server: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Wire]:
    async with Wire(server).open() as wire:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{wire.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": "a secret",
            "AWS_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        yield wire


@pytest.fixture
async def store(tmp_path: Path, wire: Wire) -> AsyncIterator[SnapshotStore]:
    async with SnapshotStore(tmp_path, tmp_path / "run", url=URL) as store:
        yield store
        wire.left = None
        await store.purge()


def objects(server: int) -> dict[str, bytes]:
    listing = httpx2.get(f"http://127.0.0.1:{server}/belljar-tests?list-type=2").text
    names = [part.partition("</Key>")[0] for part in listing.split("<Key>")[1:]]
    return {name: httpx2.get(f"http://127.0.0.1:{server}/belljar-tests/{name}").content for name in names}


async def test_cold_snapshots_live_in_the_bucket_and_come_back(
    store: SnapshotStore, server: int, tmp_path: Path
) -> None:
    first = (await keep(store, FILES)).draft.id
    second = (await keep(store, FILES)).draft.id
    await store.cool(0)
    there = objects(server)
    assert {name for name in there if not name.startswith("some/prefix/chunks/")} == {
        "some/prefix/owner",
        f"some/prefix/snapshots/{first}",
        f"some/prefix/snapshots/{second}",
    }
    assert sum(map(len, there.values())) < 1.1 * sum(map(len, FILES.values())), "what both have is there once"
    assert not (tmp_path / "snapshots" / first / "files").exists()
    assert not (tmp_path / "content/chunks").exists()
    await store.delete(first)
    assert (await store.collect()).removed == 0
    async with SnapshotStore(tmp_path, tmp_path / "run", url=URL) as successor:
        assert await read_all(successor, second) == FILES
    await store.delete(second)
    assert (await store.collect()).removed > 5
    assert objects(server).keys() == {"some/prefix/owner"}


async def test_with_a_key_the_bucket_has_nothing_plain(tmp_path: Path, wire: Wire, server: int) -> None:
    keys = Keys((Key.of(b"k" * 32),))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        async with SnapshotStore(tmp_path, Path(memory), url=URL, keys=keys) as store:
            id = (await keep(store, FILES)).draft.id
            await store.cool(0)
            there = objects(server)
            assert len(there) > 5
            assert not [name for name, data in there.items() if MARK[:16] in data or b"swordfish" in data]
            assert await read_all(store, id) == FILES
            await store.purge()


async def test_a_bucket_belongs_to_one_state_directory(store: SnapshotStore, tmp_path: Path) -> None:
    await keep(store, FILES)
    await store.cool(0)
    async with SnapshotStore(tmp_path / "other", tmp_path / "run", url=URL) as other:
        with pytest.raises(Conflict, match="another state directory"):
            await other.collect()


async def test_a_wire_that_breaks_half_way_costs_nothing_but_time(
    store: SnapshotStore, wire: Wire, server: int, tmp_path: Path
) -> None:
    id = (await keep(store, FILES)).draft.id
    await store.collect()
    for carried in (0, 200_000, 1_000_000, 3_000_000):
        wire.left = carried
        with pytest.raises(Internal, match="the store"):
            await store.cool(0)
        assert store.is_hot(id)
        assert await read_all(store, id) == FILES
    wire.left = None
    assert await store.cool(0) == (id,)
    for carried in (0, 300_000, 2_000_000):
        wire.left = carried
        with pytest.raises(Internal, match="the store"):
            await read_all(store, id)
        assert sorted(path.name for path in (tmp_path / "snapshots" / id).iterdir()) == [
            "cooling",
            "manifest.json",
            "recipe",
        ]
    async with SnapshotStore(tmp_path, tmp_path / "run", url=URL) as successor:
        assert [manifest.draft.id for manifest in successor.list()] == [id], "a server starts without its object store"
    wire.left = None
    assert await read_all(store, id) == FILES


async def test_a_snapshot_can_be_deleted_while_the_store_is_away(
    store: SnapshotStore, wire: Wire, server: int, tmp_path: Path
) -> None:
    id = (await keep(store, FILES)).draft.id
    await store.cool(0)
    wire.left = 0
    await store.delete(id)
    assert store.list() == []
    with pytest.raises(Internal):
        await store.collect()
    async with SnapshotStore(tmp_path, tmp_path / "run", url=URL) as successor:
        assert successor.list() == []
        wire.left = None
        assert await successor.recover() == ()
        assert (await successor.collect()).removed > 5
    assert objects(server).keys() == {"some/prefix/owner"}
