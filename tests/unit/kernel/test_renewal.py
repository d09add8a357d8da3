"""A kernel whose sandbox has become another one, and one that is warm before anybody asks for it."""

import ast
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.kernel.conftest import Event, KernelProcess, on_each_python

SHARED = (
    "import random, ssl, tempfile, os\nssl.RAND_bytes(8), random.seed(1), tempfile.mktemp()\nown = random.Random(7)"
)


def renew(kernel: KernelProcess, **fields: Any) -> Event:
    kernel.send(op="renew", name="r", **fields)
    while (event := kernel.next())["kind"] != "renewed":
        pass
    assert event["name"] == "r"
    return event


def warm(kernel: KernelProcess, *modules: str) -> None:
    kernel.send(op="warm", name="w", modules=list(modules))
    while (event := kernel.next())["kind"] != "warmed":
        pass
    assert event == {"kind": "warmed", "name": "w"}


@on_each_python
def test_global_generators_go_another_way_and_the_codes_own_go_on(
    kernel_of: Callable[..., KernelProcess], python: str
) -> None:
    kernel = kernel_of(python)
    kernel.run(SHARED)
    assert "error" not in renew(kernel, reseed=True)
    said = kernel.run("import random as r; fresh = r.Random(1); random.random() == fresh.random()")
    assert said.text == "False"
    assert kernel.run("own.random() == random.Random(7).random()").text == "True"
    kernel.run("random.seed(1); names = tempfile._name_sequence")
    assert "error" not in renew(kernel, reseed=False)
    assert kernel.run("random.random() == random.Random(1).random(), names is tempfile._name_sequence").text == (
        "(True, True)"
    )


def test_variables_and_directory_are_set_for_good(kernel_of: Callable[..., KernelProcess], tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    kernel = kernel_of(OLD="1")
    renew(kernel, env={"NEW": "ä", "OLD": None, "TZ": "JST-9"}, cwd=str(tmp_path / "there"))
    said = kernel.run("import os, time; os.environ['NEW'], os.environ.get('OLD'), os.getcwd(), time.tzname")
    assert ast.literal_eval(said.text) == ("ä", None, str(tmp_path / "there"), ("JST", "JST"))
    assert renew(kernel, env={"NEW": "2"}, cwd="/no/such/place")["error"].startswith("FileNotFoundError")
    assert ast.literal_eval(kernel.run("os.environ['NEW'], os.getcwd()").text) == ("2", str(tmp_path / "there"))


def test_what_the_code_has_made_of_variables_stays_and_the_contexts_own_come_first(
    kernel_of: Callable[..., KernelProcess],
) -> None:
    kernel = kernel_of(A="1", B="1", C="mine")
    kernel.send(op="hello", session="s", own=["C"])
    kernel.run("import os; os.environ.update(A='code', B='code', D='code')")
    renew(kernel, env={"A": "1", "B": "2", "C": "theirs", "E": "5"})
    look = "[os.environ.get(name) for name in 'ABCDE']"
    assert ast.literal_eval(kernel.run(look).text) == ["code", "2", "mine", "code", "5"]
    renew(kernel, env={"A": "3", "B": "2", "E": None})
    assert ast.literal_eval(kernel.run(look).text) == ["3", "2", "mine", "code", None]


def test_a_cell_that_runs_goes_on_undisturbed_and_the_next_one_is_renewed(kernel: KernelProcess) -> None:
    kernel.run("import random, os, time")
    code = "random.seed(1); print('go', flush=True); time.sleep(0.5); random.random(), os.environ.get('NEW')"
    key = kernel.start(code)
    kernel.until(key, "stdout")
    kernel.send(op="renew", name="r", reseed=True, env={"NEW": "1"})
    after = kernel.start("random.random() == random.Random(1).random(), os.environ['NEW']")
    found: list[Event] = []
    while not found or found[-1]["kind"] != "done" or found[-1]["key"] != after:
        found.append(kernel.next())
    texts = [event["data"]["text/plain"] for event in found if event["kind"] == "result"]
    assert texts == [str((0.13436424411240122, None)), str((False, "1"))]
    order = [event["kind"] for event in found if event["kind"] in ("done", "renewed")]
    assert order == ["done", "renewed", "done"]


def test_what_the_code_has_put_in_a_modules_place_does_not_end_the_kernel(kernel: KernelProcess) -> None:
    kernel.run(
        "import sys\n"
        "class Trap:\n"
        "    def __getattr__(self, name): raise SystemExit(name)\n"
        "    def __setattr__(self, name, value): raise KeyboardInterrupt\n"
        "for name in ('random', '_ssl', 'numpy.random', 'torch', 'tempfile', 'uuid'): sys.modules[name] = Trap()"
    )
    assert "SystemExit" in renew(kernel, reseed=True)["error"]
    assert kernel.run("6 * 7").text == "42"


@pytest.mark.parametrize(
    "fields",
    [{}, {"env": 5}, {"env": {"A": 5}}, {"env": {"": "x"}}, {"env": {"A=B": "x"}}, {"env": {"A": "\0"}}, {"cwd": []}],
)
def test_an_odd_renewal_is_answered(kernel: KernelProcess, fields: dict[str, Any]) -> None:
    renew(kernel, **fields)
    assert kernel.run("1").text == "1"


@on_each_python
def test_a_warm_kernel_is_as_a_new_one_to_the_code(kernel_of: Callable[..., KernelProcess], python: str) -> None:
    look = (
        "sorted(name for name in globals() if name not in ('_dh',)), In, get_ipython().execution_count, "
        "get_ipython().history_manager.input_hist_raw, _, _i"
    )
    cold, other = kernel_of(python), kernel_of(python)
    warm(other, "json.tool", "no_such_module", "this")  # `this` prints a poem
    assert other.hello()["warm"] is True
    first = other.run(look)
    assert (first.count, first.out, first.text) == (1, "", cold.run(look).text)
    assert other.hello()["warm"] is False
    assert other.hello()["ended"] == ["k1"]
    assert other.run("import sys; 'json.tool' in sys.modules").text == "True"


def test_a_warm_kernel_refuses_what_counts_at_the_start_of_an_interpreter(kernel: KernelProcess) -> None:
    warm(kernel)
    assert "error" not in renew(kernel, env={"ANY": "1", "PYTHONPATH": None})
    assert "PYTHONPATH" in renew(kernel, env={"PYTHONPATH": "/x"})["error"]
    assert kernel.hello()["warm"] is True
    assert "error" not in renew(kernel, taken=True)
    assert kernel.hello()["warm"] is False
    assert "error" not in renew(kernel, env={"PYTHONPATH": "/x"})  # somebody's state now, so it is only told


def test_a_warm_kernel_waits_without_using_the_cpu(kernel: KernelProcess) -> None:
    warm(kernel)
    stat = Path(f"/proc/{kernel.process.pid}/stat")

    def ticks() -> int:
        return sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13]))

    before = ticks()
    time.sleep(1.0)
    assert ticks() - before <= 1
