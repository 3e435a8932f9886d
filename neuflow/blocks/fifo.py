"""FIFO of beats on block RAM: buffering, row delay, skip connections."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from neuflow.blocks.ram import Ram
from neuflow.blocks.streams import beat_layout, beat_stream


class Fifo(Component):
    """Queue of beats of ``lanes`` words; packets pass in order, no configuration.

    Members: ``i`` In, ``o`` Out streams of ``lanes`` words, ``awake`` Out. Holds ``words // lanes``
    beats in RAM (a partial beat takes a whole place) and two more behind it. Latency 3 cycles, one
    beat a cycle. Full, ``i.ready`` is 0; it comes from a register.
    """

    LATENCY = 3

    def __init__(self, lanes: int, words: int):
        if words < lanes:
            raise ValueError(f"Fifo: {words} words hold no beat of {lanes}")
        self.lanes = lanes
        self.depth = words // lanes
        super().__init__(
            {"i": In(beat_stream(lanes)), "o": Out(beat_stream(lanes)), "awake": Out(1)}
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.ram = ram = Ram(beat_layout(self.lanes).size, self.depth)
        level = Signal(range(self.depth + 1))
        room = Signal(init=1)
        some = Signal()
        write = Signal(range(self.depth))
        read = Signal(range(self.depth))
        push = Signal()
        pop = Signal()
        move = Signal()
        fetched = Signal()

        # Two places behind the RAM: its output register, and one that is fast to read. A word is
        # never read in the cycle it is written: the level tells of it one cycle later.
        m.d.comb += [
            self.i.ready.eq(room),
            push.eq(self.i.valid & room),
            move.eq(~self.o.valid | self.o.ready),
            pop.eq(some & (~fetched | move)),
            ram.write_enable.eq(push),
            ram.write_address.eq(write),
            ram.write_data.eq(self.i.payload.as_value()),
            ram.read_enable.eq(pop),
            ram.read_address.eq(read),
            self.awake.eq(push | pop | (move & (fetched | self.o.valid))),
        ]
        with m.If(move):
            m.d.sync += [self.o.valid.eq(fetched), fetched.eq(0)]
        # The payload is only meaningful with valid.
        payload = Signal(len(ram.read_data), reset_less=True)
        m.d.comb += self.o.payload.as_value().eq(payload)
        with m.If(move & fetched):
            m.d.sync += payload.eq(ram.read_data)
        with m.If(pop):
            m.d.sync += [read.eq(Mux(read == self.depth - 1, 0, read + 1)), fetched.eq(1)]
        with m.If(push):
            m.d.sync += write.eq(Mux(write == self.depth - 1, 0, write + 1))
        with m.If(push & ~pop):
            m.d.sync += [level.eq(level + 1), room.eq(level != self.depth - 1), some.eq(1)]
        with m.Elif(pop & ~push):
            m.d.sync += [level.eq(level - 1), room.eq(1), some.eq(level != 1)]
        return m


__all__ = ["Fifo"]
