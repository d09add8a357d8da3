"""The one tree of errors. Each front translates it once; the SDK raises the same classes.

Keep apart: "the command failed" is a result, "the platform failed" is an error of this tree.
"""

from typing import ClassVar

__all__ = (
    "AlreadyExists",
    "Cancelled",
    "Conflict",
    "DeadlineExceeded",
    "DiskFull",
    "EngineFailed",
    "Error",
    "ImageNotFound",
    "Internal",
    "InvalidArgument",
    "LimitExceeded",
    "NoCapacity",
    "NotFound",
    "NotSupported",
    "PermissionDenied",
    "PolicyDenied",
    "SandboxGone",
    "SnapshotCorrupt",
    "SnapshotIncompatible",
    "Starting",
    "TemplateFailed",
    "TooLarge",
    "Unauthenticated",
    "error_from_code",
)


class Error(Exception):
    """Anything Belljar refuses or fails to do.

    `code` is stable and meant for programs; `message` and `hint` (what to do about it) are for people; `retryable` says
    that the same call may work later, `retry_after` in how many seconds (at least 0), where that is known.
    """

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.request_id = request_id
        self.retry_after = None if retry_after is None else max(0.0, retry_after)

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class InvalidArgument(Error):
    """A value is not legal: the message names it and says what is."""

    code = "invalid_argument"


class Unauthenticated(Error):
    """No key, or one that is unknown, revoked or expired."""

    code = "unauthenticated"


class PermissionDenied(Error):
    """The key, or the user of this machine, may not do that."""

    code = "permission_denied"


class PolicyDenied(Error):
    """The operator's policy forbids it."""

    code = "policy_denied"


class NotFound(Error):
    """The thing named is not there."""

    code = "not_found"


class ImageNotFound(NotFound):
    """No image of this name."""

    code = "image_not_found"


class SandboxGone(NotFound):
    """The sandbox has ended; the message says why and when."""

    code = "sandbox_gone"


class Conflict(Error):
    """Not in this state."""

    code = "conflict"


class AlreadyExists(Conflict):
    """The name is taken."""

    code = "already_exists"


class TooLarge(Error):
    """A body, argument or file is beyond its bound; the message says the bound."""

    code = "too_large"


class LimitExceeded(Error):
    """A quota or rate is used up."""

    code = "limit_exceeded"
    retryable = True


class Cancelled(Error):
    """The caller left before the answer."""

    code = "cancelled"


class Internal(Error):
    """A fault of Belljar's own."""

    code = "internal"


class EngineFailed(Error):
    """The engine could not do its part; the message has its words."""

    code = "engine_failed"


class NotSupported(Error):
    """This engine, machine or image cannot do that; the message says why."""

    code = "not_supported"


class NoCapacity(Error):
    """The machine has no room for it now."""

    code = "no_capacity"
    retryable = True


class Starting(Error):
    """The server is not ready yet, or its store cannot be reached for now; nothing was done."""

    code = "starting"
    retryable = True


class DeadlineExceeded(Error, TimeoutError):
    """No answer within the deadline."""

    code = "timeout"
    retryable = True


class DiskFull(Error):
    """No space left where it would be written."""

    code = "disk_full"


class SnapshotIncompatible(Error):
    """Made by another engine build, on another kind of processor, or for another machine: it cannot go on here."""

    code = "snapshot_incompatible"


class SnapshotCorrupt(Error):
    """Its files are not what was written: torn, changed, or encrypted with another key."""

    code = "snapshot_corrupt"


class TemplateFailed(Error):
    """A template did not become ready; the message has the last words of its command."""

    code = "template_failed"


def _all(kind: type[Error]) -> list[type[Error]]:
    return [kind, *(sub for child in kind.__subclasses__() for sub in _all(child))]


def error_from_code(
    code: str,
    message: str,
    *,
    hint: str | None = None,
    request_id: str | None = None,
    retry_after: float | None = None,
) -> Error:
    """The error that another process described; an unknown code becomes a plain Error."""
    for kind in _all(Error):
        if kind.code == code and kind is not Error:
            return kind(message, hint=hint, request_id=request_id, retry_after=retry_after)
    return Error(f"{code}: {message}", hint=hint, request_id=request_id, retry_after=retry_after)
