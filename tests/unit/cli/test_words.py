"""Words of the command line as values, and the words that are said back."""

import sys
from pathlib import Path

import pytest

from belljar.cli import parse
from belljar.cli.console import UsageProblem, plain
from belljar.cli.escape import Escape
from belljar.cli.pipes import exit_status
from belljar.cli.suggest import did_you_mean


def test_variables_have_a_value_or_the_one_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "x=y")
    assert parse.env_of(["A=1=2", "B=", "HERE"]) == {"A": "1=2", "B": "", "HERE": "x=y"}
    monkeypatch.delenv("NOT_HERE", raising=False)
    with pytest.raises(UsageProblem, match="NOT_HERE"):
        parse.env_of(["NOT_HERE"])


def test_labels_need_a_value() -> None:
    assert parse.labels_of(["a=b=c"]) == {"a": "b=c"}
    with pytest.raises(UsageProblem, match="a"):
        parse.labels_of(["a"])


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("web:/srv/x", ("web", "/srv/x")),
        ("web:", ("web", ".")),
        ("sb01:a:b", ("sb01", "a:b")),
        ("./a:b", None),
        ("/a:b", None),
        ("a/b:c", None),
        ("..:c", None),
        ("file", None),
        (":x", None),
    ],
)
def test_a_colon_makes_a_path_remote_unless_a_slash_comes_first(word: str, meant: tuple[str, str] | None) -> None:
    assert parse.remote_of(word) == meant


def test_copies_name_both_ends_or_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").touch()
    assert parse.copy_in("f") == (Path("f"), "f")
    assert parse.copy_in("f:/x/y") == (Path("f"), "/x/y")
    assert parse.copy_in(f"{tmp_path}/f") == (tmp_path / "f", "f")
    with pytest.raises(UsageProblem, match="none"):
        parse.copy_in("none:/x")
    assert parse.copy_out("/x/plot.png") == ("/x/plot.png", Path("plot.png"))
    assert parse.copy_out("plot.png:out/p.png") == ("plot.png", Path("out/p.png"))
    with pytest.raises(UsageProblem, match="which file"):
        parse.copy_out(":x")


def test_sizes_and_durations_are_checked_at_once() -> None:
    assert parse.size("512MiB") == "512MiB"
    assert parse.size("1000") == 1000
    assert parse.duration("5m") == "5m"
    with pytest.raises(UsageProblem, match="lots"):
        parse.size("lots")
    with pytest.raises(UsageProblem, match="soon"):
        parse.duration("soon")


def test_text_of_a_sandbox_cannot_command_the_terminal() -> None:
    assert plain("ok é") == "ok é"
    assert plain("a\x1b[31mb\x9b\r\u202e") == "a�[31mb���"
    assert plain("a\nb\tc", keep="\n\t") == "a\nb\tc"


def test_status_of_a_signal_is_that_of_a_shell() -> None:
    assert [exit_status(code) for code in (0, 3, -9, -15)] == [0, 3, 137, 143]


def test_a_wrong_word_is_corrected_within_the_whole_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["belljar", "sandbox", "show", "web1", "--json"])
    assert did_you_mean("web1", ["web-1", "other"]) == "did you mean\n    belljar sandbox show web-1 --json"
    assert did_you_mean("web1", ["nothing alike"]) is None
    assert did_you_mean("not in it", ["not in it!"]) is None


def typed(*keys: bytes) -> tuple[bytes, bool]:
    escape, passed = Escape(), b""
    for key in keys:
        data, leave = escape.feed(key)
        passed += data
        if leave:
            return passed, True
    return passed, False


@pytest.mark.parametrize(
    ("keys", "passed", "leaves"),
    [
        ([b"~", b"."], b"", True),
        ([b"l", b"s", b"\r", b"~", b"."], b"ls\r", True),
        ([b"a", b"~", b"."], b"a~.", False),
        ([b"\r", b"~", b"~"], b"\r~", False),
        ([b"\r", b"~", b"x"], b"\r~x", False),
        ([b"\r~."], b"\r~.", False),  # a paste
        ([b"\r", b"~", b"abc\r", b"~", b"."], b"\r~abc\r", True),
    ],
)
def test_enter_tilde_dot_is_the_way_out_and_nothing_else_is_swallowed(
    keys: list[bytes], passed: bytes, leaves: bool
) -> None:
    assert typed(*keys) == (passed, leaves)
