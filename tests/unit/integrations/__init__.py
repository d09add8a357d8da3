"""Integrations, without their frameworks."""

__all__ = ()
