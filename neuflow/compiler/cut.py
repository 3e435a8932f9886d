"""Cutting: ways to divide a chain over columns and passes, and whether their pieces fit.

A cut never changes a result: maps, rows, columns and images are independent, and sums over
channels or taps that are cut pass through memory with all their bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise, product
from math import prod
from typing import Any, NamedTuple, TypeVar

import numpy as np

from neuflow.blocks.window_model import memory_words
from neuflow.compiler.geometry import (
    ConvShape,
    DrainPlan,
    RowPlan,
    backward,
    ceil_div,
    conv_shape,
    dense_row_plan,
    drain_plan,
    least_ring,
    packet_words,
    row_plan,
    weight_words,
)
from neuflow.compiler.mapping import Chain, Part, Pass, Piece, Region, Span
from neuflow.grid import GridConfig
from neuflow.layout import CONV_ARRAY, CONV_ROWS, READ, WINDOW, Layout

T = TypeVar("T")


@dataclass(frozen=True)
class Cut:
    """One way to cut a chain.

    ``images``, ``maps``, ``rows``: parts that work side by side in as many columns (their product
    is at most the grid's columns); images of a batched chain are parts of its x.
    ``rounds``: map parts one after another; ``row_rounds``: row
    parts; ``strips``: parts of the output columns (of the images, where batched). ``parts``: sums
    one after another through memory.
    """

    images: int = 1
    maps: int = 1
    rows: int = 1
    rounds: int = 1
    row_rounds: int = 1
    strips: int = 1
    parts: tuple[Part, ...] = ()

    def __str__(self) -> str:
        names = ("images", "maps", "rows")
        side = " x ".join(f"{getattr(self, n)} {n}" for n in names if getattr(self, n) > 1)
        text = f"columns: {side or '1'}"
        for name in ("rounds", "row_rounds", "strips"):
            if getattr(self, name) > 1:
                text += f", {getattr(self, name)} {name.replace('_', ' ')}"
        return text + (f", {len(self.parts)} sums" if len(self.parts) > 1 else "")


class Misfit(Exception):
    """A piece overflows ``what``: "rows", "weights", "reorder", "window", "operand" or "field"."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


def limit(layout: Layout, name: str) -> int:
    """Largest value of an unsigned field."""
    return (1 << next(f.bits for f in layout.fields if f.name == name)) - 1


# --- does a piece fit? ------------------------------------------------------------------------


def plan_rows(chain: Chain, shape: ConvShape, grid: GridConfig) -> RowPlan | None:
    """Place a piece's input in half the row buffer, so that the next one's can arrive, else in all.

    A ring in half the buffer must have a row of slack, so that rows arrive while the array works.
    """
    if chain.is_dense:
        return dense_row_plan(chain, shape, grid.row_words)
    half = row_plan(shape, grid, grid.row_words // 2)
    if half is not None:
        least = least_ring(
            shape.groups(grid), grid.pixels, shape.pitch, shape.stride, shape.need, shape.release,
            shape.height,
        )  # fmt: skip
        if half.ring_rows >= min(least + shape.stride, shape.height):
            return half
    return row_plan(shape, grid, grid.row_words) or half


def check_piece(chain: Chain, piece: Piece, grid: GridConfig) -> None:
    """Raise ``Misfit`` where ``piece`` overflows a buffer or a field."""
    if chain.head is not None:
        shape = conv_shape(chain, piece)
        _check_fields(shape, grid)
        if plan_rows(chain, shape, grid) is None:
            raise Misfit("rows")
        if shape.groups(grid) > 1 and weight_words(shape, grid) > grid.weight_words:
            raise Misfit("weights")
        if shape.blocks(grid) > grid.weight_blocks:
            raise Misfit("weights")
        if packet_words(shape, grid) > limit(READ, "run"):
            raise Misfit("weights")
        if not piece.partial_out and plan_drain(chain, piece, grid) is None:
            raise Misfit("reorder")
    if piece.partial_in and not sums_fit(chain, grid):
        raise Misfit("operand")
    regions = backward(chain, piece.out)
    for step, before, after in zip(chain.steps, regions, regions[1:], strict=False):
        if step.node.op == "pool":
            _check_window(step.node.attrs, before, after, grid)


def sums_fit(chain: Chain, grid: GridConfig) -> bool:
    """Whether partial sums can come in beside the operand of an ALU: both by the operand line.

    With a queue of one, the second of two reads of a pass would wait for the end of the first.
    """
    return chain.operand is None or grid.config_queue > 1


def plan_drain(chain: Chain, piece: Piece, grid: GridConfig) -> DrainPlan | None:
    """Fit a piece's rows into the reorder buffer.

    An operand comes behind all partial sums on the operand line, and rows wait for it, so they
    must not hold back the sums: then all of them stay.
    """
    shape = conv_shape(chain, piece)
    return drain_plan(shape, grid, whole=piece.partial_in and chain.operand is not None)


def _check_fields(shape: ConvShape, grid: GridConfig) -> None:
    pairs = (
        (CONV_ARRAY, "kernel_y", shape.kernel_y),
        (CONV_ARRAY, "kernel_x", shape.kernel_x),
        (CONV_ARRAY, "stride", shape.stride),
        (CONV_ARRAY, "dilation_y", shape.dilation_y),
        (CONV_ARRAY, "dilation_x", shape.dilation_x),
        (CONV_ARRAY, "pitch", shape.pitch),
        (CONV_ARRAY, "groups", shape.groups(grid)),
        (CONV_ARRAY, "blocks", shape.blocks(grid)),
        (CONV_ROWS, "channels", shape.channels),
        (CONV_ROWS, "rows", shape.height),
    )
    if any(value > limit(layout, name) for layout, name, value in pairs):
        raise Misfit("field")


def _check_window(
    attrs: Mapping[str, Any], before: Region, after: Region, grid: GridConfig
) -> None:
    kernel, stride = attrs["kernel"], attrs["stride"]
    sizes = (kernel[0], stride[0], after.rows.size, before.maps.size, after.cols.size)
    if memory_words(*sizes) > grid.window_words:
        raise Misfit("window")
    names = ("kernel_y", "kernel_x", "stride_y", "stride_x")
    if any(v > limit(WINDOW, n) for n, v in zip(names, (*kernel, *stride), strict=True)):
        raise Misfit("field")


# --- cutting ------------------------------------------------------------------------------------


class Axes(NamedTuple):
    """What a cut makes of each axis: chunks that run side by side, or spans one after another."""

    images: list[list[int]]
    rows: list[list[Span]]
    strips: list[list[Span]]
    maps: list[list[Span]]

    def extremes(self) -> Axes:
        """Keep the first, an inner, the last and the largest part: no other is more demanding."""
        return Axes(
            self.images[:1],
            _extremes(self.rows, lambda chunk: max(span.size for span in chunk)),
            _extremes(self.strips, lambda chunk: max(span.size for span in chunk)),
            _extremes(self.maps, lambda chunk: max(span.size for span in chunk)),
        )

    def one_round(self, most: int) -> Axes:
        """Keep the first place, with at most ``most`` groups of maps, evenly chosen."""
        maps = self.maps[:: -(-len(self.maps) // most)]
        return Axes(self.images[:1], self.rows[:1], self.strips[:1], maps)


def _extremes(parts: list[T], size: Callable[[T], int]) -> list[T]:
    largest = max(range(len(parts)), key=lambda i: size(parts[i]))
    return [parts[i] for i in sorted({0, min(1, len(parts) - 1), largest, len(parts) - 1})]


def axes(chain: Chain, cut: Cut, grid: GridConfig, batch: int) -> Axes:
    """Divide images, rows, columns and maps as ``cut`` says."""
    maps, height, width = chain.shapes[-1]
    across = cut.images if chain.batched else 1
    return Axes(
        _chunks([0] if chain.batched else list(range(batch)), cut.images),
        _chunks(_at_borders(Span(0, height).split(cut.rows * cut.row_rounds), chain, 0), cut.rows),
        _chunks(_at_borders(Span(0, width).split(across * cut.strips), chain, 1), across),
        _chunks(_map_spans(chain, maps, cut, grid), cut.maps),
    )


def _at_borders(spans: tuple[Span, ...], chain: Chain, axis: int) -> list[Span]:
    """Cut rows (axis 0) or columns where a pool's divisor changes: a pass has one."""
    edges = set()
    for step in chain.steps:
        m, s = (np.asarray(step.node.attrs.get(name, 0)) for name in ("m", "s"))
        if m.ndim:
            changes = (np.diff(m, axis=axis) != 0) | (np.diff(s, axis=axis) != 0)
            edges |= set((np.flatnonzero(changes.any(axis=1 - axis)) + 1).tolist())
    bounds = sorted(edges | {span.lo for span in spans} | {spans[-1].hi})
    return [Span(lo, hi) for lo, hi in pairwise(bounds)]


def count_passes(chain: Chain, cut: Cut, grid: GridConfig, batch: int) -> int:
    """Return how many passes :func:`passes` yields."""
    return prod(len(axis) for axis in axes(chain, cut, grid, batch)) * max(1, len(cut.parts))


def passes(chain: Chain, cut: Cut, grid: GridConfig, divided: Axes) -> Iterator[Pass]:
    """Yield the passes of a cut: images, then rows, strips and maps; sums innermost."""
    spread = grid.columns // cut.images // cut.maps // cut.rows if needs_helper(chain) else 1
    for some_images, rows, cols, some_maps in product(*divided):
        boxes = list(enumerate(product(some_images, rows, cols, some_maps)))
        turns = [
            [
                Piece(
                    column=spread * i,
                    image=image,
                    out=Region(map_span, row_span, col_span),
                    part=_in_group(chain, _connected(chain, part, map_span), map_span),
                    partial_in=number > 0,
                    partial_out=number < len(cut.parts) - 1,
                )
                for i, (image, row_span, col_span, map_span) in boxes
            ]
            for number, part in enumerate(cut.parts or (None,))
        ]
        yield from (Pass(tuple(pieces)) for pieces in _one_pitch(chain, turns))


def _one_pitch(chain: Chain, turns: list[list[Piece]]) -> Iterator[list[Piece]]:
    """Give all parts of a piece the pitch of the widest: their sums are added lane by lane."""
    if len(turns) == 1:
        yield from turns
        return
    pitches = [max(conv_shape(chain, p).pitch for p in parts) for parts in zip(*turns, strict=True)]
    for pieces in turns:
        yield [replace(p, pitch=pitch) for p, pitch in zip(pieces, pitches, strict=True)]


def needs_helper(chain: Chain) -> bool:
    """Whether a second operand has to come through a neighbouring column."""
    return chain.head is None and chain.operand is not None


def _chunks(items: list | tuple, size: int) -> list:
    return [items[i : i + size] for i in range(0, len(items), size)]


def conv_groups(chain: Chain) -> int:
    """Groups of a grouped convolution; 1 for all else."""
    return 1 if chain.head is None else chain.head.attrs.get("groups", 1)


def _map_spans(chain: Chain, maps: int, cut: Cut, grid: GridConfig) -> list[Span]:
    groups = conv_groups(chain)
    size = maps // groups
    unit = 1 if chain.head is None else grid.maps
    parts = max(1, cut.maps * cut.rounds // groups)
    return [
        span
        for group in range(groups)
        for span in Span(group * size, (group + 1) * size).split(parts, min(unit, size))
    ]


def _connected(chain: Chain, part: Part | None, maps: Span) -> Part | None:
    """Leave out channels at the ends of a part, within a group, that none of ``maps`` reads."""
    if part is None or chain.kernels is None:
        return part
    lo, hi = part.channels
    read = np.flatnonzero(chain.kernels[maps.lo : maps.hi, lo:hi].any(axis=0))
    if not len(read):
        return part._replace(channels=Span(lo, lo + 1))
    return part._replace(channels=Span(lo + int(read[0]), lo + int(read[-1]) + 1))


def _in_group(chain: Chain, part: Part | None, maps: Span) -> Part | None:
    """Shift a part, given in channels of a group, to the group of ``maps``."""
    if part is None or (groups := conv_groups(chain)) == 1:
        return part
    first = maps.lo // (chain.shapes[0][0] // groups) * (chain.source_shape[0] // groups)
    return part._replace(channels=Span(part.channels.lo + first, part.channels.hi + first))


def ladder(last: int) -> Iterator[int]:
    """Yield 1, 2, 3, 4, 6, 8, 12, 16, ... below ``last``, and ``last``."""
    value = 1
    while value < last:
        yield value
        if value >= 2 and value + value // 2 < last and value & (value - 1) == 0:
            yield value + value // 2
        value *= 2
    yield last


def part_lists(chain: Chain) -> Iterator[tuple[Part, ...]]:
    """Yield ways to cut the sums, from none at all to single taps of single channels."""
    if chain.head is None:
        yield ()
        return
    one = Span(0, 1)
    if chain.is_dense:
        for spans in _dense_spans(chain):
            yield tuple(Part(span, one, one) for span in spans)
        return
    kernel = chain.head.attrs["weight"].shape[2:]
    least = [
        size if dilation > limit(CONV_ARRAY, "dilation_y") and size > 1
        else ceil_div(size, limit(CONV_ARRAY, "kernel_y"))
        for size, dilation in zip(kernel, chain.head.attrs["dilation"], strict=True)
    ]  # fmt: skip
    channels = chain.head.attrs["weight"].shape[1]
    ways = [(n, *least) for n in ladder(channels)]
    ways += [(channels, n, least[1]) for n in ladder(kernel[0]) if n > least[0]]
    ways += [(channels, kernel[0], n) for n in ladder(kernel[1]) if n > least[1]]
    for way in ways:
        sizes = (channels, *kernel)
        axes = [Span(0, size).split(n) for size, n in zip(sizes, way, strict=True)]
        yield tuple(Part(*spans) for spans in product(*axes))


def _dense_spans(chain: Chain) -> Iterator[tuple[Span, ...]]:
    """Cut the inputs of a dense layer at records of its source, or within each of them."""
    channels, height, width = chain.source_shape
    record = channels * width
    inputs = record * height
    for pieces in ladder(inputs):
        length = ceil_div(inputs, pieces)
        if height == 1:
            yield Span(0, inputs).split(pieces)
        elif length >= record:
            yield tuple(
                Span(rows.lo * record, rows.hi * record)
                for rows in Span(0, height).split(ceil_div(height, length // record))
            )
        else:
            yield tuple(
                span
                for y in range(height)
                for span in Span(y * record, (y + 1) * record).split(ceil_div(record, length))
            )
