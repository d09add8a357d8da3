"""Users and groups as the image's own files name them: its C library may be another one, or there may be none."""

from __future__ import annotations

import os

from belljar_agent.api import Refused

__all__ = ("Identity", "People")

_MAX_FILE = 4 << 20


class Identity:
    """Whom a process runs as."""

    __slots__ = ("gid", "groups", "home", "name", "shell", "uid")

    def __init__(self, uid: int, gid: int, name: str, home: str, shell: str, groups: list[int]) -> None:
        self.uid = uid
        self.gid = gid
        self.name = name
        self.home = home
        self.shell = shell
        self.groups = groups


class _Table:
    """A file of lines with fields between colons, read again when it changed."""

    def __init__(self, path: str, fields: int) -> None:
        self._path = path
        self._fields = fields
        self._stamp: tuple[int, int, int] | None = None
        self._rows: list[list[str]] = []

    def rows(self) -> list[list[str]]:
        try:
            # Whatever user code put there (a pipe, a device) must not hold the agent up.
            fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self._stamp = None
            return []
        try:
            status = os.fstat(fd)
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                data = os.read(fd, _MAX_FILE) if status.st_size <= _MAX_FILE else b""
                lines = data.decode("utf-8", "surrogateescape").split("\n")
                rows = [line.split(":") for line in lines if line and line[0] not in "#+-"]
                self._rows = [row for row in rows if len(row) >= self._fields and row[2].isdecimal()]
                self._stamp = stamp
        except OSError:
            return []
        finally:
            os.close(fd)
        return self._rows


class People:
    """Looks users up below `root`. With `fixed` (plain mode) everybody is the user that the agent runs as."""

    def __init__(self, root: str = "/", *, fixed: bool = False) -> None:
        self._users = _Table(os.path.join(root, "etc/passwd"), 6)
        self._groups = _Table(os.path.join(root, "etc/group"), 4)
        self.fixed = fixed

    def identity(self, user: object) -> Identity:
        """Of ``name``, ``uid``, or either with ``:group``. Raises Refused (invalid_argument) for an unknown name."""
        wanted, _, group = self._words(user).partition(":")
        row = self._user_row(wanted)
        if row is not None:
            name, uid, gid, home = row[0], int(row[2]), int(row[3]), row[5]
            shell = row[6] if len(row) > 6 and row[6] else "/bin/sh"
        elif wanted.isdecimal():
            name, uid, gid, home, shell = wanted, self._number(wanted), 0, "/", "/bin/sh"
        elif wanted == "root":  # an image without any /etc/passwd
            name, uid, gid, home, shell = "root", 0, 0, "/root", "/bin/sh"
        else:
            raise Refused("invalid_argument", f"there is no user {wanted!r} in this sandbox")
        groups = [
            gid,
            *(int(row[2]) for row in self._groups.rows() if name in row[3].split(",") and int(row[2]) != gid),
        ]
        if group:
            gid = self._gid(group)
            groups = [gid]
        return Identity(uid, gid, name, home or "/", shell, groups)

    def uid_gid(self, user: object) -> tuple[int, int]:
        if self.fixed:
            return os.getuid(), os.getgid()
        identity = self.identity(user)
        return identity.uid, identity.gid

    def user_name(self, uid: int) -> str:
        for row in self._users.rows():
            if int(row[2]) == uid:
                return row[0]
        return str(uid)

    def group_name(self, gid: int) -> str:
        for row in self._groups.rows():
            if int(row[2]) == gid:
                return row[0]
        return str(gid)

    def _user_row(self, wanted: str) -> list[str] | None:
        rows = [row for row in self._users.rows() if row[3].isdecimal()]
        for row in rows:
            if row[0] == wanted:
                return row
        if wanted.isdecimal():
            for row in rows:
                if int(row[2]) == int(wanted):
                    return row
        return None

    def _gid(self, group: str) -> int:
        for row in self._groups.rows():
            if row[0] == group:
                return int(row[2])
        if group.isdecimal():
            return self._number(group)
        raise Refused("invalid_argument", f"there is no group {group!r} in this sandbox")

    @staticmethod
    def _words(user: object) -> str:
        if isinstance(user, int) and not isinstance(user, bool):
            return str(user)
        if not isinstance(user, str) or not user or len(user) > 256 or "\0" in user:
            raise Refused("invalid_argument", "a user is a name, a uid, or name:group")
        return user

    @staticmethod
    def _number(text: str) -> int:
        if len(text) > 10 or int(text) > 0xFFFF_FFFE:
            raise Refused("invalid_argument", f"{text} is no user or group id")
        return int(text)
