"""The routes of keys, and what the scopes let through on every route there is."""

import re

import httpx2
import pytest
from fastapi.routing import APIRoute
from tests.api.conftest import Front

from belljar.front.native.app import native_routes
from belljar.model.key import Scope
from belljar.model.workspace import Quota

ROUTES = [
    (method, route.path)
    for route in native_routes().routes
    if isinstance(route, APIRoute) and route.path != "/health"
    for method in sorted(route.methods)
]


def client(front: Front, key: str | None) -> httpx2.AsyncClient:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx2.AsyncClient(base_url=front.tcp, headers=headers, timeout=20)


async def key_of(front: Front, scope: Scope, workspace: str = "default") -> str:
    return (await front.product.keys.make("test", scope=scope, workspace=workspace))[1]


def filled(path: str, ref: str) -> str:
    """The address with something in each place; `ref` where a sandbox is named."""
    return re.sub(r"\{(\w+)\}", lambda place: ref if place[1] == "ref" else "1", path)


async def test_no_route_opens_without_a_key_or_beyond_its_scope(front: Front):
    assert len(ROUTES) > 60
    sandbox = str((await front.sandbox())["id"])
    reader, runner = await key_of(front, Scope.READ), await key_of(front, Scope.RUN)
    async with client(front, None) as nobody, client(front, reader) as reading, client(front, runner) as running:
        for method, path in ROUTES:
            administers = path.startswith(("/v1/keys", "/v1/workspaces", "/v1/audit", "/v1/backup"))
            where = filled(path, sandbox)
            assert await status(nobody, method, where) == 401, path
            refused = method not in ("GET", "HEAD") or administers
            assert (await status(reading, method, where) == 403) == refused, path
            if administers:
                assert await status(running, method, where) == 403, path


async def test_a_key_of_another_workspace_sees_and_changes_nothing_here(front: Front):
    await front.product.workspaces.make("other", Quota())
    sandbox, key = str((await front.sandbox())["id"]), (await front.product.keys.make("here"))[0].id
    async with client(front, await key_of(front, Scope.ADMIN, "other")) as foreign:
        for method, path in ROUTES:
            if "{" not in path:
                continue
            ids = {"/v1/keys/{id}": key, "/v1/workspaces/{id}": "default"}
            where = path.replace("{id}", ids[path]) if path in ids else filled(path, sandbox)
            found = await status(foreign, method, where)
            if found == 400 and method in ("GET", "DELETE"):
                found = await status(foreign, method, f"{where}?path=/x")
            # What a body lacks is said before anything is looked for.
            assert found == 404 or (found == 400 and method not in ("GET", "DELETE")), (method, path, found)
        assert [item["id"] for item in (await foreign.get("/v1/keys")).json()["items"] if item["id"] == key] == []
        assert (await foreign.get("/v1/sandboxes")).json()["items"] == []
    assert front.node.known[sandbox].ended is None
    assert (await front.product.keys.get("default", key)).revoked is None


async def status(http: httpx2.AsyncClient, method: str, where: str) -> int:
    async with http.stream(method, where) as answer:
        return answer.status_code


async def test_a_key_is_made_shown_once_used_and_revoked(front: Front):
    async with client(front, await key_of(front, Scope.ADMIN)) as http:
        made = (await http.post("/v1/keys", json={"name": "ci", "scope": "run", "ttl": "30d"})).json()
        assert made["secret"].startswith("bjk_")
        assert made["expires"] - made["created"] == pytest.approx(30 * 86400)
        shown = (await http.get(f"/v1/keys/{made['id']}")).json()
        assert shown == {name: value for name, value in made.items() if name != "secret"}
        async with client(front, made["secret"]) as ci:
            assert (await ci.get("/v1/sandboxes")).status_code == 200
            assert (await ci.post("/v1/sandboxes", json={})).status_code == 201
        items = (await http.get("/v1/keys")).json()["items"]
        assert [item["name"] for item in items] == ["ci", "test"]
        assert items[0]["used"] >= made["created"]
        assert made["secret"] not in str(items)
        for _ in range(2):
            assert (await http.delete(f"/v1/keys/{made['id']}")).json()["revoked"]
        async with client(front, made["secret"]) as ci:
            assert (await ci.get("/v1/sandboxes")).status_code == 401


async def test_bad_wishes_are_named(front: Front):
    for body in (
        {},
        {"name": ""},
        {"name": "x" * 65},
        {"name": "x", "scope": "root"},
        {"name": "x", "ttl": "soon"},
        {"name": "x", "ttl": -1},
        {"name": "x", "workspace": 1},
        {"name": "a\r\nb"},
    ):
        answer = await front.http.post("/v1/keys", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_argument"), body
    for path in ("/v1/keys/key-none", "/v1/keys/%00", "/v1/keys/" + "x" * 64):
        assert (await front.http.get(path)).status_code == 404
        assert (await front.http.delete(path)).status_code == 404
    assert (await front.http.get("/v1/keys/" + "x" * 65)).status_code == 400
