"""The bridge to Jupyter kernels, without one: which is chosen, what its messages become, a cell's own variables."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "agent"))
from belljar_kernel.backend import Cell, Refused
from belljar_kernel.jupyter_events import Telling, failure_of
from belljar_kernel.jupyter_specs import choose, environment_cells
from belljar_kernel.lines import Writer

SPECS = {
    "bash": {"language": "bash"},
    "deno": {"language": "typescript"},
    "python3": {"language": "python"},
    "ir": {"language": "R"},
}


class Told:
    """A real cell, and the lines that it wrote."""

    def __init__(self) -> None:
        self.reading, self._writing = os.pipe()
        self.cell = Cell(Writer(self._writing), "k", "")

    def events(self) -> list[dict[str, Any]]:
        os.close(self._writing)
        with os.fdopen(self.reading) as file:
            return [json.loads(line) for line in file]


@pytest.fixture
def told() -> Iterator[Told]:
    yield Told()


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("javascript", "deno"),
        ("JS", "deno"),
        ("node", "deno"),
        ("TypeScript", "deno"),
        ("ts", "deno"),
        ("deno", "deno"),
        ("Bash", "bash"),
        ("sh", "bash"),
        ("r", "ir"),
        ("ir", "ir"),
        ("python3", "python3"),
    ],
)
def test_a_kernel_is_found_by_its_name_or_its_language(wanted: str, name: str) -> None:
    assert choose(wanted, SPECS) == name


def test_a_kernel_of_just_that_language_comes_before_one_that_would_do() -> None:
    assert choose("javascript", {**SPECS, "jslab": {"language": "javascript"}}) == "jslab"


def test_a_language_without_a_kernel_is_refused_with_those_that_are_there() -> None:
    with pytest.raises(Refused) as refused:
        choose("cobol", SPECS)
    assert refused.value.code == "not_supported"
    assert "cobol" in refused.value.message
    assert refused.value.hint == "this image runs: bash, deno, ir, python, python3, r, typescript"


def test_specs_that_say_nothing_true_are_no_reason_to_fail() -> None:
    assert choose("x", {"x": {}, "y": {"language": 5}}) == "x"


def test_messages_become_events(told: Told) -> None:
    telling = Telling(told.cell)
    telling.take("execute_input", {"code": "x"})
    telling.take("stream", {"name": "stdout", "text": "a"})
    telling.take("stream", {"name": "stdout", "text": "b"})
    telling.take("stream", {"name": "stderr", "text": "c"})
    telling.take(
        "display_data", {"data": {"image/png": "iVBO\nRw0K\n", "text/plain": ["x", "y"]}, "metadata": {"w": 1}}
    )
    telling.take("execute_result", {"data": {"application/json": {"a": [1]}, "text/plain": "z"}, "metadata": {}})
    telling.take("clear_output", {})
    telling.flush()
    events = [{name: value for name, value in event.items() if name not in ("key", "seq")} for event in told.events()]
    assert events == [
        {"kind": "stdout", "text": "ab"},
        {"kind": "stderr", "text": "c"},
        {"kind": "result", "main": False, "data": {"image/png": "iVBORw0K", "text/plain": "xy"}, "extra": {"w": 1}},
        {"kind": "result", "main": True, "data": {"application/json": {"a": [1]}, "text/plain": "z"}},
    ]


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"data": None},
        {"data": [1]},
        {"data": {"image/png": "no base64!"}},
        {"data": {"image/png": 5}, "metadata": 7},
        {"name": 5, "text": None},
        {"ename": [], "evalue": {}, "traceback": "x"},
        {"data": {"text/plain": {"a": 1}}},
    ],
)
@pytest.mark.parametrize("kind", ["stream", "display_data", "execute_result", "update_display_data", "error", "odd"])
def test_messages_of_a_kernel_that_knows_no_shame_harm_nobody(kind: str, content: dict[str, Any], told: Told) -> None:
    telling = Telling(told.cell)
    telling.take(kind, content)
    telling.flush()
    for event in told.events():
        assert event["kind"] in ("stdout", "result")
        assert all(isinstance(value, str) for value in event.get("data", {}).values())


def test_an_error_has_no_colours_and_always_a_name() -> None:
    failure = failure_of({"ename": "E", "evalue": "\x1b[31mred\x1b[0m", "traceback": ["\x1b[1;32mone\x1b[0m", "two"]})
    assert (failure.name, failure.value, failure.traceback) == ("E", "red", "one\ntwo")
    assert failure_of({"evalue": "127"}).name == "ExitStatus"
    assert failure_of({}).name == "Error"


def test_bash_has_a_cells_variables_for_that_cell_alone() -> None:
    value = "it's $HOME \"`\n\\ ü"
    cells = environment_cells("bash", {"NEW": value, "OLD": "changed"})
    assert cells is not None
    show = 'printf "%s|" "${NEW-unset}" "$OLD"; env | grep -c "^OLD=changed"'
    script = "\n".join(("OLD=before", cells.before, show, cells.after, show))
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == f"{value}|changed|1\nunset|before|0\n"
    assert done.stderr == ""


def test_variables_that_cannot_be_set_are_seen_before_the_cell_runs() -> None:
    assert environment_cells("bash", {"a.b": "1"}) is None
    assert environment_cells("r", {"A": "1"}) is None


def test_values_cannot_leave_their_quotes_in_javascript() -> None:
    cells = environment_cells("TypeScript", {"A": '"; process.exit(); //\u2028'})
    assert cells is not None
    assert r'{"A": "\"; process.exit(); //\u2028"}' in cells.before
