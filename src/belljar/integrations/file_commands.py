"""File operations as commands that the sandbox's own user runs, for frameworks whose contract is what this user may do.

The server reads and writes files with the rights of the sandbox's owner. A framework that hands files to a model expects a
refusal where the model's user would get one, so here each operation is one small shell script, run as that user:

>>> command = read_command("/etc/hostname", most=1 << 20)
>>> done = sandbox.run(command.argv, input=command.input, text=False)
>>> command.result(done)
b'sb01…\\n'

Nothing in here waits or asks: the caller runs the command, with whichever client it has. An image needs a POSIX ``/bin/sh`` and
the usual ``cat``, ``wc``, ``mkdir``, ``rm`` and ``readlink``.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from belljar import CompletedProcess

__all__ = (
    "Entry",
    "FileCommand",
    "Value",
    "list_command",
    "make_dir_command",
    "read_command",
    "realpath_command",
    "remove_command",
    "stat_command",
    "write_command",
)

Value = TypeVar("Value")

_BASE = 150
"""A script ends with this number plus an errno. No tool that it runs ends so: they use 1 and 2."""
_NAMED = {
    name: _BASE + getattr(errno, name)
    for name in ("ENOENT", "EACCES", "EEXIST", "ENOTDIR", "EISDIR", "EINVAL", "EFBIG", "ELOOP")
}
_SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_LINKS = 40
"""So many symbolic links in one path, as Linux itself."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What lies at a path, links followed. `size` in bytes, of a regular file that may be read."""

    name: bytes
    is_dir: bool
    size: int | None = None


@dataclass(frozen=True, slots=True)
class FileCommand(Generic[Value]):
    """`argv` and `input` for ``run(…, text=False)``; `result` makes the value of what that returned, or raises OSError."""

    path: str
    argv: list[str]
    parse: Callable[[bytes], Value]
    input: bytes | None = None

    def result(self, done: CompletedProcess[bytes]) -> Value:
        """Raises FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError or OSError."""
        if done.returncode == 0:
            return self.parse(done.stdout)
        number = done.returncode - _BASE
        if done.returncode in _NAMED.values():
            raise OSError(number, os.strerror(number), self.path)
        said = done.stderr.decode(errors="replace").strip()[-500:]
        raise OSError(errno.EIO, said or f"the command ended with status {done.returncode}", self.path)


def read_command(path: str, *, most: int) -> FileCommand[bytes]:
    """The content of a regular file; OSError EFBIG for one of more than `most` bytes."""
    script = f"""
        [ -d "$1" ] && fail EISDIR
        [ -e "$1" ] || missing "$1"
        [ -f "$1" ] || fail EINVAL
        [ -r "$1" ] || fail EACCES
        [ "$(wc -c < "$1")" -le {most} ] || fail EFBIG
        exec head -c {most + 1} "$1"
    """

    def parse(out: bytes) -> bytes:
        if len(out) > most:  # it grew meanwhile
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        return out

    return FileCommand(path, _argv(script, path), parse)


def write_command(path: str, data: bytes) -> FileCommand[None]:
    """Replaces the content in place, through a symbolic link too, and makes missing parents."""
    script = """
        [ -d "$1" ] && fail EISDIR
        if [ -e "$1" ]; then
            [ -f "$1" ] || fail EINVAL
            [ -w "$1" ] || fail EACCES
        else
            at=$1; up; parents "$at"
        fi
        exec cat > "$1"
    """
    return FileCommand(path, _argv(script, path), _nothing, data)


def stat_command(path: str) -> FileCommand[Entry]:
    script = """
        if [ -d "$1" ]; then printf d
        elif [ -f "$1" ]; then printf -; [ -r "$1" ] && wc -c < "$1"; :
        elif [ -e "$1" ]; then printf -
        else missing "$1"
        fi
    """
    name = os.fsencode(path.rstrip("/").rpartition("/")[2] or "/")

    def parse(out: bytes) -> Entry:
        size = out[1:].strip()
        return Entry(name, out[:1] == b"d", int(size) if size.isdigit() else None)

    return FileCommand(path, _argv(script, path), parse)


def list_command(path: str) -> FileCommand[list[Entry]]:
    """What is in a directory, in the order of names."""
    script = """
        [ -e "$1" ] || missing "$1"
        [ -d "$1" ] || fail ENOTDIR
        [ -r "$1" ] && cd -- "$1" || fail EACCES
        for name in * .[!.]* ..?*; do
            [ -e "$name" ] || [ -L "$name" ] || continue
            [ -d "$name" ] && kind=d || kind=-
            printf '%s%s\\000' "$kind" "$name"
        done
    """

    def parse(out: bytes) -> list[Entry]:
        found = (Entry(part[1:], part[:1] == b"d") for part in out.split(b"\0") if part)
        return sorted(found, key=lambda entry: entry.name)

    return FileCommand(path, _argv(script, path), parse)


def make_dir_command(path: str) -> FileCommand[None]:
    """As ``mkdir -p``; FileExistsError where something else lies."""
    script = """
        [ -d "$1" ] && exit 0
        [ -e "$1" ] || [ -L "$1" ] && fail EEXIST
        parents "$1"
    """
    return FileCommand(path, _argv(script, path), _nothing)


def remove_command(path: str) -> FileCommand[None]:
    """A file, or a directory with all that is in it; of a symbolic link only itself."""
    script = """
        [ -e "$1" ] || [ -L "$1" ] || missing "$1"
        exec rm -rf -- "$1"
    """
    return FileCommand(path, _argv(script, path), _nothing)


def realpath_command(path: str) -> FileCommand[str]:
    """As ``os.path.realpath``: missing parts stay as they are written; OSError ELOOP for links in a circle."""
    script = f"""
        rest=${{1#/}}; real=; links=0
        while [ -n "$rest" ]; do
            part=${{rest%%/*}}
            case $rest in */*) rest=${{rest#*/}} ;; *) rest= ;; esac
            case $part in
            '' | .) continue ;;
            ..) real=${{real%/*}}; continue ;;
            esac
            if [ -L "$real/$part" ]; then
                links=$((links + 1))
                [ "$links" -le {_LINKS} ] || fail ELOOP
                # A name may end with line ends, which the shell would cut off.
                to=$(readlink -n -- "$real/$part" && printf x) || fail EACCES
                to=${{to%x}}
                case $to in /*) real= ;; esac
                rest=$to/$rest
            else
                real=$real/$part
            fi
        done
        printf '%s' "${{real:-/}}"
    """
    return FileCommand(path, _argv(script, path), os.fsdecode)


def _argv(script: str, path: str) -> list[str]:
    if not path or "\0" in path:
        raise OSError(errno.EINVAL, "a path has at least one character and no NUL", path)
    # So that no path looks like an option, and each has a directory in front of its name.
    plain = path.rstrip("/") or "/"
    plain = plain if plain.startswith("/") else f"./{plain}"
    # By absolute path, and with the system's own PATH: this may run as root in an image whose PATH others can write to.
    return ["/bin/sh", "-c", _PRELUDE + script, "belljar", plain]


def _nothing(out: bytes) -> None:
    return None


_CODES = "; ".join(f"{name}={number}" for name, number in _NAMED.items())
_PRELUDE = f"""
        PATH={_SYSTEM_PATH}; LC_ALL=C; export PATH LC_ALL
        {_CODES}
        fail() {{ eval "exit \\$$1"; }}

        # From `at` to its directory. Not dirname: the shell would cut line ends off a name.
        up() {{
            case $at in
            */*) at=${{at%/*}}; [ -n "$at" ] || at=/ ;;
            *) at=. ;;
            esac
        }}

        # Why nothing is there: an ancestor is no directory, or may not be searched, or it is just missing.
        missing() {{
            at=$1
            up
            while ! [ -e "$at" ]; do up; done
            [ -d "$at" ] || fail ENOTDIR
            [ -x "$at" ] || fail EACCES
            fail ENOENT
        }}

        # Makes a directory and its parents.
        parents() {{
            at=$1
            while ! [ -e "$at" ]; do up; done
            [ -d "$at" ] || fail ENOTDIR
            [ -w "$at" ] && [ -x "$at" ] || fail EACCES
            mkdir -p -- "$1" || exit 1
        }}
"""
