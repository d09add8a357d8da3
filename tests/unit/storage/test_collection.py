"""A collection beside everything else, in every order: hypothesis decides which request to the store is answered next."""

import asyncio
import contextlib
import io
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.strategies import integers, lists, sampled_from

from belljar.base.tasks import wait_until
from belljar.model.errors import AlreadyExists, Internal, NotFound
from belljar.node.storage.blobs import open_blobs
from belljar.node.storage.chunks import ChunkRef
from belljar.node.storage.content import ContentStore

T = TypeVar("T")
CONTENTS = [b"a", b"b"]


class Parked:
    """A store in memory. Each request waits until it is let go, and takes effect at that moment, or fails. What was asked for
    happens, also when whoever asked has left.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.waiting: list[asyncio.Future[bool]] = []

    async def _turn(self, work: Callable[[], T]) -> T:
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)

        async def later() -> T:
            if not await turn:
                raise Internal("the store does not answer")
            return work()

        asked = asyncio.ensure_future(later())
        asked.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(asked)

    async def put(self, name: str, data: bytes, *, new: bool = False) -> None:
        def work() -> None:
            if new and name in self.objects:
                raise AlreadyExists(name)
            self.objects[name] = data

        await self._turn(work)

    async def sync(self, names: Sequence[str]) -> None:
        assert all(name in self.objects for name in names)

    async def get(self, name: str, most: int) -> bytes:
        def work() -> bytes:
            if name not in self.objects:
                raise NotFound(name)
            return self.objects[name]

        return await self._turn(work)

    async def list(self, prefix: str) -> AsyncGenerator[list[tuple[str, int]]]:
        def work() -> list[tuple[str, int]]:
            return [(name, len(data)) for name, data in self.objects.items() if name.startswith(prefix)]

        yield await self._turn(work)

    async def delete(self, names: Collection[str]) -> None:
        for name in sorted(names):
            await self._turn(lambda name=name: self.objects.pop(name, None))

    async def sweep(self) -> None: ...


class AtOnce(ThreadPoolExecutor):
    """Does what threads would do at once, so that nothing depends on their pace."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 # it is the caller's
            done.set_exception(error)
        return done


class Collecting(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(AtOnce())
        self.blobs = Parked()
        self.content = ContentStore(self.blobs, "owner")  # pyright: ignore[reportArgumentType] # the same calls
        self.tasks: list[asyncio.Task[None]] = []
        self.kept: list[tuple[ChunkRef, ...]] = []

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self.tasks.append(task)
        task.add_done_callback(self.tasks.remove)
        self.settle()

    def settle(self) -> None:
        """Until everybody waits for the store, or is done."""

        async def turns() -> None:
            for _ in range(60):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())

    async def keep(self, contents: Sequence[bytes]) -> None:
        async with self.content.references.holding() as hold:
            try:
                refs = [ref for one in contents for ref in await self.content.put(io.BytesIO(one), None, hold)]
                await self.content.put_record("sn", b"")
            except Internal:
                return
            await self.content.references.add({ref.name for ref in refs})
            self.kept.append(tuple(refs))

    async def gather(self) -> None:
        with contextlib.suppress(Internal):
            await self.content.collect()

    @rule(contents=lists(sampled_from(CONTENTS), min_size=1, max_size=2))
    def keep_one(self, contents: list[bytes]) -> None:
        if len(self.tasks) < 4:
            self.start(self.keep(contents))

    @rule()
    def collect(self) -> None:
        if len(self.tasks) < 4:
            self.start(self.gather())

    @precondition(lambda self: self.kept)
    @rule(which=integers(0, 100))
    def delete(self, which: int) -> None:
        self.forget(which % len(self.kept))

    def forget(self, which: int) -> None:
        names = {ref.name for ref in self.kept.pop(which)}
        self.loop.run_until_complete(self.content.references.discard(names))

    @precondition(lambda self: self.blobs.waiting)
    @rule(which=integers(0, 100))
    def answer(self, which: int) -> None:
        self.let_go(which, True)

    @precondition(lambda self: self.blobs.waiting)
    @rule(which=integers(0, 100))
    def fail(self, which: int) -> None:
        self.let_go(which, False)

    @precondition(lambda self: self.tasks)
    @rule(which=integers(0, 100))
    def cancel(self, which: int) -> None:
        self.tasks[which % len(self.tasks)].cancel()
        self.settle()

    @precondition(lambda self: self.blobs.waiting)
    @rule(count=integers(1, 6))
    def answer_in_order(self, count: int) -> None:
        for _ in range(count):
            if self.blobs.waiting:
                self.let_go(0, True)

    @rule(contents=sampled_from(CONTENTS))
    def keep_and_delete_one(self, contents: bytes) -> None:
        """Often there is something to collect."""
        before = len(self.kept)
        self.start(self.keep([contents]))
        self.answer_all()
        if len(self.kept) > before:
            self.forget(-1)

    def answer_all(self) -> None:
        while self.blobs.waiting:
            self.let_go(0, True)

    def let_go(self, which: int, answer: bool) -> None:
        turn = self.blobs.waiting.pop(which % len(self.blobs.waiting))
        if not turn.done():
            turn.set_result(answer)
        self.settle()

    @invariant()
    def every_chunk_of_what_is_kept_is_there(self) -> None:
        for refs in self.kept:
            for ref in refs:
                assert f"chunks/{ref.name.hex()[:2]}/{ref.name.hex()}" in self.blobs.objects

    def teardown(self) -> None:
        self.answer_all()
        assert not self.tasks
        self.kept.clear()
        self.content.references.__init__()
        self.start(self.gather())
        self.answer_all()
        assert [name for name in self.blobs.objects if name.startswith("chunks")] == [], "what nobody needs is gone"
        self.loop.close()


TestCollection = Collecting.TestCase
TestCollection.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)


async def test_a_collection_that_is_ended_waits_for_what_it_is_removing() -> None:
    blobs = Parked()
    content = ContentStore(blobs, "owner")  # pyright: ignore[reportArgumentType] # the same calls

    async def asked() -> None:
        async def someone_waits() -> bool:
            return bool(blobs.waiting)

        assert await wait_until(someone_waits, timeout=10, every=0.001)

    async def let_go(requests: int) -> None:
        for _ in range(requests):
            await asked()
            blobs.waiting.pop(0).set_result(True)

    async def keep() -> tuple[ChunkRef, ...]:
        async with content.references.holding() as hold:
            return await content.put(io.BytesIO(b"a"), None, hold)

    kept = asyncio.create_task(keep())
    await let_go(4)  # the owner, three times, and the chunk
    await kept
    collection = asyncio.create_task(content.collect())
    await let_go(1)  # the list
    await asked()
    collection.cancel()
    again = asyncio.create_task(keep())
    await asyncio.sleep(0.02)
    assert len(blobs.waiting) == 1, "the removal comes before the chunk is put again"
    await let_go(2)
    await again
    assert any(name.startswith("chunks") for name in blobs.objects)
    assert (await asyncio.gather(collection, return_exceptions=True))[0].__class__ is asyncio.CancelledError


async def test_a_removal_that_fails_leaves_no_other_on_its_way(tmp_path: Path) -> None:
    blobs = open_blobs(None, tmp_path)
    names = [f"chunks/00/{number}" for number in range(20)]
    for name in names:
        await blobs.put(name, b"x")
    (tmp_path / "chunks/00/0").unlink()
    (tmp_path / "chunks/00/0").mkdir()  # what cannot be removed
    (tmp_path / "chunks/00/0/in the way").touch()
    with pytest.raises(Internal):
        await blobs.delete(names)
    assert [path.name for path in (tmp_path / "chunks/00").iterdir()] == ["0"]
