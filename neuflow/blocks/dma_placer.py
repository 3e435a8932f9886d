"""The write port's data path: words of a packed stream to beats aligned to memory."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import ceil_log2

from neuflow.blocks.dma_address import (
    beat_address_bits,
    request_layout,
    run_layout,
    write_layout,
)
from neuflow.blocks.gate import fires
from neuflow.blocks.streams import Merger, Slice, beat_stream, loose_layout, wire
from neuflow.grid import GridConfig


def burst_layout(grid: GridConfig) -> data.StructLayout:
    """Return a write burst: ``request``, and whether it is the ``last`` of its descriptor."""
    return data.StructLayout({"request": request_layout(grid), "last": unsigned(1)})


def tag_bits(grid: GridConfig) -> int:
    """Return the bits that the words of a run carry along: its first beat, last of descriptor."""
    return beat_address_bits(grid) + 1


class Cutter(Component):
    """Cut a packed stream into runs.

    Members: ``run`` In stream of runs; ``i`` In stream of ``maps`` lanes; ``source``,
    ``source_valid`` Out as in :class:`WritePort`; ``o`` Out stream of ``streams.loose_layout`` for
    beats of ``bus_words``: a run is a packet, tagged with its first beat and whether it is the last
    of its descriptor; ``awake`` Out. LATENCY cycles, one beat of ``i`` a cycle, and one more where
    a run ends
    within a beat of ``i``.
    """

    LATENCY = 1

    def __init__(self, grid: GridConfig):
        self.grid = grid
        self.output = loose_layout(grid.lanes, grid.bus_words, tag_bits(grid))
        super().__init__(
            {
                "run": In(stream.Signature(run_layout(grid, 1))),
                "i": In(beat_stream(grid.lanes)),
                "source": Out(1),
                "source_valid": Out(1),
                "o": Out(stream.Signature(self.output)),
                "awake": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes = self.grid.lanes
        run, i = self.run.payload, self.i.payload
        cut = ceil_log2(lanes)

        # The run's last word is that of index `lanes * high + low`, counted from lane 0 of the beat
        # at hand; `near`: high = 0. Words below `skip` were taken by runs before.
        active = Signal()
        low = Signal(range(2 * lanes - 1), reset_less=True)
        high = Signal(len(run.words) - cut, reset_less=True)
        near = Signal(reset_less=True)
        skip = Signal(range(lanes))
        mark = Signal(tag_bits(self.grid), reset_less=True)
        start = Signal.like(run.lane, reset_less=True)

        below = Signal()
        ends = Signal()
        whole = Signal()
        free = Signal()
        step = Signal()
        m.d.comb += [
            below.eq(low < i.count),
            ends.eq(near & below),
            whole.eq(~near | (low + 1 >= i.count)),  # no run ends within the beat
            free.eq(~self.o.valid | self.o.ready),
            step.eq(active & free & self.i.valid),
            self.i.ready.eq(active & free & whole),
            self.source_valid.eq(active),
            self.awake.eq(step | fires(self.run, self.o)),
        ]

        leaves = Signal(self.output, reset_less=True)
        m.d.comb += self.o.payload.eq(leaves)
        with m.If(free):
            m.d.sync += self.o.valid.eq(step)
        with m.If(step):
            m.d.sync += [
                leaves.words.eq(i.words),
                leaves.first.eq(skip),
                leaves.count.eq(Mux(ends, low + 1, i.count) - skip),
                leaves.start.eq(start),
                leaves.last.eq(ends),
                leaves.tag.eq(mark),
                skip.eq(Mux(whole, 0, low + 1)),
                low.eq(low - i.count + Mux(below, lanes, 0)),
                high.eq(high - below),
                near.eq(near | (below & (high == 1))),
            ]

        # Next run, without a gap.
        offset = Signal.like(skip)
        final = Signal.like(run.words)
        m.d.comb += [
            self.run.ready.eq(~active | (step & ends)),
            offset.eq(Mux(active, Mux(whole, 0, low + 1), skip)),
            final.eq(run.words - 1),
        ]
        with m.If(self.run.ready):
            m.d.sync += [
                active.eq(self.run.valid),
                low.eq(final[:cut] + offset),
                high.eq(final[cut:]),
                near.eq(run.words <= lanes),
                start.eq(run.lane),
                mark.eq(Cat(run.beat, run.last)),
            ]
        with m.If(self.run.ready & self.run.valid):
            m.d.sync += self.source.eq(run.tag)
        return m


class Placer(Component):
    """Place the words of a stream into beats aligned to memory, run by run.

    Members: ``run`` In stream of runs; ``i`` In stream of ``maps`` lanes; ``source``,
    ``source_valid`` Out as in :class:`WritePort`; ``o`` Out with ``o_valid``, ``o_ready``: a beat
    with its strobes, ``last`` of its burst; ``burst`` Out: the burst that a beat with ``last``
    closes; ``awake`` Out. LATENCY cycles from the word that fills a beat; timing as in
    :class:`WritePort`.
    """

    LATENCY = Cutter.LATENCY + Merger.LATENCY

    def __init__(self, grid: GridConfig):
        self.grid = grid
        super().__init__(
            {
                "run": In(stream.Signature(run_layout(grid, 1))),
                "i": In(beat_stream(grid.lanes)),
                "source": Out(1),
                "source_valid": Out(1),
                "o": Out(write_layout(grid)),
                "o_valid": Out(1),
                "o_ready": In(1),
                "burst": Out(burst_layout(grid)),
                "awake": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        grid = self.grid
        m.submodules.runs = runs = Slice(run_layout(grid, 1))
        m.submodules.cutter = cutter = Cutter(grid)
        m.submodules.merger = merger = Merger(grid.lanes, grid.bus_words, tag_bits(grid))
        connect(m, flipped(self.run), runs.i)
        wire(m, runs.o, cutter.run)
        connect(m, flipped(self.i), cutter.i)
        wire(m, cutter.o, merger.i)
        beat = merger.o.payload
        m.d.comb += [
            self.source.eq(cutter.source),
            self.source_valid.eq(cutter.source_valid),
            self.o.data.eq(beat.words.as_value()),
            self.o.strobe.eq(beat.strobe),
            self.o_valid.eq(merger.o.valid),
            merger.o.ready.eq(self.o_ready),
            self.awake.eq(fires(runs.i, runs.o) | cutter.awake | merger.awake),
        ]
        self._build_bursts(m, beat)
        return m

    def _build_bursts(self, m: Module, beat: data.View) -> None:
        """Close a burst at a multiple of burst_beats and at the end of a run."""
        burst = self.burst
        cut = ceil_log2(self.grid.burst_beats)
        fresh = Signal(init=1)  # the beat is a run's first
        saved_block = Signal(tag_bits(self.grid) - 1 - cut, reset_less=True)
        saved_low, saved_first = (Signal(cut, name=n, reset_less=True) for n in ("low", "first"))
        saved_length = Signal.like(burst.request.length)

        # Of the beat at hand: its address, where its burst begins, beats of the burst before it.
        block = Signal.like(saved_block)
        low = Signal(cut)
        first = Signal(cut)
        length = Signal.like(saved_length)
        m.d.comb += [
            block.eq(Mux(fresh, beat.tag[cut:-1], saved_block)),
            low.eq(Mux(fresh, beat.tag[:cut], saved_low)),
            first.eq(Mux(fresh, beat.tag[:cut], saved_first)),
            length.eq(Mux(fresh, 0, saved_length)),
            self.o.last.eq(beat.last | low.all()),
            burst.request.address.eq(Cat(first, block)),
            burst.request.length.eq(length),
            burst.last.eq(beat.last & beat.tag[-1]),
        ]
        with m.If(self.o_valid & self.o_ready):
            m.d.sync += [
                fresh.eq(beat.last),
                saved_block.eq(block + low.all()),
                saved_low.eq(low + 1),
                saved_first.eq(Mux(low.all(), 0, first)),
                saved_length.eq(Mux(low.all(), 0, length + 1)),
            ]
