"""Piecewise function of a tile: eight segments, linear or quadratic, exact to the last bit."""

from __future__ import annotations

from itertools import pairwise

from amaranth.hdl import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from neuflow.blocks import mapper_model
from neuflow.blocks.arith import (
    SHIFT_STEPS,
    negated,
    rounded_sum,
    saturate_word,
    shift_step,
)
from neuflow.blocks.config import ConfigReceiver, config_stream
from neuflow.blocks.gate import fires, stay_awake
from neuflow.blocks.streams import WORD_BITS, Slice, beat_layout, beat_stream
from neuflow.layout import COLUMN_BITS, MAPPER, SEGMENTS, Kind

_SEGMENT = data.StructLayout({"low": signed(16), "b": signed(17), "a": signed(18), "q": signed(16)})
_DISTANCE_BITS = WORD_BITS + 1
"""x' - min: 0 to 65536."""
_SLOPE_BITS = 18 + 16 + 1
"""(a << square) + q d."""
_LOW_BITS = 18
"""Where the slope is cut in two, so that no multiplier is wider than a DSP block."""
_CURVE_BITS = _SLOPE_BITS + _DISTANCE_BITS
_GUARD_BITS = WORD_BITS + 4
"""Twice a value, to which b is added: what is clipped lies beyond a word whatever b is."""
_STAGES = mapper_model.LATENCY - Slice.LATENCY
"""Stages of a lane; the slice that follows keeps the router's stalls out of their way."""
_TABLE_STAGES = 5
"""The last stage that is made with the table of the configuration."""


def _count(above):
    """Return how many of seven bits are 1, all of them below those that are 0: halve and look."""
    high = above[3]
    middle = Mux(high, above[5], above[1])
    low = Mux(high, Mux(middle, above[6], above[4]), Mux(middle, above[2], above[0]))
    return Cat(low, middle, high)


SETTLE = 2
"""Cycles from the last beat's move to the last register."""


class Mapper(Component):
    """Piecewise function of ``layout.MAPPER``, word by word, ``lanes`` words a cycle.

    Members: ``bus`` In configuration bus, ``sub`` In(4), ``columns`` In(8); ``i`` In, ``o`` Out
    streams of ``lanes`` words; ``active`` Out, a beat leaves in this cycle; ``awake`` Out.

    One MAPPER configuration a packet, queue of ``depth``. Latency ``mapper_model.LATENCY`` cycles,
    one beat a cycle; ``mapper_model.PACKET_GAP`` cycles between packets while the table changes.
    A stall of ``o`` holds all stages once its slice is full. Results saturate. ``square`` above 16
    is not possible.
    """

    LATENCY = mapper_model.LATENCY

    def __init__(self, lanes: int, depth: int):
        self.lanes = lanes
        self.depth = depth
        super().__init__(
            {
                "bus": In(config_stream()),
                "sub": In(4),
                "columns": In(COLUMN_BITS),
                "i": In(beat_stream(lanes)),
                "o": Out(beat_stream(lanes)),
                "active": Out(1),
                "awake": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.config = config = ConfigReceiver(Kind.MAPPER, MAPPER, self.depth)
        connect(m, flipped(self.bus), config.bus)
        m.d.comb += [config.sub.eq(self.sub), config.columns.eq(self.columns)]
        setup = config.o.payload

        # The next packet waits until the last beat is past the stages that the table serves.
        en = Signal()
        accept = Signal()
        closing = Signal()
        closed = Signal()
        valid = Signal(_STAGES)
        m.submodules.slice = out = Slice(beat_layout(self.lanes))
        connect(m, out.o, flipped(self.o))
        count_bits = len(self.i.payload.count)
        tail = data.StructLayout(
            {"count": count_bits, "last": 1, "shift": 6, "narrow": 1, "negative": self.lanes}
        )
        tails = [Signal(tail, name=f"s{k}_tail", reset_less=True) for k in range(_STAGES + 1)]
        m.d.comb += [
            en.eq(~valid[-1] | out.i.ready),
            accept.eq(en & self.i.valid & config.o.valid & ~closing),
            self.i.ready.eq(en & config.o.valid & ~closing),
            config.o.ready.eq(closed),
            out.i.valid.eq(valid[-1]),
            out.i.payload.count.eq(tails[-1].count),
            out.i.payload.last.eq(tails[-1].last),
            self.active.eq(self.o.valid & self.o.ready),
        ]
        # From a register, as the table is wide.
        table_read = valid[_TABLE_STAGES - 2] & tails[_TABLE_STAGES - 1].last
        m.d.sync += closed.eq(en & closing & ~closed & table_read)
        with m.If(closed):
            m.d.sync += closing.eq(0)
        with m.Elif(accept & self.i.payload.last):
            m.d.sync += closing.eq(1)

        # Shift, width and sign go down with the beats, so that the pipeline need not run empty.
        m.d.comb += [
            tails[0].count.eq(self.i.payload.count),
            tails[0].last.eq(self.i.payload.last),
            tails[0].shift.eq(setup.shift),
            tails[0].narrow.eq(setup.narrow),
            tails[0].negative.eq(Cat((word < 0) & setup.odd for word in self.i.payload.words)),
        ]
        # Nothing moves without a beat inside, which keeps an idle unit quiet.
        inside = Signal()
        moves = Signal()
        m.d.comb += moves.eq(en & inside)
        with m.If(en):
            m.d.sync += [valid.eq(Cat(accept, valid)), inside.eq(accept | valid[:-1].any())]
        stirs = accept | closing | (en & (inside | valid.any()))
        stay_awake(m, self.awake, config.awake, stirs, fires(out.o), settle=SETTLE)
        # What waits for other numbers: of each stage, all lanes side by side.
        side_by_side = data.ArrayLayout(signed(17), self.lanes)
        xs, bs = (
            {k: Signal(side_by_side, name=f"s{k}_{name}", reset_less=True) for k in stages}
            for name, stages in (("x", range(1, 5)), ("b", range(5, 13)))
        )
        power = Signal(17, reset_less=True)
        # Stage 1: the size of each word under a symmetry, else the word.
        folds = setup.odd | setup.even
        with m.If(accept):
            m.d.sync += [tails[1].eq(tails[0]), power.eq(1 << setup.square[:5])]
            for x, folded in zip(self.i.payload.words, xs[1], strict=True):
                m.d.sync += folded.eq(negated(x, folds & x[-1]))
        with m.If(moves):
            m.d.sync += [after.eq(before) for before, after in pairwise(tails[1:])]
            for waiting in (xs, bs):
                m.d.sync += [after.eq(before) for before, after in pairwise(waiting.values())]
            for lane in range(self.lanes):
                slope = self._build_slope(m, lane, setup, power, xs, bs)
                result = self._build_value(m, lane, tails, bs, *slope)
                m.d.comb += out.i.payload.words[lane].eq(result)
        return m

    def _build_slope(self, m, lane, setup, power, xs, bs):
        """Stages 2 to 6: compare; the segment; its numbers; distance, a shifted; q times distance.

        ``power`` is 2**square: a product is the shift that takes a multiplier instead of logic.
        """

        def register(name: str, shape) -> Signal:
            return Signal(shape, name=f"{name}_{lane}", reset_less=True)

        s2_above = register("s2_above", SEGMENTS - 1)  # of the segments above the first
        s3_segment = register("s3_segment", range(SEGMENTS))
        s4_segment = register("s4_segment", _SEGMENT)
        s5_d, s6_d = register("s5_d", _DISTANCE_BITS), register("s6_d", _DISTANCE_BITS)
        s5_a, s6_a = register("s5_a", signed(18 + 16)), register("s6_a", signed(18 + 16))
        s5_q = register("s5_q", signed(16))
        s6_qd = register("s6_qd", signed(33))

        m.d.sync += [
            s2_above.eq(Cat(xs[1][lane] >= setup[f"min{k}"] for k in range(1, SEGMENTS))),
            s3_segment.eq(_count(s2_above)),
            s5_d.eq(xs[4][lane] - s4_segment.low),
            s5_a.eq(s4_segment.a * power),
            s5_q.eq(s4_segment.q),
            bs[5][lane].eq(s4_segment.b),
            s6_qd.eq(s5_q * s5_d),
            s6_a.eq(s5_a),
            s6_d.eq(s5_d),
        ]
        with m.Switch(s3_segment):
            for k in range(SEGMENTS):
                numbers = Cat(setup[f"{name}{k}"] for name in ("min", "b", "a", "q"))
                with m.Case(k):
                    m.d.sync += s4_segment.as_value().eq(numbers)
        return s6_a, s6_qd, s6_d

    def _build_value(self, m, lane, tails, bs, s6_a, s6_qd, s6_d):
        """Stages 7 to 15: slope; times distance in two halves; sum; shift in three; + b; sign; ends.

        (b << shift) is a multiple of 2**shift, so that b may be added after the shift. Return the
        lane's word.
        """

        def register(name: str, shape) -> Signal:
            return Signal(shape, name=f"{name}_{lane}", reset_less=True)

        s7_slope, s7_d = register("s7_slope", signed(_SLOPE_BITS)), register("s7_d", _DISTANCE_BITS)
        s8_low = register("s8_low", _LOW_BITS + _DISTANCE_BITS)
        s8_high = register("s8_high", signed(_CURVE_BITS - _LOW_BITS))
        s9_curve = register("s9_curve", signed(_CURVE_BITS))
        s10_doubled, s11_doubled, s12_doubled = (
            register(f"s{k}_doubled", signed(_GUARD_BITS + places - 1))
            for k, places in zip(range(10, 13), SHIFT_STEPS, strict=True)
        )
        s13_value = register("s13_value", signed(_GUARD_BITS))
        s14_value = register("s14_value", signed(_GUARD_BITS + 1))
        s15_word = register("s15_word", signed(WORD_BITS))
        m.d.sync += [
            s7_slope.eq(s6_a + s6_qd),
            s7_d.eq(s6_d),
            s8_low.eq(s7_slope[:_LOW_BITS] * s7_d),
            s8_high.eq(s7_slope[_LOW_BITS:].as_signed() * s7_d),
            s9_curve.eq(Cat(s8_low[:_LOW_BITS], s8_high + s8_low[_LOW_BITS:])),
            s10_doubled.eq(shift_step(Cat(C(0, 1), s9_curve), tails[9].shift, 0, _GUARD_BITS)),
            s11_doubled.eq(shift_step(s10_doubled, tails[10].shift, 1, _GUARD_BITS)),
            s12_doubled.eq(shift_step(s11_doubled, tails[11].shift, 2, _GUARD_BITS)),
            s13_value.eq(rounded_sum(s12_doubled, bs[12][lane])),
            s14_value.eq(negated(s13_value, tails[13].negative[lane])),
            s15_word.eq(saturate_word(s14_value, tails[14].narrow)),
        ]
        return s15_word


__all__ = ["Mapper"]
