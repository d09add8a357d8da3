"""Copies a part of a file inside the host's kernel, which shares it where the file system can."""

import errno
import os

__all__ = ("copy_part",)

_NOT_HERE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def copy_part(source: int, place: int, target: int, size: int) -> int:
    """From `place` of the one to where the other stands: the bytes copied, 0 at the end of the source. Raises OSError."""
    try:
        return os.copy_file_range(source, target, size, place)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
    return os.sendfile(target, source, place, size)
