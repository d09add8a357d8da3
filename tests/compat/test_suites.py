"""The runner of suites: whatever is not as declared is a complaint."""

from pathlib import Path

import pytest
from tests.compat.environments import Say, environment_of
from tests.compat.suites import Report, Suite, run_suite

NOWHERE = Path("suite.py")
REASON = "a reason"


def complaints(
    outcomes: dict[str, str], *, cases: int, failures: tuple[str, ...] = (), skips: tuple[str, ...] = ()
) -> str:
    suite = Suite(NOWHERE, cases, dict.fromkeys(failures, REASON), dict.fromkeys(skips, REASON))
    return "; ".join(Report(outcomes, 1.0, "").complaints(suite))


def test_a_suite_that_is_as_declared_gives_no_complaint() -> None:
    outcomes = {"a": "passed", "b": "failed", "c": "skipped"}
    assert complaints(outcomes, cases=3, failures=("b",), skips=("c",)) == ""


def test_a_failure_that_nobody_declared_is_a_complaint() -> None:
    assert complaints({"a": "failed"}, cases=1) == "a failed, and nothing declares it"


def test_a_skip_that_nobody_declared_is_a_complaint() -> None:
    assert complaints({"a": "skipped"}, cases=1) == "a skipped, and nothing declares it"


def test_a_declared_failure_that_passes_is_a_complaint() -> None:
    assert complaints({"a": "passed"}, cases=1, failures=("a",)) == "a is declared as failed, but it is not"


def test_a_case_that_did_not_run_is_a_complaint() -> None:
    assert complaints({"a": "passed"}, cases=2) == "1 cases ran, 2 are declared"


@pytest.mark.timeout(600)
def test_a_suite_runs_in_its_environment_and_is_told_case_by_case(tmp_path: Path, say: Say) -> None:
    file = tmp_path / "suite.py"
    file.write_text(
        "import os, pytest\n"
        "@pytest.fixture\n"
        "def broken():\n    yield\n    raise OSError\n"
        "def test_one(): assert os.environ['TOLD'] == 'yes'\n"
        "def test_two(): assert False, 'why'\n"
        "def test_three(): pytest.skip('no')\n"
        "def test_four(broken): pass\n"
    )
    pins = Path(__file__).parent / "pydantic_ai" / "requirements.txt"
    report = run_suite(environment_of(pins, say), Suite(file, 4), {"TOLD": "yes", "PATH": "/usr/bin:/bin"}, timeout=60)
    assert report.outcomes == {
        "test_one": "passed",
        "test_two": "failed",
        "test_three": "skipped",
        "test_four": "failed",
    }
    assert "why" in report.output


@pytest.mark.timeout(600)
def test_a_suite_that_gives_no_result_is_an_error(tmp_path: Path, say: Say) -> None:
    file = tmp_path / "suite.py"
    file.write_text("import os\ndef test_one(): os._exit(7)\n")
    pins = Path(__file__).parent / "pydantic_ai" / "requirements.txt"
    with pytest.raises(RuntimeError, match="status 7"):
        run_suite(environment_of(pins, say), Suite(file, 1), {"PATH": "/usr/bin:/bin"}, timeout=60)
