"""The checkers of style, types, spelling and shell, as tests; and that generated files are fresh."""

import subprocess
import sys
from pathlib import Path

import pytest

from .tree import ROOT, tracked

BIN = Path(sys.executable).parent


def check(*words: str | Path) -> None:
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]


def shell_scripts() -> list[Path]:
    starts = ("#!/usr/bin/env bash", "#!/bin/sh", "#!/bin/bash", "# shellcheck shell=")
    return [
        p for p in tracked() if p.suffix in ("", ".sh") and (ROOT / p).read_text(errors="replace").startswith(starts)
    ]


def test_ruff_finds_nothing() -> None:
    check(BIN / "ruff", "check", "--output-format", "concise", ".")


def test_everything_is_formatted() -> None:
    check(BIN / "ruff", "format", "--check", ".")


@pytest.mark.timeout(300)
def test_types_are_sound() -> None:
    check(BIN / "basedpyright", "--level", "error")


def test_spelling_is_right() -> None:
    check(BIN / "codespell", *(path for path in tracked() if path.suffix in (".py", ".md", ".go", ".toml", "")))


def test_shell_scripts_are_sound() -> None:
    scripts = shell_scripts()
    assert Path("scripts/test") in scripts
    check(BIN / "shellcheck", "--external-sources", *scripts)


@pytest.mark.parametrize("maker", ["make_sync.py", "make_errors.py", "make_api.py"])
def test_what_is_made_from_the_source_is_fresh(maker: str) -> None:
    check(sys.executable, ROOT / "scripts" / maker, "--check")
