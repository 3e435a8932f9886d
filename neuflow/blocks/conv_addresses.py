"""Stages 1 to 6 of the array: where a tap's words lie in the banks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.utils import ceil_log2

from neuflow.blocks.conv_banks import Locator, advance, banks_before
from neuflow.blocks.convolver_model import ROW_ENDS
from neuflow.blocks.place import place
from neuflow.blocks.streams import WORD_BITS
from neuflow.layout import ABSENT_CHANNELS, ROW_ADDRESS

if TYPE_CHECKING:
    from neuflow.blocks.conv_array import MacArray


def tap_addresses(m: Module, array: MacArray, platform):
    """Stages 1 to 5: the tap's address, kept in step with the loops."""
    c = array.config.payload
    s1, s2 = array.stage[1], array.stage[2]
    locator = Locator(array.grid)
    place(m, "locator", "locator", locator, platform)
    step_y_wrap = Signal(ROW_ADDRESS)
    offset_x, step_x = _phase(m, array, "x", s1.valid, s1.ends_x, c.step_x, c.step_x + 1)
    offset_y, step_y = _phase(m, array, "y", s1.valid & s1.ends_x, s1.ends_y, c.step_y, step_y_wrap)

    # What a pass does not change is made beforehand.
    wraps = Signal()
    row_less = Signal(signed(ROW_ADDRESS + 1))
    group_start = Signal(ROW_ADDRESS)
    next_group = Signal(ROW_ADDRESS)
    # From a group to the next; words that lie between two rows of lanes are not read.
    gap = Signal(signed(ROW_ADDRESS + 1))
    group = Signal(signed(ROW_ADDRESS + 4))
    group_less = Signal(signed(ROW_ADDRESS + 4))
    gaps = sum(Mux(bit, gap << k, 0) for k, bit in enumerate(array.rows_on))
    step = gaps + array.grid.pixels
    with m.If(array.prepares):
        m.d.sync += [
            wraps.eq(c.ring_words != 0),
            row_less.eq(c.row_pitch - c.ring_words),
            gap.eq(c.row_pitch - c.pitch),
            step_y_wrap.eq(advance(m, "step_y_wrap", c.step_y, c.row_pitch, row_less, wraps)),
        ]
    m.d.sync += [
        group.eq(step),
        group_less.eq(step - c.ring_words),
        next_group.eq(advance(m, "next_group", group_start, group, group_less, wraps)),
    ]

    channel_base, row_start, position = (
        Signal(ROW_ADDRESS, name=n) for n in ("channel_base", "row_start", "position")
    )
    next_x = advance(m, "next_x", position, *step_x, wraps)
    next_row = advance(m, "next_row", row_start, *step_y, wraps)
    restart = Mux(s2.ends_group, next_group, group_start)
    first_channel = Signal()
    m.d.comb += first_channel.eq(Mux(c.by_block, s2.ends_group, s2.last))
    next_channel = _next_channel(m, array, s2.valid & s2.ends_x & s2.ends_y, first_channel)
    with m.If(array.rest):
        m.d.sync += [
            channel_base.eq(c.base),
            group_start.eq(c.start),
            row_start.eq(c.start),
            position.eq(c.start),
        ]
    with m.Elif(s2.valid & ~s2.ends_x):
        # Last taps are read once more for a step of their own.
        with m.If(~s2.goes_on):
            m.d.sync += position.eq(next_x)
    with m.Elif(s2.valid & ~s2.ends_y):
        m.d.sync += [row_start.eq(next_row), position.eq(next_row)]
    with m.Elif(s2.valid):
        m.d.sync += [
            row_start.eq(restart),
            position.eq(restart),
            group_start.eq(restart),
            channel_base.eq(Mux(first_channel, c.base, next_channel)),
        ]
    linear = Signal.like(locator.linear)
    m.d.sync += [
        linear.eq(channel_base + offset_x + offset_y),
        locator.position.eq(position),
    ]
    m.d.comb += [
        locator.linear.eq(linear),
        locator.ring.eq(c.ring_words),
        array.read_enable.eq(array.stage[6].valid),
    ]
    m.d.sync += array.rotate.eq(locator.where.rotate)
    _behind(m, array, platform, linear, position, gap, wraps, locator)


def _behind(m: Module, array: MacArray, platform, linear, position, gap, wraps, lanes_before):
    """Stages 2 to 5: where the words of lanes beyond the ends of output rows are.

    They lie whole rounds of the banks further on, so that the same turn brings them to their
    lanes; by tap, behind the words that the lanes before them read beyond the end.
    """
    c, beyond, bank_bits = array.config.payload, array.grid.tap_gap, ceil_log2(array.grid.row_banks)
    rounds = Signal.like(gap)
    with m.If(array.prepares):
        m.d.sync += rounds.eq(Cat(Const(0, bank_bits), gap[bank_bits:]).as_signed())
    if beyond:
        with m.If(array.stage[1].valid):
            m.d.sync += array.spread.eq(c.by_tap & gap[:bank_bits].any())
    # Banks from that of the first lane on, up to that of the first behind each row end.
    turn, where, ends = lanes_before.turn, [lanes_before.where], []
    for k in range(ROW_ENDS):
        locator = Locator(array.grid)
        place(m, f"behind{k}", "locator", locator, platform)
        far, far_less = (Signal(signed(ROW_ADDRESS + 3), name=f"far{k}{n}") for n in ("", "_less"))
        end = Signal(bank_bits + 1, name=f"end{k}")
        # Spread, a group meets one row end; no word lies behind a second one.
        spread = beyond if k == 0 else array.grid.row_banks - array.split[4][k]
        with m.If(array.prepares):
            m.d.sync += [
                far.eq((k + 1) * rounds),
                far_less.eq((k + 1) * rounds - c.ring_words),
            ]
        m.d.sync += locator.position.eq(advance(m, f"behind{k}", position, far, far_less, wraps))
        m.d.comb += [
            locator.linear.eq(linear),
            locator.ring.eq(c.ring_words),
            end.eq(turn + array.split[4][k] + Mux(array.spread, spread, 0)),
        ]
        where.append(locator.where)
        ends.append(end)
    _in_bank_order(m, array, turn, ends, where)


def _in_bank_order(m: Module, array: MacArray, turn, ends, where):
    """Stages 4 and 5: from the order of lanes to that of banks, which begins where the banks end.

    ``met``: row ends before the last bank. What lies behind the others begins at bank 0. What all
    banks choose from comes from registers: they lie far from each other.
    """
    met = Signal(range(ROW_ENDS + 1))
    before = [~end[-1] for end in ends]
    m.d.sync += met.eq(sum(before))

    def by(number, choices):
        result = choices[-1]
        for k in reversed(range(len(choices) - 1)):
            result = Mux(number == k, choices[k], result)
        return result

    banks = []
    for at in range(ROW_ENDS + 1):
        turned = [[*ends[k:], turn, *ends[:k]] for k in range(ROW_ENDS + 1)]
        end = Signal.like(turn, name=f"read_end{at}")
        m.d.sync += end.eq(by(sum(before), [order[at] for order in turned]))
        banks.append(banks_before(array.grid, end))
    # Banks before an end are before all later ones, too.
    m.d.sync += [
        array.read.which[0].eq((banks[1] & ~banks[0]) | ~(banks[1] | banks[2])),
        array.read.which[1].eq(~banks[1]),
    ]
    for at in range(ROW_ENDS + 2):
        turned = [
            [*(lies.wrapped for lies in where[k:]), *(lies.row for lies in where[: k + 1])]
            for k in range(ROW_ENDS + 1)
        ]
        m.d.sync += array.read.rows[at].eq(by(met, [order[at] for order in turned]))


def _next_channel(m: Module, array: MacArray, moves, restarts):
    """Stage 2: return the base of the next channel that is read, walking on while taps pass.

    It steps over one absent channel a cycle, so that fewer must follow each other than a channel
    has taps. By tap, a channel's weights name the next one.
    """
    c = array.config.payload
    base, absent = Signal(ROW_ADDRESS, name="next_channel"), Signal(ABSENT_CHANNELS)
    with m.If(array.stage[2].valid & array.stage[2].names):
        m.d.sync += base.eq(c.base + array.weight_words[-WORD_BITS:])
    with m.Elif(array.rest | (moves & restarts)):
        m.d.sync += [base.eq(c.base + c.channel_step), absent.eq(Cat(c.absent0, c.absent1))]
    with m.Elif(moves | absent[0]):
        m.d.sync += [base.eq(base + c.channel_step), absent.eq(absent[1:])]
    return base


def _phase(m: Module, array: MacArray, axis, moves, restarts, step, step_wrap):
    """Stage 1: the phase in ``axis`` of the tap, moved or restarted with the tap.

    Return, both in stage 2, its offset in memory, and the step to the next tap, plain and less
    the ring. A phase that wraps takes ``step_wrap``.
    """
    c = array.config.payload
    first, delta, phase_step = (c[f"phase_{axis}"], c[f"phase_d{axis}"], c[f"phase_{axis}_step"])
    phase = Signal(4)
    sum_ = Signal(5)
    over = Signal(signed(6))
    delta_less = Signal(signed(5))
    kept = Signal(ROW_ADDRESS)
    kept_less = Signal(signed(ROW_ADDRESS + 1))
    wrapped = Signal(ROW_ADDRESS)
    wrapped_less = Signal(signed(ROW_ADDRESS + 1))
    offset = Signal(ceil_log2(array.grid.row_words), reset_less=True)
    move = Signal(ROW_ADDRESS)
    move_less = Signal(signed(ROW_ADDRESS + 1))
    wraps = Signal()
    m.d.comb += [sum_.eq(phase + delta), over.eq(phase + delta_less), wraps.eq(over >= 0)]
    with m.If(array.prepares):
        m.d.sync += [
            delta_less.eq(delta - c.stride),
            kept.eq(step),
            kept_less.eq(step - c.ring_words),
            wrapped.eq(step_wrap),
            wrapped_less.eq(step_wrap - c.ring_words),
        ]
    m.d.sync += [
        move.eq(Mux(wraps, wrapped, kept)),
        move_less.eq(Mux(wraps, wrapped_less, kept_less)),
        offset.eq(phase * phase_step[: len(offset)]),
    ]
    with m.If(array.rest):
        m.d.sync += phase.eq(first)
    with m.Elif(moves):
        m.d.sync += phase.eq(Mux(restarts, first, Mux(wraps, over, sum_)))
    return offset, (move, move_less)
