"""Mapping -> Mapping: other cuts of layers, where the cycle judge says that the network is done sooner.

The estimate that cuts are chosen by looks at one layer; how it overlaps with its neighbours only the
judge knows. So the best cuts of each layer by estimate are tried in the program, and the one stays
with which it takes the fewest cycles; then all layers once more, as their neighbours have changed.
One after another, on one core: the same program every time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from neuflow.compiler.assemble import assemble
from neuflow.compiler.assign import cut_chain, cuts_to_try
from neuflow.compiler.mapping import Assignment, Mapping
from neuflow.compiler.schedule import schedule
from neuflow.cycle import judge
from neuflow.errors import CompileError
from neuflow.grid import GridConfig

ROUNDS = 2
"""Times at most that all layers are tried."""

Told = Callable[[str], None]
"""Is told how far the search has come, in one line."""


def search(mapping: Mapping, grid: GridConfig, tries: int, told: Told = lambda _: None) -> Mapping:
    """Return ``mapping`` with the cuts of fewest cycles among the ``tries`` best of each layer.

    Cycles are those of one frame from start to done, under the grid's own memory model. With 1 nothing
    is tried.
    """
    if tries == 1:
        return mapping
    started = mapping
    others = [_others(a, grid, mapping.batch, tries) for a in mapping.assignments]
    least = first = _cycles(mapping, grid)
    for _ in range(ROUNDS):
        before = least
        for number, assignment in enumerate(mapping.assignments):
            told(f"layer {number + 1} of {len(others)}, {assignment.chain.name}: {least} cycles")
            for other in others[number]:
                if other.rank != mapping.assignments[number].rank:
                    tried = _with(mapping, number, other)
                    cycles = _cycles(tried, grid)
                    if cycles < least:
                        mapping, least = tried, cycles
        if least == before:
            break
    found = zip(started.assignments, mapping.assignments, strict=True)
    searched = tuple(new.chain.name for old, new in found if new.rank != old.rank)
    told(f"{least} cycles, {first} without; layers changed: {len(searched)}")
    return replace(mapping, searched=searched)


def _others(assignment: Assignment, grid: GridConfig, batch: int, tries: int) -> list[Assignment]:
    """Return a layer with each of its best cuts."""
    chain = assignment.chain
    tried = cuts_to_try(chain, grid, batch, tries)
    return [cut_chain(chain, cut, grid, batch, rank) for rank, cut in tried]


def _with(mapping: Mapping, number: int, assignment: Assignment) -> Mapping:
    assignments = list(mapping.assignments)
    assignments[number] = assignment
    return replace(mapping, assignments=tuple(assignments))


def _cycles(mapping: Mapping, grid: GridConfig) -> float:
    """Return the cycles of a frame; infinity where a layer is too large for the format."""
    try:
        program = assemble(schedule(mapping, grid), grid, mapping.graph)
    except CompileError:
        return float("inf")
    return judge.simulate(program, mapping.batch, timeline=False).cycles


__all__ = ["ROUNDS", "Told", "search"]
