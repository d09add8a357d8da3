"""Routes of files, over a socket, on a scripted node."""

import asyncio
import json

import httpx2
import pytest
from tests.api.conftest import Front

from belljar.model.errors import DiskFull, NotFound, PermissionDenied, SandboxGone


@pytest.fixture
async def at(front: Front) -> str:
    return f"/v1/sandboxes/{(await front.sandbox(name='box'))['id']}/files"


async def test_a_file_is_shown(front: Front, at: str):
    said = (await front.http.get(f"{at}/stat?path=a%20b&follow=false")).json()
    assert said == {
        "path": "a b",
        "kind": "file",
        "size": 7,
        "mode": 0o644,
        "uid": 0,
        "gid": 0,
        "user": "root",
        "group": "root",
        "mtime": 1.5,
        "target": None,
    }
    assert front.node.inside.calls == [("stat", ("a b", False))]


async def test_names_that_are_no_utf_8_come_and_go(front: Front, at: str):
    await front.http.get(f"{at}/stat?path=/a%ff")
    await front.http.post(f"{at}/mkdir", content=b'{"path": "/b\\udcfe"}', headers={"content-type": "application/json"})
    assert front.node.inside.calls == [("stat", ("/a\udcff", True)), ("mkdir", ("/b\udcfe", False, False, 0o777, None))]
    page = (await front.http.get(f"{at}/list?path=/d")).json()
    assert page["items"][0]["path"] == "/d/\udcff"


async def test_directories_come_in_pages(front: Front, at: str):
    page = (await front.http.get(f"{at}/list?path=/d&limit=10&cursor=abc")).json()
    assert page["next"] == "more"
    found = (await front.http.get(f"{at}/glob?path=/d&pattern=**/*.py")).json()
    assert found["next"] is None
    assert front.node.inside.calls == [("list", ("/d", "abc", 10)), ("glob", ("/d", "**/*.py", None, 1000))]


@pytest.mark.parametrize(
    "query",
    [
        "stat",
        "stat?path=",
        "stat?path=%00",
        "stat?path=a%00b",
        "stat?path=" + "x" * 4097,
        "stat?path=x&follow=maybe",
        "stat?path=x&folow=true",
        "list?path=x&limit=0",
        "list?path=x&limit=1001",
        "glob?path=x",
        "glob?path=x&pattern=%00",
        "content?path=x&offset=-1",
        "content?path=x&length=-1",
        "content?path=x&offset=99999999999999999999",
        "uploads/a%20b",
        "watch?path=x&recursive=2",
    ],
)
async def test_what_is_no_path_or_number_is_refused(front: Front, at: str, query: str):
    answer = await front.http.get(f"{at}/{query}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_argument"), answer.text


async def test_a_file_is_read_whole_and_in_part(front: Front, at: str):
    whole = await front.http.get(f"{at}/content?path=/f")
    assert (whole.content, whole.headers["content-type"]) == (b"content", "application/octet-stream")
    assert (await front.http.get(f"{at}/content?path=/f&offset=3&length=2")).content == b"te"


@pytest.mark.parametrize(("failure", "status"), [(NotFound("none"), 404), (PermissionDenied("no"), 403)])
async def test_a_file_that_cannot_be_read_is_an_error_of_http(front: Front, at: str, failure: Exception, status: int):
    front.node.inside.failure = failure
    for path in ("content", "tree", "watch", "stat"):
        answer = await front.http.get(f"{at}/{path}?path=/f")
        assert (answer.status_code, answer.json()["error"]["message"]) == (status, str(failure))


async def test_a_read_that_breaks_off_is_not_taken_for_whole(front: Front, at: str):
    front.node.inside.late_failure = SandboxGone("it ended")
    with pytest.raises(httpx2.RemoteProtocolError):
        await front.http.get(f"{at}/content?path=/f")


async def test_a_part_is_written_with_everything_said(front: Front, at: str):
    answer = await front.http.put(
        f"{at}/content?path=/new&upload=u-1&offset=5&last=false&mode=420&user=user&parents=false&append=true",
        content=b"\xff" * 100_000,
    )
    assert answer.json() == {"offset": 100_005}
    assert front.node.inside.calls == [("write", ("/new", "u-1", 5, False, 0o644, "user", False, True))]
    assert front.node.inside.files["/new"] == b"\xff" * 100_000
    assert (await front.http.get(f"{at}/uploads/u-1")).json() == {"offset": 5}


async def test_an_empty_file_is_written(front: Front, at: str):
    assert (await front.http.put(f"{at}/content?path=/e&upload=u")).json() == {"offset": 0}
    assert front.node.inside.files["/e"] == b""


async def test_a_part_has_a_bound_and_an_upload_a_key(front: Front, at: str):
    large = await front.http.put(f"{at}/content?path=/f&upload=u", content=bytes(17 << 20))
    assert (large.status_code, large.json()["error"]["code"]) == (413, "too_large")
    for bad in ("", "&upload=", "&upload=a/b", "&upload=u&mode=-1", "&upload=u&mode=99999", "&upload=u&offset=x"):
        assert (await front.http.put(f"{at}/content?path=/f{bad}", content=b"x")).status_code == 400


async def test_a_part_without_a_length_is_bounded_too(front: Front, at: str):
    async def pieces():
        for _ in range(20):
            yield bytes(1 << 20)

    answer = await front.http.put(f"{at}/content?path=/f&upload=u", content=pieces())
    assert answer.status_code == 413


async def test_a_full_disk_is_told(front: Front, at: str):
    front.node.inside.failure = DiskFull("no space left")
    answer = await front.http.put(f"{at}/content?path=/f&upload=u", content=b"x")
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "disk_full")


@pytest.mark.parametrize(
    ("verb", "body", "call"),
    [
        ("mkdir", {"path": "d", "parents": True, "mode": 0o700, "user": "u"}, ("d", True, False, 0o700, "u")),
        ("remove", {"path": "d", "recursive": True}, ("d", True, False)),
        ("move", {"source": "a", "target": "b"}, ("a", "b")),
        ("chmod", {"path": "a", "mode": 0o4755}, ("a", 0o4755, False)),
        ("chown", {"path": "a", "user": "u:g", "recursive": True}, ("a", "u:g", True)),
        ("symlink", {"path": "a", "target": "../b"}, ("a", "../b", None)),
        ("hardlink", {"path": "a", "target": "b"}, ("a", "b")),
        ("touch", {"path": "a", "exist_ok": False}, ("a", False, None)),
    ],
)
async def test_a_small_operation_is_done(front: Front, at: str, verb: str, body: dict[str, object], call: object):
    answer = await front.http.post(f"{at}/{verb}", json=body)
    assert (answer.status_code, answer.json()) == (200, {})
    assert front.node.inside.calls == [(verb, call)]
    for bad in ({}, body | {"extra": 1}, dict.fromkeys(body, "a\0b"), dict.fromkeys(body, 7), {next(iter(body)): ""}):
        assert (await front.http.post(f"{at}/{verb}", json=bad)).status_code == 400


async def test_trees_are_streams(front: Front, at: str):
    got = await front.http.get(f"{at}/tree?path=/d")
    assert (got.content, got.headers["content-type"]) == (b"tar", "application/x-tar")

    async def pieces():
        for _ in range(20):
            yield bytes(1 << 20)

    assert (await front.http.put(f"{at}/tree?path=/d", content=pieces())).json() == {"entries": 3}
    assert len(front.node.inside.files["/d"]) == 20 << 20


async def test_changes_come_as_lines(front: Front, at: str):
    answer = await front.http.get(f"{at}/watch?path=/d&recursive=true")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert json.loads(answer.text) == {"kind": "moved", "path": "/new", "source": "/old"}
    front.node.inside.late_failure = SandboxGone("it ended")
    last = (await front.http.get(f"{at}/watch?path=/d")).text.splitlines()[-1]
    assert json.loads(last)["error"]["code"] == "sandbox_gone"


async def test_a_watch_that_sees_nothing_has_begun_and_ends_with_its_client(front: Front, at: str):
    front.node.inside.hold = asyncio.Event()
    async with asyncio.timeout(5), front.http.stream("GET", f"{at}/watch?path=/d") as answer:
        assert answer.status_code == 200
        assert front.node.inside.closed == 0
    for _ in range(100):
        if front.node.inside.closed:
            break
        await asyncio.sleep(0.02)
    assert front.node.inside.closed == 1
