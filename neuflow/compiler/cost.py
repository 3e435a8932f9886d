"""What a cut costs: cycles of its passes, by array, drain, links, and the shared bus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from neuflow.blocks.convolver_model import addition
from neuflow.blocks.window_model import ROW_OVERHEAD, chunks, slots
from neuflow.compiler.buffers import RowPlan, packet_words, partial_words
from neuflow.compiler.cut import (
    Axes,
    Cut,
    axes,
    conv_groups,
    count_passes,
    image_passes,
    map_unit,
    passes,
)
from neuflow.compiler.fit import plan_rows
from neuflow.compiler.geometry import ConvShape, backward, ceil_div, conv_shape
from neuflow.compiler.mapping import Chain, Pass, Piece, Span
from neuflow.grid import GridConfig
from neuflow.layout import Scatter

PASS_OVERHEAD = 150
"""Cycles that a pass costs beyond its work: configuration, memory latency, fence."""

HIDDEN = 1 / 16
"""Weight of the lesser of array and bus in the cycles of a pass."""

SAMPLES = 16
"""Groups of maps that are looked at where their pieces differ by kernels of zero."""

RUN_CYCLES = 3
"""Cycles of the bus for a run of few words that lies apart from others, measured."""

GAP = 35
"""Cycles from the last tap of a pass to the first of the next, where all it needs is there."""


@dataclass(frozen=True)
class Work:
    """Cycles of a pass: ``array`` (or drain, links), ``bus``, and ``load`` that nothing hides.

    ``memory``: what its words take on the bus; ``bus`` may be more: the scratchpad, scattered words.
    """

    array: float
    bus: float
    load: float
    memory: float


def cycles(chain: Chain, cut: Cut, grid: GridConfig, batch: int) -> int:
    """Estimate the cycles of a cut: passes x those of the first place, or x the mean of some.

    Passes with the input of the one before keep it where it fits whole.
    """
    divided = axes(chain, cut, grid, batch)
    count = count_passes(chain, cut, grid, batch)
    if chain.kernels is not None:
        some = list(passes(chain, cut, grid, divided.one_round(SAMPLES)))
        mean = sum(_pass_cycles(chain, one, grid) for one in some) / len(some)
        return int(_first(chain, some[0], grid) + count * mean)
    parts, rounds = max(1, len(cut.parts)), len(divided.maps)
    # All sums of one place.
    some = list(islice(passes(chain, cut, grid, divided._replace(maps=divided.maps[:1])), parts))
    if cut.ramp:
        plain = replace(cut, ramp=False)
        before = _start(chain, next(image_passes(chain, plain, grid)), grid)
        saved = before - _start(chain, some[0], grid) - (count - 1) * GAP
        return int(cycles(chain, plain, grid, batch) - saved)
    keeps = (cut.keep or len(cut.parts) == 1) and conv_groups(chain) == 1 and rounds > 1
    total = _first(chain, some[0], grid)
    first = True
    for maps, alike in _rounds_alike(divided, map_unit(chain, cut.by_tap, grid)):
        for one in islice(passes(chain, cut, grid, divided._replace(maps=[maps])), parts):
            inputs = int(first) if keeps and fits_whole(chain, one, grid) else alike
            each = inputs * _pass_cycles(chain, one, grid)
            if alike > inputs:
                each += (alike - inputs) * _pass_cycles(chain, one, grid, kept=True)
            if one.pieces[0].partial_in and not cut.keep:
                # The pass before has just made the sums: a fence, and rows come behind it.
                each += alike * _start(chain, one, grid)
            total += count // (rounds * parts) * each
        first = False
    return int(total)


def _rounds_alike(divided: Axes, unit: int) -> Iterator[tuple[list[Span], int]]:
    """Yield rounds of maps that differ in a column's blocks of ``unit``, and how many there are."""
    alike: dict[tuple[int, int], list[list[Span]]] = {}
    for maps in divided.maps:
        alike.setdefault((len(maps), max(ceil_div(span.size, unit) for span in maps)), []).append(maps)
    yield from ((of_one[0], len(of_one)) for of_one in alike.values())


def _first(chain: Chain, one: Pass, grid: GridConfig) -> float:
    """Cycles that a chain's first pass takes longer than the others: nothing hides its start."""
    start = _start(chain, one, grid)
    return _pass_cycles(chain, one, grid, start=start) - _pass_cycles(chain, one, grid)


def _start(chain: Chain, first: Pass, grid: GridConfig) -> float:
    """Cycles until all columns have the rows of their first group: the layer before must be done."""
    if chain.head is None:
        return 0.0
    waits: dict[tuple[object, ...], int] = {}
    for piece in first.pieces:
        shape = conv_shape(chain, piece)
        rows = first_records(shape, grid)
        key = (piece.image, piece.part, shape.rows, shape.cols)
        waits[key] = max(waits.get(key, 0), rows * shape.channels * shape.cols.size)
    return sum(waits.values()) / speed(chain, chain.source, grid)


def first_records(shape: ConvShape, grid: GridConfig) -> int:
    """Return the records that the first group of a pass needs."""
    return int(shape.needed(np.zeros(1, np.int64), grid)[0])


def fits_whole(chain: Chain, one: Pass, grid: GridConfig) -> bool:
    """Whether the row buffer holds the whole input of a pass, so that the next one finds it there."""
    plan = plan_rows(chain, conv_shape(chain, one.pieces[0]), grid)
    return plan is not None and plan.ring_words == 0


def _pass_cycles(
    chain: Chain, one: Pass, grid: GridConfig, kept: bool = False, start: float = 0.0
) -> float:
    """Cycles of a pass whose arrays begin ``start`` cycles behind the bus."""
    # Pieces read different channels only where there are kernels of zero.
    pieces = one.pieces[:1] if chain.kernels is None else one.pieces
    works = [work(chain, one, piece, grid, kept) for piece in pieces]
    array, bus, load = (max(getattr(w, n) for w in works) for n in ("array", "bus", "load"))
    array += start
    # What is not the bound is partly hidden only: at the ends of a layer it shows.
    return max(array, bus) + HIDDEN * min(array, bus) + load + PASS_OVERHEAD


def _window_cycles(chain: Chain, piece: Piece, grid: GridConfig) -> int:
    """Cycles of the window unit: see ``blocks.window_model.cycles_bound``."""
    regions = backward(chain, piece.out)
    for step, before, after in zip(chain.steps, regions, regions[1:], strict=False):
        if step.node.op == "pool":
            (ky, kx), (sy, _) = step.node.attrs["kernel"], step.node.attrs["stride"]
            visits = chunks(before.cols.size, grid.lanes) * max(1, slots(ky, sy, after.rows.size))
            rows = before.rows.size * (before.maps.size * visits + ROW_OVERHEAD)
            return max(rows, after.size * ceil_div(kx, grid.lanes))
    return 0


def work(chain: Chain, one: Pass, piece: Piece, grid: GridConfig, kept: bool) -> Work:
    """Cycles of the pass by array, drain, links and the shared bus, as ``piece`` sees them."""
    window = _window_cycles(chain, piece, grid)
    side = len(one.pieces)
    written = sum(p.out.size for p in one.pieces if not p.partial_out)
    if chain.head is None or piece.part is None:
        entering = backward(chain, piece.out)[0].size
        links = max(ceil_div(entering, grid.maps), window)
        memory, near = _bus(chain, grid, side * entering, written)
        return Work(links, max(memory, near, side * _scattered(chain, piece)), 0.0, memory)
    shape = conv_shape(chain, piece)
    plan = plan_rows(chain, shape, grid)
    assert plan is not None
    blocks = shape.groups(grid) * shape.blocks(grid)
    drain = grid.pixels * (3 if piece.partial_in or piece.partial_out else 1)
    drain += addition(grid.maps) if shape.by_tap else 0
    entering = plan.rows * plan.channels * plan.width
    store = plan.rows * plan.channels * store_cycles(plan, grid)
    if kept:
        entering = store = 0
    weights = packet_words(shape, grid)
    boxes = {(p.image, p.box or (p.out.rows, p.out.cols), p.part) for p in one.pieces}
    others = weights * len({(p.out.maps, p.part) for p in one.pieces})
    others += partial_words(shape, grid) * side * (piece.partial_in + piece.partial_out)
    # What of the next packet finds no room is not hidden behind this pass.
    exposed = min(max(0, 2 * weights - grid.weight_words), weights) if shape.groups(grid) > 1 else 0
    exposed *= len({p.out.maps for p in one.pieces})
    load = exposed / grid.bus_words_per_cycle
    if not kept and 2 * plan.size > grid.row_words:
        # Rows cannot come ahead: the array waits for those of its first group.
        words = first_records(shape, grid) * plan.channels * plan.width
        load += words / speed(chain, chain.source, grid)
    array = max(blocks * max(shape.steps(grid), drain), store, window)
    memory, near = _bus(chain, grid, entering * len(boxes), written, others)
    bus = max(memory, near)
    if not kept:
        bus = max(bus, len(boxes) * _scattered(chain, piece))
    return Work(array, bus, load, memory)


def bus_ahead(
    passes: Sequence[tuple[Chain, Pass]], grid: GridConfig, beside: float = 0.0
) -> Iterator[float]:
    """Yield, about, how many cycles before each pass begins the bus can have brought all it needs.

    The rings of weights hold what it brings before that. ``beside``: cycles of a pass beside its work.
    """
    most = grid.columns * grid.weight_words / grid.bus_words_per_cycle
    ahead = 0.0
    for chain, one in passes:
        yield ahead
        works = [work(chain, one, piece, grid, kept=False) for piece in one.pieces]
        array, memory = max(w.array for w in works), max(w.memory for w in works)
        ahead = min(max(0.0, ahead + array + beside - memory), most)


def _scattered(chain: Chain, piece: Piece) -> int:
    """Cycles to read vectors of a batch, of which the piece takes some images: value by value, apart.

    A dense layer may also flatten images, which lie one behind the other.
    """
    if not chain.batched or chain.flattens or chain.source in chain.scratchpad:
        return 0
    if piece.out.cols.size == chain.shapes[-1][2]:
        return 0
    values = piece.out.maps if piece.part is None else piece.part.channels
    return RUN_CYCLES * values.size


def _bus(
    chain: Chain, grid: GridConfig, entering: int, written: int, others: int = 0
) -> tuple[float, float]:
    """Cycles that words take to and from memory, and the scratchpad, which has a way of its own.

    That counts as if it had one bank. Which of two ways to divide a layer leaves more for the other bank
    matters less than how the layer overlaps with its neighbours, of which nothing is known here: with
    both banks counted DS-CNN took 12 % more cycles, as more layers were divided by rows.

    ``entering`` words of the source, ``written`` of the output, as many of an operand, and ``others``
    in memory.
    """
    reads = {chain.source: entering}
    if (step := chain.operand) is not None and step.operand and step.node.op == "alu":
        reads[step.operand] = reads.get(step.operand, 0) + written
    near = sum(words for name, words in reads.items() if name in chain.scratchpad)
    far = sum(reads.values()) - near + others
    if chain.output in chain.scratchpad:
        # Word by word takes a beat a word.
        beats = grid.bus_words if chain.output in chain.interleaved else 1
        near = max(near, beats * written)
    else:
        far += written
    return far / grid.bus_words_per_cycle, near / grid.bus_words


def store_cycles(plan: RowPlan, grid: GridConfig) -> float:
    """Cycles that a row of a channel takes to be stored: see ``blocks.conv_rows.RowStore``."""
    if plan.scatter == Scatter.WORD:
        return plan.width
    if plan.scatter == Scatter.ROWS:
        return max(plan.width / grid.bus_words, 1 / 2)  # of two rows a cycle, no more
    if plan.scatter in (Scatter.ROW, Scatter.BOTH_PHASES):
        return ceil_div(plan.width, grid.bus_words)
    beats = plan.width / grid.bus_words
    if plan.width % grid.bus_words:
        beats += 1 - 1 / grid.bus_words  # a beat in which a row ends is stored in two parts
    return beats * (plan.stride if plan.scatter == Scatter.PHASES else 1)


def speed(chain: Chain, tensor: str, grid: GridConfig) -> float:
    """Words a cycle at which a tensor is read."""
    return grid.bus_words if tensor in chain.scratchpad else grid.bus_words_per_cycle
