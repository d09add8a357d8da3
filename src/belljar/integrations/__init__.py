"""Belljar inside other projects' frameworks: one module each, which needs that framework. `belljar` itself imports none."""

__all__ = ()
