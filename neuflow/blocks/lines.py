"""Global lines: every column's line reaches the convolvers of all columns that listen to it."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from neuflow.blocks.choose import select
from neuflow.blocks.streams import beat_stream
from neuflow.layout import COLUMN_BITS


class Lines(Component):
    """``columns`` sources to ``columns`` sinks; a source's packet goes to all sinks in ``dest``.

    Members, lists over the columns: ``i`` In streams, ``dest`` In (one bit a sink, steady while a
    packet passes), ``listening``, ``source`` In (what a sink waits for), ``o`` Out streams.

    Each sink takes a beat in its own time; the source goes on when all of ``dest`` have it. A sink
    that is not listening to this source holds it back. Combinational: latency 0. A source's ready
    depends on the sinks' alone, not on its valid: they lie far apart.
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
        ready = Signal(self.columns)
        m.d.comb += ready.eq(Cat(o.ready for o in self.o))
        for p in every:
            # Sets of sinks: those that the packet is for, that wait for this line, that have the beat.
            source, dest = self.i[p], self.dest[p][: self.columns]
            listens, done, offered = (
                Signal(self.columns, name=f"{name}{p}") for name in ("listens", "done", "offered")
            )
            m.d.comb += [
                listens.eq(Cat(self.listening[c] & (self.source[c] == p) for c in every)),
                offered.eq(Mux(source.valid, dest & ~done & listens, 0)),
                source.ready.eq((dest & ~done & ~(listens & ready)) == 0),
            ]
            m.d.sync += done.eq(Mux(source.ready, 0, done | (offered & ready)))
            for c in every:
                with m.If(self.source[c] == p):
                    m.d.comb += self.o[c].valid.eq(offered[c])
        beats = [source.payload.as_value() for source in self.i]
        m.d.comb += [self.o[c].payload.eq(select(beats, self.source[c])) for c in every]
        return m
