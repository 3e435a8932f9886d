"""When registers take their next values: enables as a tree of nested ``if``.

Enables that share a condition stand together under it, so that a simulator tests it once, and what
several of them need is computed under it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from neuflow.netlist import Bit, Cell, Sig, from_bits, size, to_bits

RESET_UNDER_ENABLE = "$sdffce"
"""Its reset is printed as part of its next value."""


class Literal(NamedTuple):
    """A condition: ``bit`` is 1, or 0 where not ``positive``."""

    bit: Bit
    positive: bool

    @property
    def sig(self) -> Sig:
        """The bit as a signal."""
        return from_bits([self.bit])


Enable = tuple[Literal, ...]
"""Conditions that must all hold."""


@dataclass(eq=False)
class Node:
    """``if`` all of ``conditions``: registers take their values; further nodes within.

    The node without a parent is a process: ``edge`` of ``clock``.
    """

    conditions: Enable = ()
    parent: Node | None = None
    cells: list[Cell] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)

    def path(self) -> list[Node]:
        """Return the nodes from the process down to this one."""
        return [*(self.parent.path() if self.parent else ()), self]


def common(first: Node | None, second: Node | None) -> Node | None:
    """Return the innermost node that holds both, None where there is none."""
    if first is None or second is None:
        return None
    found = None
    for a, b in zip(first.path(), second.path(), strict=False):
        if a is b:
            found = a
    return found


class Conditions:
    """Takes conditions apart. ``drivers``: wire -> the cell that computes all of it."""

    def __init__(self, drivers: Mapping[str, Cell]) -> None:
        self.drivers = drivers
        self._implied: dict[Literal, dict[Literal, None]] = {}

    def parts(self, literal: Literal) -> list[Literal]:
        """Return the conditions that must all hold for ``literal``; none where it is not made so."""
        cell = self.drivers.get(literal.bit[0])
        if cell is None or size(cell.pins["Y"]) != 1:
            return []
        kind, inputs = cell.kind, [bit for pin in "AB" for bit in to_bits(cell.pins.get(pin, ()))]
        if not all(wire for wire, _ in inputs):
            return []
        if kind in ("$not", "$logic_not") and len(inputs) == 1:
            return [Literal(inputs[0], not literal.positive)]
        narrow = kind[1:7] == "reduce" or all(
            size(cell.pins[pin]) == 1 for pin in "AB" if pin in cell.pins
        )
        all_hold = kind in ("$and", "$logic_and", "$reduce_and") and literal.positive
        none_hold = kind in ("$or", "$logic_or", "$reduce_or") and not literal.positive
        if narrow and (all_hold or none_hold):
            return [Literal(bit, literal.positive) for bit in inputs]
        return []

    def implied(self, literal: Literal) -> dict[Literal, None]:
        """Return all conditions that hold where ``literal`` does, itself first."""
        if literal not in self._implied:
            found = self._implied[literal] = {literal: None}
            for part in self.parts(literal):
                found |= self.implied(part)
        return self._implied[literal]

    def left(self, literal: Literal, known: Mapping[Literal, None]) -> list[Literal]:
        """Return what of ``literal`` remains to be tested where ``known`` holds."""
        if literal in known:
            return []
        if any(other in known for other in self.implied(literal)):
            return [rest for part in self.parts(literal) for rest in self.left(part, known)]
        return [literal]

    def enable(self, cell: Cell) -> Enable:
        """Return what must hold for a register to take its next value."""
        if "EN" not in cell.pins:
            return ()
        (bit,) = to_bits(cell.pins["EN"])
        return (Literal(bit, bool(cell.parameters.get("EN_POLARITY", 1))),)

    def tree(self, cells: Iterable[Cell]) -> Node:
        """Return the process of these registers, which share a clock."""
        root = Node()
        groups: dict[Enable, list[Cell]] = {}
        for cell in cells:
            groups.setdefault(self.enable(cell), []).append(cell)
        root.cells += groups.pop((), [])
        self._grow(root, groups, {})
        return root

    def _grow(
        self, node: Node, groups: Mapping[Enable, list[Cell]], known: Mapping[Literal, None]
    ) -> None:
        """Put ``groups`` under ``node``: those of the condition that most share first."""
        rest = dict(groups)
        while rest:
            counts: Counter[Literal] = Counter()
            for enable in rest:
                counts.update(c for c in self._all(enable) if self.left(c, known))
            guard, times = max(counts.items(), key=lambda item: item[1])
            enable = (guard,) if times > 1 else next(iter(rest))
            holds = {**known, **self._all(enable)}
            inner = {e: rest.pop(e) for e in list(rest) if set(enable) <= self._all(e).keys()}
            tests = (test for literal in enable for test in self.left(literal, known))
            child = Node(tuple(dict.fromkeys(tests)), node)
            node.nodes.append(child)
            for e in list(inner):
                if not any(self.left(literal, holds) for literal in e):
                    child.cells += inner.pop(e)
            self._grow(child, inner, holds)

    def _all(self, enable: Enable) -> dict[Literal, None]:
        return {c: None for literal in enable for c in self.implied(literal)}
