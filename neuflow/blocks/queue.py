"""A queue in a RAM."""

from __future__ import annotations

from amaranth.hdl import Module, Shape, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from neuflow.blocks.gate import fires
from neuflow.blocks.ram import Ram


class Queue(Component):
    """First in, first out, in a RAM.

    Members: ``i`` In, ``o`` Out stream of ``shape``, ``clear`` In (drop everything at once),
    ``level`` Out (entries in the RAM), ``awake`` Out. Room for ``depth`` (a power of 2) entries and
    one at the output. Latency 2 cycles, throughput 1 a cycle. ``distributed``: see ``Ram``.
    """

    LATENCY = 2

    def __init__(self, shape: data.StructLayout, depth: int, distributed: bool = False):
        self.shape = shape
        self.depth = depth
        self.distributed = distributed
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                "o": Out(stream.Signature(shape)),
                "clear": In(1),
                "level": Out(range(depth + 1)),
                "awake": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.ram = ram = Ram(
            Shape.cast(self.shape).width, self.depth, self.distributed
        )
        head = Signal(len(ram.read_address))
        tail = Signal(len(ram.read_address))
        push = Signal()
        fetch = Signal()

        m.d.comb += [
            self.i.ready.eq(~self.level[-1]),  # of a power of 2
            push.eq(self.i.valid & self.i.ready),
            fetch.eq((self.level != 0) & (~self.o.valid | self.o.ready)),
            ram.write_enable.eq(push),
            ram.write_address.eq(tail),
            ram.write_data.eq(self.i.payload.as_value()),
            ram.read_enable.eq(fetch),
            ram.read_address.eq(head),
            self.o.payload.as_value().eq(ram.read_data),
            self.awake.eq(push | fetch | fires(self.o) | self.clear),
        ]
        m.d.sync += [
            tail.eq(tail + push),
            head.eq(head + fetch),
            self.level.eq(self.level + push - fetch),
            self.o.valid.eq(fetch | (self.o.valid & ~self.o.ready)),
        ]
        with m.If(self.clear):
            m.d.sync += [head.eq(0), tail.eq(0), self.level.eq(0), self.o.valid.eq(0)]
        return m
