"""Stock `runsc`, without Belljar's changes, from the very sources that Belljar's engine is pinned to. Kept in the cache."""

import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

from belljar.base import proc
from belljar.node.artifacts import Store
from belljar.node.engine.gvisor.golang import find_go, go_environment
from belljar.node.progress import PlainProgress
from belljar.node.sources import engine_sources

__all__ = ("stock_runsc",)

_PROGRAM = "gvisor.dev/gvisor/runsc"
_LIMIT = 1500.0


async def stock_runsc(cache: Path) -> Path:
    """The program; built when it is not in the cache yet (about two minutes on two cores). Raises belljar.Error."""
    sources = engine_sources()
    pins = (sources / "go.mod").read_bytes() + (sources / "go.sum").read_bytes()
    folder = cache / "bench" / f"runsc-{hashlib.sha256(pins).hexdigest()[:16]}"
    if (folder / "runsc").exists():
        return folder / "runsc"
    needed = re.search(r"^go (\S+)", (sources / "go.mod").read_text(), re.M)
    assert needed, "go.mod names the Go it needs"
    go = await find_go(Store(cache), needed[1], PlainProgress())
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        work = Path(scratch)
        for name in ("go.mod", "go.sum"):
            shutil.copy(sources / name, work / name)
        # go.sum lists what Belljar's two programs need; the whole runsc needs more of the same module's requirements.
        env = go_environment(os.environ) | {"GOFLAGS": "-mod=mod -trimpath -buildvcs=false"}
        found = await proc.run([go.program, "list", "-m", "-json", "gvisor.dev/gvisor"], cwd=work, env=env, timeout=60)
        version = json.loads(found.stdout)["Version"]
        flags = f"-s -w -X {_PROGRAM}/version.version={version}"
        await proc.run(
            [go.program, "build", "-ldflags", flags, "-o", work / "runsc", _PROGRAM], cwd=work, env=env, timeout=_LIMIT
        )
        (work / "runsc").chmod(0o755)
        await proc.run([work / "runsc", "--version"])
        (work / "runsc").rename(folder / "runsc")
    return folder / "runsc"
