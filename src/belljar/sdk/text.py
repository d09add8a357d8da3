"""Output as text, piece by piece, in the manner of subprocess's text mode."""

import codecs
import io

__all__ = ("TextDecoder", "plain_bytes")


class TextDecoder:
    """UTF-8 with universal newlines. What is no UTF-8 becomes U+FFFD: output is never lost to a decoding error."""

    def __init__(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)

    def __call__(self, data: bytes, *, final: bool = False) -> str:
        return self._decoder.decode(data, final)  # pyright: ignore[reportArgumentType] - typeshed wants str here


def plain_bytes(data: bytes, *, final: bool = False) -> bytes:
    """Stands where a TextDecoder would, for those who want bytes."""
    return data
