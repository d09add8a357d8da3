"""`belljar mcp` as the official client sees it, on real gVisor."""

__all__ = ()
