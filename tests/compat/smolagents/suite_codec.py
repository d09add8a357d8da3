"""The codec alone, both ends in one process: all kinds of values there and back, and hostile messages."""

import base64
import contextlib
import dataclasses
import datetime
import decimal
import io
import json
import pathlib
import subprocess
import sys
import time
import uuid
import zlib
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from belljar.integrations.smolagents.inside import MODULES, arrays, frames
from belljar.integrations.smolagents.inside.codec import CodecError, Decoder, Encoder, Handles, Limits, RemoteObject

ALL = frozenset(("numpy", "pandas", "PIL", "torch"))
assert arrays
assert frames


class Wire:
    """A host and an inside, and the files between them."""

    def __init__(self, peer: frozenset[str] = ALL, limits: Limits | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.peer = peer
        self.limits = limits or Limits()
        self.host, self.inside = Handles("host"), Handles("inside")

    def spill(self, data: bytes) -> str:
        name = uuid.uuid4().hex
        self.files[name] = data
        return name

    def fetch(self, name: str, most: int) -> bytes:
        data = self.files.pop(name)
        if len(data) > most:
            raise CodecError("a value that is too large")
        return data

    def write(self, value: Any, handles: Handles | None = None) -> str:
        return Encoder(handles or self.inside, self.peer, self.spill, self.limits).dumps(value)

    def read(self, text: str, handles: Handles | None = None) -> Any:
        return Decoder(handles or self.host, self.fetch, self.limits).loads(text)

    def over(self, value: Any) -> Any:
        return self.read(self.write(value))


@dataclasses.dataclass
class Point:
    x: int
    y: tuple[int, ...] = ()


PLAIN = [
    None, True, False, 0, -1, 2**62, 2**63, -(2**200), 1.5, float("inf"), -0.0, "", "text", "ü\0\n", "x" * 200_000, [], {}, (),
    [[]], [1, [2, (3, {4})]], (1,), {1, 2}, frozenset({"a"}), {"a": 1}, {1: "a", None: (2,), (1, 2): []},
    {"$t": "host", "v": "x"}, {"__type__": "Path", "data": "x"}, {"$f": "name"}, b"", b"\0\xff" * 100_000, 1 + 2j,
    datetime.datetime.fromisoformat("2024-02-29T01:02:03.000004"), datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC),
    datetime.date(1, 1, 1), datetime.time(23, 59), datetime.timedelta(-1, 3, 5), decimal.Decimal("1.10"),
    pathlib.PurePosixPath("/a/../b"), uuid.UUID(int=5), range(1, 10, 3), list(range(400_000)),
]  # fmt: skip


@pytest.mark.parametrize("value", PLAIN, ids=range(len(PLAIN)))
def test_plain_values_come_back_equal_and_of_their_kind(value: Any) -> None:
    same = Wire().over(value)
    assert same == value
    assert type(same) is type(value)


def test_not_a_number_comes_back() -> None:
    assert str(Wire().over(float("nan"))) == "nan"


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=30,
)


@given(json_like)
@settings(max_examples=300, deadline=None)
def test_any_mixture_of_them_comes_back(value: Any) -> None:
    assert Wire().over(value) == value


ARRAYS = [
    np.arange(6).reshape(2, 3), np.zeros((0, 3)), np.array(5), np.array([1.5, np.nan]), np.array(["a", "bc"]),
    np.array([True]), np.array([1 + 2j]), np.arange(6).reshape(2, 3).T, np.arange(10)[::2],
    np.array(["2020-01-01", "NaT"], dtype="M8[ns]"), np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
    np.zeros((300, 300), dtype="f4"), np.array([1, "a", None], dtype=object),
]  # fmt: skip


@pytest.mark.parametrize("array", ARRAYS, ids=range(len(ARRAYS)))
def test_arrays_come_back_with_their_kind_and_can_be_written(array: np.ndarray) -> None:
    same = Wire().over(array)
    np.testing.assert_array_equal(same, array)
    assert (same.dtype, same.shape) == (array.dtype, array.shape)
    assert same.flags.writeable


def test_numbers_of_numpy_become_pythons() -> None:
    assert [type(Wire().over(kind(1))) for kind in (np.int8, np.float32, np.float64, np.bool_)] == [
        int,
        float,
        float,
        bool,
    ]
    assert Wire().over(np.datetime64("2020-01-01T00:00:00.123456789")) == np.datetime64("2020-01-01T00:00:00.123456789")


def test_without_numpy_on_the_other_side_arrays_are_lists() -> None:
    assert Wire(frozenset()).over({"a": np.arange(4).reshape(2, 2)}) == {"a": [[0, 1], [2, 3]]}
    assert Wire(frozenset()).over(pd.DataFrame({"a": [1, 2]})) == [{"a": 1}, {"a": 2}]
    assert Wire(frozenset()).over(Image.new("L", (1, 1)))[:4] == b"\x89PNG"


COLUMNS = {
    "ints": [1, 2, 3],
    "floats": [1.5, None, 3],
    "bools": [True, False, True],
    "text": ["a", None, "c"],
    "long": ["x" * 100_000, "", "ü"],
    "string": pd.array(["a", None, "c"], dtype="string"),
    "objects": [1, "a", None],
    "lists": [[1], [], [2, 3]],
    "moments": pd.date_range("2024-01-01", periods=3),
    "zoned": pd.date_range("2024-10-27", periods=3, freq="h", tz="Europe/Berlin"),
    "offset": pd.date_range("2024-10-27", periods=3, tz=datetime.timezone(datetime.timedelta(hours=2))),
    "spans": pd.to_timedelta([1, 2, None], unit="s"),
    "kinds": pd.Categorical(["a", "b", None], categories=["b", "a"], ordered=True),
    "masked": pd.array([1, None, 3], dtype="Int8"),
    "masked_bool": pd.array([True, None, False], dtype="boolean"),
    "masked_float": pd.array([1.5, None, 3], dtype="Float32"),
    "complex": np.array([1j, 2, 3]),
    "decimals": [decimal.Decimal("1.1"), decimal.Decimal(2), None],
    "dates": [datetime.date(2024, 1, 1)] * 3,
}


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_of_all_kinds_come_back(name: str) -> None:
    frame = pd.DataFrame({name: COLUMNS[name]})
    pd.testing.assert_frame_equal(Wire().over(frame), frame, check_freq=False)
    pd.testing.assert_series_equal(Wire().over(frame[name]), frame[name], check_freq=False)


INDEXES = [
    pd.RangeIndex(2, 8, 2, name="n"), pd.Index(["a", "b", "c"]), pd.Index([3, 1, 2], name=("x", 1)),
    pd.date_range("2024-01-01", periods=3), pd.MultiIndex.from_tuples([(1, "a"), (1, "b"), (2, "a")], names=["x", None]),
    pd.CategoricalIndex(["a", "b", "a"]), pd.Index([1.5, 2, 3]), pd.Index([True, False, True]),
]  # fmt: skip


@pytest.mark.parametrize("index", INDEXES, ids=range(len(INDEXES)))
def test_indexes_of_all_kinds_come_back_on_both_sides_of_a_table(index: pd.Index) -> None:
    frame = pd.DataFrame(np.arange(9).reshape(3, 3), index=index, columns=index)
    pd.testing.assert_frame_equal(Wire().over(frame), frame, check_freq=False)
    same = Wire().over(index)
    assert same.equals(index)
    assert (type(same), same.names, same.dtype) == (type(index), index.names, index.dtype)


def test_odd_tables_come_back() -> None:
    twice = pd.DataFrame([[1, "a"], [2, "b"]], columns=["same", "same"])
    pd.testing.assert_frame_equal(Wire().over(twice), twice)
    for empty in (pd.DataFrame(), pd.DataFrame({"a": []}), pd.DataFrame(index=[1, 2])):
        pd.testing.assert_frame_equal(Wire().over(empty), empty)
    assert Wire().over([pd.NA, pd.NaT])[0] is pd.NA
    stamp = pd.Timestamp("2024-01-01T00:00:00.123456789", tz="Asia/Tokyo")
    assert Wire().over(stamp) == stamp


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I", "F", "CMYK", "YCbCr", "HSV", "LAB"])
def test_images_of_all_modes_come_back_pixel_by_pixel(mode: str) -> None:
    image = Image.effect_mandelbrot((40, 30), (-2, -1, 1, 1), 50)
    image = image.convert(mode) if mode not in ("LAB", "HSV") else Image.frombytes(mode, (4, 3), bytes(range(36)))
    same = Wire().over(image)
    assert (same.mode, same.size, same.tobytes()) == (image.mode, image.size, image.tobytes())


def test_dataclasses_come_back_as_records() -> None:
    same = Wire().over([Point(1, (2, 3))])[0]
    assert (same.x, same["y"], same, repr(same)) == (1, (2, 3), {"x": 1, "y": (2, 3)}, "Point(x=1, y=(2, 3))")
    assert Wire().over(same).x == 1


def test_what_cannot_travel_comes_back_as_itself() -> None:
    wire, thing = Wire(), lambda: 1
    seen = wire.over({"f": thing})["f"]
    assert isinstance(seen, RemoteObject)
    assert seen.kind == "function"
    assert wire.read(wire.write(seen, wire.host), wire.inside) is thing
    assert wire.write(thing) == wire.write(thing), "the same object twice is one handle"


def test_circles_and_depths_end_in_handles() -> None:
    circle: list[Any] = [1]
    circle.append(circle)
    assert isinstance(Wire().over(circle)[1], RemoteObject)
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    assert isinstance(Wire().over(deep), list)


def test_what_is_too_large_is_refused_by_who_sends_it() -> None:
    wire = Wire(limits=Limits(bytes=1 << 20, text=2 << 20))
    for value in (b"x" * (2 << 20), "x" * (2 << 20), ["x" * 60_000] * 100, np.zeros(1 << 20)):
        with pytest.raises(CodecError, match="MiB"):
            wire.write(value)


def test_more_handles_than_are_kept_are_refused() -> None:
    wire = Wire()
    things = [object() for _ in range(10_001)]
    with pytest.raises(CodecError, match="10000 objects"):
        wire.write(things)


def npy(header: dict[str, Any], data: bytes) -> str:
    text = repr(header).encode()
    text += b" " * (64 - (10 + len(text) + 1) % 64) + b"\n"
    raw = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data
    return json.dumps({"$t": "npy", "v": base64.b64encode(raw).decode()})


def png(width: int, height: int) -> str:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x00\x00\x00\x00"
    raw = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return json.dumps({"$t": "png", "v": base64.b64encode(raw).decode()})


def tiff() -> str:
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, format="TIFF")
    return json.dumps({"$t": "png", "v": base64.b64encode(buffer.getvalue()).decode()})


HOSTILE = {
    "objects in an array": npy({"descr": "|O", "fortran_order": False, "shape": (1,)}, b"cos\nsystem\n"),
    "an array that promises a terabyte": npy({"descr": "<f8", "fortran_order": False, "shape": (1 << 37,)}, b"\0" * 8),
    "an array of nothing": npy({"descr": "|S0", "fortran_order": False, "shape": (1 << 60,)}, b""),
    "an array with code in its head": npy({"descr": "<f8", "fortran_order": False, "shape": (1,)}, b"").replace(
        "A", "B"
    ),
    "a huge image": png(100_000, 100_000),
    "an image cut short": png(10, 10),
    "an image of another format": tiff(),
    "a tensor": '{"$t": "tensor", "d": "load", "s": [1], "v": ""}',
    "pixels that do not fit": '{"$t": "pixels", "m": "F", "s": [1000, 1000], "v": ""}',
    "a table that does not fit": '{"$t": "frame", "c": {"r": [0, 9, 1]}, "i": {"r": [0, 1000000000, 1]}, "v": []}',
    "an index without a step": '{"$t": "index", "v": {"r": [0, 1, 0]}}',
    "a time zone that is a path": '{"$t": "timestamp", "v": "2024-01-01T00:00:00Z", "z": "../../etc/passwd"}',
    "a dtype by name": '{"$t": "series", "i": {"r": [0, 1, 1]}, "v": {"k": "masked", "d": "object", "v": "", "m": ""}}',
    "a list as a key": '{"$t": "dict", "v": [[[], 1]]}',
    "a dollar in a key": '{"$x": 1}',
    "a foreign object": '{"$t": "host", "v": "00"}',
    "nesting": "[" * 900 + "]" * 900,
    "deep nesting": "[" * 1_000_000,
    "many parts": "[" + "[]," * 2_000_001 + "[]]",
    "no number": '{"$t": "int", "v": "5x"}',
    "a long number": "9" * 10_000,
    "bad base64": '{"$t": "bytes", "v": "?"}',
    "a file that is none": '{"$t": "bytes", "v": {"f": "/etc/passwd"}}',
    "a date that is none": '{"$t": "date", "v": "yesterday"}',
    "a delta too far": '{"$t": "timedelta", "v": [1e300, 0, 0]}',
    "no text": '{"$t": "Path", "v": 5}',
    "a NUL in JSON": "\0",
    "two values": "1 2",
    "a record without fields": '{"$t": "record", "n": "X", "v": 1}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_messages_are_refused_quickly(name: str) -> None:
    started = time.monotonic()
    with pytest.raises(CodecError):
        Wire().read(HOSTILE[name])
    assert time.monotonic() - started < 5


TAGS = (
    "npy ndarray png pixels frame series index dict set tuple bytes int range record host inside timestamp missing tensor str "
    "complex datetime date time timedelta Decimal Path UUID frozenset"
)
FIELDS = st.sampled_from(["v", "n", "s", "i", "c", "m", "z", "k", "d", "o", "r", "f", "$f", "$t"])
ATOMS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.text(max_size=5)
    | st.sampled_from(["npy", "text", "masked", "F"])
)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    fields = st.dictionaries(FIELDS, inner, max_size=5)
    tagged = st.builds(lambda tag, rest: {**rest, "$t": tag}, st.sampled_from(TAGS.split()), fields)
    return st.lists(inner, max_size=4) | fields | tagged


@given(st.recursive(ATOMS, nested, max_leaves=15))
@settings(max_examples=1500, deadline=None)
def test_whatever_is_said_is_a_value_or_a_codec_error(node: Any) -> None:
    with contextlib.suppress(CodecError):
        Wire().read(json.dumps(node))


def test_keys_that_collide_do_not_stop_the_host() -> None:
    modulus = sys.hash_info.modulus
    items = [{"$t": "int", "v": hex(n * modulus)} for n in range(1, 60_000)]
    started = time.monotonic()
    with pytest.raises(CodecError, match="too long"):
        Wire(limits=Limits(seconds=2)).read(json.dumps({"$t": "set", "v": items}))
    assert time.monotonic() - started < 10


def test_lone_surrogates_do_not_reach_the_host() -> None:
    assert Wire().read('"a\\ud800b"').encode()
    assert Wire().read('{"\\ud800": 1}') == {"?": 1}


def test_what_runs_inside_needs_no_package_and_python_3_9_alone() -> None:
    import ast

    folder = pathlib.Path(arrays.__file__).parent
    known = {"numpy", "pandas", "PIL", "torch"}
    for name in MODULES:
        tree = ast.parse((folder / f"{name}.py").read_text(), feature_version=(3, 9))
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {alias.name.split(".")[0] for node in top if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module.split(".")[0] for node in top if isinstance(node, ast.ImportFrom) and not node.level}
        assert names <= sys.stdlib_module_names, name
        assert not names & known
    isolated = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"import sys; sys.path.insert(0, {str(folder.parent)!r}); import inside.stubs",
    ]
    assert subprocess.run(isolated, check=False).returncode == 0
