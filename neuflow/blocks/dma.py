"""The smart DMA: read and write ports, each an independent three-dimensional strided stream.

A port works through descriptors (``layout.READ``, ``layout.WRITE``) that arrive on the configuration
bus. :class:`Walker` turns a descriptor into runs; the ports turn runs into bursts. A run is cut
where a beat address is a multiple of ``burst_beats``, so that no burst crosses 4 KB; the pure
Python model is ``dma_model.bursts``. ``run`` and all counts must be 1 or more. Word addresses are
taken modulo 2**31: memory is 4 GB.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Shape, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import bits_for, ceil_log2

from neuflow.blocks.axi import beat_bits
from neuflow.blocks.config import ConfigReceiver, config_stream
from neuflow.blocks.ram import Ram
from neuflow.blocks.streams import WORD_BITS, Narrow, Packer, beat_stream, wire
from neuflow.grid import GridConfig
from neuflow.layout import COLUMN_BITS, READ, WRITE, Kind, Layout

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


class Queue(Component):
    """First in, first out, in a RAM.

    Members: ``i`` In, ``o`` Out stream of ``shape``, ``clear`` In (drop everything at once),
    ``level`` Out (entries in the RAM). Room for ``depth`` (a power of 2) entries and one at the
    output. Latency 2 cycles, throughput 1 a cycle.
    """

    LATENCY = 2

    def __init__(self, shape: data.StructLayout, depth: int):
        self.shape = shape
        self.depth = depth
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                "o": Out(stream.Signature(shape)),
                "clear": In(1),
                "level": Out(range(depth + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.ram = ram = Ram(Shape.cast(self.shape).width, self.depth)
        head = Signal(len(ram.read_address))
        tail = Signal(len(ram.read_address))
        push = Signal()
        fetch = Signal()

        m.d.comb += [
            self.i.ready.eq(self.level != self.depth),
            push.eq(self.i.valid & self.i.ready),
            fetch.eq((self.level != 0) & (~self.o.valid | self.o.ready)),
            ram.write_enable.eq(push),
            ram.write_address.eq(tail),
            ram.write_data.eq(self.i.payload.as_value()),
            ram.read_enable.eq(fetch),
            ram.read_address.eq(head),
            self.o.payload.as_value().eq(ram.read_data),
        ]
        m.d.sync += [
            tail.eq(tail + push),
            head.eq(head + fetch),
            self.level.eq(self.level + push - fetch),
            self.o.valid.eq(fetch | (self.o.valid & ~self.o.ready)),
        ]
        with m.If(self.clear):
            m.d.sync += [head.eq(0), tail.eq(0), self.level.eq(0), self.o.valid.eq(0)]
        return m


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


class ReadPort(Component):
    """Read port: memory to a packed stream.

    Members
    -------
    bus, kind, columns : configuration bus; which ``Kind`` the port answers to (an input, so that
        the read ports of a column are one module); the own column's bit.
    request, response : bursts asked of, and their beats from, the arbiter, in order.
    o, dest : Out, packets of ``bus_words`` lanes, one for each descriptor; ``dest`` belongs to the
        packet whose beat is at ``o``.

    A burst is asked for only when the buffer of ``dma_beats`` has room for all of it, so a response
    never waits for the consumer. Bursts of the following descriptors go out while earlier packets
    are still delivered. One burst asked and one beat delivered a cycle; runs shorter than a beat
    give their words at one memory beat a cycle. First request 3 cycles after the descriptor's last
    word; a beat appears at ``o`` 4 cycles after its response.
    """

    LATENCY = 4

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
            }
        )

    def elaborate(self, platform):
        m = Module()
        grid = self.grid
        m.submodules.config = config = ConfigReceiver(self.kind, READ, grid.config_queue)
        m.submodules.walker = walker = Walker(grid, READ)
        m.submodules.splitter = splitter = Splitter(grid)
        m.submodules.pieces = pieces = Queue(piece_layout(grid), BURSTS)
        wire(m, flipped(self.bus), config.bus)
        m.d.comb += config.columns.eq(self.columns)
        wire(m, config.o, walker.i)
        wire(m, walker.o, splitter.i)

        # A burst leaves together with the note of which of its words are wanted.
        asked = Signal()
        m.d.comb += [
            self.request.payload.eq(splitter.request.payload),
            self.request.valid.eq(splitter.request.valid & pieces.i.ready),
            splitter.request.ready.eq(self.request.ready & pieces.i.ready),
            asked.eq(self.request.valid & self.request.ready),
            pieces.i.payload.eq(splitter.piece),
            pieces.i.valid.eq(asked),
        ]
        taken = self._build_buffer(m, pieces)

        # Room falls when a burst is asked for, and grows when a beat leaves the buffer.
        room = Signal(range(grid.dma_beats + 1), init=grid.dma_beats)
        m.d.comb += splitter.room.eq(room)
        m.d.sync += room.eq(
            room - Mux(asked, splitter.request.payload.length + 1, 0) + taken
        )
        return m

    def _build_buffer(self, m: Module, pieces: Queue) -> Signal:
        """Buffer beats with their lanes, align and pack them. Return: a beat left the buffer."""
        grid = self.grid
        lane = ceil_log2(grid.bus_words)
        entry = {"first": lane, "count": lane + 1, "last": 1, "dest": COLUMN_BITS, "data": grid.bus_bits}
        m.submodules.buffer = buffer = Queue(data.StructLayout(entry), grid.dma_beats)
        m.submodules.packer = packer = Packer(grid.bus_words, grid.bus_words)

        # Arrival: which lanes of this beat are wanted.
        piece, stored = pieces.o.payload, buffer.i.payload
        index = Signal.like(piece.length)
        ends = Signal()
        final = Signal(lane)
        arrives = Signal()
        m.d.comb += [
            ends.eq(index == piece.length),
            stored.data.eq(self.response.payload.data),
            stored.first.eq(Mux(index == 0, piece.first, 0)),
            final.eq(Mux(ends, piece.final, grid.bus_words - 1)),
            stored.count.eq(final - stored.first + 1),
            stored.last.eq(ends & piece.last),
            stored.dest.eq(piece.dest),
            self.response.ready.eq(pieces.o.valid),
            arrives.eq(self.response.valid & pieces.o.valid),
            buffer.i.valid.eq(arrives),
            pieces.o.ready.eq(arrives & ends),
        ]
        with m.If(arrives):
            m.d.sync += index.eq(Mux(ends, 0, index + 1))

        # Delivery: wanted words to lane 0 (a register of its own: the shift follows a RAM), then pack.
        head, loose = buffer.o.payload, packer.i.payload
        loose_dest = Signal(COLUMN_BITS)
        taken = Signal()
        m.d.comb += [
            buffer.o.ready.eq(~packer.i.valid | packer.i.ready),
            taken.eq(buffer.o.valid & buffer.o.ready),
        ]
        with m.If(buffer.o.ready):
            m.d.sync += packer.i.valid.eq(buffer.o.valid)
        with m.If(taken):
            m.d.sync += [
                loose.words.as_value().eq(head.data >> (head.first << bits_for(WORD_BITS - 1))),
                loose.count.eq(head.count),
                loose.last.eq(head.last),
                loose_dest.eq(head.dest),
            ]
        # The packer takes a beat only when its output is free, so dest changes with the packet.
        with m.If(packer.i.valid & packer.i.ready):
            m.d.sync += self.dest.eq(loose_dest)
        wire(m, packer.o, flipped(self.o))
        return taken


class OperandLine(Component):
    """Narrow the operand port's stream to the lanes of a link, and carry ``dest`` along.

    Members: ``i`` In stream of ``bus_words`` lanes, ``i_dest`` In; ``o`` Out stream of ``maps`` lanes,
    ``o_dest`` Out (``layout.Operand``), of the packet whose beat is at ``o``. Latency 1 cycle, one
    beat out a cycle.
    """

    LATENCY = 1

    def __init__(self, grid: GridConfig):
        self.grid = grid
        super().__init__(
            {
                "i": In(beat_stream(grid.bus_words)),
                "i_dest": In(COLUMN_BITS),
                "o": Out(beat_stream(grid.lanes)),
                "o_dest": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.narrow = narrow = Narrow(self.grid.bus_words, self.grid.lanes)
        connect(m, flipped(self.i), narrow.i)
        connect(m, narrow.o, flipped(self.o))
        with m.If(narrow.i.valid & narrow.i.ready):
            m.d.sync += self.o_dest.eq(self.i_dest)
        return m


class WritePort(Component):
    """Write port: a packed stream to memory.

    Members
    -------
    bus, columns : configuration bus (``Kind.WRITE``); the own column's bit.
    i : In, packets of ``maps`` lanes, one for each descriptor.
    source, source_valid : Out, ``WRITE.source`` of the descriptor that the port works under, and
        whether there is one; while there is none, ``i`` is not taken.
    request, data : Out, bursts and their beats for the arbiter, in order; a burst is asked for when all
        its beats are in the buffer of ``dma_beats``.
    response : In, 1 for a cycle when the memory has acknowledged a burst.
    done : Out, 1 for a cycle when a descriptor's last burst is acknowledged.

    Words outside a run are strobed off. Within a run one beat of ``i`` is taken a cycle; a run that does
    not end with a beat of ``i`` costs one more cycle, and so does one whose last beat spills over a
    memory beat. Runs of one word go at one a cycle. The port counts words and ignores ``i.last``:
    if a packet is shorter or longer than its descriptor (the compiler's bug), it keeps to the
    descriptor.
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
        self._build_responses(m, bursts)
        return m

    def _build_responses(self, m: Module, bursts: Queue) -> None:
        """Ask for bursts; note for each under way whether it is its descriptor's last."""
        notes = Signal(BURSTS)
        under_way = Signal(range(BURSTS + 1))
        asked = Signal()
        free = Signal()
        m.d.comb += [
            free.eq(under_way != BURSTS),
            self.request.payload.eq(bursts.o.payload.request),
            self.request.valid.eq(bursts.o.valid & free),
            bursts.o.ready.eq(self.request.ready & free),
            asked.eq(self.request.valid & self.request.ready),
            self.done.eq(self.response & notes[0]),
        ]
        remaining = Signal.like(under_way)
        m.d.comb += remaining.eq(under_way - self.response)
        m.d.sync += [
            under_way.eq(remaining + asked),
            notes.eq((notes >> self.response) | ((asked & bursts.o.payload.last) << remaining)),
        ]


def burst_layout(grid: GridConfig) -> data.StructLayout:
    """Return a write burst: ``request``, and whether it is the ``last`` of its descriptor."""
    return data.StructLayout({"request": request_layout(grid), "last": unsigned(1)})


class Placer(Component):
    """Place the words of a stream into beats aligned to memory, run by run.

    Members: ``run`` In stream of runs; ``i`` In stream of ``maps`` lanes; ``source``,
    ``source_valid`` Out as in :class:`WritePort`; ``o`` Out with ``o_valid``, ``o_ready``: a beat with its
    strobes, ``last`` of its burst; ``burst`` Out: the burst that a beat with ``last`` closes.
    Words are taken only while ``o_ready``. Latency 0; timing as in :class:`WritePort`.
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
            total.eq(fill + Mux(flush, 0, take)),
            full.eq(total >= lanes),
            merged.eq(hold | Mux(flush, 0, kept << (fill << bits_for(WORD_BITS - 1)))),
        ]

        # A beat goes out when it is full or the run ends; a run's spill goes out a cycle later.
        step, spills, run_ends = Signal(), Signal(), Signal()
        emits = Signal()
        m.d.comb += [
            step.eq(active & self.o_ready & (flush | self.i.valid)),
            spills.eq(~flush & ends & (total > lanes)),
            run_ends.eq(flush | (ends & ~spills)),
            emits.eq(full | ends | flush),
            self.i.ready.eq(active & self.o_ready & ~flush & (take == offered)),
            self.o_valid.eq(active & (flush | self.i.valid) & emits),
            self.o.data.eq(merged),
            self.o.strobe.eq(Cat((k >= low) & (full | (k < total)) for k in range(lanes))),
            # Not while the last spill of a descriptor leaves: the next may take another source.
            self.source_valid.eq(active & ~(flush & last)),
        ]
        with m.If(step):
            m.d.sync += [
                hold.eq(Mux(full, merged[lanes * WORD_BITS :], merged)),
                fill.eq(total),
                flush.eq(spills),
            ]
            with m.If(~flush):
                m.d.sync += [
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
