"""Ids: lowercase letters and digits, a prefix that tells the noun, sortable by the time they were made."""

import re
import secrets
import time

__all__ = ("ALPHABET", "ID_LENGTH", "is_id", "new_id")

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's, lower case: no i, l, o, u
_TIME_DIGITS = 9  # 45 bits of milliseconds: until the year 3084
_RANDOM_DIGITS = 10  # 50 bits
ID_LENGTH = _TIME_DIGITS + _RANDOM_DIGITS
_FORM = re.compile(rf"[a-z]{{2,4}}[{ALPHABET}]{{{ID_LENGTH}}}")


def new_id(prefix: str) -> str:
    """A new id such as ``sb01jd…``: prefix, 9 digits of time, 10 random ones; fits a DNS label."""
    number = (time.time_ns() // 1_000_000) << 50 | secrets.randbits(50)
    digits: list[str] = []
    for _ in range(ID_LENGTH):
        number, digit = divmod(number, 32)
        digits.append(ALPHABET[digit])
    return prefix + "".join(reversed(digits))


def is_id(text: str, prefix: str) -> bool:
    """Whether `text` has the form of an id with this prefix."""
    return text.startswith(prefix) and len(text) == len(prefix) + ID_LENGTH and bool(_FORM.fullmatch(text))
