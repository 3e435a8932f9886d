"""Program fetch: memory to 32-bit words, ahead of their use."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from neuflow.blocks.axi import beat_bits
from neuflow.blocks.dma_address import request_stream, response_stream
from neuflow.blocks.queue import Queue
from neuflow.grid import GridConfig
from neuflow.layout import CONFIG_BITS


def word_stream() -> stream.Signature:
    """Return the signature of program words; ``error``: the memory answered with an error."""
    layout = data.StructLayout({"word": unsigned(CONFIG_BITS), "error": unsigned(1)})
    return stream.Signature(layout)


class Fetcher(Component):
    """Read the program ahead, from its first word on, without an end.

    Members: ``host_program`` In (address in units of 4 KB), ``restart`` In (begin again at the
    first word; what was read ahead is dropped), ``enable`` In (ask for more), ``request``,
    ``response`` to the arbiter, ``o`` Out stream of words. Bursts are whole (``burst_beats``); at
    most two are buffered or under way, so up to that much is read beyond the program's end. One
    word a cycle. A request that was not taken is withdrawn in the cycle after ``restart`` or
    ``enable`` = 0. A response never waits.
    """

    def __init__(self, grid: GridConfig):
        self.grid = grid
        super().__init__(
            {
                "host_program": In(32),
                "restart": In(1),
                "enable": In(1),
                "request": Out(request_stream(grid)),
                "response": In(response_stream(grid)),
                "o": Out(word_stream()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        grid = self.grid
        burst = grid.burst_beats
        depth = 2 * burst
        shape = response_stream(grid).members["payload"].shape
        m.submodules.buffer = buffer = Queue(shape, depth)

        # Ask for a burst while all that is under way and held leaves room for it.
        beat = Signal(beat_bits(grid))
        under_way = Signal(range(depth + 1))
        drop = Signal(range(depth + 1))  # beats under way that belong to before the restart
        asked = Signal()
        wanted = Signal()
        m.d.comb += [
            self.request.payload.address.eq(beat),
            self.request.payload.length.eq(burst - 1),
            self.request.valid.eq(wanted),
            asked.eq(self.request.valid & self.request.ready),
            self.response.ready.eq(1),
            buffer.i.payload.eq(self.response.payload),
            buffer.i.valid.eq(self.response.valid & (drop == 0)),
            buffer.clear.eq(self.restart),
        ]
        left = Signal.like(under_way)
        m.d.comb += left.eq(under_way - self.response.valid)
        fits = under_way + buffer.level <= depth - burst
        m.d.sync += [
            under_way.eq(left + Mux(asked, burst, 0)),
            wanted.eq(self.enable & ~self.restart & Mux(wanted, ~asked, fits)),
        ]
        with m.If(self.restart):
            page = Cat(Const(0, 12 - ceil_log2(grid.bus_bits // 8)), self.host_program)
            m.d.sync += [beat.eq(page), drop.eq(left + Mux(asked, burst, 0))]
        with m.Else():
            with m.If(asked):
                m.d.sync += beat.eq(beat + burst)
            with m.If(self.response.valid & (drop != 0)):
                m.d.sync += drop.eq(drop - 1)

        # One word of the oldest beat after the other.
        words = grid.bus_bits // CONFIG_BITS
        index = Signal(range(words))
        moves = Signal()
        ends = Signal()
        m.d.comb += [
            self.o.payload.word.eq(buffer.o.payload.data.word_select(index, CONFIG_BITS)),
            self.o.payload.error.eq(buffer.o.payload.error),
            self.o.valid.eq(buffer.o.valid),
            moves.eq(self.o.valid & self.o.ready),
            ends.eq(index == words - 1),
            buffer.o.ready.eq(moves & ends),
        ]
        with m.If(self.restart):
            m.d.sync += index.eq(0)
        with m.Elif(moves):
            m.d.sync += index.eq(Mux(ends, 0, index + 1))
        return m
