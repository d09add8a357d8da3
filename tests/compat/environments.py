"""Python environments for other projects' packages: each framework and version has its own, apart from ours.

    environment = environment_of(Path(__file__).with_name("requirements.txt"), say)
    environment.run("-m", "pytest", "suite.py", environ=server)

The requirements are pinned with digests (``lock.py`` writes them). An environment is made once per machine, by content, under
``$BELLJAR_CACHE/test-environments``: with uv where there is one, else with venv and pip. Several test runs may ask at once; what
a killed one left is made again. Belljar itself is not in it: it comes from ``src/`` as it stands now, with the metadata that its
build backend makes of ``pyproject.toml``, so that its entry points are found as in a real installation.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from belljar.base.files import lock_file, remove_tree
from belljar.base.home import cache_home

__all__ = ("ROOT", "Environment", "Say", "environment_of", "main", "run_group", "uv_command")

ROOT = Path(__file__).parents[2]
Say = Callable[[str], None]
"""Is told what takes long, one line each."""

_WHOLE = "whole"
"""This file is written last: a folder without it is a half-made one."""
_UNUSED_DAYS = 14.0
_INSTALL_SECONDS = 1200.0


@dataclass(frozen=True, slots=True)
class Environment:
    """`name` is the framework's; `versions` are those of all packages in it."""

    name: str
    folder: Path
    metadata: Path
    versions: Mapping[str, str]

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def environ(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """Variables under which its Python finds this checkout's `belljar`, and its programs come first."""
        start = dict(os.environ if base is None else base)
        start.pop("PYTHONHOME", None)
        start["VIRTUAL_ENV"] = str(self.folder)
        start["PATH"] = os.pathsep.join([str(self.folder / "bin"), start.get("PATH", os.defpath)])
        start["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(self.metadata)])
        return start

    def run(
        self, *words: str, cwd: Path, timeout: float, environ: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Its Python with these arguments; output and errors as one text. After `timeout` seconds all of it is killed."""
        return run_group([str(self.python), *words], cwd=cwd, environ=self.environ(environ), timeout=timeout)


def environment_of(requirements: Path, say: Say) -> Environment:
    """The environment for a pinned requirements file; its folder's name is the framework's.

    Several versions of one framework: one file each (``requirements-1.24.txt``). Raises RuntimeError with the installer's last
    words when it cannot be made.
    """
    variant = requirements.stem.removeprefix("requirements")
    name = f"{requirements.parent.name}{variant}"
    pins = requirements.read_text()
    key = _digest(pins, sys.version, sys.base_prefix)
    folder = _made(name, key, say, lambda target: _install(requirements, target))
    return Environment(name, folder, _metadata(), _versions(pins))


def run_group(
    words: list[str], *, cwd: Path, environ: Mapping[str, str], timeout: float
) -> "subprocess.CompletedProcess[str]":
    """As `subprocess.run`, but a timeout (and whatever else ends the caller's wait) kills the children's children too."""
    process = subprocess.Popen(
        words,
        cwd=cwd,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise TimeoutError(f"{' '.join(words)[:200]} did not end within {timeout:g} s:\n{output[-4000:]}") from None
        raise
    return subprocess.CompletedProcess(words, process.returncode, output)


def _made(name: str, key: str, say: Say, build: Callable[[Path], None]) -> Path:
    """The folder of this name and content: the one that is there, else what `build` makes."""
    store = cache_home() / "test-environments"
    folder = store / f"{name}-{key}"
    with lock_file(store / f".{name}.lock", wait=True, about=f"making {folder.name}"):
        if not (folder / _WHOLE).exists():
            say(f"making the environment {name} in {folder}")
            started = time.monotonic()
            # Made in place: the programs of an environment name its path. Nobody uses it before the file `whole` is there.
            remove_tree(folder)
            try:
                build(folder)
            except BaseException:
                remove_tree(folder)
                raise
            (folder / _WHOLE).touch()
            say(f"{name}: {time.monotonic() - started:.1f} s")
        os.utime(folder / _WHOLE)
        _sweep(store, name, folder)
    return folder


def _sweep(store: Path, name: str, kept: Path) -> None:
    """Removes those of this name that nobody has used for two weeks: they take 50 to 500 MB each."""
    key = "?" * len(kept.name.removeprefix(f"{name}-"))
    for folder in store.glob(f"{name}-{key}"):
        stamp = folder / _WHOLE
        if folder != kept and stamp.exists() and time.time() - stamp.stat().st_mtime > _UNUSED_DAYS * 86400:
            remove_tree(folder)


def _install(requirements: Path, target: Path) -> None:
    python = str(target / "bin" / "python")
    if uv := uv_command():
        _do([*uv, "venv", "--quiet", "--no-project", "--python", sys.executable, str(target)])
        _do([*uv, "pip", "sync", "--quiet", "--python", python, "--require-hashes", str(requirements)])
    else:
        _do([sys.executable, "-m", "venv", str(target)])
        pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        _do([*pip, "--require-hashes", "--no-deps", "--requirement", str(requirements)])


def uv_command() -> list[str] | None:
    """None where there is no uv."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    return [found] if found else None


def _metadata() -> Path:
    """A folder with Belljar's ``dist-info``, made by the build backend from this checkout."""
    key = _digest((ROOT / "pyproject.toml").read_text(), (ROOT / "README.md").read_text())

    def build(target: Path) -> None:
        target.mkdir()
        # The backend's hook for metadata alone leaves the entry points out: they are in the wheel.
        _do(
            [
                sys.executable,
                "-c",
                "import sys, hatchling.build; hatchling.build.build_editable(sys.argv[1])",
                str(target),
            ]
        )
        (wheel,) = target.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target, [name for name in archive.namelist() if ".dist-info/" in name])
        wheel.unlink()

    return _made("belljar-metadata", key, lambda line: None, build)


def _do(words: list[str]) -> None:
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = run_group(words, cwd=ROOT, environ=environ, timeout=_INSTALL_SECONDS)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout[-4000:]}")


def _versions(pins: str) -> dict[str, str]:
    found = (line.split()[0].partition("==") for line in pins.splitlines() if "==" in line.split(" ")[0])
    return {name: version.rstrip(";") for name, _, version in found}


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def main() -> None:
    """All of them, so that no test's time has the downloads in it, and no sandbox starts while the disk is full of them."""
    for requirements in sorted(Path(__file__).parent.glob("*/requirements*.txt")):
        environment_of(requirements, lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
