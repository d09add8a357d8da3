"""Trees that are put over a path, in plain mode: there they are put into it."""

import io
import tarfile
from collections.abc import Iterator

import pytest

from belljar_agent import mounts
from belljar_agent.api import Refused


@pytest.fixture(autouse=True)
def nothing_mounted() -> Iterator[None]:
    yield
    mounts._MOUNTS.clear()
    mounts._LEFT.clear()


def tree(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_a_tree_comes_and_goes(bench):
    path = str(bench.home / "data")
    assert bench.send("mount", tree(a=b"1", b=b"22"), path=path, label="sn1") == {"entries": 2}
    assert (bench.home / "data/b").read_bytes() == b"22"
    assert bench.call("mounts") == {"mounts": [{"path": path, "label": "sn1"}]}
    (bench.home / "data/more").write_bytes(b"x")
    bench.call("unmount", path=path + "/")
    assert not (bench.home / "data").exists()
    assert bench.call("mounts") == {"mounts": []}
    with pytest.raises(Refused, match="nothing of ours"):
        bench.call("unmount", path=path)


@pytest.mark.parametrize("other", ["data", "data/below", "."])
def test_nothing_is_mounted_twice_or_over_each_other(other, bench):
    bench.send("mount", tree(a=b"1"), path=str(bench.home / "data"), label="sn1")
    with pytest.raises(Refused) as refused:
        bench.send("mount", tree(a=b"1"), path=str(bench.home / other), label="sn2")
    assert refused.value.code == "conflict"


def test_two_at_once_are_one_and_a_refusal(bench):
    path = str(bench.home / "data")
    first = bench.sink("mount", path=path, label="sn1")
    with pytest.raises(Refused) as refused:
        bench.sink("mount", path=path, label="sn2")
    assert refused.value.code == "conflict"
    assert bench.call("mounts") == {"mounts": []}  # it is not there as a whole yet
    first.abort()
    bench.send("mount", tree(a=b"1"), path=path, label="sn2")


@pytest.mark.parametrize(
    "path", ["/", "/etc", "/usr/", "//tmp", "/proc/1", "/dev/x", "/.belljar/run", "/a/../etc", "relative"]
)
def test_what_the_system_needs_is_refused(path, bench):
    with pytest.raises(Refused) as refused:
        bench.sink("mount", path=path, label="sn1")
    assert refused.value.code == "invalid_argument"


@pytest.mark.parametrize(
    "data", [b"x" * 2000, tree(a=b"1")[:512], tree(**{"../up": b"1"})], ids=["no tar", "torn", "climbs"]
)
def test_what_fails_leaves_nothing(data, bench):
    path = str(bench.home / "data")
    sink = bench.sink("mount", path=path, label="sn1")
    sink.write(memoryview(data))
    with pytest.raises(Refused):
        list(sink.finish())
    sink.abort()
    assert not (bench.home / "data").exists()
    assert bench.call("mounts") == {"mounts": []}
    bench.send("mount", tree(a=b"1"), path=path, label="sn1")


def test_what_was_given_up_is_cleared_in_a_quiet_moment(bench):
    for name in ("one", "two"):
        (bench.home / name / "deep").mkdir(parents=True)
        mounts._LEFT.append(str(bench.home / name))
    mounts.tidy()
    assert list(bench.home.iterdir()) == []
    assert mounts._LEFT == []
