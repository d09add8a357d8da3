"""The pages of docs/ as tests."""

__all__ = ()
