"""Piecewise function of a tile: eight segments, linear or quadratic, exact to the last bit."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from neuflow.blocks import mapper_model
from neuflow.blocks.arith import saturate, saturate_word
from neuflow.blocks.config import ConfigReceiver, config_stream
from neuflow.blocks.streams import WORD_BITS, beat_stream
from neuflow.layout import COLUMN_BITS, MAPPER, SEGMENTS, Kind

_SEGMENT = data.StructLayout({"low": signed(16), "b": signed(17), "a": signed(18), "q": signed(16)})
_DISTANCE_BITS = WORD_BITS + 1
"""x' - min: 0 to 65536."""
_SLOPE_BITS = 18 + 16 + 1
"""(a << square) + q d."""
_LOW_BITS = 18
"""Where the slope is cut in two, so that no multiplier is wider than a DSP block."""
_CURVE_BITS = _SLOPE_BITS + _DISTANCE_BITS
_GUARD_BITS = 20
"""What is clipped to this width before b is added lies beyond a word whatever b is."""


class Mapper(Component):
    """Piecewise function of ``layout.MAPPER``, word by word, ``lanes`` words a cycle.

    Members: ``bus`` In configuration bus, ``sub`` In(4), ``columns`` In(8); ``i`` In, ``o`` Out
    streams of ``lanes`` words; ``active`` Out, a beat leaves in this cycle.

    One MAPPER configuration a packet, queue of ``depth``. Latency ``mapper_model.LATENCY`` cycles,
    one beat a cycle; ``mapper_model.PACKET_GAP`` cycles between packets while the table changes.
    A stall of ``o`` holds all stages. Results saturate. ``square`` above 16 is not possible.
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
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.config = config = ConfigReceiver(Kind.MAPPER, MAPPER, self.depth)
        connect(m, flipped(self.bus), config.bus)
        m.d.comb += [config.sub.eq(self.sub), config.columns.eq(self.columns)]
        setup = config.o.payload

        # The table serves stages 1 to 3: the next packet waits until the last beat is past them.
        stages = mapper_model.LATENCY
        en, accept, closing = Signal(), Signal(), Signal()
        count_bits = len(self.i.payload.count)
        tails = [Signal(count_bits + 2, name=f"s{k}_tail") for k in range(1, stages + 1)]
        out = self.o.payload
        m.d.comb += [
            en.eq(~self.o.valid | self.o.ready),
            accept.eq(en & self.i.valid & config.o.valid & ~closing),
            self.i.ready.eq(en & config.o.valid & ~closing),
            config.o.ready.eq(en & closing & tails[1][-2:].all()),
            Cat(out.count, out.last, self.o.valid).eq(tails[-1]),
            self.active.eq(self.o.valid & self.o.ready),
        ]
        with m.If(config.o.ready):
            m.d.sync += closing.eq(0)
        with m.Elif(accept & self.i.payload.last):
            m.d.sync += closing.eq(1)

        # Shift and width go down with the beats, so that the pipeline need not run empty.
        tail_setup = Cat(setup.shift, setup.narrow, setup.odd)
        setups = {k: Signal(len(tail_setup), name=f"s{k}_setup") for k in range(3, stages)}
        inside = Cat(accept, *(tail[-1] for tail in tails)).any()
        with m.If(en & inside):
            m.d.sync += tails[0].eq(Cat(self.i.payload.count, self.i.payload.last, accept))
            m.d.sync += [tails[k].eq(tails[k - 1]) for k in range(1, stages)]
            m.d.sync += setups[3].eq(tail_setup)
            m.d.sync += [setups[k].eq(setups[k - 1]) for k in range(4, stages)]
            for lane in range(self.lanes):
                s4 = self._build_slope(m, lane, setup)
                self._build_value(m, lane, setups, *s4)
        return m

    def _build_slope(self, m, lane, setup):
        """Stages 1 to 4: fold, compare; pick the segment; distance; both terms of the slope."""

        def register(name: str, shape) -> Signal:
            return Signal(shape, name=f"{name}_{lane}")

        x = self.i.payload.words[lane]
        s1_x, s2_x = register("s1_x", signed(17)), register("s2_x", signed(17))
        s1_above = register("s1_above", SEGMENTS)
        s2_segment = register("s2_segment", _SEGMENT)
        s3_d, s4_d = register("s3_d", _DISTANCE_BITS), register("s4_d", _DISTANCE_BITS)
        s3_a, s4_a = register("s3_a", signed(18 + 16)), register("s4_a", signed(18 + 16))
        s3_q = register("s3_q", signed(16))
        s3_b, s4_b = register("s3_b", signed(17)), register("s4_b", signed(17))
        s4_qd = register("s4_qd", signed(33))
        negative = [register(f"s{k}_negative", 1) for k in range(1, 5)]

        folded = register("folded", signed(17))
        table = [(setup[f"min{k}"], Cat(*(setup[f"{n}{k}"] for n in ("min", "b", "a", "q"))))
                 for k in range(SEGMENTS)]  # fmt: skip
        m.d.comb += folded.eq(Mux((setup.odd | setup.even) & (x < 0), -x, x))
        m.d.sync += [
            s1_x.eq(folded),
            s1_above.eq(Cat(*(folded >= low for low, _ in table))),
            s2_x.eq(s1_x),
            s2_segment.as_value().eq(table[0][1]),
            s3_d.eq(s2_x - s2_segment.low),
            s3_a.eq(s2_segment.a << setup.square[:5]),
            s3_q.eq(s2_segment.q),
            s3_b.eq(s2_segment.b),
            s4_qd.eq(s3_q * s3_d),
            s4_a.eq(s3_a),
            s4_d.eq(s3_d),
            s4_b.eq(s3_b),
            negative[0].eq((x < 0) & setup.odd),
            *(negative[k].eq(negative[k - 1]) for k in range(1, 4)),
        ]
        # Beginnings ascend, so the last segment that has begun is the one to take.
        for k in range(1, SEGMENTS):
            with m.If(s1_above[k]):
                m.d.sync += s2_segment.as_value().eq(table[k][1])
        return s4_a, s4_qd, s4_d, s4_b, negative[3]

    def _build_value(self, m, lane, setups, s4_a, s4_qd, s4_d, s4_b, s4_negative):
        """Stages 5 to 10: slope; times distance in two halves; sum; shift; + b; sign, saturate.

        (b << shift) is a multiple of 2**shift, so that b may be added after the shift.
        """

        def register(name: str, shape) -> Signal:
            return Signal(shape, name=f"{name}_{lane}")

        s5_slope, s5_d = register("s5_slope", signed(_SLOPE_BITS)), register("s5_d", _DISTANCE_BITS)
        s6_low = register("s6_low", _LOW_BITS + _DISTANCE_BITS)
        s6_high = register("s6_high", signed(_CURVE_BITS - _LOW_BITS))
        s7_curve = register("s7_curve", signed(_CURVE_BITS))
        s8_doubled = register("s8_doubled", signed(_GUARD_BITS))
        s9_value = register("s9_value", signed(_GUARD_BITS))
        b = {4: s4_b, **{k: register(f"s{k}_b", signed(17)) for k in range(5, 9)}}
        negative = {4: s4_negative, **{k: register(f"s{k}_negative", 1) for k in range(5, 10)}}

        doubled = register("doubled", signed(_CURVE_BITS + 1))
        put_back = register("put_back", signed(_GUARD_BITS + 1))
        shift, narrow = setups[7][:6], setups[9][6]
        m.d.comb += [
            # Bit 0 of the doubled value is the rounding bit, see arith.round_shift.
            doubled.eq(Cat(Const(0, 1), s7_curve).as_signed() >> shift),
            put_back.eq(Mux(negative[9], -s9_value, s9_value)),
        ]
        m.d.sync += [
            s5_slope.eq(s4_a + s4_qd),
            s5_d.eq(s4_d),
            s6_low.eq(s5_slope[:_LOW_BITS] * s5_d),
            s6_high.eq(s5_slope[_LOW_BITS:].as_signed() * s5_d),
            s7_curve.eq(Cat(s6_low[:_LOW_BITS], s6_high + s6_low[_LOW_BITS:])),
            s8_doubled.eq(saturate(doubled, _GUARD_BITS)),
            s9_value.eq(b[8] + s8_doubled[1:].as_signed() + s8_doubled[0]),
            self.o.payload.words[lane].eq(saturate_word(put_back, narrow)),
            *(b[k].eq(b[k - 1]) for k in range(5, 9)),
            *(negative[k].eq(negative[k - 1]) for k in range(5, 10)),
        ]


__all__ = ["Mapper"]
