"""Rules for all tests: what needs a real sandbox fails where there is none, and never counts as passed unseen."""

import os
from collections.abc import Callable

import pytest

__all__ = (
    "pytest_collection_modifyitems",
    "pytest_runtest_setup",
    "pytest_sessionfinish",
    "pytest_terminal_summary",
    "report_line",
    "say",
)

_WHOLE = "BELLJAR_TESTS_WHOLE"
"""Set by scripts/test when it runs the whole suite: then at least one test must have run in a real sandbox."""

_real: set[str] = set()
_lines = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Prints a line at once, past pytest's capturing: for what takes minutes."""
    terminal = request.config.pluginmanager.get_plugin("terminalreporter")
    capture = request.config.pluginmanager.get_plugin("capturemanager")

    def speak(line: str) -> None:
        with capture.global_and_fixture_disabled():
            terminal.ensure_newline()
            terminal.write_line(line)

    return speak


@pytest.fixture
def report_line(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Keeps a line for the end of the run: numbers that people look for."""
    return request.config.stash.setdefault(_lines, []).append


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The quick and the telling first: rules of the house, then what needs no root, then the rest."""
    order = {"arch": 0, "unit": 1, "api": 2}
    items.sort(key=lambda item: order.get(item.path.relative_to(item.config.rootpath / "tests").parts[0], 3))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if not _is_real(item):
        return
    if os.geteuid() != 0:
        pytest.fail("needs root and a real gVisor; without root run scripts/test --fast", pytrace=False)
    if os.environ.get("BELLJAR_ENGINE", "gvisor") != "gvisor":
        # On the fake engine "inside" is this machine: a test's `kill -9 -1` would end everything on it.
        pytest.exit(
            f"BELLJAR_ENGINE={os.environ['BELLJAR_ENGINE']} has leaked into {item.nodeid}: not run", returncode=1
        )


def _is_real(item: pytest.Item) -> bool:
    top = item.path.relative_to(item.config.rootpath / "tests").parts[0]
    return top in ("node", "faults") or item.get_closest_marker("node") is not None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):  # type: ignore[no-untyped-def] # pytest's own hook type
    report = yield
    if report.when == "call" and report.passed and _is_real(item):
        _real.add(item.nodeid)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash.get(_lines, []):
        terminalreporter.write_line(line)
    if _real:
        terminalreporter.write_line(f"{len(_real)} tests ran in real gVisor sandboxes")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if os.environ.get(_WHOLE) and not _real and session.exitstatus == pytest.ExitCode.OK:
        print("\nNo test passed in a real sandbox: the suite has not shown anything.")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
