"""Routes of sandboxes, over a socket, on a scripted node."""

import asyncio

import pytest
from tests.api.conftest import Front

from belljar.model.errors import DiskFull, EngineFailed, ImageNotFound, NoCapacity
from belljar.model.process import ProcessInfo, Tail
from belljar.model.sandbox import Status
from belljar.model.usage import Counters, Reading


async def test_a_sandbox_is_made_with_everything_that_was_asked_for(front: Front):
    answer = await front.http.post(
        "/v1/sandboxes",
        json={
            "image": "base",
            "name": "my-box",
            "cpu": 0.5,
            "memory": "512MiB",
            "disk": 1 << 30,
            "pids": 64,
            "env": {"A": "1"},
            "labels": {"team": "x"},
            "workdir": "/srv",
            "user": "user",
            "network": "none",
            "lifetime": "5m",
        },
    )
    assert answer.status_code == 201
    assert answer.headers["x-request-id"]
    said = answer.json()
    assert said["status"] == "running"
    assert (said["cpu"], said["memory"], said["disk"], said["pids"]) == (0.5, 512 << 20, 1 << 30, 64)
    assert said["expires"] - said["started"] == pytest.approx(300, abs=1)
    spec = front.node.known[said["id"]].spec
    assert (spec.name, spec.network.value, spec.workdir, spec.user) == ("my-box", "none", "/srv", "user")
    assert (spec.env, spec.labels) == ({"A": "1"}, {"team": "x"})


async def test_it_is_found_by_id_and_by_name(front: Front):
    made = await front.sandbox(name="here")
    for ref in (made["id"], "here"):
        assert (await front.http.get(f"/v1/sandboxes/{ref}")).json()["id"] == made["id"]


async def test_an_unlimited_lifetime_is_null(front: Front):
    made = await front.sandbox(lifetime=None)
    assert made["lifetime"] is None
    assert made["expires"] is None


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"cpus": 1}, "cpus"),
        ({"memory": "lots"}, "memory"),
        ({"memory": 5}, "64MiB"),
        ({"cpu": 0}, "cpu"),
        ({"cpu": "1"}, "cpu"),
        ({"pids": True}, "pids"),
        ({"pids": 10**400}, "pids"),
        ({"name": "Not A Name"}, "name"),
        ({"env": {"A": "x\0y"}}, "NUL"),
        ({"env": {"1A": "x"}}, "1A"),
        ({"env": []}, "env"),
        ({"labels": {"a b": "x"}}, "label"),
        ({"image": "a\0b"}, "NUL"),
        ({"image": "x" * 600}, "image"),
        ({"workdir": "relative"}, "workdir"),
        ({"lifetime": 0}, "lifetime"),
        ({"lifetime": "soon"}, "lifetime"),
        ({"lifetime": -1}, "lifetime"),
        ({"idle": 0}, "idle"),
        ({"idle": "100ms"}, "idle"),
        ({"network": "lan"}, "network"),
        ([], "body"),
        ("text", "body"),
        (None, "body"),
    ],
)
async def test_what_is_not_legal_is_named(front: Front, body: object, word: str):
    answer = await front.http.post("/v1/sandboxes", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_argument"), answer.text
    assert word in error["message"]
    assert error["request_id"] == answer.headers["x-request-id"]
    assert front.node.creates == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"image": "\xff"}',
        b'{"image": "\\ud800"}',
        b'{"name": "\\u0000"}',
        b'{"cpu": NaN}',
        b'{"cpu": 1e999}',
        b'{"pids": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"env":' * 5000 + b"1" + b"}" * 5000,
        b"\0" * 100,
    ],
)
async def test_a_body_that_is_no_json_is_refused(front: Front, body: bytes):
    answer = await front.http.post("/v1/sandboxes", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_argument"), answer.text


async def test_a_body_of_another_kind_is_refused(front: Front):
    answer = await front.http.post("/v1/sandboxes", content=b"a=b", headers={"content-type": "text/plain"})
    assert answer.status_code == 400


async def test_a_body_beyond_its_bound_is_too_large(front: Front):
    big = b'{"image": "' + b"x" * (1 << 20) + b'"}'
    answer = await front.http.post("/v1/sandboxes", content=big, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert "1 MiB" in answer.json()["error"]["message"]


async def test_a_body_without_a_length_is_bounded_too(front: Front):
    async def pieces():
        for _ in range(40):
            yield b"x" * 65536

    answer = await front.http.post("/v1/sandboxes", content=pieces(), headers={"content-type": "application/json"})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("failure", "status"), [(ImageNotFound("no image x"), 404), (NoCapacity("full"), 503), (DiskFull("full"), 507)]
)
async def test_the_nodes_refusal_reaches_the_caller_and_frees_name_and_key(
    front: Front, failure: Exception, status: int
):
    front.node.failure = failure
    ask = {"json": {"name": "again"}, "headers": {"Idempotency-Key": "k"}}
    answer = await front.http.post("/v1/sandboxes", **ask)
    assert answer.status_code == status
    assert answer.json()["error"]["message"] == str(failure)
    assert answer.json()["error"]["retryable"] == (status == 503)
    assert (await front.http.post("/v1/sandboxes", **ask)).status_code == 201


async def test_a_fault_of_the_server_says_nothing_of_its_inside(front: Front):
    front.node.failure = RuntimeError("secret")
    answer = await front.http.post("/v1/sandboxes", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert "secret" not in answer.text


async def test_a_name_is_taken_as_long_as_its_sandbox_lives(front: Front):
    first = await front.sandbox(name="one")
    answer = await front.http.post("/v1/sandboxes", json={"name": "one"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "already_exists")
    assert (await front.http.delete("/v1/sandboxes/one")).json()["status"] == "terminated"
    second = await front.sandbox(name="one")
    assert second["id"] != first["id"]


async def test_two_that_ask_for_one_name_at_once_do_not_both_get_it(front: Front):
    answers = await asyncio.gather(*(front.http.post("/v1/sandboxes", json={"name": "one"}) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]


async def test_a_create_can_be_repeated_with_its_key(front: Front):
    ask = {"json": {"labels": {"a": "b"}}, "headers": {"Idempotency-Key": "once"}}
    first, second = await asyncio.gather(
        front.http.post("/v1/sandboxes", **ask), front.http.post("/v1/sandboxes", **ask)
    )
    third = await front.http.post("/v1/sandboxes", **ask)
    assert first.json() == second.json()
    assert third.json()["id"] == first.json()["id"]
    assert front.node.creates == 1


async def test_a_key_stands_for_one_request(front: Front):
    await front.http.post("/v1/sandboxes", json={}, headers={"Idempotency-Key": "once"})
    other = await front.http.post("/v1/sandboxes", json={"pids": 99}, headers={"Idempotency-Key": "once"})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "conflict")


async def test_a_create_goes_on_when_its_caller_leaves(front: Front):
    front.node.gate = asyncio.Event()
    headers = {"Idempotency-Key": "left"}
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await front.http.post("/v1/sandboxes", json={}, headers=headers)
    front.node.gate.set()
    answer = await front.http.post("/v1/sandboxes", json={}, headers=headers)
    assert answer.json()["status"] == "running"
    assert front.node.creates == 1


async def test_pages_show_every_sandbox_once_and_the_newest_first(front: Front):
    made = [(await front.sandbox())["id"] for _ in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(4):
        page = (
            await front.http.get("/v1/sandboxes", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))
        ).json()
        assert len(page["items"]) <= 2
        seen += [item["id"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert sorted(seen) == sorted(made)
    assert cursor is None


async def test_a_list_is_filtered(front: Front):
    a = await front.sandbox(labels={"team": "a", "x/y.z": "1"}, name="first")
    b = await front.sandbox(labels={"team": "b"})
    await front.http.delete(f"/v1/sandboxes/{b['id']}")

    async def ids(**query: object) -> list[str]:
        answer = await front.http.get("/v1/sandboxes", params=query)
        return [item["id"] for item in answer.json()["items"]]

    assert await ids() == [a["id"]]
    assert await ids(status="all") == [b["id"], a["id"]]
    assert await ids(status=["terminated", "failed"]) == [b["id"]]
    assert await ids(label=["team=a", "x/y.z=1"]) == [a["id"]]
    assert await ids(label="team=c", status="all") == []
    assert await ids(name="first") == [a["id"]]
    assert await ids(image="other") == []


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=x", "limit=1001", "cursor=zzz", "status=asleep", "label=a", "lable=a=b", "cursor=%00"]
)
async def test_a_list_refuses_what_it_does_not_know(front: Front, query: str):
    answer = await front.http.get(f"/v1/sandboxes?{query}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_argument")


@pytest.mark.parametrize("ref", ["sb" + "0" * 19, "nobody", "x" * 120, "%00", "%ff", "a%2fb"])
async def test_an_unknown_sandbox_is_not_found(front: Front, ref: str):
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/stats"), ("GET", "/processes"), ("GET", "/logs")):
        answer = await front.http.request(method, f"/v1/sandboxes/{ref}{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), (method, path, answer.text)


async def test_one_that_ended_says_why_and_when(front: Front):
    made = await front.sandbox(name="short")
    front.node.end(made["id"], "lifetime")
    await asyncio.sleep(0.05)
    for ref in (made["id"], "short"):
        answer = await front.http.get(f"/v1/sandboxes/{ref}/processes")
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (404, "sandbox_gone")
        assert "lifetime" in error["message"]
        assert "UTC" in error["message"]
    shown = (await front.http.get(f"/v1/sandboxes/{made['id']}")).json()
    assert shown["ended"]["reason"] == "lifetime"
    again = await front.http.delete(f"/v1/sandboxes/{made['id']}")
    assert (again.status_code, again.json()["ended"]["reason"]) == (200, "lifetime")


async def test_an_idle_timer_is_changed_and_taken_away(front: Front):
    made = await front.sandbox(idle="5m")
    assert made["idle"] == 300
    where = f"/v1/sandboxes/{made['id']}"
    assert (await front.http.patch(where, json={"labels": {"a": "b"}})).json()["idle"] == 300
    assert (await front.http.patch(where, json={"idle": 20})).json()["idle"] == 20
    refused = await front.http.patch(where, json={"idle": 0.5, "lifetime": "1h", "labels": {}})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_argument")
    assert (await front.http.get(where)).json()["labels"] == {"a": "b"}, "with an error nothing was changed"
    assert (await front.http.patch(where, json={"idle": None})).json()["idle"] is None
    assert (await front.sandbox())["idle"] is None


async def test_a_lifetime_is_changed_and_taken_away(front: Front):
    made = await front.sandbox()
    longer = (await front.http.patch(f"/v1/sandboxes/{made['id']}", json={"lifetime": "2h"})).json()
    assert longer["lifetime"] == 7200
    assert longer["expires"] > made["expires"]
    same = (await front.http.patch(f"/v1/sandboxes/{made['id']}", json={})).json()
    assert same["expires"] == longer["expires"]
    none = (await front.http.patch(f"/v1/sandboxes/{made['id']}", json={"lifetime": None})).json()
    assert (none["lifetime"], none["expires"]) == (None, None)
    for bad in ({"lifetime": 0}, {"name": "x"}, {"labels": {"": "x"}}):
        assert (await front.http.patch(f"/v1/sandboxes/{made['id']}", json=bad)).status_code == 400


async def test_limits_are_changed(front: Front):
    made = await front.sandbox(memory="512MiB")
    where = f"/v1/sandboxes/{made['id']}"
    changed = (await front.http.patch(where, json={"memory": "2GiB", "cpu": 1.5, "pids": 99})).json()
    assert (changed["memory"], changed["cpu"], changed["pids"], changed["disk"]) == (2 << 30, 1.5, 99, made["disk"])
    same = (await front.http.patch(where, json={"memory": None, "cpu": None, "pids": None, "disk": None})).json()
    assert same == changed
    assert (await front.http.get(where)).json() == changed


@pytest.mark.parametrize(
    "bad",
    [
        {"memory": "lots"},
        {"memory": "1"},
        {"memory": -1},
        {"memory": 1 << 70},
        {"memory": True},
        {"memory": 1.5},
        {"cpu": "2"},
        {"cpu": 0},
        {"cpu": 1e308},
        {"cpu": True},
        {"pids": 1.5},
        {"pids": 1 << 40},
        {"pids": "100"},
        {"disk": []},
        {"cpus": 2},
    ],
    ids=str,
)
async def test_limits_that_are_none_are_refused_as_in_a_create(front: Front, bad: dict[str, object]):
    made = await front.sandbox()
    where = f"/v1/sandboxes/{made['id']}"
    refused = await front.http.patch(where, json={"labels": {"a": "b"}, **bad})
    asked = await front.http.post("/v1/sandboxes", json=bad)
    assert (refused.status_code, asked.status_code) == (400, 400)
    assert refused.json()["error"]["code"] == asked.json()["error"]["code"] == "invalid_argument"
    assert (await front.http.get(where)).json() == made


async def test_labels_are_replaced_and_found_by(front: Front):
    made = await front.sandbox(labels={"a": "1"})
    changed = (await front.http.patch(f"/v1/sandboxes/{made['id']}", json={"labels": {"b": "2"}})).json()
    assert changed["labels"] == {"b": "2"}
    found = (await front.http.get("/v1/sandboxes", params={"label": "b=2"})).json()["items"]
    assert [item["id"] for item in found] == [made["id"]]
    front.node.say(front.node.known[str(made["id"])])
    await asyncio.sleep(0.05)
    assert (await front.http.get(f"/v1/sandboxes/{made['id']}")).json()["labels"] == {"b": "2"}


async def test_stats_and_logs_are_told(front: Front):
    made = await front.sandbox()
    stats = (await front.http.get(f"/v1/sandboxes/{made['id']}/stats")).json()
    assert stats == {"memory": 1, "memory_limit": 2, "cpu_seconds": 3.5, "cpus": 1.0, "processes": 4, "disk": 5}
    logs = (await front.http.get(f"/v1/sandboxes/{made['id']}/logs")).json()
    assert [event["kind"] for event in logs["events"]] == ["sandbox.created", "sandbox.started"]
    assert logs["processes"][0]["attached"] is False


async def test_the_history_of_stats_is_told(front: Front):
    made = await front.sandbox()
    at = f"/v1/sandboxes/{made['id']}/stats/history"
    said = (await front.http.get(at)).json()
    assert said == {"every": 30.0, "items": []}
    for number in range(3):
        seen = Reading(100.0 + 30 * number, Counters(1_500_000, 2, 3), 4, 5, 6)
        front.product.usage.history.add({str(made["id"]): seen})
    items = (await front.http.get(at)).json()["items"]
    assert items[0] == {
        "at": 100.0,
        "cpu_seconds": 1.5,
        "memory": 4,
        "disk": 5,
        "received_bytes": 2,
        "sent_bytes": 3,
        "processes": 6,
    }
    assert [item["at"] for item in items] == [100.0, 130.0, 160.0]
    assert len((await front.http.get(at, params={"since": 130})).json()["items"]) == 2
    for query in ("since=-1", "since=nan", "since=x", "x=1"):
        assert (await front.http.get(f"{at}?{query}")).status_code == 400
    await front.http.delete(f"/v1/sandboxes/{made['id']}")
    assert (await front.http.get(at)).json()["error"]["code"] == "sandbox_gone"


async def test_the_last_words_of_an_ended_one_stay_and_then_are_gone(front: Front):
    made = await front.sandbox()
    at = f"/v1/sandboxes/{made['id']}/logs"
    process = ProcessInfo(7, 42, ("sh",), "root", 1.0, returncode=3)
    front.node.said[str(made["id"])] = [Tail(process, False, b"out" * 1000 + b"\xff", b"")]
    await front.http.delete(f"/v1/sandboxes/{made['id']}")
    logs = (await front.http.get(at, params={"limit": 4})).json()
    assert [event["kind"] for event in logs["events"]][-1] == "sandbox.ended"
    assert (logs["processes"][0]["stdout"], logs["processes"][0]["process"]["returncode"]) == ("out�", 3)
    front.node.said.clear()
    gone = await front.http.get(at)
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not_found")
    assert "not kept any more" in gone.json()["error"]["message"]


async def test_one_that_never_ran_has_no_last_words(front: Front):
    front.node.failure = EngineFailed("no")
    await front.http.post("/v1/sandboxes", json={"name": "never"})
    (item,) = (await front.http.get("/v1/sandboxes", params={"status": "all"})).json()["items"]
    logs = (await front.http.get(f"/v1/sandboxes/{item['id']}/logs")).json()
    assert [event["kind"] for event in logs["events"]] == ["sandbox.created", "sandbox.failed"]
    assert logs["processes"] == []


async def test_events_that_were_missed_are_made_good(front: Front):
    made = await front.sandbox()
    other = await front.sandbox()
    quiet = front.node.known.pop(str(other["id"]))
    front.node.say(front.node.known[str(made["id"])], skip=3)
    await asyncio.sleep(0.1)
    lost = (await front.http.get(f"/v1/sandboxes/{quiet.id}")).json()
    assert (lost["status"], lost["ended"]["reason"]) == (Status.LOST, "node_lost")
