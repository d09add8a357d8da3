#!/usr/bin/env python3
"""Writes the sync twin of the SDK (`src/belljar/sdk/_sync`) from the async one; `--check` only says whether it is stale.

Each `await` goes, `async for` becomes `for`, `AsyncX` becomes `X`, `__aenter__` becomes `__enter__` and so on, in code and in
docstrings. `flow.py`, where the two differ, is written by hand on both sides.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

__all__ = ("is_current", "main", "twin_of")

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src/belljar/sdk/_async"
TARGET = ROOT / "src/belljar/sdk/_sync"
BY_HAND = {"flow.py"}
HEADER = "# Made by scripts/make_sync.py from _async/{name}: do not edit.\n"

NAMES = {
    "AsyncIterator": "Iterator",
    "AsyncIterable": "Iterable",
    "StopAsyncIteration": "StopIteration",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "aclose": "close",
    "anext": "next",
    "aread": "read",
    "aiter_raw": "iter_raw",
    "_async": "_sync",
}
_CLASS = re.compile(r"\bAsync(?=[A-Z])")
_WORDS = re.compile(r"\b(" + "|".join(re.escape(name) for name in NAMES if name != "_async") + r")\b")


def main(arguments: list[str]) -> int:
    if "--check" in arguments:
        stale = [path.name for path in _sources() if not is_current(path)] + _orphans()
        for name in stale:
            print(f"stale: _sync/{name} (run scripts/make_sync.py)", file=sys.stderr)
        return 1 if stale else 0
    TARGET.mkdir(exist_ok=True)
    written: list[str] = []
    for path in _sources():
        target = TARGET / path.name
        if not is_current(path):
            target.write_text(HEADER.format(name=path.name) + ast.unparse(twin_of(path.read_text())) + "\n")
            written.append(str(target))
    for name in _orphans():
        (TARGET / name).unlink()
    if written:
        for step in (["check", "--select", "I", "--fix", "--quiet"], ["format", "--quiet"]):
            subprocess.run([sys.executable, "-m", "ruff", *step, *written], check=True)
    print(f"{len(written)} modules written")
    return 0


def _sources() -> list[Path]:
    return sorted(path for path in SOURCE.glob("*.py") if path.name not in BY_HAND)


def _orphans() -> list[str]:
    wanted = {path.name for path in _sources()} | BY_HAND
    return sorted(path.name for path in TARGET.glob("*.py") if path.name not in wanted)


def is_current(source: Path) -> bool:
    """Compares meaning, not layout: no formatter and no version of Python makes a twin stale."""
    target = TARGET / source.name
    if not target.exists():
        return False
    return _dump(ast.parse(target.read_text())) == _dump(twin_of(source.read_text()))


def _dump(tree: ast.Module) -> str:
    """Without the order of imports, which the formatter may change."""
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            node.names.sort(key=lambda alias: alias.name)
    imports = sorted(ast.dump(node) for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom)))
    rest = [ast.dump(node) for node in tree.body if not isinstance(node, (ast.Import, ast.ImportFrom))]
    return "\n".join(imports + rest)


def twin_of(source: str) -> ast.Module:
    tree = ast.parse(source)
    made = _ToSync().visit(tree)
    return ast.parse(ast.unparse(ast.fix_missing_locations(made)))


def _renamed(name: str) -> str:
    return NAMES.get(name) or _CLASS.sub("", name)


def _text(text: str) -> str:
    text = re.sub(r"\basync (with|for|def)\b", r"\1", text)
    text = re.sub(r"\bwith await\b", "with", text)
    text = re.sub(r"\((await (?:[^()]|\([^()]*\))*)\)(?=\.)", lambda match: match[1].removeprefix("await "), text)
    text = re.sub(r"\bawait (?=[\w(])", "", text)
    text = _WORDS.sub(lambda match: NAMES[match[1]], text)
    return _CLASS.sub("", text)


class _ToSync(ast.NodeTransformer):
    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        made = ast.FunctionDef(**{field: getattr(node, field, None) for field in node._fields})
        return self.visit(ast.copy_location(made, node))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.name = _renamed(node.name)
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.name = _renamed(node.name)
        return self.generic_visit(node)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.AST:
        made = ast.For(**{field: getattr(node, field, None) for field in node._fields})
        return self.generic_visit(ast.copy_location(made, node))

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AST:
        made = ast.With(**{field: getattr(node, field, None) for field in node._fields})
        return self.generic_visit(ast.copy_location(made, node))

    def visit_Await(self, node: ast.Await) -> ast.AST:
        return self.visit(node.value)

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        node.is_async = 0
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = _renamed(node.id)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        node.attr = _renamed(node.attr)
        return self.generic_visit(node)

    def visit_alias(self, node: ast.alias) -> ast.AST:
        node.name = ".".join(_renamed(part) for part in node.name.split("."))
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        node.module = ".".join(_renamed(part) for part in (node.module or "").split("."))
        node.names = [alias for alias in node.names if alias.name != "Awaitable"]
        return self.generic_visit(node) if node.names else None

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        if isinstance(node.value, ast.Name) and node.value.id == "Awaitable":
            return self.visit(node.slice)
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, str):
            node.value = _text(node.value)
        return node


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
