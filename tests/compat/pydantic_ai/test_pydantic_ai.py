"""Pydantic AI's suite for workspace backends passes on Belljar's."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.compat.environments import Say, environment_of
from tests.compat.servers import real_server
from tests.compat.suites import Suite, run_suite

HERE = Path(__file__).parent
SUITES = {
    "workspace suite": Suite(HERE / "suite.py", cases=40),
    "own tests": Suite(HERE / "own.py", cases=14),
}


@pytest.mark.node
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SUITES)
def test_pydantic_ai_accepts_the_backend(name: str, say: Say, report_line: Callable[[str], None]) -> None:
    environment = environment_of(HERE / "requirements.txt", say)
    with real_server() as environ:
        report = run_suite(environment, SUITES[name], environ, timeout=400)
    report_line(report.line(f"pydantic-ai {environment.versions['pydantic-ai-slim']} {name}"))
    assert report.complaints(SUITES[name]) == [], report.output[-8000:]
