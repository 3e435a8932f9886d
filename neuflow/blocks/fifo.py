"""FIFO of beats on block RAM: buffering, row delay, skip connections."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from neuflow.blocks.ram import Ram
from neuflow.blocks.streams import beat_layout, beat_stream


class Fifo(Component):
    """Queue of beats of ``lanes`` words; packets pass in order, no configuration.

    Members: ``i`` In, ``o`` Out streams of ``lanes`` words. Holds ``words // lanes`` beats in RAM
    (a partial beat takes a whole place) and one more at its output. Latency 2 cycles, one beat a
    cycle. Full, ``i.ready`` is 0; it comes from a register.
    """

    LATENCY = 2

    def __init__(self, lanes: int, words: int):
        if words < lanes:
            raise ValueError(f"Fifo: {words} words hold no beat of {lanes}")
        self.lanes = lanes
        self.depth = words // lanes
        super().__init__({"i": In(beat_stream(lanes)), "o": Out(beat_stream(lanes))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.ram = ram = Ram(beat_layout(self.lanes).size, self.depth)
        level = Signal(range(self.depth + 1))
        write, read = Signal(range(self.depth)), Signal(range(self.depth))
        push, pop = Signal(), Signal()

        # The RAM's output register is the last place: it holds while nothing is read.
        m.d.comb += [
            self.i.ready.eq(level != self.depth),
            push.eq(self.i.valid & self.i.ready),
            pop.eq((level != 0) & (~self.o.valid | self.o.ready)),
            ram.write_enable.eq(push),
            ram.write_address.eq(write),
            ram.write_data.eq(self.i.payload.as_value()),
            ram.read_enable.eq(pop),
            ram.read_address.eq(read),
            self.o.payload.as_value().eq(ram.read_data),
        ]
        with m.If(push):
            m.d.sync += write.eq(Mux(write == self.depth - 1, 0, write + 1))
        with m.If(pop):
            m.d.sync += [read.eq(Mux(read == self.depth - 1, 0, read + 1)), self.o.valid.eq(1)]
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(push & ~pop):
            m.d.sync += level.eq(level + 1)
        with m.Elif(pop & ~push):
            m.d.sync += level.eq(level - 1)
        return m


__all__ = ["Fifo"]
