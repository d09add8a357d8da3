"""Ray's local gVisor runtime as a candidate: an environment of its own, stock runsc, Debian 13's mkfs.erofs, the same image."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rounds import Case, Sampler, Side

__all__ = ("VERSION", "ray_side")

VERSION = "2.60.0"
"""The newest with `ray.experimental.sandbox`."""
CASES = ("echo", "node", "exec", "burst", "idle")
_CHILD = Path(__file__).with_name("ray_child.py")
_STATE = Path("/tmp/runsc")
_SANDBOXES = Path("/tmp/ray/sandbox")
_NO_SNAPSHOTS = "Ray's SandboxRuntime has no call for snapshots, restores or forks"
_ABSENT = {
    "memory": _NO_SNAPSHOTS,
    "files": _NO_SNAPSHOTS,
    "fork": _NO_SNAPSHOTS,
    "disks": _NO_SNAPSHOTS,
    "hit": "no pool: every create is a cold start",
    "code": "no run_code: commands only",
}


@contextmanager
def ray_side(
    name: str, runsc: Path, tools: Path, image: Path, cache: Path, *, rootless: bool = False
) -> Iterator[Side]:
    """`runsc`: the stock program. `tools`: a folder with mkfs.erofs. `image`: an EROFS image, which Ray gets as a tar and makes
    into one of its own.
    """
    python = _environment(cache)
    before = set(_SANDBOXES.parent.glob("*")) | set(_SANDBOXES.glob("*"))
    had_state, had_ray = _STATE.exists(), _SANDBOXES.parent.exists()
    with tempfile.TemporaryDirectory(prefix="belljar-bench-") as scratch:
        tar = Path(scratch) / "belljar-bench-image.tar"
        _tar_of(image, tar)
        shutil.copy(runsc, Path(scratch) / "runsc")
        env = {
            **os.environ,
            "PATH": f"{scratch}:{tools}:{os.environ['PATH']}",
            "RAY_SANDBOX_IGNORE_CGROUPS": "1",
            "PYTHONPATH": str(_CHILD.parent),
        }
        words = [python, _CHILD, tar, "rootless" if rootless else "root"]
        child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True)
        try:
            _answer(child)
            yield Side(name, {case: _case(child, case) for case in CASES}, _ABSENT)
        finally:
            assert child.stdin
            child.stdin.close()
            child.wait(60)
            _clean(before, had_state=had_state, had_ray=had_ray)


def _case(child: "subprocess.Popen[str]", case: str) -> Case:
    @contextmanager
    def entered() -> Iterator[Sampler]:
        _ask(child, case, "enter")
        try:
            yield lambda: _ask(child, case, "sample")
        finally:
            _ask(child, case, "leave")

    return entered


def _ask(child: "subprocess.Popen[str]", case: str, what: str) -> dict[str, float]:
    assert child.stdin
    child.stdin.write(json.dumps({"do": what, "case": case}) + "\n")
    child.stdin.flush()
    return _answer(child)


def _answer(child: "subprocess.Popen[str]") -> dict[str, float]:
    assert child.stdout
    line = child.stdout.readline()
    if not line:
        raise RuntimeError(f"Ray's process ended with {child.wait(10)}")
    said = json.loads(line)
    if "failed" in said:
        raise RuntimeError(said["failed"])
    return said["said"]


def _environment(cache: Path) -> Path:
    home = cache / "bench" / f"ray-{VERSION}"
    if not (home / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        subprocess.run([home / "bin/python", "-m", "pip", "--quiet", "install", f"ray=={VERSION}"], check=True)
        (home / "ready").touch()
    return home / "bin/python"


def _tar_of(image: Path, tar: Path) -> None:
    tree = tar.with_suffix(".tree")
    subprocess.run(["fsck.erofs", f"--extract={tree}", image], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["tar", "--numeric-owner", "-C", tree, "-cf", tar, "."], check=True)
    shutil.rmtree(tree)


def _clean(before: set[Path], *, had_state: bool, had_ray: bool) -> None:
    """Ray keeps state, images and a mount in places of its own; what was there before this stays."""
    if not had_state:
        subprocess.run(["umount", "-l", _STATE / "null-netns"], stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(_STATE, ignore_errors=True)
    for path in (set(_SANDBOXES.glob("*")) | set(_SANDBOXES.parent.glob("*"))) - before:
        shutil.rmtree(path, ignore_errors=True)
    if not had_ray:
        with suppress(OSError):
            _SANDBOXES.parent.rmdir()
