"""Snapshots in an object store."""

__all__ = ()
