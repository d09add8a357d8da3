"""The data of a matplotlib figure: what kind of chart each of its axes has, its series, axes and words.

A chart is `{type, title, x, y, …}`; `x` and `y` are `{label, unit, scale, ticks, tick_labels}`. By type: line and scatter have
`series: [{label, points: [[x, y]]}]`, bar `bars: [{label, group, value}]`, pie `slices: [{label, angle, radius}]` (degrees), box
`boxes: [{label, min, first_quartile, median, third_quartile, max, outliers}]`. A figure with several is a superchart:
`{type: "superchart", title, charts: […]}`. What is none of these is of type unknown.
"""
# pyright: basic

from __future__ import annotations

import contextlib
import functools
import json
import math
import re
import sys
from typing import Any

__all__ = ("CHART", "figure_chart", "keep_boxes")

CHART = "application/vnd.belljar.chart+json"
_POINTS = 10_000
_BYTES = 1 << 20
_TICKS = 100
_CHARTS = 64
_TEXT = 500
_UNIT = re.compile(r"[(\[]\s*([^()\[\]]{1,40}?)\s*[)\]]\s*$")
_BOXES = "_belljar_boxes"


def figure_chart(figure: Any) -> dict[str, Any] | None:
    """Of a figure that was drawn, so that its ticks have words. None where there is nothing."""
    shown = [axes for axes in figure.get_axes() if axes.get_visible() and not hasattr(axes, "_colorbar")]
    points = _POINTS
    while points:
        charts = [chart for axes in shown[:_CHARTS] for chart in _charts(axes, points)]
        if not charts:
            return None
        title = _title(figure)
        value = charts[0] if len(charts) == 1 else {"type": "superchart", "title": title, "charts": charts}
        if len(charts) == 1 and value["title"] is None:
            value["title"] = title
        if len(json.dumps(value)) <= _BYTES:
            return value
        points //= 4
    return None


def keep_boxes(axes_class: Any) -> None:
    """From now on a box plot leaves its numbers with its axes: the lines that it draws no longer have them."""
    draw = axes_class.bxp

    @functools.wraps(draw)
    def bxp(axes: Any, bxpstats: Any, *words: Any, **named: Any) -> Any:
        bxpstats = list(bxpstats)
        drawn = draw(axes, bxpstats, *words, **named)
        with contextlib.suppress(Exception):
            axes.__dict__.setdefault(_BOXES, []).extend(bxpstats)
        return drawn

    axes_class.bxp = bxp


def _charts(axes: Any, points: int) -> list[dict[str, Any]]:
    base: dict[str, Any] = {
        "title": _words(axes.get_title() or axes.get_title(loc="left") or axes.get_title(loc="right"))
    }
    if getattr(axes, "name", "") != "rectilinear":
        return [{"type": "unknown", **base}]
    slices = _slices(axes)
    if slices:
        return [{"type": "pie", **base, "slices": slices}]
    base.update(x=_axis(axes.xaxis), y=_axis(axes.yaxis))
    charts: list[dict[str, Any]] = []
    boxes = getattr(axes, _BOXES, None)
    if boxes:
        # The lines of the axes are those of the boxes.
        return [{"type": "box", **base, "boxes": _boxes(axes, boxes, points)}]
    bars = _bars(axes, points)
    if bars:
        charts.append({"type": "bar", **base, "bars": bars})
    for kind, series in (("scatter", _scatters(axes, points)), ("line", _lines(axes, points))):
        if series:
            charts.append({"type": kind, **base, "series": series})
    if not charts and (axes.images or axes.collections or axes.patches or axes.texts):
        charts.append({"type": "unknown", **base})
    return charts


def _lines(axes: Any, points: int) -> list[dict[str, Any]]:
    series = []
    for line in axes.lines:
        # Not a rule across the axes, nor an error bar's cap.
        if (
            line.get_transform() == axes.transData
            and len(line.get_xdata())
            and line.get_visible()
            and not _is_part(axes, line)
        ):
            values = _pairs(axes, line.get_xdata(orig=False), line.get_ydata(orig=False), points)
            series.append({"label": _label(line), **values})
    return series


def _scatters(axes: Any, points: int) -> list[dict[str, Any]]:
    series = []
    for drawn in axes.collections:
        if type(drawn).__name__ == "PathCollection" and drawn.get_visible():
            offsets = drawn.get_offsets()
            if len(offsets):
                series.append({"label": _label(drawn), **_pairs(axes, offsets[:, 0], offsets[:, 1], points)})
    return series


def _bars(axes: Any, points: int) -> list[dict[str, Any]]:
    bars = []
    for container in axes.containers:
        if type(container).__name__ != "BarContainer":
            continue
        across = getattr(container, "orientation", "vertical") == "horizontal"
        place = _place(axes.yaxis if across else axes.xaxis)
        group = _label(container)
        for patch in container.patches[:points]:
            if across:
                middle, value = patch.get_y() + patch.get_height() / 2, patch.get_width()
            else:
                middle, value = patch.get_x() + patch.get_width() / 2, patch.get_height()
            where = place(middle)
            label = where if isinstance(where, str) else f"{where:.6g}" if where is not None else ""
            bars.append({"label": label, "group": group, "value": _number(value)})
    return bars


def _slices(axes: Any) -> list[dict[str, Any]]:
    wedges = [patch for patch in axes.patches if type(patch).__name__ == "Wedge"]
    return [
        {"label": _label(wedge), "angle": _number(abs(wedge.theta2 - wedge.theta1)), "radius": _number(wedge.r)}
        for wedge in wedges[:_POINTS]
    ]


def _boxes(axes: Any, stats: list[Any], points: int) -> list[dict[str, Any]]:
    labels = [tick.get_text() for tick in axes.get_xticklabels()]
    if len(labels) < len(stats):
        labels = [tick.get_text() for tick in axes.get_yticklabels()]
    return [
        {
            "label": str(one.get("label") or (labels[index] if index < len(labels) else ""))[:_TEXT],
            "min": _number(one.get("whislo")),
            "first_quartile": _number(one.get("q1")),
            "median": _number(one.get("med")),
            "third_quartile": _number(one.get("q3")),
            "max": _number(one.get("whishi")),
            "outliers": [_number(value) for value in list(one.get("fliers", ()))[:points]],
        }
        for index, one in enumerate(stats[:points])
    ]


def _is_part(axes: Any, line: Any) -> bool:
    """Caps of error bars and the like: lines that belong to a container other than as its data."""
    for container in axes.containers:
        if type(container).__name__ == "ErrorbarContainer":
            _, caps, _ = container.lines
            if any(line is cap for cap in caps):
                return True
    return False


def _pairs(axes: Any, xs: Any, ys: Any, points: int) -> dict[str, Any]:
    """Points as they are read off the axes; of very many every n-th."""
    count = min(len(xs), len(ys))
    step = max(1, math.ceil(count / points))
    x, y = _place(axes.xaxis), _place(axes.yaxis)
    found: dict[str, Any] = {"points": [[x(xs[n]), y(ys[n])] for n in range(0, count, step)]}
    if step > 1:
        found["truncated"] = True
    return found


def _axis(axis: Any) -> dict[str, Any]:
    label = _words(axis.get_label().get_text())
    unit = _UNIT.search(label) if label else None
    place = _place(axis)
    low, high = sorted(axis.get_view_interval())
    ticks = [(value, text.get_text()) for value, text in zip(axis.get_majorticklocs(), axis.get_majorticklabels())]
    seen = [(value, text) for value, text in ticks if low <= value <= high][:_TICKS]
    return {
        "label": label,
        "unit": unit[1] if unit else None,
        "scale": _scale(axis),
        # Steps of 0.2 add up to 0.6000000000000001.
        "ticks": [place(float(f"{value:.12g}")) for value, _ in seen],
        "tick_labels": [text[:_TEXT] for _, text in seen],
    }


def _scale(axis: Any) -> str:
    kind = _converter(axis)
    if kind == "StrCategoryConverter" or _has_words(axis):
        return "categorical"
    return "datetime" if "Date" in kind else str(axis.get_scale())[:40]


def _place(axis: Any) -> Any:
    """What a number on this axis means: a number, a time in ISO 8601, a category."""
    kind = _converter(axis)
    if "Date" in kind:
        dates = sys.modules["matplotlib.dates"]
        return lambda value: (
            dates.num2date(value).replace(tzinfo=None).isoformat() if _number(value) is not None else None
        )
    names: dict[int, str] = {}
    if kind == "StrCategoryConverter":
        names = {int(number): str(name)[:_TEXT] for name, number in axis.units._mapping.items()}
    elif _has_words(axis):
        pairs = zip(axis.get_majorticklocs(), axis.get_majorticklabels())
        names = {round(where): text.get_text()[:_TEXT] for where, text in pairs if where == round(where)}

    def read(value: Any) -> Any:
        number = _number(value)
        if number is None or not names:
            return number
        return names.get(round(number), number)

    return read


def _has_words(axis: Any) -> bool:
    """Whether places were given words: `set_xticks(range(3), ["a", "b", "c"])`, as bars of pandas have them."""
    formatter, locator = type(axis.get_major_formatter()).__name__, type(axis.get_major_locator()).__name__
    if locator != "FixedLocator" or formatter not in ("FixedFormatter", "FuncFormatter"):
        return False
    return any(not _is_number(text.get_text()) for text in axis.get_majorticklabels()[:_TICKS])


def _is_number(text: str) -> bool:
    try:
        float(text.replace("\N{MINUS SIGN}", "-"))
    except ValueError:
        return not text
    return True


def _converter(axis: Any) -> str:
    found = axis.get_converter() if hasattr(axis, "get_converter") else axis.converter
    return type(found).__name__


def _title(figure: Any) -> str | None:
    above = getattr(figure, "_suptitle", None)
    return _words(above.get_text()) if above is not None else None


def _label(artist: Any) -> str:
    label = str(artist.get_label())
    return "" if label.startswith("_") else label[:_TEXT]


def _words(text: str) -> str | None:
    return text[:_TEXT] or None


def _number(value: Any) -> float | int | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and abs(number) < 1 << 53 else number
