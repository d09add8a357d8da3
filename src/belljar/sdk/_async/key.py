"""API keys, for those who may make them."""

from collections.abc import AsyncIterator
from typing import Self

from belljar.base.units import Duration
from belljar.sdk._async.link import AsyncLink, shared_link
from belljar.sdk.answers import key_of
from belljar.sdk.asking import duration_of, quota_of, url
from belljar.sdk.kept import KeyInfo, Quota
from belljar.sdk.pure import path_text

__all__ = ("AsyncKey",)

_PAGE = 100


class AsyncKey:
    """Lets programs on other machines in, through a server's TCP listener.

    >>> key = await AsyncKey.create("ci", scope="run", ttl="30d")
    >>> print(key.secret)  # only now; the server keeps a digest
    """

    def __init__(self, link: AsyncLink, info: KeyInfo, secret: str | None = None) -> None:
        """Not for users."""
        self._link = link
        self._info = info
        self.secret = secret
        """What goes into ``BELLJAR_API_KEY``; None for a key that was not made here and now."""

    @classmethod
    async def create(
        cls,
        name: str,
        *,
        scope: str = "run",
        ttl: Duration | None = None,
        quota: Quota | None = None,
        workspace: str | None = None,
    ) -> Self:
        """`scope`: ``"read"`` looks, ``"run"`` also makes, changes and ends, ``"admin"`` also makes and revokes keys and
        reads the audit log. `ttl`: for how long it is valid; None: it never expires. `quota`: bounds for what is made with this
        key alone. `workspace`: another one than one's own, for operators.

        Raises InvalidArgument, PermissionDenied, LimitExceeded, NotFound (the workspace).
        """
        link = await shared_link()
        body = {"name": name, "scope": scope, "ttl": duration_of(ttl), "quota": quota_of(quota)}
        if workspace is not None:
            body["workspace"] = workspace
        made = await link.call("POST", url("keys"), json=body)
        return cls(link, key_of(made), made["secret"])

    @classmethod
    async def get(cls, id: str) -> Self:
        """Raises NotFound."""
        link = await shared_link()
        return cls(link, key_of(await link.call("GET", url("keys", path_text(id)))))

    @classmethod
    async def list(cls) -> AsyncIterator[Self]:
        """The newest first, also those that are revoked or expired."""
        link = await shared_link()
        cursor = None
        while True:
            page = await link.call("GET", url("keys", limit=_PAGE, cursor=cursor))
            for item in page["items"]:
                yield cls(link, key_of(item))
            cursor = page.get("next")
            if cursor is None:
                return

    @property
    def id(self) -> str:
        return self._info.id

    @property
    def name(self) -> str:
        return self._info.name

    @property
    def last_info(self) -> KeyInfo:
        """As of the last call."""
        return self._info

    async def revoke(self) -> None:
        """From now on nobody gets in with it. May be repeated."""
        self._info = key_of(await self._link.call("DELETE", url("keys", self.id)))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.name!r}>"
