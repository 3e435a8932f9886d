"""The multiply-accumulate array: ``maps`` x ``pixels`` accumulators, one tap a cycle.

Output-stationary: every accumulator owns one (map, pixel); a tap reads ``maps`` weights and
``pixels`` neighbouring words. Lanes run along the flattened output map (docs/machine.md, "Array").
By tap, the map lanes have the ``maps`` - 1 words behind those too: lane k works k words further on.
Where last taps of kernel rows are gathered, the words read for a row's first step serve its second
one as well, and what is read in the second one's place waits for the step of last taps.
Lanes beyond the end of an output row may read elsewhere: in the banks behind, at rows of their own.

Stages: 0 issue, 1 phases, 2 position, 3 to 5 bank address, 6 banks, 7 their words, 8 and 9 rotate,
10 to the multipliers, 11 multiply, 12 accumulate, 13 to the drain registers, 14 the first pixel to
the drain. Border masks: 2 to 9.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from neuflow.blocks.conv_addresses import tap_addresses
from neuflow.blocks.conv_banks import read_address
from neuflow.blocks.conv_borders import border_masks
from neuflow.blocks.conv_lanes import Coordinates
from neuflow.blocks.conv_operands import accumulate, operands
from neuflow.blocks.conv_steps import STEP_FLAGS, row_steps
from neuflow.blocks.convolver_model import HAND_OVER, ROW_ENDS
from neuflow.blocks.gate import add_gated, stay_awake
from neuflow.blocks.loops import loop
from neuflow.blocks.streams import WORD_BITS
from neuflow.grid import GridConfig
from neuflow.layout import CONV_ARRAY, LANE_BITS, SIZE

ARRAY_FLAGS = ("tap", "wait_rows", "wait_weights", "wait_drain", "idle", "fill", "configured")
"""What the array does in a cycle."""

TAP_FLAGS = data.StructLayout(
    {
        n: unsigned(1)
        for n in (
            "valid", "odd", "first", "last", "ends_y", "ends_group", "ends_pass", "begins", *STEP_FLAGS
        )
    }
)


def block_layout() -> data.StructLayout:
    """Return what the drain is told with the results of a block."""
    return data.StructLayout(
        {
            "last_row": unsigned(SIZE),  # output row of the group's last lane
            "ends_group": unsigned(1),  # last block of its group
            "ends_pass": unsigned(1),  # last block of the last group
        }
    )


class Loops(NamedTuple):
    """Of each loop around a step along a kernel row, inner ones first, the same thing."""

    ky: Any
    block: Any
    group: Any
    pass_: Any


class MacArray(Component):
    """Issue of taps, operand fetch, and the accumulators.

    Members
    -------
    config : In stream of CONV_ARRAY. following, follows : In, the one behind it, and whether there is
        one: coordinates of its first group are made while the last group of this pass is computed.
    stored In, released Out, pass_done Out, read, read_enable Out, words In : see ``RowStore``.
    weights_ready In, weights_read, weights_rewind, weights_free Out, weights In : see ``Ring``.
    drain_ready : In; a block whose last tap is issued now finds the drain registers free.
    hand_over : Out, pulse: a block's first pixel moves to ``pixel`` at the end of this cycle; ``block``
        describes the block. ``pixel`` : Out, results of one pixel, one a map; ``shift`` : In, on to
        the next pixel.
    tap, wait_rows, wait_weights, wait_drain, idle : Out, exactly one a cycle, for counters; with
        ``wait_rows``, ``fill``: the group's coordinates are not there yet; ``idle``, ``configured``:
        there is a configuration.
    awake : Out.
    lanes, maps : Out, of the tap one cycle ago: lanes that are output positions, maps that exist.

    Throughput one tap a cycle; a group takes at least ``pixels`` cycles. Between two passes lie
    ``BETWEEN`` cycles, if the second one's configuration is there in time; else those and the making of
    its first group's coordinates (``pixels + Coordinates.LEAD`` cycles).
    """

    SETUP = 1
    """Cycles from a configuration to the first tap, for what is made of it beforehand."""
    BETWEEN = 5 + SETUP

    SETTLE = 7
    """Cycles from a tap's last stage, or a configuration, to the last register; one to spare."""

    def __init__(self, grid: GridConfig):
        self.grid = grid
        super().__init__(
            {
                "config": In(stream.Signature(CONV_ARRAY.shape())),
                "following": In(CONV_ARRAY.shape()),
                "follows": In(1),
                "stored": In(SIZE),
                "released": Out(SIZE),
                "pass_done": Out(1),
                "read": Out(read_address(grid)),
                "read_enable": Out(1),
                "words": In(data.ArrayLayout(signed(WORD_BITS), grid.row_banks)),
                "weights_ready": In(1),
                "weights_read": Out(1),
                "weights_rewind": Out(1),
                "weights_free": Out(1),
                "weights": In(data.ArrayLayout(signed(WORD_BITS), grid.bus_words)),
                "drain_ready": In(1),
                "pixel": Out(signed(grid.acc_bits)).array(grid.maps),
                "shift": In(1),
                "hand_over": Out(1),
                "block": Out(block_layout()),
                **{n: Out(1) for n in ARRAY_FLAGS},
                "lanes": Out(LANE_BITS),
                "maps": Out(LANE_BITS),
                "awake": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        self.stage = [Signal(TAP_FLAGS, name=f"s{i}") for i in range(HAND_OVER + 1)]
        self.weight_words = Signal(self.grid.maps * WORD_BITS, name="s2_weights")
        # Lanes up to each end of an output row, by the stage; the words behind it lie elsewhere.
        splits = data.ArrayLayout(range(self.grid.pixels + 1), ROW_ENDS)
        self.split = {k: Signal(splits, name=f"s{k}_split") for k in (1, 4, 6, 9)}
        self.rows_on = Signal(range(ROW_ENDS + 2))  # stage 1: to the row where the next group begins
        self.rotate = Signal(ceil_log2(self.grid.row_banks))  # stage 6: the bank of lane 0
        self.prepares = Signal()  # what depends on the configuration alone is made
        self.spread = Signal()  # by tap, what taps read beyond the end of a row lies between
        self._sequence(m, platform)
        masks = border_masks(m, self)
        tap_addresses(m, self, platform)
        pixels, weights = operands(m, self, masks)
        accumulate(m, self, pixels, weights, platform)
        stay_awake(
            m, self.awake, Cat(stage.valid for stage in self.stage), self.hand_over, self.shift,
            self.starts, self.frees, self.coordinates.awake, settle=self.SETTLE,
        )  # fmt: skip
        return m

    def _sequence(self, m, platform):
        """Stage 0: which tap comes next, and may it be issued?"""
        c = self.config.payload
        self.coordinates = lanes = Coordinates(self.grid)
        add_gated(m, "coordinates", lanes, platform)
        self.active, issue = Signal(name="active"), Signal(name="issue")
        step, at_last, ends = self._loops(m, issue)
        # Of the tap: second one of a beat of weights, first one of a block, of a group.
        odd = Signal()
        starts_block = Signal(init=1)
        begins = Signal(init=1)
        with m.If(issue):
            m.d.sync += [
                odd.eq(~odd & ~ends.block),
                starts_block.eq(ends.block),
                begins.eq(ends.group),
            ]
        m.d.comb += [
            self.weights_read.eq(issue & ~odd),
            self.weights_rewind.eq(issue & ends.group),
            self.weights_free.eq(issue & (ends.pass_ | c.stream_weights)),
        ]
        no_drain = self._wait(m, issue, ends, odd, begins)
        one_channel = Signal()  # and one kernel row: then the step that ends the row ends the block
        m.d.sync += one_channel.eq((c.channels == 1) & (c.kernel_y == 1))
        group_waits = self.active & begins & lanes.full
        # Issue and begins, in fewer gates: only in a block of one step is the first also the last.
        m.d.comb += lanes.take.eq(
            group_waits
            & lanes.fed
            & self.weights_ready
            & ~(one_channel & step["ends_x"] & no_drain)
        )
        self._connect_coordinates(m, at_last.pass_)
        few = Mux(c.by_tap, step["names"], c.by_block | at_last.group)
        self._tell_lanes(m, issue, begins, few)
        self._take_turns(m, issue & ends.pass_)
        self._release(m, group_waits, issue & ends.pass_)
        self._flags(
            m, issue, odd=odd, first=starts_block, last=issue & ends.block, ends_y=ends.ky,
            ends_group=ends.group, ends_pass=ends.pass_, begins=begins, **step,
        )  # fmt: skip
        # Nothing of this pass is in stages 0 to 2: their state may begin anew.
        self.rest = ~self.active & ~self.stage[1].valid & ~self.stage[2].valid

    def _loops(self, m, issue):
        """Say where the tap stands in its loops.

        Return the flags of the step along a kernel row; whether each loop around it is at its last
        turn; and whether the tap ends that turn.
        """
        c = self.config.payload
        ends = Loops(*(Signal(name=f"{name}_ends") for name in ("ky", "block", "group", "pass")))
        step = row_steps(m, self.grid, c, ~self.active, issue, ends.ky)
        lengths = Loops(c.kernel_y, c.channels, c.blocks, c.groups)
        at_last = []
        inner = step["ends_x"]
        for end, length in zip(ends, lengths, strict=True):
            at_last.append(loop(m, end.name, length, ~self.active, issue & inner))
            m.d.comb += end.eq(inner & at_last[-1])
            inner = end
        return step, Loops(*at_last), ends

    def _wait(self, m, issue, ends, odd, begins):
        """Issue the tap, or name what it waits for: one fixed priority. Return: the drain isn't free."""
        lanes = self.coordinates
        # One block at most is between its last tap and the drain.
        in_flight = Signal()
        no_drain = Signal()
        m.d.sync += in_flight.eq((in_flight & ~self.hand_over) | self.stage[0].last)
        m.d.comb += no_drain.eq(in_flight | ~self.drain_ready)

        no_rows = Signal()
        no_weights = Signal()
        stays = Signal()
        m.d.comb += [
            no_rows.eq(begins & ~(lanes.full & lanes.fed)),
            no_weights.eq(~odd & ~self.weights_ready),
            stays.eq(ends.block & no_drain),
            issue.eq(self.active & ~(no_rows | no_weights | stays)),
            self.tap.eq(issue),
            self.idle.eq(~self.active),
            self.configured.eq(self.config.valid),
            self.fill.eq(begins & ~lanes.full),
            self.wait_rows.eq(self.active & no_rows),
            self.wait_weights.eq(self.active & ~no_rows & no_weights),
            self.wait_drain.eq(self.active & ~(no_rows | no_weights) & stays),
        ]
        return no_drain

    def _connect_coordinates(self, m, last_group):
        lanes = self.coordinates
        m.d.comb += [
            lanes.config.eq(self.config.payload),
            lanes.configured.eq(self.config.valid),
            lanes.following.eq(self.following),
            lanes.follows.eq(self.follows),
            lanes.moves.eq(self.config.valid & self.config.ready),
            lanes.last.eq(last_group),
            lanes.stored.eq(self.stored),
        ]

    def _take_turns(self, m, pass_ends):
        """Begin a pass when what is made of its configuration is there, and let that go behind it."""
        # What a pass does not change is made in the three cycles from its configuration to its first
        # one: as many registers as stand one behind the other there. It stands still from then on.
        begun = Signal()
        m.d.sync += begun.eq(self.active)
        m.d.comb += self.prepares.eq(~begun)
        # A configuration leaves when the stages that read it are past.
        flushing = Signal(4)
        waits = Signal()
        settled = Signal(self.SETUP)
        self.starts = Signal()
        m.d.comb += [
            self.config.ready.eq(flushing[-1]),
            self.starts.eq(self.config.valid & ~self.active),
            waits.eq(self.starts & ~flushing.any()),
        ]
        m.d.sync += [
            flushing.eq(Cat(pass_ends, flushing)),
            settled.eq(Mux(waits, Cat(1, settled), 0)),
        ]
        with m.If(pass_ends):
            m.d.sync += self.active.eq(0)
        with m.Elif(~self.active):
            m.d.sync += self.active.eq(settled[-1])

    def _tell_lanes(self, m, issue, begins, few):
        """Tell the counters what lanes and maps have work, and later stages where a row ends.

        ``few``: fewer maps than there are map lanes, perhaps.
        """
        c, lanes = self.config.payload, self.coordinates
        m.d.sync += self.maps.eq(Mux(few, c.maps, self.grid.maps))
        with m.If(begins):
            m.d.sync += self.lanes.eq(lanes.count)
        # Where it matters a group has four steps or more, so that one goes on before the next comes.
        with m.If(issue & begins):
            m.d.sync += [self.split[1].eq(lanes.split), self.rows_on.eq(lanes.rows_on)]
        for before, after in pairwise(self.split):
            with m.If(self.stage[after - 1].valid & self.stage[after - 1].begins):
                m.d.sync += self.split[after].eq(self.split[before])

    def _release(self, m, group_waits, pass_ends):
        """Free rows as soon as the next group is known: all taps before it are issued by then.

        A tap reads the banks in stage 6. A row is freed in stage 2 at the earliest, and written by
        the row store ``RowWriter.WRITE`` stages later: never in the cycle in which it is read.
        """
        kept = self.kept = Signal(SIZE)
        self.frees = Signal()
        m.d.comb += [
            self.released.eq(Mux(self.pass_done, 0, kept)),
            self.frees.eq(group_waits & (kept != self.coordinates.free)),
        ]
        with m.If(self.pass_done):
            m.d.sync += kept.eq(0)
        with m.Elif(group_waits):
            m.d.sync += kept.eq(self.coordinates.free)
        m.d.sync += self.pass_done.eq(pass_ends)

    def _flags(self, m, issue, **flags):
        """Carry a tap's flags along with it through the stages."""
        last_row = Signal(SIZE)
        s0, s1 = self.stage[:2]
        with m.If(issue & flags["begins"]):
            m.d.sync += last_row.eq(self.coordinates.last_row)
        m.d.comb += [s0.valid.eq(issue), *(s0[name].eq(flag) for name, flag in flags.items())]
        m.d.sync += [after.eq(before) for before, after in pairwise(self.stage)]
        # At most one block is between its last tap and the drain, so one register will do; it
        # tells the drain early.
        with m.If(s1.last):
            m.d.sync += [
                self.block.last_row.eq(last_row),
                self.block.ends_group.eq(s1.ends_group),
                self.block.ends_pass.eq(s1.ends_pass),
            ]
        m.d.comb += self.hand_over.eq(self.stage[HAND_OVER].last)
