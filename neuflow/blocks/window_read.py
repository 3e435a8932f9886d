"""Reading side of the window unit: the ring of whole columns, and their reduction from left to right."""

from __future__ import annotations

from itertools import pairwise

from amaranth.hdl import Cat, Mux, Signal, signed

from neuflow.blocks.conv_rows import loop
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
_REACH_BITS = 9
"""Chunks from one of a window to another, or written and not yet read: less than 2**9."""


class WindowReader:
    """Part of :class:`neuflow.blocks.window.Window`, which owns the ports and signals used here."""

    def _build_ring(self, m, arrive, columns):
        """Store chunks as they leave, a bank for each lane; return the banks."""
        rows = RING_WORDS // self.lanes
        banks = [Ram(TALL_BITS, rows) for _ in range(self.lanes)]
        for lane, bank in enumerate(banks):
            m.submodules[f"ring{lane}"] = bank
            m.d.comb += [
                bank.write_enable.eq(arrive),
                bank.write_address.eq(self._written),
                bank.write_data.eq(columns.word_select(lane, TALL_BITS)),
                bank.read_enable.eq(self._en),
            ]
        with m.If(self._finish):
            m.d.sync += self._written.eq(0)
        with m.Elif(arrive):
            m.d.sync += self._written.eq(self._written + 1)
        return banks

    def _build_scan(self, m, banks):
        """Walk over the windows, and read of each ``lanes`` columns at a time, from any lane on.

        Returns what is read in this cycle.
        """
        setup, bits = self._setup, self.lane_bits
        load = Signal(name="load")
        column_ends = loop(m, "column", setup.width_out, ~self._walking, load)
        last_map = loop(m, "map", setup.maps, ~self._walking, load & column_ends)
        last_row = loop(m, "row", setup.height_out, ~self._walking, load & column_ends & last_map)
        following = self._build_windows(m, load, column_ends)

        # The window that is being read.
        b_valid, b_hit, b_first, b_final = (
            Signal(name=f"b_{n}") for n in ("valid", "hit", "first", "final")
        )
        b_position, b_end = Signal(FLAT_BITS), Signal(_REACH_BITS + bits)
        row, after = b_position[bits:], Signal(FLAT_BITS - bits, name="row_after")
        lane, end_lane = b_position[:bits], b_end[:bits]
        ends_here, ends_after, whole, there, read = (
            Signal(name=n) for n in ("ends_here", "ends_after", "whole", "there", "read")
        )
        # Rows written, less the one read first: one more must be there where the next is read too.
        lead = Signal(FLAT_BITS - bits)
        m.d.comb += [
            after.eq(row + 1),
            ends_here.eq(b_end[bits:] == row[:_REACH_BITS]),
            ends_after.eq((b_end[bits:] == after[:_REACH_BITS]) & (end_lane < lane)),
            whole.eq(~b_hit | ends_here | ends_after),
            lead.eq(self._written + ~row),
            there.eq(
                ~b_hit | (~lead[-1] & (lead[:_REACH_BITS].any() | ends_here | (lane == 0)))
            ),
            read.eq(self._en & b_valid & there),
        ]
        ends = Signal(name="windows_end")
        m.d.comb += [
            load.eq(self._walking & (~b_valid | (read & whole))),
            ends.eq(column_ends & last_map & last_row),
        ]
        with m.If(read):
            m.d.sync += [b_position.eq(Cat(lane, after)), b_first.eq(0), b_valid.eq(~whole)]
        with m.If(load):
            m.d.sync += [
                b_valid.eq(1),
                b_hit.eq(following["hit"]),
                b_first.eq(1),
                b_final.eq(ends),
                b_position.eq(following["position"]),
                b_end.eq(following["end"]),
            ]
            with m.If(ends):
                m.d.sync += self._walking.eq(0)
            with m.If(following["hit"]):
                m.d.sync += self._free.eq(following["position"][bits:])
        # Columns that no window will read must not fill the ring.
        with m.If(~self._walking & ~b_valid):
            m.d.sync += self._free.eq(self._base)

        m.d.comb += [
            bank.read_address.eq(Mux(k < lane, after, row)) for k, bank in enumerate(banks)
        ]
        lanes = Cat(
            b_hit
            & ((k >= lane) | ~ends_here)
            & ((k <= end_lane) | ~(ends_here | (ends_after & (k < lane))))
            for k in range(self.lanes)
        )
        return {
            "valid": b_valid, "moves": read, "lanes": lanes, "first": b_first, "whole": whole,
            "final": b_final,
        }  # fmt: skip

    def _build_windows(self, m, step, line_ends):
        """Walk from window to window: which columns of its line the next one covers.

        Returns whether any, and the numbers in the ring of its first column and of its last.
        """
        setup, bits = self._setup, self.lane_bits
        left, last = Signal(PLACE), Signal(PLACE)
        first_left, first_last = Signal(PLACE), Signal(PLACE)
        line_last, low, high = Signal(SIZE), Signal(SIZE), Signal(SIZE)
        m.d.sync += [
            first_left.eq(-setup.pad_x),
            first_last.eq(setup.kernel_x - 1 - setup.pad_x),
            line_last.eq(setup.width - 1),
        ]
        with m.If(~self._walking | (step & line_ends)):
            m.d.sync += [left.eq(first_left), last.eq(first_last)]
        with m.Elif(step):
            m.d.sync += [left.eq(left + setup.stride_x), last.eq(last + setup.stride_x)]
        with m.If(self._finish):
            m.d.sync += self._base.eq(0)
        with m.Elif(step & line_ends):
            m.d.sync += self._base.eq(self._base + self._chunks)
        m.d.comb += [
            low.eq(Mux(left < 0, 0, left)),
            high.eq(Mux(last > line_last, line_last, last)),
        ]
        return {
            "hit": (left <= line_last) & (last >= 0),
            "position": Cat(low[:bits], self._base + low[bits:]),
            "end": Cat(high[:bits], (self._base + high[bits:])[:_REACH_BITS]),
        }

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
        busy = segment["valid"] | Cat(valid).any()
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
