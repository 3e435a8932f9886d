"""The convolver's exit: requantise, put back into rows; or hand on exact partial sums.

The array finishes blocks of ``pixels`` x ``maps`` results; rows are sent map by map. The reorder
buffer between them holds ``slots`` rows of every map, in ``maps`` banks: word a lies in bank a
mod ``maps``. As a map's rows take ``map_step`` = 1 modulo ``maps`` words, the ``maps`` results of one
pixel, and ``maps`` neighbouring pixels of one map, always lie in different banks.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import ceil_log2

from neuflow.blocks.arith import Requantise
from neuflow.blocks.conv_array import block_layout
from neuflow.blocks.conv_weights import block_parameters
from neuflow.blocks.convolver_model import HAND_OVER
from neuflow.blocks.place import place
from neuflow.blocks.ram import Ram
from neuflow.blocks.streams import WORD_BITS, Packer, beat_stream
from neuflow.fixed import PARTIAL_WORDS
from neuflow.grid import GridConfig
from neuflow.layout import CONV_DRAIN, ROW_ADDRESS, SIZE


class Reorder(Component):
    """Banked memory: writes ``maps`` words ``map_step`` apart, reads ``maps`` consecutive words.

    Members: ``write_enable``, ``write_address`` (of map 0), ``write_words`` In; ``map_step`` In;
    ``read_enable``, ``read_address`` In; ``read_words`` Out, one cycle later, held while not enabled.
    """

    def __init__(self, grid: GridConfig):
        self.grid = grid
        words = data.ArrayLayout(signed(WORD_BITS), grid.maps)
        super().__init__(
            {
                "map_step": In(ROW_ADDRESS),
                "write_enable": In(1),
                "write_address": In(ROW_ADDRESS),
                "write_words": In(words),
                "read_enable": In(1),
                "read_address": In(ROW_ADDRESS),
                "read_words": Out(words),
            }
        )

    def elaborate(self, platform):
        m = Module()
        maps = self.grid.maps
        bits = ceil_log2(maps)
        turn, row = self.write_address[:bits], self.write_address[bits:]
        step = self.map_step[bits:]
        read_turn, read_row = self.read_address[:bits], self.read_address[bits:]
        s1_turn = Signal(bits)
        with m.If(self.read_enable):
            m.d.sync += s1_turn.eq(read_turn)

        out = Signal(maps * WORD_BITS)
        for bank in range(maps):
            ram = Ram(WORD_BITS, self.grid.reorder_words // maps)
            m.submodules[f"bank{bank}"] = ram
            map_ = Signal(bits, name=f"map{bank}")  # the map whose word lies in this bank
            m.d.comb += [
                map_.eq(bank - turn),
                ram.write_enable.eq(self.write_enable),
                ram.write_address.eq(row + map_ * step + (bank < turn)),
                ram.write_data.eq(self.write_words.as_value().word_select(map_, WORD_BITS)),
                ram.read_enable.eq(self.read_enable),
                ram.read_address.eq(read_row + (bank < read_turn)),
                out[bank * WORD_BITS : (bank + 1) * WORD_BITS].eq(ram.read_data),
            ]
        m.d.comb += self.read_words.as_value().eq(
            Cat(out, out) >> (s1_turn << ceil_log2(WORD_BITS))
        )
        return m


class Walk(Component):
    """Step through the positions of a row-major map that is kept in ``slots`` rows.

    Members: ``config`` In; ``step`` In: next position; ``mark`` In with it: the position after
    becomes the one to ``back`` to (In with step); ``clear`` In. ``column``, ``row``, ``offset`` (words
    within a map) Out; ``complete`` Out: rows that end before the next position.
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
        place = data.StructLayout({"column": SIZE, "row": SIZE, "slot": SIZE, "base": ROW_ADDRESS})
        now, marked, after = Signal(place), Signal(place), Signal(place)
        row_ends, slot_ends, short_ends = Signal(), Signal(), Signal()

        m.d.comb += [
            row_ends.eq(now.column + 1 == c.pitch),
            slot_ends.eq(now.slot + 1 == c.slots),
            after.eq(now),
            after.column.eq(now.column + 1),
        ]
        with m.If(row_ends):
            m.d.comb += [
                after.column.eq(0),
                after.row.eq(now.row + 1),
                after.slot.eq(Mux(slot_ends, 0, now.slot + 1)),
                after.base.eq(Mux(slot_ends, 0, now.base + c.width)),
            ]
        m.d.comb += [
            self.inside.eq((now.column < c.width) & (now.row < c.height)),
            self.offset.eq(now.base + now.column),
            # Behind the last column of a row nothing is left but its gap.
            short_ends.eq(~row_ends & (now.column + 1 >= c.width)),
            self.complete.eq(
                Mux(after.row >= c.height, c.height, Mux(short_ends, after.row + 1, after.row))
            ),
        ]
        with m.If(self.clear):
            m.d.sync += [now.eq(0), marked.eq(0)]
        with m.Elif(self.step):
            m.d.sync += now.eq(Mux(self.back & ~self.mark, marked, after))
            with m.If(self.mark):
                m.d.sync += marked.eq(after)
        return m


class Drain(Component):
    """Requantiser, reorder buffer and partial sums.

    Members
    -------
    config : In stream of CONV_DRAIN.
    pixel In, shift Out, hand_over In, block In : the array's drain registers, see ``MacArray``.
    ready : Out; a block whose last tap is issued now finds the drain registers free.
    parameters, parameters_valid In; parameters_take, _rewind, _free Out : see ``WeightStore``.
    partials : In, beats of ``maps`` words; taken only with ``partial_in``.
    o : Out, beats of ``maps`` words: requantised rows (y, map, x), or partial sums.
    draining : Out, a result left the registers.

    Throughput one pixel (all maps) a cycle, 5 and 3 cycles a pixel with partial_in and
    partial_out; rows leave with ``min(maps, rest of the row)`` words a cycle. A block waits in the
    registers until the rows it touches have free slots. A row leaves when every block of the group
    with its last pixel has drained. A pass begins when the rows of the one before have left.
    """

    def __init__(self, grid: GridConfig):
        self.grid = grid
        super().__init__(
            {
                "config": In(stream.Signature(CONV_DRAIN.shape())),
                "pixel": In(data.ArrayLayout(signed(grid.acc_bits), grid.maps)),
                "shift": Out(1),
                "hand_over": In(1),
                "block": In(block_layout()),
                "ready": Out(1),
                "parameters": In(block_parameters(grid)),
                "parameters_valid": In(1),
                "parameters_take": Out(1),
                "parameters_rewind": Out(1),
                "parameters_free": Out(1),
                "partials": In(beat_stream(grid.maps)),
                "o": Out(beat_stream(grid.maps)),
                "draining": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config.payload
        m.submodules.reorder = self.reorder = Reorder(self.grid)
        m.submodules.packer = packer = Packer(self.grid.maps, self.grid.maps)
        m.submodules.walk = self.walk = Walk()
        self.rows_done, self.rows_sent = Signal(SIZE), Signal(SIZE)
        self.leaving = leaving = Signal()  # rows of the pass before are still in the packer

        block, parameters, step, block_ends = self._blocks(m)
        values, partial_beat = self._values(m, block, step)
        self._requantise(m, block, parameters, values, step, block_ends, platform)
        rows_end = self._send_rows(m, packer)

        with m.If(rows_end):
            m.d.sync += leaving.eq(1)
        with m.Elif(packer.o.valid & packer.o.ready & packer.o.payload.last):
            m.d.sync += leaving.eq(0)
        with m.If(c.partial_out & self.config.valid & ~leaving):
            m.d.comb += [self.o.payload.eq(partial_beat.payload), self.o.valid.eq(partial_beat.valid)]
        with m.Else():
            connect(m, packer.o, flipped(self.o))
        pass_ends = block_ends & block.ends_pass
        m.d.comb += self.config.ready.eq(Mux(c.partial_out, pass_ends, rows_end))
        return m

    def _blocks(self, m):
        """Accept a block, start it when there is room and its parameters are there, count it out."""
        grid, c = self.grid, self.config.payload
        pixels = grid.pixels
        held, block = Signal(block_layout()), Signal(block_layout())
        parameters = Signal(block_parameters(grid))
        running_block = Signal(block_layout())
        waiting, all_started = Signal(), Signal()
        self.running = running = Signal()
        self.left = left = Signal(range(pixels + 1))
        room, start, step, ends = Signal(), Signal(), Signal(), Signal()
        plain = Signal()
        last_row = Signal(SIZE)

        m.d.comb += [
            block.eq(Mux(self.hand_over, self.block, held)),
            last_row.eq(Mux(block.last_row < c.height, block.last_row, c.height - 1)),
            room.eq(c.partial_out | (last_row - self.rows_sent < c.slots)),
            start.eq(
                (self.hand_over | waiting)
                & self.config.valid
                & ~all_started
                & room
                & self.parameters_valid
            ),
            ends.eq(step & (left == 1)),
            plain.eq(~c.partial_in & ~c.partial_out),
            self.ready.eq(~waiting & (~running | (plain & (left <= HAND_OVER + 1)))),
            self.shift.eq(step),
            self.draining.eq(step),
            self.parameters_take.eq(start),
            self.parameters_rewind.eq(block.ends_group),
            self.parameters_free.eq(block.ends_pass),
        ]
        with m.If(step):
            m.d.sync += left.eq(left - 1)
        with m.If(ends):
            m.d.sync += running.eq(0)
        with m.If(self.hand_over):
            m.d.sync += [waiting.eq(~start), held.eq(self.block)]
        with m.If(start):
            m.d.sync += [
                waiting.eq(0),
                running.eq(1),
                left.eq(pixels),
                parameters.eq(self.parameters),
                running_block.eq(block),
                all_started.eq(block.ends_pass),
            ]
        with m.If(self.config.valid & self.config.ready):
            m.d.sync += all_started.eq(0)
        return running_block, parameters, step, ends

    def _values(self, m, block, step):
        """The pixel's sums, with the partial sums read; one pixel a step."""
        grid, c = self.grid, self.config.payload
        words = Signal(range(PARTIAL_WORDS + 2))  # partial words taken; one more cycle to add
        partial = [Signal(grid.acc_bits, name=f"partial{k}") for k in range(grid.maps)]
        summed = [Signal(signed(grid.acc_bits), name=f"summed{k}") for k in range(grid.maps)]
        values = [Signal(signed(grid.acc_bits), name=f"value{k}") for k in range(grid.maps)]
        take, have = Signal(), Signal()
        m.d.comb += [
            self.partials.ready.eq(self.running & c.partial_in & (words < PARTIAL_WORDS)),
            take.eq(self.partials.ready & self.partials.valid),
            have.eq(
                self.running
                & (~c.partial_in | (words == PARTIAL_WORDS + 1))
                & ~(c.partial_out & self.leaving)
            ),
        ]
        with m.If(step):
            m.d.sync += words.eq(0)
        with m.Elif(take | (words == PARTIAL_WORDS)):
            m.d.sync += words.eq(words + 1)
        for k in range(grid.maps):
            word = self.partials.payload.words[k].as_unsigned()
            with m.If(take):
                m.d.sync += partial[k].eq(Cat(partial[k][WORD_BITS:], word))
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
            step.eq(have & (~c.partial_out | (self.o.ready & last_word))),
        ]
        for k in range(grid.maps):
            m.d.comb += out.payload.words[k].eq(values[k].word_select(sent, WORD_BITS))
        with m.If(out.valid & self.o.ready):
            m.d.sync += sent.eq(Mux(last_word, 0, sent + 1))
        return values, out

    def _requantise(self, m, block, parameters, values, step, block_ends, platform):
        """Requantise every map, then write the pixel where the walk stands."""
        grid, c, walk = self.grid, self.config.payload, self.walk
        flags = data.StructLayout({"step": 1, "ends_block": 1, "ends_group": 1})
        stages = [Signal(flags, name=f"s{i}") for i in range(Requantise.LATENCY + 1)]
        m.d.comb += [
            stages[0].step.eq(step & ~c.partial_out),
            stages[0].ends_block.eq(block_ends),
            stages[0].ends_group.eq(block.ends_group),
        ]
        m.d.sync += [after.eq(before) for before, after in zip(stages, stages[1:], strict=False)]
        moving = Signal()
        m.d.comb += moving.eq(Cat(stage.step for stage in stages[:-1]).any())
        for k in range(grid.maps):
            exit_ = Requantise()
            place(m, f"requantise{k}", "requantise", exit_, platform)
            bias = Cat(parameters.bias_low[k], parameters.bias_middle[k], parameters.bias_high[k])
            m.d.comb += [
                exit_.en.eq(moving),
                exit_.acc.eq(values[k]),
                exit_.bias.eq(bias.as_signed()),
                exit_.m.eq(parameters.m[k]),
                exit_.s.eq(parameters.s[k]),
                exit_.zero.eq(parameters.zero[k]),
                exit_.narrow.eq(c.narrow),
                self.reorder.write_words[k].eq(exit_.out),
            ]

        end = stages[-1]
        map_offset = Signal(ROW_ADDRESS)
        passed = Signal()
        m.d.comb += [
            passed.eq(self.config.valid & self.config.ready),
            walk.config.eq(c),
            walk.clear.eq(passed),
            walk.step.eq(end.step),
            walk.back.eq(end.ends_block),
            walk.mark.eq(end.ends_block & end.ends_group),
            self.reorder.map_step.eq(c.map_step),
            self.reorder.write_enable.eq(end.step & walk.inside),
            self.reorder.write_address.eq(map_offset + walk.offset),
        ]
        with m.If(passed):
            m.d.sync += [map_offset.eq(0), self.rows_done.eq(0)]
        with m.Elif(end.step & end.ends_block):
            next_block = map_offset + (c.map_step << ceil_log2(grid.maps))
            m.d.sync += map_offset.eq(Mux(end.ends_group, 0, next_block))
            with m.If(end.ends_group):
                m.d.sync += self.rows_done.eq(walk.complete)

    def _send_rows(self, m, packer):
        """Read complete rows back, map by map, ``maps`` words a cycle. Return: the last has left."""
        grid, c = self.grid, self.config.payload
        x, map_ = Signal(SIZE), Signal(SIZE)
        slot, slot_base = Signal(SIZE), Signal(ROW_ADDRESS)
        map_base = Signal(ROW_ADDRESS)  # of the present map and row
        rest, count = Signal(SIZE), Signal(range(grid.maps + 1))
        row_ends, map_ends, all_ends, slot_ends = Signal(), Signal(), Signal(), Signal()
        issue, move = Signal(), Signal()
        m.d.comb += [
            rest.eq(c.width - x),
            count.eq(Mux(rest < grid.maps, rest, grid.maps)),
            row_ends.eq(rest <= grid.maps),
            map_ends.eq(row_ends & (map_ + 1 == c.maps)),
            all_ends.eq(map_ends & (self.rows_sent + 1 == c.height)),
            slot_ends.eq(slot + 1 == c.slots),
        ]

        s1_valid, s1_count, s1_last = Signal(), Signal.like(count), Signal()
        m.d.comb += [
            move.eq(~s1_valid | packer.i.ready),
            issue.eq(move & self.config.valid & (self.rows_sent != self.rows_done)),
            self.reorder.read_enable.eq(issue),
            self.reorder.read_address.eq(map_base + x),
            packer.i.valid.eq(s1_valid),
            packer.i.payload.words.eq(self.reorder.read_words),
            packer.i.payload.count.eq(s1_count),
            packer.i.payload.last.eq(s1_last),
        ]
        with m.If(move):
            m.d.sync += [s1_valid.eq(issue), s1_count.eq(count), s1_last.eq(all_ends)]

        next_slot = Signal(ROW_ADDRESS)
        m.d.comb += next_slot.eq(Mux(slot_ends, 0, slot_base + c.width))
        with m.If(issue):
            m.d.sync += x.eq(Mux(row_ends, 0, x + grid.maps))
            with m.If(map_ends):
                m.d.sync += [
                    map_.eq(0),
                    slot.eq(Mux(slot_ends | all_ends, 0, slot + 1)),
                    slot_base.eq(Mux(all_ends, 0, next_slot)),
                    map_base.eq(Mux(all_ends, 0, next_slot)),
                    self.rows_sent.eq(Mux(all_ends, 0, self.rows_sent + 1)),
                ]
            with m.Elif(row_ends):
                m.d.sync += [map_.eq(map_ + 1), map_base.eq(map_base + c.map_step)]
        return issue & all_ends
