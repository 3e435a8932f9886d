"""Term-by-term operator: two streams in, one out, one operation for a packet."""

from __future__ import annotations

from itertools import pairwise

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import exact_log2

from neuflow.blocks import alu_model
from neuflow.blocks.arith import SHIFT_STEPS, magnitude, saturate_word, shift_step
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

_NEAR_BITS = _QUOTIENT_BITS + 1
"""A word or a quotient, with its sign."""

_FINE_BITS = 4
"""Bits of a shift to the left that are made by the multiplier, as a product with a power of two."""

_LEFT = WORD_BITS - 1
"""What the right shift may go to the left: by so much, what is not 0 reaches the ends of a word."""

_GUARD_BITS = WORD_BITS + 2
"""Twice a value is clipped to so many bits before it is rounded."""

_PLAN = data.StructLayout(
    {
        "product": 1,  # a x b: nothing is near
        "near_a": 1,  # a is near and b far, else b near and a far
        "power": 1 << _FINE_BITS, "far_high": 1,  # what far is shifted by: a factor, and 16 or nothing
        "minus_far": 1,
        "complement": 1,  # where near is subtracted: not its opposite
        "chooses": 1, "smallest": 1,  # the larger of near and far, or the smaller
        "common": 5,  # what both are shifted by
    }
)  # fmt: skip
"""How an operation is done, see ``Alu._build_plan``."""

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
        plan, minus_near, more = self._build_plan(m, setup)
        quotients, excess = self._build_dividers(m, more, both & divides, done, accept)

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
            {"plan": _PLAN, "shift": 6, "narrow": 1, "count": count_bits, "last": 1}
        )
        tails = [Signal(tail, name=f"s{k}_tail", reset_less=True) for k in range(_STAGES + 1)]
        m.d.comb += [
            tails[0].plan.eq(plan),
            # DIV gives twice a quotient, and behind it the bits that are too many.
            tails[0].shift.eq(Mux(divides, excess + 1, setup.shift)),
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
            # To the right, from _LEFT further left; what both operands are shifted by counts against it.
            right = Signal(signed(8))
            m.d.comb += right.eq(tails[1].shift + _LEFT - tails[1].plan.common)
            m.d.sync += tails[2].shift.eq(Mux(right < 0, 0, right))
        for lane in range(self.lanes):
            operands = self._build_operands(m, lane, setup, quotients[lane], minus_near, accept)
            result = self._build_lane(m, lane, tails, moves, *operands)
            m.d.comb += out.i.payload.words[lane].eq(result)
        return m

    def _build_plan(self, m, setup):
        """Say how the lanes do the packet's operation; return that, which goes with each beat,
        whether near is subtracted, and shift_a - shift_b.

        (a << shift_a) + (b << shift_b) is ((far << distance) + near) << common: only the word that
        is shifted further is shifted before the sum, by the multiplier that makes products too, and
        ``common`` comes off the shift to the right. ABS and DIV are near alone, and far times 0.
        """
        op = setup.op
        plan = Signal(_PLAN)
        more = Signal(signed(6))
        distance = Signal(5)
        alone = Signal()
        subtracts = Signal()
        unshifted = Signal()
        minus_near = Signal()
        m.d.comb += [
            more.eq(setup.shift_a[:5] - setup.shift_b[:5]),
            distance.eq(Mux(more < 0, -more, more)),
            alone.eq((op == AluOp.ABS) | (op == AluOp.DIV)),
            subtracts.eq(op == AluOp.SUB),
            unshifted.eq(plan.product | (op == AluOp.DIV)),
            minus_near.eq(subtracts & ~plan.near_a),
            plan.product.eq((op == AluOp.MUL) | (op == AluOp.SQUARE)),
            plan.near_a.eq(alone | ((more < 0) & ~plan.product)),
            plan.power.eq(Mux(alone, 0, 1 << distance[:_FINE_BITS])),
            plan.far_high.eq(distance[_FINE_BITS] & ~plan.product),
            plan.complement.eq(op == AluOp.DIV),
            plan.minus_far.eq((subtracts & plan.near_a) | plan.chooses),
            plan.chooses.eq((op == AluOp.MAX) | plan.smallest),
            plan.smallest.eq(op == AluOp.MIN),
            plan.common.eq(
                Mux(unshifted, 0, Mux(plan.near_a, setup.shift_a, setup.shift_b)[:5])
            ),
        ]  # fmt: skip
        return plan, minus_near, more

    def _build_operands(self, m, lane, setup, quotient, minus_near, accept):
        """Stage 1: a or DIV's quotient; b; whether near is inverted.

        DIV comes with twice the size of its quotient, and its sign. The complement of that size is
        one less than its opposite: so rounding, which takes halves up, takes them away from zero.
        """
        a, b = self.a.payload.words[lane], self.b.payload.words[lane]
        s1_a = Signal(signed(_NEAR_BITS), name=f"s1_a_{lane}", reset_less=True)
        s1_b = Signal(signed(WORD_BITS), name=f"s1_b_{lane}", reset_less=True)
        s1_invert = Signal(name=f"s1_invert_{lane}", reset_less=True)
        size, negative = quotient
        divides, takes_size = setup.op == AluOp.DIV, setup.op == AluOp.ABS
        with m.If(accept):
            m.d.sync += [
                s1_a.eq(Mux(divides, size, a)),
                s1_b.eq(Mux(setup.op == AluOp.SQUARE, a, b)),
                s1_invert.eq(Mux(divides, negative, Mux(takes_size, a[-1], minus_near))),
            ]
        return s1_a, s1_b, s1_invert

    def _build_lane(self, m, lane, tails, moves, s1_a, s1_b, s1_invert):
        """Stages 2 to 10: near and far; product or shift of far; sum; choice; right shift in three;
        rounding; saturation. Return the lane's word.
        """

        def register(name: str, bits: int) -> Signal:
            return Signal(signed(bits), name=f"{name}_{lane}", reset_less=True)

        plans = [tail.plan for tail in tails]
        s2_carry, s3_carry = (
            Signal(name=f"s{k}_carry_{lane}", reset_less=True) for k in range(2, 4)
        )
        s2_near, s3_near, s4_near = (register(f"s{k}_near", _NEAR_BITS) for k in range(2, 5))
        s2_far, s2_factor = register("s2_far", WORD_BITS), register("s2_factor", WORD_BITS + 1)
        s3_far, s4_far = (register(f"s{k}_far", 2 * WORD_BITS) for k in range(3, 5))
        # Below a sum is what gave it its carry.
        s4_sum, s5_exact = register("s4_sum", _EXACT_BITS + 1), register("s5_exact", _EXACT_BITS)
        s6_doubled, s7_doubled, s8_doubled = (
            register(f"s{k}_doubled", _GUARD_BITS + places - 1)
            for k, places in zip(range(6, 9), SHIFT_STEPS, strict=True)
        )
        s9_rounded, s10_word = register("s9_rounded", _GUARD_BITS), register("s10_word", WORD_BITS)

        near = Signal(signed(_NEAR_BITS), name=f"near_{lane}")
        shifted = s3_far << Cat(Const(0, _FINE_BITS), plans[3].far_high)
        change = shifted ^ plans[3].minus_far.replicate(_EXACT_BITS)
        m.d.comb += near.eq(Mux(plans[1].near_a, s1_a, s1_b) ^ s1_invert.replicate(_NEAR_BITS))
        # The sum; or near; or far, as it is or shifted.
        takes_far = s4_sum[-1] ^ plans[4].smallest
        choice = Signal(2, name=f"choice_{lane}")
        m.d.comb += choice.eq(
            Mux(plans[4].chooses, Cat(~takes_far | plans[4].far_high, takes_far), 0)
        )
        with m.If(moves):
            m.d.sync += [
                s2_near.eq(Mux(plans[1].product, 0, near)),
                s2_far.eq(Mux(plans[1].near_a, s1_b, s1_a)),
                s2_factor.eq(Mux(plans[1].product, s1_b, plans[1].power)),
                s2_carry.eq((s1_invert & ~plans[1].complement) | plans[1].minus_far),
                s3_near.eq(s2_near),
                s3_far.eq(s2_far * s2_factor),
                s3_carry.eq(s2_carry),
                s4_near.eq(s3_near),
                s4_far.eq(s3_far),
                s4_sum.eq(Cat(s3_carry, s3_near).as_signed() + Cat(s3_carry, change).as_signed()),
                s6_doubled.eq(
                    shift_step(Cat(Const(0, _LEFT + 1), s5_exact), tails[5].shift, 0, _GUARD_BITS)
                ),
                s7_doubled.eq(shift_step(s6_doubled, tails[6].shift, 1, _GUARD_BITS)),
                s8_doubled.eq(shift_step(s7_doubled, tails[7].shift, 2, _GUARD_BITS)),
                s9_rounded.eq(s8_doubled[1:].as_signed() + s8_doubled[0]),
                s10_word.eq(saturate_word(s9_rounded, tails[9].narrow)),
            ]
            # Of four by two bits, which is one look-up table a bit.
            with m.Switch(choice):
                with m.Case(0):
                    m.d.sync += s5_exact.eq(s4_sum[1:])
                with m.Case(1):
                    m.d.sync += s5_exact.eq(s4_near)
                with m.Case(2):
                    m.d.sync += s5_exact.eq(s4_far)
                with m.Case(3):
                    m.d.sync += s5_exact.eq(s4_far << (1 << _FINE_BITS))
        return s10_word

    def _build_dividers(self, m, more, wanted, done, accept):
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
            rest = Signal(WORD_BITS, name=f"rest_{lane}", reset_less=True)
            twice = Signal(_QUOTIENT_BITS, name=f"twice_{lane}", reset_less=True)
            negative, nonzero, endless = (
                Signal(name=f"{n}_{lane}", reset_less=True)
                for n in ("negative", "nonzero", "endless")
            )
            placed = Signal(WORD_BITS + most_skipped, name=f"placed_{lane}")
            m.d.comb += placed.eq(magnitude(a) << skipped)
            trial, found = rest, []
            for bit in reversed(above[-_AT_ONCE:]):
                # Subtract |b| from a rest that is not negative, else add it.
                opposite = ~trial[-1] ^ below[-1]
                # The carry of a subtraction comes in below.
                change = Cat(Const(0, 1), below) ^ opposite.replicate(WORD_BITS + 1)
                with_carry = Signal(WORD_BITS + 1, name=f"trial{len(found)}_{lane}")
                m.d.comb += with_carry.eq(Cat(1, bit, trial) + change)
                trial = with_carry[1:]
                found.insert(0, ~trial[-1])
            new_rest = trial
            with m.If(start):
                m.d.sync += [
                    above.eq(placed[:WORD_BITS]),
                    below.eq(b),
                    nonzero.eq(b != 0),
                    negative.eq(a[-1] ^ b[-1]),
                    rest.eq(placed[WORD_BITS:]),
                    # By zero: beyond every word, or nothing for 0 / 0.
                    endless.eq((b == 0) & (a != 0)),
                    twice.eq(0),
                ]
            with m.Elif(step & nonzero):
                m.d.sync += [above.eq(above << _AT_ONCE), rest.eq(new_rest)]
                # What has reached the top bits stays beyond every word.
                with m.If(~twice[-_AT_ONCE:].any()):
                    m.d.sync += twice.eq(Cat(*found, twice))
            quotients.append((Cat(twice[:-1], twice[-1] | endless), negative))
        return quotients, excess


__all__ = ["Alu"]
