"""Block RAM: one write port, one read port, and how it is placed for export.

The Python simulator elaborates Amaranth's memory; exported Verilog places the hand-written
module ``rtl/neuflow_ram.v``, so that no initial contents are printed and every tool infers a RAM.
"""

from __future__ import annotations

from amaranth.hdl import ClockSignal, Instance, Module, Signal
from amaranth.lib.memory import Memory, MemoryData
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from neuflow.blocks.place import is_export


class Ram(Component):
    """``depth`` words of ``width`` bits; a read takes one cycle.

    A word that is read in the cycle in which it is written reads as anything: who places a RAM must
    not depend on it. The Python simulator gives its bits inverted, so that tests would show it.

    Members: ``write_enable``, ``write_address``, ``write_data``, ``read_enable``,
    ``read_address`` In, ``read_data`` Out. ``read_data`` holds while ``read_enable`` is 0.
    Contents at power-up are undefined for the user of this block, zero in simulation.
    ``distributed``: synthesis is to take look-up tables, not block RAM.
    """

    LATENCY = 1

    def __init__(self, width: int, depth: int, distributed: bool = False):
        self.width = width
        self.depth = depth
        self.distributed = distributed
        address = max(1, ceil_log2(depth))
        super().__init__(
            {
                "write_enable": In(1),
                "write_address": In(address),
                "write_data": In(width),
                "read_enable": In(1),
                "read_address": In(address),
                "read_data": Out(width),
            }
        )
        self.data = MemoryData(shape=width, depth=depth, init=[])

    def elaborate(self, platform):
        if is_export(platform):  # the instance itself: a module around each would say nothing
            return Instance(
                "neuflow_ram",
                p_WIDTH=self.width,
                p_DEPTH=self.depth,
                p_ADDRESS=len(self.read_address),
                **({"p_DISTRIBUTED": 1} if self.distributed else {}),
                i_clk=ClockSignal(),
                i_write_enable=self.write_enable,
                i_write_address=self.write_address,
                i_write_data=self.write_data,
                i_read_enable=self.read_enable,
                i_read_address=self.read_address,
                o_read_data=self.read_data,
            )
        m = Module()
        m.submodules.memory = memory = Memory(self.data)
        write, read = memory.write_port(), memory.read_port()
        address_bits = ceil_log2(self.depth)
        clash = Signal()
        m.d.comb += [
            write.en.eq(self.write_enable),
            write.addr.eq(self.write_address[:address_bits]),
            write.data.eq(self.write_data),
            read.en.eq(self.read_enable),
            read.addr.eq(self.read_address[:address_bits]),
            self.read_data.eq(read.data ^ clash.replicate(self.width)),
        ]
        with m.If(self.read_enable):
            m.d.sync += clash.eq(self.write_enable & (write.addr == read.addr))
        return m
