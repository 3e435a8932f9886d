"""Window reduction of a tile: MAX or SUM over any window, for pooling."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import exact_log2

from neuflow.blocks import window_model
from neuflow.blocks.arith import Requantise, tree_sum
from neuflow.blocks.config import ConfigReceiver, config_stream
from neuflow.blocks.ram import Ram
from neuflow.blocks.streams import WORD_BITS, Packer, beat_stream
from neuflow.layout import COLUMN_BITS, SIZE, WINDOW, Kind, WindowOp

_FLAT_BITS = 20
"""Words of a packet are numbered modulo 2**20; numbers compared are less than 2**19 apart."""
_PLACE = signed(SIZE + 2)
"""A row or column, padding included."""
_PART_BITS = WORD_BITS + 8
"""Sum of one window row, 255 words."""
_TOTAL_BITS = 32
"""Sum of a window, 255 x 255 words."""


class Window(Component):
    """Window reduction of rows (y, map, x); formula and fields in ``layout.WINDOW``.

    Members: ``bus`` In configuration bus, ``sub`` In(4), ``columns`` In(8); ``i`` In, ``o`` Out
    streams of ``lanes`` words (a power of 2); ``active`` Out, a beat of the input is taken.

    One WINDOW configuration a packet, queue of ``depth``. The packet must hold exactly
    height x maps x width words; rows and columns beyond the last window are taken and dropped,
    windows that reach beyond the input are finished without it. Memory: the configuration must
    keep to ``window_model.memory_words() <= memory_words``.

    Throughput: see ``window_model.cycles_bound``. Latency: from the beat that completes an output
    word to that word ``LATENCY`` cycles, and what the packer waits for a whole beat. A stall of
    ``o`` holds all stages. Results saturate once, at the end.

    How: the input lies in a ring of beats. Each window row is read from there, several words a
    cycle, and reduced to one number, which is then merged into every output row open at that
    place. A partial row that becomes whole leaves through the requantiser.
    """

    LATENCY = 5 + Requantise.LATENCY + Packer.LATENCY

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
            Signal(_FLAT_BITS, name=n) for n in ("written", "free", "base")
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

        m.submodules.memory = self._memory = Ram(_TOTAL_BITS, self.memory_words)
        ring = self._build_ring(m, config.o.valid)
        scanned, segment = self._build_scan(m, ring)
        part = self._build_row_reduction(m, ring, segment)
        total, busy = self._build_merge(m, part)
        self._build_exit(m, total)
        self._build_rows(m, config.o.valid, scanned, segment["valid"] | busy)
        m.d.comb += config.o.ready.eq(self._finish)
        return m

    def _reduce(self, a, b):
        """Merge two results."""
        return Mux(self._largest, Mux(a < b, b, a), a + b)

    def _build_ring(self, m, configured):
        """Store beats as they come, until the ring is full of words still needed."""
        beats = max(4, window_model.RING_WORDS // self.lanes)
        m.submodules.ring = ring = Ram(self.lanes * WORD_BITS, beats)
        ahead = Signal(signed(_FLAT_BITS))
        done, take = Signal(name="input_done"), Signal()
        oldest = Cat(Const(0, self.lane_bits), self._free[self.lane_bits :])
        m.d.comb += [
            ahead.eq(self._written - oldest),
            self.i.ready.eq(configured & ~done & (ahead < beats * self.lanes)),
            take.eq(self.i.valid & self.i.ready),
            ring.write_enable.eq(take),
            ring.write_address.eq(self._written[self.lane_bits :]),
            ring.write_data.eq(self.i.payload.words.as_value()),
            self.active.eq(take),
        ]
        with m.If(self._finish):
            m.d.sync += [self._written.eq(0), done.eq(0)]
        with m.Elif(take):
            m.d.sync += [
                self._written.eq(self._written + self.i.payload.count),
                done.eq(self.i.payload.last),
            ]
        self._input_done = done
        return ring

    def _build_scan(self, m, ring):
        """Walk over the windows of a row record, and over the beats of each.

        Returns ``scanned`` (the last window of the row has been handed on) and the segment of a
        window row that is read from the ring in this cycle.
        """
        setup, bits = self._setup, self.lane_bits
        column, image = Signal(SIZE), Signal(SIZE)
        left = Signal(_PLACE)
        address = Signal.like(self._memory.read_address, name="address")
        scanned = Signal()

        # Which words of its row the window covers.
        low, high = Signal(_PLACE), Signal(_PLACE)
        hit = Signal()
        m.d.comb += [
            low.eq(Mux(left < 0, 0, left)),
            high.eq(Mux(left + setup.kernel_x > setup.width, setup.width, left + setup.kernel_x)),
            hit.eq(self._real & (low < high)),
        ]

        # The window that is being read.
        b_valid, b_hit, b_first, b_final = (
            Signal(name=f"b_{n}") for n in ("valid", "hit", "first", "final")
        )
        b_position, b_end = Signal(_FLAT_BITS), Signal(_FLAT_BITS)
        b_address = Signal.like(address, name="b_address")
        whole, there, read = Signal(), Signal(), Signal()
        end_lane = Mux(whole, b_end[:bits], self.lanes - 1)
        lead = Signal(signed(_FLAT_BITS))
        m.d.comb += [
            whole.eq(~b_hit | (b_position[bits:] == b_end[bits:])),
            lead.eq(self._written - Cat(end_lane[:bits], b_position[bits:])),
            there.eq(~b_hit | (lead > 0)),
            read.eq(self._go & b_valid & there),
            ring.read_enable.eq(self._go),
            ring.read_address.eq(b_position[bits:]),
        ]
        load, skip, step = Signal(), Signal(), Signal()
        arrived = Signal(signed(_FLAT_BITS))
        last_column, last_map = Signal(), Signal()
        m.d.comb += [
            # A row that no window covers passes by as soon as it has arrived, map by map.
            arrived.eq(self._written - self._base),
            skip.eq(self._scanning & (self._open == 0) & ~b_valid & (arrived >= 0)),
            load.eq(self._scanning & (self._open != 0) & (~b_valid | (read & whole))),
            last_column.eq(skip | (column == setup.width_out - 1)),
            last_map.eq(image == setup.maps - 1),
            step.eq(load | skip),
            scanned.eq(step & last_column & last_map),
        ]
        with m.If(read):
            m.d.sync += [
                b_position.eq(Cat(Const(0, bits), b_position[bits:] + 1)),
                b_first.eq(0),
                b_valid.eq(~whole),
            ]
        with m.If(load):
            m.d.sync += [
                b_valid.eq(1),
                b_hit.eq(hit),
                b_first.eq(1),
                b_final.eq(self._final & last_column & last_map),
                b_position.eq(self._base + low),
                b_end.eq(self._base + high - 1),
                b_address.eq(address),
                address.eq(address + self._slots),
            ]
            with m.If(hit):
                m.d.sync += self._free.eq(self._base + low)
        with m.If(step):
            m.d.sync += [column.eq(column + 1), left.eq(left + setup.stride_x)]
            with m.If(last_column):
                m.d.sync += [column.eq(0), left.eq(-setup.pad_x), image.eq(image + 1)]
                with m.If(self._real):
                    m.d.sync += self._base.eq(self._base + setup.width)
        # Words that no window will read must not fill the ring.
        with m.If((self._scanning & (self._open == 0) & ~b_valid) | self._flushing):
            m.d.sync += self._free.eq(self._base)
        with m.If(~self._scanning):
            m.d.sync += [column.eq(0), image.eq(0), left.eq(-setup.pad_x), address.eq(0)]
        with m.If(self._finish):
            m.d.sync += [self._base.eq(0), self._free.eq(0)]

        lanes = Cat(
            b_hit & (lane >= b_position[:bits]) & (lane <= end_lane) for lane in range(self.lanes)
        )
        segment = {
            "valid": b_valid, "moves": read, "lanes": lanes, "first": b_first, "whole": whole,
            "final": b_final, "address": b_address,
        }  # fmt: skip
        return scanned, segment

    def _build_row_reduction(self, m, ring, segment):
        """Reduce the lanes of a segment, then the segments of a window row."""
        s1_valid, s2_valid, s3_valid = (Signal(name=f"s{k}_valid") for k in (1, 2, 3))
        s1_lanes = Signal(self.lanes)
        meta = Cat(segment["first"], segment["whole"], segment["final"], segment["address"])
        s1_meta, s2_meta, s3_meta = (Signal(len(meta), name=f"s{k}_meta") for k in (1, 2, 3))
        s2_part, s3_part = Signal(signed(_PART_BITS)), Signal(signed(_PART_BITS))

        empty = Signal(signed(WORD_BITS))
        words = [Signal(signed(WORD_BITS), name=f"word_{lane}") for lane in range(self.lanes)]
        m.d.comb += empty.eq(Mux(self._largest, window_model.EMPTY_MAX, 0))
        for lane, word in enumerate(words):
            stored = ring.read_data.word_select(lane, WORD_BITS).as_signed()
            m.d.comb += word.eq(Mux(s1_lanes[lane], stored, empty))
        with m.If(self._go):
            m.d.sync += [
                s1_valid.eq(segment["moves"]),
                s2_valid.eq(s1_valid),
                s3_valid.eq(s2_valid & s2_meta[1]),
            ]
            with m.If(segment["moves"] | s1_valid | s2_valid):
                m.d.sync += [
                    s1_lanes.eq(segment["lanes"]),
                    s1_meta.eq(meta),
                    s2_meta.eq(s1_meta),
                    s3_meta.eq(s2_meta),
                    s2_part.eq(Mux(self._largest, self._tree_max(m, words), tree_sum(words))),
                ]
            with m.If(s2_valid):
                m.d.sync += s3_part.eq(
                    Mux(s2_meta[0], s2_part, self._reduce(s3_part, s2_part))
                )
        return {
            "valid": s3_valid, "value": s3_part, "final": s3_meta[2], "address": s3_meta[3:],
            "busy": s1_valid | s2_valid | s3_valid,
        }  # fmt: skip

    def _tree_max(self, m, words):
        """Return the largest of the words."""
        level = 0
        while len(words) > 1:
            pairs = []
            for k, (a, b) in enumerate(zip(words[::2], words[1::2], strict=True)):
                larger = Signal(signed(WORD_BITS), name=f"larger_{level}_{k}")
                m.d.comb += larger.eq(Mux(a < b, b, a))
                pairs.append(larger)
            words, level = pairs, level + 1
        return words[0]

    def _build_merge(self, m, part):
        """Merge a window row into each open output row, one a cycle, oldest first."""
        memory = self._memory
        turn, slot = Signal(8), Signal(8)
        here, last_turn, works = Signal(8), Signal(), Signal()
        after = Signal(9)
        held = {
            key: Signal.like(part[key], name=f"held_{key}") for key in ("value", "address", "final")
        }
        now = {key: Mux(turn == 0, part[key], held[key]) for key in held}
        m.d.comb += [
            here.eq(Mux(turn == 0, self._head, slot)),
            after.eq(here + 1),
            works.eq(part["valid"] | (turn != 0)),
            last_turn.eq(turn == self._open - 1),
            # The row reduction hands its result over in turn 0 and goes on with the next.
            self._go.eq(self._en & (~part["valid"] | (turn == 0))),
        ]
        with m.If(self._en & works):
            m.d.sync += [
                turn.eq(Mux(last_turn, 0, turn + 1)),
                slot.eq(Mux(after == self._slots, 0, after)),
            ]
            with m.If(turn == 0):
                m.d.sync += [held[key].eq(part[key]) for key in held]

        # No place is read again before the next row, so reading and writing never meet.
        v1_valid, v1_new, v1_leaves, v1_final = (
            Signal(name=f"v1_{n}") for n in ("valid", "new", "leaves", "final")
        )
        v1_value = Signal(signed(_PART_BITS))
        v1_address = Signal.like(memory.write_address, name="v1_address")
        total, old = Signal(signed(_TOTAL_BITS)), Signal(signed(_TOTAL_BITS))
        with m.If(self._en):
            m.d.sync += v1_valid.eq(works)
            with m.If(works):
                m.d.sync += [
                    v1_new.eq(turn + self._fresh >= self._open),
                    v1_leaves.eq((turn == 0) & self._closing),
                    v1_final.eq(now["final"]),
                    v1_value.eq(now["value"]),
                    v1_address.eq(memory.read_address),
                ]
        m.d.comb += [
            memory.read_enable.eq(self._en & works),
            memory.read_address.eq(now["address"] + here),
            old.eq(memory.read_data),
            total.eq(Mux(v1_new, v1_value, self._reduce(old, v1_value))),
            memory.write_enable.eq(self._en & v1_valid & ~v1_leaves),
            memory.write_address.eq(v1_address),
            memory.write_data.eq(total),
        ]
        result = {"valid": v1_valid & v1_leaves, "value": total, "final": v1_final}
        return result, part["busy"] | works | v1_valid

    def _build_exit(self, m, total):
        """Requantise and pack."""
        setup = self._setup
        m.submodules.requantise = exit_ = Requantise()
        m.submodules.packer = packer = Packer(1, self.lanes)
        connect(m, packer.o, flipped(self.o))
        valid, final = Signal(Requantise.LATENCY), Signal(Requantise.LATENCY)
        m.d.comb += [
            self._en.eq(~valid[-1] | packer.i.ready),
            exit_.en.eq(self._en & (total["valid"] | valid.any())),
            exit_.acc.eq(total["value"]),
            exit_.m.eq(setup.m),
            exit_.s.eq(setup.s),
            exit_.zero.eq(setup.zero),
            exit_.narrow.eq(setup.narrow),
            packer.i.valid.eq(valid[-1]),
            packer.i.payload.words[0].eq(exit_.out),
            packer.i.payload.count.eq(1),
            packer.i.payload.last.eq(final[-1]),
        ]
        with m.If(self._en):
            m.d.sync += [
                valid.eq(Cat(total["valid"], valid)),
                final.eq(Cat(total["final"], final)),
            ]

    def _build_rows(self, m, configured, scanned, busy):
        """Go from row to row, padding included; open and close output rows."""
        setup = self._setup
        y, opens_at, closes_at = (Signal(_PLACE, name=n) for n in ("y", "opens_at", "closes_at"))
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
