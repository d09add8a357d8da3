# Made by scripts/make_sync.py from _async/watching.py: do not edit.
"""Changes of files as they happen."""

import json
from collections.abc import Iterator

from belljar.model.errors import Internal
from belljar.model.file import Change, ChangeKind
from belljar.sdk._sync.files import Files
from belljar.sdk._sync.link import Lost
from belljar.sdk.answers import change_of, error_of_object
from belljar.sdk.patience import Patience

__all__ = ("watch",)
_LONGEST_LINE = 1 << 20


def watch(files: Files, path: str, *, recursive: bool) -> Iterator[Change]:
    """Changes below `path`. After a lost connection the first item is an `overflow`: nobody watched meanwhile.

    Raises NotFound.
    """
    patience = Patience()
    while True:
        body = None
        try:
            body = files.link.open("GET", files.url("watch", path=path, recursive=recursive))
            rest = b""
            while chunk := body.read():
                patience.reset()
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > _LONGEST_LINE:
                    raise Internal("the server's list of changes is none")
                for line in lines:
                    if line.strip():
                        yield _change(line)
            raise Lost("the watch broke off")
        except Lost as lost:
            files.link.recover(patience, lost)
        finally:
            if body is not None:
                body.close()
        yield Change(ChangeKind.OVERFLOW, path)


def _change(line: bytes) -> Change:
    value = json.loads(line)
    if "error" in value:
        raise error_of_object(value["error"])
    return change_of(value)
