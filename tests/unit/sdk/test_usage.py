"""What was used, over pages."""

import pytest
from tests.unit.sdk.scripted import ScriptedServer

import belljar
from belljar.model.usage import entry_json

LINES = [belljar.UsageEntry(sandbox=f"sb{number}", workspace="default", cpu_us=number) for number in range(3)]


def test_a_list_goes_over_its_pages_and_ends_where_it_should(server: ScriptedServer) -> None:
    pages = [
        {"items": [entry_json(LINES[0]) | {"of a later release": 1}, entry_json(LINES[1])], "next": "sb1"},
        {"items": [entry_json(LINES[2])], "next": None},
    ] * 2
    server.answers["GET", "/v1/usage"] = lambda: (200, pages.pop(0))
    assert list(belljar.Usage.list(since=5.0, until=7.0, workspace="team")) == LINES
    asked = {"by": "sandbox", "limit": "500", "from": "5.0", "to": "7.0", "workspace": "team"}
    assert [query for _, _, query in server.requests] == [asked, asked | {"cursor": "sb1"}]
    assert list(belljar.Usage.list(by="hour", limit=2)) == LINES[:2]


def test_a_line_that_is_none_is_not_taken_for_one(server: ScriptedServer) -> None:
    server.answers["GET", "/v1/usage"] = lambda: (200, {"items": [{"cpu_us": 1.5}], "next": None})
    with pytest.raises(belljar.InvalidArgument):
        list(belljar.Usage.list())
