"""Draws who came from whom."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace

import belljar
from belljar.base.units import format_duration, format_size
from belljar.cli.console import ago, plain, print_data

__all__ = ("draw", "there", "words_of")

_TURNS = ("|-- ", "|   ", "`-- ", "    ")


def draw(trees: "Sequence[belljar.LineageNode]") -> None:
    """On a terminal with lines and colours; plain ASCII into a pipe, or where NO_COLOR is set."""
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        _draw_rich(trees)
        return
    for tree in trees:
        print_data(plain(words_of(tree)))
        _draw_plain(tree, "")


def there(node: "belljar.LineageNode") -> "belljar.LineageNode | None":
    """Without the branches of which nothing is left."""
    children = tuple(kept for child in node.children if (kept := there(child)) is not None)
    return replace(node, children=children) if children or node.ended is None else None


def words_of(node: "belljar.LineageNode") -> str:
    """One line: what it is, its id and name, and its sizes and age."""
    name = f" {node.name}" if node.name else ""
    facts: list[str] = []
    if node.type == "snapshot":
        facts += [f"{node.kind}{' template' if node.template else ''}", format_size(node.size or 0)]
        if node.stored is not None and node.size and node.stored < node.size * 0.95:
            facts.append(f"{format_size(node.stored)} stored")
    else:
        facts += [str(node.status), node.image]
    facts.append(ago(node.created))
    if node.ended is not None:
        facts.append(f"{node.reason} after {format_duration(max(0.0, node.ended - node.created))}")
    return f"{node.type} {node.id}{name}  {', '.join(facts)}"


def _draw_plain(node: "belljar.LineageNode", before: str) -> None:
    for number, child in enumerate(node.children, 1):
        is_last = number == len(node.children)
        print_data(before + (_TURNS[2] if is_last else _TURNS[0]) + plain(words_of(child)))
        _draw_plain(child, before + (_TURNS[3] if is_last else _TURNS[1]))


def _draw_rich(trees: "Sequence[belljar.LineageNode]") -> None:
    from rich.console import Console  # 60 ms, only here
    from rich.text import Text
    from rich.tree import Tree

    def label(node: "belljar.LineageNode") -> Text:
        style = "dim" if node.ended is not None else "cyan" if node.type == "snapshot" else "bold"
        what, _, facts = plain(words_of(node)).partition("  ")
        return Text.assemble((what, style), ("  " + facts, "dim"))

    def grow(branch: Tree, node: "belljar.LineageNode") -> None:
        for child in node.children:
            grow(branch.add(label(child)), child)

    console = Console(highlight=False)
    for tree in trees:
        root = Tree(label(tree), guide_style="dim")
        grow(root, tree)
        console.print(root, soft_wrap=True)
