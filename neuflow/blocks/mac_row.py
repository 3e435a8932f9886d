"""One row of the array: the multipliers and accumulators of one map."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from neuflow.blocks.choose import select
from neuflow.blocks.streams import WORD_BITS
from neuflow.grid import GridConfig


class MacRow(Component):
    """``pixels`` multiply-accumulators that share a weight, and the registers they drain through.

    Members: ``words`` In, one a pixel; ``weight``, ``multiply`` In. One cycle later: ``valid`` In, add
    the products; ``first`` In with it, begin a new sum. ``copy`` In: the drain registers take the sums.
    ``take`` In: ``out`` Out takes the next pixel of theirs, from the first one on. Sums are exact.

    The drain registers stand still, and ``out`` chooses among them: a third of a look-up table for each
    bit that waits, where passing sums along would take half of one.

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
                "copy": In(1),
                "take": In(1),
                "out": Out(signed(grid.acc_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        pixels, shape = range(self.grid.pixels), signed(self.grid.acc_bits)
        products = [Signal(signed(2 * WORD_BITS), name=f"product{n}", reset_less=True) for n in pixels]
        sums = [Signal(shape, name=f"sum{n}", reset_less=True) for n in pixels]
        drain = Signal(data.ArrayLayout(shape, self.grid.pixels), reset_less=True)

        with m.If(self.multiply):
            m.d.sync += [products[n].eq(self.words[n] * self.weight) for n in pixels]
        with m.If(self.valid):
            m.d.sync += [sums[n].eq(Mux(self.first, 0, sums[n]) + products[n]) for n in pixels]
        pixel = Signal(pixels, name="pixel", reset_less=True)
        with m.If(self.copy):
            m.d.sync += [drain.eq(Cat(sums)), pixel.eq(0)]
        with m.Elif(self.take):
            m.d.sync += pixel.eq(pixel + 1)
        with m.If(self.take):
            m.d.sync += self.out.eq(select(list(drain), pixel))
        return m
