# amaranth: UnusedElaboratable=no
"""Clock gates: how long a part stays awake, and that its sleep changes nothing that can be seen.

That every part is awake when it must be, its own tests show: they run it asleep where it may be.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out

from examples import digits
from neuflow.api import quantise_inputs
from neuflow.blocks.conv_drain import Drain
from neuflow.blocks.conv_rows import RowWriter
from neuflow.blocks.gate import add_gated, stay_awake
from neuflow.grid import TINY
from neuflow.run import build, rtl
from tests.convolver_layers import LAYERS, expected
from tests.helpers import simulate
from tests.test_agree import compiled
from tests.test_convolver import run


class Follower(Component):
    """Two registers that follow ``i``."""

    def __init__(self, settle: int) -> None:
        self.settle = settle
        super().__init__({"i": In(8), "o": Out(8), "awake": Out(1)})

    def elaborate(self, platform):
        m = Module()
        first, seen = Signal(8), Signal(8)
        m.d.sync += [seen.eq(self.i), first.eq(self.i), self.o.eq(first)]
        stay_awake(m, self.awake, self.i != seen, settle=self.settle)
        return m


class Gated(Component):
    """A follower behind a gate."""

    def __init__(self, settle: int) -> None:
        self.part = Follower(settle)
        super().__init__({"i": In(8), "o": Out(8), "awake": Out(1)})

    def elaborate(self, platform):
        m = Module()
        add_gated(m, "part", self.part, platform)
        m.d.comb += [
            self.part.i.eq(self.i), self.o.eq(self.part.o), self.awake.eq(self.part.awake)
        ]  # fmt: skip
        return m


def followed(settle: int) -> tuple[list[int], list[int]]:
    """Return output and ``awake``, cycle by cycle, after the input has changed."""
    top = Module()
    top.submodules.dut = dut = Gated(settle)
    found: tuple[list[int], list[int]] = ([], [])

    async def bench(ctx) -> None:
        await ctx.tick().repeat(8)
        ctx.set(dut.i, 7)
        for _ in range(5):
            for into, value in zip(found, (dut.o, dut.awake), strict=True):
                into.append(ctx.get(value))
            await ctx.tick()

    simulate(top, bench)
    return found


def test_a_part_settles_then_sleeps():
    assert followed(1) == ([0, 0, 7, 7, 7], [1, 1, 0, 0, 0])


def test_a_part_that_sleeps_too_early_keeps_what_it_had():
    assert followed(0) == ([0, 0, 0, 0, 0], [1, 0, 0, 0, 0])


@pytest.mark.parametrize(("part", "layer"), [(Drain, "few_slots"), (RowWriter, "ring")])
def test_a_convolver_that_sleeps_too_early_shows(part, layer, monkeypatch):
    monkeypatch.setattr(part, "SETTLE", 0)
    with pytest.raises(AssertionError):
        assert run([LAYERS[layer]]) == [expected(LAYERS[layer])]


@pytest.mark.rtl
def test_clocks_that_pass_the_gates_give_the_same_words_at_the_same_times():
    program = compiled("c", "tiny", 2, 16).ir
    words = quantise_inputs(program, digits.load(32).test_x[:2])
    sources = build.verilog_sources(TINY)
    runs = []
    for gated in (True, False):
        executable = build.simulator_of(sources, "grid tiny", gated=gated)
        runs.append(rtl.simulate(program, words, seed=5, executable=executable))
    (gated_words, gated_run), (passed_words, passed_run) = runs
    assert all(np.array_equal(gated_words[name], passed_words[name]) for name in passed_words)
    assert replace(gated_run, seconds=None) == replace(passed_run, seconds=None)
