"""Term-by-term operator: two streams in, one out, one operation for a packet."""

from __future__ import annotations

from itertools import pairwise

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import exact_log2

from neuflow.blocks import alu_model
from neuflow.blocks.arith import (
    CLIPPED_BITS,
    clip_shifted,
    doubled_coarse,
    magnitude,
    rounded_sum,
    saturate_word,
    shift_fine,
)
from neuflow.blocks.config import ConfigReceiver, config_stream
from neuflow.blocks.gate import fires, stay_awake
from neuflow.blocks.streams import WORD_BITS, Slice, beat_layout, beat_stream
from neuflow.layout import ALU, COLUMN_BITS, AluOp, Kind

_EXACT_BITS = WORD_BITS + 32
"""A word shifted left by 31, plus another."""

_STAGES = alu_model.LATENCY - Slice.LATENCY
"""Stages of a lane; the slice that follows keeps the router's stalls out of their way."""

_AT_ONCE = alu_model.DIVIDE_BITS

_QUOTIENT_BITS = WORD_BITS + 2 * _AT_ONCE - 1
"""Twice the quotient's size, clipped, and as many bits more as may be found too many."""

_SIZE_BITS = _QUOTIENT_BITS + 1
"""A word or a quotient, with its sign."""


def _multiplies(op):
    return (op == AluOp.MUL) | (op == AluOp.SQUARE)


def _compares_or_subtracts(op):
    return (op == AluOp.SUB) | (op == AluOp.MAX) | (op == AluOp.MIN)

SETTLE = 2
"""Cycles from the last beat's move to the last register."""


class Alu(Component):
    """Term-by-term operator: ADD SUB MUL DIV MAX MIN ABS SQUARE, formulas in ``layout.ALU``.

    Members: ``bus`` In configuration bus, ``sub`` In(4), ``columns`` In(8); ``a``, ``b`` In, ``o``
    Out streams of ``lanes`` words; ``active`` Out, a beat leaves in this cycle; ``awake`` Out.

    One ALU configuration a packet, queue of ``depth``. The packets of ``a`` and ``b`` must have
    equal lengths, hence equal beats: count and ``last`` are taken from ``a``, a shorter or longer
    packet of ``b`` shifts what follows. Unary operations (ABS, SQUARE) leave ``b`` alone.

    Latency ``alu_model.LATENCY`` cycles and one beat a cycle; DIV: ``alu_model.DIVIDE_BITS`` bits of
    the quotient a cycle, ``alu_model.divide_cycles`` from beat to beat. A stall of ``o`` holds all
    stages once its slice is full. Results saturate.
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
                "awake": Out(1),
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

        m.submodules.slice = out = Slice(beat_layout(self.lanes))
        connect(m, out.o, flipped(self.o))
        valid = Signal(_STAGES)
        m.d.comb += [
            en.eq(~valid[-1] | out.i.ready),
            out.i.valid.eq(valid[-1]),
            self.active.eq(self.o.valid & self.o.ready),
        ]
        # What a beat needs further down goes with it, so that packets follow without a gap.
        count_bits = len(self.a.payload.count)
        tail = data.StructLayout(
            {
                "op": 4, "shift_a": 5, "shift_b": 5, "shift": 6, "narrow": 1,
                "count": count_bits, "last": 1,
            }
        )
        tails = [Signal(tail, name=f"s{k}_tail", reset_less=True) for k in range(_STAGES + 1)]
        m.d.comb += [
            tails[0].op.eq(Mux(divides, AluOp.ADD, setup.op)),
            tails[0].shift_a.eq(Mux(divides, 0, setup.shift_a)),
            tails[0].shift_b.eq(setup.shift_b),
            tails[0].shift.eq(Mux(divides, 0, setup.shift)),
            tails[0].narrow.eq(setup.narrow),
            tails[0].count.eq(self.a.payload.count),
            tails[0].last.eq(self.a.payload.last),
            out.i.payload.count.eq(tails[-1].count),
            out.i.payload.last.eq(tails[-1].last),
        ]
        # Nothing moves without a beat inside, which keeps an idle unit quiet.
        inside = Signal()
        moves = Signal()
        m.d.comb += moves.eq(en & inside)
        with m.If(en):
            m.d.sync += [valid.eq(Cat(accept, valid)), inside.eq(accept | valid[:-1].any())]
        stirs = en & (inside | valid.any())
        stay_awake(m, self.awake, config.awake, both, stirs, fires(out.o), settle=SETTLE)
        with m.If(accept):
            m.d.sync += tails[1].eq(tails[0])
        with m.If(moves):
            m.d.sync += [after.eq(before) for before, after in pairwise(tails[1:])]
        for lane in range(self.lanes):
            result = self._build_lane(m, lane, setup, quotients[lane], tails, accept, moves)
            m.d.comb += out.i.payload.words[lane].eq(result)
        return m

    def _build_lane(self, m, lane, setup, quotient, tails, accept, moves):
        """Ten stages of one lane; return its word.

        1 operands, 2 sign and product, 3 left shifts, 4 sum or difference, 5 choice, 6 to 8 right
        shift and clip, 9 rounding, 10 saturation.
        """

        def register(name: str, bits: int) -> Signal:
            return Signal(signed(bits), name=f"{name}_{lane}", reset_less=True)

        a, b = self.a.payload.words[lane], self.b.payload.words[lane]
        divides, takes_size = setup.op == AluOp.DIV, setup.op == AluOp.ABS
        s1_negate = Signal(name=f"s1_negate_{lane}", reset_less=True)
        s1_a, s2_a = (register(n, _SIZE_BITS) for n in ("s1_a", "s2_a"))
        s1_b, s2_b = (register(n, WORD_BITS) for n in ("s1_b", "s2_b"))
        s2_product, s3_product = (register(n, 2 * WORD_BITS) for n in ("s2_product", "s3_product"))
        s3_a, s3_b, s4_a, s4_b, s4_sum, s5_exact = (
            register(n, _EXACT_BITS) for n in ("s3_a", "s3_b", "s4_a", "s4_b", "s4_sum", "s5_exact")
        )
        s6_coarse = register("s6_coarse", _EXACT_BITS + 1)
        s7_clipped, s8_doubled, s9_rounded = (
            register(name, CLIPPED_BITS) for name in ("s7_clipped", "s8_doubled", "s9_rounded")
        )
        s10_word = register("s10_word", WORD_BITS)

        # ABS adds nothing to its operand; DIV comes here with its quotient, size and sign.
        size, negative = quotient
        with m.If(accept):
            m.d.sync += [
                s1_a.eq(Mux(divides, size, a)),
                s1_negate.eq(Mux(divides, negative, takes_size & (a < 0))),
                s1_b.eq(Mux(setup.op == AluOp.SQUARE, a, Mux(divides | takes_size, 0, b))),
            ]
        later = [
            s2_a.eq(Mux(s1_negate, -s1_a, s1_a)),
            s2_b.eq(s1_b),
            s2_product.eq(s1_a[:WORD_BITS].as_signed() * s1_b),
            s3_a.eq(s2_a << tails[2].shift_a),
            s3_b.eq(s2_b << tails[2].shift_b),
            s3_product.eq(s2_product),
            s4_sum.eq(Mux(_compares_or_subtracts(tails[3].op), s3_a - s3_b, s3_a + s3_b)),
            s4_a.eq(Mux(_multiplies(tails[3].op), s3_product, s3_a)),
            s4_b.eq(s3_b),
            s6_coarse.eq(doubled_coarse(s5_exact, tails[5].shift)),
            s7_clipped.eq(clip_shifted(s6_coarse)),
            s8_doubled.eq(shift_fine(s7_clipped, tails[7].shift)),
            s9_rounded.eq(rounded_sum(s8_doubled, Const(0, signed(1)))),
            s10_word.eq(saturate_word(s9_rounded, tails[9].narrow)),
        ]
        less = s4_sum[-1]
        with m.If(moves):
            m.d.sync += later
            with m.Switch(tails[4].op):
                with m.Case(AluOp.MUL, AluOp.SQUARE):
                    m.d.sync += s5_exact.eq(s4_a)
                with m.Case(AluOp.MAX):
                    m.d.sync += s5_exact.eq(Mux(less, s4_b, s4_a))
                with m.Case(AluOp.MIN):
                    m.d.sync += s5_exact.eq(Mux(less, s4_a, s4_b))
                with m.Default():
                    m.d.sync += s5_exact.eq(s4_sum)
        return s10_word

    def _build_dividers(self, m, setup, wanted, done, accept):
        """Divide the waiting beat, some bits of twice the quotients a cycle; return sizes and signs.

        Twice the quotient is floor(2 |a| 2**n / |b|) with n = shift_a - shift_b; a negative n
        only leaves out the last bits, because flooring twice is flooring once. So do bits that the
        last cycle finds too many. The lowest bit then rounds halves away from zero. Leading bits are
        skipped while those left are enough for any word: the rest begins with what stands there. If
        one of them were not 0, the first bit that is found is 1, and the quotient beyond every word.

        A bit is 1 where the rest less ``below`` is not negative. Where it is, the next step adds
        ``below`` again instead of taking the rest before it: twice the rest less ``below`` either
        way, and a sign decides within an adder.
        """
        least, skipped_bits = alu_model.LEAST_BITS, alu_model.SKIPPED_BITS
        most_skipped = skipped_bits * alu_model.SKIPS
        busy = Signal()
        more = Signal(signed(6))
        net = Signal(signed(8))
        bits = Signal(signed(8))
        skipped = Signal(range(most_skipped + 1))
        left = Signal(signed(8))  # bits to find; below 0: so many were found too many
        excess = Signal(range(_AT_ONCE))
        start = Signal()
        step = Signal()
        with m.Switch(Mux(more < 0, 0, more[exact_log2(skipped_bits) : -1])):
            for skips in range(alu_model.SKIPS):
                with m.Case(skips):
                    m.d.comb += skipped.eq(skips * skipped_bits)
            with m.Default():
                m.d.comb += skipped.eq(most_skipped)
        m.d.comb += [
            more.eq(setup.shift_a[:5] - setup.shift_b[:5]),
            net.eq(least + more),
            bits.eq(net - skipped),
            excess.eq(-left),
            start.eq(wanted & ~busy),
            step.eq(busy & ~done),
        ]
        with m.If(start):
            m.d.sync += [busy.eq(1), left.eq(Mux(bits < 0, 0, bits)), done.eq(net <= 0)]
        with m.Elif(step):
            m.d.sync += [left.eq(left - _AT_ONCE), done.eq(left <= _AT_ONCE)]
        with m.Elif(accept):
            m.d.sync += [busy.eq(0), done.eq(0)]

        quotients = []
        for lane in range(self.lanes):
            a, b = self.a.payload.words[lane], self.b.payload.words[lane]
            above = Signal(WORD_BITS, name=f"above_{lane}", reset_less=True)
            below = Signal(WORD_BITS, name=f"below_{lane}", reset_less=True)
            rest = Signal(signed(WORD_BITS + 1), name=f"rest_{lane}", reset_less=True)
            twice = Signal(_QUOTIENT_BITS, name=f"twice_{lane}", reset_less=True)
            negative, nonzero = (
                Signal(name=f"{n}_{lane}", reset_less=True) for n in ("negative", "nonzero")
            )
            placed = Signal(WORD_BITS + most_skipped, name=f"placed_{lane}")
            m.d.comb += placed.eq(magnitude(a) << skipped)
            trial, found = rest, []
            for bit in reversed(above[-_AT_ONCE:]):
                less = ~trial[-1]
                # The carry of a subtraction comes in below.
                before = Cat(1, bit, trial).as_signed()
                change = Cat(less, below ^ less.replicate(WORD_BITS), less).as_signed()
                with_carry = Signal(signed(WORD_BITS + 3), name=f"trial{len(found)}_{lane}")
                m.d.comb += with_carry.eq(before + change)
                trial = with_carry[1:]
                found.insert(0, ~trial[-1])
            new_rest = trial
            with m.If(start):
                m.d.sync += [
                    above.eq(placed[:WORD_BITS]),
                    below.eq(magnitude(b)),
                    nonzero.eq(b != 0),
                    negative.eq(a[-1] ^ b[-1]),
                    rest.eq(placed[WORD_BITS:]),
                    # By zero: beyond every word, or nothing for 0 / 0.
                    twice.eq(Mux((b == 0) & (a != 0), (1 << _QUOTIENT_BITS) - 1, 0)),
                ]
            with m.Elif(step & nonzero):
                m.d.sync += [above.eq(above << _AT_ONCE), rest.eq(new_rest)]
                # What has reached the top bits stays beyond every word.
                with m.If(~twice[-_AT_ONCE:].any()):
                    m.d.sync += twice.eq(Cat(*found, twice))
            exact = Signal(_QUOTIENT_BITS, name=f"twice_exact_{lane}")
            rounded = Signal(_QUOTIENT_BITS, name=f"twice_rounded_{lane}")
            m.d.comb += [exact.eq(twice >> excess), rounded.eq(exact[1:] + exact[0])]
            quotients.append((rounded, negative))
        return quotients


__all__ = ["Alu"]
