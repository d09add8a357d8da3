"""What the agent refuses something with, as an error of the project's tree."""

from belljar.model.errors import Error, Internal, error_from_code

__all__ = ("agent_error", "fresh", "printable")

_CODES = frozenset(
    {
        "already_exists",
        "conflict",
        "disk_full",
        "internal",
        "invalid_argument",
        "limit_exceeded",
        "not_found",
        "not_supported",
        "permission_denied",
        "too_large",
    }
)
"""What an agent may answer. It cannot say, for example, that the sandbox is gone or that a key is wrong."""


def fresh(error: Error) -> Error:
    """The same error for one more caller: each raise adds to an exception's traceback."""
    return type(error)(error.message, hint=error.hint, request_id=error.request_id, retry_after=error.retry_after)


def printable(text: str) -> str:
    """For messages: control characters made visible."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def agent_error(error: tuple[str, str]) -> Error:
    code, message = error
    shown = printable(message)
    return error_from_code(code, shown) if code in _CODES else Internal(f"the agent failed: {printable(code)}: {shown}")
