"""Output coordinates of the array's lanes, and the rows that a group of them needs."""

from __future__ import annotations

from itertools import pairwise

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from neuflow.blocks.convolver_model import ROW_ENDS
from neuflow.blocks.gate import stay_awake
from neuflow.blocks.loops import loop
from neuflow.grid import GridConfig
from neuflow.layout import CONV_ARRAY, SIZE

FORM = ("pitch", "width_out", "height_out", "stride", "rows", "need", "release")
"""Fields of CONV_ARRAY that coordinates depend on."""


class Coordinates(Component):
    """Output coordinates of the lanes of the next group, made one lane a cycle.

    Members: ``config``, ``configured`` In: the pass; ``following``, ``follows`` In: the one behind it,
    whose first group is made when the last one of this pass is taken; ``moves`` In: the configuration
    leaves; ``stored`` In: rows there; ``take`` In: the group is taken, make the next; ``last`` In: it is
    its pass's last; ``full`` Out: the group is there, and ``fed``: so are its rows. ``first_x``,
    ``first_y`` Out: where the first lane lies, in input steps (times stride), one cycle after the take.
    Of each lane, ``LATE`` cycles after it: ``row`` Out, rows behind the first lane's; ``behind`` Out,
    there are any; and then ``column`` Out, lanes behind its row's first.
    ``free``: rows the group frees; ``last_row``: output row of the last lane; ``count``: its lanes
    that are output positions; ``split``: those in the output row of the first, and in that and the
    next; ``rows_on``: output rows from its first lane to the next group's. ``awake`` Out.
    A group takes ``pixels`` cycles, a pass's first one ``LEAD`` more; 2 cycles before, it is known.
    """

    LEAD = 2
    LATE = 6
    SETTLE = LATE + 3
    """Cycles from the last lane made, or row stored, to the last register; one to spare."""

    def __init__(self, grid: GridConfig):
        self.grid = grid
        lanes = grid.pixels
        super().__init__(
            {
                "config": In(CONV_ARRAY.shape()),
                "configured": In(1),
                "following": In(CONV_ARRAY.shape()),
                "follows": In(1),
                "moves": In(1),
                "stored": In(SIZE),
                "take": In(1),
                "last": In(1),
                "full": Out(1),
                "fed": Out(1),
                "first_x": Out(SIZE),
                "first_y": Out(SIZE),
                "row": Out(data.ArrayLayout(range(lanes), lanes)),
                "column": Out(data.ArrayLayout(range(lanes), lanes)),
                "behind": Out(lanes),
                "free": Out(SIZE),
                "last_row": Out(SIZE),
                "count": Out(range(lanes + 1)),
                "split": Out(data.ArrayLayout(range(lanes + 1), ROW_ENDS)),
                "rows_on": Out(range(ROW_ENDS + 2)),
                "awake": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes = self.grid.pixels
        make = Signal()
        m.d.comb += make.eq(~self.full | self.take)
        c, clear, stirs = self._form(m)
        walked = self._walk(m, c, clear, make)
        sizes = dict.fromkeys(("x", "y", "row", "need", "free"), SIZE)
        lane = data.StructLayout(sizes | {"real_x": 1, "real_y": 1, "begins_row": 1})
        valid = Signal(self.LEAD)
        summed = Signal(lane, reset_less=True)
        ready = Signal(lane, reset_less=True)
        need_sum = Signal(signed(SIZE + 4))
        free_sum = Signal(signed(SIZE + 4))

        def clipped(value):
            return Mux(value < 0, 0, Mux(value > c.rows, c.rows, value))

        made = Signal(range(lanes + 1))
        need = Signal(SIZE)
        # Rows from the group's first lane to the last made, to the one at hand, to that in its group.
        passed, reached, within = (
            Signal(range(ROW_ENDS + 2), name=n) for n in ("passed", "reached", "within")
        )
        first = Signal()
        m.d.comb += [
            first.eq(self.full | (made == 0)),
            reached.eq(passed + (ready.begins_row & (passed != ROW_ENDS + 1))),
            within.eq(Mux(first, 0, reached)),
            self.rows_on.eq(reached),
        ]
        # The first lane's place is copied a cycle after the take.
        late_first = Signal()
        late_x, late_y = (Signal(SIZE, name=f"late_{n}", reset_less=True) for n in ("x", "y"))
        with m.If(late_first):
            m.d.sync += [self.first_x.eq(late_x), self.first_y.eq(late_y)]
        self._number(m, make, first, ready.begins_row)
        with m.If(make):
            m.d.sync += [
                *(summed[n].eq(walked[n]) for n in ("x", "y", "row")),
                summed.real_x.eq(walked["column"] < c.width_out),
                summed.real_y.eq(walked["row"] < c.height_out),
                summed.begins_row.eq(walked["column"] == 0),
                need_sum.eq(walked["y"] + c.need),
                free_sum.eq(walked["y"] + c.release),
                *(ready[n].eq(summed[n]) for n in ("x", "y", "row", "real_x", "real_y", "begins_row")),
                ready.need.eq(clipped(need_sum)),
                ready.free.eq(clipped(free_sum)),
                valid.eq(Cat(1, valid)),
                late_first.eq(first),
                late_x.eq(ready.x),
                late_y.eq(ready.y),
                self.last_row.eq(ready.row),
                need.eq(ready.need),
            ]
            with m.If(first):
                m.d.sync += self.free.eq(ready.free)
            with m.If(valid[-1]):
                m.d.sync += [
                    self.count.eq(Mux(first, 0, self.count) + (ready.real_x & ready.real_y)),
                    *(
                        split.eq(Mux(first, 0, split) + (within <= k))
                        for k, split in enumerate(self.split)
                    ),
                    passed.eq(within),
                    made.eq(Mux(self.full, 1, made + 1)),
                    self.full.eq(Mux(self.full, lanes == 1, made == lanes - 1)),
                ]
        m.d.sync += self.fed.eq(Mux(make, ready.need <= self.stored, need <= self.stored))
        with m.If(clear):
            m.d.sync += [made.eq(0), self.full.eq(0), valid.eq(0)]
        before = Signal(SIZE)
        m.d.sync += before.eq(self.stored)
        moves = (make & ~clear) | (self.stored != before)
        stay_awake(m, self.awake, stirs, moves, settle=self.SETTLE)
        return m

    def _form(self, m):
        """Take what the coordinates depend on from the pass's configuration, or from the one behind it.

        Return it, whether there are no coordinates yet, and whether anything moves.
        """
        form = Signal(data.StructLayout({n: CONV_ARRAY.shape().members[n] for n in FORM}))
        known = Signal()
        runs = Signal()
        borrows = Signal()  # all groups of the pass are taken: the next one's configuration counts
        there = Signal()
        takes_last = Signal()
        m.d.comb += [
            there.eq(Mux(borrows, self.follows, self.configured)),
            takes_last.eq(self.take & self.last),
        ]
        m.d.sync += runs.eq(known & ~takes_last)
        with m.If(self.moves):
            m.d.sync += borrows.eq(0)
        with m.If(takes_last):
            m.d.sync += [known.eq(0), borrows.eq(1)]
        with m.Elif(~known & there):
            m.d.sync += known.eq(1)
            m.d.sync += (
                form[n].eq(Mux(borrows, self.following[n], self.config[n])) for n in FORM
            )
        return form, ~runs, (~known & there) | (known & ~runs) | takes_last | self.moves

    def _number(self, m, make, first, begins_row):
        """Number rows and columns in the group, and line the lanes up.

        They are copied with the tap that needs them, so they may come late; what moves all lanes comes
        from registers.
        """
        lane = data.StructLayout({"row": self.row[0].shape(), "column": self.column[0].shape()})
        made = [Signal(1, name=f"made{k}") for k in range(self.LATE)]
        numbers = [Signal(lane, name=f"lane{k}", reset_less=True) for k in range(self.LATE)]
        m.d.sync += [
            made[0].eq(make),
            *(after.eq(before) for before, after in pairwise(made)),
            *(after.eq(before) for before, after in pairwise(numbers)),
        ]
        with m.If(make):
            m.d.sync += [
                numbers[0].row.eq(Mux(first, 0, numbers[0].row + begins_row)),
                numbers[0].column.eq(Mux(first | begins_row, 0, numbers[0].column + 1)),
            ]
        with m.If(made[-1]):
            m.d.sync += self.behind.eq(Cat(self.behind[1:], numbers[-1].row != 0))
            for lanes, number in ((self.row, numbers[-1].row), (self.column, numbers[-1].column)):
                m.d.sync += lanes.as_value().eq(Cat(lanes.as_value()[len(number) :], number))

    def _walk(self, m, c, clear, make):
        """Walk lane by lane: column, row, and both times stride."""
        column, row, x, y = (
            Signal(SIZE, name=f"{n}_next") for n in ("column", "row", "x", "y")
        )
        ends = loop(m, "column", c.pitch, clear, make)
        with m.If(make):
            m.d.sync += [x.eq(Mux(ends, 0, x + c.stride)), column.eq(Mux(ends, 0, column + 1))]
            with m.If(ends):
                m.d.sync += [row.eq(row + 1), y.eq(y + c.stride)]
        with m.If(clear):
            m.d.sync += [column.eq(0), row.eq(0), x.eq(0), y.eq(0)]
        return {"x": x, "y": y, "column": column, "row": row}
