"""write: a file that arrives in parts and appears whole.

The bytes go into a temporary file beside the target. An upload outlives the stream that brings it: after a lost connection the
same key goes on where it stopped, until nothing was heard of it for ten minutes.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from belljar_agent import arguments
from belljar_agent.api import Refused
from belljar_agent.files.make import make_parents
from belljar_agent.files.move import beside, copy_bytes
from belljar_agent.files.refusals import printable, refusal, refusing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from belljar_agent.api import Answer, Args, Context, Steps

__all__ = ("KEPT_SECONDS", "MAX_UPLOADS", "UPLOADS", "UploadSink", "uploaded")

KEPT_SECONDS = 600.0
MAX_UPLOADS = 64
_MAX_DONE = 256
_MAX_KEY = 256


class Upload:
    """`path` is the real target. Without a descriptor it is done: all that is known is how long it was."""

    __slots__ = ("fd", "heard", "key", "path", "taken", "temporary", "writer")

    def __init__(self, key: str, path: str, temporary: str, fd: int) -> None:
        self.key = key
        self.path = path
        self.temporary = temporary
        self.fd = fd
        self.taken = 0
        self.heard = time.monotonic()
        self.writer: UploadSink | None = None

    @property
    def done(self) -> bool:
        return self.fd < 0

    def discard(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            _unlink(self.temporary)


class Uploads:
    """The uploads that are known, by their keys."""

    def __init__(self) -> None:
        self.known: dict[str, Upload] = {}

    def expire(self, now: float) -> None:
        """Drops what was silent for too long."""
        for upload in [u for u in self.known.values() if u.writer is None and now - u.heard > KEPT_SECONDS]:
            self.drop(upload)

    def drop(self, upload: Upload) -> None:
        upload.discard()
        self.known.pop(upload.key, None)

    def make_room(self) -> None:
        """The one silent for longest makes way. Raises Refused when all are being written."""
        done = [upload for upload in self.known.values() if upload.done]
        for upload in done[: max(0, len(done) - _MAX_DONE)]:
            self.drop(upload)
        if len(self.known) - len(done) < MAX_UPLOADS:
            return
        idle = [upload for upload in self.known.values() if not upload.done and upload.writer is None]
        if not idle:
            raise Refused("limit_exceeded", f"at most {MAX_UPLOADS} uploads at a time")
        self.drop(min(idle, key=lambda upload: upload.heard))

    def close(self) -> None:
        for upload in list(self.known.values()):
            self.drop(upload)


UPLOADS = Uploads()
"""Of this agent: uploads belong to no session and no stream."""


def uploaded(_ctx: Context, args: Args) -> Answer:
    """How many bytes of it were taken; 0 for an unknown one."""
    upload = UPLOADS.known.get(arguments.text(args, "upload"))
    return {"offset": 0 if upload is None else upload.taken}


class UploadSink:
    """One part of an upload."""

    def __init__(self, ctx: Context, args: Args) -> None:
        self._table = UPLOADS
        self._table.expire(time.monotonic())
        key = arguments.text(args, "upload")
        if len(key) > _MAX_KEY:
            raise Refused("invalid_argument", f"the key of an upload has at most {_MAX_KEY} characters")
        self._shown = ctx.resolve(args.get("path"))
        start = arguments.number(args, "offset", 0)
        self._last = arguments.flag(args, "last", True)
        self._append = arguments.flag(args, "append")
        self._mode = arguments.optional_number(args, "mode", most=0o7777)
        self._owner = ctx.uid_gid(args.get("user"))
        self._owner_asked = args.get("user") is not None
        path = os.path.realpath(self._shown)
        self._upload = self._find(key, path, start) or self._start(key, path, arguments.flag(args, "parents", True))
        self._upload.writer = self
        self._upload.heard = time.monotonic()

    @property
    def offset(self) -> int:
        return self._upload.taken

    def write(self, data: memoryview) -> None:
        upload = self._mine()
        if upload.done:
            raise Refused("conflict", f"the upload to {printable(self._shown)} is finished")
        try:
            while data:
                count = os.write(upload.fd, data)
                upload.taken += count
                data = data[count:]
        except OSError as error:
            # Nothing is left behind on a full disk; the caller may start again with the same key.
            self._table.drop(upload)
            raise refusal(error, self._shown) from None
        upload.heard = time.monotonic()

    def finish(self) -> Answer | Steps:
        upload = self._mine()
        upload.heard = time.monotonic()
        if upload.done or not self._last:
            upload.writer = None
            return {"offset": upload.taken}
        return self._finish(upload)

    def abort(self) -> None:
        """The part ends here; the upload stays, to be gone on with."""
        if self._upload.writer is self:
            self._upload.writer = None

    def _mine(self) -> Upload:
        if self._upload.writer is not self:
            raise Refused("conflict", f"another writer took over the upload to {printable(self._shown)}")
        return self._upload

    def _find(self, key: str, path: str, start: int) -> Upload | None:
        upload = self._table.known.get(key)
        if upload is not None and upload.path != path:
            raise Refused("conflict", f"this upload goes to {printable(upload.path)}")
        if start > (0 if upload is None else upload.taken):
            raise Refused("conflict", f"a part is missing: {0 if upload is None else upload.taken} bytes were taken")
        return upload

    def _start(self, key: str, path: str, parents: bool) -> Upload:
        self._table.make_room()
        if parents:
            make_parents(path, self._owner)
        with refusing(self._shown):
            before = self._before(path)
            if before is not None and not stat.S_ISREG(before.st_mode):
                what = "is a directory" if stat.S_ISDIR(before.st_mode) else "is not a regular file"
                raise Refused("conflict", f"{printable(self._shown)} {what}")
            temporary = beside(path)
            fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        upload = Upload(key, path, temporary, fd)
        self._table.known[key] = upload
        return upload

    def _finish(self, upload: Upload) -> Steps:
        try:
            with refusing(self._shown):
                before = self._before(upload.path)
                if self._append and before is not None:
                    yield from _copy_into(upload, os.O_APPEND)
                    self._dress(upload.path, before, only_asked=True)
                else:
                    self._dress(upload.temporary, before)
                    try:
                        os.rename(upload.temporary, upload.path)
                    except OSError as error:
                        if error.errno != errno.EBUSY:
                            raise
                        # A file that is a mount point, such as /etc/hosts: it cannot be replaced, only filled.
                        yield from _copy_into(upload, os.O_TRUNC)
        except BaseException:
            self._table.drop(upload)
            raise
        upload.discard()
        upload.writer = None
        return {"offset": upload.taken}

    @staticmethod
    def _before(path: str) -> os.stat_result | None:
        try:
            return os.lstat(path)
        except FileNotFoundError:
            return None

    def _dress(self, path: str, before: os.stat_result | None, *, only_asked: bool = False) -> None:
        """Owner and mode: those asked for, else those of the file that was there, else the usual ones."""
        if self._owner_asked or (before is None and not only_asked):
            os.chown(path, *self._owner)
        elif before is not None and not only_asked:
            os.chown(path, before.st_uid, before.st_gid)
        if self._mode is not None:
            os.chmod(path, self._mode)
        elif not only_asked:
            os.chmod(path, 0o644 if before is None else stat.S_IMODE(before.st_mode))


def _copy_into(upload: Upload, how: int) -> Generator[None]:
    """Fills the file that is there; with O_APPEND a failure takes back what was added."""
    os.lseek(upload.fd, 0, os.SEEK_SET)
    target = os.open(upload.path, os.O_WRONLY | how | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    size = os.fstat(target).st_size
    try:
        yield from copy_bytes(upload.fd, target)
    except BaseException:
        if how == os.O_APPEND:
            _truncate(target, size)
        raise
    finally:
        os.close(target)


def _unlink(path: str) -> None:
    """One that is gone is fine."""
    try:
        os.unlink(path)
    except OSError:
        return


def _truncate(fd: int, size: int) -> None:
    try:
        os.ftruncate(fd, size)
    except OSError:
        return
