"""Mapping -> Mapping: depthwise layers in two rounds of rows, where the next layer so begins earlier.

On small maps the first pixels of an array are most of the rows. So a convolution begins when these are
there, of all channels, behind nearly all of the depthwise layer before it; and that needs nearly all
rows of its own input. In two rounds of rows it begins with half of them, and the next layer's first
rows are read while the second round works. Its weights are brought twice: the bus must be well ahead.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from itertools import accumulate

from neuflow.compiler import cost
from neuflow.compiler.assign import cut_chain, cuts_to_try
from neuflow.compiler.buffers import packet_words
from neuflow.compiler.geometry import conv_shape
from neuflow.compiler.mapping import Assignment, Mapping
from neuflow.grid import GridConfig

LEAST_ROWS = 4
"""Rows of an output: rounds of one are over before anything is gained."""


def early_rows(mapping: Mapping, grid: GridConfig, fixed: Container[str] = ()) -> Mapping:
    """Return ``mapping`` with two rounds of rows in the layers that gain; those ``fixed`` stay."""
    done = list(mapping.assignments)
    spare = _spare(done, grid)
    for number, (now, following) in enumerate(zip(done, done[1:], strict=False)):
        if now.chain.name in fixed or not _waits(now, following, grid):
            continue
        pieces = [piece for one in now.passes for piece in one.pieces]
        words = sum(packet_words(conv_shape(now.chain, piece), grid) for piece in pieces)
        again = words / grid.bus_words_per_cycle
        if again > spare[number]:
            continue
        for rank, cut in cuts_to_try(now.chain, grid, mapping.batch, len(now.passes) + 1):
            if cut.row_rounds == 2 and cut.strips == 1:
                done[number] = cut_chain(now.chain, cut, grid, mapping.batch, rank)
                spare = [cycles - again for cycles in spare]
                break
    return replace(mapping, assignments=tuple(done))


def _spare(assignments: Sequence[Assignment], grid: GridConfig) -> list[float]:
    """Return by how many cycles the bus is ahead of the arrays at least, from each layer to the end."""
    passes = [(a.chain, one) for a in assignments for one in a.passes]
    # Before a pass that comes behind the last one: at the end.
    ahead = list(cost.bus_ahead([*passes, *passes[-1:]], grid, cost.PASS_OVERHEAD))
    first = accumulate((len(a.passes) for a in assignments[:-1]), initial=0)
    return [min(ahead[number:]) for number in first]


def _waits(now: Assignment, following: Assignment, grid: GridConfig) -> bool:
    """Whether a layer is depthwise, and the next one begins with more than half of its rows."""
    chain, reader = now.chain, following.chain
    rows = chain.shapes[-1][1]
    convolutions = chain.by_block and not chain.batched and reader.head is not None
    if not convolutions or reader.is_dense or reader.source != chain.output or rows < LEAST_ROWS:
        return False
    # Weights of all rounds of maps are brought once.
    if len(now.passes) > 2 or any(p.out.rows.size < rows for p in now.passes[0].pieces):
        return False
    first = cost.first_records(conv_shape(reader, following.passes[0].pieces[0]), grid)
    return 2 * first > rows


__all__ = ["early_rows"]
