"""Rules for all tests: what needs a real sandbox fails where there is none, and never counts as passed unseen."""

import os
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.last_words import last_words
from tests.postgres import Cluster, running_cluster
from xdist.scheduler import LoadScopeScheduling

__all__ = (
    "cluster",
    "pytest_collection_modifyitems",
    "pytest_runtest_logreport",
    "pytest_runtest_setup",
    "pytest_sessionfinish",
    "pytest_terminal_summary",
    "pytest_xdist_make_scheduler",
    "report_line",
    "say",
    "stored",
)

_WHOLE = "BELLJAR_TESTS_WHOLE"
"""Set by scripts/test when it runs the whole suite: then at least one test must have run in a real sandbox."""

_LINE, _REAL = "line", "real"
"""Names of what a test tells the end of the run."""
_FIRST = ("compat", "node", "faults", "code", "long", "docs")
"""The longest files first when they are spread over several processes: then none is left over at the end."""

_real: set[str] = set()
_lines: list[str] = []


@pytest.fixture(scope="session")
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Prints a line at once, past pytest's capturing: for what takes minutes."""
    terminal = request.config.pluginmanager.get_plugin("terminalreporter")
    capture = request.config.pluginmanager.get_plugin("capturemanager")

    def speak(line: str) -> None:
        with capture.global_and_fixture_disabled():
            if terminal is None:  # one of several processes, which has no terminal of its own
                print(line, file=sys.stderr, flush=True)
                return
            terminal.ensure_newline()
            terminal.write_line(line)

    return speak


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A Postgres of this test process."""
    with running_cluster() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgres"])
def stored(request: pytest.FixtureRequest) -> str | None:
    """The address of an empty store in Postgres; None: a file. For one kind: `ONLY_SQLITE`, `ONLY_POSTGRES`."""
    if request.param == "sqlite":
        return None
    return request.getfixturevalue("cluster").cleaned()


@pytest.fixture
def report_line(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Keeps a line for the end of the run: numbers that people look for."""
    return lambda line: request.node.user_properties.append((_LINE, line))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The quick and the telling first: rules of the house, then what needs no root, then the rest."""
    _share_stores(items)
    order = {"arch": 0, "unit": 1, "api": 2}
    items.sort(key=lambda item: order.get(_parts(item)[0], 3))
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _FIRST.index(_parts(item)[0]) if _parts(item)[0] in _FIRST else len(_FIRST))


def _share_stores(items: list[pytest.Item]) -> None:
    """Of a test of the API that runs on both kinds of stores, one kind is for the long runs, now this and now that: all of them
    on both take minutes. Those that are about the store itself (`both_stores`) always run on both.
    """
    found: dict[tuple[object, ...], dict[str, pytest.Item]] = {}
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is None or "stored" not in callspec.params or _parts(item)[0] != "api":
            continue
        kind = callspec.params["stored"]
        other = tuple(part for part in callspec._idlist if part != kind)
        found.setdefault((item.path, getattr(item, "originalname", item.name), other), {})[kind] = item
    for (path, name, other), kinds in found.items():
        if len(kinds) == 2 and next(iter(kinds.values())).get_closest_marker("both_stores") is None:
            second = zlib.crc32(f"{Path(str(path)).name} {name} {other}".encode()) % 2
            kinds["postgres" if second else "sqlite"].add_marker(pytest.mark.long)


class Together(LoadScopeScheduling):  # type: ignore[misc] # has no types
    """The tests of a file share its servers and run in one process."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file.startswith("tests/compat/smolagents/"):
            return nodeid  # suites of their own
        if file.startswith("tests/node/test_net"):
            return "tests/node/test_net"  # what the host's network is made into for them is there once
        return file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    return Together(config, log)


def _parts(item: pytest.Item) -> tuple[str, ...]:
    return item.path.relative_to(item.config.rootpath / "tests").parts


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
    return _parts(item)[0] in ("node", "faults") or item.get_closest_marker("node") is not None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):  # type: ignore[no-untyped-def] # pytest's own hook type
    report = yield
    if report.when == "call" and report.passed and _is_real(item):
        report.user_properties.append((_REAL, True))
    if report.failed:
        for home in _servers(item):
            report.sections.append((f"server of {home}", last_words(home)))
    return report


def _servers(item: pytest.Item) -> set[Path]:
    """State directories that the test's fixtures name."""
    values = [value for value in getattr(item, "funcargs", {}).values() if isinstance(value, dict)]
    return {Path(value["BELLJAR_HOME"]) for value in values if isinstance(value.get("BELLJAR_HOME"), str)}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Also of the other processes, where there are several."""
    if report.when == "call":
        _lines.extend(str(value) for name, value in report.user_properties if name == _LINE)
        if (_REAL, True) in report.user_properties:
            _real.add(report.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in _lines:
        terminalreporter.write_line(line)
    if _real:
        terminalreporter.write_line(f"{len(_real)} tests ran in real gVisor sandboxes")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workerinput"):
        return
    if os.environ.get(_WHOLE) and not _real and session.exitstatus == pytest.ExitCode.OK:
        print("\nNo test passed in a real sandbox: the suite has not shown anything.")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
