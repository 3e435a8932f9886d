"""Numbers in gates: the rules of ``neuflow/fixed.py`` on Amaranth values.

The functions are combinational and exact: a result is as wide as it can become, only
:func:`saturate` and :func:`saturate_word` shorten. They name their operand several times and
Amaranth prints an expression as often as it is named, so pass signals, not long expressions.
:class:`Requantise` is the pipelined exit of every accumulator. ``tests/test_fixed.py`` sweeps
both sides over the extremes together.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib.wiring import Component, In, Out

from neuflow.fixed import ACC_BITS, NARROW_BITS, WORD_BITS

M_BITS = 15
SHIFT_BITS = 6

_GUARD_BITS = WORD_BITS + 3
"""Width to which a shifted value may be clipped before ``zero`` and the rounding bit are added:
what is clipped there lies beyond the range of a word whatever ``zero`` is."""


def saturate(value: Value, bits: int) -> Value:
    """Clip a signed value to the range of a signed word of ``bits`` bits."""
    if len(value) <= bits:
        return value
    head = value[bits - 1 :]
    sign = value[-1]
    end = Cat((~sign).replicate(bits - 1), sign)
    return Mux(head.all() | ~head.any(), value[:bits], end).as_signed()


def saturate_word(value: Value, narrow: Value) -> Value:
    """Clip a signed value to a word: 16 bits, or 8 bits (sign-extended) where ``narrow`` is 1."""
    return Mux(narrow, saturate(value, NARROW_BITS), saturate(value, WORD_BITS))


def round_shift(value: Value, shift: Value) -> Value:
    """Divide a signed value by ``2**shift``, halves up: ``(value + half) >> shift``.

    Written as floor plus the highest bit shifted out, which is the same and needs no wide adder.
    ``shift`` may be any amount up to the width of ``value``.
    """
    doubled = Cat(Const(0, 1), value).as_signed() >> shift
    return doubled[1:].as_signed() + doubled[0]


def tree_sum(values: Iterable[Value]) -> Value:
    """Add values in a balanced tree: shallow, and one bit a level instead of one bit a term."""
    terms = list(values)
    while len(terms) > 1:
        pairs = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = pairs + terms[2 * len(pairs) :]
    return terms[0]


def magnitude(value: Value) -> Value:
    """Return ``|value|``, unsigned, exact for the most negative value too."""
    return Mux(value < 0, -value, value).as_unsigned()[: len(value)]


class Requantise(Component):
    """Pipelined exit of an accumulator: ``sat((((acc + bias) * m + half) >> s) + zero)``.

    Members: ``en`` In, all stages move; ``acc``, ``bias`` In signed 48 bits with
    ``|acc + bias| < 2**47``; ``m`` In, 0 to 32767; ``s`` In, 0 to 62; ``zero`` In, a word;
    ``narrow`` In, 1 clips to 8 bits; ``out`` Out, a word.

    Latency ``LATENCY`` cycles with ``en`` = 1, one value a cycle, parameters may change with every
    value. There is no valid bit: the user shifts one alongside under the same ``en``. While ``en``
    is 0 everything holds.
    """

    LATENCY = 5

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
        half = ACC_BITS // 2
        s1_total = Signal(signed(ACC_BITS))
        s2_low = Signal(half + M_BITS)
        s2_high = Signal(signed(half + M_BITS))
        s3_product = Signal(signed(ACC_BITS + M_BITS))
        s4_doubled = Signal(signed(_GUARD_BITS))

        # Parameters travel with their value; the last stage that needs one ends its chain.
        s1_m = Signal(M_BITS)
        s1_s, s2_s, s3_s = (Signal(SHIFT_BITS, name=f"s{k}_s") for k in (1, 2, 3))
        tails = [Signal(WORD_BITS + 1, name=f"s{k}_tail") for k in (1, 2, 3, 4)]
        zero, narrow = tails[-1][:WORD_BITS].as_signed(), tails[-1][WORD_BITS]

        doubled = Signal(signed(ACC_BITS + M_BITS + 1))
        rounded = Signal(signed(_GUARD_BITS))
        m.d.comb += [
            # Bit 0 of the doubled value is the rounding bit, see round_shift.
            doubled.eq(Cat(Const(0, 1), s3_product).as_signed() >> s3_s),
            rounded.eq(s4_doubled[1:].as_signed() + s4_doubled[0] + zero),
        ]
        with m.If(self.en):
            m.d.sync += [s1_m.eq(self.m), s1_s.eq(self.s), s2_s.eq(s1_s), s3_s.eq(s2_s)]
            m.d.sync += tails[0].eq(Cat(self.zero, self.narrow))
            m.d.sync += [after.eq(before) for before, after in pairwise(tails)]

            # The product is made of two halves, so that no multiplier is wider than a DSP pair.
            m.d.sync += [
                s1_total.eq(self.acc + self.bias),
                s2_low.eq(s1_total[:half] * s1_m),
                s2_high.eq(s1_total[half:].as_signed() * s1_m),
                s3_product.eq(Cat(s2_low[:half], s2_high + s2_low[half:])),
            ]
            m.d.sync += [
                s4_doubled.eq(saturate(doubled, _GUARD_BITS)),
                self.out.eq(saturate_word(rounded, narrow)),
            ]
        return m


__all__ = [
    "Requantise",
    "magnitude",
    "round_shift",
    "saturate",
    "saturate_word",
    "tree_sum",
]
