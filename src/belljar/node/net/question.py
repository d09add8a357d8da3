"""As much of DNS as a relay must understand: a header and one question. Everything else passes as it is.

Both directions are hostile: queries come from inside sandboxes, answers over the network.
"""

import struct
from dataclasses import dataclass

__all__ = (
    "FORMAT_ERROR",
    "MAX_QUERY",
    "REFUSED",
    "SERVER_FAILED",
    "BadQuery",
    "Query",
    "is_answer",
    "parse",
    "refusal",
)

MAX_QUERY = 4096
"""Bytes. A question with every option in use has some hundred."""
FORMAT_ERROR, SERVER_FAILED, REFUSED = 1, 2, 5
_HEADER = struct.Struct(">HHHHHH")
_RESPONSE = 0x8000
_OPCODE = 0x7800
_INTERNET = 1
_META_TYPES = frozenset({0, 41, 249, 250, 251, 252})
"""Not a question about a name: OPT, TKEY, TSIG, and the transfers of whole zones, which a host may be trusted with."""
_MAX_NAME = 255
_MAX_LABEL = 63


class BadQuery(Exception):
    """`answer` is what the asker hears; None when there is no header to answer to."""

    def __init__(self, why: str, answer: bytes | None) -> None:
        super().__init__(why)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Query:
    """`question` is the name, type and class as they stand in the packet."""

    id: int
    packet: bytes
    question: bytes

    def with_id(self, id: int) -> bytes:
        return id.to_bytes(2) + self.packet[2:]


def parse(packet: bytes) -> Query:
    """Raises BadQuery for anything but one plain question."""
    if len(packet) < _HEADER.size:
        raise BadQuery("no header", None)
    id, flags, questions, answers, authorities, additional = _HEADER.unpack_from(packet)
    if flags & _RESPONSE:
        raise BadQuery("an answer, not a question", None)  # answering it would make two such servers talk for ever
    if len(packet) > MAX_QUERY:
        raise BadQuery("too long", refusal(packet, FORMAT_ERROR))
    if flags & _OPCODE:
        raise BadQuery("not a query", refusal(packet, REFUSED))
    if questions != 1 or answers or authorities or additional > 2:
        raise BadQuery("not one question", refusal(packet, FORMAT_ERROR))
    end = _end_of_name(packet, _HEADER.size)
    if end is None or end + 4 > len(packet):
        raise BadQuery("the name is malformed", refusal(packet, FORMAT_ERROR))
    kind, group = struct.unpack_from(">HH", packet, end)
    if kind in _META_TYPES or group != _INTERNET:
        raise BadQuery(f"type {kind} of class {group} is not served", refusal(packet, REFUSED))
    return Query(id, packet, packet[_HEADER.size : end + 4])


def is_answer(packet: bytes, query: Query, id: int) -> bool:
    """Whether this is the answer to the question asked under this id (servers may change the name's letter case)."""
    if len(packet) < _HEADER.size:
        return False
    its_id, flags, questions, _, _, _ = _HEADER.unpack_from(packet)
    if its_id != id or not flags & _RESPONSE or flags & _OPCODE:
        return False
    if questions == 0:  # some servers leave the question out of an error
        return bool(flags & 0xF)
    asked = packet[_HEADER.size : _HEADER.size + len(query.question)]
    return questions == 1 and asked.lower() == query.question.lower()


def refusal(packet: bytes, code: int) -> bytes:
    """An answer to this query that says only `code`, with the question if it can be read. At least a header's length."""
    id, flags = struct.unpack_from(">HH", packet)
    end = _end_of_name(packet, _HEADER.size)
    question = packet[_HEADER.size : end + 4] if end is not None and end + 4 <= len(packet) else b""
    kept = flags & (_OPCODE | 0x0100)  # opcode and "recursion desired"
    return _HEADER.pack(id, _RESPONSE | kept | 0x0080 | code, 1 if question else 0, 0, 0, 0) + question


def _end_of_name(packet: bytes, start: int) -> int | None:
    """Where the name that begins at `start` ends; None for a compressed, cut or overlong one."""
    position = start
    while position < len(packet) and position - start < _MAX_NAME:
        length = packet[position]
        if length == 0:
            return position + 1
        if length > _MAX_LABEL:
            return None
        position += 1 + length
    return None
