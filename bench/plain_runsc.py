"""The floor: the same engine build and image, driven by runsc's command line, with nothing around it."""

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from measure import Series, idle_memory, rate

__all__ = ("measure_runsc",)

FLAGS = (
    "--ignore-cgroups",
    "--directfs=false",
    "--overlay2=root:memory",
    "--host-uds=none",
    "--sidecar-usage-policy=STRICT",
    "--host-settings=ignore",
    "--network=none",
)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def measure_runsc(runsc: Path, image: Path, rounds: int, blob: Path) -> dict[str, object]:
    """Everything that plain runsc can be asked; milliseconds, MB/s and MiB."""
    with _Plain(runsc, image) as plain:
        to_exit, first, probe, true, python, delete = (Series() for _ in range(6))
        for _ in range(rounds):
            with to_exit.time():
                plain.run_to_exit(["/bin/true"])
        for number in range(rounds):
            name = f"first{number}"
            with first.time():
                plain.start(name)
                plain.exec(name, ["/bin/echo", "hi"])
            with delete.time():
                plain.delete(name)
            name = f"probe{number}"
            with probe.time():
                plain.start(name)
                plain.exec(name, ["node", "-v"])
            plain.delete(name)
        plain.start("exec")
        for _ in range(rounds * 3):
            with true.time():
                plain.exec("exec", ["/bin/true"])
        for _ in range(rounds):
            with python.time():
                plain.exec("exec", ["python3", "-c", "print(1+1)"])
        up, down = plain.throughput("exec", blob)
        plain.delete("exec")
        memory = idle_memory(lambda index: plain.start(f"idle{index}"), 10, str(plain.folder))
        return {
            "run /bin/true to its end": to_exit.as_json(),
            "create + first command (echo)": first.as_json(),
            "create + first command (node -v)": probe.as_json(),
            "exec true": true.as_json(),
            "exec python3 -c": python.as_json(),
            "terminate": delete.as_json(),
            "file up 100 MB": up,
            "file down 100 MB": down,
            "idle memory": memory.as_json(),
        }


class _Plain:
    def __init__(self, runsc: Path, image: Path) -> None:
        self._runsc = runsc
        self._image = image
        self._names: set[str] = set()

    def __enter__(self) -> "_Plain":
        self.folder = Path(tempfile.mkdtemp(prefix="bj-bench-", dir="/run"))
        (self.folder / "root").mkdir(mode=0o700)
        return self

    def __exit__(self, *_: object) -> None:
        for name in tuple(self._names):
            self.delete(name)
        subprocess.run(["umount", "-l", self.folder / "root/null-netns"], stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(self.folder)

    def _call(self, *words: str | Path, **keywords: object) -> None:
        argv = [self._runsc, "--root", self.folder / "root", *FLAGS, *words]
        subprocess.run(argv, check=True, stdin=keywords.get("stdin", subprocess.DEVNULL), stdout=keywords.get("stdout"))  # type: ignore[call-overload]

    @contextmanager
    def _bundle(self, name: str, argv: Sequence[str]) -> Iterator[Path]:
        bundle = self.folder / name
        (bundle / "rootfs").mkdir(parents=True)
        (bundle / "config.json").write_text(json.dumps(self._spec(argv)))
        yield bundle

    def _spec(self, argv: Sequence[str]) -> dict[str, object]:
        kinds = ("pid", "mount", "uts", "ipc", "network")
        return {
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "args": list(argv), "env": [f"PATH={PATH}"], "cwd": "/"},
            "root": {"path": "rootfs", "readonly": False},
            "annotations": {
                "dev.gvisor.spec.rootfs.source": str(self._image),
                "dev.gvisor.spec.rootfs.type": "erofs",
                "dev.gvisor.spec.rootfs.overlay": "memory",
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
            ],
            "linux": {"namespaces": [{"type": kind} for kind in kinds]},
        }

    def run_to_exit(self, argv: Sequence[str]) -> None:
        with self._bundle("once", argv) as bundle:
            self._call("run", "--bundle", bundle, "once", stdout=subprocess.DEVNULL)
        shutil.rmtree(bundle)

    def start(self, name: str) -> None:
        with self._bundle(name, ["/bin/sleep", "86400"]) as bundle:
            self._names.add(name)
            self._call("create", "--bundle", bundle, name, stdout=subprocess.DEVNULL)
            self._call("start", name)

    def exec(self, name: str, argv: Sequence[str]) -> None:
        self._call("exec", name, *argv, stdout=subprocess.DEVNULL)

    def delete(self, name: str) -> None:
        self._call("delete", "--force", name)
        self._names.discard(name)
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def throughput(self, name: str, blob: Path) -> tuple[dict[str, float], dict[str, float]]:
        """MB/s of a file into and out of the sandbox through `runsc exec` and a pipe of the shell's."""
        size, up, down = blob.stat().st_size, [], []
        for _ in range(3):
            with blob.open("rb") as source:
                started = time.perf_counter()
                self._call("exec", name, "/bin/sh", "-c", "cat > /blob", stdin=source)
                up.append(rate(size, time.perf_counter() - started))
            with (blob.with_suffix(".back")).open("wb") as target:
                started = time.perf_counter()
                self._call("exec", name, "/bin/cat", "/blob", stdout=target)
                down.append(rate(size, time.perf_counter() - started))
            if target.name and Path(target.name).read_bytes() != blob.read_bytes():
                raise RuntimeError("the file that came back differs")
        return {"MB/s": max(up)}, {"MB/s": max(down)}
