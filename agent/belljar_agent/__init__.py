"""Belljar's program inside a sandbox: PID 1, or an ordinary process with ``--plain``."""

from __future__ import annotations

__all__ = ("__version__",)

__version__ = "1"
