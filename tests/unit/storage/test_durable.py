"""That what is acknowledged is on the disk: in which order, and what happens when the disk does not take it."""

import errno
import os
import sys
from pathlib import Path

import pytest

from belljar.model.errors import DiskFull, Error, Internal, NotFound
from belljar.node.snapshot.store import SnapshotStore
from belljar.node.storage.keys import Key, Keys

from .conftest import FILES, draft_of, keep, read_all

KEYS = [pytest.param(Keys(), id="plain"), pytest.param(Keys((Key.of(b"k" * 32),)), id="sealed")]


class Disk:
    """The fsync of this process: what it was asked for, and with which error it answers from the n-th time on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fail_at: int | None = None
        self.error = errno.EIO
        self.count = 0
        self.synced: set[int] = set()
        self._real = os.fsync
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, fd: int) -> None:
        self.count += 1
        if self.count == self.fail_at:
            raise OSError(self.error, os.strerror(self.error))
        self.synced.add(os.fstat(fd).st_ino)
        self._real(fd)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.mark.parametrize("keys", KEYS)
async def test_a_snapshot_gets_its_name_when_all_of_it_is_on_the_disk(
    tmp_path: Path, memory: Path, disk: Disk, keys: Keys
) -> None:
    missing: list[str] = []
    named: list[str] = []

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if (
            event == "os.rename"
            and str(arguments[0]).endswith(".making")
            and str(arguments[0]).startswith(str(tmp_path))
        ):
            source = Path(str(arguments[0]))
            named.append(source.name)
            missing.extend(str(path) for path in (source, *source.rglob("*")) if path.stat().st_ino not in disk.synced)

    sys.addaudithook(watch)
    async with SnapshotStore(tmp_path, memory, keys=keys) as store:
        manifest = await keep(store)
        assert (tmp_path / "snapshots").stat().st_ino in disk.synced
        assert named == [f".{manifest.draft.id}.making"]
        assert missing == []
        await store.cool(0)
        left = [path for path in (tmp_path / "content").rglob("*") if path.stat().st_ino not in disk.synced]
        assert left == [], "chunks, records and their folders are on the disk before the files go"


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
async def test_a_disk_that_does_not_take_it_fails_the_commit_and_leaves_nothing(
    tmp_path: Path, memory: Path, disk: Disk, keys: Keys, error: int
) -> None:
    async with SnapshotStore(tmp_path, memory, keys=keys) as store:
        first = (await keep(store)).draft.id
        used = disk.count
        disk.count, disk.error = 0, error
        await keep(store)
        for step in range(1, disk.count):
            disk.count, disk.fail_at = 0, step
            draft = draft_of()
            with pytest.raises(DiskFull if error == errno.ENOSPC else Internal):
                await keep(store, draft=draft)
            disk.fail_at = None
            with pytest.raises(NotFound):
                store.get(draft.id)
            assert not [path for path in (tmp_path / "snapshots").iterdir() if draft.id in path.name]
        assert used
        assert await read_all(store, first) == FILES
    assert list(memory.iterdir()) == []


async def test_a_disk_that_does_not_take_chunks_leaves_the_snapshot_hot(tmp_path: Path, disk: Disk) -> None:
    async with SnapshotStore(tmp_path, tmp_path / "run") as store:
        await keep(store)
        disk.count = 0
        await store.cool(0)
        steps = disk.count
        ids = [(await keep(store, {"pages.img": os.urandom(1000)})).draft.id for _ in range(steps - 1)]
        disk.error = errno.ENOSPC
        failed = 0
        for step in range(1, steps):
            disk.count, disk.fail_at = 0, step
            try:
                await store.cool(0)
            except Error as error:
                assert isinstance(error, DiskFull), error
                failed += 1
            disk.fail_at = None
        assert failed > 2
        for id in ids:
            assert len((await read_all(store, id))["pages.img"]) == 1000
    async with SnapshotStore(tmp_path, tmp_path / "run") as store:
        await store.collect()
        for id in ids:
            assert len((await read_all(store, id))["pages.img"]) == 1000
