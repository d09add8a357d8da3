"""What can go wrong between the two ends."""

__all__ = ("Busy", "WireFault")


class WireFault(Exception):
    """The peer broke the protocol: nothing it says from here on can be trusted, the session is over."""


class Busy(Exception):
    """Too many requests or streams are open at once; some must end first."""
