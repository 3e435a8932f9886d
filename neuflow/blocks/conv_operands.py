"""Stages 7 to 14 of the array: words and weights to the multipliers, sums, drain registers."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.utils import ceil_log2

from neuflow.blocks.convolver_model import HAND_OVER
from neuflow.blocks.mac_row import MacRow
from neuflow.blocks.place import place
from neuflow.blocks.streams import WORD_BITS
from neuflow.grid import GridConfig

if TYPE_CHECKING:
    from neuflow.blocks.conv_array import MacArray


def words_read(grid: GridConfig) -> int:
    """Words that the lanes of a step use, or of two that one reading serves."""
    beyond = max(grid.tap_gap, grid.maps * grid.tap_gather)
    return grid.pixels + grid.tap_lanes - 1 + beyond


def operands(m: Module, array: MacArray, masks):
    """Stages 7 to 11: rotate the banks' words to the lanes, mask; return words of every map lane.

    Words and weights travel all over the array: that is a stage of its own, from register to
    register, which a multiplier may have inside.
    """
    grid = array.grid
    # The configuration has left when the last taps come here, and the next pass's have not come.
    by_tap = Signal()
    with m.If(array.stage[1].valid):
        m.d.sync += by_tap.eq(array.config.payload.by_tap)
    banks = grid.row_banks
    fine_bits = ceil_log2(banks) // 2
    rotate = {6: array.rotate}
    for k in (7, 8, 9):
        rotate[k] = Signal.like(array.rotate, name=f"s{k}_rotate", reset_less=True)
        m.d.sync += rotate[k].eq(rotate[k - 1])
    words, turned = (
        Signal(banks * WORD_BITS, name=f"s{k}_words", reset_less=True) for k in (8, 9)
    )
    masked = Signal(words_read(grid) * WORD_BITS, name="s10_words", reset_less=True)
    # Of the first map lane, and of the others; each a register of its own, for a simulator would have
    # to shift words that begin in the middle of its own.
    size, others = grid.pixels * WORD_BITS, range(1, grid.tap_lanes)
    lanes = [Signal(size, name=f"s11_words{k}", reset_less=True) for k in range(grid.tap_lanes)]
    word_bits = ceil_log2(WORD_BITS)
    coarse = Cat(Const(0, fine_bits + word_bits), rotate[8][fine_bits:])
    fine = Cat(Const(0, word_bits), rotate[9][:fine_bits])
    with m.If(array.stage[7].valid):
        m.d.sync += words.eq(array.words.as_value())
    with m.If(array.stage[8].valid):
        m.d.sync += turned.eq(Cat(words, words) >> coarse)
    read = Signal.like(masked, name="s9_words")
    inside = Cat(mask.replicate(WORD_BITS) for mask in masks)
    m.d.comb += read.eq((Cat(turned, turned) >> fine) & inside)
    with m.If(array.stage[9].valid):
        m.d.sync += masked.eq(read)
    kept = [Signal(size, name=f"s10_kept{k}", reset_less=True) for k in others]
    if grid.tap_gather:
        _gather(m, array, read, masked, kept)

    def words_from(step):
        return masked[step * WORD_BITS :][:size]

    def either(words, others, which):
        return words ^ ((words ^ others) & which)

    by_taps, other, behind = _choices(m, array, by_tap)
    plain = words_from(0)
    with m.If(array.stage[10].valid):
        m.d.sync += lanes[0].eq(either(plain, words_from(grid.tap_gap), behind))
        for k, late in zip(others, kept, strict=True):
            with m.If(by_taps):
                m.d.sync += lanes[k].eq(either(words_from(k), words_from(k + grid.tap_gap), other))
            with m.Else():
                m.d.sync += lanes[k].eq(either(plain, late if grid.tap_gather else plain, other))
    return lanes * (grid.maps // grid.tap_lanes), _weights(m, array)


def _gather(m: Module, array: MacArray, read, words, kept):
    """Stages 9 and 10: let words read serve two steps; last taps of kernel rows wait in ``kept``.

    Of the rows before, the latest first; the present one's are read for the step itself.
    """
    size = len(kept[0])
    with m.If(array.stage[9].valid & array.stage[9].goes_on):
        m.d.sync += words.eq(words[array.grid.maps * WORD_BITS :])
    with m.If(array.stage[9].valid & array.stage[9].keeps):
        m.d.sync += [after.eq(before) for before, after in pairwise([read[:size], *kept])]


def _choices(m: Module, array: MacArray, by_tap):
    """Stages 9 and 10: which words the lanes take; all but ``by_taps`` for every bit of a pixel's word.

    One register of all and one a pixel say it for the map lanes behind the first, so that a bit of an
    operand is chosen in one look-up table. ``by_taps``: the word of the lane's tap or, with ``other``,
    the one behind the row's end; without: the word read for the pixel or, with ``other``, one that
    has waited. The first map lane's is the pixel's or, where ``behind``, that behind the row's end.
    """
    s9, size = array.stage[9], array.grid.pixels * WORD_BITS
    ends = Signal(size, name="s9_behind")
    with m.If(array.spread):
        before = Cat(Const(0, ceil_log2(WORD_BITS)), array.split[9][0])
        m.d.comb += ends.eq(Const((1 << size) - 1, size) << before)
    choices = {
        "by_taps": by_tap & ~s9.gathers, "other": s9.gathers.replicate(size) | ends, "behind": ends
    }  # fmt: skip
    for name, choice in choices.items():
        register = Signal(len(choice), name=f"s10_{name}", reset_less=True)
        with m.If(s9.valid):
            m.d.sync += register.eq(choice)
        yield register


def _weights(m: Module, array: MacArray):
    """Stages 1 to 11: the beat read at stage 0 is there at stage 1; pick the tap's half."""
    grid, s2 = array.grid, array.stage[2]
    half = grid.maps * WORD_BITS
    beat = Signal(2 * half, reset_less=True)
    halves = [Signal(half, name=f"s{k}_weights", reset_less=True) for k in range(3, 12)]
    with m.If(array.stage[1].valid):
        m.d.sync += beat.eq(array.weights.as_value())
    m.d.comb += array.weight_words.eq(Mux(s2.odd, beat[half:], beat[:half]))
    m.d.sync += halves[0].eq(array.weight_words)
    if grid.tap_lanes > 1:
        # Where a channel is named, the last lane has no tap.
        with m.If(s2.names):
            m.d.sync += halves[0][-WORD_BITS:].eq(0)
    m.d.sync += [after.eq(before) for before, after in pairwise(halves)]
    return data.View(data.ArrayLayout(signed(WORD_BITS), grid.maps), halves[-1])


def accumulate(m: Module, array: MacArray, pixels, weights, platform):
    """Stages 11 to 14: multiply, accumulate, move to the drain registers; a row for each map.

    What moves thousands of registers comes from a register that is made of registers: the drain
    registers go on two cycles after ``pixel`` does, unless the next block's results have come
    meanwhile.
    """
    copies, comes = array.stage[HAND_OVER - 1].last, array.stage[HAND_OVER - 2].last
    takes = Signal()
    behind = Signal(2)
    move = Signal()
    m.d.comb += takes.eq(array.hand_over | array.shift)
    m.d.sync += [
        behind.eq(Mux(copies, 0, Cat(takes, behind))),
        move.eq((behind[0] & ~copies) | comes),
    ]
    for k in range(array.grid.maps):
        row = MacRow(array.grid)
        place(m, f"map{k}", "mac_row", row, platform)
        m.d.comb += [
            row.words.eq(pixels[k]),
            row.weight.eq(weights[k]),
            row.multiply.eq(array.stage[11].valid),
            row.valid.eq(array.stage[12].valid),
            row.first.eq(array.stage[12].first),
            row.copy.eq(copies),
            row.move.eq(move),
            row.take.eq(takes),
            row.behind.eq(behind),
            array.pixel[k].eq(row.out),
        ]
