"""The ready-made syscall filters are those that the module would compile at run time, byte for byte."""

import asyncio
import ctypes
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from belljar.base import proc
from belljar.base.home import cache_home
from belljar.base.mounts import unmount_below
from belljar.base.tasks import in_thread
from belljar.node import sources
from belljar.node.artifacts import Store
from belljar.node.engine.gvisor import build
from belljar.node.engine.gvisor.build import EngineBuild, engine_build, find_or_build_engine
from belljar.node.progress import PlainProgress

pytestmark = [pytest.mark.node, pytest.mark.long, pytest.mark.timeout(900)]
_SEIZE, _INTERRUPT, _DETACH, _GET_FILTER, _WALL = 0x4206, 0x4207, 17, 0x420C, 0x40000000


async def test_the_ready_filters_are_those_compiled_at_run_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(cache_home())
    ready = engine_build(await find_or_build_engine(store, PlainProgress()))
    plain_sources = tmp_path / "engine"
    shutil.copytree(sources.engine_sources(), plain_sources)
    for name in ("cmd/gvisor_sentry/main.go", "cmd/runsc/main.go"):
        text, count = re.subn(r"registered = readyFilters\(\)", "_ = readyFilters", (plain_sources / name).read_text())
        assert count == 1
        (plain_sources / name).write_text(text)
    monkeypatch.setattr(build, "engine_sources", lambda: plain_sources)
    plain = engine_build(await find_or_build_engine(store, PlainProgress()))
    try:
        filters = [await _filters_of(one, tmp_path / name) for one, name in ((ready, "ready"), (plain, "plain"))]
    finally:
        await store.remove(build.KIND, plain.key)
    assert filters[0] == filters[1]
    assert {name: len(words) > 100 * 8 for name, words in filters[0].items()} == {"kernel": True, "gofer": True}


async def _filters_of(engine: EngineBuild, folder: Path) -> dict[str, bytes]:
    """The filters that a live kernel process and a live file server have."""
    folder.mkdir()
    (folder / "shared").mkdir()
    spec = {
        "ociVersion": "1.0.0",
        "root": {"path": "/", "readonly": True},
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sleep", "600"],
            "cwd": "/",
            "env": ["PATH=/usr/bin:/bin"],
        },
        "mounts": [
            {"destination": "/mnt", "type": "bind", "source": str(folder / "shared"), "options": ["ro", "rbind"]}
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "uts", "ipc", "network")]},
    }
    (folder / "config.json").write_text(json.dumps(spec))
    name = f"filters-{folder.name}"
    runsc = [engine.runsc, f"--root={folder / 'r'}", "--network=none", "--ignore-cgroups", "--directfs=false"]
    runsc += ["--sidecar-usage-policy=STRICT", "--host-settings=ignore", "--overlay2=root:memory"]
    null = os.open(os.devnull, os.O_RDWR)
    try:
        await proc.run([*runsc, "run", "--detach", f"--bundle={folder}", name], stdin=null, stdout=null, stderr=null)
        (state,) = (folder / "r").glob(f"{name}_sandbox:*.state")
        known = json.loads(state.read_text())
        return {
            "kernel": await in_thread(_filter_of, known["sandbox"]["pid"]),
            "gofer": await in_thread(_filter_of, known["goferPid"]),
        }
    finally:
        os.close(null)
        await proc.run([*runsc, "delete", "--force", name])
        await asyncio.to_thread(unmount_below, folder)


def _filter_of(pid: int) -> bytes:
    """Stops the process for a moment and reads its seccomp program, eight bytes per instruction."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(_SEIZE, pid, None, None):
        raise OSError(ctypes.get_errno(), "PTRACE_SEIZE")
    libc.ptrace(_INTERRUPT, pid, None, None)
    os.waitpid(pid, _WALL)
    try:
        count = libc.ptrace(_GET_FILTER, pid, 0, None)
        if count <= 0:
            raise OSError(ctypes.get_errno(), "PTRACE_SECCOMP_GET_FILTER")
        words = ctypes.create_string_buffer(8 * count)
        libc.ptrace(_GET_FILTER, pid, 0, ctypes.cast(words, ctypes.c_void_p))
        return words.raw
    finally:
        libc.ptrace(_DETACH, pid, None, None)
