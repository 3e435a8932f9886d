"""QuantGraph -> Mapping: chains to columns, by the least cycles among the cuts that fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from neuflow.blocks.convolver_model import addition
from neuflow.blocks.window_model import ROW_OVERHEAD, chunks, slots
from neuflow.compiler.cut import (
    Cut,
    axes,
    can_close,
    can_ramp,
    can_tap,
    conv_groups,
    count_passes,
    ladder,
    map_unit,
    needs_helper,
    part_lists,
    passes,
)
from neuflow.compiler.fit import Misfit, check_piece, plan_rows, sums_fit
from neuflow.compiler.fuse import MOSTLY, Fused, fuse, legalise
from neuflow.compiler.geometry import (
    RowPlan,
    backward,
    ceil_div,
    conv_shape,
    packet_words,
    partial_words,
)
from neuflow.compiler.groups import merge_groups, merged
from neuflow.compiler.join import join
from neuflow.compiler.liveness import Memory, with_scratchpad
from neuflow.compiler.mapping import Assignment, Chain, Mapping, Pass, Piece
from neuflow.compiler.order import order_maps
from neuflow.errors import CompileError
from neuflow.grid import GridConfig
from neuflow.ir import Node, QuantGraph
from neuflow.layout import Scatter

PASS_OVERHEAD = 150
"""Cycles that a pass costs beyond its work: configuration, memory latency, fence."""

HIDDEN = 1 / 16
"""Weight of the lesser of array and bus in the cycles of a pass."""

SAMPLES = 16
"""Groups of maps that are looked at where their pieces differ by kernels of zero."""

GAP = 60
"""Cycles from the last tap of a pass to the first of the next, where all it needs is there."""

RAMP_BOUND = 2
"""Of a chain that may begin with small pieces the arrays work so much longer than the bus."""

MOST_KEPT_PARTS = 4
"""Parts of the channels at most that are kept in turn: each costs a way through memory of all sums."""

TRIES = 3
"""Ways that fit, of each kind of cut, that are compared before finer ones are given up."""


def assign(
    graph: QuantGraph, grid: GridConfig, batch: int, cuts: dict[str, Cut] | None = None
) -> Mapping:
    """Cut every chain of ``graph`` for ``grid``.

    ``cuts`` forces the cut of the chains it names. Raises ``CompileError`` where a node cannot run.
    """
    joined = join(merge_groups(order_maps(legalise(graph), grid, MOSTLY), grid))
    graph = joined.graph
    alone: set[str] = set()
    while True:
        fused = _with_heads(fuse(graph, batch, alone), grid)
        memory = Memory(graph, fused.views, joined.joins)
        done = []
        for chain in with_scratchpad(memory, fused.chains, batch, grid):
            assignment = _assign_chain(chain, grid, batch, (cuts or {}).get(chain.name))
            if assignment is None:
                # What is fused does not fit together: let the last node work alone, and try again.
                if len(chain.nodes) < 2 or chain.nodes[-1].name in alone:
                    raise CompileError(
                        f"{chain.name}: no way to cut it fits grid {grid.name!r}; "
                        "use a grid with larger buffers"
                    )
                alone.add(chain.nodes[-1].name)
                break
            done.append(assignment)
        else:
            return Mapping(graph, batch, tuple(done), fused.views, joined.joins)


def _with_heads(fused: Fused, grid: GridConfig) -> Fused:
    """Where no neighbour can bring a second operand, bring the first through the convolver."""
    if grid.columns > 1:
        return fused
    chains = (_through_convolver(c, grid) if needs_helper(c) else c for c in fused.chains)
    return replace(fused, chains=tuple(chains))


def _through_convolver(chain: Chain, grid: GridConfig) -> Chain:
    """Begin with a 1x1 convolution whose weights are 1, map by map."""
    maps, height, width = chain.shapes[0]
    attrs: dict[str, Any] = {
        "weight": np.ones((maps, 1, 1, 1), np.int64), "bias": np.zeros(maps, np.int64),
        "m": np.ones(maps, np.int64), "s": np.zeros(maps, np.int64),
        "zero": np.zeros(maps, np.int64), "groups": maps,
        "stride": (1, 1), "dilation": (1, 1), "pads": (0, 0, 0, 0),
    }  # fmt: skip
    head = Node(f"{chain.name}/identity", "conv", (chain.source,), chain.source, attrs)
    return replace(chain, head=merged(head, height * width, grid), source_shape=chain.shapes[0])


# --- the search ---------------------------------------------------------------------------------


def _assign_chain(
    chain: Chain, grid: GridConfig, batch: int, forced: Cut | None
) -> Assignment | None:
    cut = forced
    if cut is None:
        found = ((_cycles(chain, cut, grid, batch), cut) for cut in _cuts(chain, grid, batch))
        cut = min(found, key=lambda pair: pair[0], default=(0, None))[1]
    elif not cut.parts:
        cut = replace(cut, parts=next(part_lists(chain)))
    if cut is None:
        return None
    done = tuple(passes(chain, cut, grid, axes(chain, cut, grid, batch)))
    for piece in (piece for one in done for piece in one.pieces):
        try:
            check_piece(chain, piece, grid)
        except Misfit as misfit:
            raise CompileError(
                f"{chain.name}: {piece} overflows {misfit.what}; cut it finer"
            ) from None
    return Assignment(chain, done, _cycles(chain, cut, grid, batch), str(cut))


def _cuts(chain: Chain, grid: GridConfig, batch: int) -> Iterator[Cut]:
    """Yield cuts that fit, coarse ones first."""
    for side in _side_by_side(chain, grid, batch):
        if chain.reorder:
            yield side
            continue
        strips_left = TRIES
        for strips, row_rounds in _spatial(chain):
            spatial = replace(side, strips=strips, row_rounds=row_rounds)
            found = list(_reductions(chain, spatial, grid))
            yield from found
            strips_left -= bool(found)
            # What fits uncut need not be cut.
            if strips_left == 0 or (found and strips == 1 and len(found[0].parts) <= 1):
                break


def _spatial(chain: Chain) -> Iterator[tuple[int, int]]:
    _, height, width = chain.shapes[-1]
    for strips in ladder(width):
        yield strips, 1
    for rounds in ladder(height):
        if rounds > 1:
            yield width, rounds


def _reductions(chain: Chain, cut: Cut, grid: GridConfig) -> Iterator[Cut]:
    left = TRIES
    for parts in part_lists(chain):
        if len(parts) > 1 and (cut.by_tap or not sums_fit(chain, grid)):
            return
        found = list(_rounds(chain, replace(cut, parts=parts), grid))
        if found:
            yield from found
            yield from (replace(one, ramp=True) for one in found if _ramps(chain, one, grid))
            if left == TRIES:
                yield from _kept(chain, found, grid)
            left -= 1
            if left == 0 or len(parts) <= 1:
                return


def _ramps(chain: Chain, cut: Cut, grid: GridConfig) -> bool:
    """Whether a cut may begin and end with small pieces, and its bus has time for their input."""
    if not can_ramp(chain, cut):
        return False
    one = next(_passes_of(chain, cut, grid))
    work = _work(chain, one, one.pieces[0], grid, kept=False)
    return work.array > RAMP_BOUND * work.bus and _fits(chain, replace(cut, ramp=True), grid)


def _fits(chain: Chain, cut: Cut, grid: GridConfig) -> bool:
    """Whether all pieces of an image fit."""
    try:
        for one in _passes_of(chain, cut, grid):
            for piece in one.pieces:
                check_piece(chain, piece, grid)
    except Misfit:
        return False
    return True


def _kept(chain: Chain, found: list[Cut], grid: GridConfig) -> Iterator[Cut]:
    """Yield ways to keep an input that is read again for every round of maps, or parts of it."""
    conv = chain.head is not None and not chain.is_dense and chain.kernels is None
    if not conv or conv_groups(chain) > 1 or found[-1].rounds == 1:
        return
    whole = _fits_whole(chain, next(_passes_of(chain, found[0], grid)), grid)
    if whole and len(found[0].parts) == 1:
        return
    for parts in part_lists(chain):
        if len(parts) > (MOST_KEPT_PARTS if sums_fit(chain, grid) else 1):
            return
        cut = replace(found[0], parts=parts, keep=True, rounds=1)
        if _fits_whole(chain, next(_passes_of(chain, cut, grid)), grid):
            kept = list(_rounds(chain, cut, grid))
            yield from kept
            if kept:
                return


def _passes_of(chain: Chain, cut: Cut, grid: GridConfig) -> Iterator[Pass]:
    """Yield passes of an image, or of a batch of one."""
    return passes(chain, cut, grid, axes(chain, cut, grid, 1))


def _rounds(chain: Chain, cut: Cut, grid: GridConfig) -> Iterator[Cut]:
    """Yield ``cut`` with the fewest rounds of maps whose largest piece fits, if any, and twice those.

    Twice, so that the weights of two passes fit and one loads while the other works. With kernels
    of zero also more: fewer maps at once may read fewer channels.
    """
    groups = conv_groups(chain)
    unit = map_unit(chain, cut.by_tap, grid)
    blocks = groups * ceil_div(chain.shapes[-1][0] // groups, unit)
    last, left = blocks + 1, 2 if chain.kernels is None else blocks
    for rounds in range(1, ceil_div(blocks, cut.maps) + 1):
        size = ceil_div(blocks, rounds * cut.maps)
        if size >= last:
            continue
        last = size
        tried = replace(cut, rounds=rounds)
        try:
            for one in _samples(chain, tried, grid):
                check_piece(chain, one, grid)
        except Misfit as misfit:
            if misfit.what in ("rows", "row ends", "field") and not chain.by_block:
                return  # fewer maps would not help: they read the same channels
        else:
            yield tried
            left -= 1
            if not left:
                return
            last = max(2, size // 2 + 1)  # half as many


def _samples(chain: Chain, cut: Cut, grid: GridConfig) -> Iterator[Piece]:
    """Yield pieces among which the most demanding ones are."""
    images = cut.images if chain.batched else 1
    divided = axes(chain, replace(cut, images=images), grid, 1).extremes()
    # With all channels read a piece is as large as can be, wherever kernels are zero.
    for one in passes(replace(chain, kernels=None), cut, grid, divided):
        yield from one.pieces


def _side_by_side(chain: Chain, grid: GridConfig, batch: int) -> Iterator[Cut]:
    """Yield ways to use the columns: images x maps x rows, none more than there are.

    All of them by tap too, and with row ends closed, where that may pay.
    """
    for by_tap in (False, True) if can_tap(chain, grid) else (False,):
        for closed in (False, True) if can_close(chain) else (False,):
            for cut in _columns(chain, grid, batch, by_tap):
                yield replace(cut, by_tap=by_tap, closed=closed)


def _columns(chain: Chain, grid: GridConfig, batch: int, by_tap: bool) -> Iterator[Cut]:
    maps, height, _ = chain.shapes[-1]
    columns = grid.columns // 2 if needs_helper(chain) else grid.columns
    unit = map_unit(chain, by_tap, grid)
    most = {
        "images": chain.shapes[-1][2] if chain.batched else batch,
        "maps": 1 if chain.reorder else max(conv_groups(chain), ceil_div(maps, unit)),
        "rows": 1 if chain.reorder else height,
    }
    for images in range(1, min(columns, most["images"]) + 1):
        for side in range(1, min(columns // images, most["maps"]) + 1):
            rows = min(columns // images // side, most["rows"])
            for count in {1, rows}:
                yield Cut(images=images, maps=side, rows=count)


# --- what a cut costs ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """Cycles of a pass: ``array`` (or drain, links), ``bus``, and ``load`` that nothing hides."""

    array: float
    bus: float
    load: float


def _cycles(chain: Chain, cut: Cut, grid: GridConfig, batch: int) -> int:
    """Estimate the cycles of a cut: passes x those of the first place, or x the mean of some.

    Passes with the input of the one before keep it where it fits whole.
    """
    divided = axes(chain, cut, grid, batch)
    count = count_passes(chain, cut, grid, batch)
    if chain.kernels is not None:
        some = list(passes(chain, cut, grid, divided.one_round(SAMPLES)))
        mean = sum(_pass_cycles(chain, one, grid) for one in some) / len(some)
        return int(_first(chain, some[0], grid) + count * mean)
    rounds, parts = len(divided.maps), max(1, len(cut.parts))
    # All sums of one place.
    one = divided._replace(maps=divided.maps[:1])
    some = list(islice(passes(chain, cut, grid, one), parts))
    if cut.ramp:
        plain = replace(cut, ramp=False)
        before = _start(chain, next(_passes_of(chain, plain, grid)), grid)
        saved = before - _start(chain, some[0], grid) - (count - 1) * GAP
        return int(_cycles(chain, plain, grid, batch) - saved)
    keeps = (cut.keep or len(cut.parts) == 1) and conv_groups(chain) == 1 and rounds > 1
    cycles = _first(chain, some[0], grid)
    for first in some:
        each = count // len(some)
        inputs = each // rounds if keeps and _fits_whole(chain, first, grid) else each
        cycles += inputs * _pass_cycles(chain, first, grid)
        if each > inputs:
            cycles += (each - inputs) * _pass_cycles(chain, first, grid, kept=True)
    return int(cycles)


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
        rows = min((grid.pixels - 1) // shape.pitch * shape.stride + shape.need, shape.height)
        key = (piece.image, piece.part, shape.rows, shape.cols)
        waits[key] = max(waits.get(key, 0), rows * shape.channels * shape.cols.size)
    return sum(waits.values()) / _speed(chain, chain.source, grid)


def _fits_whole(chain: Chain, one: Pass, grid: GridConfig) -> bool:
    plan = plan_rows(chain, conv_shape(chain, one.pieces[0]), grid)
    return plan is not None and plan.ring_words == 0


def _pass_cycles(
    chain: Chain, one: Pass, grid: GridConfig, kept: bool = False, start: float = 0.0
) -> float:
    """Cycles of a pass whose arrays begin ``start`` cycles behind the bus."""
    # Pieces read different channels only where there are kernels of zero.
    pieces = one.pieces[:1] if chain.kernels is None else one.pieces
    works = [_work(chain, one, piece, grid, kept) for piece in pieces]
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


def _work(chain: Chain, one: Pass, piece: Piece, grid: GridConfig, kept: bool) -> Work:
    """Cycles of the pass by array, drain, links and the shared bus, as ``piece`` sees them."""
    window = _window_cycles(chain, piece, grid)
    side = len(one.pieces)
    written = sum(p.out.size for p in one.pieces if not p.partial_out)
    if chain.head is None or piece.part is None:
        entering = backward(chain, piece.out)[0].size
        links = max(ceil_div(entering, grid.maps), window)
        return Work(links, _bus(chain, grid, side * entering, written), 0.0)
    shape = conv_shape(chain, piece)
    plan = plan_rows(chain, shape, grid)
    assert plan is not None
    blocks = shape.groups(grid) * shape.blocks(grid)
    drain = grid.pixels * (3 if piece.partial_in or piece.partial_out else 1)
    drain += addition(grid.maps) if shape.by_tap else 0
    entering = plan.rows * plan.channels * plan.width
    store = plan.rows * plan.channels * _store_cycles(plan, grid)
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
        first = (grid.pixels - 1) // shape.pitch * shape.stride + shape.need
        words = min(first, plan.rows) * plan.channels * plan.width
        load += words / _speed(chain, chain.source, grid)
    array = max(blocks * max(shape.steps(grid), drain), store, window)
    return Work(array, _bus(chain, grid, entering * len(boxes), written, others), load)


def _bus(chain: Chain, grid: GridConfig, entering: int, written: int, others: int = 0) -> float:
    """Cycles that words take to and from memory, or the scratchpad, which has a way of its own.

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
    return max(far / grid.bus_words_per_cycle, near / grid.bus_words)


def _store_cycles(plan: RowPlan, grid: GridConfig) -> float:
    """Cycles that a row of a channel takes to be stored: see ``blocks.conv_rows.RowStore``."""
    if plan.scatter == Scatter.WORD:
        return plan.width
    beats = plan.width / grid.bus_words
    if plan.width % grid.bus_words:
        beats += 1 - 1 / grid.bus_words  # a beat in which a row ends is stored in two parts
    return beats * (plan.stride if plan.scatter == Scatter.PHASES else 1)


def _speed(chain: Chain, tensor: str, grid: GridConfig) -> float:
    """Words a cycle at which a tensor is read."""
    return grid.bus_words if tensor in chain.scratchpad else grid.bus_words_per_cycle
