"""Routes of snapshots, forks, mounts and templates, over a socket, on a scripted node."""

import asyncio
from typing import Any

import httpx2
import pytest
from tests.api.conftest import Front

from belljar.base.ids import new_id
from belljar.model.errors import NoCapacity, SnapshotCorrupt, SnapshotIncompatible
from belljar.model.snapshot import ChangeKind, PathChange, PathKind


@pytest.fixture
async def box(front: Front) -> str:
    return str((await front.sandbox(name="box", image="base"))["id"])


async def kept(front: Front, **fields: object) -> dict[str, Any]:
    answer = await front.http.post("/v1/sandboxes/box/snapshots", json=fields)
    assert answer.status_code == 201, answer.text
    return answer.json()


def code_of(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_a_snapshot_is_taken_shown_changed_and_deleted(front: Front, box: str):
    id = new_id("sn")
    made = await kept(front, id=id, memory=True, name="s", labels={"a": "b"}, ttl="7d")
    assert {key: made[key] for key in ("id", "name", "kind", "sandbox", "image", "labels", "template")} == {
        "id": id,
        "name": "s",
        "kind": "memory",
        "sandbox": box,
        "image": "base",
        "labels": {"a": "b"},
        "template": False,
    }
    assert (made["size"], made["stored"], made["paused"], made["parent"], made["path"]) == (100, 40, 0.05, None, None)
    assert 604_000 < made["expires"] - made["created"] < 605_000
    assert await kept(front, id=id, memory=True) == made
    for ref in ("s", id):
        assert (await front.http.get(f"/v1/snapshots/{ref}")).json() == made
    changed = (await front.http.patch("/v1/snapshots/s", json={"name": "t", "ttl": None, "labels": {}})).json()
    assert (changed["name"], changed["expires"], changed["labels"]) == ("t", None, {})
    assert (await front.http.patch("/v1/snapshots/t", json={"name": None})).json()["name"] is None
    for _ in range(2):
        assert (await front.http.delete(f"/v1/snapshots/{id}")).json() == {}
    gone = await front.http.get(f"/v1/snapshots/{id}")
    assert code_of(gone) == (404, "not_found")
    assert "deleted at" in gone.text


async def test_the_kind_follows_from_what_is_asked(front: Front, box: str):
    assert (await kept(front))["kind"] == "filesystem"
    directory = await kept(front, path="/srv/data")
    assert (directory["kind"], directory["path"]) == ("directory", "/srv/data")
    for bad in (
        {"memory": True, "path": "/x"},
        {"path": "relative"},
        {"ttl": -1},
        {"name": "No"},
        {"labels": {"": ""}},
        {"id": "sn1"},
        {"kind": "memory"},
    ):
        answer = await front.http.post("/v1/sandboxes/box/snapshots", json=bad)
        assert code_of(answer) == (400, "invalid_argument"), bad


@pytest.mark.parametrize("kind", [SnapshotIncompatible, SnapshotCorrupt])
async def test_one_that_cannot_go_on_here_is_422(front: Front, box: str, kind: type[Exception]):
    await kept(front, memory=True, name="s")
    front.node.failure = kind("made by another engine build")
    answer = await front.http.post("/v1/sandboxes", json={"snapshot": "s"})
    assert answer.status_code == 422
    assert "another engine build" in answer.json()["error"]["message"]


async def test_lists_have_pages_and_filters(front: Front, box: str):
    made = [await kept(front, memory=number == 1, labels={"n": str(number)}) for number in range(3)]
    page = (await front.http.get("/v1/snapshots", params={"limit": 2})).json()
    assert [item["id"] for item in page["items"]] == [made[2]["id"], made[1]["id"]]
    rest = (await front.http.get("/v1/snapshots", params={"limit": 2, "cursor": page["next"]})).json()
    assert (rest["items"], rest["next"]) == ([made[0]], None)
    for query, wanted in (
        ({"kind": "memory"}, [1]),
        ({"label": "n=2"}, [2]),
        ({"sandbox": box}, [2, 1, 0]),
        ({"sandbox": "sb0"}, []),
        ({"image": "code"}, []),
    ):
        items = (await front.http.get("/v1/snapshots", params=query)).json()["items"]
        assert items == [made[number] for number in wanted], query
    for bad in ({"kind": "tape"}, {"limit": 0}, {"label": "x"}, {"cursor": "x"}, {"name": "s"}):
        assert (await front.http.get("/v1/snapshots", params=bad)).status_code == 400, bad


async def test_what_changed_comes_in_pages_and_names_are_bytes(front: Front, box: str):
    front.node.changed = [
        PathChange("/a", ChangeKind.ADDED, PathKind.FILE, 3),
        PathChange("/b\udcff", ChangeKind.DELETED, PathKind.OTHER),
        PathChange("/c", ChangeKind.MODIFIED, PathKind.SYMLINK),
    ]
    id = (await kept(front))["id"]
    first = (await front.http.get(f"/v1/snapshots/{id}/diff", params={"limit": 2})).json()
    assert first["items"] == [
        {"path": "/a", "change": "added", "kind": "file", "size": 3},
        {"path": "/b\udcff", "change": "deleted", "kind": "other", "size": 0},
    ]
    rest = (await front.http.get(f"/v1/snapshots/{id}/diff", params={"cursor": first["next"]})).json()
    assert ([item["path"] for item in rest["items"]], rest["next"]) == (["/c"], None)
    memory = (await kept(front, memory=True))["id"]
    assert code_of(await front.http.get(f"/v1/snapshots/{memory}/diff")) == (501, "not_supported")


async def test_one_is_carried_away_and_brought_in(front: Front, box: str):
    id = (await kept(front))["id"]
    answer = await front.http.get(f"/v1/snapshots/{id}/export")
    assert answer.content == b"belljar:base"
    assert answer.headers["content-disposition"] == f'attachment; filename="{id}.belljar"'
    mine = new_id("sn")
    query = {"id": mine, "name": "again", "label": "a=b", "ttl": "60"}
    big = answer.content + bytes(3 << 20)  # more than another body may have
    made = await front.http.post("/v1/snapshots/import", params=query, content=big)
    assert made.status_code == 201, made.text
    assert (made.json()["id"], made.json()["labels"]) == (mine, {"a": "b"})
    assert (await front.http.post("/v1/snapshots/import", params=query, content=b"x")).json() == made.json()
    bad = await front.http.post("/v1/snapshots/import", params={"name": "bad"}, content=b"garbage")
    assert code_of(bad) == (422, "snapshot_corrupt")
    assert len((await front.http.get("/v1/snapshots")).json()["items"]) == 2


async def test_a_body_that_breaks_off_leaves_nothing(front: Front, box: str):
    host, _, port = front.tcp.removeprefix("http://").partition(":")
    _, key = await front.product.keys.make("test")
    _, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"POST /v1/snapshots/import HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: 1000\r\n\r\n"
    )
    writer.write(head.encode() + b"belljar:")
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0.05)
    assert front.node.kept == {}
    assert (await front.http.get("/v1/snapshots")).json()["items"] == []


async def test_a_sandbox_goes_on_from_a_snapshot(front: Front, box: str):
    made = await kept(front, memory=True, name="s")
    body = {"snapshot": "s", "env": {"A": "b"}, "pool": False}
    twin = (await front.http.post("/v1/sandboxes", json=body)).json()
    assert (twin["snapshot"], twin["image"], twin["parent"]) == (made["id"], "base", None)
    assert front.node.known[twin["id"]].spec.pool is False
    missing = await front.http.post("/v1/sandboxes", json={"snapshot": "nothing"})
    assert code_of(missing) == (404, "not_found")


async def test_a_fork_gives_sandboxes_and_errors_in_their_order(front: Front, box: str):
    front.node.forked = {"kid-2": NoCapacity("no room", hint="end some")}
    ids = [new_id("sb") for _ in range(3)]
    body = {"ids": ids, "count": 3, "name": "kid", "env": {"A": "b"}, "labels": {"x": "y"}, "memory": "2GiB"}
    answer = await front.http.post("/v1/sandboxes/box/fork", json=body)
    assert answer.status_code == 201, answer.text
    first, second, third = answer.json()["items"]
    assert (first["sandbox"]["id"], third["sandbox"]["id"]) == (ids[0], ids[2])
    assert (first["sandbox"]["parent"], first["sandbox"]["memory"]) == (box, 2 << 30)
    assert (second["error"]["code"], second["error"]["hint"], "sandbox" in second) == ("no_capacity", "end some", False)
    front.node.forked = {}
    (one,) = (await front.http.post("/v1/sandboxes/box/fork", json={})).json()["items"]
    assert one["sandbox"]["status"] == "running"
    for bad in ({"count": 10_000}, {"count": 0}, {"ids": ids * 50}, {"disk": "1GiB"}, {"network": "half"}):
        refused = await front.http.post("/v1/sandboxes/box/fork", json=bad)
        assert code_of(refused) == (400, "invalid_argument"), bad
    await front.http.delete("/v1/sandboxes/box")
    assert code_of(await front.http.post("/v1/sandboxes/box/fork", json={})) == (404, "sandbox_gone")


async def test_a_sandbox_goes_back_and_has_mounts(front: Front, box: str):
    await kept(front, memory=True, name="s")
    data = await kept(front, path="/srv", name="data")
    at = "/v1/sandboxes/box"
    assert (await front.http.post(f"{at}/rollback", json={"snapshot": "s"})).json()["id"] == box
    assert code_of(await front.http.post(f"{at}/rollback", json={"snapshot": "x"})) == (404, "not_found")
    for _ in range(2):
        assert (await front.http.put(f"{at}/mounts", json={"snapshot": "data", "path": "/mnt/a"})).json() == {}
    assert (await front.http.get(f"{at}/mounts")).json() == {"items": [{"path": "/mnt/a", "snapshot": data["id"]}]}
    over = await front.http.put(f"{at}/mounts", json={"snapshot": "data", "path": "/"})
    assert code_of(over) == (400, "invalid_argument")
    assert (await front.http.delete(f"{at}/mounts", params={"path": "/mnt/a"})).json() == {}
    assert code_of(await front.http.delete(f"{at}/mounts", params={"path": "/mnt/a"})) == (404, "not_found")


async def test_a_template_is_made_listed_started_from_and_deleted(front: Front):
    body = {
        "name": "web",
        "image": "base",
        "command": "serve",
        "ready": {"port": 8000, "timeout": "2m"},
        "memory": "512MiB",
    }
    made = await front.http.post("/v1/templates", json=body)
    assert made.status_code == 201, made.text
    web = made.json()
    assert (web["ready"]["port"], web["ready"]["timeout"], web["memory"], web["step"]) == (8000, 120.0, 512 << 20, "")
    assert (await front.http.get("/v1/templates")).json() == {"items": [web]}
    assert (await front.http.get("/v1/templates/web")).json() == web
    assert (await front.http.post("/v1/templates", json=body)).json() == web
    other = await front.http.post("/v1/templates", json=body | {"command": "other"})
    assert code_of(other) == (409, "already_exists")
    box = await front.sandbox(image="web")
    assert (box["snapshot"], box["image"], box["memory"]) == (web["snapshot"], "base", 512 << 20)
    assert code_of(await front.http.delete(f"/v1/snapshots/{web['snapshot']}")) == (409, "conflict")
    assert (await front.http.delete("/v1/templates/web")).json() == {}
    assert code_of(await front.http.get("/v1/templates/web")) == (404, "not_found")
    for bad in ({"ready": {"port": 1, "file": "/x"}}, {"ready": {"tcp": 1}}, {"name": "N"}, {"command": ""}):
        assert code_of(await front.http.post("/v1/templates", json=body | bad)) == (400, "invalid_argument"), bad


async def test_the_family_is_told_parents_first(front: Front, box: str):
    snapshot = await kept(front, memory=True, name="s")
    twin = await front.sandbox(snapshot="s")
    (child,) = (await front.http.post("/v1/sandboxes/box/fork", json={"name": "kid"})).json()["items"]
    found = (await front.http.get("/v1/lineage", params={"ref": "kid"})).json()
    assert found["whole"] is True
    assert [(item["type"], item["id"], item["parent"]) for item in found["items"]] == [
        ("sandbox", box, None),
        ("snapshot", snapshot["id"], box),
        ("sandbox", twin["id"], snapshot["id"]),
        ("sandbox", child["sandbox"]["id"], box),
    ]
    assert (await front.http.get("/v1/lineage")).json() == found
    assert code_of(await front.http.get("/v1/lineage", params={"ref": "nobody"})) == (404, "not_found")


async def test_only_the_owner_sees_any_of_it(front: Front, box: str):
    await kept(front, memory=True, name="s")
    async with httpx2.AsyncClient(base_url=front.tcp) as stranger:
        for method, path in (("GET", "/v1/snapshots"), ("GET", "/v1/snapshots/s/export"), ("POST", "/v1/templates")):
            assert code_of(await stranger.request(method, path)) == (401, "unauthenticated")
