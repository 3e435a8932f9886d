"""Term-by-term operator: two streams in, one out, one operation for a packet."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from neuflow.blocks import alu_model
from neuflow.blocks.arith import magnitude, saturate, saturate_word
from neuflow.blocks.config import ConfigReceiver, config_stream
from neuflow.blocks.streams import WORD_BITS, beat_stream
from neuflow.layout import ALU, COLUMN_BITS, AluOp, Kind

_EXACT_BITS = WORD_BITS + 32
"""A word shifted left by 31, plus another."""

_GUARD_BITS = WORD_BITS + 3
"""See ``arith``: clipped to this width, a doubled value still rounds and saturates rightly."""

_QUOTIENT_BITS = WORD_BITS + 2
"""Twice the quotient's size, clipped: its lowest bit rounds."""


class Alu(Component):
    """Term-by-term operator: ADD SUB MUL DIV MAX MIN ABS SQUARE, formulas in ``layout.ALU``.

    Members: ``bus`` In configuration bus, ``sub`` In(4), ``columns`` In(8); ``a``, ``b`` In, ``o``
    Out streams of ``lanes`` words; ``active`` Out, a beat leaves in this cycle.

    One ALU configuration a packet, queue of ``depth``. The packets of ``a`` and ``b`` must have
    equal lengths, hence equal beats: count and ``last`` are taken from ``a``, a shorter or longer
    packet of ``b`` shifts what follows. Unary operations (ABS, SQUARE) leave ``b`` alone.

    Latency ``alu_model.LATENCY`` cycles and one beat a cycle; DIV: one bit of the quotient a cycle,
    ``alu_model.divide_cycles`` from beat to beat. A stall of ``o`` holds all stages. Results
    saturate.
    """

    LATENCY = alu_model.LATENCY

    def __init__(self, lanes: int, depth: int):
        self.lanes = lanes
        self.depth = depth
        super().__init__(
            {
                "bus": In(config_stream()),
                "sub": In(4),
                "columns": In(COLUMN_BITS),
                "a": In(beat_stream(lanes)),
                "b": In(beat_stream(lanes)),
                "o": Out(beat_stream(lanes)),
                "active": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.config = config = ConfigReceiver(Kind.ALU, ALU, self.depth)
        connect(m, flipped(self.bus), config.bus)
        m.d.comb += [config.sub.eq(self.sub), config.columns.eq(self.columns)]
        setup = config.o.payload

        # A beat goes in when its operands are there and, for DIV, its quotient is.
        en, both, divides, done, accept = (
            Signal(name=n) for n in ("en", "both", "divides", "done", "accept")
        )
        unary = Signal()
        m.d.comb += [
            unary.eq((setup.op == AluOp.ABS) | (setup.op == AluOp.SQUARE)),
            both.eq(config.o.valid & self.a.valid & (self.b.valid | unary)),
            divides.eq(setup.op == AluOp.DIV),
            accept.eq(en & both & (~divides | done)),
            self.a.ready.eq(accept),
            self.b.ready.eq(accept & ~unary),
            config.o.ready.eq(accept & self.a.payload.last),
        ]
        quotients = self._build_dividers(m, setup, both & divides, done, accept)

        # What a beat needs further down goes with it, so that packets follow without a gap.
        s1_op = Signal(4)
        s1_shift, s2_shift = Signal(6), Signal(6)
        s1_narrow, s2_narrow, s3_narrow = (Signal(name=f"s{k}_narrow") for k in (1, 2, 3))
        count_bits = len(self.a.payload.count)
        tails = [Signal(count_bits + 2, name=f"s{k}_tail") for k in (1, 2, 3, 4)]
        out = self.o.payload
        m.d.comb += [
            Cat(out.count, out.last, self.o.valid).eq(tails[-1]),
            en.eq(~self.o.valid | self.o.ready),
            self.active.eq(self.o.valid & self.o.ready),
        ]
        # Nothing moves without a beat inside, which keeps an idle unit quiet.
        inside = Cat(accept, *(tail[-1] for tail in tails)).any()
        with m.If(en & inside):
            m.d.sync += [
                s1_op.eq(Mux(divides, AluOp.ADD, setup.op)),
                s1_shift.eq(Mux(divides, 0, setup.shift)),
                s1_narrow.eq(setup.narrow),
                s2_shift.eq(s1_shift),
                s2_narrow.eq(s1_narrow),
                s3_narrow.eq(s2_narrow),
                tails[0].eq(Cat(self.a.payload.count, self.a.payload.last, accept)),
                *(tails[k + 1].eq(tails[k]) for k in range(3)),
            ]
            for lane in range(self.lanes):
                self._build_lane(
                    m, lane, setup, divides, quotients[lane],
                    s1_op, s2_shift, s3_narrow,
                )  # fmt: skip
        return m

    def _build_lane(self, m, lane, setup, divides, quotient, s1_op, s2_shift, s3_narrow):
        """Four stages of one lane: operands; exact result; shift; rounding and saturation."""

        def register(name: str, bits: int) -> Signal:
            return Signal(signed(bits), name=f"{name}_{lane}")

        a, b = self.a.payload.words[lane], self.b.payload.words[lane]
        s1_a, s1_b = register("s1_a", _EXACT_BITS), register("s1_b", _EXACT_BITS)
        s1_product = register("s1_product", 2 * WORD_BITS)
        s2_exact = register("s2_exact", _EXACT_BITS)
        s3_doubled = register("s3_doubled", _GUARD_BITS)

        # ABS adds nothing to its operand; DIV comes here with its quotient.
        size = register("size", WORD_BITS + 1)
        m.d.comb += size.eq(Mux((setup.op == AluOp.ABS) & (a < 0), -a, a))
        m.d.sync += [
            s1_a.eq(Mux(divides, quotient, size << setup.shift_a[:5])),
            s1_b.eq(Mux(divides | (setup.op == AluOp.ABS), 0, b << setup.shift_b[:5])),
            s1_product.eq(a * Mux(setup.op == AluOp.SQUARE, a, b)),
        ]
        with m.Switch(s1_op):
            with m.Case(AluOp.SUB):
                m.d.sync += s2_exact.eq(s1_a - s1_b)
            with m.Case(AluOp.MUL, AluOp.SQUARE):
                m.d.sync += s2_exact.eq(s1_product)
            with m.Case(AluOp.MAX):
                m.d.sync += s2_exact.eq(Mux(s1_a < s1_b, s1_b, s1_a))
            with m.Case(AluOp.MIN):
                m.d.sync += s2_exact.eq(Mux(s1_a < s1_b, s1_a, s1_b))
            with m.Default():
                m.d.sync += s2_exact.eq(s1_a + s1_b)

        # Bit 0 of the doubled value is the rounding bit, see arith.round_shift.
        doubled = register("doubled", _EXACT_BITS + 1)
        rounded = register("rounded", _GUARD_BITS)
        m.d.comb += [
            doubled.eq(Cat(Const(0, 1), s2_exact).as_signed() >> s2_shift),
            rounded.eq(s3_doubled[1:].as_signed() + s3_doubled[0]),
        ]
        m.d.sync += [
            s3_doubled.eq(saturate(doubled, _GUARD_BITS)),
            self.o.payload.words[lane].eq(saturate_word(rounded, s3_narrow)),
        ]

    def _build_dividers(self, m, setup, wanted, done, accept):
        """Divide the waiting beat, one bit of twice the quotients a cycle; return signed quotients.

        Twice the quotient is floor(2 |a| 2**n / |b|) with n = shift_a - shift_b; a negative n
        only leaves out the last bits, because flooring twice is flooring once. The lowest bit
        then rounds halves away from zero.
        """
        busy = Signal()
        left = Signal(range(17 + 31 + 1))
        net = Signal(signed(8))
        start, step = Signal(), Signal()
        m.d.comb += [
            net.eq(17 + setup.shift_a[:5] - setup.shift_b[:5]),
            start.eq(wanted & ~busy),
            step.eq(left != 0),
            done.eq(busy & ~step),
        ]
        with m.If(start):
            m.d.sync += [busy.eq(1), left.eq(Mux(net < 0, 0, net))]
        with m.Elif(step):
            m.d.sync += left.eq(left - 1)
        with m.Elif(accept):
            m.d.sync += busy.eq(0)

        quotients = []
        for lane in range(self.lanes):
            a, b = self.a.payload.words[lane], self.b.payload.words[lane]
            above = Signal(WORD_BITS + 1, name=f"above_{lane}")
            below = Signal(WORD_BITS, name=f"below_{lane}")
            rest = Signal(WORD_BITS, name=f"rest_{lane}")
            twice = Signal(_QUOTIENT_BITS, name=f"twice_{lane}")
            negative = Signal(name=f"negative_{lane}")
            trial = Signal(signed(WORD_BITS + 2), name=f"trial_{lane}")
            next_rest = Cat(above[-1], rest)
            m.d.comb += trial.eq(next_rest - below)
            with m.If(start):
                m.d.sync += [
                    above.eq(Cat(Const(0, 1), magnitude(a))),
                    below.eq(magnitude(b)),
                    negative.eq(a[-1] ^ b[-1]),
                    rest.eq(0),
                    # By zero: beyond every word, or nothing for 0 / 0.
                    twice.eq(Mux((b == 0) & (a != 0), (1 << _QUOTIENT_BITS) - 1, 0)),
                ]
            with m.Elif(step & (below != 0)):
                m.d.sync += [
                    above.eq(above << 1),
                    rest.eq(Mux(trial < 0, next_rest, trial)),
                ]
                # What has reached the top bit stays beyond every word.
                with m.If(~twice[-1]):
                    m.d.sync += twice.eq(Cat(trial >= 0, twice))
            quotient = Signal(signed(_QUOTIENT_BITS + 1), name=f"quotient_{lane}")
            rounded = Signal(_QUOTIENT_BITS, name=f"twice_rounded_{lane}")
            m.d.comb += [
                rounded.eq(twice[1:] + twice[0]),
                quotient.eq(Mux(negative, -rounded, rounded)),
            ]
            quotients.append(quotient)
        return quotients


__all__ = ["Alu"]
