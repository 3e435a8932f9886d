"""The write port's data path: words of a packed stream to beats aligned to memory."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import bits_for, ceil_log2

from neuflow.blocks.dma_address import request_layout, run_layout, write_layout
from neuflow.blocks.streams import WORD_BITS, beat_stream
from neuflow.grid import GridConfig


def burst_layout(grid: GridConfig) -> data.StructLayout:
    """Return a write burst: ``request``, and whether it is the ``last`` of its descriptor."""
    return data.StructLayout({"request": request_layout(grid), "last": unsigned(1)})


class Placer(Component):
    """Place the words of a stream into beats aligned to memory, run by run.

    Members: ``run`` In stream of runs; ``i`` In stream of ``maps`` lanes; ``source``,
    ``source_valid`` Out as in :class:`WritePort`; ``o`` Out with ``o_valid``, ``o_ready``: a beat
    with its strobes, ``last`` of its burst; ``burst`` Out: the burst that a beat with ``last``
    closes. Words are taken only while ``o_ready``. Latency 0; timing as in :class:`WritePort`.
    """

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
            }
        )

    def elaborate(self, platform):
        m = Module()
        grid = self.grid
        lanes, narrow = grid.bus_words, grid.lanes
        run, i = self.run.payload, self.i.payload

        # The run that is worked on; `left` counts its words not yet taken.
        active, last = Signal(), Signal()
        beat = Signal.like(run.beat)
        left = Signal.like(run.words)
        hold = Signal(lanes * WORD_BITS)
        low = Signal.like(run.lane)  # first valid lane of the beat that is being filled
        fill = Signal.like(run.lane)  # lane that the next word goes to
        flush = Signal()  # all words are taken; what is held goes out by itself
        skip = Signal(range(narrow))  # words of the input beat that earlier runs took

        # Take as many words as the input beat and the run have.
        offered = Signal(range(narrow + 1))
        take = Signal(range(narrow + 1))
        ends = Signal()
        fresh = Signal(narrow * WORD_BITS)
        m.d.comb += [
            offered.eq(i.count - skip),
            ends.eq(left <= offered),
            take.eq(Mux(ends, left, offered)),
            fresh.eq(i.words.as_value() >> (skip << bits_for(WORD_BITS - 1))),
        ]
        kept = Cat(Mux(k < take, fresh.word_select(k, WORD_BITS), 0) for k in range(narrow))
        total = Signal(range(lanes + narrow))
        full = Signal()
        merged = Signal((lanes + narrow) * WORD_BITS)
        m.d.comb += [
            total.eq(fill + take),
            full.eq(total >= lanes),
            merged.eq(hold | (kept << Cat(Const(0, bits_for(WORD_BITS - 1)), fill))),
        ]

        # A beat goes out when it is full or the run ends; a run's spill goes out a cycle later, as
        # `left` is 0 then and nothing is taken.
        step, spills, run_ends = Signal(), Signal(), Signal()
        emits = Signal()
        valid_from = Signal(lanes)
        m.d.comb += [
            step.eq(active & self.o_ready & (flush | self.i.valid)),
            spills.eq(ends & (total > lanes)),
            run_ends.eq(ends & ~spills),
            emits.eq(full | ends),
            self.i.ready.eq(active & self.o_ready & ~flush & (take == offered)),
            self.o_valid.eq(active & (flush | self.i.valid) & emits),
            self.o.data.eq(merged),
            valid_from.eq(Const((1 << lanes) - 1, lanes) << low),
            self.o.strobe.eq(valid_from & Cat(full | (k < total) for k in range(lanes))),
            # Not while the last spill of a descriptor leaves: the next may take another source.
            self.source_valid.eq(active & ~(flush & last)),
        ]
        with m.If(step):
            m.d.sync += [
                hold.eq(Mux(full, merged[lanes * WORD_BITS :], merged)),
                fill.eq(total),
                flush.eq(spills),
                left.eq(left - take),
                skip.eq(Mux(take == offered, 0, skip + take)),
            ]
            with m.If(emits):
                m.d.sync += [low.eq(0), beat.eq(beat + 1)]

        self._build_bursts(m, beat, step & emits, run_ends, last)

        # Next run, without a gap.
        m.d.comb += self.run.ready.eq(~active | (step & run_ends))
        with m.If(self.run.ready):
            m.d.sync += active.eq(self.run.valid)
        with m.If(self.run.ready & self.run.valid):
            m.d.sync += [
                beat.eq(run.beat),
                left.eq(run.words),
                low.eq(run.lane),
                fill.eq(run.lane),
                hold.eq(0),
                last.eq(run.last),
                self.source.eq(run.tag),
            ]
        return m

    def _build_bursts(self, m: Module, beat: Signal, moves, run_ends: Signal, last: Signal) -> None:
        """Close a burst at a multiple of burst_beats and at the end of a run."""
        burst = self.burst
        length = Signal.like(burst.request.length)
        boundary = ceil_log2(self.grid.burst_beats)
        m.d.comb += [
            self.o.last.eq(run_ends | beat[:boundary].all()),
            burst.request.address.eq(beat - length),
            burst.request.length.eq(length),
            burst.last.eq(run_ends & last),
        ]
        with m.If(moves):
            m.d.sync += length.eq(Mux(self.o.last, 0, length + 1))
