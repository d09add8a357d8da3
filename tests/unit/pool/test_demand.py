"""How many guests wait, and of which class."""

from hypothesis import given
from hypothesis import strategies as st

from belljar.node.pool.demand import Demand, Wish


def test_a_standing_class_has_one_before_anybody_asked() -> None:
    demand: Demand[str] = Demand(8)
    demand.stand("code", 0.0)
    assert demand.wishes(0.0) == {"code": Wish(1, 0)}
    assert demand.wishes(100_000.0) == {"code": Wish(1, 0)}


def test_who_asks_often_finds_more_and_less_again_later() -> None:
    demand: Demand[str] = Demand(16)
    for at in (0.0, 1.0, 2.0):
        demand.asked("base", at)
    assert demand.wishes(2.0) == {"base": Wish(4, 2)}
    assert demand.wishes(30.0) == {"base": Wish(1, 0)}
    assert demand.wishes(1000.0) == {}


def test_the_class_used_last_is_served_first_when_there_is_not_room_for_all() -> None:
    demand: Demand[str] = Demand(2)
    demand.asked("old", 0.0)
    demand.asked("new", 5.0)
    assert list(demand.wishes(6.0).items()) == [("new", Wish(2, 1)), ("old", Wish(0, 0))]


def test_who_begins_elsewhere_finds_some_that_were_only_created() -> None:
    demand: Demand[str] = Demand(16)
    demand.began("base", 0.0)
    assert demand.wishes(0.0) == {"base": Wish(0, 2)}
    for _ in range(20):
        demand.began("base", 1.0)
    assert demand.wishes(1.0) == {"base": Wish(0, 8)}
    assert demand.wishes(30.0) == {"base": Wish(0, 1)}
    demand.asked("base", 590.0)
    assert demand.wishes(599.0) == {"base": Wish(2, 2)}
    assert demand.wishes(602.0) == {"base": Wish(1, 0)}
    assert demand.wishes(1191.0) == {}


@given(st.lists(st.tuples(st.integers(0, 40), st.booleans(), st.floats(0, 10)), max_size=300), st.integers(0, 20))
def test_the_bounds_hold_whoever_asks(asked: list[tuple[int, bool, float]], most: int) -> None:
    demand: Demand[int] = Demand(most)
    demand.stand(-1, 0.0)
    now = 0.0
    for shape, elsewhere, step in asked:
        now += step
        (demand.began if elsewhere else demand.asked)(shape, now)
        wishes = demand.wishes(now)
        assert len(wishes) <= 17 and -1 in wishes
        assert sum(wish.hot for wish in wishes.values()) <= most
        assert sum(wish.warm - wish.hot // 2 for wish in wishes.values()) <= most
        assert all(0 <= wish.warm - wish.hot // 2 <= 8 and 0 <= wish.hot <= 8 for wish in wishes.values())
