"""Puts the agent's modules into one file for `start.py`: ``python3 pack.py TARGET PACKAGE=FOLDER...``.

Run by the interpreter that will load it, because the file holds compiled code.
"""

import marshal
import sys
from pathlib import Path
from types import CodeType
from typing import Any

__all__ = ("pack",)

_STANDARD = ("__future__", "ctypes", "ctypes._endian", "operator", "struct", "types")
"""Modules of the standard library that the agent always imports, as far as no interpreter holds them frozen."""


def pack(packages: dict[str, Path]) -> bytes:
    """`packages` by their dotted names; the packages that they are in are made up, empty."""
    modules: dict[str, tuple[bool, CodeType]] = {}
    for package, folder in packages.items():
        outer = package.split(".")[:-1]
        for count in range(1, len(outer) + 1):
            modules[".".join(outer[:count])] = (True, compile("", "<empty>", "exec"))
        for path in sorted(folder.rglob("*.py")):
            words = path.relative_to(folder).with_suffix("").parts
            is_package = words[-1] == "__init__"
            name = ".".join((package, *(words[:-1] if is_package else words)))
            modules[name] = (is_package, compile(path.read_bytes(), f"<{name}>", "exec", dont_inherit=True))
    for name in _STANDARD:
        module = __import__(name, fromlist=["x"])
        loader: Any = module.__spec__ and module.__spec__.loader
        code = loader.get_code(name) if hasattr(loader, "get_code") else None
        if code is not None:
            modules[name] = (hasattr(module, "__path__"), code)
    return marshal.dumps(modules)


if __name__ == "__main__":
    _target, *_packages = sys.argv[1:]
    Path(_target).write_bytes(
        pack({name: Path(folder) for name, _, folder in (word.partition("=") for word in _packages)})
    )
