"""watch: changes below a path, one JSON object a line."""

from __future__ import annotations

import errno
import json
import os

from belljar_agent import arguments
from belljar_agent.api import Refused
from belljar_agent.files.inotify import Flag, Inotify, Notice
from belljar_agent.files.refusals import printable, refusal, refusing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

    from belljar_agent.api import Args, Context, Steps

__all__ = ("MAX_FOLDERS", "ChangeSource")

MAX_FOLDERS = 8192
_STEP = 64
_MAX_READY = 1 << 20


class ChangeSource:
    """A file is watched through its folder, so that one that is replaced by a rename goes on being watched."""

    def __init__(self, ctx: Context, args: Args) -> None:
        path = ctx.resolve(args.get("path"))
        recursive = arguments.flag(args, "recursive")
        self._shown = ctx.shown
        with refusing(path):
            os.stat(path)
        self._top = path
        self._only = None if os.path.isdir(path) else os.path.basename(path)
        self._recursive = recursive and self._only is None
        self._inotify = Inotify()
        self._paths: dict[int, str] = {}
        self._watches: dict[str, int] = {}
        self._ready = bytearray()
        self._changes: list[dict[str, Any]] = []
        self._ended = False

    def size_info(self) -> Steps:
        """Every folder there is now is watched before the answer goes out: no change after it is missed."""
        folder = self._top if self._only is None else os.path.dirname(self._top)
        with refusing(folder):
            self._add(folder, follow=True)
        if self._recursive:
            for count, _ in enumerate(self._watch_below(folder)):
                if count % _STEP == 0:
                    yield
        return {}

    def read(self, limit: int) -> bytes | None:
        if not self._ready and not self._ended:
            self._take(self._inotify.read())
            for change in self._changes:
                self._ready += json.dumps(change).encode() + b"\n"
            self._changes.clear()
        if self._ready:
            data = bytes(memoryview(self._ready)[:limit])
            del self._ready[:limit]
            return data
        return b"" if self._ended else None

    def fileno(self) -> int | None:
        return self._inotify.fd

    def close(self) -> None:
        self._inotify.close()

    def _take(self, notices: list[Notice]) -> None:
        index = 0
        while index < len(notices):
            notice = notices[index]
            index += 1
            if notice.flags & Flag.OVERFLOW:
                self._tell("overflow", self._top)
                self._watch_again()
                continue
            folder = self._paths.get(notice.watch)
            if folder is None or (self._only is not None and notice.name not in ("", self._only)):
                continue
            if notice.flags & Flag.MOVED_FROM:
                if index == len(notices):
                    notices += self._inotify.read()  # its other half may not have been read yet
                if self._moved(folder, notice, notices[index] if index < len(notices) else None):
                    index += 1
            else:
                self._one(folder, notice)

    def _one(self, folder: str, notice: Notice) -> None:
        path = os.path.join(folder, notice.name) if notice.name else folder
        flags = notice.flags
        if flags & (Flag.CREATE | Flag.MOVED_TO):
            self._tell("created", path)
            if flags & Flag.ISDIR and self._recursive:
                self._new_folder(path)
        elif flags & Flag.DELETE:
            self._tell("removed", path)
        elif flags & Flag.IGNORED:
            self._forget(notice.watch)
            if not self._watches:
                self._ended = True
        elif flags & (Flag.DELETE_SELF | Flag.MOVE_SELF):
            if folder == (self._top if self._only is None else os.path.dirname(self._top)):
                self._tell("removed", self._top)
                self._ended = True
        elif flags & (Flag.MODIFY | Flag.ATTRIB) and notice.name:
            self._tell("modified", path)

    def _moved(self, folder: str, notice: Notice, following: Notice | None) -> bool:
        """Whether the other half of the move was the notice that follows."""
        source = os.path.join(folder, notice.name)
        into = None if following is None else self._paths.get(following.watch)
        if (
            following is None
            or into is None
            or not following.flags & Flag.MOVED_TO
            or following.cookie != notice.cookie
            or (self._only is not None and following.name != self._only)
        ):
            self._tell("removed", source)
            self._forget_below(source)
            return False
        target = os.path.join(into, following.name)
        self._changes.append({"kind": "moved", "path": self._shown(target), "source": self._shown(source)})
        if notice.flags & Flag.ISDIR:
            self._rename_below(source, target)
        return True

    def _tell(self, kind: str, path: str) -> None:
        change = {"kind": kind, "path": self._shown(path)}
        if self._changes and self._changes[-1] == change:
            return
        if kind == "modified" and any(later == change for later in self._changes[-8:]):
            return
        self._changes.append(change)

    def _new_folder(self, path: str) -> None:
        """What came into it before it was watched is told too."""
        try:
            self._add(path)
            for found in self._watch_below(path, tell=True):
                if len(self._changes) > _MAX_READY >> 7:
                    self._tell("overflow", found)
                    return
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise refusal(error, path) from None

    def _watch_below(self, folder: str, *, tell: bool = False) -> Generator[str]:
        pending = [folder]
        while pending:
            above = pending.pop()
            try:
                with os.scandir(above) as entries:
                    found = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
            except OSError:
                continue  # gone, or no folder any more
            for path, is_folder in found:
                if tell:
                    self._tell("created", path)
                if is_folder:
                    try:
                        self._add(path)
                    except OSError as error:
                        if error.errno == errno.ENOSPC:
                            raise self._too_many() from None
                        continue
                    pending.append(path)
                yield path

    def _watch_again(self) -> None:
        """After an overflow folders may have come that nobody told us of."""
        if self._recursive:
            for _ in self._watch_below(self._top):
                pass

    def _add(self, path: str, *, follow: bool = False) -> None:
        if path in self._watches:
            return
        if len(self._watches) >= MAX_FOLDERS:
            raise self._too_many()
        watch = self._inotify.add(path, Flag.CHANGES | Flag.ONLYDIR | (0 if follow else Flag.DONT_FOLLOW))
        if (old := self._paths.get(watch)) is not None:
            self._watches.pop(old, None)  # the same folder under its new name
        self._paths[watch] = path
        self._watches[path] = watch

    def _too_many(self) -> Refused:
        return Refused(
            "limit_exceeded",
            f"there are more than {MAX_FOLDERS} folders below {printable(self._top)}: watch a smaller tree",
        )

    def _forget(self, watch: int) -> None:
        path = self._paths.pop(watch, None)
        if path is not None and self._watches.get(path) == watch:
            del self._watches[path]

    def _forget_below(self, path: str) -> None:
        for below in [known for known in self._watches if known == path or known.startswith(path + "/")]:
            watch = self._watches[below]
            self._inotify.remove(watch)
            self._forget(watch)

    def _rename_below(self, source: str, target: str) -> None:
        for below in [known for known in self._watches if known == source or known.startswith(source + "/")]:
            watch = self._watches.pop(below)
            path = target + below[len(source) :]
            self._paths[watch] = path
            self._watches[path] = watch
