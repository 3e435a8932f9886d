"""QuantGraph -> Mapping: chains to columns, by the least cycles among the cuts that fit."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping as TypingMapping
from dataclasses import replace
from typing import Any

import numpy as np

from neuflow.compiler.allocate import side_by_side
from neuflow.compiler.cost import cycles, fits_whole, work
from neuflow.compiler.cut import (
    Cut,
    axes,
    can_close,
    can_ramp,
    can_tap,
    conv_groups,
    image_passes,
    ladder,
    map_unit,
    needs_helper,
    part_lists,
    passes,
)
from neuflow.compiler.fit import Misfit, check_piece, limit, sums_fit
from neuflow.compiler.fuse import MOSTLY, Fused, fuse, legalise
from neuflow.compiler.geometry import ceil_div, part_kind
from neuflow.compiler.groups import merge_groups, merged
from neuflow.compiler.join import join
from neuflow.compiler.liveness import Memory, with_scratchpad
from neuflow.compiler.mapping import Assignment, Chain, Mapping, Part, Piece
from neuflow.compiler.order import order_maps
from neuflow.compiler.siblings import merge_siblings
from neuflow.compiler.unread import leave_out_unread
from neuflow.errors import CompileError
from neuflow.grid import GridConfig
from neuflow.ir import Node, QuantGraph
from neuflow.layout import WINDOW

Forced = TypingMapping[str, Cut | int]
"""Chain -> its cut, or the rank of its cut."""

RAMP_BOUND = 2
"""Of a chain that may begin with small pieces the arrays work so much longer than the bus."""

MOST_KEPT_PARTS = 4
"""Parts of the channels at most that are kept in turn: each costs a way through memory of all sums."""

TRIES = 3
"""Ways that fit, of each kind of cut, that are compared before finer ones are given up."""


def assign(
    graph: QuantGraph, grid: GridConfig, batch: int, cuts: Forced | None = None
) -> Mapping:
    """Cut every chain of ``graph`` for ``grid``.

    ``cuts`` forces the cut of the chains it names: a cut, or its rank in :func:`cuts_to_try`.
    Raises ``CompileError`` where a node cannot run.
    """
    joined = join(merge_groups(order_maps(legalise(graph), grid, MOSTLY), grid))
    joined = merge_siblings(joined, grid)
    graph = joined.graph
    alone: set[str] = set()
    while True:
        fused = fuse(graph, batch, alone, side_by_side(batch, grid))
        fused = leave_out_unread(fused, graph, joined.joins)
        fused = _with_heads(fused, grid)
        memory = Memory(graph, fused.views, joined.joins)
        done = []
        for chain in with_scratchpad(memory, fused.chains, batch, grid):
            assignment = _assign_chain(chain, grid, batch, (cuts or {}).get(chain.name))
            if assignment is None:
                # What is fused does not fit together: let the last node work alone, and try again.
                if len(chain.nodes) < 2 or chain.nodes[-1].name in alone:
                    raise CompileError(
                        f"{chain.name}: no way to cut it fits grid {grid.name!r}{_fix(chain)}"
                    )
                alone.add(chain.nodes[-1].name)
                break
            done.append(assignment)
        else:
            return Mapping(graph, batch, tuple(done), fused.views, joined.joins)


def _fix(chain: Chain) -> str:
    """Return what to do about a chain of one node that no cut makes fit."""
    most = limit(WINDOW, "kernel_y")
    for step in chain.steps:
        sizes = (*step.node.attrs.get("kernel", ()), *step.node.attrs.get("stride", ()))
        if max(sizes, default=0) > most:
            return f": a kernel or stride of {max(sizes)}, at most {most}; use two, one after another"
    return "; use a grid with larger buffers"


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
    head = merged(head, height * width, grid)
    return replace(chain, head=head, source_shape=chain.shapes[0], kept=None)


# --- the search ---------------------------------------------------------------------------------


def _assign_chain(
    chain: Chain, grid: GridConfig, batch: int, forced: Cut | int | None
) -> Assignment | None:
    if isinstance(forced, Cut):
        cut = forced if forced.parts else replace(forced, parts=next(part_lists(chain)))
        _check(chain, cut, grid)
        return cut_chain(chain, cut, grid, batch)
    found = _by_estimate(chain, grid, batch)
    best = next((cut for cut in found if _fits(chain, cut, grid)), None)
    if best is None:
        return None
    if not forced:
        return cut_chain(chain, best, grid, batch)
    tried = cuts_to_try(chain, grid, batch, len(found))
    # A program of another release may count on a cut that this one does not know.
    chosen = next((cut for rank, cut in tried if rank == forced), best)
    return cut_chain(chain, chosen, grid, batch, forced)


def cuts_to_try(
    chain: Chain, grid: GridConfig, batch: int, count: int
) -> Iterator[tuple[int, Cut]]:
    """Yield (rank, cut) of so many cuts that fit, the best by estimate, and of these in two rounds of
    rows. The latter begin when the first rows are there, and the next layer when they have made
    them, which the estimate does not know.
    """
    found = _by_estimate(chain, grid, batch)
    yield from ((n, cut) for n, cut in enumerate(found[:count]) if _fits(chain, cut, grid))
    for rank, cut in enumerate(found[:count], len(found)):
        rows = replace(cut, row_rounds=2)
        uncut = cut.strips == cut.row_rounds == cut.rounds == len(cut.parts) == 1 and not cut.ramp
        if uncut and 2 * cut.rows <= chain.shapes[-1][1] and _fits(chain, rows, grid):
            yield rank, rows


def _by_estimate(chain: Chain, grid: GridConfig, batch: int) -> list[Cut]:
    """Return all cuts whose samples fit by estimated cycles; of equal ones those on more columns first.

    Cuts are equal where rows take longer to come than the arrays work: but they may have come before.
    Of as many columns coarse ones first.
    """
    found = [
        (cycles(chain, cut, grid, batch), -(cut.images * cut.maps * cut.rows), cut)
        for cut in _cuts(chain, grid, batch)
    ]
    return [cut for *_, cut in sorted(found, key=lambda one: one[:2])]


def cut_chain(
    chain: Chain, cut: Cut, grid: GridConfig, batch: int, rank: int = 0
) -> Assignment:
    """Return the passes of a cut that fits."""
    done = tuple(passes(chain, cut, grid, axes(chain, cut, grid, batch)))
    return Assignment(chain, done, cycles(chain, cut, grid, batch), str(cut), rank)


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
    one = next(image_passes(chain, cut, grid))
    found = work(chain, one, one.pieces[0], grid, kept=False)
    return found.array > RAMP_BOUND * found.bus and _fits(chain, replace(cut, ramp=True), grid)


def _check(chain: Chain, cut: Cut, grid: GridConfig) -> None:
    """Raise ``CompileError`` where a piece of an image does not fit."""
    for piece in (piece for one in image_passes(chain, cut, grid) for piece in one.pieces):
        try:
            check_piece(chain, piece, grid)
        except Misfit as misfit:
            raise CompileError(
                f"{chain.name}: {piece} overflows {misfit.what}; cut it finer"
            ) from None


def _fits(chain: Chain, cut: Cut, grid: GridConfig) -> bool:
    """Whether all pieces of an image fit."""
    try:
        _check(chain, cut, grid)
    except CompileError:
        return False
    return True


def _kept(chain: Chain, found: list[Cut], grid: GridConfig) -> Iterator[Cut]:
    """Yield ways to keep an input that is read again for every round of maps, or parts of it."""
    conv = chain.head is not None and not chain.is_dense and chain.kernels is None
    if not conv or conv_groups(chain) > 1 or found[-1].rounds == 1:
        return
    whole = fits_whole(chain, next(image_passes(chain, found[0], grid)), grid)
    if whole and len(found[0].parts) == 1:
        return
    for parts in part_lists(chain):
        if len(parts) > (MOST_KEPT_PARTS if sums_fit(chain, grid) else 1):
            return
        cut = replace(found[0], parts=parts, keep=True, rounds=1)
        if fits_whole(chain, next(image_passes(chain, cut, grid)), grid):
            kept = list(_rounds(chain, cut, grid))
            yield from kept
            if kept:
                return


def _rounds(chain: Chain, cut: Cut, grid: GridConfig) -> Iterator[Cut]:
    """Yield ``cut`` with the fewest rounds of maps whose largest piece fits, if any, and twice those.

    Twice, so that the weights of two passes fit and one loads while the other works. With kernels
    of zero also more: fewer maps at once may read fewer channels.
    """
    groups = conv_groups(chain)
    unit = map_unit(chain, cut.by_tap, grid)
    blocks = groups * ceil_div(chain.maps.size // groups, unit)
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
    cut = replace(cut, parts=_unlike(chain, cut.parts))
    divided = axes(chain, replace(cut, images=images), grid, 1).extremes(chain, cut.by_tap)
    # With all channels read a piece is as large as can be, wherever kernels are zero.
    for one in passes(replace(chain, kernels=None), cut, grid, divided):
        yield from one.pieces


def _unlike(chain: Chain, parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Return the first and the last part, and of those between the first of each kind.

    The first has no sums to add, the last none to leave.
    """
    if len(parts) <= 3:
        return parts
    between: dict[tuple[object, ...], Part] = {}
    for part in parts[1:-1]:
        between.setdefault(part_kind(chain, part), part)
    return (parts[0], *between.values(), parts[-1])


def _side_by_side(chain: Chain, grid: GridConfig, batch: int) -> Iterator[Cut]:
    """Yield ways to use the columns: images x maps x rows, none more than there are.

    All of them by tap too, and with row ends closed, where that may pay.
    """
    for by_tap in (False, True) if can_tap(chain, grid) else (False,):
        for closed in (False, True) if can_close(chain) else (False,):
            for cut in _columns(chain, grid, batch, by_tap):
                yield replace(cut, by_tap=by_tap, closed=closed)


def _columns(chain: Chain, grid: GridConfig, batch: int, by_tap: bool) -> Iterator[Cut]:
    maps, height = chain.maps.size, chain.shapes[-1][1]
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
