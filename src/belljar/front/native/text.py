"""Text from outside: bounded, without NUL; names of files may hold bytes that are no UTF-8."""

from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Query, Request
from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema

from belljar.base.units import parse_duration, parse_size
from belljar.model.errors import InvalidArgument
from belljar.model.file import check_path

__all__ = ("Duration", "PathQuery", "RawText", "Size", "Text")


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL")
    return text


def _raw(value: Any) -> str:
    """As Python does names of files: bytes that are no UTF-8 stand as lone surrogates U+DC80 to U+DCFF."""
    if not isinstance(value, str):
        raise ValueError("Input should be a valid string")
    try:
        value.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair") from None
    return _no_nul(value)


Text = Annotated[str, Field(max_length=4096), AfterValidator(_no_nul)]
RawText = Annotated[str, PlainValidator(_raw), WithJsonSchema({"type": "string"})]
Size = Annotated[
    int,
    PlainValidator(parse_size),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "maxLength": 32}]}),
]
Duration = Annotated[
    float,
    PlainValidator(parse_duration),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "maxLength": 32}]}),
]


async def _path(
    request: Request,
    path: Annotated[
        str, Query(description="Relative ones start at the sandbox's workdir.", min_length=1, max_length=4096)
    ],
) -> str:
    # The framework decodes with replacement characters; bytes that are no UTF-8 are kept here.
    query = request.scope["query_string"].decode("latin-1")
    if "%" in query:
        path = dict(parse_qsl(query, keep_blank_values=True, errors="surrogateescape")).get("path", path)
    return check_path(path)


PathQuery = _path
"""A dependency."""


def check_query(known: frozenset[str], request: Request) -> None:
    """Raises InvalidArgument for a parameter that nobody would look at."""
    for name in request.query_params:
        if name not in known:
            raise InvalidArgument(
                f"unknown parameter {name[:80]!r}", hint=f"there are: {', '.join(sorted(known)) or 'none'}"
            )
