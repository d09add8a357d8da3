"""The guest runtime: what stands read-only at /.belljar/run in every sandbox.

Layers. The interpreter (Debian's python3 with its loader, libraries and a trimmed standard library) and the packages of kernels
are fetched once and depend on no image. Agent, wire, kernel and the host's CA bundle are composed with them into the final
folder (hard links, 0.5 s), so a new agent or kernel costs no download.
"""

import asyncio
import os
import platform
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from belljar.base import proc
from belljar.base.tasks import in_thread
from belljar.model.errors import Internal, NotFound, NotSupported
from belljar.node.artifacts import Artifact, Store, key_of
from belljar.node.guest.contexts.kernel import KERNEL
from belljar.node.guest.elf import interpreter_of, libraries_of
from belljar.node.guest.kernels import KIND as PACKAGES
from belljar.node.guest.kernels import find_or_fetch_packages, put_kernel
from belljar.node.image.debian import SUITE, debian_tree, installed_packages, mirror_lines
from belljar.node.progress import Progress, Silent, Step
from belljar.node.sources import agent_sources, digest_tree, wire_sources
from belljar.node.trust import GUEST_VARIABLES, host_ca_bundle, trusts_host

__all__ = (
    "KIND",
    "LAYERS",
    "MOUNT",
    "GuestRuntime",
    "find_or_build_runtime",
    "guest_runtime",
    "layers_of_runtime",
)

KIND = "runtime"
MOUNT = "/.belljar/run"
_INTERPRETER = "interpreter"
_KERNEL = "kernel"
LAYERS = (_INTERPRETER, PACKAGES)
"""Kinds of the artifacts that a runtime is composed of."""
_PACKAGES = ("python3",)
_ROOM = 300 << 20
_CA_FILE = "ca.pem"
# Neither of use to the agent nor light.
_TRIMMED = frozenset(
    (
        *(
            "test",
            "idlelib",
            "ensurepip",
            "tkinter",
            "turtledemo",
            "lib2to3",
            "venv",
            "pydoc_data",
            "_pyrepl",
            "unittest",
        ),
        *("dbm", "curses", "wsgiref", "xmlrpc", "turtle.py", "antigravity.py", "this.py", "EXTERNALLY-MANAGED"),
        *("sqlite3", "site-packages", "dist-packages", "__pycache__", "pydoc.py", "doctest.py", "sitecustomize.py"),
    )
)
_TRIMMED_EXTENSIONS = re.compile(r"_?(?:test|xx|curses|dbm|readline|sqlite3|gdbm|tkinter)")
# No site-packages, no variables of the user's, nothing written; the agent's folder is the script's own.
_FLAGS = ("-S", "-E", "-s", "-B", "-X", "utf8")
# Else its C library reads locale data of the image.
_AGENT_ENV = {"LC_ALL": "C"}


@dataclass(frozen=True, slots=True)
class GuestRuntime:
    """One runtime. `argv` starts its agent, as seen inside, with `env`; `guest_env` is for every user process; `kernel` is the
    program of contexts."""

    key: str
    folder: Path
    argv: tuple[str, ...]
    env: Mapping[str, str]
    guest_env: Mapping[str, str]
    kernel: str = KERNEL


async def find_or_build_runtime(
    store: Store, progress: Progress | None = None, *, environ: Mapping[str, str] = os.environ
) -> Artifact:
    """The runtime for new sandboxes: this agent, this wire, this host's CAs; `guest_runtime` tells about it.

    Raises Error with the failing tool's words.
    """
    progress = progress or Silent()
    interpreter = await _interpreter(store, progress, environ)
    packages = await find_or_fetch_packages(store, progress)
    bundle = host_ca_bundle(environ)
    inputs = {
        "interpreter": interpreter.digest,
        "packages": packages.digest,
        "agent": await in_thread(digest_tree, agent_sources(), ("*.py",)),
        "wire": await in_thread(digest_tree, wire_sources(), ("*.py",)),
        "ca": key_of("ca", {"pem": bundle.read_text(errors="replace")}) if bundle else "none",
        "layout": "4",
    }

    async def compose(folder: Path) -> Mapping[str, str]:
        with progress.step("guest runtime") as step:
            step.say("putting the agent into it")
            await in_thread(_compose, interpreter.folder, folder, bundle)
            await in_thread(put_kernel, packages.folder, folder / _KERNEL)
            await _pack(folder)
        return {**interpreter.facts, _INTERPRETER: interpreter.key, PACKAGES: packages.key}

    return await store.make(KIND, inputs, compose)


def guest_runtime(runtime: Artifact, environ: Mapping[str, str] = os.environ) -> GuestRuntime:
    """What a runtime artifact is, and what this host's settings make of it.

    The host's CAs are trusted inside where `trust.trusts_host` says so.
    """
    # Through its own loader, so that the image's libc does not matter.
    loader = (f"{MOUNT}/{runtime.facts['loader']}", "--library-path", f"{MOUNT}/lib", f"{MOUNT}/bin/python3")
    trusted: dict[str, str] = {}
    if trusts_host(environ) and _CA_FILE in runtime.files:
        trusted = dict.fromkeys(GUEST_VARIABLES, f"{MOUNT}/{_CA_FILE}")
    return GuestRuntime(runtime.key, runtime.folder, (*loader, *_FLAGS, f"{MOUNT}/agent/start.py"), _AGENT_ENV, trusted)


async def layers_of_runtime(store: Store, runtime: Artifact) -> list[Artifact]:
    """What it was composed of: from these a runtime with another agent is made without a download. Raises NotFound."""
    found: list[Artifact] = []
    for kind in LAYERS:
        if (layer := store.get(kind, runtime.facts[kind])) is None:
            raise NotFound(f"the {kind} layer of guest runtime {runtime.key} is gone", hint="belljar setup")
        found.append(layer)
    return found


async def _interpreter(store: Store, progress: Progress, environ: Mapping[str, str]) -> Artifact:
    inputs = {
        "suite": SUITE,
        "packages": " ".join(_PACKAGES),
        "machine": platform.machine(),
        "trimmed": " ".join(sorted(_TRIMMED)) + _TRIMMED_EXTENSIONS.pattern,
        "layout": "1",
    }

    async def build(folder: Path) -> Mapping[str, str]:
        with progress.step("guest interpreter") as step:
            return await _build_interpreter(folder, step, environ)

    return await store.make(
        _INTERPRETER,
        inputs,
        build,
        room=_ROOM,
        on_wait=lambda who: progress.found("guest interpreter", f"waiting for process {who}"),
    )


async def _build_interpreter(folder: Path, step: Step, environ: Mapping[str, str]) -> Mapping[str, str]:
    step.say("fetching Debian's Python")
    root = folder / "root"
    debian = await debian_tree(root, _PACKAGES, variant="extract", mirror=await mirror_lines(environ))
    step.downloaded(debian.text)
    try:
        python, loader = await in_thread(_carve, root, folder)
    finally:
        await asyncio.shield(in_thread(shutil.rmtree, root, ignore_errors=True))
    await _compile(folder, f"lib/{python}")
    return {"python": python, "loader": loader}


@dataclass(frozen=True, slots=True)
class _Tree:
    """An unpacked Debian: `triplet` is the name of its library folder."""

    root: Path
    triplet: str

    def library(self, name: str) -> Path:
        for folder in (f"usr/lib/{self.triplet}", f"lib/{self.triplet}"):
            if (path := self.root / folder / name).exists():
                return path.resolve()
        raise Internal(f"the packages hold no {name}")


def _carve(root: Path, folder: Path) -> tuple[str, str]:
    """Takes out of the packages what the interpreter needs; returns the library folder's name and the loader's place."""
    program = next(iter(sorted((root / "usr/bin").glob("python3.[0-9]*[0-9]"))), None)
    if program is None:
        raise NotSupported(f"{SUITE} has no python3 for this machine")
    python = program.name
    triplet = next(path.parent.name for path in (root / "usr/lib").glob("*-linux-gnu*/libc.so.6"))
    tree = _Tree(root, triplet)
    standard = root / "usr/lib" / python
    (folder / "bin").mkdir()
    target = folder / "lib" / python
    (target / "lib-dynload").mkdir(parents=True)
    shutil.copy2(program, folder / "bin/python3")
    needed = set(libraries_of(program))
    for path in sorted((standard / "lib-dynload").glob("*.so")):
        if not _TRIMMED_EXTENSIONS.match(path.name):
            shutil.copy2(path, target / "lib-dynload" / path.name)
            needed |= set(libraries_of(path))
    for path in sorted(standard.rglob("*.py")):
        name = path.relative_to(standard)
        if (
            name.parts[0] not in _TRIMMED
            and "__pycache__" not in name.parts
            and path.is_file()
            and not path.is_symlink()
        ):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target / name)
    loader = Path(interpreter_of(program)).name
    _copy_libraries(tree, needed | {loader}, folder / "lib")
    license_texts = "\n\n".join(path.read_text() for path in sorted(root.glob("usr/share/doc/*/copyright")))
    (folder / "LICENSES").write_text(license_texts)
    (folder / "packages.txt").write_text("\n".join(installed_packages(root)) + "\n")
    return python, f"lib/{loader}"


def _copy_libraries(tree: _Tree, needed: set[str], target: Path) -> None:
    done: set[str] = set()
    while missing := needed - done:
        for name in sorted(missing):
            shutil.copy2(tree.library(name), target / name)
            done.add(name)
            needed |= set(libraries_of(target / name))


def _compose(interpreter: Path, folder: Path, bundle: Path | None) -> None:
    for name in ("bin", "lib"):
        shutil.copytree(interpreter / name, folder / name, copy_function=_link)
    shutil.copyfile(interpreter / "LICENSES", folder / "LICENSES")
    (folder / "agent").mkdir()
    shutil.copyfile(agent_sources() / "start.py", folder / "agent/start.py")
    if bundle is not None:
        shutil.copyfile(bundle, folder / _CA_FILE)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


async def _pack(folder: Path) -> None:
    """Agent and wire become one file of compiled modules: read through the sandbox's file server, forty files cost 60 ms."""
    words = [str(agent_sources() / "pack.py"), str(folder / "agent/modules.bin")]
    words += [f"belljar_agent={agent_sources() / 'belljar_agent'}", f"belljar.wire={wire_sources()}"]
    await _run_python(folder, words)
    kernel = agent_sources() / "belljar_kernel/packing.py"
    await _run_python(folder, [str(kernel), str(folder / _KERNEL), f"{MOUNT}/{_KERNEL}"])


async def _compile(folder: Path, below: str) -> None:
    """Compiles with the runtime's own interpreter. The compiled files are never checked against sources: nothing changes."""
    words = ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    await _run_python(folder, [*words, "-s", str(folder), "-p", MOUNT, "-b", str(folder / below)])
    await in_thread(_remove_sources, folder / below)


async def _run_python(folder: Path, words: list[str]) -> None:
    loader = next((folder / "lib").glob("ld-linux*"))
    python = [str(loader), "--library-path", str(folder / "lib"), str(folder / "bin/python3"), "-S", "-E", "-s", "-B"]
    try:
        await proc.run([*python, *words], timeout=120, env={"PATH": "/usr/bin:/bin"})
    except proc.CommandFailed as error:
        raise Internal(f"the guest runtime does not compile: {error}") from error


def _remove_sources(folder: Path) -> None:
    """Half the files and a quarter of the bytes; nobody reads the standard library's sources in a sandbox through it."""
    for path in folder.rglob("*.py"):
        path.unlink()
