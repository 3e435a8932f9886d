"""The multiply-accumulate array: ``maps`` x ``pixels`` accumulators, one tap a cycle.

Output-stationary: every accumulator owns one (map, pixel); a tap reads ``maps`` weights and
``pixels`` neighbouring words. Lanes run along the flattened output map (docs/machine.md, "Array").
By tap, the map lanes have the ``maps`` - 1 words behind those too: lane k works k words further on.
Where last taps of kernel rows are gathered, the words read for a row's first step serve its second
one as well, and what is read in the second one's place waits for the step of last taps.
Lanes beyond the end of an output row may read elsewhere: in the banks behind, at rows of their own.

Stages: 0 issue, 1 phases, 2 position, 3 and 4 bank address, 5 banks, 6 their words, 7 and 8 rotate,
9 to the multipliers, 10 multiply, 11 accumulate, 12 to the drain registers, 13 the first pixel to
the drain. Border masks: 2 to 4, then they wait for 8.
"""

from __future__ import annotations

from itertools import pairwise

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from neuflow.blocks.conv_banks import Locator, advance, read_address
from neuflow.blocks.conv_lanes import Coordinates
from neuflow.blocks.conv_steps import STEP_FLAGS, row_steps
from neuflow.blocks.convolver_model import HAND_OVER, ROW_ENDS
from neuflow.blocks.gate import add_gated, stay_awake
from neuflow.blocks.loops import loop
from neuflow.blocks.mac_row import MacRow
from neuflow.blocks.place import place
from neuflow.blocks.streams import WORD_BITS
from neuflow.grid import GridConfig
from neuflow.layout import ABSENT_CHANNELS, CONV_ARRAY, LANE_BITS, ROW_ADDRESS, SIZE

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


class MacArray(Component):
    """Issue of taps, operand fetch, and the accumulators.

    Members
    -------
    config : In stream of CONV_ARRAY.
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

    Throughput one tap a cycle; a group takes at least ``pixels`` cycles. Between two passes lie 6
    cycles and the making of the first group's coordinates (``pixels + Coordinates.LEAD`` cycles).
    """

    SETTLE = 6
    """Cycles from a tap's last stage, or a configuration, to the last register; one to spare."""

    def __init__(self, grid: GridConfig):
        self.grid = grid
        super().__init__(
            {
                "config": In(stream.Signature(CONV_ARRAY.shape())),
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
                "pixel": Out(data.ArrayLayout(signed(grid.acc_bits), grid.maps)),
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
        self.split = {k: Signal(splits, name=f"s{k}_split") for k in (1, 4, 8)}
        self.rows_on = Signal(range(ROW_ENDS + 2))  # stage 1: to the row where the next group begins
        self.rotate = Signal(ceil_log2(self.grid.row_banks))  # stage 5: the bank of lane 0
        self.spread = Signal()  # by tap, what taps read beyond the end of a row lies between
        self._sequence(m, platform)
        masks = self._masks(m)
        self._addresses(m, platform)
        pixels, weights = self._operands(m, masks)
        self._accumulate(m, pixels, weights, platform)
        stay_awake(
            m, self.awake, Cat(stage.valid for stage in self.stage), self.hand_over, self.shift,
            self.starts, self.frees, self.coordinates.awake, settle=self.SETTLE,
        )  # fmt: skip
        return m

    def _sequence(self, m, platform):
        """Stage 0: which tap comes next, and may it be issued?"""
        c = self.config.payload
        lanes = Coordinates(self.grid)
        add_gated(m, "coordinates", lanes, platform)
        self.coordinates = lanes
        active, issue = Signal(), Signal()
        odd = Signal()  # second tap of a beat of weights

        # Where the tap stands in its loops.
        ky_ends, block_ends, group_ends, pass_ends = (
            Signal(name=n) for n in ("ky_ends", "block_ends", "group_ends", "pass_ends")
        )
        step = row_steps(m, self.grid, c, ~active, issue, ky_ends)
        inner = step["ends_x"]
        at_last = {}
        for ends, length in (
            (ky_ends, c.kernel_y), (block_ends, c.channels), (group_ends, c.blocks),
            (pass_ends, c.groups),
        ):  # fmt: skip
            at_last[ends.name] = loop(m, ends.name, length, ~active, issue & inner)
            m.d.comb += ends.eq(inner & at_last[ends.name])
            inner = ends
        starts_block, begins = Signal(init=1), Signal(init=1)

        one_channel = Signal()  # and one kernel row: then the step that ends the row ends the block
        m.d.sync += one_channel.eq((c.channels == 1) & (c.kernel_y == 1))

        # One block at most is between its last tap and the drain.
        in_flight = Signal()
        m.d.sync += in_flight.eq((in_flight & ~self.hand_over) | self.stage[0].last)

        # A configuration leaves when the stages that read it are past.
        flushing = Signal(4)
        m.d.sync += flushing.eq(Cat(issue & pass_ends, flushing))

        # One fixed priority of causes to wait.
        no_rows, no_weights, no_drain = Signal(), Signal(), Signal()
        m.d.comb += [
            no_rows.eq(begins & ~(lanes.full & lanes.fed)),
            no_weights.eq(~odd & ~self.weights_ready),
            no_drain.eq(block_ends & (in_flight | ~self.drain_ready)),
            issue.eq(active & ~(no_rows | no_weights | no_drain)),
            self.idle.eq(~active),
            self.tap.eq(issue),
            self.configured.eq(self.config.valid),
            self.fill.eq(begins & ~lanes.full),
            self.wait_rows.eq(active & no_rows),
            self.wait_weights.eq(active & ~no_rows & no_weights),
            self.wait_drain.eq(active & ~(no_rows | no_weights) & no_drain),
            lanes.config.eq(c),
            lanes.stored.eq(self.stored),
            lanes.clear.eq(~active),
            lanes.configured.eq(self.config.valid),
            # Issue and begins, in fewer gates: only in a block of one step is the first also the last.
            lanes.take.eq(
                active
                & begins
                & lanes.full
                & lanes.fed
                & self.weights_ready
                & ~(one_channel & step["ends_x"] & (in_flight | ~self.drain_ready))
            ),
            self.weights_read.eq(issue & ~odd),
            self.weights_rewind.eq(issue & group_ends),
            self.weights_free.eq(issue & (pass_ends | c.stream_weights)),
            self.config.ready.eq(flushing[-1]),
        ]
        last_block = c.by_block | at_last["group_ends"]
        self._tell_lanes(m, issue, begins, Mux(c.by_tap, step["names"], last_block))

        with m.If(~active):
            m.d.sync += active.eq(self.config.valid & ~flushing.any())
        with m.If(issue):
            m.d.sync += [
                starts_block.eq(block_ends),
                begins.eq(group_ends),
                odd.eq(~odd & ~block_ends),
            ]
            with m.If(pass_ends):
                m.d.sync += active.eq(0)

        group_waits = active & begins & lanes.full
        self._release(m, group_waits, issue & pass_ends)
        self.starts, self.frees = Signal(), Signal()
        m.d.comb += [
            self.starts.eq(self.config.valid & ~active),
            self.frees.eq(group_waits & (self.kept != lanes.free)),
        ]
        self._flags(
            m, issue, odd=odd, first=starts_block, last=issue & block_ends, ends_y=ky_ends,
            ends_group=group_ends, ends_pass=pass_ends, begins=begins, **step,
        )  # fmt: skip
        # Nothing of this pass is in stages 0 to 2: their state may begin anew.
        self.rest = ~active & ~self.stage[1].valid & ~self.stage[2].valid

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

        A tap reads the banks in stage 5. A row is freed in stage 2 at the earliest, and written by
        the row store ``RowWriter.WRITE`` stages later: never in the cycle in which it is read.
        """
        kept = self.kept = Signal(SIZE)
        m.d.comb += self.released.eq(Mux(self.pass_done, 0, kept))
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

    def _addresses(self, m, platform):
        """Stages 1 to 4: the tap's address, kept in step with the loops."""
        c = self.config.payload
        s1, s2 = self.stage[1], self.stage[2]
        locator = Locator(self.grid)
        place(m, "locator", "locator", locator, platform)
        step_y_wrap = Signal(ROW_ADDRESS)
        offset_x, step_x = self._phase(m, "x", s1.valid, s1.ends_x, c.step_x, c.step_x + 1)
        offset_y, step_y = self._phase(m, "y", s1.valid & s1.ends_x, s1.ends_y, c.step_y, step_y_wrap)

        # What a pass does not change is made beforehand.
        wraps = Signal()
        row_less = Signal(signed(ROW_ADDRESS + 1))
        group_start, next_group = Signal(ROW_ADDRESS), Signal(ROW_ADDRESS)
        # From a group to the next; words that lie between two rows of lanes are not read.
        gap = Signal(signed(ROW_ADDRESS + 1))
        group, group_less = Signal(signed(ROW_ADDRESS + 4)), Signal(signed(ROW_ADDRESS + 4))
        gaps = sum(Mux(bit, gap << k, 0) for k, bit in enumerate(self.rows_on))
        step = gaps + self.grid.pixels
        m.d.sync += [
            wraps.eq(c.ring_words != 0),
            row_less.eq(c.row_pitch - c.ring_words),
            gap.eq(c.row_pitch - c.pitch),
            group.eq(step),
            group_less.eq(step - c.ring_words),
            step_y_wrap.eq(advance(m, "step_y_wrap", c.step_y, c.row_pitch, row_less, wraps)),
            next_group.eq(advance(m, "next_group", group_start, group, group_less, wraps)),
        ]

        channel_base, row_start, position = (
            Signal(ROW_ADDRESS, name=n) for n in ("channel_base", "row_start", "position")
        )
        next_x = advance(m, "next_x", position, *step_x, wraps)
        next_row = advance(m, "next_row", row_start, *step_y, wraps)
        restart = Mux(s2.ends_group, next_group, group_start)
        first_channel = Signal()
        m.d.comb += first_channel.eq(Mux(c.by_block, s2.ends_group, s2.last))
        next_channel = self._next_channel(m, s2.valid & s2.ends_x & s2.ends_y, first_channel)
        with m.If(self.rest):
            m.d.sync += [
                channel_base.eq(c.base),
                group_start.eq(c.start),
                row_start.eq(c.start),
                position.eq(c.start),
            ]
        with m.Elif(s2.valid & ~s2.ends_x):
            # Last taps are read once more for a step of their own.
            with m.If(~s2.goes_on):
                m.d.sync += position.eq(next_x)
        with m.Elif(s2.valid & ~s2.ends_y):
            m.d.sync += [row_start.eq(next_row), position.eq(next_row)]
        with m.Elif(s2.valid):
            m.d.sync += [
                row_start.eq(restart),
                position.eq(restart),
                group_start.eq(restart),
                channel_base.eq(Mux(first_channel, c.base, next_channel)),
            ]
        linear = Signal.like(locator.linear)
        m.d.sync += [
            linear.eq(channel_base + offset_x + offset_y),
            locator.position.eq(position),
        ]
        m.d.comb += [
            locator.linear.eq(linear),
            locator.ring.eq(c.ring_words),
            self.rotate.eq(locator.where.rotate),
            self.read_enable.eq(self.stage[5].valid),
        ]
        self._behind(m, platform, linear, position, gap, wraps, locator)

    def _behind(self, m, platform, linear, position, gap, wraps, lanes_before):
        """Stages 2 to 4: where the words of lanes beyond the ends of output rows are.

        They lie whole rounds of the banks further on, so that the same turn brings them to their
        lanes; by tap, behind the words that the lanes before them read beyond the end.
        """
        c, beyond, bank_bits = self.config.payload, self.grid.tap_gap, ceil_log2(self.grid.row_banks)
        rounds = Signal.like(gap)
        m.d.sync += rounds.eq(Cat(Const(0, bank_bits), gap[bank_bits:]).as_signed())
        if beyond:
            with m.If(self.stage[1].valid):
                m.d.sync += self.spread.eq(c.by_tap & gap[:bank_bits].any())
        # Banks from that of the first lane on, up to that of the first behind each row end.
        turn, where, ends = lanes_before.turn, [lanes_before.where], []
        for k in range(ROW_ENDS):
            locator = Locator(self.grid)
            place(m, f"behind{k}", "locator", locator, platform)
            far, far_less = (Signal(signed(ROW_ADDRESS + 3), name=f"far{k}{n}") for n in ("", "_less"))
            end = Signal(bank_bits + 1, name=f"end{k}")
            # Spread, a group meets one row end; no word lies behind a second one.
            spread = beyond if k == 0 else self.grid.row_banks - self.split[4][k]
            m.d.sync += [
                far.eq((k + 1) * rounds),
                far_less.eq((k + 1) * rounds - c.ring_words),
                locator.position.eq(advance(m, f"behind{k}", position, far, far_less, wraps)),
            ]
            m.d.comb += [
                locator.linear.eq(linear),
                locator.ring.eq(c.ring_words),
                end.eq(turn + self.split[4][k] + Mux(self.spread, spread, 0)),
            ]
            where.append(locator.where)
            ends.append(end)
        self._in_bank_order(m, turn, ends, where)

    def _in_bank_order(self, m, turn, ends, where):
        """Stages 3 and 4: from the order of lanes to that of banks, which begins where the banks end.

        ``met``: row ends before the last bank. What lies behind the others begins at bank 0.
        """
        met = Signal(range(ROW_ENDS + 1))
        before = [~end[-1] for end in ends]
        m.d.sync += met.eq(sum(before))

        def by(number, choices):
            result = choices[-1]
            for k in reversed(range(len(choices) - 1)):
                result = Mux(number == k, choices[k], result)
            return result

        for at in range(ROW_ENDS + 1):
            turned = [[*ends[k:], turn, *ends[:k]] for k in range(ROW_ENDS + 1)]
            m.d.sync += self.read.ends[at].eq(by(sum(before), [order[at] for order in turned]))
        for at in range(ROW_ENDS + 2):
            turned = [
                [*(lies.wrapped for lies in where[k:]), *(lies.row for lies in where[: k + 1])]
                for k in range(ROW_ENDS + 1)
            ]
            m.d.comb += self.read.rows[at].eq(by(met, [order[at] for order in turned]))

    def _next_channel(self, m, moves, restarts):
        """Stage 2: return the base of the next channel that is read, walking on while taps pass.

        It steps over one absent channel a cycle, so that fewer must follow each other than a channel
        has taps. By tap, a channel's weights name the next one.
        """
        c = self.config.payload
        base, absent = Signal(ROW_ADDRESS, name="next_channel"), Signal(ABSENT_CHANNELS)
        with m.If(self.stage[2].valid & self.stage[2].names):
            m.d.sync += base.eq(c.base + self.weight_words[-WORD_BITS:])
        with m.Elif(self.rest | (moves & restarts)):
            m.d.sync += [base.eq(c.base + c.channel_step), absent.eq(Cat(c.absent0, c.absent1))]
        with m.Elif(moves | absent[0]):
            m.d.sync += [base.eq(base + c.channel_step), absent.eq(absent[1:])]
        return base

    def _phase(self, m, axis, moves, restarts, step, step_wrap):
        """Stage 1: the phase in ``axis`` of the tap, moved or restarted with the tap.

        Return, both in stage 2, its offset in memory, and the step to the next tap, plain and less
        the ring. A phase that wraps takes ``step_wrap``.
        """
        c = self.config.payload
        first, delta, phase_step = (c[f"phase_{axis}"], c[f"phase_d{axis}"], c[f"phase_{axis}_step"])
        phase, sum_, over = Signal(4), Signal(5), Signal(signed(6))
        delta_less = Signal(signed(5))
        kept, kept_less = Signal(ROW_ADDRESS), Signal(signed(ROW_ADDRESS + 1))
        wrapped, wrapped_less = Signal(ROW_ADDRESS), Signal(signed(ROW_ADDRESS + 1))
        offset = Signal(ceil_log2(self.grid.row_words), reset_less=True)
        move, move_less = Signal(ROW_ADDRESS), Signal(signed(ROW_ADDRESS + 1))
        wraps = Signal()
        m.d.comb += [sum_.eq(phase + delta), over.eq(phase + delta_less), wraps.eq(over >= 0)]
        m.d.sync += [
            delta_less.eq(delta - c.stride),
            kept.eq(step),
            kept_less.eq(step - c.ring_words),
            wrapped.eq(step_wrap),
            wrapped_less.eq(step_wrap - c.ring_words),
            move.eq(Mux(wraps, wrapped, kept)),
            move_less.eq(Mux(wraps, wrapped_less, kept_less)),
            offset.eq(phase * phase_step[: len(offset)]),
        ]
        with m.If(self.rest):
            m.d.sync += phase.eq(first)
        with m.Elif(moves):
            m.d.sync += phase.eq(Mux(restarts, first, Mux(wraps, over, sum_)))
        return offset, (move, move_less)

    def _masks(self, m):
        """Stages 2 to 8: which lanes lie inside the input at this tap."""
        c = self.config.payload
        lanes, s1, s2 = self.coordinates, self.stage[1], self.stage[2]
        tap_x, tap_y = Signal(signed(SIZE + 2)), Signal(signed(SIZE + 2))
        with m.If(self.rest | (s2.valid & s2.ends_y)):
            m.d.sync += [tap_x.eq(c.tap_x), tap_y.eq(c.tap_y)]
        with m.Elif(s2.valid & s2.ends_x):
            m.d.sync += [tap_x.eq(c.tap_x), tap_y.eq(tap_y + c.dilation_y)]
        with m.Elif(s2.valid & ~s2.goes_on):
            m.d.sync += tap_x.eq(tap_x + c.dilation_x)

        shape = data.ArrayLayout(unsigned(SIZE), self.grid.pixels)
        x, y = Signal(shape, reset_less=True), Signal(shape, reset_less=True)
        with m.If(s1.valid & s1.begins):
            m.d.sync += [x.eq(lanes.x), y.eq(lanes.y)]
        masks = {k: Signal(self.grid.pixels, name=f"s{k}_masks", reset_less=True) for k in range(4, 8)}
        for lane in range(self.grid.pixels):
            # A negative coordinate is a large unsigned one, so one comparison serves both ends.
            at_x = Signal(SIZE + 2, name=f"at_x{lane}", reset_less=True)
            at_y = Signal(SIZE + 2, name=f"at_y{lane}", reset_less=True)
            # Only for a tap: what rests costs a simulator nothing.
            with m.If(s2.valid):
                m.d.sync += [at_x.eq(x[lane] + tap_x), at_y.eq(y[lane] + tap_y)]
            with m.If(self.stage[3].valid):
                m.d.sync += masks[4][lane].eq((at_x < c.width) & (at_y < c.height))
        m.d.sync += [masks[k].eq(masks[k - 1]) for k in range(5, 8)]
        # Words beyond the last pixel's are those of its row: its mask is theirs. Spread, a word is of
        # the row of the lane that reads it last.
        inside = Signal(self._words_read, name="s8_masks", reset_less=True)
        last, gap = self.grid.pixels - 1, self.grid.tap_gap
        plain, spread = (
            Cat(masks[7][min(max(n - back, 0), last)] for n in range(self._words_read))
            for back in (0, gap)
        )
        m.d.sync += inside.eq(Mux(self.spread, spread, plain))
        return inside

    @property
    def _words_read(self):
        """Words that the lanes of a step use, or of two that one reading serves."""
        beyond = max(self.grid.tap_gap, self.grid.maps * self.grid.tap_gather)
        return self.grid.pixels + self.grid.tap_lanes - 1 + beyond

    def _operands(self, m, masks):
        """Stages 6 to 10: rotate the banks' words to the lanes, mask; return words of every map lane.

        Words and weights travel all over the array: that is a stage of its own, from register to
        register, which a multiplier may have inside.
        """
        grid = self.grid
        # The configuration has left when the last taps come here, and the next pass's have not come.
        by_tap = Signal()
        with m.If(self.stage[1].valid):
            m.d.sync += by_tap.eq(self.config.payload.by_tap)
        banks = grid.row_banks
        fine_bits = ceil_log2(banks) // 2
        rotate = {5: self.rotate}
        for k in (6, 7, 8):
            rotate[k] = Signal.like(self.rotate, name=f"s{k}_rotate", reset_less=True)
            m.d.sync += rotate[k].eq(rotate[k - 1])
        words, turned = (
            Signal(banks * WORD_BITS, name=f"s{k}_words", reset_less=True) for k in (7, 8)
        )
        masked = Signal(self._words_read * WORD_BITS, name="s9_words", reset_less=True)
        pixels = [
            Signal(grid.pixels * WORD_BITS, name=f"s10_words{k}", reset_less=True)
            for k in range(grid.tap_lanes)
        ]
        word_bits = ceil_log2(WORD_BITS)
        coarse = Cat(Const(0, fine_bits + word_bits), rotate[7][fine_bits:])
        fine = Cat(Const(0, word_bits), rotate[8][:fine_bits])
        inside = Cat(mask.replicate(WORD_BITS) for mask in masks)
        with m.If(self.stage[6].valid):
            m.d.sync += words.eq(self.words.as_value())
        with m.If(self.stage[7].valid):
            m.d.sync += turned.eq(Cat(words, words) >> coarse)
        read = Signal.like(masked, name="s8_words")
        m.d.comb += read.eq((Cat(turned, turned) >> fine) & inside)
        with m.If(self.stage[8].valid):
            m.d.sync += masked.eq(read)
        with m.If(self.stage[9].valid):
            m.d.sync += pixels[0].eq(masked)
            for k in range(1, grid.tap_lanes):
                m.d.sync += pixels[k].eq(Mux(by_tap, masked[k * WORD_BITS :], masked))
        if grid.tap_gather:
            self._gather(m, read, masked, pixels)
        if grid.tap_gap:
            behind = Signal(grid.pixels, name="s9_behind", reset_less=True)
            with m.If(self.stage[8].valid & self.spread):
                m.d.sync += behind.eq(Const((1 << grid.pixels) - 1, grid.pixels) << self.split[8][0])
            chosen = Cat(lane.replicate(WORD_BITS) for lane in behind)
            with m.If(self.stage[9].valid & self.spread):
                for k in range(grid.tap_lanes):
                    before = masked[k * WORD_BITS :]
                    after = masked[(k + grid.tap_gap) * WORD_BITS :]
                    m.d.sync += pixels[k].eq((before & ~chosen) | (after & chosen))
        return pixels * (grid.maps // grid.tap_lanes), self._weights(m)

    def _gather(self, m, read, masked, pixels):
        """Stages 8 and 9: let words read serve two steps, and last taps of kernel rows wait."""
        grid, s8, s9 = self.grid, self.stage[8], self.stage[9]
        # Of the rows before, the latest first; the present one's are read for the step itself.
        kept = [
            Signal(grid.pixels * WORD_BITS, name=f"s9_kept{k}", reset_less=True)
            for k in range(1, grid.maps)
        ]
        with m.If(s8.valid & s8.goes_on):
            m.d.sync += masked.eq(masked[grid.maps * WORD_BITS :])
        with m.If(s8.valid & s8.keeps):
            m.d.sync += [after.eq(before) for before, after in pairwise([read, *kept])]
        with m.If(s9.valid & s9.gathers):
            m.d.sync += [lane.eq(words) for lane, words in zip(pixels[1:], kept, strict=True)]

    def _weights(self, m):
        """Stages 1 to 10: the beat read at stage 0 is there at stage 1; pick the tap's half."""
        grid, s2 = self.grid, self.stage[2]
        half = grid.maps * WORD_BITS
        beat = Signal(2 * half, reset_less=True)
        halves = [Signal(half, name=f"s{k}_weights", reset_less=True) for k in range(3, 11)]
        with m.If(self.stage[1].valid):
            m.d.sync += beat.eq(self.weights.as_value())
        m.d.comb += self.weight_words.eq(Mux(s2.odd, beat[half:], beat[:half]))
        m.d.sync += halves[0].eq(self.weight_words)
        if grid.tap_lanes > 1:
            # Where a channel is named, the last lane has no tap.
            with m.If(s2.names):
                m.d.sync += halves[0][-WORD_BITS:].eq(0)
        m.d.sync += [after.eq(before) for before, after in pairwise(halves)]
        return data.View(data.ArrayLayout(signed(WORD_BITS), grid.maps), halves[-1])

    def _accumulate(self, m, pixels, weights, platform):
        """Stages 10 to 13: multiply, accumulate, move to the drain registers; a row for each map.

        What moves thousands of registers comes from a register that is made of registers: the drain
        registers go on two cycles after ``pixel`` does, unless the next block's results have come
        meanwhile.
        """
        copies, comes = self.stage[HAND_OVER - 1].last, self.stage[HAND_OVER - 2].last
        takes, behind, move = Signal(), Signal(2), Signal()
        m.d.comb += takes.eq(self.hand_over | self.shift)
        m.d.sync += [
            behind.eq(Mux(copies, 0, Cat(takes, behind))),
            move.eq((behind[0] & ~copies) | comes),
        ]
        for k in range(self.grid.maps):
            row = MacRow(self.grid)
            place(m, f"map{k}", "mac_row", row, platform)
            m.d.comb += [
                row.words.eq(pixels[k]),
                row.weight.eq(weights[k]),
                row.multiply.eq(self.stage[10].valid),
                row.valid.eq(self.stage[11].valid),
                row.first.eq(self.stage[11].first),
                row.copy.eq(copies),
                row.move.eq(move),
                row.take.eq(takes),
                row.behind.eq(behind),
                self.pixel[k].eq(row.out),
            ]
