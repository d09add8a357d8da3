"""Completion for a shell that is named: the parser's own options know only the one that runs them."""

from typing import Any

import typer
from typer.completion import get_completion_script, install  # pyright: ignore[reportPrivateImportUsage] # nothing else has them

from belljar.cli.console import UsageProblem, print_data, say
from belljar.cli.suggest import did_you_mean

__all__ = ("SHELLS", "complete_for", "names_a_shell")

SHELLS = ("bash", "fish", "zsh")
_INSTALL, _SHOW = "--install-completion", "--show-completion"


def names_a_shell(words: list[str]) -> bool:
    """``--show-completion zsh``, and nothing else."""
    return len(words) == 2 and words[0] in (_INSTALL, _SHOW) and not words[1].startswith("-")


def complete_for(words: list[str], context: Any) -> None:
    """Shows or installs it, and leaves. Raises UsageProblem."""
    flag, shell = words
    name: str = context.info_name
    if shell not in SHELLS:
        raise UsageProblem(f"{flag} is for {', '.join(SHELLS)}, not {shell!r}", did_you_mean(shell, SHELLS))
    if flag == _SHOW:
        print_data(get_completion_script(prog_name=name, complete_var=f"_{name.upper()}_COMPLETE", shell=shell))
    else:
        _, file = install(shell=shell, prog_name=name)
        say(f"{file} is written; {shell} completes `{name}` from its next start on")
    raise typer.Exit
