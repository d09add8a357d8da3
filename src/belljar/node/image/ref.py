"""Names of images."""

import re

from belljar.model.errors import InvalidArgument

__all__ = ("check_image_name",)

MAX_LENGTH = 255
_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_NAME = re.compile(
    rf"(?:{_PART}(?::\d{{1,5}})?/)?{_PART}(?:/{_PART})*(?::\w[\w.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?", re.A
)


def check_image_name(name: str) -> str:
    """The name itself. Raises InvalidArgument unless it could name an image: ``base``, ``python:3.13``, ``host/team/tool:1``."""
    if not name:
        raise InvalidArgument("the name of an image is empty")
    if len(name) > MAX_LENGTH or not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"not the name of an image: {name[:80]!r}",
            hint="lower-case letters, digits and inner . _ - in parts separated by /, then a tag, as in base or python:3.13",
        )
    return name
