"""Whether a piece fits the buffers and fields of a column, and how its rows lie there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neuflow.blocks.window_model import memory_words
from neuflow.compiler.buffers import (
    DrainPlan,
    RowPlan,
    drain_plan,
    flattened_row_plan,
    least_ring,
    packet_words,
    row_plan,
    weight_words,
)
from neuflow.compiler.geometry import ConvShape, backward, conv_shape
from neuflow.compiler.mapping import Chain, Piece, Region
from neuflow.grid import GridConfig
from neuflow.ir import Shape
from neuflow.layout import CONV_ARRAY, CONV_ROWS, READ, WINDOW, Layout


class Misfit(Exception):
    """A piece overflows ``what``: "rows", "row ends", "weights", "reorder", "maps", "window",
    "operand" or "field"."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


def limit(layout: Layout, name: str) -> int:
    """Largest value of an unsigned field."""
    return (1 << next(f.bits for f in layout.fields if f.name == name)) - 1


def plan_rows(chain: Chain, shape: ConvShape, grid: GridConfig) -> RowPlan | None:
    """Place a piece's input in the room that is given, whole if that is all of the row buffer.

    Else in half the row buffer, so that the next one's can arrive, else in all.

    A ring in half the buffer must have a row of slack, so that rows arrive while the array works.
    """
    if chain.flattens:
        return flattened_row_plan(shape, grid.row_words)
    if shape.room:
        given = row_plan(shape, grid, shape.room)
        if given is not None and (given.ring_words == 0 or shape.room < grid.row_words):
            return given
    half = row_plan(shape, grid, grid.row_words // 2)
    if half is not None:
        if half.ring_rows >= min(least_ring(shape, grid) + shape.stride, shape.height):
            return half
    return row_plan(shape, grid, grid.row_words) or half


def check_piece(chain: Chain, piece: Piece, grid: GridConfig) -> None:
    """Raise ``Misfit`` where ``piece`` overflows a buffer or a field."""
    if chain.head is not None:
        shape = conv_shape(chain, piece)
        _check_fields(shape, grid)
        if shape.closed and not shape.closes(grid):
            raise Misfit("row ends")
        if plan_rows(chain, shape, grid) is None:
            raise Misfit("rows")
        if shape.groups(grid) > 1 and weight_words(shape, grid) > grid.weight_words:
            raise Misfit("weights")
        if shape.blocks(grid) > min(grid.weight_blocks, limit(CONV_ARRAY, "blocks")):
            raise Misfit("weights")
        if packet_words(shape, grid) > limit(READ, "run"):
            raise Misfit("weights")
        if not piece.partial_out and plan_drain(chain, piece, grid) is None:
            raise Misfit("reorder")
    if piece.partial_in and not sums_fit(chain, grid):
        raise Misfit("operand")
    regions = backward(chain, piece.out)
    if not chain.reorder:
        for region, whole in zip(regions, chain.shapes, strict=True):
            _check_walk(region, whole)
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
        (CONV_ROWS, "channels", shape.channels),
        (CONV_ROWS, "rows", shape.height),
        (CONV_ROWS, "stride", shape.stride * shape.every),
    )
    if any(value > limit(layout, name) for layout, name, value in pairs):
        raise Misfit("field")


def _check_walk(region: Region, whole: Shape) -> None:
    """Refuse more maps than a walk counts, where their rows do not follow each other in memory."""
    if region.maps.size > limit(READ, "count0") and region.cols.size < whole[2]:
        raise Misfit("maps")


def _check_window(
    attrs: Mapping[str, Any], before: Region, after: Region, grid: GridConfig
) -> None:
    kernel, stride = attrs["kernel"], attrs["stride"]
    sizes = (kernel[0], stride[0], after.rows.size, before.maps.size, before.cols.size, grid.lanes)
    extents = (before.maps.size, before.rows.size, before.cols.size)
    if memory_words(*sizes) > grid.window_words or max(extents) > limit(WINDOW, "height"):
        raise Misfit("window")
    names = ("kernel_y", "kernel_x", "stride_y", "stride_x")
    if any(v > limit(WINDOW, n) for n, v in zip(names, (*kernel, *stride), strict=True)):
        raise Misfit("field")
