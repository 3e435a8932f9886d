"""Reading side of the window unit: the ring of whole columns, and their reduction from left to right."""

from __future__ import annotations

from itertools import pairwise

from amaranth.hdl import Cat, Const, Mux, Signal, signed

from neuflow.blocks.loops import loop
from neuflow.blocks.ram import Ram
from neuflow.blocks.streams import WORD_BITS
from neuflow.blocks.window_model import RING_WORDS
from neuflow.blocks.window_rows import TALL_BITS
from neuflow.layout import SIZE

FLAT_BITS = 20
"""Columns of a packet are numbered modulo 2**20; numbers compared are less than 2**19 apart."""
PLACE = signed(SIZE + 2)
"""A column, padding included."""
TOTAL_BITS = 32
"""Sum of a window, 255 x 255 words."""


class WindowReader:
    """Part of :class:`neuflow.blocks.window.Window`, which owns the ports and signals used here."""

    def _build_ring(self, m, arrive, columns):
        """Store chunks as they leave, a bank for each lane; return the banks."""
        rows = RING_WORDS // self.lanes
        row = Signal(range(rows), name="ring_row")
        banks = [Ram(TALL_BITS, rows) for _ in range(self.lanes)]
        for lane, bank in enumerate(banks):
            m.submodules[f"ring{lane}"] = bank
            m.d.comb += [
                bank.write_enable.eq(arrive),
                bank.write_address.eq(row),
                bank.write_data.eq(columns.word_select(lane, TALL_BITS)),
                bank.read_enable.eq(self._en),
            ]
        with m.If(self._finish):
            m.d.sync += [row.eq(0), self._newest.eq(-1)]
        with m.Elif(arrive):
            m.d.sync += [row.eq(row + 1), self._newest.eq(self._newest + 1)]
        return banks

    def _build_scan(self, m, banks):
        """Read windows from the ring: ``lanes`` columns a cycle, from any lane on.

        Returns what is read in this cycle.
        """
        bits, most = self.lane_bits, self.lanes - 1
        load, read, there = Signal(name="load"), Signal(name="read"), Signal(name="there")
        following = self._build_windows(m, load)

        # The window that is being read: where, and how many columns but one are left. The last of its
        # reads ends it; a read crosses where it goes on in the next row of the ring.
        b_valid, b_hit, b_first, b_final, b_ends, b_crosses = (
            Signal(name=f"b_{n}") for n in ("valid", "hit", "first", "final", "ends", "crosses")
        )
        b_position = Signal(FLAT_BITS)
        b_span = Signal(8)
        lane, row = b_position[:bits], b_position[bits:]
        after = Signal(FLAT_BITS - bits, name="row_after")
        span, ends = Signal(8, name="span"), Signal(name="ends")
        # Rows of the ring that are written, less those needed: the lowest bits carry.
        lead = Signal(FLAT_BITS - bits + 1)
        m.d.comb += [
            after.eq(row + 1),
            lead.eq(Cat(Const(1, 1), self._newest) + Cat(~b_crosses, ~row)),
            there.eq(~b_hit | ~lead[-1]),
            read.eq(self._en & b_valid & there),
            load.eq(following["valid"] & (~b_valid | (read & b_ends))),
            span.eq(following["last"] - following["first"]),
            ends.eq(~following["hit"] | (span <= most)),
        ]
        self._stirs += [load, read]
        with m.If(load):
            first = following["position"][:bits]
            m.d.sync += [
                b_first.eq(1),
                b_hit.eq(following["hit"]),
                b_final.eq(following["final"]),
                b_position.eq(following["position"]),
                b_span.eq(span),
                b_ends.eq(ends),
                b_crosses.eq(first + Mux(ends, span[:bits], most) > most),
            ]
        with m.Elif(read):
            further = b_span[bits:] == 1  # the next read is the last
            m.d.sync += [
                b_first.eq(0),
                b_position.eq(Cat(lane, after)),
                b_span.eq(b_span - self.lanes),
                b_ends.eq(further),
                b_crosses.eq(lane + Mux(further, b_span[:bits], most) > most),
            ]
        m.d.sync += b_valid.eq(load | (b_valid & ~(read & b_ends)))
        with m.If(load & following["hit"]):
            m.d.sync += self._free.eq(following["position"][bits:])
        # Columns that no window will read must not fill the ring.
        with m.Elif(~self._walking & ~following["valid"] & ~b_valid):
            m.d.sync += self._free.eq(self._base)

        lanes = [Signal(name=f"takes{k}") for k in range(self.lanes)]
        for k, bank in enumerate(banks):
            m.d.comb += [
                bank.read_address.eq(Mux(k < lane, after, row)),
                lanes[k].eq(b_hit & (~b_ends | ((k - lane)[:bits] <= b_span[:bits]))),
            ]
        return {
            "valid": b_valid, "moves": read, "lanes": Cat(lanes), "first": b_first, "whole": b_ends,
            "final": b_final, "busy": self._walking | following["valid"] | b_valid,
        }  # fmt: skip

    def _build_windows(self, m, load):
        """Walk from window to window: which columns of its line the next one covers.

        Returns the window that waits: whether it covers any; its first column, and its last, modulo
        256; the number of its first in the ring; whether it is the last of the packet.
        """
        setup, bits = self._setup, self.lane_bits
        left = Signal(PLACE)
        last = Signal(PLACE)
        first_left = Signal(PLACE)
        first_last = Signal(PLACE)
        line_last = Signal(SIZE)
        low = Signal(SIZE)
        high = Signal(SIZE)
        step = Signal()
        ends_line = Signal()
        ends_map = Signal()
        f_valid, f_hit, f_final = (Signal(name=f"f_{n}") for n in ("valid", "hit", "final"))
        f_position = Signal(FLAT_BITS)
        f_first = Signal(8)
        f_last = Signal(8)

        self._stirs += [step]
        column_ends = loop(m, "column", setup.width_out, ~self._walking, step)
        last_map = loop(m, "map", setup.maps, ~self._walking, ends_line)
        last_row = loop(m, "row", setup.height_out, ~self._walking, ends_map)
        m.d.comb += [
            step.eq(self._walking & (~f_valid | load)),
            ends_line.eq(step & column_ends),
            ends_map.eq(ends_line & last_map),
            low.eq(Mux(left < 0, 0, left)),
            high.eq(Mux(last > line_last, line_last, last)),
        ]
        m.d.sync += [
            first_left.eq(-setup.pad_x),
            first_last.eq(setup.kernel_x - 1 - setup.pad_x),
            line_last.eq(setup.width - 1),
            f_valid.eq(step | (f_valid & ~load)),
        ]
        with m.If(step):
            m.d.sync += [
                f_hit.eq((left <= line_last) & (last >= 0)),
                f_first.eq(low),
                f_last.eq(high),
                f_position.eq(Cat(low[:bits], self._base + low[bits:])),
                f_final.eq(ends_map & last_row),
            ]
        with m.If(ends_map & last_row):
            m.d.sync += self._walking.eq(0)
        with m.If(~self._walking | ends_line):
            m.d.sync += [left.eq(first_left), last.eq(first_last)]
        with m.Elif(step):
            m.d.sync += [left.eq(left + setup.stride_x), last.eq(last + setup.stride_x)]
        with m.If(self._finish):
            m.d.sync += self._base.eq(0)
        with m.Elif(ends_line):
            m.d.sync += self._base.eq(self._base + self._chunks)
        return {
            "valid": f_valid, "hit": f_hit, "first": f_first, "last": f_last, "final": f_final,
            "position": f_position,
        }  # fmt: skip

    def _build_reduction(self, m, banks, segment):
        """Reduce the columns that are read together, then all of a window."""
        valid = [Signal(name=f"s{k}_valid") for k in range(1, 6)]
        meta = Cat(segment["first"], segment["whole"], segment["final"])
        metas = [Signal(len(meta), name=f"s{k}_meta", reset_less=True) for k in range(1, 6)]
        lanes = Signal(self.lanes, name="s1_lanes", reset_less=True)
        s2_words, pairs = (
            [Signal(signed(bits), name=f"{name}{k}", reset_less=True) for k in range(number)]
            for name, bits, number in (
                ("s2_word", TALL_BITS, self.lanes),
                ("s3_pair", TALL_BITS + 1, max(1, self.lanes // 2)),
            )
        )
        s4_part, s5_part = (
            Signal(signed(TOTAL_BITS), name=n, reset_less=True) for n in ("s4_part", "s5_part")
        )
        paired = [
            self._reduce(m, f"pair{k}", a, b, TALL_BITS + 1)
            for k, (a, b) in enumerate(zip(s2_words[::2], s2_words[1::2], strict=False))
        ]
        tree = self._tree(m, pairs)
        both = self._reduce(m, "part", s5_part, s4_part, TOTAL_BITS)
        self._stirs += [self._en & Cat(valid).any()]
        with m.If(self._en):
            m.d.sync += [
                *(after.eq(before) for before, after in pairwise([segment["moves"], *valid[:4]])),
                valid[4].eq(valid[3] & metas[3][1]),
            ]
            with m.If(segment["moves"] | Cat(valid[:4]).any()):
                m.d.sync += [after.eq(before) for before, after in pairwise([meta, *metas])]
                m.d.sync += lanes.eq(segment["lanes"])
                for k, bank in enumerate(banks):
                    m.d.sync += s2_words[k].eq(
                        Mux(lanes[k], bank.read_data.as_signed(), self._empty.as_signed())
                    )
                m.d.sync += [
                    *(after.eq(b) for after, b in zip(pairs, paired or s2_words, strict=True)),
                    s4_part.eq(tree),
                ]
            with m.If(valid[3]):
                m.d.sync += s5_part.eq(Mux(metas[3][0], s4_part, both))
        # Above a word, a maximum holds anything.
        value = Mux(self._largest, s5_part[:WORD_BITS].as_signed(), s5_part)
        busy = segment["busy"] | Cat(valid).any()
        return {"valid": valid[4], "value": value, "final": metas[4][2]}, busy

    def _tree(self, m, parts):
        """Reduce some numbers to one."""
        while len(parts) > 1:
            bits = len(parts[0]) + 1
            parts = [
                self._reduce(m, f"tree{len(parts)}_{k}", a, b, bits)
                for k, (a, b) in enumerate(zip(parts[::2], parts[1::2], strict=True))
            ]
        return parts[0]
