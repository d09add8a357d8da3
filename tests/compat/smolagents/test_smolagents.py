"""Agents of unmodified smolagents, old and new, on the executor: real sandboxes, real MCP servers, hostile code."""

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest
from tests.compat.environments import Say, environment_of
from tests.compat.servers import real_server
from tests.compat.suites import Suite, run_suite

HERE = Path(__file__).parent
VERSIONS = {"1.24": "requirements-1.24.txt", "1.25": "requirements-1.25.txt", "newest": "requirements.txt"}
CASES = {"agents": 24, "steps": 26, "hostile": 77, "plugin": 5, "rewind": 17, "codec": 136}


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with real_server() as environ:
        yield environ


@pytest.mark.node
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("version", "name"),
    [
        *product(VERSIONS, ("agents",)),
        # What hostile code meets is ours alone, whichever version is above it.
        *product(("newest",), ("steps", "plugin", "hostile", "rewind")),
        *(
            pytest.param(*one, marks=pytest.mark.long)
            for one in product(("1.24", "1.25"), ("steps", "plugin", "rewind"))
        ),
    ],
)
def test_the_executor_keeps_what_it_promises(
    version: str, name: str, server: dict[str, str], say: Say, report_line: Callable[[str], None]
) -> None:
    environment = environment_of(HERE / VERSIONS[version], say)
    suite = Suite(HERE / f"suite_{name}.py", CASES[name])
    report = run_suite(environment, suite, server, timeout=500)
    report_line(report.line(f"smolagents {environment.versions['smolagents']}, {name}"))
    assert report.complaints(suite) == [], report.output[-8000:]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", ["1.24", "newest"])
def test_the_codec_carries_all_values_and_refuses_hostile_ones(
    version: str, say: Say, report_line: Callable[[str], None]
) -> None:
    """The first environment has pandas 2, the other pandas 3."""
    environment = environment_of(HERE / VERSIONS[version], say)
    suite = Suite(HERE / "suite_codec.py", CASES["codec"])
    report = run_suite(environment, suite, {"PATH": "/usr/bin:/bin"}, timeout=300)
    report_line(report.line(f"smolagents, codec with pandas {environment.versions['pandas']}"))
    assert report.complaints(suite) == [], report.output[-8000:]


EXAMPLES = {
    "with_tools.py": ["3 ordered for 1.50", "['apple', 'apple', 'apple', 'pear']"],
    "managed.py": ["words: 8"],
    "mcp_tool.py": ["['Hamburg: 7:40', 'Hamburg: 8:40']"],
    "plots.py": ["shown: (", "written: ['/home/user/squares.pdf']"],
    "rewind.py": ["cities left: 0", "step 4: ", "driest: ('kiel oslo rome', 720)", "wettest: ('kiel oslo rome', 799)"],
    "streaming.py": ["step 2", "done"],
    "wine.py": ["54 wines that it had not seen", "noted on this machine: {'accuracy': "],
}
FOLDER = HERE.parents[2] / "examples" / "smolagents"


def test_no_example_is_left_out() -> None:
    parts = {"scripted.py", "mcp_server.py"}
    assert {path.name for path in FOLDER.glob("*.py")} == EXAMPLES.keys() | parts


@pytest.mark.node
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_and_says_what_it_should(name: str, server: dict[str, str], say: Say, tmp_path: Path) -> None:
    environment = environment_of(HERE / VERSIONS["newest"], say)
    target = {"plots.py": [str(tmp_path)], "wine.py": [str(tmp_path / "wine.png")]}.get(name, [])
    done = environment.run(str(FOLDER / name), *target, cwd=tmp_path, timeout=300, environ=server)
    assert done.returncode == 0, done.stdout[-6000:]
    assert [text for text in EXAMPLES[name] if text not in done.stdout] == [], done.stdout[-6000:]
    if target:
        assert all(file.stat().st_size > 1000 for file in tmp_path.iterdir()), "a plot has not landed here"


@pytest.mark.node
@pytest.mark.timeout(300)
def test_a_killed_program_leaves_its_sandbox_for_no_longer_than_its_lease(
    server: dict[str, str], say: Say, tmp_path: Path
) -> None:
    environment = environment_of(HERE / VERSIONS["newest"], say)
    code = (
        "import os, signal\n"
        "from belljar.integrations.smolagents import BelljarExecutor\n"
        "executor = BelljarExecutor(image='base')\n"
        "executor('1')\n"
        "info = executor.sandbox.info()\n"
        "print('lifetime', info.lifetime, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = environment.run("-c", code, cwd=tmp_path, timeout=120, environ=server)
    assert "lifetime 900" in done.stdout
    ended = (
        "import belljar\n"
        "found = [one for one in belljar.Sandbox.list() if one.info().labels.get('made-by') == 'smolagents']\n"
        "print(len(found))\n"
        "[one.terminate() for one in found]\n"
    )
    assert environment.run("-c", ended, cwd=tmp_path, timeout=60, environ=server).stdout.strip() == "1"
