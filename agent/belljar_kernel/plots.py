"""Figures of matplotlib: shown as PNG and as chart data when `show` is called and at the end of the cell, then closed.

Nothing is imported for it. When the code imports matplotlib its backend becomes `inline.py`, unless the code or its environment
chose one; figures of Agg, which scripts for servers choose, are shown too.
"""
# pyright: basic

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import io
import os
import sys
from typing import TYPE_CHECKING, Any

from belljar_kernel.charts import keep_boxes

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("Figures", "show_all")

_PIXELS = 40_000_000
_active: Figures | None = None


class Figures:
    """The cell's figures."""

    def __init__(self, shell: Any) -> None:
        global _active
        _active = self
        self._shell = shell
        formatter = shell.display_formatter.formatters["image/png"]
        formatter.for_type_by_name("matplotlib.figure", "Figure", _png)
        sys.meta_path.insert(0, _OnImport())

    def show(self) -> None:
        """All that pyplot holds; they are closed, so each is shown once."""
        pyplot = sys.modules.get("matplotlib.pyplot")
        helpers = sys.modules.get("matplotlib._pylab_helpers")
        if pyplot is None or helpers is None:
            return
        try:
            for manager in helpers.Gcf.get_all_fig_managers():
                figure = manager.canvas.figure
                if figure.get_axes() or figure.lines or figure.patches or figure.texts:
                    self._show(figure)
        finally:
            self.close()

    def close(self) -> None:
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is not None:
            pyplot.close("all")

    def _show(self, figure: Any) -> None:
        if id(figure) in self._shell.screen.figures:
            return  # the code displayed it itself
        data, metadata = self._shell.display_formatter.format(figure)
        self._shell.screen.show(data, extra={"metadata": metadata} if metadata else None)


def show_all() -> None:
    if _active is not None:
        _active.show()


def _png(figure: Any) -> bytes | None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # pyright: ignore[reportMissingImports]

    dots = figure.dpi
    width, height = figure.get_size_inches()
    pixels = width * height * dots * dots
    if pixels > _PIXELS:
        dots *= (_PIXELS / pixels) ** 0.5
    kept = figure.canvas
    try:
        with io.BytesIO() as file:
            FigureCanvasAgg(figure).print_figure(file, format="png", dpi=dots, bbox_inches="tight")
            return file.getvalue()
    finally:
        figure.set_canvas(kept)


def _choose_backend(module: Any) -> None:
    if not os.environ.get("MPLBACKEND"):
        module.rcParams["backend"] = "module://belljar_kernel.inline"


class _OnImport(importlib.abc.MetaPathFinder):
    """Sees parts of matplotlib being imported, each once."""

    def __init__(self) -> None:
        self._after = {"matplotlib": _choose_backend, "matplotlib.axes._axes": lambda module: keep_boxes(module.Axes)}

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        after = self._after.pop(name, None)
        if after is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None and hasattr(spec.loader, "exec_module"):
            run = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                run(module)
                with contextlib.suppress(Exception):
                    after(module)

            spec.loader.exec_module = exec_module  # pyright: ignore[reportAttributeAccessIssue]
        return spec
