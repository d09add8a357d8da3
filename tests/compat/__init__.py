"""Other projects' own tests, run against Belljar in environments of their own."""

__all__ = ()
