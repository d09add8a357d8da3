"""Plain runsc as a candidate: create, start, exec, checkpoint, restore and tar by its command line, and nothing around it."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from gap import ask, gap_program
from measure import forget, idle_memory
from rounds import Sampler, Side

__all__ = ("OWN", "STOCK", "Flavour", "plain_side")

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SLEEP = ("/bin/sleep", "86400")
_ABSENT = {
    "hit": "no pool",
    "code": "no run_code",
}


@dataclass(frozen=True, slots=True)
class Flavour:
    """`flags`: of every command; ``DIR`` stands for the folder of the overlay's files."""

    name: str
    flags: tuple[str, ...]
    overlay: str


STOCK = Flavour("stock runsc", ("--ignore-cgroups", "--network=none"), "self")
OWN = Flavour(
    "our runsc",
    (
        "--ignore-cgroups",
        "--directfs=false",
        "--overlay2=root:dir=DIR",
        "--host-uds=none",
        "--sidecar-usage-policy=STRICT",
        "--host-settings=ignore",
        "--network=none",
    ),
    "dir=DIR",
)


@contextmanager
def plain_side(flavour: Flavour, runsc: Path, image: Path, disk: Path) -> Iterator[Side]:
    """`disk`: a folder on the disk, for checkpoints and what sandboxes write."""
    with _Plain(flavour, runsc, image, disk) as plain:
        cases = {
            "echo": lambda: _first(plain, "create + echo, pool empty", ["/bin/echo", "hi"]),
            "node": lambda: _first(plain, "create + node -v, pool empty", ["node", "-v"]),
            "exec": lambda: _exec(plain),
            "memory": lambda: _memory(plain),
            "files": lambda: _files(plain),
            "fork": lambda: _fork(plain, 20, None),
            "disk 0.1": lambda: _fork(plain, 5, 0.1),
            "disk 1": lambda: _fork(plain, 5, 1),
            "disk 4": lambda: _fork(plain, 5, 4),
            "burst": lambda: _burst(plain),
            "idle": lambda: _idle(plain),
        }
        yield Side(flavour.name, cases, _ABSENT)


@dataclass(slots=True)
class _Guest:
    """`ask`: of a guest whose init is the program of gap.py."""

    name: str
    stdin: IO[bytes] | None = None
    stdout: IO[bytes] | None = None

    def ask(self) -> float:
        """See gap.py."""
        assert self.stdin and self.stdout
        return ask(self.stdin, self.stdout)


class _Plain:
    def __init__(self, flavour: Flavour, runsc: Path, image: Path, disk: Path) -> None:
        self._flavour, self._runsc, self._image, self._disk = flavour, runsc, image, disk
        self._guests: dict[str, _Guest] = {}
        self._number = 0

    def __enter__(self) -> "_Plain":
        self.folder = Path(tempfile.mkdtemp(prefix="bj-bench-", dir="/run"))
        self.disk = Path(tempfile.mkdtemp(prefix="plain-", dir=self._disk))
        for folder in (self.folder, self.disk):
            folder.chmod(0o755)
        (self.folder / "root").mkdir(mode=0o700)
        (self.disk / "overlay").mkdir(mode=0o777)
        return self

    def __exit__(self, *_: object) -> None:
        for name in tuple(self._guests):
            self.delete(name)
        subprocess.run(["umount", "-l", self.folder / "root/null-netns"], stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(self.folder)
        shutil.rmtree(self.disk)

    def name(self) -> str:
        self._number += 1
        return f"plain-{self._number:05}"  # none the beginning of another: runsc takes those for it

    def start(self, name: str, argv: Sequence[str] = SLEEP) -> _Guest:
        guest, ends = self._prepare(name, argv)
        with ends:
            self._call("create", "--bundle", self.folder / name, name, ends=ends)
            self._call("start", name)
        return guest

    def restore(self, name: str, argv: Sequence[str], checkpoint: Path) -> _Guest:
        guest, ends = self._prepare(name, argv)
        with ends:
            words = ("restore", "--detach", "--image-path", checkpoint, "--bundle", self.folder / name, name)
            self._call(*words, ends=ends)
        return guest

    def checkpoint(self, name: str) -> Path:
        """Leaves it running. On the disk, synchronised."""
        target = self.disk / f"checkpoint-{self.name()}"
        self._call("checkpoint", "--leave-running", "--image-path", target, name)
        for path in target.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        return target

    def tar(self, name: str) -> Path:
        """What it changed, on the disk, synchronised."""
        target = self.disk / f"{self.name()}.tar"
        self._call("tar", "rootfs-upper", "--file", target, name)
        with target.open("rb") as file:
            os.fsync(file.fileno())
        return target

    def exec(self, name: str, *argv: str) -> None:
        self._call("exec", name, *argv)

    def delete(self, name: str) -> None:
        guest = self._guests.pop(name)
        self._call("delete", "--force", name)
        for stream in (guest.stdin, guest.stdout):
            if stream:
                with suppress(OSError):
                    stream.close()
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def _call(self, *words: str | Path, ends: "_Ends | None" = None) -> None:
        flags = [flag.replace("DIR", str(self.disk / "overlay")) for flag in self._flavour.flags]
        with tempfile.TemporaryFile() as said:  # a pipe would stay open in the sandbox
            done = subprocess.run(
                [self._runsc, "--root", self.folder / "root", *flags, *words],
                check=False,
                stdin=ends.stdin if ends else subprocess.DEVNULL,
                stdout=ends.stdout if ends else subprocess.DEVNULL,
                stderr=said,
            )
            if done.returncode:
                said.seek(0)
                raise RuntimeError(f"runsc {words[0]}: {said.read().decode(errors='replace')[-400:]}")

    def _prepare(self, name: str, argv: Sequence[str]) -> "tuple[_Guest, _Ends]":
        bundle = self.folder / name
        (bundle / "rootfs").mkdir(parents=True)
        (bundle / "bound").mkdir()
        (bundle / "config.json").write_text(json.dumps(self._spec(argv, bundle)))
        inside_in, our_in = os.pipe()
        our_out, inside_out = os.pipe()
        guest = _Guest(name, os.fdopen(our_in, "wb", 0), os.fdopen(our_out, "rb", 0))
        self._guests[name] = guest
        return guest, _Ends(inside_in, inside_out)

    def _spec(self, argv: Sequence[str], bundle: Path) -> dict[str, object]:
        kinds = ("pid", "mount", "uts", "ipc", "network")
        mounts: list[dict[str, object]] = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
            # An overlay in a file needs a file server, and that comes with a bind mount.
            {"destination": "/mnt", "type": "bind", "source": str(bundle / "bound"), "options": ["rbind", "ro"]},
        ]
        return {
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "args": list(argv), "env": [f"PATH={PATH}"], "cwd": "/"},
            "root": {"path": str(bundle / "rootfs"), "readonly": False},
            "annotations": {
                "dev.gvisor.spec.rootfs.source": str(self._image),
                "dev.gvisor.spec.rootfs.type": "erofs",
                "dev.gvisor.spec.rootfs.overlay": self._flavour.overlay.replace("DIR", str(self.disk / "overlay")),
            },
            "mounts": mounts,
            "linux": {"namespaces": [{"type": kind} for kind in kinds]},
        }


@dataclass(slots=True)
class _Ends:
    """The sandbox's own ends of its pipes, closed here once it has them."""

    stdin: int
    stdout: int
    _open: bool = field(default=True)

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        os.close(self.stdin)
        os.close(self.stdout)


@contextmanager
def _first(plain: _Plain, row: str, argv: Sequence[str]) -> Iterator[Sampler]:
    def sample() -> dict[str, float]:
        name = plain.name()
        started = time.perf_counter()
        plain.start(name)
        created = time.perf_counter()
        plain.exec(name, *argv)
        answered = time.perf_counter()
        plain.delete(name)
        return {
            row: answered - started,
            "create, pool empty": created - started,
            "terminate": time.perf_counter() - answered,
        }

    yield sample


@contextmanager
def _exec(plain: _Plain) -> Iterator[Sampler]:
    name = plain.name()
    plain.start(name)

    def sample() -> dict[str, float]:
        started = time.perf_counter()
        plain.exec(name, "/bin/true")
        return {"exec true": time.perf_counter() - started}

    yield sample
    plain.delete(name)


@contextmanager
def _memory(plain: _Plain) -> Iterator[Sampler]:
    """The program's pages on the disk, and a guest that goes on from there."""
    name, argv = plain.name(), _gap(64)
    source = plain.start(name, argv)
    source.ask()

    def sample() -> dict[str, float]:
        source.ask()
        started = time.perf_counter()
        checkpoint = plain.checkpoint(name)
        durable = time.perf_counter() - started
        gap = source.ask()
        found = {
            "memory snapshot 64 MiB, until durable": durable,
            "memory snapshot 64 MiB, longest gap inside": gap / 1e3,
        }
        for row, cold in (
            ("create from memory snapshot 64 MiB + answer", False),
            ("the same, its files not in the page cache", True),
        ):
            if cold:
                forget(checkpoint)
            copy = plain.name()
            started = time.perf_counter()
            plain.restore(copy, argv, checkpoint).ask()
            found[row] = time.perf_counter() - started
            plain.delete(copy)
        shutil.rmtree(checkpoint)
        return found

    yield sample
    plain.delete(name)


@contextmanager
def _files(plain: _Plain) -> Iterator[Sampler]:
    sizes = {10: "filesystem snapshot, 10 MB changed", 200: "filesystem snapshot, 200 MB changed"}
    names = {size: plain.name() for size in sizes}
    for size, name in names.items():
        plain.start(name)
        plain.exec(name, "/bin/sh", "-c", f"head -c {size}000000 /dev/urandom > /root/changed")

    def sample() -> dict[str, float]:
        found: dict[str, float] = {}
        for size, row in sizes.items():
            started = time.perf_counter()
            tar = plain.tar(names[size])
            found[row] = time.perf_counter() - started
            tar.unlink()
        return found

    yield sample
    for name in names.values():
        plain.delete(name)


@contextmanager
def _fork(plain: _Plain, count: int, gigabytes: float | None) -> Iterator[Sampler]:
    """A checkpoint, and `count` guests that go on from it, four at a time."""
    sources = {plain.name(): _gap(1, ticking=ticking) for ticking in (False, True)}
    guests = {name: plain.start(name, argv) for name, argv in sources.items()}
    for name in sources if gigabytes is not None else ():
        plain.exec(name, "/bin/sh", "-c", f"head -c {round(gigabytes * 1e9)} /dev/urandom > /root/written")
    row = f"fork into {count}" + (f", {gigabytes:g} GB on disk" if gigabytes is not None else "")

    def sample() -> dict[str, float]:
        (took, _), (_, gap) = (fork(name) for name in sources)
        return {f"{row}, and each has answered": took, f"{row}, longest gap inside the source": gap / 1e3}

    def fork(name: str) -> tuple[float, float]:
        """Seconds until all copies have answered, and milliseconds that the source did not run."""
        guests[name].ask()
        names = [plain.name() for _ in range(count)]
        started = time.perf_counter()
        checkpoint = plain.checkpoint(name)
        with ThreadPoolExecutor(4) as threads:
            copies = list(threads.map(lambda copy: plain.restore(copy, sources[name], checkpoint), names))
            list(threads.map(_Guest.ask, copies))
        took = time.perf_counter() - started
        gap = guests[name].ask()
        shutil.rmtree(checkpoint)
        for copy in names:
            plain.delete(copy)
        return took, gap

    yield sample
    for name in sources:
        plain.delete(name)


@contextmanager
def _burst(plain: _Plain) -> Iterator[Sampler]:
    def one(name: str) -> float | None:
        started = time.perf_counter()
        with suppress(RuntimeError):
            plain.start(name)
            return time.perf_counter() - started
        return None

    def sample() -> dict[str, float]:
        names = [plain.name() for _ in range(100)]
        started = time.perf_counter()
        with ThreadPoolExecutor(100) as threads:
            times = [time for time in threads.map(one, names) if time is not None]
        wall = time.perf_counter() - started
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(plain.delete, names))
        return {"burst of 100 creates: success": float(len(times)), "burst of 100 creates: wall": wall}

    yield sample


@contextmanager
def _idle(plain: _Plain) -> Iterator[Sampler]:
    def sample() -> dict[str, float]:
        names = [plain.name() for _ in range(10)]
        found = idle_memory(lambda index: _started(plain.start, names[index]), 10, str(plain.folder))
        for name in names:
            plain.delete(name)
        return {
            "idle memory, unshared": found.unshared,
            "idle memory, fall of what is available": found.dropped,
        }

    yield sample


def _started(start: Callable[[str], _Guest], name: str) -> None:
    start(name)


def _gap(mib: int, *, ticking: bool = True) -> list[str]:
    return ["/usr/bin/python3", "-S", "-E", "-c", gap_program(mib, ticking=ticking)]
