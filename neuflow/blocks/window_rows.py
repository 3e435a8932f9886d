"""Writing side of the window unit: lines out of the packet, and their reduction from top to bottom."""

from __future__ import annotations

from itertools import pairwise

from amaranth.hdl import Cat, Const, Mux, Signal, signed
from amaranth.lib import data
from amaranth.utils import exact_log2

from neuflow.blocks.gate import fires
from neuflow.blocks.loops import loop
from neuflow.blocks.streams import WORD_BITS, Slice, beat_layout
from neuflow.blocks.window_model import RING_WORDS
from neuflow.layout import SIZE

TALL_BITS = WORD_BITS + 8
"""Sum of the rows of a window, 255 words, in one column."""


class WindowRows:
    """Part of :class:`neuflow.blocks.window.Window`, which owns the ports and signals used here."""

    def _build_lines(self, m, configured, taken, ends, platform):
        """Cut the packet into chunks: up to ``lanes`` words of one line, its first in lane 0.

        ``taken``: the chunk has been used; ``ends``: it is the last of the packet. Returns its words,
        and whether they are there.
        """
        lanes, bits = self.lanes, self.lane_bits
        intake = Slice(beat_layout(lanes))
        m.submodules.intake = intake
        held = Signal(lanes * WORD_BITS, reset_less=True)
        held_valid = Signal()
        lane = Signal(bits)
        after = Signal(bits + 2)
        spills = Signal()
        passes = Signal()
        there = Signal()
        words = intake.o.payload.words.as_value()
        self._stirs += [fires(intake.i, intake.o)]
        m.d.comb += [
            self.i.ready.eq(configured & intake.i.ready),
            intake.i.valid.eq(configured & self.i.valid),
            intake.i.payload.eq(self.i.payload),
            self.active.eq(self.i.valid & self.i.ready),
            # Of the beat that is held and the next, the chunk begins in the first.
            after.eq(lane + Mux(self._line_ends, self._tail, lanes)),
            spills.eq(after > lanes),
            there.eq(held_valid & (~spills | intake.o.valid)),
            # Behind the last chunk lies the next packet.
            passes.eq(taken & (after >= lanes) & (~ends | spills)),
            intake.o.ready.eq(~held_valid | passes),
        ]
        with m.If(taken):
            m.d.sync += lane.eq(Mux(ends, 0, after[:bits]))
        with m.If(intake.o.ready):
            m.d.sync += held.eq(words)
        with m.If(taken & ends):
            m.d.sync += held_valid.eq(0)
        with m.Elif(intake.o.ready):
            m.d.sync += held_valid.eq(intake.o.valid)
        amount = Cat(Const(0, exact_log2(WORD_BITS)), lane)
        return (Cat(held, words) >> amount)[: len(held)], there

    def _build_visits(self, m, configured, platform):
        """Visit, for each chunk, the output rows that are open there, oldest first.

        Returns ``scanned``: the last visit of a row record; whether columns leave, and their words.
        """
        setup, bits = self._setup, self.lane_bits
        chunks = self._chunks = Signal(SIZE + 1 - bits)
        self._tail, self._line_ends = Signal(bits + 1, name="tail"), Signal(name="line_ends")
        issue = Signal()
        step = Signal()
        room = Signal()
        turn = Signal(8)
        slot = Signal(8)
        last_turn = Signal()
        first_turn = Signal(init=1)
        after = Signal(9)
        base = Signal.like(self._memory.read_address, name="chunk_base")
        taken = Signal()
        ends = Signal()
        scanned = Signal()

        idle = ~self._scanning
        line_ends = loop(m, "chunk", chunks, idle, step)
        last_map = loop(m, "line", setup.maps, idle, step & line_ends)
        words, there = self._build_lines(m, configured, taken, ends, platform)
        m.d.sync += [
            chunks.eq((setup.width + (self.lanes - 1)) >> bits),
            self._tail.eq((setup.width - 1)[:bits] + 1),
        ]
        m.d.comb += [
            self._line_ends.eq(line_ends),
            issue.eq(self._scanning & (there | ~self._real) & (room | ~self._closing)),
            last_turn.eq(turn == self._last_turn),
            step.eq(issue & last_turn),
            taken.eq(step & self._real),
            scanned.eq(step & line_ends & last_map),
            ends.eq(self._input_ends & line_ends & last_map),
            after.eq(slot + 1),
        ]
        with m.If(idle | step):
            m.d.sync += [turn.eq(0), first_turn.eq(1), slot.eq(self._head)]
        with m.Elif(issue):
            m.d.sync += [
                turn.eq(turn + 1), first_turn.eq(0), slot.eq(Mux(after == self._slots, 0, after))
            ]  # fmt: skip
        with m.If(idle):
            m.d.sync += base.eq(0)
        with m.Elif(step):
            m.d.sync += base.eq(base + self._slots)

        self._stirs += [issue]
        leaves = first_turn & self._closing
        self._build_room(m, issue & leaves, room)
        visit = {
            "valid": issue & self._covers, "new": turn >= self._old, "leaves": leaves,
            "stores": ~leaves | self._swaps, "address": base + slot, "words": words,
        }  # fmt: skip
        return scanned, *self._build_merge(m, visit)

    def _build_room(self, m, reserves, room):
        """Count the chunks on their way to the ring; three more may come before it counts as full."""
        reserved, ahead = self._reserved, Signal(signed(len(self._reserved)), name="ahead")
        with m.If(self._finish):
            m.d.sync += reserved.eq(0)
        with m.Elif(reserves):
            m.d.sync += reserved.eq(reserved + 1)
        m.d.sync += [ahead.eq(reserved - self._free), room.eq(ahead < RING_WORDS // self.lanes - 2)]

    def _build_merge(self, m, visit):
        """Merge the words of a visit with the partial results of its place; what is whole leaves.

        Stages: address; read; what was read; merged. A place is not visited again within 4 cycles,
        for so long (``ROW_OVERHEAD`` and one) the way to the next row takes; so reading and writing
        never meet.
        """
        memory, lanes = self._memory, self.lanes
        end = {"leaves": 1, "stores": 1, "address": len(memory.read_address), "words": lanes * WORD_BITS}
        valid = [Signal(name=f"v{k}_valid") for k in range(1, 5)]
        v1, v2, v3 = (
            Signal(data.StructLayout(end | {"new": 1}), name=f"v{k}", reset_less=True)
            for k in range(1, 4)
        )
        v4 = Signal(data.StructLayout(end), name="v4", reset_less=True)
        old, total = (
            Signal(lanes * TALL_BITS, name=n, reset_less=True) for n in ("old", "merged")
        )

        words = [v4.words.word_select(k, WORD_BITS).as_signed() for k in range(lanes)]
        tall = Cat(Cat(word, word[-1].replicate(TALL_BITS - WORD_BITS)) for word in words)
        self._stirs += valid
        m.d.sync += [after.eq(before) for before, after in pairwise([visit["valid"], *valid])]
        with m.If(visit["valid"]):
            m.d.sync += [v1[name].eq(visit[name]) for name in ("new", "leaves", "stores", "address")]
            m.d.sync += v1.words.eq(Mux(self._real, visit["words"], self._empty.replicate(lanes)))
        with m.If(valid[0]):
            m.d.sync += v2.eq(v1)
        with m.If(valid[1]):
            m.d.sync += [v3.eq(v2), old.eq(Mux(v2.new, 0, memory.read_data))]
        merged = [
            self._reduce(
                m, f"lane{k}", old.word_select(k, TALL_BITS).as_signed(),
                v3.words.word_select(k, WORD_BITS).as_signed(), TALL_BITS, v3.new,
            )
            for k in range(lanes)
        ]  # fmt: skip
        with m.If(valid[2]):
            m.d.sync += [v4[name].eq(v3[name]) for name in end]
            m.d.sync += total.eq(Cat(merged))
        m.d.comb += [
            memory.read_enable.eq(valid[0]),
            memory.read_address.eq(v1.address),
            # Where a row leaves, the one that opens in this row (if any) takes its place.
            memory.write_enable.eq(valid[3] & v4.stores),
            memory.write_address.eq(v4.address),
            memory.write_data.eq(Mux(v4.leaves, tall, total)),
        ]
        return valid[3] & v4.leaves, total
