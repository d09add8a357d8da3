"""Trees of files, the EROFS images they become, and what runs in one as if it were a machine."""

import stat
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from belljar.base import proc
from belljar.model.errors import Error
from belljar.node.hostpackages import USUAL_MODES
from belljar.node.image.debian import APART

__all__ = ("flatten", "make_folder", "put_file", "run_inside", "special_modes", "unpack")

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Mounts of a namespace that ends with the command: the host's /dev is never within reach of what deletes a tree.
_INSIDE = """\
set -e
root=$1
shift
mount -t proc none "$root/proc"
mount -t tmpfs -o mode=755 none "$root/dev"
mkdir -m 1777 "$root/dev/shm"
for name in null zero urandom; do
    touch "$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
exec chroot "$root" /usr/bin/env -i "$@"
"""


async def flatten(root: Path, image: Path, *, date: int) -> None:
    """Writes the tree as the engine wants it: EROFS, neither compressed nor with data inside the inodes.

    `date`: seconds since 1970; newer times become this one, so that the same tree gives the same image.
    """
    name = str(uuid.uuid5(uuid.NAMESPACE_OID, "belljar"))
    words = ["mkfs.erofs", "--quiet", "-E", "noinline_data", "-U", name, str(image), str(root)]
    try:
        await proc.run(words, timeout=600, env={"PATH": _PATH, "SOURCE_DATE_EPOCH": str(date)})
    except proc.CommandFailed as error:
        raise Error(f"the image cannot be written: {error}", hint="apt-get install erofs-utils") from error
    image.chmod(0o644)


async def unpack(image: Path, root: Path, modes: Mapping[str, int]) -> None:
    """The tree that `flatten` wrote, with its owners and times, in `root` (which is not there yet).

    `modes`: those of files that act as their owner (sudo), which fsck.erofs loses when it gives files to their owners.
    """
    try:
        await proc.run(["fsck.erofs", f"--extract={root}", str(image)], timeout=600, env={"PATH": _PATH})
    except proc.CommandFailed as error:
        raise Error(f"the image cannot be unpacked: {error}", hint="apt-get install erofs-utils") from error
    for name, mode in modes.items():
        (root / name).chmod(mode)


def make_folder(root: Path, name: str) -> Path:
    """Makes the folder, and those above it that are missing: for everybody, whatever the umask (a server's is 077)."""
    path = root
    for part in Path(name).parts:
        path = path / part
        if not path.is_dir():
            path.mkdir()
            path.chmod(0o755)
    return path


def put_file(root: Path, name: str, text: str) -> None:
    """Writes a file that everybody may read, and the folders above it."""
    path = make_folder(root, str(Path(name).parent)) / Path(name).name
    path.write_text(text)
    path.chmod(0o644)


def special_modes(root: Path) -> dict[str, int]:
    """Path below `root` → mode, of files and folders that act as their owner or group."""
    found: dict[str, int] = {}
    for path in root.rglob("*"):
        now = path.lstat()
        if not stat.S_ISLNK(now.st_mode) and now.st_mode & (stat.S_ISUID | stat.S_ISGID):
            found[path.relative_to(root).as_posix()] = stat.S_IMODE(now.st_mode)
    return found


async def run_inside(root: Path, argv: Sequence[str], *, env: Mapping[str, str] | None = None, timeout: float) -> None:
    """Runs a program of the tree on it, without the host's variables. `timeout` in seconds. Raises proc.CommandFailed."""
    variables = {"PATH": _PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", **(env or {})}
    words = [f"{name}={value}" for name, value in variables.items()]
    await proc.run(
        [*APART, *USUAL_MODES, "sh", "-c", _INSIDE, "sh", str(root), *words, *argv],
        timeout=timeout,
        env={"PATH": _PATH},
    )
