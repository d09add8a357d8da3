"""How fast snapshots are kept, opened, cooled, thawed, carried and collected, beside a plain copy with fsync on the same disk.

`python bench/storage.py [MIB] [FOLDER]`: of a memory file of so many MiB (default 256), half of it text, a quarter random, a
quarter zero. Every rate is in MB/s of plain content; the best of three.
"""

import asyncio
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

from belljar.base.ids import new_id
from belljar.model.sandbox import SandboxSpec
from belljar.model.snapshot import SnapshotKind
from belljar.node.snapshot.manifest import Draft
from belljar.node.snapshot.store import SnapshotStore
from belljar.node.storage.keys import Key, Keys

__all__ = ("main",)

ROUNDS = 3


def main(mebibytes: int, folder: Path | None) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as home, tempfile.TemporaryDirectory(dir="/dev/shm") as run:
        source = Path(home) / "pages.img"
        source.write_bytes(content(mebibytes << 20))
        print(f"{mebibytes} MiB a snapshot, MB/s (as a part of the plain copy with fsync)\n")
        copied = max(timed_copy(source, Path(home) / "copy") for _ in range(ROUNDS))
        print(f"| | plain | with a key |\n|---|---|---|\n| cp + fsync | {copied:.0f} | |")
        columns = [asyncio.run(measured(source, Path(home) / name, Path(run), keys)) for name, keys in KEYS.items()]
        for row in columns[0]:
            print(f"| {row} | " + " | ".join(cell(column.get(row), copied) for column in columns) + " |")


KEYS = {"plain": Keys(), "sealed": Keys((Key.of(os.urandom(32)),))}


def cell(rate: float | None, copied: float) -> str:
    return "" if rate is None else f"{rate:.0f} ({rate / copied:.2f})"


def content(size: int) -> bytes:
    words = [random.randbytes(random.randrange(2, 12)) for _ in range(4000)]
    text = bytearray()
    while len(text) < size // 2:
        text += b" ".join(random.choices(words, k=10_000))
    return (bytes(text) + random.randbytes(size // 4)).ljust(size, b"\0")[:size]


def timed_copy(source: Path, target: Path) -> float:
    started = time.perf_counter()
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    took = time.perf_counter() - started
    target.unlink()
    return source.stat().st_size / 1e6 / took


async def measured(source: Path, home: Path, run: Path, keys: Keys) -> dict[str, float]:
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for row, rate in (await one_round(source, home, run, keys)).items():
            best[row] = max(rate, best.get(row, 0.0))
    return best


async def one_round(source: Path, home: Path, run: Path, keys: Keys) -> dict[str, float]:
    size, rates = source.stat().st_size / 1e6, dict[str, float]()
    id, copy = new_id("sn"), new_id("sn")
    pieces: list[bytes] = []

    async def rate(row: str, work: Awaitable[object]) -> None:
        started = time.perf_counter()
        await work
        rates[row] = size / (time.perf_counter() - started)

    async def export(store: SnapshotStore) -> None:
        pieces.extend([piece async for piece in store.export(id)])

    async def sent() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async with SnapshotStore(home, run, keys=keys) as store:
        shutil.copyfile(source, await store.begin(id) / "pages.img")
        await rate("commit (what is written already)", store.commit(draft_of(id)))
        await rate("open, hot, again", opened(store, id))
        await rate("export", export(store))
        await rate("import", store.import_(copy, sent()))
        await store.delete(copy)
    async with SnapshotStore(home, run, keys=keys) as store:
        await rate("open, hot, for the first time", opened(store, id))
        await rate("cool", store.cool(0))
        await rate("thaw", opened(store, id))
        shutil.copyfile(source, await store.begin(copy) / "pages.img")
        await store.commit(draft_of(copy))
        await rate("cool what is there already", store.cool(0))
        await store.delete(id)
        await rate("collect, nothing to remove", store.collect())
        await store.delete(copy)
        await rate("collect, all to remove", store.collect())
    return rates


async def opened(store: SnapshotStore, id: str) -> None:
    async with store.opened(id):
        pass


def draft_of(id: str) -> Draft:
    return Draft(
        id=id,
        kind=SnapshotKind.MEMORY,
        created=time.time(),
        sandbox=new_id("sb"),
        spec=SandboxSpec(),
        image_key="image",
        engine="gvisor",
        build="build",
        runtime="runtime",
        platform="systrap/x86_64",
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 256, Path(sys.argv[2]) if len(sys.argv) > 2 else None)
