"""Global lines: every column's line reaches the convolvers of all columns that listen to it."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib.wiring import Component, In, Out

from neuflow.blocks.streams import beat_stream
from neuflow.layout import COLUMN_BITS


class Lines(Component):
    """``columns`` sources to ``columns`` sinks; a source's packet goes to all sinks in ``dest``.

    Members, lists over the columns: ``i`` In streams, ``dest`` In (one bit a sink, steady while a
    packet passes), ``listening``, ``source`` In (what a sink waits for), ``o`` Out streams.

    Each sink takes a beat in its own time; the source goes on when all of ``dest`` have it. A sink
    that is not listening to this source holds it back. Combinational: latency 0.
    """

    def __init__(self, columns: int, lanes: int):
        self.columns = columns
        super().__init__(
            {
                "i": In(beat_stream(lanes)).array(columns),
                "dest": In(COLUMN_BITS).array(columns),
                "listening": In(1).array(columns),
                "source": In(3).array(columns),
                "o": Out(beat_stream(lanes)).array(columns),
            }
        )

    def elaborate(self, platform):
        m = Module()
        every = range(self.columns)
        for p in every:
            source = self.i[p]
            done = Signal(self.columns, name=f"done{p}")
            taken = Signal(self.columns, name=f"taken{p}")
            complete = Signal(self.columns, name=f"complete{p}")
            for c in every:
                offered = Signal(name=f"offered{p}_{c}")
                m.d.comb += [
                    offered.eq(
                        source.valid
                        & self.dest[p][c]
                        & ~done[c]
                        & self.listening[c]
                        & (self.source[c] == p)
                    ),
                    taken[c].eq(offered & self.o[c].ready),
                    complete[c].eq(~self.dest[p][c] | done[c] | taken[c]),
                ]
                with m.If(self.source[c] == p):
                    m.d.comb += [self.o[c].payload.eq(source.payload), self.o[c].valid.eq(offered)]
            m.d.comb += source.ready.eq(source.valid & Cat(complete).all())
            m.d.sync += done.eq((done | taken) & ~source.ready.replicate(self.columns))
        return m
