"""Endurance: what a server holds after thousands of sandboxes."""

__all__ = ()
