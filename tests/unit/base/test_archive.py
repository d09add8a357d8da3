"""The form of backups: what was written comes back, and nothing else is believed."""

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import zstandard

from belljar.base.archive import FORMAT, PER_MANIFEST, ArchiveWriter, is_name
from belljar.base.unarchive import ArchiveBroken, ArchiveReader

FILES = {"belljar.db": b"d" * 5000, "a/empty": b"", "a/b/c.img": bytes(range(256)) * 2000}


def written(files: Mapping[str, bytes], **bounds: int) -> bytes:
    room = {"files": len(files), "size": sum(map(len, files.values()))} | bounds
    writer = ArchiveWriter({"what": "test"}, at=1000.0, **room)
    out = writer.begin()
    for name, content in files.items():
        out += writer.file(name, len(content))
        for start in range(0, len(content), 700):
            out += writer.data(content[start : start + 700])
    return out + writer.end({"missing": {}})


def read(data: bytes) -> dict[str, bytes]:
    reader = ArchiveReader(io.BytesIO(data))
    found: dict[str, bytes] = {}
    for member in reader.members():
        content = b""
        while piece := member.read(1000):
            content += piece
        found[member.name] = content
    assert reader.end is not None
    return found


def forged(members: Iterable[tuple[tarfile.TarInfo, bytes]], *, end: bool = True, most: int = 1 << 20) -> bytes:
    """By somebody who knows the form."""
    out = io.BytesIO()
    tar = tarfile.TarFile(fileobj=out, mode="w", format=tarfile.GNU_FORMAT)

    def add(name: str, content: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))

    add("head.json", json.dumps({"format": FORMAT, "at_most": {"files": 10, "bytes": most}}).encode())
    lines, count, total = "", 0, 0
    for info, content in members:
        tar.addfile(info, io.BytesIO(content))
        lines += f"{hashlib.sha256(content).hexdigest()}  {info.name}\n"
        count, total = count + 1, total + len(content)
    add("manifest/000001.sha256", lines.encode())
    if end:
        digest = hashlib.sha256(lines.encode()).hexdigest()
        add("end.json", json.dumps({"files": count, "bytes": total, "sha256": digest}).encode())
    return zstandard.compress(out.getvalue() + bytes(1024))


def info(name: str, size: int = 0, **more: Any) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.size = size
    for field, value in more.items():
        setattr(made, field, value)
    return made


def test_what_was_written_comes_back():
    assert read(written(FILES)) == FILES
    assert read(written({})) == {}
    many = {f"f{number}": str(number).encode() for number in range(2 * PER_MANIFEST + 5)}
    assert read(written(many)) == many


def test_the_forger_of_these_tests_knows_the_form():
    assert read(forged([(info("x", 3), b"abc")])) == {"x": b"abc"}


def test_any_tar_unpacks_it_and_sha256sum_proves_it(tmp_path: Path):
    (tmp_path / "b.tar.zst").write_bytes(written(FILES))
    for command in ("zstd -dc b.tar.zst | tar -x", "sha256sum -c --quiet manifest/*.sha256"):
        subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "a/b/c.img").read_bytes() == FILES["a/b/c.img"]


def test_a_file_of_more_than_8_gib_has_a_header():
    size = 9 << 30
    writer = ArchiveWriter({}, files=1, size=size, at=0.0)
    packed = writer.begin() + writer.file("pages.img", size)
    with pytest.raises(ValueError, match="shorter"):
        writer.end({})
    plain = zstandard.ZstdDecompressor().decompressobj().decompress(packed + writer.data(bytes(1 << 20)))
    assert tarfile.TarInfo.frombuf(plain[1024:1536], "ascii", "strict").size == size


@pytest.mark.parametrize(
    ("files", "size"), [({"a": b"xx"}, 1), ({"../a": b"x"}, 1), ({"/a": b"x"}, 1), ({"a" * 101: b"x"}, 1)]
)
def test_what_does_not_belong_into_one_is_not_written(files: dict[str, bytes], size: int):
    with pytest.raises(ValueError, match=r"more is to be written|no file"):
        written(files, size=size)


@pytest.mark.parametrize("name", ["..", "a/..", "../a", "/a", "a//b", "a/", ".a", "a/.b", "", "ä", "a\n", "a b", "-a"])
def test_names_that_are_none(name: str):
    assert not is_name(name)


def test_one_that_is_cut_off_anywhere_is_refused():
    whole = written(FILES)
    # The last bytes are zstd's own end, behind the proof.
    for size in [*range(0, 600, 7), *range(600, len(whole) - 24, 101), len(whole) - 24]:
        with pytest.raises(ArchiveBroken):
            read(whole[:size])


def test_one_that_was_changed_anywhere_is_refused():
    plain = zstandard.ZstdDecompressor().decompressobj().decompress(written(FILES))
    at = plain.index(b"ddd")
    for place in (at, plain.index(b"belljar.db"), plain.index(b"end.json"), plain.index(b"  belljar.db") - 3, 1030):
        bad = bytearray(plain)
        bad[place] ^= 1
        with pytest.raises(ArchiveBroken):
            read(zstandard.compress(bytes(bad)))
    bad = bytearray(plain)
    bad[at] ^= 1
    with pytest.raises(ArchiveBroken, match=r"belljar\.db"):
        read(zstandard.compress(bytes(bad)))
    whole = written(FILES)
    for place in range(0, len(whole) - 24, 97):
        torn = bytearray(whole)
        torn[place] ^= 0xFF
        with pytest.raises(ArchiveBroken):
            read(bytes(torn))


@pytest.mark.parametrize(
    ("member", "content", "said"),
    [
        (info("../evil", 1), b"x", "called"),
        (info("a/../../evil", 1), b"x", "called"),
        (info("/etc/evil", 1), b"x", "called"),
        (info("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"), b"", "no plain file"),
        (info("link", type=tarfile.LNKTYPE, linkname="belljar.db"), b"", "no plain file"),
        (info("tty", type=tarfile.CHRTYPE, devmajor=5), b"", "no plain file"),
        (info("disk", type=tarfile.BLKTYPE, devmajor=8), b"", "no plain file"),
        (info("pipe", type=tarfile.FIFOTYPE), b"", "no plain file"),
        (info("folder", type=tarfile.DIRTYPE), b"", "no plain file"),
        (info("sparse", type=tarfile.GNUTYPE_SPARSE), b"", "no plain file"),
        (info("x" * 200, 1), b"x", "no plain file"),  # a header for a long name comes first
        (info("big", (1 << 20) + 1), bytes((1 << 20) + 1), "more follows"),
    ],
    ids=lambda value: value.name[:12] if isinstance(value, tarfile.TarInfo) else None,
)
def test_a_hostile_member_is_refused(member: tarfile.TarInfo, content: bytes, said: str):
    with pytest.raises(ArchiveBroken, match=said):
        read(forged([(member, content)]))


def test_more_files_than_were_declared_are_refused():
    with pytest.raises(ArchiveBroken, match="more follows"):
        read(forged([(info(f"f{number}"), b"") for number in range(11)]))


def test_what_unpacks_to_far_more_than_it_says_ends_at_its_bound():
    bomb = forged([(info("zeros", 64 << 20), bytes(64 << 20))], most=64 << 20)
    assert len(bomb) < 20_000
    reader = ArchiveReader(io.BytesIO(bomb))
    assert reader.size == 64 << 20  # known before a byte of it is unpacked
    with pytest.raises(ArchiveBroken, match="more follows"):
        read(forged([(info("zeros", 64 << 20), bytes(64 << 20))], most=1 << 20))


@pytest.mark.parametrize(
    "head",
    [
        {},
        {"format": 2, "at_most": {"files": 1, "bytes": 1}},
        {"format": 1, "at_most": {"files": -1, "bytes": 1}},
        {"format": 1, "at_most": {"files": True, "bytes": 1}},
        {"format": 1, "at_most": [1, 1]},
        [],
    ],
)
def test_a_head_that_bounds_nothing_is_refused(head: Any):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        text = json.dumps(head).encode()
        tar.addfile(info("head.json", len(text)), io.BytesIO(text))
    with pytest.raises(ArchiveBroken):
        ArchiveReader(io.BytesIO(zstandard.compress(out.getvalue())))


@pytest.mark.parametrize("junk", [b"", b"x", b"\0" * 5000, zstandard.compress(b""), zstandard.compress(bytes(5000))])
def test_what_is_no_archive_is_refused(junk: bytes):
    with pytest.raises(ArchiveBroken):
        ArchiveReader(io.BytesIO(junk))


def test_an_archive_without_its_end_or_with_more_behind_it_is_refused():
    with pytest.raises(ArchiveBroken):
        read(forged([(info("x", 1), b"x")], end=False))
    plain = zstandard.ZstdDecompressor().decompressobj().decompress(written(FILES))
    with pytest.raises(ArchiveBroken, match="follows"):
        read(zstandard.compress(plain + b"x"))
