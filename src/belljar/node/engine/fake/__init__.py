"""An engine without isolation, for tests of everything above it."""

from belljar.node.engine.fake.driver import FakeEngine
from belljar.node.engine.fake.plan import FakePlan

__all__ = ("FakeEngine", "FakePlan")
