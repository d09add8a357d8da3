"""That a store holds nobody up."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

from blockbuster import blockbuster_ctx

from belljar.base.ids import new_id
from belljar.node.snapshot.store import SnapshotStore

from .conftest import draft_of

BIG = {"pages.img": os.urandom(48 << 20) + bytes(16 << 20), "checkpoint.img": os.urandom(5000)}
LONGEST = 0.05


class Ticker:
    """The longest time for which the event loop did not come round."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def run(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            self.longest = max(self.longest, time.perf_counter() - before)


async def test_no_call_holds_the_event_loop_up(tmp_path: Path) -> None:
    ticker = Ticker()
    ticking = asyncio.create_task(ticker.run())
    with blockbuster_ctx(["belljar.node.snapshot", "belljar.node.storage"]):
        async with SnapshotStore(tmp_path, tmp_path / "run") as store:
            id = new_id("sn")
            folder = await store.begin(id)
            await asyncio.to_thread(lambda: [(folder / name).write_bytes(data) for name, data in BIG.items()])
            await store.commit(draft_of(id))
            await store.cool(0)
            async with store.opened(id):
                pass
            pieces = [piece async for piece in store.export(id)]

            async def again() -> AsyncIterator[bytes]:
                for piece in pieces:
                    yield piece

            other = (await store.import_(new_id("sn"), again())).draft.id
            await store.cool(0)
            await store.delete(id)
            await store.delete(other)
            await store.collect()
    ticking.cancel()
    # Twice, because others use this machine's cores, too.
    assert ticker.longest < 2 * LONGEST, f"{ticker.longest * 1e3:.0f} ms"
