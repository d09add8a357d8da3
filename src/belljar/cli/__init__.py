"""The command line. `main` is its door."""

__all__ = ()
