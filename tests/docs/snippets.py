"""Runs the code of a page as a reader would: from top to bottom, one after the other.

How to write a page
- ```` ```python ```` blocks run in order in one namespace; ``await`` may stand at their top level.
- ```` ```bash ```` blocks run in between, with ``bash -eu``; ``belljar`` and ``python`` are the page's own. All share one new
  folder.
- ```` ```text ````, ``json``, ``toml``, ``yaml``, ``console`` and blocks without a language are prose. Any other language is an
  error.
- An HTML comment on a line of its own says more about the next block:
  ``<!-- not run: reason -->``          it is left out, counted and named in the summary
  ``<!-- prints -->``                   before a ``text`` block: what the block before printed; ``…`` stands for anything
  ``<!-- file: name.py -->``            it is not run but saved under this name in the folder
  ``<!-- environment: inspect_ai -->``  from here on, the packages of ``tests/compat/inspect_ai/requirements.txt`` (``name/1.24``:
                                        ``requirements-1.24.txt``), in a new namespace; without one, Belljar's own environment

Every page in docs/, and the README, is found by ``test_pages.py``: nobody has to name it there. A real server runs for it.
"""

import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path

from tests.compat.environments import ROOT, Say, environment_of, run_group

__all__ = ("Block", "Outcome", "blocks_of", "run_page")

RUN = ("python", "bash")
"""What else a page may hold is in `PROSE`."""
PROSE = ("", "text", "json", "toml", "yaml", "console")
_FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>[\w+-]*)\s*$")
_COMMENT = re.compile(r"^<!--\s*(?P<word>[a-z ]+?)(?::\s*(?P<value>.*?))?\s*-->$")
_WORDS = ("not run", "prints", "file", "environment")
_DRIVER = Path(__file__).with_name("driver.py")


@dataclass(frozen=True, slots=True)
class Block:
    """`line`: of its first line of code, from 1. `file`: it is saved there. `prints`: what it must print."""

    language: str
    code: str
    line: int
    environment: str | None = None
    not_run: str | None = None
    file: str | None = None
    prints: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """`not_run`: the line of each block that was left out → why."""

    ran: int
    not_run: Mapping[int, str] = field(default_factory=dict[int, str])

    def __str__(self) -> str:
        left = "".join(f"; line {line} not run: {reason}" for line, reason in self.not_run.items())
        return f"{self.ran} blocks ran{left}"


def blocks_of(text: str) -> list[Block]:
    """The blocks of a page that are to run or to be saved, in order. Raises ValueError for what is not understood."""
    found: list[Block] = []
    environment: str | None = None
    for notes, language, code, line in _fences(text):
        environment = notes.get("environment", environment)
        if "prints" in notes:
            if language != "text" or not found or found[-1].prints is not None or found[-1].file:
                raise ValueError(f"line {line}: only a text block after one that runs says what that prints")
            found[-1] = Block(**(asdict(found[-1]) | {"prints": code}))
        elif language in RUN or "file" in notes:
            if notes.get("not run") == "":
                raise ValueError(f"line {line}: not run, but without a reason")
            found.append(Block(language, code, line, environment, notes.get("not run"), notes.get("file")))
        elif language not in PROSE:
            raise ValueError(f"line {line}: {language!r} is neither run {RUN} nor prose {PROSE}")
    return found


def run_page(page: Path, environ: Mapping[str, str], say: Say, *, timeout: float) -> Outcome:
    """Runs a page with `environ` (that of a server). Each environment has `timeout` seconds.

    Raises AssertionError with the output and the place when a block fails or prints something else, ValueError for a page that is
    not understood, TimeoutError.
    """
    blocks = blocks_of(page.read_text())
    with tempfile.TemporaryDirectory(prefix="belljar-page-") as folder:
        for name, group in groupby(blocks, lambda block: block.environment):
            _run([block for block in group if block.not_run is None], name, page, Path(folder), environ, say, timeout)
    runs = [block for block in blocks if block.not_run is None and block.file is None]
    return Outcome(len(runs), {block.line: block.not_run for block in blocks if block.not_run is not None})


def _run(
    blocks: list[Block],
    name: str | None,
    page: Path,
    folder: Path,
    environ: Mapping[str, str],
    say: Say,
    timeout: float,
) -> None:
    python, environ = sys.executable, dict(environ)
    if name is not None:
        framework, _, version = name.partition("/")
        pins = ROOT / "tests" / "compat" / framework / f"requirements{f'-{version}' if version else ''}.txt"
        environment = environment_of(pins, say)
        python, environ = str(environment.python), environment.environ(environ)
    work = folder / "work"
    work.mkdir(exist_ok=True)
    todo = folder / "blocks.json"
    todo.write_text(json.dumps([asdict(block) for block in blocks]))
    words = [python, str(_DRIVER), str(todo), page.name]
    done = run_group(words, cwd=work, environ=environ | {"HOME": str(folder)}, timeout=timeout)
    assert done.returncode == 0, f"{page.name} ended with {done.returncode}:\n{done.stdout[-8000:]}"


def _fences(text: str) -> Iterator[tuple[dict[str, str], str, str, int]]:
    """Notes, language, code and first line of each fenced block."""
    notes: dict[str, str] = {}
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if comment := _COMMENT.match(line.strip()):
            if comment["word"] not in _WORDS:
                continue
            notes[comment["word"]] = comment["value"] or ""
        elif fence := _FENCE.match(line.strip()):
            code: list[str] = []
            for _, inner in lines:
                if inner.strip() == fence["fence"]:
                    break
                code.append(inner)
            else:
                raise ValueError(f"line {number}: the block has no end")
            yield notes, fence["language"], "\n".join(code) + "\n", number + 1
            notes = {}
        elif line.strip() and notes.keys() - {"environment"}:
            raise ValueError(f"line {number}: {', '.join(notes)} stands before no block")
