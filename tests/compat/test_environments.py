"""The environments themselves: made once, made again when half made, and with this checkout's Belljar in them."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.compat.environments import ROOT, Environment, environment_of


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BELLJAR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "test-environments"


def make(folder: Path, lines: list[str], text: str = "") -> Environment:
    folder.mkdir(exist_ok=True)
    (folder / "requirements-1.txt").write_text(text)
    return environment_of(folder / "requirements-1.txt", lines.append)


def test_an_environment_is_made_once_and_again_when_something_changed(cache: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    first = make(tmp_path / "nothing", lines)
    assert first.name == "nothing-1"
    assert first.folder.parent == cache
    assert len(lines) == 2, lines
    assert make(tmp_path / "nothing", lines).folder == first.folder
    assert len(lines) == 2, lines
    assert make(tmp_path / "nothing", lines, "# another\n").folder != first.folder
    assert len(lines) == 4, lines


def test_what_a_killed_run_left_is_made_again(cache: Path, tmp_path: Path) -> None:
    folder = make(tmp_path / "nothing", []).folder
    (folder / "whole").unlink()
    (folder / "bin" / "python").unlink()
    lines: list[str] = []
    assert make(tmp_path / "nothing", lines).folder == folder
    assert len(lines) == 2, lines
    assert (folder / "bin" / "python").exists()


def test_a_requirement_that_cannot_be_had_is_told_and_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="belljar-no-such-thing"):
        make(tmp_path / "broken", [], "./belljar-no-such-thing\n")
    assert [path.name for path in cache.glob("broken*")] == []


def test_two_runs_that_ask_at_once_make_one(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "requirements.txt").write_text("")
    code = (
        "import sys; from pathlib import Path; from tests.compat.environments import environment_of;"
        "print(environment_of(Path(sys.argv[1]), print).folder)"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "both" / "requirements.txt")]
    runs = [subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [run.communicate(timeout=60)[0].splitlines() for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert len({lines[-1] for lines in said}) == 1
    assert sum(len(lines) for lines in said) == 3 + 2, said


def test_belljar_in_it_is_this_checkout_with_its_entry_points(cache: Path, tmp_path: Path) -> None:
    environment = make(tmp_path / "nothing", [])
    code = (
        "import belljar.model; from importlib.metadata import distribution;"
        "print(belljar.model.__file__, *distribution('belljar').entry_points.names)"
    )
    done = environment.run("-c", code, cwd=tmp_path, timeout=30)
    place, *names = done.stdout.split()
    assert Path(place).is_relative_to(ROOT / "src")
    assert "belljar" in names
    assert environment.run("-c", "import pytest", cwd=tmp_path, timeout=30).returncode != 0, "ours shine through"


def test_a_program_that_does_not_end_is_killed_with_its_children(cache: Path, tmp_path: Path) -> None:
    environment = make(tmp_path / "nothing", [])
    code = "import subprocess, sys; subprocess.run(['sh', '-c', 'echo started; sleep 4242; :'])"
    with pytest.raises(TimeoutError, match="started"):
        environment.run("-c", code, cwd=tmp_path, timeout=2)
    left = subprocess.run(["pgrep", "-f", "^sleep 4242"], capture_output=True, check=False)
    assert left.returncode == 1, left.stdout
