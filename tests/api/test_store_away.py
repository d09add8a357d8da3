"""A server whose store is locked or gone for a while: what is asked of it then, and that all goes on afterwards."""

import contextlib
import sqlite3
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from tests.api.conftest import Front
from tests.postgres import Cluster

from belljar.base.tasks import wait_until
from belljar.control.store import database as database_module
from belljar.control.store import sqlite as sqlite_module
from belljar.model.audit import verify
from belljar.server.wiring import DATABASE


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second where an operator's server waits for ten."""
    monkeypatch.setattr(sqlite_module, "BUSY_SECONDS", 0.5)
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.5)


@contextlib.contextmanager
def away(stored: str | None, home: Path, request: pytest.FixtureRequest) -> Generator[None]:
    if stored is None:
        with contextlib.closing(sqlite3.connect(home / DATABASE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    cluster.stop()
    try:
        yield
    finally:
        cluster.start()


async def test_changes_are_refused_in_time_what_lives_is_served_and_all_goes_on(
    front: Front, stored: str | None, state: Path, request: pytest.FixtureRequest
):
    box = await front.sandbox(name="box")
    made = [(await front.http.post("/v1/keys", json={"name": "before"})).json()["id"]]
    with away(stored, state, request):
        for _ in range(3):
            began = time.monotonic()
            answer = await front.http.post("/v1/keys", json={"name": "meanwhile"})
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["retryable"]) == (503, "starting", True), answer.text
            assert answer.headers["retry-after"] == "1"
            assert time.monotonic() - began < 3
        refused = await front.http.post("/v1/sandboxes", json={"name": "no"})
        assert refused.status_code == 503, refused.text
        assert (await front.http.get("/v1/sandboxes/box")).json()["id"] == box["id"]
        assert (await front.http.get("/health")).status_code == 200

    async def works() -> bool:
        answer = await front.http.post("/v1/keys", json={"name": "after"})
        if answer.status_code == 201:
            made.append(answer.json()["id"])
        return answer.status_code == 201

    assert await wait_until(works, timeout=20, every=0.2)
    assert (await front.http.post("/v1/sandboxes", json={"name": "no"})).status_code == 201, "its name is free again"
    keys = {key["id"] for key in (await front.http.get("/v1/keys")).json()["items"]}
    assert keys == set(made)
    entries = [entry async for page in front.product.audit.export("default") for entry in page]
    assert verify(entries).broken is None
    assert {f"/v1/keys/{id}" for id in made} <= {entry.target for entry in entries if entry.status == 201}
    assert sum(entry.status == 503 for entry in entries) >= 4
