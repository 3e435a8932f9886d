"""The smart DMA: read and write ports, each an independent three-dimensional strided stream.

A port works through descriptors (``layout.READ``, ``layout.WRITE``) that arrive on the
configuration bus. :class:`Walker` turns a descriptor into runs, :class:`Splitter` and
:class:`Placer` turn runs into bursts.
"""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import ceil_log2

from neuflow.blocks.config import ConfigReceiver, config_stream
from neuflow.blocks.dma_address import (
    BURSTS,
    Splitter,
    Walker,
    may_follow,
    piece_layout,
    request_layout,
    request_stream,
    response_stream,
    write_layout,
    write_stream,
)
from neuflow.blocks.dma_placer import Placer, burst_layout
from neuflow.blocks.gate import fires, stay_awake
from neuflow.blocks.queue import Queue
from neuflow.blocks.streams import (
    Merger,
    Narrow,
    Slice,
    beat_layout,
    beat_stream,
    copy_fields,
    wire,
)
from neuflow.grid import GridConfig
from neuflow.layout import COLUMN_BITS, READ, WRITE, Kind, Operand

SETTLE = 4
"""Cycles from the last beat's move to the last register: it left, the room, a burst fits."""


class ReadPort(Component):
    """Read port: memory to a packed stream.

    Members
    -------
    bus, kind, columns : configuration bus; which ``Kind`` the port answers to (an input, so that
        the read ports of a column are one module); the own column's bit.
    request, response : bursts asked of, and their beats from, the arbiter, in order.
    o, dest : Out, packets of ``bus_words`` lanes, one for each descriptor; ``dest`` belongs to the
        packet whose beat is at ``o``. awake : Out.

    A burst is asked for only when the buffer has room for a whole one, so a response never waits:
    ``rows_beats`` for a port of rows, ``dma_beats`` for any other, though the RAM is as large.
    Bursts of the following descriptors go out while earlier packets are still
    delivered. One burst asked and one beat delivered a cycle; runs shorter than a beat give their
    words at one memory beat a cycle. A beat appears at ``o`` LATENCY cycles after its response, the
    first request START + config_queue cycles after the descriptor's last word. Where memory and
    scratchpad take turns, the first burst there waits for the last beat from here.
    """

    LATENCY = 4 + Merger.LATENCY
    START = ConfigReceiver.LATENCY + Walker.LATENCY + Splitter.LATENCY + 2 * Slice.LATENCY

    def __init__(self, grid: GridConfig):
        self.grid = grid
        super().__init__(
            {
                "bus": In(config_stream()),
                "kind": In(4),
                "columns": In(COLUMN_BITS),
                "request": Out(request_stream(grid)),
                "response": In(response_stream(grid)),
                "o": Out(beat_stream(grid.bus_words)),
                "dest": Out(COLUMN_BITS),
                "awake": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        grid = self.grid
        m.submodules.config = config = ConfigReceiver(self.kind, READ, grid.config_queue)
        m.submodules.walker = walker = Walker(grid, READ)
        m.submodules.runs = runs = Slice(walker.shape)  # the walker's enables come from a register
        m.submodules.splitter = splitter = Splitter(grid)
        m.submodules.pieces = pieces = Queue(piece_layout(grid), BURSTS)
        m.submodules.asks = asks = Slice(request_layout(grid))
        wire(m, flipped(self.bus), config.bus)
        m.d.comb += config.columns.eq(self.columns)
        wire(m, config.o, walker.i)
        wire(m, walker.o, runs.i)
        wire(m, runs.o, splitter.i)

        # A burst leaves together with the note of which of its words are wanted.
        asked = Signal()
        free = Signal()
        m.d.comb += [
            free.eq(pieces.i.ready & self._build_order(m, splitter.request.payload, asked, pieces)),
            asks.i.payload.eq(splitter.request.payload),
            asks.i.valid.eq(splitter.request.valid & free),
            splitter.request.ready.eq(asks.i.ready & free),
            asked.eq(asks.i.valid & asks.i.ready),
            pieces.i.payload.eq(splitter.piece),
            pieces.i.valid.eq(asked),
        ]
        wire(m, asks.o, flipped(self.request))
        left, flows = self._build_delivery(m, self._build_buffer(m, pieces))

        # Room falls when a burst is asked for, and grows when a beat has left the buffer.
        room = Signal(range(grid.rows_beats + 1), init=grid.rows_beats)
        following = Signal.like(room)
        beats = Mux(asked, splitter.request.payload.length + 1, 0)
        m.d.comb += following.eq(room + left - beats)
        unused = Mux(self.kind == Kind.READ_ROWS, 0, grid.rows_beats - grid.dma_beats)
        m.d.sync += [room.eq(following), splitter.fits.eq(following >= unused + grid.burst_beats)]
        stay_awake(
            m, self.awake, config.awake, walker.awake, splitter.awake, pieces.awake,
            fires(runs.i, runs.o, asks.i, asks.o), self.response.valid, flows, settle=SETTLE,
        )  # fmt: skip
        return m

    def _build_order(self, m: Module, request: data.View, asked: Signal, pieces: Queue) -> Value:
        """Return whether the burst at hand may follow those under way."""
        under_way = Signal(range(BURSTS + 2))  # as many as the queue and its output hold
        m.d.sync += under_way.eq(under_way + asked - fires(pieces.o))
        return may_follow(m, self.grid, request.address, asked, under_way == 0)

    def _build_buffer(self, m: Module, pieces: Queue) -> Queue:
        """Buffer beats with the lanes that are wanted of them."""
        grid = self.grid
        lane = ceil_log2(grid.bus_words)
        entry = data.StructLayout(
            {
                "data": grid.bus_bits,  # first, where a simulator need not shift them
                "first": lane,
                "count": lane + 1,
                "last": 1,
                "dest": COLUMN_BITS,
            }
        )
        # One that is deeper than most ports need is not worth two block RAMs in each of them.
        deep = grid.rows_beats > grid.dma_beats
        m.submodules.buffer = buffer = Queue(entry, grid.rows_beats, distributed=deep)

        # A note is here before its beats: it is three cycles ahead of the memory.
        piece, stored = pieces.o.payload, buffer.i.payload
        index = Signal.like(piece.length)
        ends = Signal()
        final = Signal(lane)
        m.d.comb += [
            ends.eq(index == piece.length),
            stored.data.eq(self.response.payload.data),
            stored.first.eq(Mux(index == 0, piece.first, 0)),
            final.eq(Mux(ends, piece.final, grid.bus_words - 1)),
            stored.count.eq(final - stored.first + 1),
            stored.last.eq(ends & piece.last),
            stored.dest.eq(piece.dest),
            self.response.ready.eq(1),
            buffer.i.valid.eq(self.response.valid),
            pieces.o.ready.eq(self.response.valid & ends),
        ]
        with m.If(self.response.valid):
            m.d.sync += index.eq(Mux(ends, 0, index + 1))
        return buffer

    def _build_delivery(self, m: Module, buffer: Queue) -> tuple[Signal, Value]:
        """Merge the wanted words to beats. Return: a beat left the buffer a cycle ago; any moves."""
        lanes = self.grid.bus_words
        m.submodules.merger = merger = Merger(lanes, lanes, COLUMN_BITS, starts=False)
        out = {"beat": beat_layout(lanes), "dest": COLUMN_BITS}
        m.submodules.leaves = leaves = Slice(data.StructLayout(out))

        # A register first: a RAM gives its word late in the cycle.
        head = Signal(buffer.shape, reset_less=True)
        there = Signal()
        left = Signal()
        m.d.comb += [
            buffer.o.ready.eq(~there | merger.i.ready),
            merger.i.valid.eq(there),
            merger.i.payload.words.as_value().eq(head.data),
            merger.i.payload.tag.eq(head.dest),
        ]
        copy_fields(m, head, merger.i.payload)
        m.d.sync += left.eq(buffer.o.valid & buffer.o.ready)
        with m.If(buffer.o.ready):
            m.d.sync += [there.eq(buffer.o.valid), head.eq(buffer.o.payload)]

        copy_fields(m, merger.o.payload, leaves.i.payload.beat)
        m.d.comb += [
            leaves.i.payload.dest.eq(merger.o.payload.tag),
            leaves.i.valid.eq(merger.o.valid),
            merger.o.ready.eq(leaves.i.ready),
            self.o.payload.eq(leaves.o.payload.beat),
            self.dest.eq(leaves.o.payload.dest),
            self.o.valid.eq(leaves.o.valid),
            leaves.o.ready.eq(self.o.ready),
        ]
        return left, buffer.awake | merger.awake | fires(merger.i, leaves.i, leaves.o)


class OperandLine(Component):
    """Narrow the operand port's stream to the lanes of a link; send each packet where it belongs.

    Members: ``i`` In stream of ``bus_words`` lanes, ``i_dest`` In; ``o[0..1]`` Out streams of ``maps``
    lanes, by ``layout.Operand``: which of them a packet leaves at is the ``i_dest`` of its beats;
    ``active`` Out: a beat is on its way to one of them; ``awake`` Out.
    Latency 2 cycles, one beat out a cycle. What is in front of one output delays the other.

    A register slice at each output: its two sinks lie far apart.
    """

    LATENCY = 1 + Slice.LATENCY

    def __init__(self, grid: GridConfig):
        self.grid = grid
        super().__init__(
            {
                "i": In(beat_stream(grid.bus_words)),
                "i_dest": In(COLUMN_BITS),
                "o": Out(beat_stream(grid.lanes)).array(len(Operand)),
                "active": Out(1),
                "awake": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.narrow = narrow = Narrow(self.grid.bus_words, self.grid.lanes)
        connect(m, flipped(self.i), narrow.i)
        dest = Signal(range(len(Operand)))
        with m.If(narrow.i.valid & narrow.i.ready):
            m.d.sync += dest.eq(self.i_dest)
        for operand in Operand:
            leaves = Slice(beat_layout(self.grid.lanes))
            m.submodules[f"to_{operand.name.lower()}"] = leaves
            connect(m, leaves.o, flipped(self.o[operand]))
            m.d.comb += leaves.i.payload.eq(narrow.o.payload)
            with m.If(dest == operand):
                m.d.comb += [
                    leaves.i.valid.eq(narrow.o.valid),
                    narrow.o.ready.eq(leaves.i.ready),
                ]
        m.d.comb += [
            self.active.eq(fires(narrow.o)),
            self.awake.eq(fires(narrow.i, narrow.o, *self.o)),
        ]
        return m


class WritePort(Component):
    """Write port: a packed stream to memory.

    Members
    -------
    bus, columns : configuration bus (``Kind.WRITE``); the own column's bit.
    i : In, packets of ``maps`` lanes, one for each descriptor.
    source, source_valid : Out, ``WRITE.source`` of the descriptor that the port works under, and
        whether there is one; while there is none, ``i`` is not taken.
    request, data : Out, bursts and their beats for the arbiter, in order; a burst is asked for when
        all its beats are in the buffer of ``dma_beats``.
    response : In, 1 for a cycle when the memory has acknowledged a burst.
    done : Out, 1 for a cycle, 1 cycle after a descriptor's last burst is acknowledged. awake : Out.

    A burst to the scratchpad waits for those to memory, and the other way round. Words outside a run
    are strobed off. Within a run one beat of ``i`` is taken a cycle; a run that
    does not end with a beat of ``i`` costs one more cycle, and so does one whose last beat spills
    over a memory beat. Runs of one word go at one a cycle. The port counts words and ignores
    ``i.last``: if a packet is shorter or longer than its descriptor (the compiler's bug), it keeps
    to the descriptor.
    """

    def __init__(self, grid: GridConfig):
        self.grid = grid
        super().__init__(
            {
                "bus": In(config_stream()),
                "columns": In(COLUMN_BITS),
                "i": In(beat_stream(grid.lanes)),
                "source": Out(1),
                "source_valid": Out(1),
                "request": Out(request_stream(grid)),
                "data": Out(write_stream(grid)),
                "response": In(1),
                "done": Out(1),
                "awake": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        grid = self.grid
        m.submodules.config = config = ConfigReceiver(Kind.WRITE, WRITE, grid.config_queue)
        m.submodules.walker = walker = Walker(grid, WRITE)
        m.submodules.placer = placer = Placer(grid)
        m.submodules.buffer = buffer = Queue(write_layout(grid), grid.dma_beats)
        m.submodules.bursts = bursts = Queue(burst_layout(grid), BURSTS)
        m.submodules.asks = asks = Slice(request_layout(grid))
        wire(m, flipped(self.bus), config.bus)
        m.d.comb += config.columns.eq(self.columns)
        wire(m, config.o, walker.i)
        wire(m, walker.o, placer.run)
        wire(m, flipped(self.i), placer.i)
        m.d.comb += [self.source.eq(placer.source), self.source_valid.eq(placer.source_valid)]

        # A burst enters its queue in the cycle in which its last beat enters the buffer.
        moves = Signal()
        m.d.comb += [
            placer.o_ready.eq(buffer.i.ready & bursts.i.ready),
            moves.eq(placer.o_valid & placer.o_ready),
            buffer.i.payload.eq(placer.o),
            buffer.i.valid.eq(moves),
            bursts.i.payload.eq(placer.burst),
            bursts.i.valid.eq(moves & placer.o.last),
        ]
        wire(m, buffer.o, flipped(self.data))
        wire(m, asks.o, flipped(self.request))
        self._build_responses(m, bursts, asks)
        stay_awake(
            m, self.awake, config.awake, walker.awake, placer.awake, moves, buffer.awake, bursts.awake,
            fires(asks.i, asks.o), self.response, settle=SETTLE,
        )  # fmt: skip
        return m

    def _build_responses(self, m: Module, bursts: Queue, asks: Slice) -> None:
        """Ask for bursts; note for each under way whether it is its descriptor's last."""
        notes = Signal(BURSTS, reset_less=True)
        newest = Signal(range(BURSTS))
        oldest = Signal(range(BURSTS))
        under_way = Signal(range(BURSTS + 1))
        asked = Signal()
        free = Signal()
        address = bursts.o.payload.request.address
        follows = may_follow(m, self.grid, address, asked, under_way == 0)
        m.d.comb += [
            free.eq(~under_way[-1] & follows),  # of a power of 2
            asks.i.payload.eq(bursts.o.payload.request),
            asks.i.valid.eq(bursts.o.valid & free),
            bursts.o.ready.eq(asks.i.ready & free),
            asked.eq(asks.i.valid & asks.i.ready),
        ]
        m.d.sync += [
            under_way.eq(under_way + asked - self.response),
            newest.eq(newest + asked),
            oldest.eq(oldest + self.response),
            self.done.eq(self.response & notes.bit_select(oldest, 1)),
        ]
        with m.If(asked):
            m.d.sync += notes.bit_select(newest, 1).eq(bursts.o.payload.last)
