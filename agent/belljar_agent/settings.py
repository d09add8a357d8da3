"""What the server configured: identity, environment, user, directory, limits. Also the `Context` of the file operations."""

from __future__ import annotations

import _socket
import os

from belljar_agent.api import Refused, refusal_of
from belljar_agent.arguments import encoded, flag, number, optional_number, optional_text, variables
from belljar_agent.people import People
from belljar_agent.ring import KEEP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from belljar_agent.api import Answer, Args
    from belljar_agent.forking import Outer
    from belljar_agent.temporary import Temporary

__all__ = ("Settings",)

MAX_PATH = 4096


class Settings:
    """`root` is "/" but in plain mode, where absolute paths are mapped below it."""

    def __init__(self, root: str = "/", *, plain: bool = False, outer: Outer | None = None) -> None:
        self.plain = plain
        self.root = root
        self.outer = outer
        self.people = People(root, fixed=plain)
        self.env: dict[str, str] = {}
        self.user = "root"
        self.workdir: str | None = None
        self.keep_output = KEEP
        self.memory: int | None = None
        """The sandbox's memory limit in bytes, if the server said one."""
        self._temporary: Temporary | None = None

    # configure -------------------------------------------------------------------------------------------------------

    def configure(self, args: Args) -> Answer:
        """All is optional and may be repeated; nothing is changed when an argument is wrong."""
        env = variables(args, "env")
        user = optional_text(args, "user")
        workdir = optional_text(args, "workdir")
        hostname = optional_text(args, "hostname")
        pids = optional_number(args, "pids", least=1, most=4 << 20)
        memory = optional_number(args, "memory", least=1 << 20)
        rooms = {name: optional_number(args, name, least=4096) for name in ("tmp", "shm")}
        keep = number(args, "keep_output", self.keep_output, most=256 << 20)
        files = {name: optional_text(args, name) for name in ("hosts", "resolv", "boot_id", "machine_id")}
        if workdir is not None and not workdir.startswith("/"):
            raise Refused("invalid_argument", "workdir must be an absolute path")
        if user is not None and not self.plain:
            self.people.identity(user)
        self.keep_output = keep
        self.memory = memory or self.memory
        if "env" in args:
            self.env = dict(env)
        self.user = user or self.user
        if "workdir" in args:
            self.workdir = workdir  # None: everybody's own home
        if not self.plain:
            try:
                self._apply(hostname, pids, files)
                if any(rooms.values()):
                    self._resize(rooms)
            except OSError as error:
                raise refusal_of(error, "configure") from None
        return {}

    def limit(self, args: Args) -> Answer:
        """Other limits for what runs. Less memory than is in use is refused, unless `force`; then nothing is changed."""
        memory = number(args, "memory", least=1 << 20)
        pids = number(args, "pids", least=1, most=4 << 20)
        if not self.plain and not flag(args, "force") and (self.memory is None or memory < self.memory):
            _check_room(memory)
        try:
            self._limit_pids(pids)
        except OSError as error:
            raise refusal_of(error, "limit") from None
        self.memory = memory
        return {}

    def prepare(self) -> None:
        """Before a checkpoint: loads what `configure` needs, so that not each clone pays for it (5 ms)."""
        if not self.plain:
            from belljar_agent import system
            from belljar_agent.temporary import Temporary

            system.load()
            self._temporary = self._temporary or Temporary()

    def _apply(self, hostname: str | None, pids: int | None, files: dict[str, str | None]) -> None:
        wanted = {"hosts": files["hosts"], "resolv.conf": files["resolv"]}
        if hostname is not None:
            _socket.sethostname(hostname)
            wanted["hostname"] = hostname + "\n"
        if files["machine_id"] is not None:
            wanted["machine-id"] = files["machine_id"].strip() + "\n"
        contents = {name: content for name, content in wanted.items() if content is not None}
        if contents:
            from belljar_agent.identity import write_etc

            write_etc(contents)
        if files["boot_id"] is not None and self.outer is not None and self.outer.boot_id is not None:
            os.pwrite(self.outer.boot_id, files["boot_id"].strip()[:36].ljust(36).encode() + b"\n", 0)
        if pids is not None:
            self._limit_pids(pids)

    def _limit_pids(self, pids: int) -> None:
        if self.outer is not None and self.outer.pids is not None:
            # Counts the users' processes and threads; the launcher and the init come on top.
            fd = os.open("pids.max", os.O_WRONLY | os.O_CLOEXEC, dir_fd=self.outer.pids)
            try:
                os.write(fd, str(pids + 2).encode())
            finally:
                os.close(fd)

    def _resize(self, rooms: dict[str, int | None]) -> None:
        from belljar_agent.temporary import SHARED, TMP, Temporary

        self._temporary = self._temporary or Temporary()
        for path, size in ((TMP, rooms["tmp"]), (SHARED, rooms["shm"])):
            if size is not None:
                self._temporary.resize(path, size)

    # starts ----------------------------------------------------------------------------------------------------------

    def shown_home(self, home: str) -> str:
        return self.root if self.plain else home

    def directory(self, cwd: str | None, home: str, user: str | None = None) -> str:
        """Where a process starts: `cwd` (relative to the working directory), else the working directory, else home.

        Another `user` than the sandbox's starts at home: the working directory is somebody else's, and perhaps closed.
        """
        if cwd is not None:
            return self.resolve(cwd)
        if self.workdir is not None and user in (None, self.user):
            return self.resolve(self.workdir)
        if self.plain:
            return self.root
        return home if os.path.isdir(home) else "/"

    # the context of file operations ----------------------------------------------------------------------------------

    def resolve(self, path: object) -> str:
        if not isinstance(path, str) or not path or "\0" in path or len(encoded(path)) > MAX_PATH:
            raise Refused("invalid_argument", "a path has 1 to 4096 bytes and no NUL")
        if not path.startswith("/"):
            path = os.path.join(self.workdir or self._home(), path)
        if not self.plain:
            return path
        inside = os.path.normpath(path).lstrip("/")
        return os.path.join(self.root, inside) if inside not in ("", ".") else self.root

    def shown(self, path: str) -> str:
        if not self.plain:
            return path
        return "/" + os.path.relpath(path, self.root) if path != self.root else "/"

    def uid_gid(self, user: object) -> tuple[int, int]:
        return self.people.uid_gid(self.user if user is None else user)

    def user_name(self, uid: int) -> str:
        return self.people.user_name(uid)

    def group_name(self, gid: int) -> str:
        return self.people.group_name(gid)

    def own(self, path: str, user: object, *, follow: bool = False) -> None:
        if self.plain:
            return
        uid, gid = self.uid_gid(user)
        try:
            os.chown(path, uid, gid, follow_symlinks=follow)
        except OSError as error:
            raise refusal_of(error, self.shown(path)) from None

    def _home(self) -> str:
        if self.plain:
            return "/"
        try:
            return self.people.identity(self.user).home
        except Refused:
            return "/"


def _check_room(memory: int) -> None:
    """Raises Refused when so many bytes are not more than what is in use, and the room that the guard keeps."""
    from belljar_agent.guard import reserve, shown_memory

    total, free = shown_memory()
    used, kept = total - free, reserve(memory)
    if used + kept > memory:
        mib = f"{used >> 20} MiB of memory are in use, and {kept >> 20} MiB are kept free"
        raise Refused("conflict", f"{mib}: {memory >> 20} MiB are not enough for that")
