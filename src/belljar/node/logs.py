"""What processes of sandboxes wrote last, kept for a while after their end: one file each, bounded in age and in all."""

import base64
import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from belljar.base.files import write_atomic
from belljar.base.ids import is_id
from belljar.model.errors import NotFound, SnapshotCorrupt
from belljar.model.process import ProcessInfo, StreamState, Tail
from belljar.node.record import PREFIX
from belljar.node.storage.keys import Keys

__all__ = ("Logs",)

NO_KEYS = Keys()
_STREAMS = ("stdout", "stderr")
_SUFFIX = ".json"
_DAY = 86400.0
_LOOK_EACH = 32
"""So many are added before somebody looks whether they are too many: at most 27 MiB."""


class Logs:
    """A folder of its own: it outlives the records. Everything here blocks. `days`: 0 keeps none; `size`: bytes in all. `keys`:
    the first encrypts.
    """

    def __init__(self, folder: Path, *, days: float, size: int, keys: Keys = NO_KEYS) -> None:
        self._folder = folder
        self._days = days
        self._size = size
        self._keys = keys
        self._added = 0

    def keep(self, id: str, tails: Sequence[Tail]) -> None:
        """In the place of what was kept of it before. Raises OSError (a full disk): then that is lost."""
        if not self._days:
            return
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        data = json.dumps([_said(tail) for tail in tails]).encode()
        if (key := self._keys.current) is not None:
            sealed = base64.b64encode(key.seal(data, id.encode())).decode()
            data = json.dumps({"key": key.id, "sealed": sealed}).encode()
        write_atomic(self._file(id), data, durable=False)
        self._added += 1
        if self._added % _LOOK_EACH == 0:
            self.prune()

    def read(self, id: str) -> list[Tail]:
        """Raises NotFound."""
        gone = NotFound(
            f"what the processes of sandbox {id} wrote is not kept any more",
            hint="it is kept for some days after the end, as long as there is room (BELLJAR_LOGS_DAYS, BELLJAR_LOGS_SIZE)",
        )
        if not is_id(id, PREFIX):
            raise gone
        try:
            return [_tail(one) for one in self._opened(json.loads(self._file(id).read_bytes()), id)]
        except FileNotFoundError:
            raise gone from None
        except (OSError, ValueError, TypeError, KeyError, RecursionError, SnapshotCorrupt) as error:
            # A power cut may have torn it, or its key is gone.
            raise gone from error

    def _opened(self, said: Any, id: str) -> Any:
        if not isinstance(said, dict):
            return said
        sealed = cast("dict[str, str]", said)
        key = self._keys.find(str(sealed["key"]))
        assert key is not None, "it says which one"
        return json.loads(key.unseal(base64.b64decode(sealed["sealed"], validate=True), id.encode()))

    def prune(self) -> int:
        """Takes away what is too old, then the oldest until the rest has room; tells how many."""
        found: list[tuple[float, int, Path]] = []
        for path in self._folder.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                found.append((stat.st_mtime, stat.st_size, path))
        found.sort(reverse=True)
        oldest = time.time() - self._days * _DAY
        for half in self._folder.glob(f".*{_SUFFIX}.*.tmp"):  # of a server that was killed while it wrote
            with contextlib.suppress(FileNotFoundError):
                if half.stat().st_mtime < time.time() - _DAY:
                    half.unlink()
        room, removed = self._size, 0
        for at, size, path in found:
            room -= size
            if room < 0 or at < oldest:
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def _file(self, id: str) -> Path:
        return self._folder / f"{id}{_SUFFIX}"


def _said(tail: Tail) -> dict[str, Any]:
    """Bytes of any kind, and JSON has none; halves of surrogate pairs, which a command may have, are escaped."""
    return asdict(tail) | {name: base64.b64encode(getattr(tail, name)).decode() for name in _STREAMS}


def _tail(said: dict[str, Any]) -> Tail:
    process = said["process"]
    streams = {name: StreamState(**process[name]) for name in _STREAMS}
    known = ProcessInfo(**process | streams | {"argv": tuple(process["argv"])})
    return Tail(known, bool(said["attached"]), *(base64.b64decode(said[name], validate=True) for name in _STREAMS))
