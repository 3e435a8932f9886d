"""Window reduction of a tile: MAX or SUM over any window, for pooling."""

from __future__ import annotations

from itertools import pairwise

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import exact_log2

from neuflow.blocks import window_model
from neuflow.blocks.arith import Requantise, tree_sum
from neuflow.blocks.config import ConfigReceiver, config_stream
from neuflow.blocks.gate import fires, stay_awake
from neuflow.blocks.ram import Ram
from neuflow.blocks.streams import WORD_BITS, Packer, Slice, beat_layout, beat_stream
from neuflow.blocks.window_read import FLAT_BITS, PLACE, WindowReader
from neuflow.layout import COLUMN_BITS, SIZE, WINDOW, Kind, WindowOp

_PART_BITS = WORD_BITS + 8
"""Sum of one window row, 255 words."""
_TOTAL_BITS = 32
"""Sum of a window, 255 x 255 words."""

SETTLE = 4
"""Cycles from the end of a configuration to the last register: what is made of it beforehand."""


class Window(WindowReader, Component):
    """Window reduction of rows (y, map, x); formula and fields in ``layout.WINDOW``.

    Members: ``bus`` In configuration bus, ``sub`` In(4), ``columns`` In(8); ``i`` In, ``o`` Out
    streams of ``lanes`` words (a power of 2); ``active`` Out, a beat of the input is taken;
    ``awake`` Out.

    One WINDOW configuration a packet, queue of ``depth``. The packet must hold exactly
    height x maps x width words; rows and columns beyond the last window are taken and dropped,
    windows that reach beyond the input are finished without it. Memory: the configuration must
    keep to ``window_model.memory_words() <= memory_words``.

    Throughput: see ``window_model.cycles_bound``. Latency: from the beat that completes an output
    word to that word ``LATENCY`` cycles, and what the packer waits for a whole beat. A stall of
    ``o`` holds all stages once its slice is full. Results saturate once, at the end.

    How: the input lies in a ring of beats. Each window row is read from there, several words a
    cycle, and reduced to one number, which is then merged into every output row open at that
    place. A partial row that becomes whole leaves through the requantiser.
    """

    LATENCY = 10 + Requantise.LATENCY + Slice.LATENCY + Packer.LATENCY + Slice.LATENCY

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
        self._largest = Signal()
        m.d.comb += self._largest.eq(setup.op == WindowOp.MAX)

        # State that several parts share.
        self._written, self._free, self._base = (
            Signal(FLAT_BITS, name=n) for n in ("written", "free", "base")
        )
        self._scanning, self._flushing, self._finish = (
            Signal(name=n) for n in ("scanning", "flushing", "finish")
        )
        self._real, self._closing, self._final = (
            Signal(name=n) for n in ("real", "closing", "final")
        )
        self._slots, self._open, self._fresh, self._head = (
            Signal(8, name=n) for n in ("slots", "open", "fresh", "head")
        )
        self._en, self._go = Signal(name="en"), Signal(name="go")

        m.submodules.partials = self._memory = Ram(_TOTAL_BITS, self.memory_words)
        ring = self._build_ring(m, config.o.valid)
        scanned, segment = self._build_scan(m, ring)
        part = self._build_row_reduction(m, ring, segment)
        total, busy = self._build_merge(m, part)
        leaves = self._build_exit(m, total)
        stay_awake(m, self.awake, config.awake, config.o.valid, leaves, settle=SETTLE)
        self._build_rows(m, config.o.valid, scanned, segment["valid"] | busy)
        m.d.comb += config.o.ready.eq(self._finish)
        return m

    def _reduce(self, a, b):
        """Merge two results."""
        return Mux(self._largest, Mux(a < b, b, a), a + b)

    def _build_row_reduction(self, m, ring, segment):
        """Reduce the lanes of a segment, then the segments of a window row."""
        valid = [Signal(name=f"s{k}_valid") for k in range(1, 6)]
        lanes = [Signal(self.lanes, name=f"s{k}_lanes", reset_less=True) for k in (1, 2)]
        meta = Cat(segment["first"], segment["whole"], segment["final"], segment["address"])
        metas = [Signal(len(meta), name=f"s{k}_meta", reset_less=True) for k in range(1, 6)]
        s2_words = Signal(self.lanes * WORD_BITS, reset_less=True)
        pairs = max(1, self.lanes // 2)
        s3_pairs = [
            Signal(signed(_PART_BITS), name=f"s3_pair{k}", reset_less=True) for k in range(pairs)
        ]
        s4_part, s5_part = (
            Signal(signed(_PART_BITS), name=n, reset_less=True) for n in ("s4_part", "s5_part")
        )

        empty = Signal(signed(WORD_BITS))
        words = [Signal(signed(WORD_BITS), name=f"word_{lane}") for lane in range(self.lanes)]
        m.d.comb += empty.eq(Mux(self._largest, window_model.EMPTY_MAX, 0))
        for lane, word in enumerate(words):
            stored = s2_words.word_select(lane, WORD_BITS).as_signed()
            m.d.comb += word.eq(Mux(lanes[1][lane], stored, empty))
        paired = list(zip(words[::2], words[1::2], strict=False))
        with m.If(self._go):
            m.d.sync += [
                *(after.eq(before) for before, after in pairwise([segment["moves"], *valid[:4]])),
                valid[4].eq(valid[3] & metas[3][1]),
            ]
            with m.If(segment["moves"] | Cat(valid[:4]).any()):
                m.d.sync += [
                    lanes[0].eq(segment["lanes"]),
                    lanes[1].eq(lanes[0]),
                    *(after.eq(before) for before, after in pairwise([meta, *metas])),
                    s2_words.eq(ring.read_data),
                    *(s3.eq(self._reduce(*two)) for s3, two in zip(s3_pairs, paired, strict=False)),
                    s4_part.eq(Mux(self._largest, self._tree_max(m, s3_pairs), tree_sum(s3_pairs))),
                ]
                if not paired:
                    m.d.sync += s3_pairs[0].eq(words[0])
            with m.If(valid[3]):
                m.d.sync += s5_part.eq(Mux(metas[3][0], s4_part, self._reduce(s5_part, s4_part)))
        return {
            "valid": valid[4], "value": s5_part, "final": metas[4][2], "address": metas[4][3:],
            "busy": Cat(valid).any(),
        }  # fmt: skip

    def _tree_max(self, m, words):
        """Return the largest of the words."""
        level = 0
        while len(words) > 1:
            pairs = []
            for k, (a, b) in enumerate(zip(words[::2], words[1::2], strict=True)):
                larger = Signal(signed(_PART_BITS), name=f"larger_{level}_{k}")
                m.d.comb += larger.eq(Mux(a < b, b, a))
                pairs.append(larger)
            words, level = pairs, level + 1
        return words[0]

    def _build_merge(self, m, part):
        """Merge a window row into each open output row, one a cycle, oldest first."""
        memory = self._memory
        turn, slot = Signal(8), Signal(8)
        fresh_turn = Signal(init=1)  # turn 0
        here, last_turn, works = Signal(8), Signal(), Signal()
        after, open_less = Signal(9), Signal(8)
        held = {
            key: Signal.like(part[key], name=f"held_{key}", reset_less=True)
            for key in ("value", "address", "final")
        }
        now = {key: Mux(fresh_turn, part[key], held[key]) for key in held}
        m.d.sync += open_less.eq(self._open - 1)
        m.d.comb += [
            here.eq(Mux(fresh_turn, self._head, slot)),
            after.eq(here + 1),
            works.eq(part["valid"] | ~fresh_turn),
            last_turn.eq(turn == open_less),
            # The row reduction hands its result over in turn 0 and goes on with the next.
            self._go.eq(self._en & (~part["valid"] | fresh_turn)),
        ]
        with m.If(self._en & works):
            m.d.sync += [
                turn.eq(Mux(last_turn, 0, turn + 1)),
                fresh_turn.eq(last_turn),
                slot.eq(Mux(after == self._slots, 0, after)),
            ]
            with m.If(fresh_turn):
                m.d.sync += [held[key].eq(part[key]) for key in held]

        # Address; read; what was read; merged. No place is read again before the next row, which
        # waits until these stages are empty, so reading and writing never meet.
        visit = data.StructLayout(
            {
                "new": 1, "leaves": 1, "final": 1,
                "value": signed(_PART_BITS), "address": len(memory.read_address),
            }
        )  # fmt: skip
        visits = [Signal(visit, name=f"v{k}_visit", reset_less=True) for k in range(1, 5)]
        valid = [Signal(name=f"v{k}_valid") for k in range(1, 5)]
        total, old = (Signal(signed(_TOTAL_BITS), name=n, reset_less=True) for n in ("total", "old"))
        v3, v4 = visits[2:]
        with m.If(self._en):
            m.d.sync += [
                *(later.eq(earlier) for earlier, later in pairwise([works, *valid])),
                *(later.eq(earlier) for earlier, later in pairwise(visits)),
                visits[0].new.eq(turn + self._fresh >= self._open),
                visits[0].leaves.eq(fresh_turn & self._closing),
                visits[0].final.eq(now["final"]),
                visits[0].value.eq(now["value"]),
                visits[0].address.eq(now["address"] + here),
                old.eq(memory.read_data),
                total.eq(Mux(v3.new, v3.value, self._reduce(old, v3.value))),
            ]
        m.d.comb += [
            memory.read_enable.eq(self._en & valid[0]),
            memory.read_address.eq(visits[0].address),
            memory.write_enable.eq(self._en & valid[3] & ~v4.leaves),
            memory.write_address.eq(v4.address),
            memory.write_data.eq(total),
        ]
        result = {"valid": valid[3] & v4.leaves, "value": total, "final": v4.final}
        return result, part["busy"] | works | Cat(valid).any()

    def _build_exit(self, m, total):
        """Requantise and pack; return whether anything moves.

        The slice between them cuts the way from a stalled output to all stages.
        """
        setup = self._setup
        m.submodules.leaves = leaves = Slice(beat_layout(1))
        m.submodules.requantise = exit_ = Requantise()
        m.submodules.packer = packer = Packer(1, self.lanes)
        m.submodules.slice = out = Slice(beat_layout(self.lanes))
        connect(m, leaves.o, packer.i)
        connect(m, packer.o, out.i)
        connect(m, out.o, flipped(self.o))
        valid, final = Signal(Requantise.LATENCY), Signal(Requantise.LATENCY)
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
        y, opens_at, closes_at = (Signal(PLACE, name=n) for n in ("y", "opens_at", "closes_at"))
        reach = Signal(10)
        opened, closed = Signal(SIZE), Signal(SIZE)
        inside, closes = Signal(), Signal()
        m.d.comb += [
            inside.eq((y >= 0) & (y < setup.height)),
            closes.eq((self._open != 0) & (y == closes_at)),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [
                    self._slots.eq(1), reach.eq(setup.stride_y),
                    self._open.eq(0), self._fresh.eq(0), self._head.eq(0),
                    opened.eq(0), closed.eq(0),
                    y.eq(-setup.pad_y), opens_at.eq(-setup.pad_y),
                    closes_at.eq(setup.kernel_y - 1 - setup.pad_y),
                ]  # fmt: skip
                with m.If(configured):
                    m.next = "SLOTS"
            with m.State("SLOTS"):
                # ceil(kernel / stride) without a divider.
                with m.If((reach >= setup.kernel_y) | (self._slots == setup.height_out)):
                    m.next = "OPEN"
                with m.Else():
                    m.d.sync += [
                        self._slots.eq(self._slots + 1), reach.eq(reach + setup.stride_y)
                    ]  # fmt: skip
            with m.State("OPEN"):
                with m.If((y == opens_at) & (opened != setup.height_out)):
                    m.d.sync += [
                        opened.eq(opened + 1),
                        opens_at.eq(opens_at + setup.stride_y),
                        self._open.eq(self._open + 1),
                        self._fresh.eq(self._fresh + 1),
                    ]
                m.next = "DECIDE"
            with m.State("DECIDE"):
                m.d.sync += [
                    self._real.eq(inside),
                    self._closing.eq(closes),
                    self._final.eq(closes & (closed == setup.height_out - 1)),
                ]
                with m.If((y >= setup.height) & (closed == setup.height_out)):
                    m.next = "FINISH"
                with m.Elif(inside | closes):
                    m.next = "SCAN"
                with m.Else():
                    m.d.sync += y.eq(y + 1)
                    m.next = "OPEN"
            with m.State("SCAN"):
                m.d.comb += self._scanning.eq(1)
                with m.If(scanned):
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                # All rows share the state of the open rows, so one ends before the next begins.
                with m.If(~busy):
                    m.d.sync += y.eq(y + 1)
                    with m.If(self._closing):
                        m.d.sync += [
                            closed.eq(closed + 1),
                            closes_at.eq(closes_at + setup.stride_y),
                            self._open.eq(self._open - 1),
                            self._head.eq(Mux(self._head + 1 == self._slots, 0, self._head + 1)),
                        ]
                    with m.If(self._real):
                        m.d.sync += self._fresh.eq(0)
                    with m.Elif(self._closing & (self._fresh == self._open)):
                        m.d.sync += self._fresh.eq(self._fresh - 1)
                    m.next = "OPEN"
            with m.State("FINISH"):
                # What no window covered may still come in.
                m.d.comb += self._flushing.eq(1)
                with m.If(self._input_done):
                    m.d.comb += self._finish.eq(1)
                    m.next = "IDLE"


__all__ = ["Window"]
