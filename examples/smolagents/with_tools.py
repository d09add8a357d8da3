"""A CodeAgent with tools that stay on this machine: one has a state here, one knows a secret. The code has neither."""

from scripted import ScriptedModel
from smolagents import CodeAgent, tool

from belljar.integrations.smolagents import BelljarExecutor

SECRET = "only on the host"
orders: list[str] = []


@tool
def order(item: str, count: int) -> int:
    """Orders something.

    Args:
        item: What to order.
        count: How many of it.
    """
    orders.extend([item] * count)  # a closure over a list of this process
    return len(orders)


@tool
def price_of(item: str) -> float:
    """Asks the shop, with our key, what something costs.

    Args:
        item: What to ask for.
    """
    assert SECRET
    return {"apple": 0.5, "pear": 0.75}[item]


FIRST = """
prices = {item: price_of(item) for item in ("apple", "pear")}
cheapest = min(prices, key=prices.get)
print("cheapest:", cheapest)
try:
    price_of("plum")
except KeyError as error:
    print("the shop has no", error)
"""
SECOND = """
final_answer(f"{order(cheapest, count=3)} ordered for {3 * prices[cheapest]:.2f}")
"""

model = ScriptedModel(FIRST, SECOND, 'final_answer(order(item="pear", count=1))')
with CodeAgent(tools=[order, price_of], model=model, executor=BelljarExecutor(), verbosity_level=0) as agent:
    print(agent.run("Order three of the cheapest fruit."))
    print(agent.run("And one pear.", reset=False))  # the same sandbox, its variables still there
print(orders)
