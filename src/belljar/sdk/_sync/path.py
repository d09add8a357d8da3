# Made by scripts/make_sync.py from _async/path.py: do not edit.
"""A path inside a sandbox, with the names and habits of `pathlib.Path`."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from belljar.model.errors import Conflict, InvalidArgument, NotFound
from belljar.model.file import Change, FileInfo, FileKind
from belljar.sdk._sync.files import Files
from belljar.sdk._sync.watching import watch
from belljar.sdk.pure import PathLike, RemotePath, path_text
from belljar.sdk.values import Progress

__all__ = ("SandboxPath",)


class SandboxPath(RemotePath):
    """Get one from ``sandbox.path("/data")``. Relative paths start at the sandbox's workdir.

    >>> file = sandbox.path("/data") / "x.csv"
    >>> file.write_text("a,b\\n1,2\\n")
    8
    >>> file.exists()
    True
    >>> [entry.name for entry in file.parent.iterdir()]
    ['x.csv']
    """

    __slots__ = ("_files",)

    def __init__(self, files: Files, path: PathLike) -> None:
        super().__init__(path_text(path))
        self._files = files

    def _with(self, path: str) -> Self:
        return type(self)(self._files, path)

    def read_bytes(self, *, offset: int = 0, length: int | None = None) -> bytes:
        """The content, or `length` bytes of it from `offset` on. Raises NotFound, Conflict for a directory."""
        return b"".join([chunk for chunk in self._files.read(str(self), offset=offset, length=length)])

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The content as text, with ``\\n`` for every kind of line end. Raises UnicodeDecodeError."""
        text = self.read_bytes().decode(encoding, errors)
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def write_bytes(
        self, data: bytes | bytearray | memoryview, *, mode: int | None = None, append: bool = False
    ) -> int:
        """Writes the file whole (it appears at once) and makes missing parents. Returns the number of bytes."""
        content = bytes(data)
        self._files.write(str(self), content, size=len(content), mode=mode, append=append)
        return len(content)

    def write_text(self, text: str, encoding: str = "utf-8", errors: str = "strict") -> int:
        """As `write_bytes`. Returns the number of characters."""
        self.write_bytes(text.encode(encoding, errors))
        return len(text)

    def upload(self, local: str | os.PathLike[str], *, progress: Progress | None = None) -> None:
        """Copies a file or a folder's content of this machine here."""
        self._files.upload(Path(local), str(self), progress=progress)

    def download(
        self, local: str | os.PathLike[str], *, skip_unsafe: bool = False, progress: Progress | None = None
    ) -> None:
        """Copies it to this machine: a file to a file (or into a folder), a folder's content into a folder.

        Raises UnsafeEntry for links that leave the folder, devices and the like, unless `skip_unsafe`.
        """
        self._files.download(str(self), Path(local), skip_unsafe=skip_unsafe, progress=progress)

    def stat(self, *, follow_symlinks: bool = True) -> FileInfo:
        """Kind, size, mode, owner and times. Raises NotFound."""
        return self._files.stat(str(self), follow=follow_symlinks)

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        return self._kind(follow_symlinks=follow_symlinks) is not None

    def is_file(self) -> bool:
        return self._kind() == FileKind.FILE

    def is_dir(self) -> bool:
        return self._kind() == FileKind.DIRECTORY

    def is_symlink(self) -> bool:
        return self._kind(follow_symlinks=False) == FileKind.SYMLINK

    def _kind(self, *, follow_symlinks: bool = True) -> FileKind | None:
        try:
            return self.stat(follow_symlinks=follow_symlinks).kind
        except NotFound as error:
            if error.code != "not_found":
                raise
            return None

    def readlink(self) -> Self:
        """Where a symbolic link points. Raises InvalidArgument when it is none."""
        info = self.stat(follow_symlinks=False)
        if info.kind != FileKind.SYMLINK or info.target is None:
            raise InvalidArgument(f"{self} is no symbolic link")
        return self._with(info.target)

    def iterdir(self) -> Iterator[Self]:
        """What is in the directory, in the order of names. Raises NotFound, Conflict when it is none."""
        for info in self._files.pages("list", path=str(self)):
            yield (self / info.name)

    def glob(self, pattern: str) -> Iterator[Self]:
        """As pathlib's: ``**`` crosses directories, links are not followed."""
        if not pattern or pattern.startswith("/"):
            raise InvalidArgument(f"not a relative pattern: {pattern[:80]!r}")
        for info in self._files.pages("glob", path=str(self), pattern=pattern):
            yield self._with(info.path)

    def rglob(self, pattern: str) -> Iterator[Self]:
        """As `glob` with ``**/`` in front."""
        for path in self.glob(f"**/{pattern}"):
            yield path

    def watch(self, *, recursive: bool = False) -> Iterator[Change]:
        """Changes from now on, until you leave the loop. A change of kind `overflow` says that some were missed."""
        for change in watch(self._files, str(self), recursive=recursive):
            yield change

    def mkdir(self, mode: int = 511, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Raises AlreadyExists (unless `exist_ok`), NotFound for a missing parent (unless `parents`)."""
        self._files.ask("mkdir", path=str(self), mode=mode, parents=parents, exist_ok=exist_ok)

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Removes a file or link. Raises NotFound (unless `missing_ok`), Conflict for a directory."""
        try:
            info = self.stat(follow_symlinks=False)
        except NotFound as error:
            if missing_ok and error.code == "not_found":
                return
            raise
        if info.kind == FileKind.DIRECTORY:
            raise Conflict(f"{self} is a directory", hint="rmdir() removes directories")
        self._files.ask("remove", path=str(self), recursive=False, missing_ok=missing_ok)

    def rmdir(self, *, recursive: bool = False) -> None:
        """Removes an empty directory; with `recursive` the tree. Raises NotFound, Conflict when it is none or not empty."""
        if self.stat(follow_symlinks=False).kind != FileKind.DIRECTORY:
            raise Conflict(f"{self} is no directory", hint="unlink() removes files")
        self._files.ask("remove", path=str(self), recursive=recursive, missing_ok=False)

    def rename(self, target: PathLike) -> Self:
        """Moves it, over whatever file is there, also to another file system. Returns the new path."""
        moved = self._with(path_text(target))
        self._files.ask("move", source=str(self), target=str(moved))
        return moved

    def chmod(self, mode: int, *, recursive: bool = False) -> None:
        self._files.ask("chmod", path=str(self), mode=mode, recursive=recursive)

    def chown(self, user: str, *, recursive: bool = False) -> None:
        """`user` as in ``chown``: ``name``, ``uid``, ``name:group``."""
        self._files.ask("chown", path=str(self), user=user, recursive=recursive)

    def touch(self, *, exist_ok: bool = True) -> None:
        """Makes an empty file, or sets the time of one that is there. Raises AlreadyExists without `exist_ok`."""
        self._files.ask("touch", path=str(self), exist_ok=exist_ok)

    def symlink_to(self, target: PathLike) -> None:
        """Makes this path a symbolic link that points to `target`."""
        self._files.ask("symlink", path=str(self), target=path_text(target))

    def hardlink_to(self, target: PathLike) -> None:
        """Makes this path another name of the file `target`."""
        self._files.ask("hardlink", path=str(self), target=path_text(target))
