"""Row input of the convolver, last stages: the words of a lap go to their banks.

A lap's words lie in banks behind each other, from that of its first word on. In *pairs* of phases
(``Scatter.BOTH_PHASES``) words of phase 0 fill the first half of a beat's banks, those of phase 1 the
second, at rows of their own.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Mux, Signal
from amaranth.utils import ceil_log2

from neuflow.blocks.choose import select
from neuflow.blocks.conv_banks import banks_before, before
from neuflow.blocks.streams import WORD_BITS


def write_words(m, writer, valid, pieces, pairs, locator):
    """Stages 4 to 7: bring each word to its bank, and tell which banks are written.

    ``pieces``: what is stored, by stage; ``valid``: of stage 4. The bank k behind the first one takes
    word ``first`` + k stride of the stretch; in pairs, from half a beat on, such words of phase 1.
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
    m.d.comb += of_phase_1.eq(turned(Const(~0 << half, lanes), rotate) & pairs.replicate(lanes))
    m.d.sync += [
        stride.eq(writer.config.payload.stride),
        start.eq(pieces[3].taken + pieces[3].first),
        # By adders: a multiplier would be a DSP block on some devices.
        origin.eq(start - sum(Mux(bit, stride << k, 0) for k, bit in enumerate(turn))),
        used.eq(Mux(valid, Mux(pairs, few_of_pairs, few), 0)),
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


def write_rows(m, writer, pairs, locator):
    """Stages 6 and 7: give the banks their rows.

    In pairs, the block of half a beat that holds the first bank, and every other one from there, have
    words of phase 0 from that bank's place on and such of phase 1 before it; in the blocks between
    it is the reverse. So no block has two rows of a phase.
    """
    grid, where = writer.grid, locator.where
    half = grid.bus_words // 2
    bank_bits, half_bits, last = (
        ceil_log2(grid.row_banks), ceil_log2(half), grid.row_banks // half - 1
    )  # fmt: skip
    block = where.rotate[half_bits:]
    split = Signal()
    first_bank = Signal.like(where.rotate, reset_less=True)
    apart, row, near_end, far, far_end = (
        Signal.like(where.row, name=name, reset_less=True)
        for name in ("apart", "row", "near_end", "far", "far_end")
    )
    before_in_block = before(half, first_bank[:half_bits]).replicate(grid.row_banks // half)
    m.d.sync += [
        apart.eq(writer.config.payload.phase_x_step[bank_bits:]),  # from phase 0 to phase 1
        split.eq(pairs),
        first_bank.eq(where.rotate),
        row.eq(where.row),
        near_end.eq(Mux(pairs & (block != last), where.row, where.wrapped)),
        far.eq(where.row + apart + (block == last)),
        far_end.eq(where.row + apart + ((block | 1) == last)),
        writer.at.before.eq(Mux(split, before_in_block, banks_before(grid, first_bank))),
    ]
    for k in range(2):
        same = first_bank[half_bits] == k
        m.d.sync += [
            writer.at.row[k].eq(Mux(split & ~same, far, row)),
            writer.at.wrapped[k].eq(Mux(split & same, far_end, near_end)),
        ]


def turned(value, places):
    """Return ``value`` with each bit so many places further up, round the end."""
    return (Cat(value, value) << places)[len(value) : 2 * len(value)]
