"""Client of a Belljar server. `belljar` itself has the public names."""

__all__ = ()
