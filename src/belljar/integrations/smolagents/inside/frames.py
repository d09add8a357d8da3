# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportMissingTypeStubs=false, reportMissingModuleSource=false
"""pandas objects of the codec, column by column: numbers as raw buffers, text and mixed columns as JSON with tags.

No parquet and no arrow: a table from the sandbox is hostile, and this format needs no parser but JSON's and a look at a header.
"""

from __future__ import annotations

import re
from typing import Any

from .arrays import npy, npy_of
from .codec import CodecError, Decoder, Encoder, reader, writer

__all__ = ("write_pandas",)

_MASKED = re.compile(r"U?Int(8|16|32|64)|Float(32|64)|boolean")


@writer("pandas")
def write_pandas(encoder: Encoder, value: Any) -> Any:
    import pandas

    if value is pandas.NaT or value is pandas.NA:
        return {"$t": "missing", "v": "NaT" if value is pandas.NaT else "NA"}
    if isinstance(value, pandas.Timestamp):
        if "pandas" not in encoder.peer:
            return encoder.tree(value.to_pydatetime(warn=False))
        return {"$t": "timestamp", "v": value.isoformat(), "z": str(value.tz) if value.tz is not None else None}
    if isinstance(value, pandas.Timedelta):
        return encoder.tree(value.to_pytimedelta())
    if not isinstance(value, (pandas.DataFrame, pandas.Series, pandas.Index)):
        return None
    if "pandas" not in encoder.peer or "numpy" not in encoder.peer:
        return encoder.tree(value.to_dict("records") if isinstance(value, pandas.DataFrame) else value.tolist())
    if isinstance(value, pandas.Index):
        return {"$t": "index", "v": _index(encoder, value)}
    if isinstance(value, pandas.Series):
        return {
            "$t": "series",
            "n": encoder.tree(value.name),
            "i": _index(encoder, value.index),
            "v": _column(encoder, value),
        }
    columns = [_column(encoder, value.iloc[:, number]) for number in range(value.shape[1])]
    return {"$t": "frame", "c": _index(encoder, value.columns), "i": _index(encoder, value.index), "v": columns}


def _index(encoder: Encoder, index: Any) -> Any:
    import pandas

    if isinstance(index, pandas.RangeIndex):
        return {"r": [index.start, index.stop, index.step], "n": encoder.tree(index.name)}
    if isinstance(index, pandas.MultiIndex):
        levels = [_column(encoder, index.get_level_values(number).to_series()) for number in range(index.nlevels)]
        return {"m": levels, "n": [encoder.tree(name) for name in index.names]}
    return {"v": _column(encoder, index.to_series()), "n": encoder.tree(index.name)}


def _column(encoder: Encoder, column: Any) -> Any:
    import numpy
    import pandas

    dtype = column.dtype
    if isinstance(dtype, pandas.CategoricalDtype):
        categories = _column(encoder, dtype.categories.to_series())
        codes = npy(encoder, column.cat.codes.to_numpy())
        return {"k": "category", "c": categories, "o": bool(dtype.ordered), "v": codes}
    if isinstance(dtype, pandas.DatetimeTZDtype):
        moments = column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
        return {"k": "moments", "z": str(dtype.tz), "v": npy(encoder, moments)}
    if _MASKED.fullmatch(str(dtype)):
        missing = column.isna().to_numpy()
        plain = "bool" if str(dtype) == "boolean" else str(dtype).lower()
        values = column.fillna(False if plain == "bool" else 0).to_numpy(dtype=plain)
        return {"k": "masked", "d": str(dtype), "v": npy(encoder, values), "m": npy(encoder, missing)}
    if isinstance(dtype, numpy.dtype) and dtype.kind in "biufcmM":
        return {"k": "npy", "v": npy(encoder, column.to_numpy())}
    if isinstance(dtype, pandas.StringDtype):
        texts = [None if missing else text for text, missing in zip(column.tolist(), column.isna().tolist())]
        named = {"d": "string"} if dtype.na_value is pandas.NA else {}
        return {"k": "text", "v": [encoder.tree(text) for text in texts], **named}
    plain = column.astype(object) if getattr(dtype, "kind", None) == "O" else column.astype(str).astype(object)
    return {"k": "object", "v": [encoder.tree(item) for item in plain.tolist()]}


@reader("missing")
def _read_missing(decoder: Decoder, node: dict[str, Any]) -> Any:
    import pandas

    return pandas.NaT if node.get("v") == "NaT" else pandas.NA


@reader("timestamp")
def _read_timestamp(decoder: Decoder, node: dict[str, Any]) -> Any:
    import pandas

    moment = pandas.Timestamp(decoder.text(node.get("v")))
    zone = node.get("z")
    return moment if zone is None else moment.tz_convert(_zone(decoder, zone))


@reader("index")
def _read_index(decoder: Decoder, node: dict[str, Any]) -> Any:
    return _index_of(decoder, node.get("v"))


@reader("series")
def _read_series(decoder: Decoder, node: dict[str, Any]) -> Any:
    import pandas

    index = _index_of(decoder, node.get("i"))
    return pandas.Series(_column_of(decoder, node.get("v")), index=index, name=decoder.tree(node.get("n")))


@reader("frame")
def _read_frame(decoder: Decoder, node: dict[str, Any]) -> Any:
    import pandas

    index = _index_of(decoder, node.get("i"))
    columns = _index_of(decoder, node.get("c"))
    contents = [_column_of(decoder, column) for column in _list(node.get("v"))]
    if len(contents) != len(columns) or any(len(content) != len(index) for content in contents):
        raise CodecError("a table whose columns do not fit")
    frame = pandas.DataFrame(dict(enumerate(contents)), index=range(len(index)))
    frame.index = index
    frame.columns = columns
    return frame


def _index_of(decoder: Decoder, node: Any) -> Any:
    import pandas

    if not isinstance(node, dict):
        raise CodecError("no index")
    if "r" in node:
        start, stop, step = [int(part) for part in _list(node["r"])]
        return pandas.RangeIndex(start, stop, step, name=decoder.tree(node.get("n")))
    if "m" in node:
        levels = [_column_of(decoder, level) for level in _list(node["m"])]
        return pandas.MultiIndex.from_arrays(levels, names=decoder.items(node.get("n")))
    return pandas.Index(_column_of(decoder, node.get("v")), name=decoder.tree(node.get("n")))


def _column_of(decoder: Decoder, node: Any) -> Any:
    import pandas

    kind = node.get("k") if isinstance(node, dict) else None
    if kind == "npy":
        return _flat(npy_of(decoder, node.get("v")))
    if kind == "object":
        return pandas.Series(decoder.items(node.get("v")), dtype=object).array
    if kind == "text":
        # Before pandas 3 "str" is no dtype of its own, but makes text of everything, of None too.
        usual = "str" if int(pandas.__version__.partition(".")[0]) >= 3 else object
        return pandas.Series(decoder.items(node.get("v")), dtype="string" if node.get("d") == "string" else usual).array
    if kind == "masked":
        dtype = decoder.text(node.get("d"))
        if not _MASKED.fullmatch(dtype):
            raise CodecError("no kind of column")
        values, missing = _flat(npy_of(decoder, node.get("v"))), _flat(npy_of(decoder, node.get("m")))
        array = pandas.array(values, dtype=dtype)
        array[missing.astype(bool)] = pandas.NA
        return array
    if kind == "moments":
        moments = pandas.Series(_flat(npy_of(decoder, node.get("v"))))
        return moments.dt.tz_localize("UTC").dt.tz_convert(_zone(decoder, node.get("z"))).array
    if kind == "category":
        categories = pandas.Index(_column_of(decoder, node.get("c")))
        codes = _flat(npy_of(decoder, node.get("v")))
        return pandas.Categorical.from_codes(codes, categories=categories, ordered=node.get("o") is True)
    raise CodecError("no kind of column")


def _zone(decoder: Decoder, node: Any) -> str:
    """The name of a time zone becomes a path of this machine's files: only such names as zones have."""
    name = decoder.text(node)
    if not re.fullmatch(r"[A-Za-z0-9_+:-]{1,40}(/[A-Za-z0-9_+-]{1,40}){0,2}", name):
        raise CodecError("no time zone")
    return name


def _flat(array: Any) -> Any:
    if array.ndim != 1:
        raise CodecError("a column is flat")
    return array


def _list(node: Any) -> list[Any]:
    if not isinstance(node, list):
        raise CodecError("no list of the codec")
    return node
