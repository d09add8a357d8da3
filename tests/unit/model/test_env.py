"""What an environment may hold."""

import pytest

from belljar.model.errors import InvalidArgument
from belljar.model.process import ProcessSpec
from belljar.model.sandbox import MAX_ENV, SandboxSpec, check_env
from belljar.model.template import TemplateSpec


@pytest.mark.parametrize("value", ["", "x", "a\nb\t\x1b[31m", "日本語", "\N{GRINNING FACE}", "a=b"])
def test_text_is_legal(value: str) -> None:
    check_env({"A": value})
    assert SandboxSpec(env={"A": value}).env == {"A": value}


@pytest.mark.parametrize("value", ["\ud83d", "\udfff", "a\ud800b"])
def test_half_a_surrogate_pair_is_nowhere(value: str) -> None:
    for raw in (False, True):
        with pytest.raises(InvalidArgument, match="A is no text"):
            check_env({"A": value}, raw=raw)


def test_bytes_that_are_no_utf_8_are_for_what_is_not_kept() -> None:
    """A sandbox's record is JSON in UTF-8; a process is told as the agent is."""
    ProcessSpec(key="k", argv=("x",), env={"A": "\udcff"})
    with pytest.raises(InvalidArgument, match="A is no text"):
        SandboxSpec(env={"A": "\udcff"})
    with pytest.raises(InvalidArgument, match="A is no text"):
        TemplateSpec(name="t", env={"A": "\udcff"})


@pytest.mark.parametrize(
    "env", [{"": "x"}, {"1A": "x"}, {"A=B": "x"}, {"A\n": "x"}, {"A": "\0"}, {f"E{n}": "" for n in range(MAX_ENV + 1)}]
)
def test_other_names_and_too_much_of_it_are_refused(env: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument):
        check_env(env)
