"""Code that would hang, fill or end its kernel: the cell ends with an error or the kernel ends cleanly. All of it is harmless."""

import time
from collections.abc import Callable

import pytest

from .conftest import KernelProcess, on_each_python

Start = Callable[..., KernelProcess]
NOTE = "[cut: the first "

HOSTILE = {
    "a text that raises": "class E(Exception):\n  def __str__(self): raise ValueError('no')",
    "a text that leaves": "class E(Exception):\n  def __str__(self): raise SystemExit",
    "a text that is none": "class E(Exception):\n  def __str__(self): return 5",
    "a text that recurses": "class E(Exception):\n  def __str__(self): return str(self)",
    "a text of its own class": (
        "class S(str):\n  def __getattribute__(self, n): raise OSError\n  def __iter__(self): raise OSError\n"
        "  def __len__(self): return 10**12\nclass E(Exception):\n  def __str__(self): return S('own')"
    ),
    "a text of 100 MB": "class E(Exception):\n  def __str__(self): return 'x' * 100_000_000",
    "attributes that raise": (
        "class E(Exception):\n  def __getattribute__(self, n):\n    raise SystemExit\n  __cause__ = property(lambda s: 1 / 0)"
    ),
    "a name that lies": "class M(type):\n  __name__ = property(lambda s: 1 / 0)\nclass E(Exception, metaclass=M): pass",
    "notes that are none": "class E(Exception): pass\nE.__notes__ = [object(), 'x' * 10**7] * 100",
    "parts that go round": "class E(Exception): pass\nE.exceptions = (E(), 5)",
    "a traceback renderer": "class E(Exception):\n  def _render_traceback_(self): raise SystemExit",
}


@on_each_python
def test_exceptions_that_fight_back_are_errors_like_others(kernel_of: Start, python: str) -> None:
    kernel = kernel_of(python)
    for what, code in HOSTILE.items():
        ran = kernel.run(code + "\nraise E('e')")
        assert ran.error is not None, what
        assert ran.error["name"] == "E", what
        assert len(ran.error["value"]) <= 1 << 20 and len(ran.error["traceback"]) <= 1 << 20, what
        assert ran.status == "error", what
    assert kernel.run("1 + 1").text == "2"


@on_each_python
def test_recursion_and_long_chains_end_in_time(kernel_of: Start, python: str) -> None:
    kernel = kernel_of(python)
    ran = kernel.run("def f(n): return f(n + 1)\nf(0)")
    assert ran.error is not None and ran.error["name"] == "RecursionError"
    assert len(ran.error["traceback"]) < 20_000
    chain = "e = None\nfor i in range(20_000):\n  n = ValueError(i)\n  n.__cause__ = e\n  e = n\nraise e"
    began = time.monotonic()
    chained = kernel.run(chain)
    assert chained.error is not None and chained.error["value"] == "19999"
    assert "earlier exceptions left out" in chained.error["traceback"]
    assert time.monotonic() - began < 5
    loop = kernel.run("a, b = ValueError('a'), ValueError('b')\na.__cause__, b.__cause__ = b, a\nraise a")
    assert loop.error is not None and loop.error["traceback"].count("ValueError: a") == 1
    deep = kernel.run("x = []\nfor _ in range(100_000): x = [x]\nx")
    assert deep.status == "ok" and len(deep.text) <= 1 << 20


@on_each_python
def test_a_text_that_never_comes_is_interrupted(kernel_of: Start, python: str) -> None:
    kernel = kernel_of(python)
    for code in (
        "class E(Exception):\n  def __str__(self):\n    while True: pass\nprint('in')\nraise E",
        "class R:\n  def __repr__(self):\n    while True: pass\nprint('in')\nR()",
    ):
        key = kernel.start(code)
        kernel.until(key, "stdout")
        time.sleep(0.3)
        kernel.send(op="interrupt", key=key)
        assert kernel.until(key, "done")["status"] in ("interrupted", "error")
    assert kernel.run("1 + 1").text == "2"


@on_each_python
def test_values_that_fight_back_are_shown_as_what_they_are(kernel_of: Start, python: str) -> None:
    kernel = kernel_of(python)
    ran = kernel.run("class R:\n  def __repr__(self): raise ValueError('no repr')\nR()")
    assert (ran.status, ran.text) == ("ok", "<R whose text cannot be made: ValueError>")
    assert "ValueError: no repr" in ran.err
    html = kernel.run(
        "class H:\n  def _repr_html_(self): raise KeyError('html')\n  def __repr__(self): return 'h'\nH()"
    )
    assert (html.status, html.main) == ("ok", {"text/plain": "h"})
    assert "KeyError: 'html'" in html.err
    wrong = kernel.run(
        "class W:\n  def _repr_mimebundle_(self, **k): return {'a/b': object(), 5: 'x', 'c/json': {1, 2}}\nW()"
    )
    assert wrong.status == "ok"
    loop = kernel.run("x = [1]\nx.append(x)\nx")
    assert loop.text == "[1, [...]]"


def test_sizes_are_bounded(kernel: KernelProcess) -> None:
    began = time.monotonic()
    ran = kernel.run("'x' * 500_000_000")
    assert len(ran.text) <= 1 << 20 and NOTE in ran.text and "500000000" in ran.text
    assert len(kernel.run("b'x' * 500_000_000").text) <= 1 << 20
    assert kernel.run("list(range(10_000_000))").text.endswith(" ...]")
    assert "more])" in kernel.run("import array; array.array('d', bytes(800_000_000))").text
    assert "digits" in kernel.run("1 << 10**7").text
    assert len(kernel.run("class R:\n  def __repr__(self): return 'r' * 200_000_000\nR()").text) <= 1 << 20
    rows = kernel.run("[['x' * 1000] * 1000] * 1000")
    assert NOTE in rows.text and len(rows.text) <= 1 << 20
    wide = kernel.run("from IPython.display import HTML\nHTML('x' * 30_000_000)")
    assert "text/html left out" in wide.main["text/plain"] and "text/html" not in wide.main
    assert kernel.run("[1] * 20_000").main.keys() == {"text/plain"}
    assert time.monotonic() - began < 25
    assert kernel.longest <= 64 << 10


def test_a_gigabyte_printed_arrives_whole_and_stays_nowhere(kernel: KernelProcess) -> None:
    kernel.run("import sys")
    before = kernel.memory()
    code = (
        "line = 'x' * 999 + '\\n'\nfor _ in range(100_000): sys.stdout.write(line * 5)\nprint('end', file=sys.stderr)"
    )
    key = kernel.start(code)
    size = 0
    while (event := kernel.next())["kind"] != "done":
        assert event["key"] == key
        if event["kind"] == "stdout":
            assert len(event["text"]) <= 32 << 10
            size += len(event["text"])
    assert size == 500_000_000
    assert kernel.memory() - before < 50 << 20
    last = kernel.run("import os\nos.write(1, b'\\xff\\xfe' + 'é'.encode()[:1])\nprint('x')").out
    assert last.count("\N{REPLACEMENT CHARACTER}") == 3 and last.endswith("x\n")


def test_late_output_comes_with_the_next_cell_the_newest_of_it(kernel: KernelProcess) -> None:
    kernel.run(
        "import threading, time\ndef late():\n    time.sleep(0.3)\n    print('late')\nthreading.Thread(target=late).start()"
    )
    time.sleep(0.8)
    assert kernel.run("print('next')").out == "late\nnext\n"
    kernel.run("import subprocess\nsubprocess.Popen('sleep 0.2; yes | head -c 300000', shell=True)")
    time.sleep(1)
    ran = kernel.run("1")
    assert len(ran.out) == 64 << 10
    assert "left out" in ran.err
    background = kernel.run("p = subprocess.Popen(['yes'])\nprint('began')")
    assert background.status == "ok", "a process that goes on writing does not keep the cell"
    assert kernel.run("p.kill(); p.wait()").text == "-9"


@on_each_python
def test_code_that_closes_or_moves_its_own_descriptors_gets_them_back(kernel_of: Start, python: str) -> None:
    kernel = kernel_of(python)
    kernel.run("import sys")
    for code in (
        "import os; os.close(1); os.close(2)",
        "import sys; sys.stdout.close(); sys.stderr.close()",
        "sys.stdout = None; sys.stderr = None",
        "f = open('/dev/null', 'w'); os.dup2(f.fileno(), 1)",
        "del sys.stdout",
    ):
        kernel.run(code)
        ran = kernel.run("print('back'); sys.stderr.write('too\\n');")
        assert (ran.out, ran.err) == ("back\n", "too\n"), code
    assert kernel.run("import io; sys.stdout = io.StringIO()").status == "ok"
    assert kernel.run("print('there')").out == "", "a stream of the code's own stays"
    assert kernel.run("sys.stdout = sys.__stdout__; print('here')").out == "here\n"


ENDS = {
    "closes every descriptor": "import os; os.closerange(0, 2000)",
    "closes what it finds": "import os\nfor n in os.listdir('/proc/self/fd'):\n  try: os.close(int(n))\n  except OSError: pass",
    "leaves without a word": "import os; os._exit(3)",
    "ends its threads": (
        "import ctypes, threading, time\nfor t in threading.enumerate():\n  if t is not threading.main_thread():\n"
        "    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(t.ident), ctypes.py_object(SystemExit))\n"
        "print('x')\ntime.sleep(60)"
    ),
    "crashes": "import ctypes; ctypes.string_at(0)",
    "kills itself": "import os; os.kill(os.getpid(), 9)",
}


@pytest.mark.parametrize("what", ENDS)
def test_code_that_ends_its_kernel_ends_all_of_it(kernel: KernelProcess, what: str) -> None:
    kernel.run("1")
    kernel.start(ENDS[what])
    status, words = kernel.end()
    assert status != 0
    if what == "crashes":
        assert "Segmentation fault" in words and "<ipython-input" in words


def test_a_forked_child_does_not_speak_for_the_kernel(kernel: KernelProcess) -> None:
    code = "import os\npid = os.fork()\nif pid:\n    os.waitpid(pid, 0)\nprint('parent' if pid else 'child')\n'value'"
    ran = kernel.run(code)
    assert sorted(ran.out.split()) == ["child", "parent"]
    assert ran.text == "'value'"
    assert kernel.run("1").events[-1]["count"] == 2


def test_many_threads_that_print_lose_no_line(kernel: KernelProcess) -> None:
    code = """
import threading
def speak(n):
    for i in range(500): print(f'{n}-{i}')
threads = [threading.Thread(target=speak, args=(n,)) for n in range(8)]
for t in threads: t.start()
for t in threads: t.join()
"""
    words = kernel.run(code).out.split()
    assert len(words) == 4000 and len(set(words)) == 4000
