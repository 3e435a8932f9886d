"""One row of the array: the multipliers and accumulators of one map."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from neuflow.blocks.streams import WORD_BITS
from neuflow.grid import GridConfig


class MacRow(Component):
    """``pixels`` multiply-accumulators that share a weight, and the registers they drain through.

    Members: ``words`` In, one a pixel; ``weight``, ``multiply`` In. One cycle later: ``valid`` In, add
    the products; ``first`` In with it, begin a new sum. ``move`` In: the drain registers take, with
    ``copy`` In, the sums, else go on to the next pixel. ``take`` In: ``out`` Out takes the pixel that
    comes first there; for each bit of ``behind`` In, the one after: so often they have yet to go on.
    Sums are exact.

    All of a row is one flat module: with one module a multiplier, simulation takes twice as long.
    """

    def __init__(self, grid: GridConfig):
        self.grid = grid
        super().__init__(
            {
                "words": In(data.ArrayLayout(signed(WORD_BITS), grid.pixels)),
                "weight": In(signed(WORD_BITS)),
                "multiply": In(1),
                "valid": In(1),
                "first": In(1),
                "move": In(1),
                "copy": In(1),
                "take": In(1),
                "behind": In(2),
                "out": Out(signed(grid.acc_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        pixels, shape = range(self.grid.pixels), signed(self.grid.acc_bits)
        products = [Signal(signed(2 * WORD_BITS), name=f"product{n}", reset_less=True) for n in pixels]
        sums = [Signal(shape, name=f"sum{n}", reset_less=True) for n in pixels]
        drains = [Signal(shape, name=f"drain{n}", reset_less=True) for n in pixels]

        with m.If(self.multiply):
            m.d.sync += [products[n].eq(self.words[n] * self.weight) for n in pixels]
        with m.If(self.valid):
            m.d.sync += [sums[n].eq(Mux(self.first, 0, sums[n]) + products[n]) for n in pixels]
        onward = [*drains[1:], Const(0, shape), Const(0, shape)]
        with m.If(self.move):
            m.d.sync += [drains[n].eq(Mux(self.copy, sums[n], onward[n])) for n in pixels]
        with m.If(self.take):
            first = Mux(self.behind.any(), onward[0], drains[0])
            m.d.sync += self.out.eq(Mux(self.behind.all(), onward[1], first))
        return m
