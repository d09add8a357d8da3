# Made by scripts/make_sync.py from _async/usage.py: do not edit.
"""What sandboxes used, for those who pay for them."""

from collections.abc import Iterator

from belljar.model.usage import UsageEntry
from belljar.sdk._sync.link import shared_link
from belljar.sdk.answers import usage_entry_of
from belljar.sdk.asking import url

__all__ = ("Usage",)
_PAGE = 500


class Usage:
    """Who used how much, in whole numbers: what is told by sandbox, by hour and by workspace adds up to the same.

    >>> for entry in Usage.list(by="workspace"):
    ...     print(entry.workspace, entry.cpu_seconds, entry.memory_gib_seconds, entry.sent_bytes)
    default 12.5 30.25 4096
    """

    @classmethod
    def list(
        cls,
        *,
        by: str = "sandbox",
        since: float | None = None,
        until: float | None = None,
        workspace: str | None = None,
        limit: int | None = None,
    ) -> Iterator[UsageEntry]:
        """In all hours that the time from `since` to `until` touches (seconds since 1970). `by`: ``sandbox`` and ``hour``, the
        newest first, or ``workspace``. For operators of every workspace, or of the one that is named; for others of their own.

        Raises InvalidArgument, NotFound (somebody else's workspace, or one that never was).
        """
        link = shared_link()
        left, cursor = (limit, None)
        while left is None or left > 0:
            size = _PAGE if left is None else min(left, _PAGE)
            period = {"from": since, "to": until}
            asked = url("usage", by=by, workspace=workspace, limit=size, cursor=cursor, **period)
            page = link.call("GET", asked)
            for item in page["items"]:
                yield usage_entry_of(item)
            left = None if left is None else left - len(page["items"])
            cursor = page.get("next")
            if cursor is None:
                return
