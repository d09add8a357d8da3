"""A server as that of the fault tests."""

from tests.faults.conftest import home, host

__all__ = ("home", "host")
