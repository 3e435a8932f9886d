# amaranth: UnusedElaboratable=no
"""Numbers: NumPy (``neuflow/fixed.py``) and gates (``neuflow/blocks/arith.py``) side by side."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from amaranth.hdl import Cat, Const, Module, signed
from amaranth.lib.wiring import Component, In, Out

from neuflow import fixed
from neuflow.blocks import arith
from tests.helpers import simulate

Case = tuple[int, int, int, int, int, int]


def requantise_cases() -> list[Case]:
    """Return (acc, bias, m, s, zero, narrow): every extreme with every other, then random ones."""
    top = (1 << 47) - 1
    sums = [(top, 0), (-top, 0), (0, top), (0, -top), (top, -top), (0, 0), (-1, 0), (1, 1)]
    sums += [(12345, -6), (-32769, 0), (32768, 0), (255, 1), (-257, 0), (1 << 30, 3)]
    corners = itertools.product(
        sums, (0, 1, 2, 3, 16384, 32767), (0, 1, 2, 15, 31, 47, 61, 62), (-32768, -1, 0, 1, 32767)
    )
    cases = [(a, b, m, s, z, n) for (a, b), m, s, z in corners for n in (0, 1)]
    rng = random.Random(1)
    for _ in range(3000):
        bits = rng.randrange(1, 47)
        acc, bias = (rng.randrange(-(1 << bits) // 2, (1 << bits) // 2 + 1) for _ in range(2))
        m = rng.randrange(1 << rng.randrange(16))
        cases.append((acc, bias, m, rng.randrange(63), rng.randrange(-32768, 32768), 0))
    return cases


def requantise_exact(case: Case) -> int:
    """Return the rule in Python integers, which never overflow: the judge of both sides."""
    acc, bias, m, s, zero, narrow = case
    half = (1 << s) >> 1
    high = 127 if narrow else 32767
    return max(-high - 1, min(high, (((acc + bias) * m + half) >> s) + zero))


CASES = requantise_cases()
EXACT = [requantise_exact(case) for case in CASES]


def test_numpy_requantise_is_exact_over_the_extremes() -> None:
    acc, bias, m, s, zero, narrow = np.array(CASES, np.int64).T
    wide = fixed.requantise(acc, bias, m, s, zero, 16)
    short = fixed.requantise(acc, bias, m, s, zero, 8)
    assert np.where(narrow, short, wide).tolist() == EXACT


def test_requantise_pipeline_is_exact_over_the_extremes_and_holds_without_enable() -> None:
    dut = arith.Requantise()
    cases = CASES[::7] + CASES[-200:]
    exact = EXACT[::7] + EXACT[-200:]
    rng = random.Random(2)
    found: list[int] = []

    async def bench(ctx) -> None:
        enabled = 0
        while len(found) < len(cases):
            index = min(enabled, len(cases) - 1)
            names = ("acc", "bias", "m", "s", "zero", "narrow")
            for name, value in zip(names, cases[index], strict=True):
                ctx.set(getattr(dut, name), value)
            en = rng.random() < 0.8
            ctx.set(dut.en, en)
            before = ctx.get(dut.out)
            await ctx.tick()
            if not en:
                assert ctx.get(dut.out) == before
                continue
            enabled += 1
            if enabled >= dut.LATENCY:
                found.append(ctx.get(dut.out))

    simulate(dut, bench)
    assert found == exact


SHIFTS = (0, 1, 2, 8, 15, 22, 38, 62)


class Functions(Component):
    """All combinational functions beside each other."""

    def __init__(self) -> None:
        super().__init__(
            {
                "value": In(signed(40)),
                "shift": In(6),
                "word": In(signed(16)),
                "narrow": In(1),
                "clip_word": Out(signed(16)),
                "rounded": Out(signed(16)),
                "size": Out(16),
            }
        )

    def elaborate(self, platform):
        m = Module()
        doubled = Cat(Const(0, 1), self.value)
        for step in range(len(arith.SHIFT_STEPS)):
            doubled = arith.shift_step(doubled, self.shift, step)
        m.d.comb += [
            self.clip_word.eq(arith.saturate_word(self.value, self.narrow)),
            self.rounded.eq(
                arith.saturate_word(arith.rounded_sum(doubled, self.word), self.narrow)
            ),
            self.size.eq(arith.magnitude(self.word)),
        ]
        return m


def test_functions_agree_with_numpy_over_the_extremes() -> None:
    dut = Functions()
    powers = [sign << b for b in (0, 7, 8, 15, 16, 30, 38) for sign in (-1, 1)]
    ends = [power + d for power in powers for d in (-1, 0, 1)]
    words = [-32768, -32767, -1, 0, 1, 32766, 32767]
    checked = 0

    async def bench(ctx) -> None:
        nonlocal checked
        for index, (value, shift) in enumerate(itertools.product(ends, SHIFTS)):
            word = words[index % len(words)]
            ctx.set(dut.value, value)
            ctx.set(dut.shift, shift)
            ctx.set(dut.word, word)
            for narrow in (0, 1):
                ctx.set(dut.narrow, narrow)
                bits = 8 if narrow else 16
                assert ctx.get(dut.clip_word) == fixed.saturate(value, bits)
                total = fixed.round_shift(value, shift) + word
                assert ctx.get(dut.rounded) == fixed.saturate(total, bits)
            assert ctx.get(dut.size) == abs(word)
            checked += 1

    simulate(dut, bench, clocked=False)
    assert checked == len(ends) * len(SHIFTS)


@pytest.mark.parametrize(("bits", "low", "high"), [(16, -32768, 32767), (8, -128, 127)])
def test_quantise_rounds_halves_up_and_saturates(bits: int, low: int, high: int) -> None:
    number = fixed.FixedPoint(bits, 1)
    values = np.array([0.25, -0.25, 0.75, -0.75, 1e9, -1e9])
    assert number.quantise(values).tolist() == [1, 0, 2, -1, high, low]
    assert number.dequantise([3, -3]).tolist() == [1.5, -1.5]
