"""The hot side of a store: files on the disk, encrypted when a key is set, and plain in memory while somebody reads them.

All methods block. They raise OSError, and SnapshotCorrupt without saying of which snapshot.
"""

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from belljar.base.files import write_atomic
from belljar.base.log import get_logger
from belljar.model.errors import Error, SnapshotCorrupt
from belljar.node.snapshot.envelope import check_manifest, key_of, manifest_bytes, read_manifest
from belljar.node.snapshot.kept import Kept, Seen, looks, verify
from belljar.node.snapshot.manifest import Draft, FileEntry, Manifest
from belljar.node.snapshot.plain import PlainRoom
from belljar.node.snapshot.recipe import MAX_RECIPE, Recipe, read_recipe, recipe_bytes
from belljar.node.snapshot.sealing import seal_file, unseal_file
from belljar.node.snapshot.shelf import COOLING, FILES, RECIPE, Shelf, check_file_name, read_bounded
from belljar.node.storage.durable import digest_files, sync_folder
from belljar.node.storage.keys import Keys

__all__ = ("Disk", "Found")

_log = get_logger("node.snapshot")
_OWNER = "snapshots.owner"


@dataclass(slots=True)
class Found:
    """What a new server finds. `broken`: id → why its manifest cannot be read. `blocked`: id → why nobody knows which chunks it
    needs. `leaving`: those that the content store may still know.
    """

    kept: dict[str, Kept] = field(default_factory=dict[str, Kept])
    recipes: list[Recipe] = field(default_factory=list[Recipe])
    broken: dict[str, str] = field(default_factory=dict[str, str])
    blocked: dict[str, str] = field(default_factory=dict[str, str])
    leaving: set[str] = field(default_factory=set[str])


class Disk:
    def __init__(self, shelf: Shelf, room: PlainRoom, keys: Keys) -> None:
        self.shelf = shelf
        self.keys = keys
        self._room = room

    def prepare(self) -> str:
        """Makes what is missing. Returns the owner's token, which tells this state directory from others in an object store."""
        self.shelf.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.keys.all:
            self._room.open()
        else:
            self._room.close()
        file = self.shelf.root.with_name(_OWNER)
        for left in file.parent.glob(f".{_OWNER}.*.tmp"):
            left.unlink()
        if not file.exists():
            write_atomic(file, secrets.token_hex(16).encode())
        return file.read_text(encoding="ascii")

    def close(self) -> None:
        self._room.close()

    def load(self) -> Found:
        """Sweeps what a killed server left, and reads the rest."""
        found = Found()
        for id in self.shelf.sweep():
            if self.shelf.may_be_cold(self.shelf.gone(id)):
                found.leaving.add(id)
            else:
                self.shelf.clear(id)
        for id in self.shelf.ids():
            try:
                recipe = self.recipe(id)
            except (OSError, SnapshotCorrupt) as error:
                found.blocked[id] = _said(error)
                recipe = None
            if recipe is not None:
                found.recipes.append(recipe)
            try:
                found.kept[id] = self.kept(id, recipe, known=id in found.blocked)
            except (OSError, Error) as error:
                found.broken[id] = _said(error)
                _log.error("a snapshot cannot be read", snapshot=id, reason=found.broken[id])
        return found

    def kept(self, id: str, recipe: Recipe | None, *, known: bool = False) -> Kept:
        """`known`: the content store has it, though its recipe here is damaged."""
        data = self.shelf.manifest(id)
        manifest = read_manifest(data, id, self.keys)
        is_hot = self.shelf.is_hot(id)
        if not is_hot and recipe is None and not known:
            raise SnapshotCorrupt("its files are gone")
        cold = recipe.stored if recipe else None if is_hot else 0
        return Kept(manifest, key_of(data), self.size(id), self.shelf.used(id), cold=cold, is_hot=is_hot)

    def recipe(self, id: str) -> Recipe | None:
        """None for one that was never cold. Raises SnapshotCorrupt."""
        return self._recipe(self.shelf.place(id), id)

    def recipe_of_gone(self, id: str) -> Recipe | None:
        return self._recipe(self.shelf.gone(id), id)

    def write_recipe(self, recipe: Recipe) -> None:
        write_atomic(self.shelf.recipe(recipe.id), recipe_bytes(recipe))

    def size(self, id: str) -> int:
        place, total = self.shelf.place(id), 0
        for folder in (place, place / FILES):
            if folder.is_dir():
                total += sum(
                    entry.stat().st_size for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False)
                )
        return total

    # One that is made.

    def make(self, id: str) -> Path:
        files = self.shelf.make(id)
        return files if self.keys.current is None else self._room.make(f"{id}.making")

    def unmake(self, id: str) -> None:
        self.shelf.drop(id)
        self._room.drop(f"{id}.making")

    def seal(self, draft: Draft, expected: dict[str, FileEntry] | None) -> Kept:
        """Makes what was written the snapshot, durable when this returns. `expected`: what the files must be."""
        key = self.keys.current
        files = self.shelf.making(draft.id) / FILES
        written = files if key is None else self._room.folder / f"{draft.id}.making"
        paths = sorted(written.iterdir())
        for path in paths:
            check_file_name(path.name)
        looks(paths)  # for regular files
        if key is None:
            for path in paths:
                path.chmod(0o600)
            entries = {name: FileEntry(*found) for name, found in digest_files(paths, sync=True).items()}
        else:
            entries = {path.name: seal_file(path, files / path.name, key, draft.id) for path in paths}
        if expected is not None and entries != expected:
            raise SnapshotCorrupt("its files are not what its manifest says")
        manifest = check_manifest(Manifest(draft, entries))
        seen = looks(paths if key is None else ())
        data = manifest_bytes(manifest, key)
        self.shelf.put(draft.id, data)
        self._room.drop(f"{draft.id}.making")
        return Kept(manifest, key_of(data), self.size(draft.id), self.shelf.used(draft.id), seen=seen)

    # One that is read.

    def verified(self, kept: Kept) -> Seen:
        """That the files, which are not encrypted, are what was written."""
        return verify(self.shelf.files(kept.id), kept.manifest.files, kept.seen)

    def unsealed(self, kept: Kept) -> Path:
        """The plain files, in memory."""
        target = self._room.make(kept.id)
        for name, entry in kept.manifest.files.items():
            try:
                unseal_file(self.shelf.files(kept.id) / name, target / name, entry, self.keys, kept.id)
            except FileNotFoundError as error:
                raise SnapshotCorrupt(f"its file {name} is gone") from error
            except SnapshotCorrupt as error:
                raise SnapshotCorrupt(f"its file {name}: {error.message}", hint=error.hint) from error
        return target

    def plain(self, id: str) -> Path:
        return self._room.folder / id

    def make_plain(self, id: str) -> Path:
        return self._room.make(id)

    def drop_plain(self, id: str) -> None:
        self._room.drop(id)

    def thawed(self, id: str) -> Seen:
        """What was written to the folder of `shelf.begin_thaw` are its files now."""
        files = self.shelf.thaw(id)
        sync_folder(files.parent)
        return looks(files.iterdir())

    def cool(self, id: str) -> None:
        self.shelf.cool(id)

    # One that goes.

    def take_away(self, id: str) -> bool:
        """Nobody finds it any more. Whether the content store may know it."""
        self.shelf.take_away(id)
        return self.shelf.may_be_cold(self.shelf.gone(id))

    def recover(self, id: str, manifest: bytes, recipe: Recipe) -> Kept:
        """One that only the content store knows is here again, cold."""
        self.shelf.drop(id)
        self.shelf.make(id).rmdir()
        making = self.shelf.making(id)
        write_atomic(making / RECIPE, recipe_bytes(recipe))
        (making / COOLING).touch(0o600)
        self.shelf.put(id, manifest)
        return self.kept(id, recipe)

    def _recipe(self, place: Path, id: str) -> Recipe | None:
        try:
            data = read_bounded(place / RECIPE, MAX_RECIPE)
        except FileNotFoundError:
            return None
        return read_recipe(data, id)


def _said(error: OSError | Error) -> str:
    return error.message if isinstance(error, Error) else f"its files cannot be read: {error.strerror}"
