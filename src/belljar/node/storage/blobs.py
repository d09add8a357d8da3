"""One door for a local directory and for object stores: small immutable objects by name."""

import asyncio
import contextlib
import errno
import os
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, LocalStore, S3Store

from belljar.base.tasks import in_thread
from belljar.model.errors import AlreadyExists, DiskFull, Internal, InvalidArgument, NotFound, SnapshotCorrupt
from belljar.node.storage.durable import all_of, is_full, sync_file, sync_folder

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ClientConfig, RetryConfig

__all__ = ("Blobs", "open_blobs")

_Store: TypeAlias = AzureStore | GCSStore | LocalStore | S3Store
_SCHEMES = ("s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss", "https", "http")
_CLIENT: "ClientConfig" = {
    "connect_timeout": timedelta(seconds=5),
    "timeout": timedelta(seconds=60),
    "allow_http": True,  # an endpoint is https unless its owner wrote http
}
_RETRY: "RetryConfig" = {"max_retries": 3, "retry_timeout": timedelta(seconds=60)}
_FULL = f"os error {errno.ENOSPC}"
"""The store tells of the file system's errors in words only."""
_LIST = 1000
_AT_ONCE = 16
_SYNCS = 8
"""At once: the disk's journal takes them together."""
_UNFINISHED = re.compile(r".+#\d+")
_UNFINISHED_AGE = 3600.0


class Blobs:
    """Names are relative, such as ``chunks/ab/abcd…``. What `put` and `sync` acknowledged is durable.

    Raises NotFound, DiskFull, and Internal for a store that does not answer or refuses.
    """

    def __init__(self, store: _Store, folder: Path | None) -> None:
        self._store = store
        self._folder = folder
        self._deletes = asyncio.Semaphore(_AT_ONCE)

    async def put(self, name: str, data: bytes, *, new: bool = False) -> None:
        """Durable after `sync`. Of two under one name the later one stays; `new` raises AlreadyExists instead."""
        with self._errors(f"writing {name}"):
            await obstore.put_async(self._store, name, data, mode="create" if new else "overwrite", use_multipart=False)

    async def sync(self, names: Sequence[str]) -> None:
        """What was put under these names is durable when this returns. An object store has answered after that already."""
        if self._folder is not None:
            with self._errors("writing to the disk"):
                await in_thread(_sync, self._folder, names)

    async def get(self, name: str, most: int) -> bytes:
        """Raises SnapshotCorrupt for one of more than `most` bytes."""
        with self._errors(f"reading {name}"):
            found = await obstore.get_async(self._store, name)
            if found.meta["size"] > most:
                raise SnapshotCorrupt(f"{name} has {found.meta['size']} bytes, and may have {most}")
            return (await found.bytes_async()).to_bytes()

    async def list(self, prefix: str) -> AsyncGenerator[list[tuple[str, int]]]:
        """Names below the prefix with their sizes, in pages."""
        with self._errors(f"listing {prefix}"):
            async for page in _pages(self._store, prefix):
                yield [(meta["path"], meta["size"]) for meta in page]

    async def delete(self, names: Collection[str]) -> None:
        """Those that are not there are fine. When it raises, none of them is on its way any more."""
        with self._errors("removing"):
            await all_of(self._delete(name) for name in names)

    async def sweep(self) -> None:
        """Removes what a killed server had not written to its end, where the store does not do that itself."""
        if self._folder is not None:
            with self._errors("sweeping"):
                await in_thread(_sweep, self._folder)

    async def _delete(self, name: str) -> None:
        async with self._deletes:
            with contextlib.suppress(FileNotFoundError):
                await obstore.delete_async(self._store, name)

    @contextlib.contextmanager
    def _errors(self, doing: str) -> Generator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise NotFound(f"{doing}: it is not in the store") from error
        except (BaseError, OSError, ValueError) as error:
            said = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
            if isinstance(error, obstore.exceptions.AlreadyExistsError):
                raise AlreadyExists(f"{doing}: it is there already") from error
            if self._folder is not None and (is_full(error) or _FULL in str(error)):
                raise DiskFull(
                    f"{doing}: no space is left on the disk", hint="free some, or delete snapshots"
                ) from error
            raise Internal(f"{doing}: the store does not do it: {said}", hint="see BELLJAR_STORE_URL") from error


def open_blobs(url: str | None, folder: Path) -> Blobs:
    """At `url` (``s3://bucket/prefix``, ``gs://…``, ``az://…``, ``file:///…``; credentials and endpoints come from the
    environment names of each, such as ``AWS_ENDPOINT_URL``), else in `folder`. Makes no request. Raises InvalidArgument.
    """
    scheme, _, rest = (url or "").partition("://")
    if url is None or scheme == "file":
        root = folder if url is None else Path(f"/{rest.lstrip('/')}")
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        return Blobs(LocalStore(prefix=root), root)
    if scheme not in _SCHEMES:
        raise InvalidArgument(f"BELLJAR_STORE_URL begins with file, s3, gs or az, not {scheme[:20]!r}")
    try:
        store = obstore.store.from_url(url, client_options=_CLIENT, retry_config=_RETRY)
    except (BaseError, ValueError) as error:
        raise InvalidArgument(f"BELLJAR_STORE_URL cannot be used: {str(error).splitlines()[0][:300]}") from error
    if not isinstance(store, (AzureStore, GCSStore, S3Store)):
        raise InvalidArgument("BELLJAR_STORE_URL names neither a directory nor an object store")
    return Blobs(store, None)


def _pages(store: _Store, prefix: str) -> AsyncIterator["Sequence[ObjectMeta]"]:
    return obstore.list(store, prefix, chunk_size=_LIST)  # pyright: ignore[reportUnknownMemberType]


def _sync(folder: Path, names: Sequence[str]) -> None:
    """The files, then the folders that name them, up to the root."""
    parents: set[Path] = {folder}
    with ThreadPoolExecutor(_SYNCS, thread_name_prefix="storage") as pool:
        for done in [pool.submit(_sync_one, folder / name) for name in names]:
            done.result()
    for name in names:
        parents |= {parent for parent in (folder / name).parents if parent.is_relative_to(folder)}
    for parent in sorted(parents, reverse=True):
        sync_folder(parent)


def _sync_one(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync_file(fd)
    finally:
        os.close(fd)


def _sweep(folder: Path) -> None:
    old = time.time() - _UNFINISHED_AGE
    for parent, _, names in os.walk(folder):
        for name in names:
            # One that is being written has its own name in the next moment.
            with contextlib.suppress(FileNotFoundError):
                if _UNFINISHED.fullmatch(name) and (path := Path(parent, name)).lstat().st_mtime < old:
                    path.unlink()
