"""DataFrames: shown in bounded size and time, and as data."""

import json
import time
from typing import Any

import pytest

from .conftest import KernelProcess, Ran

DATA = "application/vnd.belljar.data+json"


@pytest.fixture
def frames(kernel: KernelProcess) -> KernelProcess:
    assert kernel.run("import pandas as pd, numpy as np").status == "ok"
    return kernel


def data(ran: Ran) -> Any:
    return ran.main[DATA]


def test_a_frame_is_text_html_and_data(frames: KernelProcess) -> None:
    code = """pd.DataFrame({
    'n': [1, 2], 'f': [1.5, float('nan')], 's': ['x', None], 't': pd.to_datetime(['2024-01-02', None]),
    'b': [True, False], 'o': [{'k': 1}, b'raw'], 'i': [10**30, 1],
}, index=pd.Index(['r', 's'], name='key'))"""
    ran = frames.run(code)
    assert ran.main.keys() == {"text/plain", "text/html", DATA}
    found = data(ran)
    assert found["columns"] == ["n", "f", "s", "t", "b", "o", "i"]
    assert found["index"] == ["r", "s"]
    assert found["data"][0] == [1, 1.5, "x", "2024-01-02T00:00:00", True, "{'k': 1}", str(10**30)]
    assert found["data"][1][:5] == [2, None, None, None, False]
    assert found["dtypes"][:2] == ["int64", "float64"]
    assert (found["rows"], found["truncated"]) == (2, False)


def test_a_million_rows_are_shown_in_bounded_size_and_time(frames: KernelProcess) -> None:
    frames.run("df = pd.DataFrame(np.random.rand(1_000_000, 4), columns=list('abcd'))")
    began = time.monotonic()
    ran = frames.run("df")
    assert time.monotonic() - began < 3
    assert (data(ran)["rows"], len(data(ran)["data"]), data(ran)["truncated"]) == (1_000_000, 1000, True)
    assert len(json.dumps(ran.main)) < 2 << 20
    frames.run("pd.set_option('display.max_rows', None); pd.set_option('display.max_columns', None)")
    began = time.monotonic()
    everything = frames.run("df")
    assert time.monotonic() - began < 10, "also where the code asked for all rows"
    assert len(everything.text) <= 1 << 20
    assert frames.run("pd.get_option('display.max_rows') is None").text == "True"


def test_wide_and_odd_frames_are_bounded(frames: KernelProcess) -> None:
    wide = frames.run("pd.DataFrame(np.zeros((50, 5000)))")
    assert len(json.dumps(data(wide))) <= 1 << 20 and data(wide)["truncated"]
    fat = frames.run("pd.DataFrame({'t': ['x' * 100_000] * 1000})")
    assert len(json.dumps(data(fat))) <= 1 << 20
    assert data(frames.run("pd.DataFrame()"))["data"] == []
    twice = data(frames.run("pd.DataFrame([[1, 'a']], columns=['x', 'x'])"))
    assert (twice["columns"], twice["data"]) == (["x", "x"], [[1, "a"]])
    levels = data(frames.run("pd.DataFrame({('a', 'b'): [1]}, index=pd.MultiIndex.from_tuples([(1, 'k')]))"))
    assert (levels["columns"], levels["index"]) == ([["a", "b"]], [[1, "k"]])
    hostile = frames.run(
        "class H:\n  def __str__(self): raise ValueError\n  __repr__ = __str__\npd.DataFrame({'h': [H()]})"
    )
    assert hostile.status == "ok" and DATA not in hostile.main
    assert frames.run("pd.Series([1, 2]).sum()").text in ("3", "np.int64(3)")


def test_arrays_are_shown_short(frames: KernelProcess) -> None:
    frames.run("import sys; np.set_printoptions(threshold=sys.maxsize); big = np.arange(20_000_000)")
    began = time.monotonic()
    ran = frames.run("big")
    assert "..." in ran.text and len(ran.text) < 2000
    assert time.monotonic() - began < 5
    assert frames.run("np.get_printoptions()['threshold'] == sys.maxsize").text == "True"
