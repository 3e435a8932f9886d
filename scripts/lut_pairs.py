"""How many six-input look-up tables a module takes: one holds two functions of five inputs together.

A look-up table of the Virtex-6 has two outputs: one function of six inputs, or two that have no more
than five different inputs between them. yosys makes one function a cell and leaves the pairing to the
placer. Here pairs are taken one by one, with the neighbours in the netlist first: a pairing that is
legal, not the best, so that the count is what will do. Functions that feed a carry chain stay alone.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import islice
from typing import Any

INPUTS = {"INV": ("I",), **{f"LUT{n}": tuple(f"I{k}" for k in range(n)) for n in range(1, 7)}}
"""Cell -> its inputs."""
TOGETHER = 5
"""Different inputs of two functions in one look-up table."""
LOOKS = 64
"""Users of a net that are looked at for a partner: some nets have thousands."""


def tables(cells: dict[str, Any]) -> int:
    """Return the look-up tables that the functions among ``cells`` take; nets are those of a module."""
    chained = {
        net
        for cell in cells.values()
        if cell["type"] == "CARRY4"
        for net in cell["connections"]["S"]
    }
    functions = [cell for cell in cells.values() if cell["type"] in INPUTS]
    free = [_inputs(cell) for cell in functions if cell["connections"]["O"][0] not in chained]
    return len(functions) - _pairs([nets for nets in free if len(nets) <= TOGETHER])


def _inputs(cell: dict[str, Any]) -> frozenset[int]:
    """Return the nets that a function depends on; constants are none."""
    nets = (net for pin in INPUTS[cell["type"]] for net in cell["connections"][pin])
    return frozenset(net for net in nets if isinstance(net, int))


def _pairs(functions: list[frozenset[int]]) -> int:
    """Return how many pairs are found, largest functions first."""
    order = sorted(range(len(functions)), key=lambda index: -len(functions[index]))
    left = dict.fromkeys(order)
    users: dict[int, dict[int, None]] = defaultdict(dict)
    for index in order:
        for net in functions[index]:
            users[net][index] = None

    def take(index: int) -> None:
        del left[index]
        for net in functions[index]:
            del users[net][index]

    pairs = 0
    for index in order:
        if index not in left:
            continue
        own = functions[index]
        take(index)
        near = (other for net in sorted(own) for other in islice(users[net], LOOKS))
        # The smallest are at the end: one of those fits whatever nets it has, if any does.
        near_or_last = [*near, *islice(reversed(left), 1)]
        fit = [other for other in near_or_last if len(own | functions[other]) <= TOGETHER]
        if fit:
            take(max(fit, key=lambda other: len(functions[other])))
            pairs += 1
    return pairs
