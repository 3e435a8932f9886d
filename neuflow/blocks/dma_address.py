"""Where the DMA's words lie: descriptors to runs to bursts, and the layouts that ports share.

A run is cut where a beat address is a multiple of ``burst_beats``, so no burst crosses 4 KB; the
pure Python model is ``dma_model.bursts``. ``run`` and all counts must be 1 or more. Word addresses
are taken modulo 2**31: memory is 4 GB.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from neuflow.blocks.axi import beat_bits
from neuflow.grid import GridConfig
from neuflow.layout import COLUMN_BITS, Layout

BURSTS = 16
"""Bursts that one port, and all read ports together, may have under way.

As many as the memories behind our figures accept; 16 bursts of 16 beats cover any latency below
256 cycles, and one-beat bursts are then bound by the memory and not by the port.
"""


def request_layout(grid: GridConfig) -> data.StructLayout:
    """Return a burst: beat ``address`` and ``length`` = beats - 1."""
    length = max(1, ceil_log2(grid.burst_beats))
    return data.StructLayout({"address": unsigned(beat_bits(grid)), "length": unsigned(length)})


def request_stream(grid: GridConfig) -> stream.Signature:
    """Return the signature of a port's request channel."""
    return stream.Signature(request_layout(grid))


def response_stream(grid: GridConfig) -> stream.Signature:
    """Return the signature of the beats that answer read bursts."""
    return stream.Signature(
        data.StructLayout({"data": unsigned(grid.bus_bits), "error": unsigned(1)})
    )


def write_layout(grid: GridConfig) -> data.StructLayout:
    """Return a beat of a write burst: one strobe bit a word, ``last`` of the burst."""
    return data.StructLayout(
        {
            "data": unsigned(grid.bus_bits),
            "strobe": unsigned(grid.bus_words),
            "last": unsigned(1),
        }
    )


def write_stream(grid: GridConfig) -> stream.Signature:
    """Return the signature of the beats of write bursts."""
    return stream.Signature(write_layout(grid))


def run_layout(grid: GridConfig, tag_bits: int) -> data.StructLayout:
    """Return one run of contiguous words, see :class:`Walker`."""
    return data.StructLayout(
        {
            "beat": unsigned(beat_bits(grid)),
            "lane": unsigned(ceil_log2(grid.bus_words)),
            "words": unsigned(24),
            "last": unsigned(1),
            "tag": unsigned(tag_bits),
        }
    )


class Walker(Component):
    """Turn descriptors into runs: for i2: for i1: for i0.

    Members: ``i`` In stream of ``layout``; ``o`` Out stream of runs: address (``beat``, ``lane``),
    ``words``, ``last`` of its descriptor, ``tag`` = the descriptor's field of that name (dest or
    source). Latency 1 cycle, one run a cycle, also from a descriptor to the next. A descriptor is
    taken together with its last run.
    """

    LATENCY = 1

    def __init__(self, grid: GridConfig, layout: Layout):
        self.grid = grid
        self.tag = layout.fields[-1]
        self.shape = run_layout(grid, self.tag.bits)
        super().__init__(
            {
                "i": In(stream.Signature(layout.shape())),
                "o": Out(stream.Signature(self.shape)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        d = self.i.payload
        bits = len(self.o.payload.beat) + len(self.o.payload.lane)

        # Where the current run, and the innermost run of the current row and plane, begin.
        started = Signal()
        saved = [Signal(bits, name=f"saved{level}") for level in range(3)]
        start = [Signal(bits, name=f"start{level}") for level in range(3)]
        m.d.comb += [start[k].eq(Mux(started, saved[k], d.base)) for k in range(3)]

        count = [Signal(16, name=f"count{level}") for level in range(3)]
        end = [Signal(name=f"end{level}") for level in range(3)]
        limits = (d.count0, d.count1, d.count2)
        m.d.comb += [end[k].eq(count[k] + 1 == limits[k]) for k in range(3)]

        origin = Signal(bits)
        step = Signal(bits)
        following = Signal(bits)
        last = Signal()
        m.d.comb += [
            origin.eq(Mux(end[0], Mux(end[1], start[2], start[1]), start[0])),
            step.eq(Mux(end[0], Mux(end[1], d.step2, d.step1), d.step0)),
            following.eq(origin + step),
            last.eq(Cat(*end).all()),
        ]

        free = Signal()
        m.d.comb += [free.eq(~self.o.valid | self.o.ready), self.i.ready.eq(free & last)]
        with m.If(free):
            m.d.sync += self.o.valid.eq(self.i.valid)
        with m.If(free & self.i.valid):
            m.d.sync += [
                Cat(self.o.payload.lane, self.o.payload.beat).eq(start[0]),
                self.o.payload.words.eq(d.run),
                self.o.payload.last.eq(last),
                self.o.payload.tag.eq(getattr(d, self.tag.name)),
                started.eq(~last),
                saved[0].eq(following),
                saved[1].eq(Mux(end[0], following, start[1])),
                saved[2].eq(Mux(end[0] & end[1], following, start[2])),
                count[0].eq(Mux(end[0], 0, count[0] + 1)),
            ]
            with m.If(end[0]):
                m.d.sync += count[1].eq(Mux(end[1], 0, count[1] + 1))
            with m.If(end[0] & end[1]):
                m.d.sync += count[2].eq(Mux(end[2], 0, count[2] + 1))
        return m


def piece_layout(grid: GridConfig) -> data.StructLayout:
    """Return what a read port remembers of a burst under way, see :class:`Splitter`."""
    lane = unsigned(ceil_log2(grid.bus_words))
    return data.StructLayout(
        {
            "first": lane,
            "final": lane,
            "length": request_layout(grid)["length"].shape,
            "last": unsigned(1),
            "dest": unsigned(COLUMN_BITS),
        }
    )


class Splitter(Component):
    """Cut runs into read bursts.

    Members: ``i`` In stream of runs; ``request`` Out stream of bursts; ``piece`` Out, about the
    burst at ``request``: ``first`` valid lane of its first beat, ``final`` valid lane of its last,
    ``last`` burst of the packet, ``dest``; ``room`` In: beats that may be asked for. A request
    waits until ``room`` holds all of it. Latency 1 cycle, one burst a cycle.
    """

    LATENCY = 1

    def __init__(self, grid: GridConfig):
        self.grid = grid
        super().__init__(
            {
                "i": In(stream.Signature(run_layout(grid, COLUMN_BITS))),
                "request": Out(request_stream(grid)),
                "piece": Out(piece_layout(grid)),
                "room": In(range(grid.dma_beats + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        run, piece, request = self.i.payload, self.piece, self.request.payload
        lanes = self.grid.bus_words
        beat = Signal(beat_bits(self.grid))
        more = Signal(len(run.words))  # beats of the run after the current one
        first = Signal.like(run.lane)
        final = Signal.like(run.lane)
        last = Signal()
        active = Signal()

        # A burst goes to the next multiple of burst_beats, or to the end of the run.
        length = Signal.like(request.length)
        ends = Signal()
        aligned = Signal.like(request.length)
        m.d.comb += [
            aligned.eq(~beat[: len(aligned)] if self.grid.burst_beats > 1 else 0),
            ends.eq(more <= aligned),
            length.eq(Mux(ends, more, aligned)),
            request.address.eq(beat),
            request.length.eq(length),
            self.request.valid.eq(active & (self.room > length)),
            piece.first.eq(first),
            piece.final.eq(Mux(ends, final, lanes - 1)),
            piece.length.eq(length),
            piece.last.eq(ends & last),
        ]

        moves = Signal()
        m.d.comb += [
            moves.eq(self.request.valid & self.request.ready),
            self.i.ready.eq(~active | (moves & ends)),
        ]
        with m.If(moves):
            m.d.sync += [
                beat.eq(beat + length + 1),
                more.eq(more - length - 1),
                first.eq(0),
                active.eq(~ends),
            ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                beat.eq(run.beat),
                Cat(final, more).eq(run.words + run.lane - 1),
                first.eq(run.lane),
                last.eq(run.last),
                piece.dest.eq(run.tag),
                active.eq(1),
            ]
        return m
