"""A snapshot store on a disk that is full, or becomes full half way: ``full.py FOLDER``, in a mount namespace of its own."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from tests.unit.storage.conftest import draft_of, keep, read_all

from belljar.base.ids import new_id
from belljar.model.errors import DiskFull
from belljar.node.snapshot.store import SnapshotStore
from belljar.node.storage.keys import Key, Keys

__all__ = ()

SIZE = 24 << 20
FILES = {"pages.img": os.urandom(4 << 20), "checkpoint.img": b"c" * 5000}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill(home: Path, free: int) -> Path:
    """Ballast that leaves so many bytes."""
    ballast = home / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(ballast, max(0, ballast.stat().st_size - free))
    return ballast


async def expect_full(what: str, work: object) -> None:
    try:
        await work  # type: ignore[misc]
    except DiskFull:
        return
    except OSError as error:
        # Whoever writes the files hears it from the disk itself.
        if what == "keep" and error.errno == 28:
            return
        raise
    raise AssertionError(f"{what}: there was room")


async def try_all(home: Path, run: Path, keys: Keys) -> int:
    failed = 0
    async with SnapshotStore(home, run, keys=keys) as store:
        id = (await keep(store, FILES)).draft.id
        pieces = [piece async for piece in store.export(id)]

        async def sent() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        async def keep_more() -> None:
            draft = draft_of()
            try:
                await keep(store, FILES, draft)
            except BaseException:
                await store.abandon(draft.id)
                raise

        for free in (0, 4096, 16384, 100_000, 1 << 20, 3 << 20):
            ballast = fill(home, free)
            await expect_full("keep", keep_more())
            await expect_full("import", store.import_(new_id("sn"), sent()))
            await expect_full("cool", store.cool(0))
            await store.collect()
            ballast.unlink()
            assert names(home / "snapshots") == [id]
            assert store.is_hot(id)
            assert await read_all(store, id) == FILES
            failed += 3
        assert await store.cool(0) == (id,)
        if keys.current is None:
            for free in (0, 4096, 100_000, 3 << 20):
                ballast = fill(home, free)
                await expect_full("thaw", read_all(store, id))
                ballast.unlink()
                assert names(home / "snapshots" / id) == ["cooling", "manifest.json", "recipe"]
                failed += 1
        ballast = fill(home, 0)
        other = home / "other"
        ballast.rename(other)
        await store.delete(id)
        assert (await store.collect()).freed > 3 << 20, "deleting needs no room"
        other.unlink()
    return failed


def main(folder: Path) -> None:
    total = 0
    for keys in (Keys(), Keys((Key.of(b"k" * 32),))):
        home = folder / f"home{len(keys.all)}"
        home.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", home], check=True)
        total += asyncio.run(try_all(home, folder / "run", keys))
        subprocess.run(["umount", home], check=True)
    print(total)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
