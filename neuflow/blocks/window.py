"""Window reduction of a tile: MAX or SUM over any window, for pooling."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import exact_log2

from neuflow.blocks import window_model
from neuflow.blocks.arith import Requantise
from neuflow.blocks.config import ConfigReceiver, config_stream
from neuflow.blocks.gate import fires, stay_awake
from neuflow.blocks.place import place
from neuflow.blocks.ram import Ram
from neuflow.blocks.streams import WORD_BITS, Packer, Slice, beat_layout, beat_stream
from neuflow.blocks.window_read import FLAT_BITS, WindowReader
from neuflow.blocks.window_rows import TALL_BITS, WindowRows
from neuflow.layout import COLUMN_BITS, SIZE, WINDOW, Kind, WindowOp

SETTLE = 4
"""Cycles from what moves last, or the end of a configuration, to the last register: what is made of
it beforehand, and two until the ring has room."""


class Window(WindowRows, WindowReader, Component):
    """Window reduction of rows (y, map, x); formula and fields in ``layout.WINDOW``.

    Members: ``bus`` In configuration bus, ``sub`` In(4), ``columns`` In(8); ``i`` In, ``o`` Out
    streams of ``lanes`` words (a power of 2); ``active`` Out, a beat of the input is taken;
    ``awake`` Out.

    One WINDOW configuration a packet, queue of ``depth``. The packet must hold exactly
    height x maps x width words; rows and columns beyond the last window are taken and dropped,
    windows that reach beyond the input are finished without it. Memory: the configuration must
    keep to ``window_model.memory_words() <= memory_words``.

    Throughput: see ``window_model.cycles_bound``. Latency: from the beat that completes an output
    word to that word ``LATENCY`` cycles (one less where the beat's last words belong to the line of
    a beat that is held), and what the packer waits for a whole beat. A stall of ``o`` holds the
    stages behind the ring once its slice is full, and the others once the ring is full. Results
    saturate once, at the end.

    How: first from top to bottom, then from left to right. A line (row of a map) comes in chunks of
    ``lanes`` words, the first in lane 0. Each chunk is merged, all lanes at once, into every output
    row open there, one a cycle. A chunk of columns that becomes whole goes to a ring; windows read
    ``lanes`` columns a cycle from there and give one word each, which leaves through the requantiser.
    """

    LATENCY = 12 + Requantise.LATENCY + Slice.LATENCY + Packer.LATENCY + Slice.LATENCY

    def __init__(self, lanes: int, memory_words: int, depth: int):
        self.lanes = lanes
        self.memory_words = memory_words
        self.depth = depth
        self.lane_bits = exact_log2(lanes)
        super().__init__(
            {
                "bus": In(config_stream()),
                "sub": In(4),
                "columns": In(COLUMN_BITS),
                "i": In(beat_stream(lanes)),
                "o": Out(beat_stream(lanes)),
                "active": Out(1),
                "awake": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.config = config = ConfigReceiver(Kind.WINDOW, WINDOW, self.depth)
        connect(m, flipped(self.bus), config.bus)
        m.d.comb += [config.sub.eq(self.sub), config.columns.eq(self.columns)]
        setup = self._setup = config.o.payload
        self._largest, self._empty = Signal(name="largest"), Signal(WORD_BITS, name="empty")
        m.d.comb += [
            self._largest.eq(setup.op == WindowOp.MAX),
            self._empty.eq(Mux(self._largest, window_model.EMPTY_MAX, 0)),
        ]

        # State that several parts share. Of the row record: what it is for, and the output rows open.
        self._scanning, self._finish, self._input_ends = (
            Signal(name=n) for n in ("scanning", "finish", "input_ends")
        )
        self._real, self._closing, self._covers, self._swaps = (
            Signal(name=n) for n in ("real", "closing", "covers", "swaps")
        )
        self._slots, self._open, self._fresh, self._head, self._old, self._last_turn = (
            Signal(8, name=n) for n in ("slots", "open", "fresh", "head", "old", "last_turn")
        )
        # Of the ring, in chunks; of the windows.
        number = FLAT_BITS - self.lane_bits
        self._reserved, self._free, self._base = (
            Signal(number, name=n) for n in ("reserved", "free", "base")
        )
        self._newest = Signal(number, init=-1, name="newest")
        self._walking, self._en = Signal(name="walking"), Signal(name="en")

        self._stirs = []  # what moves in a row of the input or along the windows
        rows = max(1, self.memory_words // self.lanes)
        m.submodules.partials = self._memory = Ram(self.lanes * TALL_BITS, rows)
        scanned, arrive, columns = self._build_visits(m, config.o.valid, platform)
        banks = self._build_ring(m, arrive, columns)
        segment = self._build_scan(m, banks)
        total, busy = self._build_reduction(m, banks, segment)
        leaves = self._build_exit(m, total, platform)
        between_rows = config.o.valid & ~self._scanning
        stay_awake(
            m, self.awake, config.awake, between_rows, *self._stirs, leaves, settle=SETTLE
        )
        self._build_rows(m, config.o.valid, scanned, busy)
        m.d.comb += config.o.ready.eq(self._finish)
        return m

    def _reduce(self, m, name, a, b, bits, second=0):
        """Return the sum or, in the low word alone, the maximum of two; that of ``second`` is b.

        One adder: for a maximum it takes the difference, whose sign tells unless the signs differ.
        """
        total, low = Signal(signed(bits + 1), name=f"{name}_sum"), Signal(WORD_BITS, name=f"{name}_low")
        takes = Signal(name=f"{name}_takes")
        largest, sign = self._largest, WORD_BITS - 1
        change = Cat(Const(0, 1), b) ^ largest.replicate(len(b) + 1)
        m.d.comb += [
            # Below is what gives a difference its carry.
            total.eq(Cat(largest, a).as_signed() + change.as_signed()),
            takes.eq(second | Mux(a[sign] ^ b[sign], a[sign], total[1 + sign])),
            low.eq(Mux(largest, Mux(takes, b[:WORD_BITS], a[:WORD_BITS]), total[1 : 1 + WORD_BITS])),
        ]
        return Cat(low, total[1 + WORD_BITS :]).as_signed()

    def _build_exit(self, m, total, platform):
        """Requantise and pack; return whether anything moves.

        The slice between them cuts the way from a stalled output to all stages.
        """
        setup = self._setup
        m.submodules.leaves = leaves = Slice(beat_layout(1))
        m.submodules.packer = packer = Packer(1, self.lanes)
        exit_, out = Requantise(), Slice(beat_layout(self.lanes))
        place(m, "requantise", "requantise", exit_, platform)
        m.submodules.slice = out
        connect(m, leaves.o, packer.i)
        connect(m, packer.o, out.i)
        connect(m, out.o, flipped(self.o))
        valid = Signal(Requantise.LATENCY)
        final = Signal(Requantise.LATENCY)
        m.d.comb += [
            self._en.eq(~valid[-1] | leaves.i.ready),
            exit_.en.eq(self._en & (total["valid"] | valid.any())),
            exit_.acc.eq(total["value"]),
            exit_.m.eq(setup.m),
            exit_.s.eq(setup.s),
            exit_.zero.eq(setup.zero),
            exit_.narrow.eq(setup.narrow),
            leaves.i.valid.eq(valid[-1]),
            leaves.i.payload.words[0].eq(exit_.out),
            leaves.i.payload.count.eq(1),
            leaves.i.payload.last.eq(final[-1]),
        ]
        with m.If(self._en):
            m.d.sync += [
                valid.eq(Cat(total["valid"], valid)),
                final.eq(Cat(total["final"], final)),
            ]
        moves = fires(leaves.i, leaves.o, out.i, out.o)
        return self._en & (total["valid"] | valid.any()) | packer.awake | moves

    def _build_rows(self, m, configured, scanned, busy):
        """Go from row to row, padding included; open and close output rows."""
        setup = self._setup
        # Rows of padding above and of the input that are left, output rows to be opened.
        above = Signal(8)
        below = Signal(SIZE)
        unopened = Signal(SIZE)
        # The next output row opens, the oldest closes in the row of which this is 1.
        opens_in = Signal(8)
        closes_in = Signal(8)
        reach = Signal(9)
        inside = Signal()
        opens = Signal()
        closes = Signal()
        swaps = Signal()
        m.d.comb += [
            inside.eq((above == 0) & (below != 0)),
            opens.eq((opens_in == 1) & (unopened != 0)),
            closes.eq((closes_in == 1) & (self._open != 0)),
            swaps.eq(self._open > self._slots),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [
                    self._slots.eq(1), reach.eq(setup.stride_y + 1),
                    self._open.eq(0), self._fresh.eq(0), self._head.eq(0),
                    above.eq(setup.pad_y), below.eq(setup.height), unopened.eq(setup.height_out),
                    opens_in.eq(1), closes_in.eq(setup.kernel_y),
                ]  # fmt: skip
                with m.If(configured):
                    m.next = "SLOTS"
            with m.State("SLOTS"):
                # ceil((kernel - 1) / stride) without a divider.
                with m.If((reach >= setup.kernel_y) | (self._slots == setup.height_out)):
                    m.d.sync += self._walking.eq(1)
                    m.next = "OPEN"
                with m.Else():
                    m.d.sync += [
                        self._slots.eq(self._slots + 1), reach.eq(reach + setup.stride_y)
                    ]  # fmt: skip
            with m.State("OPEN"):
                with m.If(opens):
                    m.d.sync += [
                        unopened.eq(unopened - 1),
                        self._open.eq(self._open + 1),
                        self._fresh.eq(self._fresh + 1),
                    ]
                m.next = "DECIDE"
            with m.State("DECIDE"):
                m.d.sync += [
                    self._real.eq(inside),
                    self._closing.eq(closes),
                    self._covers.eq(self._open != 0),
                    self._input_ends.eq(below == 1),
                    self._old.eq(self._open - self._fresh),
                    self._swaps.eq(swaps),
                    # Beyond the input, only the row that closes is visited.
                    self._last_turn.eq(
                        Mux(inside & (self._open != 0), Mux(swaps, self._slots, self._open) - 1, 0)
                    ),
                ]
                with m.If(inside | closes):
                    m.next = "SCAN"
                with m.Elif((below == 0) & (unopened == 0) & (self._open == 0)):
                    m.next = "FINISH"
                with m.Else():
                    m.next = "NEXT"
            with m.State("SCAN"):
                m.d.comb += self._scanning.eq(1)
                with m.If(scanned):
                    m.next = "NEXT"
            with m.State("NEXT"):
                m.d.sync += [
                    opens_in.eq(Mux(opens_in == 1, setup.stride_y, opens_in - 1)),
                    closes_in.eq(Mux(closes_in == 1, setup.stride_y, closes_in - 1)),
                ]
                with m.If(self._real):
                    m.d.sync += [below.eq(below - 1), self._fresh.eq(0)]
                with m.Elif(self._closing & (self._fresh == self._open)):
                    m.d.sync += self._fresh.eq(self._fresh - 1)
                with m.If(above != 0):
                    m.d.sync += above.eq(above - 1)
                with m.If(self._closing):
                    m.d.sync += [
                        self._open.eq(self._open - 1),
                        self._head.eq(Mux(self._head + 1 == self._slots, 0, self._head + 1)),
                    ]
                m.next = "OPEN"
            with m.State("FINISH"):
                with m.If(~busy):
                    m.d.comb += self._finish.eq(1)
                    m.next = "IDLE"


__all__ = ["Window"]
