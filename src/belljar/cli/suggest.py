"""What was probably meant, as a whole command to copy."""

import difflib
import shlex
import sys
from collections.abc import Iterable

__all__ = ("did_you_mean",)

_CUT_OFF = 0.6
_MOST = 3


def did_you_mean(wrong: str, known: Iterable[str]) -> str | None:
    """``belljar sandbox show web-1`` for each close match of the word `wrong` in this command line, or None."""
    matches = difflib.get_close_matches(wrong, sorted(set(known)), n=_MOST, cutoff=_CUT_OFF)
    words = sys.argv[1:]
    at = next((at for at, word in enumerate(words) if word == wrong or word.startswith(f"{wrong}=")), None)
    if not matches or at is None:
        return None
    rest = words[at].removeprefix(wrong)  # of ``--option=value``
    lines = [shlex.join(["belljar", *words[:at], match + rest, *words[at + 1 :]]) for match in matches]
    return "did you mean\n    " + "\n    ".join(lines)
