"""Changes of files as they happen."""

import json
from collections.abc import AsyncIterator

from belljar.model.errors import Internal
from belljar.model.file import Change, ChangeKind
from belljar.sdk._async.files import AsyncFiles
from belljar.sdk._async.link import Lost
from belljar.sdk.answers import change_of, error_of_object
from belljar.sdk.patience import Patience

__all__ = ("watch",)

_LONGEST_LINE = 1 << 20


async def watch(files: AsyncFiles, path: str, *, recursive: bool) -> AsyncIterator[Change]:
    """Changes below `path`. After a lost connection the first item is an `overflow`: nobody watched meanwhile.

    Raises NotFound.
    """
    patience = Patience()
    while True:
        body = None
        try:
            body = await files.link.open("GET", files.url("watch", path=path, recursive=recursive))
            rest = b""
            while chunk := await body.read():
                patience.reset()
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > _LONGEST_LINE:
                    raise Internal("the server's list of changes is none")
                for line in lines:
                    if line.strip():
                        yield _change(line)
            raise Lost("the watch broke off")
        except Lost as lost:
            await files.link.recover(patience, lost)
        finally:
            if body is not None:
                await body.aclose()
        yield Change(ChangeKind.OVERFLOW, path)


def _change(line: bytes) -> Change:
    value = json.loads(line)
    if "error" in value:
        raise error_of_object(value["error"])
    return change_of(value)
