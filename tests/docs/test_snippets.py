"""The runner of snippets: what it takes for code, and that it sees what goes wrong."""

import os
from pathlib import Path

import pytest
from tests.docs.snippets import blocks_of, run_page


def fenced(language: str, *lines: str) -> str:
    return "\n".join(["```" + language, *lines, "```", ""])


def run(tmp_path: Path, *parts: str) -> str:
    page = tmp_path / "page.md"
    page.write_text("\n".join(parts))
    return str(run_page(page, os.environ, lambda line: None, timeout=30))


def test_blocks_share_a_namespace_a_folder_and_an_event_loop(tmp_path: Path) -> None:
    said = run(
        tmp_path,
        fenced("python", "import asyncio", "queue = asyncio.Queue()", "await queue.put(1)"),
        fenced("bash", "echo 41 > number"),
        fenced("python", "value = int(open('number').read()) + await queue.get()", "assert value == 42"),
    )
    assert said == "3 blocks ran"


def test_what_a_block_prints_is_compared(tmp_path: Path) -> None:
    page = (fenced("python", "print('took 17 ms')"), "<!-- prints -->", fenced("text", "took … ms"))
    assert run(tmp_path, *page) == "1 blocks ran"
    with pytest.raises(AssertionError, match="said to print"):
        run(tmp_path, fenced("bash", "echo 17 s"), "<!-- prints -->", fenced("text", "took … ms"))


def test_a_block_that_is_not_run_says_why(tmp_path: Path) -> None:
    page = ("<!-- not run: needs an account -->", fenced("python", "raise SystemExit(3)"), fenced("python", "pass"))
    assert run(tmp_path, *page) == "1 blocks ran; line 3 not run: needs an account"


def test_a_file_is_saved_and_can_be_run(tmp_path: Path) -> None:
    page = ("<!-- file: more/hello.py -->", fenced("python", "print('hello')"), fenced("bash", "python more/hello.py"))
    assert run(tmp_path, *page, "<!-- prints -->", fenced("text", "hello")) == "1 blocks ran"


def test_the_command_is_there_in_any_environment(tmp_path: Path) -> None:
    page = ("<!-- environment: pydantic_ai -->", fenced("bash", "belljar --version"))
    assert run(tmp_path, *page) == "1 blocks ran"


def test_each_environment_has_its_own_packages_and_names(tmp_path: Path) -> None:
    said = run(
        tmp_path,
        fenced("python", "import pytest_timeout", "kept = 1"),
        "<!-- environment: pydantic_ai -->",
        fenced("python", "import pydantic_ai", "assert 'kept' not in globals()"),
    )
    assert said == "2 blocks ran"


def test_inspect_finds_the_source_of_what_a_block_defines(tmp_path: Path) -> None:
    code = ("class One:", "    attribute = 1", "", "def two():", "    return 2", "")
    check = (
        "import inspect",
        "assert 'attribute' in inspect.getsource(One)",
        "assert 'return 2' in inspect.getsource(two)",
    )
    assert run(tmp_path, fenced("python", *code, *check)) == "1 blocks ran"


@pytest.mark.parametrize(
    ("language", "code", "place"),
    [
        ("python", "1 / 0", "ZeroDivisionError"),
        ("python", "import sys; sys.exit(4)", "it ended with 4"),
        ("bash", "false; echo unreached", "it ended with 1"),
        ("bash", "echo $NOT_SET_AT_ALL", "unbound variable"),
    ],
)
def test_a_block_that_fails_is_told_with_its_line(language: str, code: str, place: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=place) as caught:
        run(tmp_path, "words", "", fenced(language, code))
    assert "page.md:4" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (fenced("perl", "1"), "perl"),
        ("```python\nprint()\n", "no end"),
        ("<!-- not run: a reason -->\nwords\n", "before no block"),
        ("<!-- not run -->\n" + fenced("python", "1"), "without a reason"),
        ("<!-- prints -->\n" + fenced("text", "1"), "after one that runs"),
    ],
)
def test_a_page_that_is_not_understood_is_an_error(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        blocks_of(text)
