"""Numbers in gates: the rules of ``neuflow/fixed.py`` on Amaranth values.

The functions are combinational and exact: a result is as wide as it can become, only
:func:`shift_step` and :func:`saturate_word` shorten. They name their operand several times and
Amaranth prints an expression as often as it is named, so pass signals, not long expressions.
:class:`Requantise` is the pipelined exit of every accumulator. ``tests/test_fixed.py`` sweeps
both sides over the extremes together.
"""

from __future__ import annotations

from itertools import pairwise

from amaranth.hdl import Cat, Const, Module, Mux, ShapeLike, Signal, Value, signed
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from neuflow.fixed import ACC_BITS, NARROW_BITS, WORD_BITS

M_BITS = 15
SHIFT_BITS = 6

GUARD_BITS = WORD_BITS + 3
"""Width to which :func:`shift_step` may clip twice a value before ``zero`` and the rounding bit are
added: what is clipped there lies beyond the range of a word whatever ``zero`` is."""

SHIFT_STEPS = (16, 4, 1)
"""Places by which a step of a shift goes, 0 to 3 times; each step is a stage of its own."""

_PIECE_BITS = WORD_BITS
"""Bits of the accumulator that a multiplier takes."""


def saturate_word(value: Value, narrow: Value) -> Value:
    """Clip a signed value to a word: 16 bits, or 8 bits (sign-extended) where ``narrow`` is 1."""
    # What lies between the ends of the two is sign, unless a word of 16 bits is beyond its own.
    sign, at, top = value[-1], NARROW_BITS - 1, WORD_BITS - 1
    middle, head = value[at:top], value[top:]
    end = sign.replicate(top) ^ Cat(Const(-1, at), (~narrow).replicate(len(middle)))
    over = (head != sign.replicate(len(head))) | (
        narrow & (middle != sign.replicate(len(middle)))
    )
    return Cat(Mux(over, end, value[:top]), sign).as_signed()


def shift_step(value: Value, shift: Value, step: int, bits: int = GUARD_BITS) -> Value:
    """Shift a signed value right by 0 to 3 times ``SHIFT_STEPS[step]``; steps come in their order.

    The three begin with twice a value, so that bit 0 of the last result is the rounding bit: the floor
    plus the highest bit shifted out is the quotient, halves up, and needs no wide adder, see
    :func:`rounded_sum`. The last result has ``bits`` bits, the others as many more as the steps after
    them may drop. A value that is beyond stays so: its sign is kept, and the bit below made its
    opposite, while those further down may hold anything.
    """
    places = SHIFT_STEPS[step]
    at, below_sign = exact_log2(places), bits + places - 3
    shifted = value.as_signed() >> Cat(Const(0, at), shift[at : at + 2])
    head, sign = shifted[below_sign:], value[-1]
    differs = head != sign.replicate(len(head))
    return Cat(shifted[:below_sign], differs ^ sign, sign).as_signed()


def rounded_sum(doubled: Value, value: Value) -> Value:
    """Add ``value`` to half of ``doubled``, halves up, in one adder: the 1 beside it carries."""
    return (doubled + Cat(Const(1, 1), value).as_signed())[1:].as_signed()


def negated(value: Value, negate: Value) -> Value:
    """Return ``-value`` where ``negate`` is 1, else ``value``: one adder, exact."""
    wide = Cat(value, value[-1])
    return (negate + (wide ^ negate.replicate(len(wide))))[: len(wide)].as_signed()


def magnitude(value: Value) -> Value:
    """Return ``|value|``, unsigned, exact for the most negative value too."""
    return negated(value, value[-1])[: len(value)]


class Requantise(Component):
    """Pipelined exit of an accumulator: ``sat((((acc + bias) * m + half) >> s) + zero)``.

    Members: ``en`` In, all stages move; ``acc``, ``bias`` In signed 48 bits with
    ``|acc + bias| < 2**47``; ``m`` In, 0 to 32767; ``s`` In, 0 to 62; ``zero`` In, a word;
    ``narrow`` In, 1 clips to 8 bits; ``out`` Out, a word.

    Latency ``LATENCY`` cycles with ``en`` = 1, one value a cycle, parameters may change with every
    value. There is no valid bit: the user shifts one alongside under the same ``en``. While ``en``
    is 0 everything holds.
    """

    LATENCY = 9

    def __init__(self):
        super().__init__(
            {
                "en": In(1),
                "acc": In(signed(ACC_BITS)),
                "bias": In(signed(ACC_BITS)),
                "m": In(M_BITS + 1),
                "s": In(SHIFT_BITS),
                "zero": In(signed(WORD_BITS)),
                "narrow": In(1),
                "out": Out(signed(WORD_BITS)),
            }
        )

    def elaborate(self, platform):
        m = Module()

        def register(name: str, shape: ShapeLike) -> Signal:
            return Signal(shape, name=name, reset_less=True)

        # Parameters travel with their value; the last stage that needs one ends its chain.
        s1_m = register("s1_m", M_BITS)
        shifts = [register(f"s{k}_s", SHIFT_BITS) for k in range(1, 7)]
        tails = [register(f"s{k}_tail", WORD_BITS + 1) for k in range(1, 9)]
        zero, narrow = tails[6][:WORD_BITS].as_signed(), tails[7][WORD_BITS]

        # The product is made of three pieces: one multiplier each, and short carries.
        pieces = range(0, ACC_BITS, _PIECE_BITS)
        s1_total = register("s1_total", signed(ACC_BITS))
        cut = [s1_total[at : at + _PIECE_BITS] for at in pieces]
        cut[-1] = cut[-1].as_signed()
        wide = _PIECE_BITS + M_BITS
        s2_low, s2_middle = register("s2_low", wide), register("s2_middle", wide)
        s2_high, s3_high = register("s2_high", signed(wide)), register("s3_high", signed(wide))
        s3_low, s3_sum = register("s3_low", _PIECE_BITS), register("s3_sum", wide + 1)
        s4_product = register("s4_product", signed(ACC_BITS + M_BITS))
        s5_doubled, s6_doubled, s7_doubled = (
            register(f"s{k}_doubled", signed(GUARD_BITS + places - 1))
            for k, places in zip(range(5, 8), SHIFT_STEPS, strict=True)
        )
        s8_sum = register("s8_sum", signed(GUARD_BITS))
        out = register("rounded", signed(WORD_BITS))
        m.d.comb += self.out.eq(out)
        with m.If(self.en):
            m.d.sync += [s1_m.eq(self.m), shifts[0].eq(self.s)]
            m.d.sync += tails[0].eq(Cat(self.zero, self.narrow))
            for chain in (shifts, tails):
                m.d.sync += [after.eq(before) for before, after in pairwise(chain)]
            m.d.sync += [
                s1_total.eq(self.acc + self.bias),
                s2_low.eq(cut[0] * s1_m),
                s2_middle.eq(cut[1] * s1_m),
                s2_high.eq(cut[2] * s1_m),
                s3_low.eq(s2_low),
                s3_sum.eq(s2_middle + s2_low[_PIECE_BITS:]),
                s3_high.eq(s2_high),
                s4_product.eq(Cat(s3_low, s3_sum[:_PIECE_BITS], s3_high + s3_sum[_PIECE_BITS:])),
                s5_doubled.eq(shift_step(Cat(Const(0, 1), s4_product), shifts[3], 0)),
                s6_doubled.eq(shift_step(s5_doubled, shifts[4], 1)),
                s7_doubled.eq(shift_step(s6_doubled, shifts[5], 2)),
                s8_sum.eq(rounded_sum(s7_doubled, zero)),
                out.eq(saturate_word(s8_sum, narrow)),
            ]
        return m


__all__ = [
    "GUARD_BITS",
    "SHIFT_STEPS",
    "Requantise",
    "magnitude",
    "negated",
    "rounded_sum",
    "saturate_word",
    "shift_step",
]
