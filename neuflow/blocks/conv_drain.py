"""The convolver's exit: requantise, put back into rows; or hand on exact partial sums.

The array finishes blocks of ``pixels`` x ``maps`` results; rows are sent map by map. The reorder
buffer lies between them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import ceil_log2

from neuflow.blocks.arith import M_BITS, SHIFT_BITS, Requantise
from neuflow.blocks.conv_array import block_layout
from neuflow.blocks.conv_reorder import Reorder, Walk
from neuflow.blocks.conv_send import send_rows
from neuflow.blocks.conv_weights import block_parameters
from neuflow.blocks.convolver_model import HAND_OVER, addition
from neuflow.blocks.gate import fires, stay_awake
from neuflow.blocks.parameters_model import PARAMETER_BEATS
from neuflow.blocks.place import place
from neuflow.blocks.streams import WORD_BITS, Packer, Slice, beat_stream
from neuflow.fixed import ACC_BITS, PARTIAL_WORDS
from neuflow.grid import GridConfig
from neuflow.layout import CONV_DRAIN, PARAMETERS, ROW_ADDRESS, SIZE

RESULT = data.StructLayout({"step": 1, "ends_block": 1, "ends_group": 1})
"""What goes along with a pixel's results on their way to the reorder buffer."""


class Scale(NamedTuple):
    """Parameters of a map as the requantiser takes them."""

    bias: Signal
    m: Signal
    s: Signal
    zero: Signal

    @classmethod
    def signals(cls, number: int, prefix: str = "", **options: Any) -> Scale:
        """Return those of map ``number``, each a signal of its own."""
        shapes = (signed(ACC_BITS), M_BITS, SHIFT_BITS, signed(WORD_BITS))
        return cls(
            *(
                Signal(shape, name=f"{prefix}{name}{number}", **options)
                for name, shape in zip(cls._fields, shapes, strict=True)
            )
        )


class Drain(Component):
    """Requantiser, reorder buffer and partial sums.

    Members
    -------
    config : In stream of CONV_DRAIN.
    pixel In, shift Out, hand_over In, block In : the array's drain registers, see ``MacArray``.
    ready : Out; a block whose last tap is issued now finds the drain registers free.
    parameters, parameters_valid In; parameters_beats, _wanted, _take, _rewind, _free Out : see
        ``WeightStore``.
    partials : In, beats of ``maps`` words; taken only with ``partial_in``.
    o : Out, beats of ``maps`` words: requantised rows (y, map, x), or partial sums.
    awake : Out.
    draining : Out, a result left the registers. configured : Out, there is a configuration; held :
        Out, ``o`` is held back.

    Throughput one pixel (all maps) a cycle, 5 and 3 cycles a pixel with partial_in and
    partial_out; by tap a block takes ``addition(maps)`` cycles more, in which the map lanes' results are
    added. Rows leave with ``min(maps, rest of the row)`` words a cycle. A block waits in the
    registers until the rows it touches have free slots. A row leaves when every block of the group
    with its last pixel has drained. A pass begins when the rows of the one before have left.
    """

    SETTLE = Requantise.LATENCY + Reorder.WRITE + Reorder.READ + 4
    """Cycles from a result's exit, or a row that is told, to the last register; some to spare."""

    def __init__(self, grid: GridConfig):
        self.grid = grid
        super().__init__(
            {
                "config": In(stream.Signature(CONV_DRAIN.shape())),
                "pixel": In(signed(grid.acc_bits)).array(grid.maps),
                "shift": Out(1),
                "hand_over": In(1),
                "block": In(block_layout()),
                "ready": Out(1),
                "parameters": In(block_parameters(grid)),
                "parameters_valid": In(1),
                "parameters_beats": Out(range(PARAMETER_BEATS + 1)),
                "parameters_wanted": Out(1),
                "parameters_take": Out(1),
                "parameters_rewind": Out(1),
                "parameters_free": Out(1),
                "partials": In(beat_stream(grid.maps)),
                "o": Out(beat_stream(grid.maps)),
                "draining": Out(1),
                "configured": Out(1),
                "held": Out(1),
                "awake": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config.payload
        m.submodules.reorder = self.reorder = Reorder(self.grid)
        m.submodules.packer = packer = Packer(self.grid.maps, self.grid.maps)
        m.submodules.walk = self.walk = Walk()
        m.submodules.slice = self.out = out = Slice(self.o.payload.shape())
        connect(m, out.o, flipped(self.o))
        self.rows_done = Signal(SIZE)
        self.rows_sent = Signal(SIZE)
        self.leaving = leaving = Signal()  # rows of the pass before are still in the packer
        self.unread = Signal()  # the last words of a row are asked for, and not read yet
        self.unread_end = Signal()  # and the row is the pass's last
        self.reads = Signal()  # rows are being read

        # A configuration is known when all that is made of it beforehand is.
        passed = Signal()
        known = Signal(3)
        m.d.comb += passed.eq(self.config.valid & self.config.ready)
        m.d.sync += known.eq(Mux(self.config.valid & ~passed, Cat(1, known), 0))
        self.known = known[-1]

        # What leaves the array, and while sums of map lanes are made of it.
        self.results = [
            Signal(RESULT, name=f"result{k}") for k in range(addition(self.grid.tap_lanes) + 1)
        ]
        block, parameters, step, block_ends = self._blocks(m)
        values, partial_beat = self._values(m, block, step)
        self._requantise(m, block, parameters, values, step, block_ends, passed, platform)
        rows_end = send_rows(m, self, packer)

        with m.If(rows_end):
            m.d.sync += leaving.eq(1)
        with m.Elif(packer.o.valid & packer.o.ready & packer.o.payload.last):
            m.d.sync += leaving.eq(0)
        with m.If(c.partial_out & self.config.valid & ~leaving):
            m.d.comb += [out.i.payload.eq(partial_beat.payload), out.i.valid.eq(partial_beat.valid)]
        with m.Else():
            connect(m, packer.o, out.i)
        sums_end = Signal()  # partial sums: the last has left, one cycle ago
        m.d.sync += sums_end.eq(block_ends & block.ends_pass & c.partial_out)
        m.d.comb += [
            self.config.ready.eq(sums_end | rows_end),
            self.configured.eq(self.config.valid),
            self.held.eq(self.o.valid & ~self.o.ready),
        ]
        told = Signal(SIZE)
        m.d.sync += told.eq(self.block.last_row)
        stay_awake(
            m, self.awake, self.config.valid & ~self.known, passed, self.block.last_row != told,
            self.hand_over, self.waiting, self.running, self.reads, packer.awake,
            fires(out.i, out.o), settle=self.SETTLE + addition(self.grid.tap_lanes),
        )  # fmt: skip
        return m

    def _room(self, m):
        """Whether the rows of the array's last block have free slots; 3 cycles after it is told.

        A row that was sent frees its slot when its last words are read: a stalled output holds them,
        and perhaps until sums have come, so that a block which does without the slot must not wait.
        """
        c = self.config.payload
        height_less = Signal(SIZE)
        last_row = Signal(SIZE)
        limit = Signal(SIZE + 1)
        tight = Signal()  # the block needs the slot that was freed last
        room = Signal()
        m.d.comb += tight.eq(last_row + 1 == limit)
        m.d.sync += [
            height_less.eq(c.height - 1),
            last_row.eq(Mux(self.block.last_row < c.height, self.block.last_row, height_less)),
            limit.eq(self.rows_sent + c.slots),
            room.eq(
                c.partial_out
                | ((last_row < limit) & ~self.unread_end & ~(self.unread & tight))
            ),
        ]
        return room

    def _blocks(self, m):
        """Accept a block, start it when there is room and its parameters are there, count it out."""
        grid, c, block = self.grid, self.config.payload, self.block
        pixels = grid.pixels
        parameters = [Scale.signals(k, reset_less=True) for k in range(grid.maps)]
        running_block = Signal(block_layout(), reset_less=True)
        self.waiting = waiting = Signal()
        all_started = Signal()
        self.running = running = Signal()
        self.left = left = Signal(range(pixels + 1))
        start = Signal()
        step = Signal()
        ends = Signal()
        plain = Signal()
        ready = Signal(init=1)
        scales = self._scales(m)
        # By tap, results before the last stage still need their parameters a cycle later.
        adds = c.by_tap & Cat(running, *(result.step for result in self.results[1:-1])).any()
        soon = pixels <= HAND_OVER + 1  # a block that starts leaves before the next can end

        m.d.comb += [
            start.eq(
                (self.hand_over | waiting)
                & self.known
                & ~all_started
                & self._room(m)
                & self.parameters_valid
                & ~adds
            ),
            ends.eq(step & (left == 1)),
            plain.eq(~c.partial_in & ~c.partial_out),
            self.ready.eq(ready),
            self.shift.eq(step),
            self.draining.eq(step),
            self.parameters_beats.eq(c.beats),
            self.parameters_wanted.eq(self.config.valid & ~all_started),
            self.parameters_take.eq(start),
            self.parameters_rewind.eq(block.ends_group),
            self.parameters_free.eq(block.ends_pass),
        ]
        # Of the next cycle: by then one pixel more has left.
        free = ~running | ends | (plain & (left <= HAND_OVER + 2))
        m.d.sync += ready.eq(Mux(start, plain & soon, ~waiting & ~self.hand_over & free))
        with m.If(step):
            m.d.sync += left.eq(left - 1)
        with m.If(ends):
            m.d.sync += running.eq(0)
        with m.If(self.hand_over):
            m.d.sync += waiting.eq(~start)
        with m.If(start):
            m.d.sync += [
                waiting.eq(0),
                running.eq(1),
                left.eq(pixels),
                *(
                    to.eq(field)
                    for of_map, scale in zip(parameters, scales, strict=True)
                    for to, field in zip(of_map, scale, strict=True)
                ),
                running_block.eq(block),
                all_started.eq(block.ends_pass),
            ]
        with m.If(self.config.valid & self.config.ready):
            m.d.sync += all_started.eq(0)
        return running_block, parameters, step, ends

    def _scales(self, m):
        """Return the parameters of each map, with what was not sent. See ``layout.PARAMETERS``."""
        c = self.config.payload
        two = Signal()  # so many words of them are sent
        three = Signal()
        m.d.sync += [two.eq(c.beats[1]), three.eq(c.beats.all())]
        scales = []
        for k in range(self.grid.maps):
            sent = Cat(beat[k] for beat in self.parameters)[: PARAMETERS.bits]
            words = data.View(PARAMETERS.shape(), sent)
            low, middle, high = words.bias_low, words.bias_middle, words.bias_high
            scale = Scale.signals(k, "sent_")
            sign = Signal(name=f"sign{k}")
            m.d.comb += [
                sign.eq(Mux(two, middle[-1], low[-1])),
                scale.bias.eq(
                    Cat(
                        low,
                        Mux(two, middle, sign.replicate(len(middle))),
                        Mux(three, high, sign.replicate(len(high))),
                    ).as_signed()
                ),
                scale.m.eq(Mux(two, words.m, 1)),
                scale.s.eq(Cat(words.shift_low, Mux(two, words.shift_high, 0)) + c.shift),
                scale.zero.eq(Mux(three, words.zero, 0)),
            ]
            scales.append(scale)
        return scales

    def _values(self, m, block, step):
        """The pixel's sums, with the partial sums read; one pixel a step."""
        grid, c = self.grid, self.config.payload
        words = Signal(range(PARTIAL_WORDS + 2))  # partial words taken; one more cycle to add
        partial = [
            Signal(grid.acc_bits, name=f"partial{k}", reset_less=True) for k in range(grid.maps)
        ]
        summed = [
            Signal(signed(grid.acc_bits), name=f"summed{k}", reset_less=True)
            for k in range(grid.maps)
        ]
        values = [Signal(signed(grid.acc_bits), name=f"value{k}") for k in range(grid.maps)]
        take = Signal()
        have = Signal()
        added = Signal()  # words is at its end
        wants = Signal(init=1)  # it is below PARTIAL_WORDS
        m.d.comb += [
            self.partials.ready.eq(self.running & c.partial_in & wants),
            take.eq(self.partials.ready & self.partials.valid),
            have.eq(
                self.running
                & (~c.partial_in | added)
                & ~(c.partial_out & self.leaving)
            ),
        ]
        with m.If(step):
            m.d.sync += [words.eq(0), added.eq(0), wants.eq(1)]
        with m.Elif(take | (words == PARTIAL_WORDS)):
            m.d.sync += [
                words.eq(words + 1),
                added.eq(words == PARTIAL_WORDS),
                wants.eq(words < PARTIAL_WORDS - 1),
            ]
        for k in range(grid.maps):
            word = self.partials.payload.words[k].as_unsigned()
            with m.If(take):
                m.d.sync += partial[k].eq(Cat(partial[k][WORD_BITS:], word))
            with m.If(c.partial_in):
                m.d.sync += summed[k].eq(self.pixel[k] + partial[k].as_signed())
            m.d.comb += values[k].eq(Mux(c.partial_in, summed[k], self.pixel[k]))

        # Partial sums out: three beats a pixel.
        out = stream.Signature(self.o.payload.shape()).create()
        sent = Signal(range(PARTIAL_WORDS))
        last_word = Signal()
        m.d.comb += [
            out.valid.eq(have & c.partial_out),
            out.payload.count.eq(grid.maps),
            last_word.eq(sent == PARTIAL_WORDS - 1),
            out.payload.last.eq(last_word & (self.left == 1) & block.ends_pass),
            step.eq(have & (~c.partial_out | (self.out.i.ready & last_word))),
        ]
        for k in range(grid.maps):
            m.d.comb += out.payload.words[k].eq(values[k].word_select(sent, WORD_BITS))
        with m.If(out.valid & self.out.i.ready):
            m.d.sync += sent.eq(Mux(last_word, 0, sent + 1))
        return values, out

    def _requantise(self, m, block, parameters, values, step, block_ends, passed, platform):
        """Requantise every map, then write the pixel where the walk stands."""
        grid, c, walk, results = self.grid, self.config.payload, self.walk, self.results
        stages = [Signal(RESULT, name=f"s{i}") for i in range(Requantise.LATENCY + 1)]
        m.d.comb += [
            results[0].step.eq(step & ~c.partial_out),
            results[0].ends_block.eq(block_ends),
            results[0].ends_group.eq(block.ends_group),
            stages[0].eq(Mux(c.by_tap, results[-1], results[0])),
        ]
        m.d.sync += [after.eq(before) for before, after in pairwise(stages)]
        m.d.sync += [after.eq(before) for before, after in pairwise(results)]
        values = [Mux(c.by_tap, self._add(m), values[0]), *values[1:]]
        moving = Signal()
        m.d.comb += moving.eq(Cat(stage.step for stage in stages[:-1]).any())
        for k in range(grid.maps):
            exit_ = Requantise()
            place(m, f"requantise{k}", "requantise", exit_, platform)
            m.d.comb += [
                exit_.en.eq(moving),
                exit_.acc.eq(values[k]),
                exit_.bias.eq(parameters[k].bias),
                exit_.m.eq(parameters[k].m),
                exit_.s.eq(parameters[k].s),
                exit_.zero.eq(parameters[k].zero),
                exit_.narrow.eq(c.narrow),
                self.reorder.write_words[k].eq(exit_.out),
            ]

        # The walk goes ahead, so that a word and the place it is written to come out together.
        at = Requantise.LATENCY - Reorder.WRITE - 2
        walks, offsets = stages[at], stages[at + 1]
        map_offset = Signal(ROW_ADDRESS)
        next_block = Signal(ROW_ADDRESS)
        complete = Signal(SIZE)
        m.d.comb += [
            walk.config.eq(c),
            walk.clear.eq(passed),
            walk.step.eq(walks.step),
            walk.back.eq(walks.ends_block),
            walk.mark.eq(walks.ends_block & walks.ends_group),
            self.reorder.map_step.eq(c.map_step),
            self.reorder.alone.eq(c.by_tap),
            next_block.eq(map_offset + Mux(c.by_tap, c.map_step, c.map_step << ceil_log2(grid.maps))),
        ]
        m.d.sync += [
            self.reorder.write_enable.eq(offsets.step & walk.inside),
            self.reorder.write_address.eq(map_offset + walk.offset),
            # Told a cycle late: a row is read when its last word is written.
            complete.eq(walk.complete),
            self.rows_done.eq(complete),
        ]
        with m.If(passed):
            m.d.sync += [map_offset.eq(0), complete.eq(0), self.rows_done.eq(0)]
        with m.Elif(offsets.step & offsets.ends_block):
            m.d.sync += map_offset.eq(Mux(offsets.ends_group, 0, next_block))

    def _add(self, m):
        """Return the sum of a pixel's map lanes, ``addition(maps)`` cycles later."""
        values = [self.pixel[k] for k in range(self.grid.maps)]
        for stage, result in enumerate(self.results[:-1]):
            sums = [
                Signal(signed(self.grid.acc_bits), name=f"add{stage}_{k}", reset_less=True)
                for k in range(len(values) // 2)
            ]
            with m.If(result.step):
                m.d.sync += [s.eq(values[2 * k] + values[2 * k + 1]) for k, s in enumerate(sums)]
            values = sums
        return values[0]
