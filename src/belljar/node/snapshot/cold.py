"""Snapshots between hot and cold: their files into chunks of the content store, and back."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from belljar.base.tasks import in_thread, to_the_end
from belljar.model.errors import NotFound, SnapshotCorrupt
from belljar.node.snapshot.manifest import Manifest
from belljar.node.snapshot.recipe import Recipe, read_recipe, recipe_bytes
from belljar.node.snapshot.sealing import open_sealed
from belljar.node.storage.chunks import ChunkRef, Readable
from belljar.node.storage.content import ContentStore
from belljar.node.storage.durable import digest_files, opened_file
from belljar.node.storage.keys import Keys
from belljar.node.storage.references import Hold

__all__ = ("pack", "recall", "record_of", "unpack")


async def pack(
    content: ContentStore, manifest: Manifest, folder: Path, keys: Keys, key: str | None, hold: Hold
) -> Recipe:
    """The files into chunks, which are durable when this returns and held. The key that they are sealed with seals the chunks."""
    files: dict[str, tuple[ChunkRef, ...]] = {}
    for name, entry in manifest.files.items():
        async with _opened(folder / name, keys if key else None, manifest.draft.id) as file:
            files[name] = await content.put(file, keys.find(key), hold)
        if sum(ref.size for ref in files[name]) != entry.size:
            raise SnapshotCorrupt(f"its file {name} was changed while it was read")
    return Recipe(manifest.draft.id, key, files)


async def unpack(content: ContentStore, manifest: Manifest, recipe: Recipe, keys: Keys, target: Path) -> None:
    """Writes the plain files into the empty folder `target`, on the disk and right when this returns.

    Raises SnapshotCorrupt, DiskFull, Internal, OSError.
    """
    if recipe.files.keys() != manifest.files.keys():
        raise SnapshotCorrupt("its list of chunks is of other files")
    key = keys.find(recipe.key)
    for name, entry in manifest.files.items():
        if sum(ref.size for ref in recipe.files[name]) != entry.size:
            raise SnapshotCorrupt(f"the chunks of its file {name} have another size")
        await content.get(recipe.files[name], key, target / name)
    found = await in_thread(digest_files, [target / name for name in manifest.files], sync=False)
    for name, entry in manifest.files.items():
        if found[name] != (entry.size, entry.digest):
            raise SnapshotCorrupt(f"its file {name} was changed: the digest differs")


def record_of(manifest: bytes, recipe: Recipe) -> bytes:
    """What lies in the store beside the chunks, so that they are enough: the manifest as it is on the disk, and the recipe."""
    return len(manifest).to_bytes(4) + manifest + recipe_bytes(recipe)


async def recall(content: ContentStore, id: str) -> tuple[bytes, Recipe] | None:
    """What `record_of` made; None when it is gone. Raises SnapshotCorrupt."""
    try:
        data = await content.record(id)
    except NotFound:
        return None
    size = int.from_bytes(data[:4])
    return data[4 : 4 + size], await in_thread(read_recipe, data[4 + size :], id)


@asynccontextmanager
async def _opened(path: Path, keys: Keys | None, id: str) -> AsyncGenerator[Readable]:
    async with opened_file(path, "rb") as file:
        yield file if keys is None else await to_the_end(in_thread(open_sealed, file, path.name, keys, id))
