"""Whose clients can be pointed at this server, and by which variables: one entry each, which nothing else has to know of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ("VENDORS", "Place", "Vendor")


@dataclass(frozen=True, slots=True)
class Place:
    """A server that is reached over TCP: its address without a slash at the end, and a key. `authorities`: a file with the
    certificates to trust for it, None for those that a client trusts anyhow.
    """

    url: str
    key: str
    authorities: str | None = None


@dataclass(frozen=True, slots=True)
class Vendor:
    """`variables`: by name, for a place. `authorities`: the variables by which its clients find the certificates to trust."""

    about: str
    variables: Callable[[Place], Mapping[str, str]]
    authorities: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """All that may be set."""
        return [*self.variables(Place("", "")), *self.authorities]

    def environment(self, place: Place) -> dict[str, str]:
        found = dict(self.variables(place))
        if place.authorities is not None:
            found |= dict.fromkeys(self.authorities, place.authorities)
        return found


VENDORS: dict[str, Vendor] = {
    "native": Vendor(
        "Belljar's own SDK and command line",
        lambda place: {"BELLJAR_URL": place.url, "BELLJAR_API_KEY": place.key},
        ("SSL_CERT_FILE",),
    ),
}
