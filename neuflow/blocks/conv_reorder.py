"""The convolver's reorder buffer, and the walk that fills it.

It holds ``slots`` rows of every map, in ``maps`` banks: word a lies in bank a mod ``maps``. As a
map's rows take ``map_step`` = 1 modulo ``maps`` words, the ``maps`` results of one pixel, and ``maps``
neighbouring pixels of one map, always lie in different banks.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from neuflow.blocks.ram import Ram
from neuflow.blocks.streams import WORD_BITS
from neuflow.grid import GridConfig
from neuflow.layout import CONV_DRAIN, ROW_ADDRESS, SIZE


class Reorder(Component):
    """Banked memory: writes ``maps`` words ``map_step`` apart, reads ``maps`` consecutive words.

    Members: ``write_enable``, ``write_address`` (of map 0), and ``WRITE`` cycles later
    ``write_words`` In; ``map_step`` In, ``alone`` In: only the word of map 0 is written, both constant
    for a pass; ``read_enable``, ``read_address`` In,
    ``move`` In: the stages of a read go on. ``read_words`` Out, ``READ`` moves later.
    """

    WRITE = 2
    READ = 3

    def __init__(self, grid: GridConfig):
        self.grid = grid
        words = data.ArrayLayout(signed(WORD_BITS), grid.maps)
        super().__init__(
            {
                "map_step": In(ROW_ADDRESS),
                "alone": In(1),
                "write_enable": In(1),
                "write_address": In(ROW_ADDRESS),
                "write_words": In(words),
                "read_enable": In(1),
                "read_address": In(ROW_ADDRESS),
                "move": In(1),
                "read_words": Out(words),
            }
        )

    def elaborate(self, platform):
        m = Module()
        maps = self.grid.maps
        bits = ceil_log2(maps)
        address_bits = ceil_log2(self.grid.reorder_words)
        turn, row = self.write_address[:bits], self.write_address[bits:address_bits]
        s1_turn, s2_turn = (Signal(bits, name=f"s{k}_turn", reset_less=True) for k in (1, 2))
        s1_enable = Signal()
        s2_enable = Signal()
        m.d.sync += [
            s1_enable.eq(self.write_enable), s2_enable.eq(s1_enable),
            s1_turn.eq(turn), s2_turn.eq(s1_turn),
        ]  # fmt: skip
        # Multiples of the step, said as doubles and sums: products would take multipliers.
        steps = [Signal(len(row), name=f"step{k}") for k in range(maps)]
        for k in range(1, maps):
            one = self.map_step[bits:] if k % 2 else 0
            m.d.sync += steps[k].eq((steps[k // 2] << 1) + one)

        read_turn, read_row = self.read_address[:bits], self.read_address[bits:address_bits]
        r1_turn, r2_turn, r3_turn = (
            Signal(bits, name=f"r{k}_turn", reset_less=True) for k in (1, 2, 3)
        )
        r1_enable = Signal()
        with m.If(self.move):
            m.d.sync += [
                r1_enable.eq(self.read_enable),
                r1_turn.eq(read_turn), r2_turn.eq(r1_turn), r3_turn.eq(r2_turn),
            ]  # fmt: skip

        out = Signal(maps * WORD_BITS, reset_less=True)
        for bank in range(maps):
            ram = Ram(WORD_BITS, self.grid.reorder_words // maps)
            m.submodules[f"bank{bank}"] = ram
            # Whose word lies here.
            map_, s2_map = (Signal(bits, name=f"s{k}_map{bank}") for k in (0, 2))
            base = Signal(len(row), name=f"base{bank}", reset_less=True)
            step = Signal(len(row), name=f"map_offset{bank}", reset_less=True)
            m.d.comb += [map_.eq(bank - turn), s2_map.eq(bank - s2_turn)]
            with m.Switch(map_):
                for k in range(maps):
                    with m.Case(k):
                        m.d.sync += step.eq(steps[k])
            address = Signal(len(row), name=f"address{bank}", reset_less=True)
            read_address = Signal(len(row), name=f"read_address{bank}", reset_less=True)
            m.d.sync += [base.eq(row + (bank < turn)), address.eq(base + step)]
            with m.If(self.move):
                m.d.sync += [
                    read_address.eq(read_row + (bank < read_turn)),
                    out[bank * WORD_BITS : (bank + 1) * WORD_BITS].eq(ram.read_data),
                ]
            m.d.comb += [
                ram.write_enable.eq(s2_enable & (~self.alone | (s2_map == 0))),
                ram.write_address.eq(address),
                ram.write_data.eq(self.write_words.as_value().word_select(s2_map, WORD_BITS)),
                ram.read_enable.eq(self.move & r1_enable),
                ram.read_address.eq(read_address),
            ]
        m.d.comb += self.read_words.as_value().eq(
            Cat(out, out) >> Cat(Const(0, ceil_log2(WORD_BITS)), r3_turn)
        )
        return m


class Walk(Component):
    """Step through the positions of a row-major map that is kept in ``slots`` rows.

    Members: ``config`` In; ``step`` In: next position; ``mark`` In with it: the position after
    becomes the one to ``back`` to (In with step); ``clear`` In. ``inside``, ``offset`` (words within a
    map) Out, one cycle later; ``complete`` Out: rows that end before the marked position.
    """

    def __init__(self):
        super().__init__(
            {
                "config": In(CONV_DRAIN.shape()),
                "clear": In(1),
                "step": In(1),
                "mark": In(1),
                "back": In(1),
                "inside": Out(1),
                "offset": Out(ROW_ADDRESS),
                "complete": Out(SIZE),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        # The flags say of a column that it is the last of its row, of a slot that it is the last.
        place = data.StructLayout(
            {
                "column": SIZE, "row": SIZE, "slot": SIZE, "base": ROW_ADDRESS,
                "row_ends": 1, "slot_ends": 1,
            }
        )
        now = Signal(place)
        marked = Signal(place)
        after = Signal(place)
        first = Signal(place)
        pitch_less = Signal(signed(SIZE + 1))
        slots_less = Signal(signed(SIZE + 1))
        m.d.sync += [pitch_less.eq(c.pitch - 2), slots_less.eq(c.slots - 2)]
        one_column = Signal()
        one_slot = Signal()
        fresh = Signal(init=1)
        m.d.sync += [one_column.eq(c.pitch == 1), one_slot.eq(c.slots == 1)]

        m.d.comb += [
            first.row_ends.eq(one_column),
            first.slot_ends.eq(one_slot),
            after.eq(now),
            after.column.eq(now.column + 1),
            after.row_ends.eq(now.column == pitch_less),
        ]
        with m.If(now.row_ends):
            m.d.comb += [
                after.column.eq(0),
                after.row.eq(now.row + 1),
                after.row_ends.eq(one_column),
                after.slot.eq(Mux(now.slot_ends, 0, now.slot + 1)),
                after.slot_ends.eq(Mux(now.slot_ends, one_slot, now.slot == slots_less)),
                after.base.eq(Mux(now.slot_ends, 0, now.base + c.width)),
            ]
        m.d.sync += [
            self.inside.eq((now.column < c.width) & (now.row < c.height)),
            self.offset.eq(now.base + now.column),
        ]
        # Behind the last column of a row nothing is left but its gap.
        row_done = marked.column >= c.width
        m.d.comb += self.complete.eq(Mux(marked.row >= c.height, c.height, marked.row + row_done))
        # The flags of the first place are those of the next pass.
        with m.If(self.step):
            m.d.sync += fresh.eq(0)
        with m.If(self.clear):
            m.d.sync += [fresh.eq(1), now.eq(first), marked.eq(first)]
        with m.Elif(fresh & ~self.step):
            m.d.sync += [now.eq(first), marked.eq(first)]
        with m.Elif(self.step):
            m.d.sync += now.eq(Mux(self.back & ~self.mark, marked, after))
            with m.If(self.mark):
                m.d.sync += marked.eq(after)
        return m
