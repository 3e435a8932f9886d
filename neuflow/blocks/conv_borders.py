"""Stages 1 to 9 of the array: which lanes lie inside the input at a tap.

Lanes of a row lie a stride apart, and so do the rows. So what lies inside is, in the group's first
row, the lanes from a number on and up to another; in a row that begins behind those, the columns;
and of the rows likewise. These six numbers are made for all lanes at once, of few bits as there
are few lanes: a lane compares its own number with them, and no coordinates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amaranth.hdl import Cat, Module, Mux, Signal, signed

from neuflow.blocks.choose import select
from neuflow.blocks.conv_banks import before
from neuflow.blocks.conv_lanes import Coordinates
from neuflow.blocks.conv_operands import words_read
from neuflow.layout import CONV_ARRAY, SIZE

if TYPE_CHECKING:
    from neuflow.blocks.conv_array import MacArray

STRIDE_BITS = CONV_ARRAY.shape().members["stride"].width


def border_masks(m: Module, array: MacArray):
    """Return a bit for every word that is read, in stage 9: it lies inside the input."""
    c, lanes = array.config.payload, array.coordinates
    s1, s2 = array.stage[1], array.stage[2]
    tap_x, tap_y = _tap(m, array)
    first_x, first_y = (Signal(SIZE, name=f"first_{n}") for n in ("x", "y"))
    with m.If(s1.valid & s1.begins):
        m.d.sync += [first_x.eq(lanes.first_x), first_y.eq(lanes.first_y)]
    reciprocal = _reciprocal(m, array)
    edges = {}
    for enters, leaves, origin, size in (
        ("first", "last", first_x + tap_x, c.width),  # lanes of the first row
        ("left", "right", tap_x, c.width),
        ("top", "bottom", first_y + tap_y, c.height),
    ):
        at = Signal(signed(SIZE + 2), name=f"s3_{enters}", reset_less=True)
        with m.If(s2.valid):
            m.d.sync += at.eq(origin)
        edges[enters] = _steps(m, array, enters, at, 0, reciprocal)
        edges[leaves] = _steps(m, array, leaves, at, size, reciprocal)

    # Stage 7. The lanes' numbers came with the group's first tap.
    pixels = array.grid.pixels
    rows, columns = (Signal.like(lanes.row, name=n, reset_less=True) for n in ("rows", "columns"))
    behind = Signal(pixels, name="s7_behind", reset_less=True)
    since = array.stage[Coordinates.LATE]
    with m.If(since.valid & since.begins):
        m.d.sync += [rows.eq(lanes.row), columns.eq(lanes.column), behind.eq(lanes.behind)]
    in_first = before(pixels, edges["last"]) & ~before(pixels, edges["first"])
    masks = Signal(pixels, name="s8_masks", reset_less=True)
    inside = []
    for lane, column, row in zip(range(pixels), columns, rows, strict=True):
        in_row = (column >= edges["left"]) & (column < edges["right"])
        of_row = (row >= edges["top"]) & (row < edges["bottom"])
        inside.append(Mux(behind[lane], in_row, in_first[lane]) & of_row)
    with m.If(array.stage[Coordinates.LATE + 1].valid):
        m.d.sync += masks.eq(Cat(inside))
    return _of_words(m, array, masks)


def _tap(m: Module, array: MacArray):
    """Stage 2: return where the tap lies, seen from the output position's place in the input."""
    c, s2 = array.config.payload, array.stage[2]
    tap_x, tap_y = (Signal(signed(SIZE + 2), name=f"tap_{n}") for n in ("x", "y"))
    with m.If(array.rest | (s2.valid & s2.ends_y)):
        m.d.sync += [tap_x.eq(c.tap_x), tap_y.eq(c.tap_y)]
    with m.Elif(s2.valid & s2.ends_x):
        m.d.sync += [tap_x.eq(c.tap_x), tap_y.eq(tap_y + c.dilation_y)]
    with m.Elif(s2.valid & ~s2.goes_on):
        m.d.sync += tap_x.eq(tap_x + c.dilation_x)
    return tap_x, tap_y


def _distance_bits(pixels: int) -> int:
    """Return the bits of a distance that so many lanes reach, whatever the stride; one more."""
    return (pixels << STRIDE_BITS).bit_length() - 1


def _reciprocal(m: Module, array: MacArray):
    """Return 1 / stride, rounded up, with so many bits that quotients of distances are exact."""
    places = _distance_bits(array.grid.pixels) + STRIDE_BITS
    strides = range(1, 1 << STRIDE_BITS)
    reciprocal = Signal(places + 1)
    table = [0, *(-(-(1 << places) // stride) for stride in strides)]
    with m.If(array.prepares):
        m.d.sync += reciprocal.eq(select(table, array.config.payload.stride))
    return reciprocal


def _steps(m: Module, array: MacArray, name: str, at, end, reciprocal):
    """Stages 3 to 6: return how many strides lead from ``at`` to ``end`` or beyond, at stage 7.

    0 if it is there already, and as many as the bits hold if no lane comes there.
    """
    stage, pixels = array.stage, array.grid.pixels
    bits = _distance_bits(pixels)
    beyond = Signal(signed(SIZE + 1), name=f"{name}_beyond")  # so that a part of a stride counts
    distance = Signal(signed(SIZE + 3), name=f"s4_{name}", reset_less=True)
    near = Signal(bits, name=f"s5_{name}", reset_less=True)
    product = Signal(bits + len(reciprocal), name=f"s6_{name}", reset_less=True)
    steps = Signal(range(pixels + 1), name=name, reset_less=True)
    with m.If(array.prepares):
        m.d.sync += beyond.eq(end + array.config.payload.stride - 1)
    quotient = product[len(reciprocal) - 1 :]
    with m.If(stage[3].valid):
        m.d.sync += distance.eq(beyond - at)
    with m.If(stage[4].valid):
        far = distance[bits:].any().replicate(bits)
        m.d.sync += near.eq(Mux(distance < 0, 0, distance[:bits] | far))
    with m.If(stage[5].valid):
        m.d.sync += product.eq(near * reciprocal)
    with m.If(stage[6].valid):
        m.d.sync += steps.eq(quotient | quotient[len(steps) :].any().replicate(len(steps)))
    return steps


def _of_words(m: Module, array: MacArray, masks):
    """Stages 8 and 9: from lanes to the words that are read.

    Words beyond the last pixel's are those of its row: its mask is theirs. Spread, a word is of the
    row of the lane that reads it last.
    """
    inside = Signal(words_read(array.grid), name="s9_masks", reset_less=True)
    last, gap = array.grid.pixels - 1, array.grid.tap_gap
    plain, spread = (
        Cat(masks[min(max(n - back, 0), last)] for n in range(words_read(array.grid)))
        for back in (0, gap)
    )
    m.d.sync += inside.eq(Mux(array.spread, spread, plain))
    return inside


__all__ = ["border_masks"]
