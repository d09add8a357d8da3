"""The `gvisor` package: what its users get, over the same runsc. Runs in an environment of its own, under the cache."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ("VERSION", "measure_package")

VERSION = "2026.10.22.0"


def measure_package(runsc: Path, cache: Path, rounds: int) -> dict[str, object]:
    """Milliseconds and MiB. The package's sandboxes see the host's own root, read-only, and have no limits."""
    home = cache / "bench" / f"gvisor-{VERSION}"
    python = home / "bin/python"
    if not (home / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        subprocess.run([python, "-m", "pip", "--quiet", "install", "--no-deps", f"gvisor=={VERSION}"], check=True)
        (home / "ready").touch()
    with _scratch() as folder:
        env = {**os.environ, "PATH": f"{runsc.parent}:{os.environ['PATH']}", "TMPDIR": str(folder)}
        words = [python, __file__, str(rounds)]
        return json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, env=env).stdout)


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for the package's state: it leaves a mount of each sandbox behind."""
    folder = Path(tempfile.mkdtemp(prefix="belljar-bench-"))
    try:
        yield folder
    finally:
        for mount in folder.glob("*/state/null-netns"):
            subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(folder)


def _inside(rounds: int) -> dict[str, object]:
    import gvisor  # pyright: ignore[reportMissingImports]  # only in the environment that runs this part

    from measure import Series, idle_memory

    first, true, python, close = (Series() for _ in range(4))
    for _ in range(rounds):
        with first.time():
            sandbox = gvisor.Sandbox()
            sandbox.exec("/bin/echo", "hi")
        with close.time():
            sandbox.close()
    sandbox = gvisor.Sandbox()
    for _ in range(rounds * 3):
        with true.time():
            sandbox.exec("/bin/true")
    for _ in range(rounds):
        with python.time():
            sandbox.exec("/usr/bin/python3", "-c", "print(1+1)")
    sandbox.close()
    idle = []
    memory = idle_memory(lambda _: idle.append(gvisor.Sandbox()), 10, os.environ["TMPDIR"])
    for sandbox in idle:
        sandbox.close()
    return {
        "create + first command (echo)": first.as_json(),
        "exec true": true.as_json(),
        "exec python3 -c": python.as_json(),
        "terminate": close.as_json(),
        "idle memory": memory.as_json(),
    }


if __name__ == "__main__":
    print(json.dumps(_inside(int(sys.argv[1]))))
