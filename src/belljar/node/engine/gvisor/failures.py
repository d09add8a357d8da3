"""What goes wrong on the host, in the words of the project's error tree."""

import asyncio
import contextlib
import errno
from collections.abc import AsyncGenerator

from belljar.model.errors import DeadlineExceeded, DiskFull, EngineFailed, Error, NoCapacity

__all__ = ("deadline", "engine_failed", "translated")


@contextlib.asynccontextmanager
async def deadline(what: str, timeout: float) -> AsyncGenerator[None]:
    try:
        async with asyncio.timeout(timeout):
            yield
    except DeadlineExceeded:
        raise
    except TimeoutError as error:
        raise DeadlineExceeded(f"{what} took longer than {timeout:g} s") from error


def translated(what: str, error: OSError) -> Error:
    said = f"{what}: {error.strerror or error}" + (f" ({error.filename})" if error.filename else "")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(said)
    if error.errno in (errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE):
        return NoCapacity(said)
    return EngineFailed(said)


def engine_failed(said: str) -> Error:
    """runsc has no codes, but the kernel's own phrases for its error numbers come through."""
    lower = said.lower()
    if "no space left on device" in lower or "disk quota exceeded" in lower:
        return DiskFull(said)
    if "cannot allocate memory" in lower or "resource temporarily unavailable" in lower:
        return NoCapacity(said)
    return EngineFailed(said)
