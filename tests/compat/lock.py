"""Writes tests/compat/*/requirements*.txt anew from the requirements*.in beside them: ``python -m tests.compat.lock [NAME…]``.

Each file pins one framework, its tests and what Belljar itself needs, so that it also shows that they can be installed together.
Needs uv.
"""

import subprocess
import sys
from pathlib import Path

from tests.compat.environments import ROOT, uv_command

__all__ = ("main",)

HERE = Path(__file__).parent


def main(names: list[str]) -> None:
    uv = uv_command()
    if uv is None:
        sys.exit("uv is not installed")
    for wanted in sorted(HERE.glob("*/requirements*.in")):
        if names and wanted.parent.name not in names:
            continue
        target = wanted.with_suffix(".txt")
        print(target.relative_to(ROOT), flush=True)
        words = ["pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"]
        words += ["--no-annotate", "--upgrade", "--custom-compile-command", "python -m tests.compat.lock"]
        subprocess.run(
            [*uv, *words, "pyproject.toml", str(wanted.relative_to(ROOT)), "--output-file", str(target)],
            cwd=ROOT,
            check=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
