"""The numbers for Prometheus, read as Prometheus reads them."""

import asyncio
import time

from prometheus_client.parser import text_string_to_metric_families
from tests.api.conftest import Front
from tests.api.test_keys import client, key_of

from belljar.model.key import Scope
from belljar.model.workspace import Quota


async def numbers(front: Front) -> dict[tuple[str, ...], float]:
    """By name and the values of the labels, in the order of their names."""
    answer = await front.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_what_lives_and_what_is_promised_is_counted_by_workspace(front: Front):
    await front.product.workspaces.make("team", Quota(sandboxes=3, memory=4 << 30))
    async with client(front, await key_of(front, Scope.RUN, "team")) as team:
        one = (await team.post("/v1/sandboxes", json={"cpu": 2, "memory": "1GiB"})).json()["id"]
        await team.post("/v1/sandboxes", json={"cpu": 0.5, "memory": "1GiB"})
        await front.sandbox()
        seen = await numbers(front)
        assert seen["belljar_sandboxes", "running", "team"] == 2
        assert seen["belljar_sandboxes", "running", "default"] == 1
        assert seen["belljar_promised", "cpus", "team"] == 2.5
        assert seen["belljar_promised", "memory", "team"] == 2 << 30
        assert seen["belljar_quota", "sandboxes", "team"] == 3
        assert ("belljar_quota", "cpus", "team") not in seen
        assert seen["belljar_keys",] == 1
        await team.delete(f"/v1/sandboxes/{one}")
        assert (await numbers(front))["belljar_sandboxes", "running", "team"] == 1


async def test_requests_are_counted_by_route_and_no_client_makes_a_series(front: Front):
    sandbox = (await front.sandbox())["id"]
    for number in range(5):
        await front.http.get(f"/v1/sandboxes/{sandbox}")
        await front.http.get(f"/v1/sandboxes/none{number}")
        await front.http.get(f"/nowhere/{number}")
        await front.http.request(f"ODD{number}", "/nowhere")
    seen = await numbers(front)
    assert seen["belljar_requests_total", "GET", "/v1/sandboxes/{ref}", "200"] == 5
    assert seen["belljar_requests_total", "GET", "/v1/sandboxes/{ref}", "404"] == 5
    assert seen["belljar_requests_total", "POST", "/v1/sandboxes", "201"] == 1
    assert seen["belljar_request_seconds_count", "POST", "/v1/sandboxes"] == 1
    lost = {key[1:] for key in seen if key[0] == "belljar_requests_total" and "none" in key}
    assert lost
    assert all(key[:2] == ("none", "none") for key in lost)
    assert not [key for key in seen if any("nowhere" in word or "ODD" in word for word in key)]


async def test_a_loop_that_was_held_up_is_seen_once(front: Front):
    await asyncio.sleep(0.3)
    await numbers(front)
    due = time.monotonic() + 1.0
    while time.monotonic() < due:
        pass
    await asyncio.sleep(0)
    seen = (await numbers(front))["belljar_event_loop_lag_seconds",]
    assert seen > 0.6
    await asyncio.sleep(0.3)
    assert (await numbers(front))["belljar_event_loop_lag_seconds",] < seen


async def test_the_numbers_are_for_operators(front: Front):
    await front.product.workspaces.make("team", Quota())
    async with (
        client(front, await key_of(front, Scope.ADMIN, "team")) as team,
        client(front, await key_of(front, Scope.READ)) as scraper,
        client(front, None) as nobody,
    ):
        assert (await team.get("/metrics")).status_code == 403
        assert (await nobody.get("/metrics")).status_code == 401
        assert (await scraper.get("/metrics")).status_code == 200
