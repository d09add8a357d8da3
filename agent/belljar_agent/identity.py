"""Who this sandbox says it is: files below /etc, and the boot id."""

from __future__ import annotations

import os

from belljar_agent import system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("bind_boot_id", "make_boot_id", "random_boot_id", "write_etc")

_FOLDER_ONLY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = "/.belljar"
_NAME = "boot-id"


def write_etc(contents: Mapping[str, str]) -> None:
    """Puts files in place of whatever is there (a link is replaced, never followed). Raises OSError.

    A claim waits for this, so it is as few calls as can be: 0.2 ms a file.
    """
    try:
        folder = os.open("/etc", _FOLDER_ONLY)
    except FileNotFoundError:
        os.mkdir("/etc", 0o755)
        folder = os.open("/etc", _FOLDER_ONLY)
    try:
        for name, content in contents.items():
            _replace(folder, name, content.encode("utf-8", "surrogateescape"))
    finally:
        os.close(folder)


def random_boot_id() -> str:
    text = os.urandom(16).hex()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


def make_boot_id() -> int:
    """A file with a boot id of our own, as an open descriptor; gVisor's is the same in all clones of a checkpoint.

    The init of the users' namespace binds it over the one in its /proc. Raises OSError.
    """
    folder = os.open(_FOLDER, _FOLDER_ONLY)
    try:
        _replace(folder, _NAME, random_boot_id().encode() + b"\n", mode=0o444)
        return os.open(_NAME, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    finally:
        os.close(folder)


def bind_boot_id() -> None:
    """In a /proc that was just mounted. Raises OSError."""
    if os.path.isfile(f"{_FOLDER}/{_NAME}"):
        system.mount(f"{_FOLDER}/{_NAME}", "/proc/sys/kernel/random/boot_id", "", system.MS_BIND)


def _replace(folder: int, name: str, content: bytes, mode: int = 0o644) -> None:
    """`mode` as the umask, which is 022, leaves it."""
    temporary = f".{name}.{os.urandom(4).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, mode, dir_fd=folder)
    try:
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
        finally:
            os.close(fd)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        os.unlink(temporary, dir_fd=folder)
        raise
