"""What a cell does and says, on every Python that a kernel is for."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import OLDER, KernelProcess, on_each_python

Start = Callable[..., KernelProcess]


@on_each_python
def test_a_kernel_keeps_state_and_shows_the_last_value(kernel_of: Start, python: str) -> None:
    kernel = kernel_of(python)
    state = kernel.hello()
    assert state["language"] == "python" and state["running"] is None and state["queued"] == []
    assert kernel.run("x = 20").events == [{"key": "k1", "seq": 1, "kind": "done", "status": "ok", "count": 1}]
    shown = kernel.run("x + 1")
    assert (shown.main, shown.count) == ({"text/plain": "21"}, 2)
    assert kernel.run("x;").results == []
    assert kernel.run("x * 2;\n_").text == "21", "the newest value is _"
    assert kernel.run("None").results == []
    assert kernel.run("").status == "ok"
    assert kernel.run("# only words").status == "ok"


@on_each_python
def test_output_comes_live_and_in_order_from_python_and_from_below_it(kernel_of: Start, python: str) -> None:
    kernel = kernel_of(python)
    key = kernel.start(
        "import os, time\nprint('first')\ntime.sleep(0.3)\nos.write(1, b'second\\n')\nprint('third', end='')"
    )
    began = time.monotonic()
    assert kernel.until(key, "stdout")["text"] == "first\n"
    assert time.monotonic() - began < LIVE + 5
    rest = kernel.until(key, "stdout")["text"]
    if rest == "second\n":
        rest += kernel.until(key, "stdout")["text"]
    assert rest == "second\nthird"
    kernel.until(key, "done")
    ran = kernel.run(
        "import sys, subprocess\nprint('a')\nsubprocess.run('echo b; echo c >&2', shell=True)\nprint('d')\n"
    )
    assert (ran.out, ran.err) == ("a\nb\nd\n", "c\n")


LIVE = 0.3


@on_each_python
def test_a_line_without_an_end_is_seen_while_the_cell_runs(kernel_of: Start, python: str) -> None:
    kernel = kernel_of(python)
    key = kernel.start("import time\nprint('half', end='')\ntime.sleep(60)")
    assert kernel.until(key, "stdout")["text"] == "half"
    kernel.send(op="interrupt", key=key)
    assert kernel.until(key, "done")["status"] == "interrupted"


@on_each_python
def test_magics_shells_and_await(kernel_of: Start, python: str) -> None:
    kernel = kernel_of(python)
    assert kernel.run("!echo one; echo two >&2; exit 3\n_exit_code").out == "one\n"
    assert kernel.run("_exit_code").text == "3"
    assert kernel.run("files = !printf 'a\\nb'\nfiles").main["text/plain"].startswith("['a', 'b']")
    assert kernel.run("%%bash\necho $((6*7))").out == "42\n"
    assert "per loop" in kernel.run("%timeit -n 1 -r 1 1 + 1").out
    assert kernel.run("import asyncio\nawait asyncio.sleep(0.01)\n'awaited'").text == "'awaited'"
    assert kernel.run("asyncio.run(asyncio.sleep(0, 'own loop'))").text == "'own loop'"
    pip = kernel.run("%pip --version")
    assert "pip" in (pip.out + pip.err).replace("Note: you may need to restart", ""), "or that there is none"
    assert kernel.run("%cd /\n%pwd").text == "'/'"
    assert "Return the number of items" in kernel.run("len?").out
    assert kernel.run("%matplotlib inline").status == "ok"
    assert kernel.run("%config InlineBackend.figure_format = 'retina'").status == "ok"
    assert kernel.run("%who_ls").status == "ok"
    usage = kernel.run("%no_such_magic")
    assert usage.error is not None and usage.error["name"] == "UsageError"


@on_each_python
def test_errors_have_name_value_and_a_traceback_from_the_cell_on(kernel_of: Start, python: str) -> None:
    kernel = kernel_of(python)
    kernel.run("def f(n):\n    return 1 / n")
    ran = kernel.run("print('before')\nf(0)")
    assert (ran.out, ran.status) == ("before\n", "error")
    assert ran.error is not None
    assert (ran.error["name"], ran.error["value"]) == ("ZeroDivisionError", "division by zero")
    lines = ran.error["traceback"].splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1:3] == ['  File "<cell 2>", line 2, in <module>', "    f(0)"]
    assert '  File "<cell 1>", line 2, in f' in lines
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert "\x1b" not in ran.error["traceback"]
    syntax = kernel.run("def g(:\n  pass")
    assert syntax.error is not None and syntax.error["name"] == "SyntaxError"
    assert '"<cell 3>", line 1' in syntax.error["traceback"]
    open_end = kernel.run("(1,")
    assert open_end.error is not None and open_end.error["name"] == "SyntaxError"
    chained = kernel.run("try:\n    f(0)\nexcept ZeroDivisionError as e:\n    raise KeyError('k') from e")
    assert chained.error is not None and chained.error["value"] == "'k'"
    assert "direct cause" in chained.error["traceback"]
    assert chained.error["traceback"].index("ZeroDivisionError") < chained.error["traceback"].index("KeyError: 'k'")
    own = kernel.run("class FinalAnswerException(BaseException): pass\nraise FinalAnswerException('x' * 500_000)")
    assert own.error is not None
    assert (own.error["name"], len(own.error["value"])) == ("FinalAnswerException", 500_000)


@on_each_python
@pytest.mark.parametrize("code", ["exit()", "quit()", "exit(3)", "import sys; sys.exit('bye')", "raise SystemExit(1)"])
def test_leaving_ends_the_cell_and_not_the_kernel(kernel_of: Start, python: str, code: str) -> None:
    kernel = kernel_of(python)
    kernel.run("kept = 1")
    ran = kernel.run(code)
    assert ran.error is not None and ran.error["name"] == "SystemExit"
    assert ran.err == ""
    assert kernel.run("kept").text == "1"


@on_each_python
def test_nobody_answers_and_descriptor_0_is_empty(kernel_of: Start, python: str) -> None:
    kernel = kernel_of(python)
    ran = kernel.run("input('name? ')")
    assert ran.error is not None and ran.error["name"] == "EOFError"
    assert "nobody" in ran.error["value"]
    hidden = kernel.run("import getpass; getpass.getpass()")
    assert hidden.error is not None and hidden.error["name"] == "EOFError" and "nobody" in hidden.error["value"]
    assert kernel.run("import sys; sys.stdin.read()").text == "''"
    assert kernel.run("!cat").out == ""
    assert kernel.run("breakpoint()").status in ("ok", "error")


@on_each_python
def test_env_is_for_one_cell_and_silent_leaves_no_trace(kernel_of: Start, python: str) -> None:
    kernel = kernel_of(python, KEPT="1")
    code = "import os; os.environ.get('NEW'), os.environ['KEPT']"
    assert kernel.run(code, env={"NEW": "n", "KEPT": "2"}).text == "('n', '2')"
    assert kernel.run("!echo $NEW", env={"NEW": "n"}).out == "n\n"
    assert kernel.run(code).text == "(None, '1')"
    silent = kernel.run("y = 5\ny", silent=True)
    assert (silent.results, silent.count) == ([], 3)
    shown = kernel.run("y")
    assert (shown.text, shown.count) == ("5", 4)


@on_each_python
def test_displays_come_by_kind(kernel_of: Start, python: str) -> None:
    kernel = kernel_of(python)
    code = """
from IPython.display import HTML, JSON, Latex, Markdown, SVG, Javascript, Image
display(HTML("<b>b</b>"), Markdown("*m*"), Latex("$x$"), SVG("<svg></svg>"), Javascript("1"), JSON({"a": [1]}))
display(Image(data=b"\\x89PNG\\r\\n\\x1a\\n" + bytes(40), format="png"))
display({"text/html": "raw", "text/plain": "p"}, raw=True, metadata={"text/html": {"isolated": True}})
class Fig:
    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"application/vnd.plotly.v1+json": {"data": [1]}, "text/plain": "fig", "application/pdf": b"%PDF"}
Fig()
"""
    ran = kernel.run(code)
    kinds = [set(data) - {"text/plain"} for data in ran.shown]
    names = ("text/html", "text/markdown", "text/latex", "image/svg+xml", "application/javascript", "application/json")
    assert kinds == [*({name} for name in names), {"image/png"}, {"text/html"}]
    assert ran.shown[5]["application/json"] == {"a": [1]}
    assert ran.shown[6]["image/png"].startswith("iVBOR")
    assert ran.results[7]["extra"] == {"metadata": {"text/html": {"isolated": True}}}
    assert ran.main == {
        "application/vnd.plotly.v1+json": {"data": [1]}, "text/plain": "fig", "application/pdf": "JVBERg==",
    }  # fmt: skip
    assert kernel.run("{'a': [1, 2.5, None]}").main["application/json"] == {"a": [1, 2.5, None]}
    assert set(kernel.run("{1: 2}").main) == {"text/plain"}, "JSON cannot say it"
    handle = kernel.run("h = display(1, display_id=True)\nh.update(2)")
    assert [event["extra"]["update"] for event in handle.results] == [False, True]


@on_each_python
def test_the_code_is_main_and_finds_its_own_folder(kernel_of: Start, python: str, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("VALUE = 7")
    kernel = kernel_of(python)
    assert kernel.run("import beside; beside.VALUE").text == "7"
    assert kernel.run("__name__, '__file__' in globals()").text == "('__main__', False)"
    kernel.run("import inspect\ndef here():\n    return 1")
    assert kernel.run("print(inspect.getsource(here))").out == "def here():\n    return 1\n\n"
    assert kernel.run("import sys; sys.argv").text == "['']"
    work = "import multiprocessing as m\n"
    work += "def square(x): return x * x\nwith m.get_context('fork').Pool(2) as p: print(p.map(square, [2, 3]))"
    assert kernel.run(work).out == "[4, 9]\n"
    assert list(tmp_path.glob(".ipython*")) == [], "nothing is written into the home"


def test_an_older_python_is_refused_in_words(kernel_of: Start, tmp_path: Path) -> None:
    pretender = tmp_path / "python"  # a machine of today has none that is old enough
    pretends = "import runpy, sys; sys.version_info = (3, 8, 1); del sys.argv[0]; "
    pretends += "runpy.run_path(sys.argv[0], run_name='__main__')"
    pretender.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{pretends}" "$@"\n')
    pretender.chmod(0o755)
    for python in (str(pretender), *OLDER):
        kernel = kernel_of(python)
        refusal = kernel.next()
        assert (refusal["kind"], refusal["code"]) == ("refused", "not_supported")
        assert "too old" in refusal["message"]
        assert kernel.end()[0] == 69
