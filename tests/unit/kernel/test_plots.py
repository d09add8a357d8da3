"""Figures of matplotlib: the picture, and the data of its charts."""

import base64
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import KernelProcess, Ran

CHART = "application/vnd.belljar.chart+json"
Start = Callable[..., KernelProcess]


@pytest.fixture
def plots(kernel: KernelProcess) -> KernelProcess:
    assert kernel.run("import matplotlib.pyplot as plt, numpy as np, datetime").status == "ok"
    return kernel


def chart(ran: Ran) -> Any:
    (shown,) = ran.shown
    assert base64.b64decode(shown["image/png"]).startswith(b"\x89PNG")
    return shown[CHART]


def test_a_figure_is_shown_once_and_closed(plots: KernelProcess) -> None:
    code = "plt.plot([1, 2, 3], [4.5, 5, float('nan')], label='a'); plt.title('T'); plt.xlabel('time (s)'); plt.ylabel('v');"
    found = chart(plots.run(code))
    assert (found["type"], found["title"]) == ("line", "T")
    assert found["series"] == [{"label": "a", "points": [[1, 4.5], [2, 5], [3, None]]}]
    assert (found["x"]["label"], found["x"]["unit"], found["x"]["scale"]) == ("time (s)", "s", "linear")
    assert (found["y"]["label"], found["y"]["unit"]) == ("v", None)
    assert found["x"]["ticks"][0] == 1 and len(found["x"]["ticks"]) == len(found["x"]["tick_labels"])
    assert plots.run("plt.get_fignums()").text == "[]"
    assert plots.run("1").shown == []


def test_show_shows_where_it_stands_and_a_figure_as_value_is_not_shown_again(plots: KernelProcess) -> None:
    ran = plots.run("plt.plot([1]); plt.show(); print('between'); plt.plot([2]); plt.show()")
    assert [event["kind"] for event in ran.events] == ["result", "stdout", "result", "done"]
    value = plots.run("fig, ax = plt.subplots(); ax.plot([1]); fig")
    assert value.shown == [] and CHART in value.main and "image/png" in value.main
    assert plots.run("display(fig)").shown[0][CHART]["type"] == "line"
    assert plots.run("plt.figure();").shown == [], "an empty one is not shown"
    failed = plots.run("plt.plot([1])\n1 / 0")
    assert failed.error is not None and len(failed.shown) == 1, "what was drawn before an error is shown"


def test_scatter_scales_and_log(plots: KernelProcess) -> None:
    found = chart(plots.run("plt.scatter([1, 10], [2, 3], label='s'); plt.xscale('log'); plt.legend();"))
    assert found["type"] == "scatter" and found["series"] == [{"label": "s", "points": [[1, 2], [10, 3]]}]
    assert found["x"]["scale"] == "log"


def test_bars_have_labels_groups_and_values(plots: KernelProcess) -> None:
    code = "plt.bar(['x', 'y'], [1, 2], label='g'); plt.bar(['x', 'y'], [3, 4], bottom=[1, 2], label='h');"
    found = chart(plots.run(code))
    assert (found["type"], found["x"]["scale"]) == ("bar", "categorical")
    assert found["bars"] == [
        {"label": "x", "group": "g", "value": 1},
        {"label": "y", "group": "g", "value": 2},
        {"label": "x", "group": "h", "value": 3},
        {"label": "y", "group": "h", "value": 4},
    ]
    across = chart(plots.run("plt.barh(['p', 'q'], [5, 6]);"))
    assert [(bar["label"], bar["value"]) for bar in across["bars"]] == [("p", 5), ("q", 6)]
    ticks = chart(plots.run("plt.bar([0, 1], [1, 2]); plt.xticks([0, 1], ['a', 'b']);"))
    assert [bar["label"] for bar in ticks["bars"]] == ["a", "b"]
    histogram = chart(plots.run("plt.hist([1, 2, 2, 3], bins=2);"))
    assert [bar["value"] for bar in histogram["bars"]] == [1, 3]


def test_pie_box_and_time(plots: KernelProcess) -> None:
    pie = chart(plots.run("plt.pie([1, 3], labels=['p', 'q']); plt.title('P');"))
    assert pie == {
        "type": "pie", "title": "P",
        "slices": [{"label": "p", "angle": 90, "radius": 1}, {"label": "q", "angle": 270, "radius": 1}],
    }  # fmt: skip
    box = chart(plots.run("plt.boxplot([[1, 2, 3, 4, 50], [2, 3, 4]]); plt.xticks([1, 2], ['one', 'two']);"))
    assert box["type"] == "box"
    assert box["boxes"][0] == {
        "label": "one", "min": 1, "first_quartile": 2, "median": 3, "third_quartile": 4, "max": 4, "outliers": [50],
    }  # fmt: skip
    days = "[datetime.datetime(2024, 1, 1), datetime.datetime(2024, 2, 1, 12)]"
    time = chart(plots.run(f"plt.plot({days}, [1, 2]);"))
    assert time["x"]["scale"] == "datetime"
    assert [point[0] for point in time["series"][0]["points"]] == ["2024-01-01T00:00:00", "2024-02-01T12:00:00"]


def test_several_axes_are_a_superchart_and_the_rest_is_unknown(plots: KernelProcess) -> None:
    code = "fig, (a, b) = plt.subplots(1, 2); a.plot([1]); a.axhline(1); b.bar(['x'], [1]); b.plot([2]); fig.suptitle('S');"
    found = chart(plots.run(code))
    assert (found["type"], found["title"]) == ("superchart", "S")
    assert [one["type"] for one in found["charts"]] == ["line", "bar", "line"]
    assert chart(plots.run("plt.imshow(np.zeros((3, 3))); plt.colorbar();"))["type"] == "unknown"
    assert chart(plots.run("plt.figure().add_subplot(projection='3d').plot([1], [2], [3]);"))["type"] == "unknown"
    errors = chart(plots.run("plt.errorbar([1, 2], [3, 4], yerr=0.1, capsize=3, label='e');"))
    assert [one["points"] for one in errors["series"]] == [[[1, 3], [2, 4]]]


def test_pandas_draws_the_same_way(plots: KernelProcess) -> None:
    plots.run("import pandas as pd; df = pd.DataFrame({'a': [1, 2], 'b': [3, 4]}, index=['r', 's'])")
    bars = chart(plots.run("df.plot.bar();"))
    assert [(bar["label"], bar["group"], bar["value"]) for bar in bars["bars"]][:2] == [("r", "a", 1), ("s", "a", 2)]
    assert chart(plots.run("df.plot(kind='box');"))["boxes"][1]["label"] == "b"
    lines = chart(plots.run("df.plot();"))
    assert [one["label"] for one in lines["series"]] == ["a", "b"]


def test_pictures_and_data_are_bounded(plots: KernelProcess) -> None:
    many = chart(plots.run("plt.plot(np.arange(1_000_000));"))
    assert len(many["series"][0]["points"]) <= 10_000 and many["series"][0]["truncated"]
    huge = plots.run("plt.figure(figsize=(900, 900)); plt.plot([1, 2]);")
    assert huge.status == "ok" and len(huge.shown) == 1
    wide = plots.run("fig, axes = plt.subplots(10, 12)\nfor ax in axes.flat: ax.plot(range(500))\nplt.show()")
    assert wide.status == "ok" and len(wide.shown[0][CHART]["charts"]) <= 64


def test_a_backend_that_the_code_chose_is_kept_and_its_figures_are_shown(kernel_of: Start) -> None:
    kernel = kernel_of()
    ran = kernel.run("import matplotlib\nmatplotlib.use('Agg')\nimport matplotlib.pyplot as plt\nplt.plot([1]);")
    assert chart(ran)["type"] == "line"
    assert kernel.run("matplotlib.get_backend().lower()").text == "'agg'"
    chosen = kernel_of(MPLBACKEND="svg")
    assert chosen.run("import matplotlib.pyplot as plt; plt.plot([1]); plt.get_backend().lower()").text == "'svg'"


def test_pillow_images_and_hostile_figures(plots: KernelProcess) -> None:
    image = plots.run("from PIL import Image; Image.new('RGB', (4, 4))").main
    assert base64.b64decode(image["image/png"]).startswith(b"\x89PNG")
    ran = plots.run("class T(str): pass\nfig = plt.figure(); ax = fig.add_subplot(); ax.plot([1]); ax.get_title = None")
    assert ran.status == "ok" and "image/png" in ran.shown[0]
    broken = plots.run("fig = plt.figure(); fig.add_subplot().plot([1]); fig.savefig = fig.draw = None")
    assert broken.status == "ok"
    assert plots.run("1 + 1").text == "2"
