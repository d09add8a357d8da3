"""One real server for all pages."""

from collections.abc import Iterator

import pytest
from tests.compat.servers import real_server

__all__ = ("server",)


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    """Variables that lead to it."""
    with real_server() as environ:
        yield environ
