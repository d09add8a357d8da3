"""Pages go on where the page before ended, and nothing stays open for ever."""

from collections.abc import AsyncGenerator

import pytest

from belljar.base.tasks import wait_until
from belljar.control.pages import Pages


class Listing:
    """Counts how often it is begun, what is read of it, and how many readings are open."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.begun = self.read = self.open = 0

    async def items(self) -> AsyncGenerator[int]:
        self.begun += 1
        self.open += 1
        try:
            for number in range(self.size):
                self.read += 1
                yield number
        finally:
            self.open -= 1


def _fail(name: str, error: BaseException) -> None:
    raise AssertionError(name) from error


async def _all(pages: Pages[int], listing: Listing, limit: int) -> list[int]:
    found: list[int] = []
    at: int | None = 0
    while at is not None:
        items, at = await pages.page("a", at, limit, listing.items)
        found += items
    return found


@pytest.mark.parametrize(("size", "limit"), [(0, 5), (1, 5), (5, 5), (6, 5), (10, 5), (1003, 10), (3, 1)])
async def test_all_pages_read_the_listing_once(size: int, limit: int) -> None:
    pages, listing = Pages[int](_fail), Listing(size)
    assert await _all(pages, listing, limit) == list(range(size))
    assert (listing.begun, listing.read, listing.open) == (1, size, 0)


async def test_a_page_asked_for_again_is_found_from_the_start() -> None:
    pages, listing = Pages[int](_fail), Listing(10)
    assert await pages.page("a", 0, 4, listing.items) == ([0, 1, 2, 3], 4)
    assert await pages.page("a", 4, 4, listing.items) == ([4, 5, 6, 7], 8)
    assert await pages.page("a", 4, 4, listing.items) == ([4, 5, 6, 7], 8)
    assert listing.begun == 2
    assert await pages.page("a", 8, 4, listing.items) == ([8, 9], None)
    assert await pages.page("a", 99, 4, listing.items) == ([], None)
    await pages.close()
    assert listing.open == 0


async def test_few_readings_wait_and_not_for_long() -> None:
    pages, listing = Pages[int](_fail, most=3, seconds=0.05), Listing(10)
    for name in "abcdef":
        await pages.page(name, 0, 4, listing.items)
    assert listing.open == 3

    async def closed() -> bool:
        return listing.open == 0

    assert await wait_until(closed, timeout=5)
    assert await pages.page("f", 4, 4, listing.items) == ([4, 5, 6, 7], 8)
    await pages.close()
    assert listing.open == 0


async def test_a_reading_that_fails_is_closed_and_can_begin_again() -> None:
    pages, listing = Pages[int](_fail), Listing(10)

    async def torn() -> AsyncGenerator[int]:
        async for item in listing.items():
            if item == 6:
                raise OSError("torn")
            yield item

    assert await pages.page("a", 0, 4, torn) == ([0, 1, 2, 3], 4)
    with pytest.raises(OSError, match="torn"):
        await pages.page("a", 4, 4, torn)
    assert await pages.page("a", 4, 4, listing.items) == ([4, 5, 6, 7], 8)
    await pages.close()
