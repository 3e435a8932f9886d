"""The multiply-accumulate array: ``maps`` x ``pixels`` accumulators, one tap a cycle.

Output-stationary: every accumulator owns one (map, pixel); a tap reads ``maps`` weights and
``pixels`` neighbouring words. Lanes run along the flattened output map (docs/machine.md, "Array").

Stages: 0 issue, 1 linear address and border masks, 2 bank address, 3 rotate, 4 multiply,
5 accumulate, 6 hand over to the drain.
"""

from __future__ import annotations

from itertools import pairwise

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from neuflow.blocks.conv_rows import advance, bank_address, locate
from neuflow.blocks.convolver_model import HAND_OVER
from neuflow.blocks.mac_row import MacRow
from neuflow.blocks.place import place
from neuflow.blocks.streams import WORD_BITS
from neuflow.grid import GridConfig
from neuflow.layout import CONV_ARRAY, ROW_ADDRESS, SIZE

TAP_FLAGS = data.StructLayout(
    {n: unsigned(1) for n in ("valid", "odd", "first", "last", "ends_group", "ends_pass")}
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


class Coordinates(Component):
    """Output coordinates of the lanes of the next group, made one lane a cycle.

    Members: ``clear`` In: begin at position 0; ``config`` In; ``take`` In: the group is taken, make
    the next; ``full`` Out; ``x``, ``y`` Out: per lane, in input steps (times stride); ``need``,
    ``free``: rows the group needs and frees; ``last_row``: output row of the last lane.
    A group takes ``pixels`` cycles.
    """

    def __init__(self, grid: GridConfig):
        self.grid = grid
        lanes = grid.pixels
        super().__init__(
            {
                "clear": In(1),
                "config": In(CONV_ARRAY.shape()),
                "take": In(1),
                "full": Out(1),
                "x": Out(data.ArrayLayout(unsigned(SIZE), lanes)),
                "y": Out(data.ArrayLayout(unsigned(SIZE), lanes)),
                "need": Out(SIZE),
                "free": Out(SIZE),
                "last_row": Out(SIZE),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes, c = self.grid.pixels, self.config
        made = Signal(range(lanes + 1))
        column, row, x, y = (Signal(SIZE, name=n) for n in ("column", "row", "x_next", "y_next"))
        make = Signal()
        m.d.comb += [self.full.eq(made == lanes), make.eq(~self.full | self.take)]

        def clipped(value):
            return Mux(value < 0, 0, Mux(value > c.rows, c.rows, value))

        with m.If(make):
            m.d.sync += [
                self.x.as_value().eq(Cat(self.x.as_value()[SIZE:], x)),
                self.y.as_value().eq(Cat(self.y.as_value()[SIZE:], y)),
                self.last_row.eq(row),
                self.need.eq(clipped(y + c.need)),
                made.eq(Mux(self.full, 1, made + 1)),
            ]
            with m.If(self.full | (made == 0)):
                m.d.sync += self.free.eq(clipped(y + c.release))
            with m.If(column + 1 == c.pitch):
                m.d.sync += [column.eq(0), x.eq(0), row.eq(row + 1), y.eq(y + c.stride)]
            with m.Else():
                m.d.sync += [column.eq(column + 1), x.eq(x + c.stride)]
        with m.If(self.clear):
            m.d.sync += [column.eq(0), row.eq(0), x.eq(0), y.eq(0), made.eq(0)]
        return m


class MacArray(Component):
    """Issue of taps, operand fetch, and the accumulators.

    Members
    -------
    config : In stream of CONV_ARRAY.
    stored In, released Out, pass_done Out, read, read_enable Out, words In : see ``RowStore``.
    weights_ready In, weights_read, weights_rewind, weights_free Out, weights In : see ``Ring``.
    drain_ready : In; a block whose last tap is issued now finds the drain registers free.
    hand_over : Out, pulse: a block's results move to the drain registers at the end of this cycle;
        ``block`` describes it. ``pixel`` : Out, results of the first pixel left there, one a map;
        ``shift`` : In, on to the next pixel.
    tap, wait_rows, wait_weights, wait_drain, idle : Out, exactly one a cycle, for counters.

    Throughput one tap a cycle; a group takes at least ``pixels`` cycles. Between two passes lie 2
    cycles and the making of the first group's coordinates (``pixels`` cycles).
    """

    def __init__(self, grid: GridConfig):
        self.grid = grid
        super().__init__(
            {
                "config": In(stream.Signature(CONV_ARRAY.shape())),
                "stored": In(SIZE),
                "released": Out(SIZE),
                "pass_done": Out(1),
                "read": Out(bank_address(grid)),
                "read_enable": Out(1),
                "words": In(data.ArrayLayout(signed(WORD_BITS), grid.row_banks)),
                "weights_ready": In(1),
                "weights_read": Out(1),
                "weights_rewind": Out(1),
                "weights_free": Out(1),
                "weights": In(data.ArrayLayout(signed(WORD_BITS), grid.bus_words)),
                "drain_ready": In(1),
                "pixel": Out(data.ArrayLayout(signed(grid.acc_bits), grid.maps)),
                "shift": In(1),
                "hand_over": Out(1),
                "block": Out(block_layout()),
                **{n: Out(1) for n in ("tap", "wait_rows", "wait_weights", "wait_drain", "idle")},
            }
        )

    def elaborate(self, platform):
        m = Module()
        self.stage = [Signal(TAP_FLAGS, name=f"s{i}") for i in range(HAND_OVER + 1)]
        self._sequence(m)
        masks = self._masks(m)
        self._addresses(m)
        pixels, weights = self._operands(m, masks)
        self._accumulate(m, pixels, weights, platform)
        return m

    def _sequence(self, m):
        """Stage 0: which tap comes next, and may it be issued?"""
        c = self.config.payload
        m.submodules.coordinates = lanes = Coordinates(self.grid)
        self.lanes = lanes
        active = Signal()
        group, block, channel = Signal(20), Signal(10), Signal(SIZE + 4)
        ky, kx = Signal(6), Signal(6)
        odd = Signal()  # second tap of a beat of weights

        # Where the tap stands in its loops.
        kx_ends, ky_ends, channel_ends = Signal(), Signal(), Signal()
        block_ends, group_ends, pass_ends, begins = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            kx_ends.eq(kx + 1 == c.kernel_x),
            ky_ends.eq(kx_ends & (ky + 1 == c.kernel_y)),
            channel_ends.eq(ky_ends & (channel + 1 == c.channels)),
            block_ends.eq(channel_ends),
            group_ends.eq(block_ends & (block + 1 == c.blocks)),
            pass_ends.eq(group_ends & (group + 1 == c.groups)),
        ]
        starts_block = Signal(init=1)
        starts_group = Signal(init=1)
        m.d.comb += begins.eq(starts_group)

        # One block at most is between its last tap and the drain.
        in_flight = Signal()
        m.d.sync += in_flight.eq((in_flight & ~self.hand_over) | self.stage[0].last)

        # One fixed priority of causes to wait.
        issue = Signal()
        no_group, no_rows, no_weights, no_drain = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            no_group.eq(begins & ~lanes.full),
            no_rows.eq(begins & (lanes.need > self.stored)),
            no_weights.eq(~odd & ~self.weights_ready),
            no_drain.eq(block_ends & (in_flight | ~self.drain_ready)),
            issue.eq(active & ~(no_group | no_rows | no_weights | no_drain)),
            self.idle.eq(~active),
            self.tap.eq(issue),
            self.wait_rows.eq(active & (no_group | no_rows)),
            self.wait_weights.eq(active & ~(no_group | no_rows) & no_weights),
            self.wait_drain.eq(active & ~(no_group | no_rows | no_weights) & no_drain),
            lanes.config.eq(c),
            lanes.clear.eq(~active),
            lanes.take.eq(issue & begins),
            self.weights_read.eq(issue & ~odd),
            self.weights_rewind.eq(issue & group_ends),
            self.weights_free.eq(issue & (pass_ends | c.stream_weights)),
            self.config.ready.eq(issue & pass_ends),
        ]
        with m.If(~active):
            m.d.sync += active.eq(self.config.valid)
        with m.If(issue):
            m.d.sync += [
                starts_block.eq(block_ends),
                starts_group.eq(group_ends),
                odd.eq(~odd & ~block_ends),
                kx.eq(Mux(kx_ends, 0, kx + 1)),
            ]
            with m.If(kx_ends):
                m.d.sync += ky.eq(Mux(ky_ends, 0, ky + 1))
            with m.If(ky_ends):
                m.d.sync += channel.eq(Mux(channel_ends, 0, channel + 1))
            with m.If(block_ends):
                m.d.sync += block.eq(Mux(group_ends, 0, block + 1))
            with m.If(group_ends):
                m.d.sync += group.eq(Mux(pass_ends, 0, group + 1))
            with m.If(pass_ends):
                m.d.sync += active.eq(0)

        self._release(m, active & begins & lanes.full, issue & pass_ends)
        self._flags(m, issue, odd, starts_block, block_ends, group_ends, pass_ends, begins)
        self.loops = (active, issue, kx_ends, ky_ends, block_ends, group_ends)

    def _release(self, m, group_waits, pass_ends):
        """Free rows as soon as the next group is known: all taps before it are issued by then.

        A tap reads the banks at the end of stage 2; a row freed at stage 1 is written then at the
        earliest, and a bank that is read and written at once gives its old contents.
        """
        with m.If(pass_ends):
            m.d.sync += self.released.eq(0)
        with m.Elif(group_waits):
            m.d.sync += self.released.eq(self.lanes.free)
        m.d.sync += self.pass_done.eq(pass_ends)

    def _flags(self, m, issue, odd, first, block_ends, group_ends, pass_ends, begins):
        """Carry a tap's flags along with it through the stages."""
        last_row = Signal(SIZE)
        with m.If(issue & begins):
            m.d.sync += last_row.eq(self.lanes.last_row)
        s0 = self.stage[0]
        m.d.comb += [
            s0.valid.eq(issue),
            s0.odd.eq(odd),
            s0.first.eq(first),
            s0.last.eq(issue & block_ends),
            s0.ends_group.eq(group_ends),
            s0.ends_pass.eq(pass_ends),
        ]
        m.d.sync += [after.eq(before) for before, after in pairwise(self.stage)]
        # At most one block is between its last tap and the drain, so one register will do.
        with m.If(self.stage[1].last):
            m.d.sync += self.block.last_row.eq(last_row)
        end = self.stage[HAND_OVER]
        m.d.comb += [
            self.hand_over.eq(end.last),
            self.block.ends_group.eq(end.ends_group),
            self.block.ends_pass.eq(end.ends_pass),
        ]

    def _addresses(self, m):
        """Stages 0 to 2: the tap's address, kept in step with the loops."""
        c = self.config.payload
        active, issue, kx_ends, ky_ends, block_ends, group_ends = self.loops
        ring = c.ring_words
        channel_base, group_start = Signal(ROW_ADDRESS), Signal(ROW_ADDRESS)
        row_start, position = Signal(ROW_ADDRESS), Signal(ROW_ADDRESS)
        step_y_wrap = Signal(ROW_ADDRESS)
        phase_x, phase_y = Signal(4), Signal(4)
        next_group, next_row = Signal(ROW_ADDRESS), Signal(ROW_ADDRESS)
        sum_x, sum_y = Signal(5), Signal(5)
        wrap_x, wrap_y = Signal(), Signal()

        m.d.comb += [
            sum_x.eq(phase_x + c.phase_dx),
            sum_y.eq(phase_y + c.phase_dy),
            wrap_x.eq(sum_x >= c.stride),
            wrap_y.eq(sum_y >= c.stride),
            next_group.eq(advance(group_start, self.grid.pixels, ring)),
            next_row.eq(advance(row_start, Mux(wrap_y, step_y_wrap, c.step_y), ring)),
        ]
        restart = Mux(group_ends, next_group, group_start)
        m.d.sync += step_y_wrap.eq(advance(c.step_y, c.row_pitch, ring))
        with m.If(~active):
            m.d.sync += [
                channel_base.eq(c.base),
                group_start.eq(c.start),
                row_start.eq(c.start),
                position.eq(c.start),
                phase_x.eq(c.phase_x),
                phase_y.eq(c.phase_y),
            ]
        with m.Elif(issue & ~kx_ends):
            m.d.sync += [
                position.eq(advance(position, c.step_x + wrap_x, ring)),
                phase_x.eq(Mux(wrap_x, sum_x - c.stride, sum_x)),
            ]
        with m.Elif(issue & ~ky_ends):
            m.d.sync += [
                row_start.eq(next_row),
                position.eq(next_row),
                phase_x.eq(c.phase_x),
                phase_y.eq(Mux(wrap_y, sum_y - c.stride, sum_y)),
            ]
        with m.Elif(issue):
            m.d.sync += [
                row_start.eq(restart),
                position.eq(restart),
                phase_x.eq(c.phase_x),
                phase_y.eq(c.phase_y),
                channel_base.eq(Mux(block_ends, c.base, channel_base + c.channel_step)),
                group_start.eq(restart),
            ]

        s1_channel, s1_position = Signal(ROW_ADDRESS), Signal(ROW_ADDRESS)
        s1_phase_x, s1_phase_y = Signal(ROW_ADDRESS), Signal(ROW_ADDRESS)
        s1_ring, s1_linear = Signal(ROW_ADDRESS), Signal(ROW_ADDRESS)
        m.d.sync += [
            s1_channel.eq(channel_base),
            s1_position.eq(position),
            s1_phase_x.eq(phase_x * c.phase_x_step),
            s1_phase_y.eq(phase_y * c.phase_y_step),
            s1_ring.eq(ring),
        ]
        m.d.comb += s1_linear.eq(s1_channel + s1_phase_x + s1_phase_y)
        m.d.sync += self.read.eq(locate(m, self.grid, s1_linear, s1_position, s1_ring))
        m.d.comb += self.read_enable.eq(self.stage[2].valid)

    def _masks(self, m):
        """Stages 0 to 2: which lanes lie inside the input at this tap."""
        c = self.config.payload
        active, issue, kx_ends, ky_ends, block_ends, group_ends = self.loops
        lanes = self.lanes
        tap_x, tap_y = Signal(signed(SIZE + 2)), Signal(signed(SIZE + 2))
        with m.If(~active | (issue & ky_ends)):
            m.d.sync += [tap_x.eq(c.tap_x), tap_y.eq(c.tap_y)]
        with m.Elif(issue & kx_ends):
            m.d.sync += [tap_x.eq(c.tap_x), tap_y.eq(tap_y + c.dilation_y)]
        with m.Elif(issue):
            m.d.sync += tap_x.eq(tap_x + c.dilation_x)

        x, y = Signal.like(lanes.x), Signal.like(lanes.y)
        with m.If(lanes.take):
            m.d.sync += [x.eq(lanes.x), y.eq(lanes.y)]
        s1_x, s1_y = Signal(signed(SIZE + 2)), Signal(signed(SIZE + 2))
        s1_width, s1_height = Signal(SIZE), Signal(SIZE)
        m.d.sync += [s1_x.eq(tap_x), s1_y.eq(tap_y), s1_width.eq(c.width), s1_height.eq(c.height)]
        inside = Signal(self.grid.pixels)
        masks = Signal(self.grid.pixels)
        for lane in range(self.grid.pixels):
            # A negative coordinate is a large unsigned one, so one comparison serves both ends.
            at_x = Signal(SIZE + 2, name=f"at_x{lane}")
            at_y = Signal(SIZE + 2, name=f"at_y{lane}")
            # Only for a tap: what rests costs a simulator nothing.
            with m.If(self.stage[1].valid):
                m.d.comb += [
                    at_x.eq(x[lane] + s1_x),
                    at_y.eq(y[lane] + s1_y),
                    inside[lane].eq((at_x < s1_width) & (at_y < s1_height)),
                ]
        m.d.sync += masks.eq(inside)
        s3_masks = Signal(self.grid.pixels)
        m.d.sync += s3_masks.eq(masks)
        return s3_masks

    def _operands(self, m, masks):
        """Stages 2 to 4: rotate the banks' words to the lanes, mask, pick the weights."""
        grid = self.grid
        rotate = Signal.like(self.read.rotate)
        m.d.sync += rotate.eq(self.read.rotate)
        words = self.words.as_value()
        turned = Signal(grid.pixels * WORD_BITS)
        m.d.comb += turned.eq(Cat(words, words) >> (rotate << ceil_log2(WORD_BITS)))
        pixels = Signal(data.ArrayLayout(signed(WORD_BITS), grid.pixels))
        inside = Cat(masks[lane].replicate(WORD_BITS) for lane in range(grid.pixels))
        with m.If(self.stage[3].valid):
            m.d.sync += pixels.as_value().eq(turned & inside)
        return pixels, self._weights(m)

    def _weights(self, m):
        """Stages 1 to 4: the beat read at stage 0 is there at stage 1; pick the tap's half."""
        grid = self.grid
        half = grid.maps * WORD_BITS
        beat = self.weights.as_value()
        s1 = Signal(half)
        m.d.comb += s1.eq(Mux(self.stage[1].odd, beat[half:], beat[:half]))
        s2, s3 = Signal(half), Signal(half)
        weights = Signal(data.ArrayLayout(signed(WORD_BITS), grid.maps))
        m.d.sync += [s2.eq(s1), s3.eq(s2), weights.as_value().eq(s3)]
        return weights

    def _accumulate(self, m, pixels, weights, platform):
        """Stages 4 to 6: multiply, accumulate, move to the drain registers; a row for each map."""
        for k in range(self.grid.maps):
            row = MacRow(self.grid)
            place(m, f"map{k}", "mac_row", row, platform)
            m.d.comb += [
                row.words.eq(pixels),
                row.weight.eq(weights[k]),
                row.multiply.eq(self.stage[4].valid),
                row.valid.eq(self.stage[5].valid),
                row.first.eq(self.stage[5].first),
                row.hand_over.eq(self.hand_over),
                row.shift.eq(self.shift),
                self.pixel[k].eq(row.out),
            ]
