"""The backend that matplotlib gets: Agg's canvas, and a `show` that shows. Only matplotlib imports it."""
# pyright: basic, reportMissingImports=false

from __future__ import annotations

from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg as FigureCanvas

from belljar_kernel.plots import show_all

__all__ = ("FigureCanvas", "show")


def show(*_: Any, **__: Any) -> None:
    """What `plt.show()` calls."""
    show_all()
