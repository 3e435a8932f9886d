"""Row input of the convolver, last stages: the words of a lap go to their banks.

A lap's words lie in banks behind each other, from that of its first word on. They may be of two
stretches, the second in banks' rows of its own, which lie a constant number further on. In *pairs* of
phases (``Scatter.BOTH_PHASES``) words of phase 0 fill the first half of a beat's banks, those of phase 1
the second; with ``Scatter.ROWS`` the next channel's words come behind those of the row that ends.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Mux, Signal
from amaranth.utils import ceil_log2

from neuflow.blocks.choose import select
from neuflow.blocks.conv_banks import before
from neuflow.blocks.streams import WORD_BITS


def first_stretch(m, writer, piece, locator):
    """Stage 5: return a bit for each place of a beat: its bank takes a word of the first stretch.

    ``piece``: what is stored, at stage 4.
    """
    lanes = writer.grid.bus_words
    first = Signal(lanes, reset_less=True)
    whole, half = (1 << lanes) - 1, (1 << lanes // 2) - 1
    of_row = Mux(piece.row_ends, Cat(1, before(lanes - 1, piece.rest)), whole)
    m.d.sync += first.eq(Mux(writer.pairs, half, of_row))
    return turned(first, locator.where.rotate[: ceil_log2(lanes)])


def write_words(m, writer, valid, pieces, first, locator):
    """Stages 4 to 7: bring each word to its bank, and tell which banks are written.

    ``pieces``: what is stored, by stage; ``valid``: of stage 4. The bank k behind the first one takes
    word ``piece.first`` + k stride of the stretch; in pairs, from half a beat on, such words of phase 1.
    ``first``: see :func:`first_stretch`.
    """
    grid = writer.grid
    lanes, banks, piece = grid.bus_words, grid.row_banks, pieces[4]
    lane_bits, half = ceil_log2(lanes), lanes // 2
    stride, start, origin = (
        Signal(lane_bits, name=name, reset_less=True) for name in ("stride", "start", "origin")
    )
    used = Signal(lanes)
    banks_used = Signal(lanes)
    of_phase_1 = Signal(lanes)
    first_bank = Signal.like(locator.turn, reset_less=True)
    turn, rotate = locator.turn[:lane_bits], locator.where.rotate[:lane_bits]
    few = before(lanes, piece.number)
    few_of_pairs = Cat(few[k // half + 2 * (k % half)] for k in range(lanes))
    m.d.comb += of_phase_1.eq(~first & writer.pairs.replicate(lanes))
    m.d.sync += [
        stride.eq(writer.config.payload.stride),
        start.eq(pieces[3].taken + pieces[3].first),
        # By adders: a multiplier would be a DSP block on some devices.
        origin.eq(start - sum(Mux(bit, stride << k, 0) for k, bit in enumerate(turn))),
        used.eq(Mux(valid, Mux(writer.pairs, few_of_pairs, few), 0)),
        banks_used.eq(turned(used, rotate)),
        first_bank.eq(locator.where.rotate),
    ]
    words = [pieces[6].words.word_select(k, WORD_BITS) for k in range(lanes)]
    for lane in range(lanes):
        at = Signal(lane_bits, name=f"lane{lane}", reset_less=True)
        m.d.sync += [
            at.eq(origin + lane * stride + of_phase_1[lane]),
            writer.beat.word_select(lane, WORD_BITS).eq(select(words, at)),
        ]
    reached = turned(Const((1 << lanes) - 1, banks), first_bank)
    m.d.sync += writer.enables.eq(banks_used.replicate(banks // lanes) & reached)


def write_rows(m, writer, first, locator):
    """Stages 6 and 7: give the banks their rows.

    Banks come in blocks of a beat. Words lie in the block of the first one and in the next one, which
    begins a row of the banks where the first one ends it; those of the second stretch lie ``apart``
    further on.
    """
    grid, where, c = writer.grid, locator.where, writer.config.payload
    lane_bits, bank_bits = ceil_log2(grid.bus_words), ceil_log2(grid.row_banks)
    block = where.rotate[lane_bits:]
    at_end = block == grid.row_banks // grid.bus_words - 1
    near = Signal()  # parity of the first word's block
    of_first = Signal(grid.bus_words, reset_less=True)
    apart, row, next_row, far, next_far = (
        Signal.like(where.row, name=name, reset_less=True)
        for name in ("apart", "row", "next_row", "far", "next_far")
    )
    m.d.sync += [
        apart.eq(Mux(writer.pairs, c.phase_x_step, c.channel_step - c.width)[bank_bits:]),
        near.eq(block[0]),
        of_first.eq(first),
        row.eq(where.row),
        next_row.eq(Mux(at_end, where.wrapped, where.row)),
        far.eq(where.row + apart),
        next_far.eq(where.row + apart + at_end),
        writer.at.first.eq(of_first),
    ]
    for k in range(2):
        m.d.sync += [
            writer.at.row[k].eq(Mux(near == k, row, next_row)),
            writer.at.far[k].eq(Mux(near == k, far, next_far)),
        ]


def turned(value, places):
    """Return ``value`` with each bit so many places further up, round the end."""
    return (Cat(value, value) << places)[len(value) : 2 * len(value)]
