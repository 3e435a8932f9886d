"""Where the DMA's words lie: descriptors to runs to bursts, and the layouts that ports share.

A run is cut where a beat address is a multiple of ``burst_beats``, so no burst crosses 4 KB; the
pure Python model is ``dma_model.bursts``. ``run`` and all counts must be 1 or more. Word addresses
are taken modulo 2**31: memory is 4 GB. With a scratchpad they have one bit more, which says whether
they lie there.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from neuflow.blocks.axi import beat_bits
from neuflow.blocks.choose import select
from neuflow.blocks.gate import fires
from neuflow.grid import GridConfig
from neuflow.layout import COLUMN_BITS, Layout

BURSTS = 16
"""Bursts that one port, and all read ports together, may have under way.

As many as the memories behind our figures accept, so that one-beat bursts are bound by the memory
and not by the port.
"""

READ_BEATS = 64
"""Beats under way from which on no further read burst is asked for.

A beat a cycle at any latency up to this. More would but wait in the memory, and a write behind
them.
"""

ROWS_TURNS = 8
"""Bursts of rows at most before one of the ports that wait behind them: where rows of several passes
are asked for, the first of them needs its weights."""

WRITES = 4
"""Write bursts whose addresses may be out behind the burst whose data move, so that they wait for
their turns at the memory side by side."""


def beat_address_bits(grid: GridConfig) -> int:
    """Return the bits of a beat address; the top one says scratchpad, where there is one."""
    return beat_bits(grid) + (grid.scratchpad_words > 0)


def request_layout(grid: GridConfig) -> data.StructLayout:
    """Return a burst: beat ``address`` and ``length`` = beats - 1."""
    length = max(1, ceil_log2(grid.burst_beats))
    bits = beat_address_bits(grid)
    return data.StructLayout({"address": unsigned(bits), "length": unsigned(length)})


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


def may_follow(m: Module, grid: GridConfig, address: Value, asked: Value, none: Value) -> Value:
    """Return whether a burst may be asked for behind those under way: all lie in one memory.

    Memory and scratchpad answer in an order of their own. ``asked``: the burst at ``address`` is asked
    for; ``none`` are under way.
    """
    if not grid.scratchpad_words:
        return Const(1)
    near = Signal()  # where those under way lie
    with m.If(asked):
        m.d.sync += near.eq(address[-1])
    return (address[-1] == near) | none


def run_layout(grid: GridConfig, tag_bits: int) -> data.StructLayout:
    """Return one run of contiguous words, see :class:`Walker`."""
    return data.StructLayout(
        {
            "beat": unsigned(beat_address_bits(grid)),
            "lane": unsigned(ceil_log2(grid.bus_words)),
            "words": unsigned(24),
            "last": unsigned(1),
            "tag": unsigned(tag_bits),
        }
    )


def _counted(renew: Value, first: Value, count: Value, step: int) -> Value:
    """Return ``first`` to begin with, else ``count`` and a ``step``.

    An addition of 0 or the step: the choice before it is free, one behind it is not.
    """
    return Mux(renew, 0, Const(step, len(count))) + Mux(renew, first, count)


class Walker(Component):
    """Turn descriptors into runs: for i2: for i1: for i0.

    Members: ``i`` In stream of ``layout``; ``o`` Out stream of runs: address (``beat``, ``lane``),
    ``words``, ``last`` of its descriptor, ``tag`` = the descriptor's field of that name (dest or
    source); ``awake`` Out. Latency 1 cycle, one run a cycle; one cycle without a run between
    descriptors. A descriptor is taken together with its last run.
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
                "awake": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        d, o = self.i.payload, self.o.payload
        bits = len(o.beat) + len(o.lane)

        # Where the run at hand begins, the next row (a new i1) and the next plane (a new i2).
        active = Signal()
        run, row, plane = (Signal(bits, name=n, reset_less=True) for n in ("run", "row", "plane"))
        left = [Signal(16, name=f"left{k}", reset_less=True) for k in range(3)]
        ends = [Signal(name=f"ends{k}", reset_less=True) for k in range(3)]
        last = Signal()
        m.d.comb += [
            last.eq(Cat(*ends).all()),
            self.o.valid.eq(active),
            Cat(o.lane, o.beat).eq(run),
            o.words.eq(d.run),
            o.last.eq(last),
            o.tag.eq(getattr(d, self.tag.name)),
            self.i.ready.eq(active & self.o.ready & last),
            self.awake.eq(Mux(active, self.o.ready, self.i.valid)),
        ]

        # All three advance from where the next run begins or the one at hand, so that a cycle holds
        # one choice of four and one addition.
        new_row = Signal()
        new_plane = Signal()
        origin = Signal(bits)
        m.d.comb += [
            new_row.eq(~active | ends[0]),
            new_plane.eq(~active | (ends[0] & ends[1])),
            origin.eq(select([run, d.base, row, plane], Cat(new_plane, active & new_row))),
        ]
        renews = (new_row, new_plane, Const(0))
        moves = (Const(1), new_row, new_plane)
        with m.If(~active):
            m.d.sync += active.eq(self.i.valid)
        with m.Elif(self.o.ready & last):
            m.d.sync += active.eq(0)
        with m.If(~active | self.o.ready):
            m.d.sync += run.eq(origin + Mux(new_row, 0, d.step0))
            with m.If(new_row):
                m.d.sync += row.eq(origin + d.step1)
            with m.If(new_plane):
                m.d.sync += plane.eq(origin + d.step2)
            for k, limit in enumerate((d.count0, d.count1, d.count2)):
                renew = ~active | renews[k]
                with m.If(renew | moves[k]):
                    m.d.sync += [
                        left[k].eq(_counted(renew, limit, left[k], -1)),
                        ends[k].eq(Mux(renew, limit == 1, left[k] == 2)),
                    ]
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
    ``last`` burst of the packet, ``dest``; ``fits`` In: a burst may be asked for; ``awake`` Out.
    Latency 2 cycles, one burst a cycle.
    """

    LATENCY = 2

    def __init__(self, grid: GridConfig):
        self.grid = grid
        super().__init__(
            {
                "i": In(stream.Signature(run_layout(grid, COLUMN_BITS))),
                "request": Out(request_stream(grid)),
                "piece": Out(piece_layout(grid)),
                "fits": In(1),
                "awake": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        run, piece, request = self.i.payload, self.piece, self.request.payload
        cut = ceil_log2(self.grid.burst_beats)
        lanes = ceil_log2(self.grid.bus_words)

        taken = Signal()
        there, coming, end = self._build_coming(m, taken)
        end_lane, end_beat, blocks = end[:lanes], end[lanes : lanes + cut], end[lanes + cut :]

        # The burst at hand; its length and whether it ends the run are worked out a cycle ahead.
        active = Signal()
        moves = Signal()
        ends = Signal(reset_less=True)
        block = Signal(len(run.beat) - cut, reset_less=True)
        low = Signal(cut, reset_less=True)
        final_low = Signal(cut, reset_less=True)
        more = Signal(len(blocks), reset_less=True)  # bursts of the run after this one
        length = Signal(cut, reset_less=True)
        first, final = (Signal(lanes, name=n, reset_less=True) for n in ("first", "final"))
        last = Signal(reset_less=True)
        dest = Signal(COLUMN_BITS, reset_less=True)
        m.d.comb += [
            request.address.eq(Cat(low, block)),
            request.length.eq(length),
            self.request.valid.eq(active & self.fits),
            piece.first.eq(first),
            piece.final.eq(Mux(ends, final, self.grid.bus_words - 1)),
            piece.length.eq(length),
            piece.last.eq(ends & last),
            piece.dest.eq(dest),
            moves.eq(self.request.valid & self.request.ready),
            taken.eq(~active | (moves & ends)),
            self.awake.eq(moves | (taken & there) | fires(self.i)),
        ]
        with m.If(taken | moves):
            m.d.sync += [
                block.eq(_counted(taken, coming.beat[cut:], block, 1)),
                more.eq(_counted(taken, blocks, more, -1)),
            ]
            with m.If(taken):
                m.d.sync += [
                    active.eq(there),
                    low.eq(coming.beat[:cut]),
                    ends.eq(blocks == 0),
                    length.eq(Mux(blocks == 0, end_beat - coming.beat[:cut], ~coming.beat[:cut])),
                    first.eq(coming.lane),
                    final.eq(end_lane),
                    final_low.eq(end_beat),
                    last.eq(coming.last),
                    dest.eq(coming.tag),
                ]
            with m.Else():
                m.d.sync += [
                    low.eq(0),
                    ends.eq(more == 1),
                    length.eq(Mux(more == 1, final_low, ~Const(0, cut))),
                    first.eq(0),
                ]
        return m

    def _build_coming(self, m: Module, taken: Signal) -> tuple[Signal, data.View, Signal]:
        """Register a run, with its last word counted from the burst boundary before its first.

        Return: whether there is one, the run, that index.
        """
        run = self.i.payload
        there = Signal()
        coming = Signal(run.shape(), reset_less=True)
        end = Signal(len(run.words) + 1, reset_less=True)
        boundary = ceil_log2(self.grid.burst_beats)
        m.d.comb += self.i.ready.eq(~there | taken)
        with m.If(self.i.ready):
            m.d.sync += [
                there.eq(self.i.valid),
                coming.eq(run),
                end.eq(run.words + (Cat(run.lane, run.beat[:boundary]) - 1)),
            ]
        return there, coming, end
