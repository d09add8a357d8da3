"""LangChain's tests of sandbox backends pass on Belljar's, as far as they agree with deepagents itself."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from tests.compat.environments import Say, environment_of
from tests.compat.servers import real_server
from tests.compat.suites import Suite, run_suite

HERE = Path(__file__).parent
CASES = 86
"""85 of sandboxes, and one that says that none of them was overridden."""
_GLOB = (
    "deepagents 0.7 has glob() return absolute paths of files alone, as its rules of what may be read need them; these tests "
    "still expect relative ones, and directories"
)
_WRITE = "deepagents 0.7 has write() overwrite; this test still expects a refusal"
NEWEST = {
    "test_glob": _GLOB,
    "test_glob_basic_pattern": _GLOB,
    "test_glob_with_directories": _GLOB,
    "test_glob_hidden_files_explicitly": _GLOB,
    "test_glob_with_character_class": _GLOB,
    "test_glob_with_question_mark": _GLOB,
    "test_write_existing_file_fails": _WRITE,
}
"""They fail for every backend that leaves these two to deepagents, as its documents ask for."""


@pytest.mark.node
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("pins", "failures"), [("requirements-0.6.txt", {}), ("requirements.txt", NEWEST)])
def test_the_sandbox_tests_of_langchain_pass(
    pins: str, failures: Mapping[str, str], say: Say, report_line: Callable[[str], None]
) -> None:
    environment = environment_of(HERE / pins, say)
    suite = Suite(HERE / "suite.py", CASES, failures)
    with real_server() as environ:
        report = run_suite(environment, suite, environ, timeout=400)
    versions = environment.versions
    report_line(report.line(f"langchain-tests {versions['langchain-tests']} on deepagents {versions['deepagents']}"))
    assert report.complaints(suite) == [], report.output[-8000:]


@pytest.mark.node
@pytest.mark.timeout(900)
@pytest.mark.parametrize("pins", ["requirements-0.6.txt", "requirements.txt"])
def test_what_those_tests_leave_out_holds_too(pins: str, say: Say, report_line: Callable[[str], None]) -> None:
    environment = environment_of(HERE / pins, say)
    suite = Suite(HERE / "own.py", cases=8)
    with real_server() as environ:
        report = run_suite(environment, suite, environ, timeout=400)
    report_line(report.line(f"own tests of the backend on deepagents {environment.versions['deepagents']}"))
    assert report.complaints(suite) == [], report.output[-8000:]
