"""A path inside a sandbox, with the names and habits of `pathlib.Path`."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

from belljar.model.errors import Conflict, InvalidArgument, NotFound
from belljar.model.file import Change, FileInfo, FileKind
from belljar.sdk._async.files import AsyncFiles
from belljar.sdk._async.watching import watch
from belljar.sdk.pure import PathLike, RemotePath, path_text
from belljar.sdk.values import Progress

__all__ = ("AsyncSandboxPath",)


class AsyncSandboxPath(RemotePath):
    """Get one from ``sandbox.path("/data")``. Relative paths start at the sandbox's workdir.

    >>> file = sandbox.path("/data") / "x.csv"
    >>> await file.write_text("a,b\\n1,2\\n")
    8
    >>> await file.exists()
    True
    >>> [entry.name async for entry in file.parent.iterdir()]
    ['x.csv']
    """

    __slots__ = ("_files",)

    def __init__(self, files: AsyncFiles, path: PathLike) -> None:
        super().__init__(path_text(path))
        self._files = files

    def _with(self, path: str) -> Self:
        return type(self)(self._files, path)

    # content ---------------------------------------------------------------------------------------------------------

    async def read_bytes(self, *, offset: int = 0, length: int | None = None) -> bytes:
        """The content, or `length` bytes of it from `offset` on. Raises NotFound, Conflict for a directory."""
        return b"".join([chunk async for chunk in self._files.read(str(self), offset=offset, length=length)])

    async def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The content as text, with ``\\n`` for every kind of line end. Raises UnicodeDecodeError."""
        text = (await self.read_bytes()).decode(encoding, errors)
        return text.replace("\r\n", "\n").replace("\r", "\n")

    async def write_bytes(
        self, data: bytes | bytearray | memoryview, *, mode: int | None = None, append: bool = False
    ) -> int:
        """Writes the file whole (it appears at once) and makes missing parents. Returns the number of bytes."""
        content = bytes(data)
        await self._files.write(str(self), content, size=len(content), mode=mode, append=append)
        return len(content)

    async def write_text(self, text: str, encoding: str = "utf-8", errors: str = "strict") -> int:
        """As `write_bytes`. Returns the number of characters."""
        await self.write_bytes(text.encode(encoding, errors))
        return len(text)

    async def upload(self, local: str | os.PathLike[str], *, progress: Progress | None = None) -> None:
        """Copies a file or a folder's content of this machine here."""
        await self._files.upload(Path(local), str(self), progress=progress)

    async def download(
        self, local: str | os.PathLike[str], *, skip_unsafe: bool = False, progress: Progress | None = None
    ) -> None:
        """Copies it to this machine: a file to a file (or into a folder), a folder's content into a folder.

        Raises UnsafeEntry for links that leave the folder, devices and the like, unless `skip_unsafe`.
        """
        await self._files.download(str(self), Path(local), skip_unsafe=skip_unsafe, progress=progress)

    # questions -------------------------------------------------------------------------------------------------------

    async def stat(self, *, follow_symlinks: bool = True) -> FileInfo:
        """Kind, size, mode, owner and times. Raises NotFound."""
        return await self._files.stat(str(self), follow=follow_symlinks)

    async def exists(self, *, follow_symlinks: bool = True) -> bool:
        return await self._kind(follow_symlinks=follow_symlinks) is not None

    async def is_file(self) -> bool:
        return await self._kind() == FileKind.FILE

    async def is_dir(self) -> bool:
        return await self._kind() == FileKind.DIRECTORY

    async def is_symlink(self) -> bool:
        return await self._kind(follow_symlinks=False) == FileKind.SYMLINK

    async def _kind(self, *, follow_symlinks: bool = True) -> FileKind | None:
        try:
            return (await self.stat(follow_symlinks=follow_symlinks)).kind
        except NotFound as error:
            if error.code != "not_found":  # the sandbox is gone: that says nothing of the file
                raise
            return None

    async def readlink(self) -> Self:
        """Where a symbolic link points. Raises InvalidArgument when it is none."""
        info = await self.stat(follow_symlinks=False)
        if info.kind != FileKind.SYMLINK or info.target is None:
            raise InvalidArgument(f"{self} is no symbolic link")
        return self._with(info.target)

    # folders ---------------------------------------------------------------------------------------------------------

    async def iterdir(self) -> AsyncIterator[Self]:
        """What is in the directory, in the order of names. Raises NotFound, Conflict when it is none."""
        async for info in self._files.pages("list", path=str(self)):
            yield self / info.name

    async def glob(self, pattern: str) -> AsyncIterator[Self]:
        """As pathlib's: ``**`` crosses directories, links are not followed."""
        if not pattern or pattern.startswith("/"):
            raise InvalidArgument(f"not a relative pattern: {pattern[:80]!r}")
        async for info in self._files.pages("glob", path=str(self), pattern=pattern):
            yield self._with(info.path)

    async def rglob(self, pattern: str) -> AsyncIterator[Self]:
        """As `glob` with ``**/`` in front."""
        async for path in self.glob(f"**/{pattern}"):
            yield path

    async def watch(self, *, recursive: bool = False) -> AsyncIterator[Change]:
        """Changes from now on, until you leave the loop. A change of kind `overflow` says that some were missed."""
        async for change in watch(self._files, str(self), recursive=recursive):
            yield change

    # changes ---------------------------------------------------------------------------------------------------------

    async def mkdir(self, mode: int = 0o777, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Raises AlreadyExists (unless `exist_ok`), NotFound for a missing parent (unless `parents`)."""
        await self._files.ask("mkdir", path=str(self), mode=mode, parents=parents, exist_ok=exist_ok)

    async def unlink(self, *, missing_ok: bool = False) -> None:
        """Removes a file or link. Raises NotFound (unless `missing_ok`), Conflict for a directory."""
        try:
            info = await self.stat(follow_symlinks=False)
        except NotFound as error:
            if missing_ok and error.code == "not_found":
                return
            raise
        if info.kind == FileKind.DIRECTORY:
            raise Conflict(f"{self} is a directory", hint="rmdir() removes directories")
        await self._files.ask("remove", path=str(self), recursive=False, missing_ok=missing_ok)

    async def rmdir(self, *, recursive: bool = False) -> None:
        """Removes an empty directory; with `recursive` the tree. Raises NotFound, Conflict when it is none or not empty."""
        if (await self.stat(follow_symlinks=False)).kind != FileKind.DIRECTORY:
            raise Conflict(f"{self} is no directory", hint="unlink() removes files")
        await self._files.ask("remove", path=str(self), recursive=recursive, missing_ok=False)

    async def rename(self, target: PathLike) -> Self:
        """Moves it, over whatever file is there, also to another file system. Returns the new path."""
        moved = self._with(path_text(target))
        await self._files.ask("move", source=str(self), target=str(moved))
        return moved

    async def chmod(self, mode: int, *, recursive: bool = False) -> None:
        await self._files.ask("chmod", path=str(self), mode=mode, recursive=recursive)

    async def chown(self, user: str, *, recursive: bool = False) -> None:
        """`user` as in ``chown``: ``name``, ``uid``, ``name:group``."""
        await self._files.ask("chown", path=str(self), user=user, recursive=recursive)

    async def touch(self, *, exist_ok: bool = True) -> None:
        """Makes an empty file, or sets the time of one that is there. Raises AlreadyExists without `exist_ok`."""
        await self._files.ask("touch", path=str(self), exist_ok=exist_ok)

    async def symlink_to(self, target: PathLike) -> None:
        """Makes this path a symbolic link that points to `target`."""
        await self._files.ask("symlink", path=str(self), target=path_text(target))

    async def hardlink_to(self, target: PathLike) -> None:
        """Makes this path another name of the file `target`."""
        await self._files.ask("hardlink", path=str(self), target=path_text(target))
