"""The registry of vendors: what holds for each entry that is ever put there."""

import re

import pytest

from belljar.cli.vendors import VENDORS, Place


@pytest.mark.parametrize("name", VENDORS)
def test_each_has_a_word_variables_and_names_that_a_shell_takes(name: str) -> None:
    vendor = VENDORS[name]
    assert re.fullmatch(r"[a-z][a-z0-9-]*", name)
    assert vendor.about
    found = vendor.environment(Place("https://h.example:1", "k", "/ca.pem"))
    assert set(found) == set(vendor.names())
    assert len(vendor.names()) == len(set(vendor.names()))
    assert all(re.fullmatch(r"[A-Z_][A-Z0-9_]*", one) for one in found)
    assert "https://h.example:1" in " ".join(found.values())
    assert "k" in found.values()
    assert set(vendor.authorities).isdisjoint(vendor.environment(Place("http://h.example", "k")))
