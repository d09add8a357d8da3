"""What also runs inside, as text that the executor sends: Python 3.9 or newer, nothing but its standard library needed.

On the host it is imported like any other package; inside it is a package of its own name. Hence its relative imports.
"""

__all__ = ("MODULES",)

MODULES = ("codec", "arrays", "frames", "loading", "stubs", "whole")
"""In the order in which they are loaded inside."""
