"""Runs the blocks of a page, in whatever environment they need: ``driver.py BLOCKS.json PAGE``. The standard library alone."""

import ast
import asyncio
import contextlib
import io
import json
import linecache
import os
import re
import subprocess
import sys
import traceback
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ("main",)


def main(todo: str, page: str) -> int:
    blocks: list[dict[str, Any]] = json.loads(Path(todo).read_text())
    _put_belljar_on_path(Path(todo).parent / "bin")
    namespace = _new_main()
    sys.path.insert(0, str(Path.cwd()))
    with asyncio.Runner() as runner:
        for block in blocks:
            place = f"{page}:{block['line']}"
            if block["file"]:
                _save(block)
                continue
            with _told() as output:
                try:
                    if block["language"] == "python":
                        _python(block, page, namespace, runner)
                    else:
                        _bash(block["code"])
                except SystemExit as error:
                    if error.code not in (None, 0):
                        return _failed(place, f"it ended with {error.code!r}")
                except BaseException:  # noqa: BLE001 # whatever it is, it is told with its place
                    traceback.print_exc()
                    return _failed(place, "it raised")
            if block["prints"] is not None and not _matches(block["prints"], output.getvalue()):
                return _failed(place, f"it is said to print\n{block['prints']}and it printed\n{output.getvalue()}")
    return 0


def _new_main() -> dict[str, Any]:
    """Blocks see a `__main__` of their own: what they define there can be pickled, and looked up by name."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    return module.__dict__


def _python(block: dict[str, Any], page: str, namespace: dict[str, Any], runner: asyncio.Runner) -> None:
    # Empty lines in front, so that a traceback names the line of the page; and the text where `inspect` finds it.
    text = "\n" * (block["line"] - 1) + block["code"]
    file = f"{page} from line {block['line']}"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    namespace["__file__"] = file
    code = compile(text, file, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if code.co_flags & 0x80:  # a coroutine: it has an await at its top level
        runner.run(eval(code, namespace))
    else:
        exec(code, namespace)


def _bash(code: str) -> None:
    done = subprocess.Popen(
        ["bash", "-eu", "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace"
    )
    assert done.stdout is not None
    for line in done.stdout:
        sys.stdout.write(line)
    if done.wait():
        raise SystemExit(done.returncode)


def _save(block: dict[str, Any]) -> None:
    target = Path(block["file"])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(block["code"])


def _put_belljar_on_path(folder: Path) -> None:
    """The command, in an environment where Belljar is not installed but found."""
    folder.mkdir(exist_ok=True)
    command = folder / "belljar"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -c "from belljar.cli.main import main; main()" "$@"\n')
    command.chmod(0o755)
    os.environ["PATH"] = os.pathsep.join(
        [str(folder), str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    )


def _matches(said: str, printed: str) -> bool:
    pattern = ".*?".join(re.escape(part) for part in said.strip().split("…"))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


@contextlib.contextmanager
def _told() -> Iterator[io.StringIO]:
    """Keeps what is printed, and prints it all the same: it explains a failure."""
    kept = io.StringIO()
    outside = sys.stdout

    class Both(io.TextIOBase):
        def write(self, text: str) -> int:
            outside.write(text)
            outside.flush()
            return kept.write(text)

    with contextlib.redirect_stdout(Both()):
        yield kept


def _failed(place: str, why: str) -> int:
    print(f"{place}: {why}", flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
