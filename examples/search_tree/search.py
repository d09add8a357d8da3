"""Searches by forking: which learning rate is best now, when what was learned cannot be unlearned?

From each of the best networks so far one fork per rate learns on, side by side; the best few of them are kept as snapshots, and
the others end. At the end the best of all steps, which need not be of the last one, goes on from its snapshot. While it runs
``belljar snapshot tree`` shows what it makes.

    python examples/search_tree/search.py [STEPS]
"""

import contextlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import belljar

__all__ = ("main",)

TRAINING = Path(__file__).with_name("training.py").read_text()
RATES = (0.3, 0.1, 0.03)
KEPT = 2


@dataclass
class Node:
    """A sandbox after one more choice. `loss` is its score, and the less the better.

    `forked`: seconds until all children of its parent were there; `ran`: seconds of its own step.
    """

    sandbox: belljar.Sandbox
    choices: tuple[float, ...] = ()
    loss: float = 0.0
    forked: float = 0.0
    ran: float = 0.0
    snapshot: belljar.Snapshot | None = None


@dataclass
class Search:
    """What it made, by id, and who ends it."""

    made: contextlib.ExitStack
    nodes: dict[str, Node] = field(default_factory=dict)

    def start(self) -> Node:
        sandbox = self.made.enter_context(belljar.Sandbox.create("base", labels={"search": "rates"}, lifetime="10m"))
        sandbox.run_code(TRAINING)
        return self.add(Node(sandbox, loss=value_of(sandbox, "loss()")))

    def expand(self, node: Node) -> list[Node]:
        """One child for each rate, which has learned at it. The children begin at one and the same moment of `node`."""
        started = time.monotonic()
        forks = node.sandbox.fork(len(RATES))
        forked = time.monotonic() - started
        children = [
            self.add(Node(sandbox, (*node.choices, rate), forked=forked))
            for sandbox, rate in zip(forks, RATES, strict=True)
        ]
        for child in children:
            self.made.callback(child.sandbox.terminate)
        with ThreadPoolExecutor() as pool:
            list(pool.map(try_out, children))
        return children

    def keep(self, node: Node) -> None:
        node.snapshot = node.sandbox.snapshot(memory=True, labels={"search": "rates"}, ttl="1h")
        self.made.callback(node.snapshot.delete)

    def add(self, node: Node) -> Node:
        self.nodes[node.sandbox.id] = node
        return node


def main(steps: int) -> None:
    """`steps` is at least 1."""
    with contextlib.ExitStack() as made, ThreadPoolExecutor() as pool:
        search = Search(made)
        root = search.start()
        frontier, kept = [root], list[Node]()
        for _ in range(steps):
            children = sorted(chain(*pool.map(search.expand, frontier)), key=lambda child: child.loss)
            frontier, rest = children[:KEPT], children[KEPT:]
            list(pool.map(search.keep, frontier))
            for node in rest:
                node.sandbox.terminate()
            kept += frontier
        best = min(kept, key=lambda node: node.loss)
        draw(root.sandbox.lineage(), search.nodes, best)
        print(
            f"\n{len(search.nodes)} sandboxes; the best: rates {', '.join(map(str, best.choices))}, loss {best.loss:.5f}"
        )
        assert best.snapshot is not None
        with best.snapshot.create() as again:
            print(f"from its snapshot: sin(3 * 0.5) = {value_of(again, 'outputs(0.5)[1]'):.3f}")


def try_out(node: Node) -> None:
    started = time.monotonic()
    node.loss = value_of(node.sandbox, f"train({node.choices[-1]})")
    node.ran = time.monotonic() - started


def value_of(sandbox: belljar.Sandbox, expression: str) -> float:
    done = sandbox.run_code(expression, timeout=60)
    if done.error is not None or done.text is None:
        raise RuntimeError(f"{sandbox.id}: {done.error}")
    return float(done.text)


def draw(tree: belljar.LineageNode, nodes: dict[str, Node], best: Node, before: str = "") -> None:
    """Who came from whom, as the server knows it, with the scores beside; what goes on is marked by its snapshot."""
    if not before:
        print(words_of(tree, nodes, best))
    for number, child in enumerate(tree.children, 1):
        last = number == len(tree.children)
        print(before + ("└─ " if last else "├─ ") + words_of(child, nodes, best))
        draw(child, nodes, best, before + ("   " if last else "│  "))


def words_of(tree: belljar.LineageNode, nodes: dict[str, Node], best: Node) -> str:
    if tree.type == "snapshot":
        taken = [one.snapshot.last_info for one in nodes.values() if one.snapshot is not None]
        paused = max((one.paused for one in taken if one.id == tree.id), default=0.0)
        return f"{tree.id} {tree.kind} snapshot, {(tree.size or 0) / 1e6:.1f} MB, paused {1000 * paused:.0f} ms"
    node = nodes[tree.id]
    what = f"rate {node.choices[-1]:<4}" if node.choices else "begin    "
    took = f", forked in {1000 * node.forked:.0f} ms, ran {1000 * node.ran:.0f} ms" if node.choices else ""
    return f"{tree.id} {what} loss {node.loss:.5f}{took}{'  <- best' if node is best else ''}"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
