"""The routes of workspaces, and quotas as a client meets them."""

import asyncio

import pytest
from tests.api.conftest import Front
from tests.api.test_keys import client, key_of

from belljar.model.key import Scope
from belljar.model.workspace import Quota

NONE = dict.fromkeys(("sandboxes", "cpus", "memory", "disk", "creates", "requests"))


async def test_a_workspace_is_made_bounded_filled_and_deleted(front: Front):
    made = await front.http.post("/v1/workspaces", json={"id": "team", "quota": {"sandboxes": 1, "memory": "2GiB"}})
    assert made.status_code == 201
    assert made.json() == {
        "id": "team",
        "created": made.json()["created"],
        "ended": None,
        "quota": NONE | {"sandboxes": 1, "memory": 2 << 30},
        "use": {"sandboxes": 0, "cpus": 0, "memory": 0, "disk": 0},
    }
    key = (await front.http.post("/v1/keys", json={"name": "ci", "workspace": "team", "scope": "admin"})).json()
    assert key["workspace"] == "team"
    async with client(front, key["secret"]) as team:
        sandbox = (await team.post("/v1/sandboxes", json={"memory": "1GiB"})).json()["id"]
        refused = await team.post("/v1/sandboxes", json={})
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "limit_exceeded")
        assert "sandboxes up to 1: 1 in use" in refused.json()["error"]["message"]
        (own,) = (await team.get("/v1/workspaces")).json()["items"]
        assert (own["id"], own["use"]["sandboxes"], own["use"]["memory"]) == ("team", 1, 1 << 30)
        assert (await team.post("/v1/workspaces", json={"id": "mine"})).status_code == 403
        assert (await team.patch("/v1/workspaces/team", json={"quota": {}})).status_code == 403
        assert (await team.delete("/v1/workspaces/team")).status_code == 403
        assert (await team.post("/v1/keys", json={"name": "x", "workspace": "default"})).status_code == 403
        changed = await front.http.patch("/v1/workspaces/team", json={"quota": {"sandboxes": 2}})
        assert changed.json()["quota"] == NONE | {"sandboxes": 2}
        assert (await team.post("/v1/sandboxes", json={})).status_code == 201
        assert (await front.http.delete("/v1/workspaces/team")).status_code == 409
        for item in (await team.get("/v1/sandboxes")).json()["items"]:
            await team.delete(f"/v1/sandboxes/{item['id']}")
        assert (await front.http.delete("/v1/workspaces/team")).json()["ended"] > 0
        assert (await team.get("/v1/sandboxes")).status_code == 401
    assert front.node.known[sandbox].ended is not None
    assert (await front.http.post("/v1/workspaces", json={"id": "team"})).status_code == 409


async def test_too_many_requests_are_told_when_to_come_again(front: Front):
    _, secret = await front.product.keys.make("slow", quota=Quota(requests=4))
    async with client(front, secret) as slow, client(front, await key_of(front, Scope.READ)) as other:
        seen = [await slow.get("/v1/sandboxes") for _ in range(12)]
        late = [answer for answer in seen if answer.status_code == 429]
        assert len(late) >= 6
        assert late[0].headers["retry-after"] == "1"
        assert 0 < late[0].json()["error"]["retry_after"] <= 0.25
        assert (await other.get("/v1/sandboxes")).status_code == 200
        assert (await front.http.get("/v1/sandboxes")).status_code == 200
        await asyncio.sleep(late[-1].json()["error"]["retry_after"])
        assert (await slow.get("/v1/sandboxes")).status_code == 200


async def test_forks_and_templates_count_for_the_key_that_asked(front: Front):
    _, secret = await front.product.keys.make("ci", scope=Scope.RUN, quota=Quota(sandboxes=2))
    async with client(front, secret) as ci:
        sandbox = (await ci.post("/v1/sandboxes", json={})).json()["id"]
        assert (await ci.post(f"/v1/sandboxes/{sandbox}/fork", json={"count": 2})).status_code == 429
        assert (await ci.post(f"/v1/sandboxes/{sandbox}/fork", json={"count": 1})).status_code == 201
        template = {"name": "t", "image": "base", "ready": {"command": "true"}}
        assert (await ci.post("/v1/templates", json=template)).status_code == 429
    assert (await front.http.post("/v1/sandboxes", json={})).status_code == 201


@pytest.mark.parametrize(
    "body",
    [
        {"id": "team", "quota": {"sandboxes": -1}},
        {"id": "team", "quota": {"sandboxes": 1.5}},
        {"id": "team", "quota": {"memory": "lots"}},
        {"id": "team", "quota": {"creates": 0}},
        {"id": "team", "quota": {"gpus": 1}},
        {"id": "Team"},
        {"id": "team\r\nx: y"},
        {"id": ""},
        {},
    ],
)
async def test_a_bad_workspace_is_refused_in_words(front: Front, body: dict[str, object]):
    answer = await front.http.post("/v1/workspaces", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_argument")
