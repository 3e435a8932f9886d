"""The stream contract and the small parts that every block is wired with.

A stream carries *beats*: ``lanes`` words, the count of valid words (from lane 0 up), and ``last``
on the final beat of a packet. Words are packed without gaps: only the last beat of a packet may
be partial, and no beat is empty. Once ``valid``, a beat stays as it is until it is taken.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect
from amaranth.utils import bits_for

from neuflow.fixed import WORD_BITS


def beat_layout(lanes: int) -> data.StructLayout:
    """Return the payload of a stream of ``lanes`` words a beat."""
    return data.StructLayout(
        {
            "words": data.ArrayLayout(signed(WORD_BITS), lanes),
            "count": unsigned(bits_for(lanes)),
            "last": unsigned(1),
        }
    )


def beat_stream(lanes: int) -> stream.Signature:
    """Return the signature of a stream of ``lanes`` words a beat."""
    return stream.Signature(beat_layout(lanes))


class Slice(Component):
    """Register slice: cuts every path between its two sides.

    Members: ``i`` In stream, ``o`` Out stream of ``shape``. Latency 1 cycle, throughput 1 beat a
    cycle, room for two beats, so ``i.ready`` comes from a register.
    """

    LATENCY = 1

    def __init__(self, shape):
        self.shape = shape
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        spare = Signal(self.shape)
        spare_valid = Signal()
        free = Signal()

        m.d.comb += [self.i.ready.eq(~spare_valid), free.eq(~self.o.valid | self.o.ready)]
        with m.If(free):
            m.d.sync += [
                self.o.payload.eq(Mux(spare_valid, spare, self.i.payload)),
                self.o.valid.eq(spare_valid | self.i.valid),
                spare_valid.eq(0),
            ]
        with m.Elif(self.i.valid & self.i.ready):
            m.d.sync += [spare.eq(self.i.payload), spare_valid.eq(1)]
        return m


class Packer(Component):
    """Close the gaps: loose beats in, packed beats out.

    Members: ``i`` In stream of ``lanes_in`` words whose beats may hold any count from 0 up (the
    last at least 1); ``o`` Out stream of ``lanes_out >= lanes_in`` words under the stream contract.
    Latency 1 cycle from the word that fills a beat; one beat a cycle, and one more cycle where a
    last beat spills over.
    """

    LATENCY = 1

    def __init__(self, lanes_in: int, lanes_out: int):
        if lanes_in > lanes_out:
            raise ValueError(f"Packer: {lanes_in} lanes do not fit into {lanes_out}")
        self.lanes_in = lanes_in
        self.lanes_out = lanes_out
        super().__init__({"i": In(beat_stream(lanes_in)), "o": Out(beat_stream(lanes_out))})

    def elaborate(self, platform):
        m = Module()
        lanes = self.lanes_out
        hold = Signal(lanes * WORD_BITS)
        fill = Signal(range(lanes))
        flush = Signal()
        merged = Signal(2 * lanes * WORD_BITS)
        total = Signal(range(2 * lanes))
        overflow = Signal(range(lanes))
        out, i = self.o.payload, self.i.payload

        # Words above the count are cleared, so that what is held can be merged by OR.
        lanes_in = range(self.lanes_in)
        kept = [Mux(lane < i.count, i.words[lane].as_unsigned(), 0) for lane in lanes_in]
        # A shift by Cat has just the width it needs; `fill << 4` would count 4 as any 3-bit number.
        bits = Cat(Const(0, WORD_BITS.bit_length() - 1), fill)
        m.d.comb += [
            merged.eq(hold | (Cat(*kept) << bits)),
            total.eq(fill + i.count),
            overflow.eq(total - lanes),
        ]
        free = Signal()
        full = Signal()
        m.d.comb += [
            free.eq(~self.o.valid | self.o.ready),
            full.eq(total >= lanes),
            self.i.ready.eq(free & ~flush),
        ]

        with m.If(free):
            m.d.sync += self.o.valid.eq(0)
            with m.If(flush):
                m.d.sync += [
                    out.words.as_value().eq(hold),
                    out.count.eq(fill),
                    out.last.eq(1),
                    self.o.valid.eq(1),
                    hold.eq(0),
                    fill.eq(0),
                    flush.eq(0),
                ]
            with m.Elif(self.i.valid):
                m.d.sync += [
                    out.words.as_value().eq(merged),
                    out.count.eq(Mux(full, lanes, total)),
                    out.last.eq(i.last & (~full | (overflow == 0))),
                    self.o.valid.eq(full | i.last),
                ]
                with m.If(full):
                    m.d.sync += [
                        hold.eq(merged[lanes * WORD_BITS :]),
                        fill.eq(overflow),
                        flush.eq(i.last & (overflow != 0)),
                    ]
                with m.Elif(i.last):
                    m.d.sync += [hold.eq(0), fill.eq(0)]
                with m.Else():
                    m.d.sync += [hold.eq(merged), fill.eq(total)]
        return m


class Narrow(Component):
    """Split packed beats of ``lanes_in`` words into packed beats of ``lanes_out`` words.

    ``lanes_in`` is a multiple of ``lanes_out``. Latency 1 cycle; one beat out a cycle.
    """

    LATENCY = 1

    def __init__(self, lanes_in: int, lanes_out: int):
        if lanes_in % lanes_out:
            raise ValueError(f"Narrow: {lanes_in} lanes are no multiple of {lanes_out}")
        self.lanes_in = lanes_in
        self.lanes_out = lanes_out
        super().__init__({"i": In(beat_stream(lanes_in)), "o": Out(beat_stream(lanes_out))})

    def elaborate(self, platform):
        m = Module()
        lanes = self.lanes_out
        words = Signal(self.lanes_in * WORD_BITS)
        left = Signal(range(self.lanes_in + 1))
        last = Signal()
        final = Signal()

        m.d.comb += [
            final.eq(left <= lanes),
            self.o.valid.eq(left != 0),
            self.o.payload.words.as_value().eq(words),
            self.o.payload.count.eq(Mux(final, left, lanes)),
            self.o.payload.last.eq(last & final),
            self.i.ready.eq((left == 0) | (final & self.o.ready)),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                words.eq(self.i.payload.words.as_value()),
                left.eq(self.i.payload.count),
                last.eq(self.i.payload.last),
            ]
        with m.Elif(self.o.valid & self.o.ready):
            m.d.sync += [
                words.eq(words >> lanes * WORD_BITS),
                left.eq(Mux(final, 0, left - lanes)),
            ]
        return m


def wire(m: Module, source, sink) -> None:
    """Connect two streams, either of which may be an own port (pass it through ``flipped``)."""
    connect(m, source, sink)


__all__ = ["WORD_BITS", "Narrow", "Packer", "Slice", "beat_layout", "beat_stream", "wire"]
