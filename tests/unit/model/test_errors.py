"""The tree of errors: what one process says of an error, another raises."""

import math
from typing import Any

import pytest

from belljar.front.native.errors import error_headers, error_json
from belljar.model.errors import Error, Internal, LimitExceeded, NoCapacity, error_from_code
from belljar.node.guest.failures import fresh
from belljar.sdk.answers import error_of_object


def test_an_error_says_when_to_try_again_where_that_is_known() -> None:
    error = LimitExceeded("too many", hint="wait", retry_after=0.4)
    said = error_json(error, "r1")
    assert (said["retryable"], said["retry_after"]) == (True, 0.4)
    assert error_headers(error) == {"retry-after": "1"}
    assert "retry_after" not in error_json(LimitExceeded("too many"), "r1")
    assert error_headers(LimitExceeded("too many")) == {}


@pytest.mark.parametrize(("seconds", "whole"), [(0, "0"), (-3.0, "0"), (0.001, "1"), (2.0, "2"), (59.2, "60")])
def test_the_header_has_whole_seconds_rounded_up(seconds: float, whole: str) -> None:
    error = NoCapacity("full", retry_after=seconds)
    assert error_headers(error) == {"retry-after": whole}
    assert error.retry_after == max(0.0, seconds)


def test_it_comes_through_to_the_client() -> None:
    error = error_of_object(error_json(LimitExceeded("too many", hint="wait", retry_after=0.4), "r1"))
    assert type(error) is LimitExceeded
    assert (error.message, error.hint, error.request_id, error.retry_after) == ("too many", "wait", "r1", 0.4)
    assert error_from_code("new_in_a_later_release", "x", retry_after=2.0).retry_after == 2.0
    again: Error = fresh(error)
    assert (again.retry_after, again.request_id) == (0.4, "r1")


@pytest.mark.parametrize("value", [None, "soon", "1", [], {}, math.inf, -math.inf, math.nan, 10**400, -1])
def test_what_is_no_time_is_left_out(value: Any) -> None:
    said = {"code": "internal", "message": "x", "retry_after": value}
    error = error_of_object(said)
    assert type(error) is Internal
    assert error.retry_after is None
