"""Compiles kernel and packages into the one file that `start.py` looks for: ``python3 packing.py FOLDER MOUNT``.

Run by the interpreter of the guest runtime, at set-up: images with just this Python (Debian's) start a kernel without reading
or compiling a hundred files. `MOUNT` is where a sandbox sees FOLDER.
"""

from __future__ import annotations

import importlib.util
import marshal
import os
import sys

__all__ = ("pack",)

# What no kernel loads on its way: left as files, for code that wants it.
_LEFT = ("IPython/terminal/", "IPython/sphinxext/", "IPython/extensions/", "pygments/lexers/")
_KEPT = ("pygments/lexers/__init__.py", "pygments/lexers/_mapping.py", "pygments/lexers/python.py")
_SETS = (("belljar_kernel", ""), ("py311/", "py311/"))


def pack(folder: str, mount: str) -> None:
    modules: dict[str, tuple[bool, str, bytes]] = {}
    for inside, prefix in _SETS:
        for place, _, names in os.walk(f"{folder}/{inside}"):
            for name in names:
                path = f"{place}/{name}"
                within = os.path.relpath(path, folder)
                short = within[len(prefix) :]
                if not name.endswith(".py") or (short.startswith(_LEFT) and short not in _KEPT):
                    continue
                words = short[:-3].split("/")
                is_package = words[-1] == "__init__"
                with open(path, "rb") as file:
                    code = compile(file.read(), f"{mount}/{within}", "exec", dont_inherit=True)
                dotted = ".".join(words[:-1] if is_package else words)
                modules[dotted] = (is_package, within, marshal.dumps(code))
    with open(f"{folder}/modules-{importlib.util.MAGIC_NUMBER.hex()}.bin", "wb") as file:
        file.write(marshal.dumps(modules))


if __name__ == "__main__":
    pack(sys.argv[1], sys.argv[2])
