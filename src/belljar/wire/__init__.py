"""Frames between the server and the agent. See docs/wire.md; import from the modules."""

__all__ = ()
