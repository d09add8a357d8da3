"""Inspect's self-check of sandboxes passes on Belljar's provider."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.compat.environments import Say, environment_of
from tests.compat.servers import real_server
from tests.compat.suites import Suite, run_suite

HERE = Path(__file__).parent
OPTIONS = ("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function")
SUITES = {
    "self-check": Suite(HERE / "suite.py", cases=44, options=OPTIONS),
    "own tests": Suite(HERE / "own.py", cases=14, options=OPTIONS),
}


@pytest.mark.node
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SUITES)
def test_inspect_accepts_the_provider(name: str, say: Say, report_line: Callable[[str], None]) -> None:
    environment = environment_of(HERE / "requirements.txt", say)
    with real_server() as environ:
        report = run_suite(environment, SUITES[name], environ, timeout=400)
    report_line(report.line(f"inspect_ai {environment.versions['inspect-ai']} {name}"))
    assert report.complaints(SUITES[name]) == [], report.output[-8000:]
