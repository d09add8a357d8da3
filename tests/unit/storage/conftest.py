"""Snapshots to keep."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from belljar.base.ids import new_id
from belljar.model.sandbox import SandboxSpec
from belljar.model.snapshot import SnapshotKind
from belljar.node.snapshot.manifest import Draft, Manifest
from belljar.node.snapshot.store import SnapshotStore

__all__ = ("FILES", "draft_of", "keep", "memory", "read_all")

FILES = {"checkpoint.img": b"c" * 5000, "pages_meta.img": b"", "pages.img": os.urandom(300_000) + bytes(700_000)}


def draft_of(id: str | None = None, *, template: bool = False, build: str = "b" * 32) -> Draft:
    spec = SandboxSpec(image="base", env={"TOKEN": "swordfish"})
    return Draft(
        id=id or new_id("sn"), kind=SnapshotKind.MEMORY, created=1e9, sandbox=new_id("sb"), spec=spec, image_key="1" * 32,
        engine="gvisor", build=build, runtime="2" * 32, platform="systrap/x86_64", cpu=("avx",), template=template,
    )  # fmt: skip


async def keep(store: SnapshotStore, files: Mapping[str, bytes] = FILES, draft: Draft | None = None) -> Manifest:
    draft = draft or draft_of()
    folder = await store.begin(draft.id)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return await store.commit(draft)


async def read_all(store: SnapshotStore, id: str) -> dict[str, bytes]:
    async with store.opened(id) as (_, folder):
        return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder on tmpfs, where encrypted snapshots may be plain also without root."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)
