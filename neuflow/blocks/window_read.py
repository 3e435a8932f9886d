"""Reading side of the window unit: the ring of input beats, and the walk over its windows."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Mux, Signal, signed

from neuflow.blocks import window_model
from neuflow.blocks.conv_rows import loop
from neuflow.blocks.ram import Ram
from neuflow.blocks.streams import WORD_BITS
from neuflow.layout import SIZE

FLAT_BITS = 20
"""Words of a packet are numbered modulo 2**20; numbers compared are less than 2**19 apart."""
PLACE = signed(SIZE + 2)
"""A row or column, padding included."""


class WindowReader:
    """Part of :class:`neuflow.blocks.window.Window`, which owns the ports and signals used here."""

    def _build_ring(self, m, configured):
        """Store beats as they come, until the ring is full of words still needed."""
        beats = max(4, window_model.RING_WORDS // self.lanes)
        m.submodules.ring = ring = Ram(self.lanes * WORD_BITS, beats)
        ahead = Signal(signed(FLAT_BITS))
        done, take, ready = Signal(name="input_done"), Signal(), Signal(name="input_ready")
        beats_written = self._beats_written = Signal(FLAT_BITS - self.lane_bits)
        oldest = Cat(Const(0, self.lane_bits), self._free[self.lane_bits :])
        m.d.comb += [
            self.i.ready.eq(ready),
            take.eq(self.i.valid & ready),
            ring.write_enable.eq(take),
            ring.write_address.eq(beats_written),
            ring.write_data.eq(self.i.payload.words.as_value()),
            self.active.eq(take),
        ]
        # Two beats may come before a full ring is noticed.
        m.d.sync += [
            ahead.eq(self._written - oldest),
            ready.eq(
                configured
                & ~done
                & ~(take & self.i.payload.last)
                & (ahead < (beats - 2) * self.lanes)
            ),
        ]
        with m.If(self._finish):
            m.d.sync += [self._written.eq(0), beats_written.eq(0), done.eq(0)]
        with m.Elif(take):
            m.d.sync += [
                self._written.eq(self._written + self.i.payload.count),
                beats_written.eq(beats_written + 1),
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
        address = Signal.like(self._memory.read_address, name="address")
        scanned, load, skip, step, last_column = (
            Signal(name=n) for n in ("scanned", "load", "skip", "step", "last_column")
        )
        next_window = self._build_windows(m, step, last_column)

        # The window that is being read.
        b_valid, b_hit, b_first, b_final = (
            Signal(name=f"b_{n}") for n in ("valid", "hit", "first", "final")
        )
        b_position, b_end = Signal(FLAT_BITS), Signal(FLAT_BITS)
        b_address = Signal.like(address, name="b_address")
        whole, there, read = Signal(), Signal(), Signal()
        end_lane = Mux(whole, b_end[:bits], self.lanes - 1)
        # Beats come whole, so a word is there when any of its beat is: written - place - 1 >= 0.
        lead = Signal(FLAT_BITS - bits)
        m.d.comb += [
            whole.eq(~b_hit | (b_position[bits:] == b_end[bits:])),
            lead.eq(self._beats_written + ~b_position[bits:]),
            there.eq(~b_hit | ~lead[-1]),
            read.eq(self._go & b_valid & there),
            ring.read_enable.eq(self._go),
            ring.read_address.eq(b_position[bits:]),
        ]
        ahead, arrived = Signal(signed(FLAT_BITS), name="ahead_of_base"), Signal()
        some_open = Signal()  # settled before a row is scanned
        m.d.comb += ahead.eq(self._written - self._base)
        m.d.sync += [
            some_open.eq(self._open != 0),
            # After a step the base is another, which shows a cycle later.
            arrived.eq(~step & (ahead >= 0)),
        ]
        column_ends = loop(m, "column", setup.width_out, ~self._scanning, load)
        last_map = loop(m, "map", setup.maps, ~self._scanning, step & last_column)
        m.d.comb += [
            # A row that no window covers passes by as soon as it has arrived, map by map.
            skip.eq(self._scanning & ~some_open & ~b_valid & arrived),
            load.eq(self._scanning & some_open & (~b_valid | (read & whole))),
            last_column.eq(skip | column_ends),
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
                b_hit.eq(next_window["hit"]),
                b_first.eq(1),
                b_final.eq(self._final & column_ends & last_map),
                b_position.eq(next_window["position"]),
                b_end.eq(next_window["end"]),
                b_address.eq(address),
                address.eq(address + self._slots),
            ]
            with m.If(next_window["hit"]):
                m.d.sync += self._free.eq(next_window["position"])
        # Words that no window will read must not fill the ring.
        with m.If((self._scanning & ~some_open & ~b_valid) | self._flushing):
            m.d.sync += self._free.eq(self._base)
        with m.If(~self._scanning):
            m.d.sync += address.eq(0)
        with m.If(self._finish):
            m.d.sync += self._free.eq(0)

        lanes = Cat(
            b_hit & (lane >= b_position[:bits]) & (lane <= end_lane) for lane in range(self.lanes)
        )
        segment = {
            "valid": b_valid, "moves": read, "lanes": lanes, "first": b_first, "whole": whole,
            "final": b_final, "address": b_address,
        }  # fmt: skip
        return scanned, segment

    def _build_windows(self, m, step, last_column):
        """Walk from window to window: which words of its row the next one covers.

        ``left`` and ``right`` (the first column beyond) are kept as columns, and as numbers of the
        words there, so that a window is found without adding.
        """
        setup = self._setup
        left, right = Signal(PLACE), Signal(PLACE)
        first, last, row_end = (
            Signal(FLAT_BITS, name=n) for n in ("first_word", "last_word", "row_end")
        )
        # From the base to the first window of its row; with the width: of the row after.
        to_left, to_right = Signal(PLACE), Signal(PLACE)
        past_left, past_right = Signal(PLACE), Signal(PLACE)
        next_left, next_right = Signal(PLACE), Signal(PLACE)
        m.d.sync += [
            to_left.eq(-setup.pad_x),
            to_right.eq(setup.kernel_x - setup.pad_x),
            past_left.eq(setup.width - setup.pad_x),
            past_right.eq(setup.width + to_right),
        ]
        m.d.comb += [
            next_left.eq(Mux(self._real, past_left, to_left)),
            next_right.eq(Mux(self._real, past_right, to_right)),
        ]
        with m.If(~self._scanning):
            m.d.sync += [
                left.eq(to_left), right.eq(to_right),
                first.eq(self._base + to_left), last.eq(self._base + to_right - 1),
                row_end.eq(self._base + setup.width - 1),
            ]  # fmt: skip
        with m.Elif(step & last_column):
            m.d.sync += [
                left.eq(to_left), right.eq(to_right),
                first.eq(self._base + next_left), last.eq(self._base + next_right - 1),
            ]  # fmt: skip
            with m.If(self._real):
                m.d.sync += [
                    self._base.eq(self._base + setup.width), row_end.eq(row_end + setup.width)
                ]  # fmt: skip
        with m.Elif(step):
            m.d.sync += [
                left.eq(left + setup.stride_x), right.eq(right + setup.stride_x),
                first.eq(first + setup.stride_x), last.eq(last + setup.stride_x),
            ]  # fmt: skip
        with m.If(self._finish):
            m.d.sync += self._base.eq(0)
        return {
            "position": Mux(left < 0, self._base, first),
            "end": Mux(right > setup.width, row_end, last),
            "hit": self._real & (left < setup.width) & (right > 0),
        }
