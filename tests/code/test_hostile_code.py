"""Code that does its worst to its own context: typed errors, bounds, and the next call works."""

import time
import tracemalloc

import pytest

import belljar

pytestmark = pytest.mark.node

HOSTILE = {
    "recurses": ("def f(): return f()\nf()", "RecursionError"),
    "exits": ("import sys; sys.exit(3)", "SystemExit"),
    "quits": ("exit()", None),
    "raises what cannot be told": (
        "class E(Exception):\n    def __str__(self): raise RuntimeError('no')\n    __repr__ = __str__\nraise E()",
        "E",
    ),
    "raises what tells too much": ("raise ValueError('x' * 100_000_000)", "ValueError"),
    "raises what never ends telling": (
        "class E(Exception):\n    def __str__(self): return str(self)\nraise E()",
        "E",
    ),
    "has a NUL": ("x = 1\0", None),
    "has half a surrogate": ("'\ud800'", None),
    "redirects its output": ("import sys; sys.stdout = sys.stderr = None; 1", None),
    "closes the usual descriptors": ("import os\nfor n in (0, 1, 2): os.close(n)\nprint(1)", None),
    "shows too much": ("'x' * 500_000_000", None),
    "shows too many": ("from IPython.display import display\nfor n in range(5000): display(n)", None),
    "bombs json": ("import json; json.loads('[' * 100_000)", "RecursionError"),
    "deletes what it stands on": (
        "import builtins, sys\nfor name in ('print', 'len', 'str', 'isinstance'): delattr(builtins, name)",
        None,
    ),
    "replaces the modules": (
        "import sys\nfor name in list(sys.modules):\n    if 'belljar' in name: sys.modules[name] = None",
        None,
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_it_ends_and_the_next_call_works(sandbox: belljar.Sandbox, what: str) -> None:
    code, name = HOSTILE[what]
    context = sandbox.create_context()
    done = context.run_code(code, timeout=60)
    if name is not None:
        assert done.error is not None
        assert done.error.name == name
    if what in ("deletes what it stands on",):
        context.restart()  # what is broken by itself is whole again in a new kernel
    assert context.run_code("6*7", timeout=30).text == "42"
    context.close()


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.closerange(3, 65536)",
        "import os\nfor n in os.listdir('/proc/self/fd'):\n    os.write(int(n), b'x' * 100_000) if int(n) > 2 else None",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
        "import ctypes; ctypes.string_at(0)",
        "import os\nwhile os.fork(): pass",
        "x = bytearray(3 << 30)\nfor i in range(0, len(x), 4096): x[i] = 1",
    ],
)
def test_a_kernel_that_is_killed_from_inside_is_replaced(sandbox: belljar.Sandbox, code: str) -> None:
    context = sandbox.create_context()
    done = context.run_code(code, timeout=10)
    assert done.error is not None
    for _ in range(3):
        if context.run_code("6*7", timeout=30).text == "42":
            break
    else:
        pytest.fail("the context did not come back")
    context.close()


def test_a_loop_that_catches_every_interrupt_loses_its_kernel(sandbox: belljar.Sandbox) -> None:
    context = sandbox.create_context()
    started = time.monotonic()
    done = context.run_code(
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass", timeout=1
    )
    assert done.error is not None
    assert done.error.name == "KernelDied"
    assert time.monotonic() - started < 15
    assert context.run_code("6*7").text == "42"
    context.close()


def test_a_gigabyte_of_output_stays_bounded_here(sandbox: belljar.Sandbox) -> None:
    context = sandbox.create_context()
    seen = 0

    def count(text: str) -> None:
        nonlocal seen
        seen += len(text)

    tracemalloc.start()
    done = context.run_code("for n in range(1 << 14): print('x' * ((1 << 16) - 1))", timeout=300, on_stdout=count)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert done.error is None
    assert seen == 1 << 30
    assert done.dropped >= (1 << 30) - (17 << 20)
    assert peak < 200 << 20
    assert context.run_code("6*7").text == "42"
    context.close()


def test_100_mb_in_one_print_come_whole(sandbox: belljar.Sandbox) -> None:
    context = sandbox.create_context()
    sizes: list[int] = []
    done = context.run_code("print('a' * 100_000_000)", timeout=100, on_stdout=lambda text: sizes.append(len(text)))
    assert done.error is None
    assert sum(sizes) == 100_000_001
    context.close()


def test_threads_that_print_after_the_end_do_not_mix_with_others(sandbox: belljar.Sandbox) -> None:
    context = sandbox.create_context()
    context.run_code(
        "import threading, time\n"
        "def late():\n"
        "    time.sleep(0.5); print('late words')\n"
        "threading.Thread(target=late).start()"
    )
    time.sleep(1)
    assert context.run_code("print('own words')").stdout == "late words\nown words\n"
    context.close()


def test_a_result_of_500_mb_is_bounded(sandbox: belljar.Sandbox) -> None:
    context = sandbox.create_context()
    started = time.monotonic()
    done = context.run_code("b'x' * 500_000_000", timeout=60)
    assert len(done.text or "") < 2 << 20
    assert time.monotonic() - started < 30
    frame = context.run_code("import pandas as pd, numpy as np; pd.DataFrame(np.zeros((1_000_000, 5)))", timeout=60)
    (shown,) = frame.results
    assert shown.data is not None
    assert (shown.data["rows"], shown.data["truncated"]) == (1_000_000, True)
    assert len(shown.html or "") < 1 << 20
    context.close()
