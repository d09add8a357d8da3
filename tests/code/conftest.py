"""Real sandboxes of an embedded server, as those of the fault tests."""

from collections.abc import Iterator

import pytest
from tests.faults.conftest import home, host

import belljar

__all__ = ("home", "host", "sandbox")


@pytest.fixture(scope="module")
def sandbox(home: object) -> Iterator[belljar.Sandbox]:
    """One for all tests of a module; each leaves it usable, which is part of what they show."""
    with belljar.Sandbox.create("code", memory="2GiB") as made:
        yield made
