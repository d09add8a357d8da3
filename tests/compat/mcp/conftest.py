"""One real server for all of these tests; its sandboxes are ended by those who made them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.api.sdk.belljar_command import Command
from tests.compat.servers import real_server

__all__ = ("belljar", "environ")


@pytest.fixture(scope="session")
def environ() -> Iterator[dict[str, str]]:
    """Variables that lead to it."""
    with real_server() as found:
        yield found


@pytest.fixture
def belljar(environ: dict[str, str], tmp_path: Path) -> Command:
    """The command line, which sees all sandboxes."""
    return Command(environ, tmp_path)
