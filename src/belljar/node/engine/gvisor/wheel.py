"""Writes a wheel with the engine's programs inside, for machines that cannot build it.

usage: python -m belljar.node.engine.gvisor.wheel ENGINE_FOLDER OUTPUT_FOLDER
"""

import base64
import hashlib
import platform
import re
import sys
import zipfile
from pathlib import Path

from belljar.base import proc
from belljar.model.errors import Error, NotSupported
from belljar.node.engine.gvisor.archive import WHEEL_PACKAGE, given_program
from belljar.node.engine.gvisor.versions import check_version, parse_version, source_date

__all__ = ("write_wheel",)

_PLATFORMS = {"x86_64": "manylinux2014_x86_64", "aarch64": "manylinux2014_aarch64"}
_NAME = "belljar-engine"
_INIT = '"""The programs of gVisor that Belljar runs, for `belljar setup` to find."""\n'
_METADATA = """\
Metadata-Version: 2.4
Name: {name}
Version: {version}
Summary: gVisor, built for Belljar: runsc and its kernel process ({build})
License-Expression: Apache-2.0
Requires-Python: >=3.11

The programs are static and need nothing. `belljar setup` uses them instead of building its own.
"""
_WHEEL = """\
Wheel-Version: 1.0
Generator: belljar
Root-Is-Purelib: false
Tag: {tag}
"""


def write_wheel(engine: Path, output: Path) -> Path:
    """Writes the wheel of this engine folder into `output` and returns its path.

    Raises NotSupported for a build with known holes or another kind of machine, InvalidArgument for no engine folder.
    """
    files = dict(given_program(engine / "runsc"))
    build = check_version(parse_version(proc.run_sync([engine / "runsc", "--version"]).stdout.decode(errors="replace")))
    if (kind := _PLATFORMS.get(platform.machine())) is None:
        raise NotSupported(f"there are no wheels for {platform.machine()}")
    version, tag = _version(build), f"py3-none-{kind}"
    info = f"{_NAME.replace('-', '_')}-{version}.dist-info"
    entries: dict[str, tuple[bytes, int]] = {f"{WHEEL_PACKAGE}/__init__.py": (_INIT.encode(), 0o644)}
    entries |= {f"{WHEEL_PACKAGE}/{name}": (data, 0o755) for name, data in files.items()}
    for path in sorted((engine / "licenses").rglob("*")):
        if path.is_file():
            name = path.relative_to(engine / "licenses").as_posix()
            entries[f"{info}/licenses/{name}"] = (path.read_bytes(), 0o644)
    entries[f"{info}/METADATA"] = (_METADATA.format(name=_NAME, version=version, build=build).encode(), 0o644)
    entries[f"{info}/WHEEL"] = (_WHEEL.format(tag=tag).encode(), 0o644)
    entries[f"{info}/RECORD"] = (_record(entries, f"{info}/RECORD").encode(), 0o644)
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"{_NAME.replace('-', '_')}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (data, mode) in entries.items():
            # A fixed time, so that the same build gives the same wheel.
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = (0o100000 | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return path


def _version(build: str) -> str:
    """As package indexes want it: the day of the sources, then the second of it or the number of the release."""
    date = source_date(build)
    rest = re.search(r"\d{8}[.-]?(\d+)", build)
    assert date is not None
    return f"{date.year}.{date.month}.{date.day}" + (f".{int(rest[1])}" if rest else "")


def _record(entries: dict[str, tuple[bytes, int]], own: str) -> str:
    lines = [f"{name},sha256={_digest(data)},{len(data)}" for name, (data, _) in entries.items()]
    return "\n".join([*lines, f"{own},,", ""])


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    try:
        sys.stdout.write(f"{write_wheel(Path(arguments[0]), Path(arguments[1]))}\n")
    except (Error, proc.CommandFailed) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
