"""Row input of the convolver: a banked buffer that rows arrive in, ring by ring.

``row_banks`` memories one word wide let the array read any ``pixels`` consecutive words in one
cycle, and the rows input store a whole beat. Where words go: docs/machine.md, "Rows packet".
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from neuflow.blocks.ram import Ram
from neuflow.blocks.streams import WORD_BITS, beat_stream
from neuflow.grid import GridConfig
from neuflow.layout import CONV_ROWS, ROW_ADDRESS, SIZE


def bank_address(grid: GridConfig) -> data.StructLayout:
    """Return the layout of an access to consecutive words: banks from ``rotate`` on use row
    ``row``, those below it row ``wrapped``.
    """
    rows = ceil_log2(grid.row_words // grid.row_banks)
    return data.StructLayout(
        {"rotate": unsigned(ceil_log2(grid.row_banks)), "row": unsigned(rows), "wrapped": unsigned(rows)}
    )


def locate(m: Module, grid: GridConfig, linear, position, ring):
    """Return the ``bank_address`` of word ``position`` of the ring that begins at ``linear``."""
    where = Signal(bank_address(grid), name="where")
    bank_bits = ceil_log2(grid.row_banks)
    address = Signal(ceil_log2(grid.row_words), name="address")
    ring_end = Signal(len(address) + 1, name="ring_end")
    following = Signal(len(where.row), name="following")
    m.d.comb += [
        address.eq(linear + position),
        ring_end.eq(linear + ring),
        following.eq(address[bank_bits:] + 1),
        where.rotate.eq(address[:bank_bits]),
        where.row.eq(address[bank_bits:]),
        where.wrapped.eq(
            Mux(
                (ring != 0) & (following == ring_end[bank_bits:-1]),
                linear[bank_bits : len(address)],
                following,
            )
        ),
    ]
    return where


def advance(value, step, ring):
    """Return ``(value + step) mod ring`` for ``value, step < ring``; no modulo where ring is 0."""
    total = value + step
    return Mux((ring != 0) & (total >= ring), total - ring, total)[:ROW_ADDRESS]


class RowStore(Component):
    """Row buffer with its writer.

    Members
    -------
    i : In, beats of ``bus_words`` words: rows packets. Taken only under a configuration.
    config : In stream of CONV_ROWS.
    listening, source : Out; the columns' rows line that is listened to.
    stored : Out, row records of the array's present pass that are complete.
    released : In, row records of that pass that the array no longer needs.
    pass_done : In, pulse: the array has read all it needs of its pass.
    read, read_enable : In ``bank_address``; words : Out, ``row_banks`` words as banks hold them,
        one cycle later.

    Throughput: ``min(bus_words, rest of the row of one channel, rest of the beat)`` words a
    cycle, one word with ``scatter``. Stalls while the ring is full, or while the region belongs to
    an earlier pass. A word can be read 2 cycles after it was taken; between two packets lies one
    cycle.
    """

    def __init__(self, grid: GridConfig):
        self.grid = grid
        super().__init__(
            {
                "i": In(beat_stream(grid.bus_words)),
                "config": In(stream.Signature(CONV_ROWS.shape())),
                "listening": Out(1),
                "source": Out(3),
                "stored": Out(SIZE),
                "released": In(SIZE),
                "pass_done": In(1),
                "read": In(bank_address(grid)),
                "read_enable": In(1),
                "words": Out(data.ArrayLayout(signed(WORD_BITS), grid.row_banks)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        grid, c = self.grid, self.config.payload
        lanes = grid.bus_words

        # Passes that are stored whole and not yet done by the array: 0, 1 or 2.
        lead = Signal(2)
        finished = Signal()
        m.d.sync += lead.eq(lead + finished - self.pass_done)

        # Position in the packet.
        active = Signal()
        x, channel, record = Signal(SIZE + 4), Signal(SIZE), Signal(SIZE)
        taken = Signal(range(lanes))  # words of the present beat that are stored
        m.d.comb += [
            self.listening.eq(active),
            self.source.eq(c.source),
            self.stored.eq(Mux(lead == 0, Mux(active, record, 0), (1 << SIZE) - 1)),
        ]

        # May a word be stored, and how many at once?
        room, count = Signal(), Signal(range(lanes + 1))
        rest_of_row, rest_of_beat = Signal(SIZE + 4), Signal(range(lanes + 1))
        in_use = Signal(signed(SIZE + 1))
        store = Signal()
        m.d.comb += [
            in_use.eq(record - Mux(lead == 0, self.released, 0)),
            # Strides beyond the kernel free rows that are yet to come: in_use is negative then.
            room.eq((in_use < c.ring_rows) & (lead <= c.ahead)),
            rest_of_row.eq(c.width - x),
            rest_of_beat.eq(self.i.payload.count - taken),
            count.eq(Mux(rest_of_row < rest_of_beat, rest_of_row, rest_of_beat)),
            store.eq(active & room & self.i.valid),
        ]
        with m.If(c.scatter):
            m.d.comb += count.eq(1)
        row_ends, beat_ends = Signal(), Signal()
        m.d.comb += [
            row_ends.eq(rest_of_row == count),
            beat_ends.eq(rest_of_beat == count),
            self.i.ready.eq(active & room & beat_ends),
        ]
        with m.If(store):
            m.d.sync += taken.eq(Mux(beat_ends, 0, taken + count))

        self._walk(m, active, store, row_ends, count, x, channel, record, finished)
        where = self._where(m)
        self._write(m, store, count, taken, where)
        return m

    def _walk(self, m, active, store, row_ends, count, x, channel, record, finished):
        """Step through x, channel and record; keep the addresses in step."""
        c = self.config.payload
        self.linear_row = Signal(ROW_ADDRESS)  # base + phase in y
        self.linear = Signal(ROW_ADDRESS)  # the same + channel
        self.phase_offset = Signal(ROW_ADDRESS)  # phase in x
        self.row_position = Signal(ROW_ADDRESS)
        self.position = Signal(ROW_ADDRESS)
        phase_x, phase_y = Signal(4), Signal(4)
        last_phase_x, last_phase_y = Signal(), Signal()
        last_channel, last_record = Signal(), Signal()
        next_row = Signal(ROW_ADDRESS)
        next_linear_row = Signal(ROW_ADDRESS)
        m.d.comb += [
            last_phase_x.eq(phase_x + 1 == c.stride),
            last_phase_y.eq(phase_y + 1 == c.stride),
            last_channel.eq(channel + 1 == c.channels),
            last_record.eq(record + 1 == c.rows),
            next_row.eq(
                Mux(last_phase_y, advance(self.row_position, c.pitch, c.ring_words), self.row_position)
            ),
            next_linear_row.eq(Mux(last_phase_y, c.base, self.linear_row + c.phase_y_step)),
            finished.eq(store & row_ends & last_channel & last_record),
            self.config.ready.eq(finished),
        ]

        with m.If(~active):
            m.d.sync += [
                active.eq(self.config.valid),
                self.linear_row.eq(c.base),
                self.linear.eq(c.base),
                self.row_position.eq(0),
                self.position.eq(0),
                record.eq(0),
            ]
        with m.Elif(store & ~row_ends):
            step = Mux(c.scatter, c.x_step, count)
            m.d.sync += x.eq(x + count)
            with m.If(c.scatter & ~last_phase_x):
                m.d.sync += [
                    phase_x.eq(phase_x + 1),
                    self.phase_offset.eq(self.phase_offset + c.phase_x_step),
                ]
            with m.Else():
                m.d.sync += [
                    phase_x.eq(0),
                    self.phase_offset.eq(0),
                    self.position.eq(advance(self.position, step, c.ring_words)),
                ]
        with m.Elif(store & ~last_channel):
            m.d.sync += [
                x.eq(0),
                phase_x.eq(0),
                self.phase_offset.eq(0),
                channel.eq(channel + 1),
                self.linear.eq(self.linear + c.channel_step),
                self.position.eq(self.row_position),
            ]
        with m.Elif(store):
            m.d.sync += [
                x.eq(0),
                phase_x.eq(0),
                self.phase_offset.eq(0),
                channel.eq(0),
                record.eq(record + 1),
                phase_y.eq(Mux(last_phase_y | last_record, 0, phase_y + 1)),
                self.linear_row.eq(next_linear_row),
                self.linear.eq(next_linear_row),
                self.row_position.eq(next_row),
                self.position.eq(next_row),
                active.eq(~last_record),
            ]

    def _where(self, m):
        linear = Signal(ROW_ADDRESS)
        m.d.comb += linear.eq(self.linear + self.phase_offset)
        return locate(m, self.grid, linear, self.position, self.config.payload.ring_words)

    def _write(self, m, store, count, taken, where):
        """Rotate the beat to its banks (registered), then write it."""
        grid = self.grid
        lanes, banks = grid.bus_words, grid.row_banks
        turn = Signal(range(lanes))
        words = Signal(lanes * WORD_BITS)
        beat = self.i.payload.words.as_value()
        at = Signal(bank_address(grid))
        number = Signal(range(lanes + 1))
        m.d.comb += turn.eq(where.rotate - taken)
        m.d.sync += [
            words.eq(Cat(beat, beat) >> ((lanes - turn)[: ceil_log2(lanes)] << ceil_log2(WORD_BITS))),
            at.eq(where),
            number.eq(Mux(store, count, 0)),
        ]
        for bank in range(banks):
            ram = Ram(WORD_BITS, grid.row_words // banks)
            m.submodules[f"bank{bank}"] = ram
            distance = Signal(range(banks), name=f"distance{bank}")
            lane = bank % lanes
            m.d.comb += [
                distance.eq(bank - at.rotate),
                ram.write_enable.eq(distance < number),
                ram.write_address.eq(Mux(bank < at.rotate, at.wrapped, at.row)),
                ram.write_data.eq(words[lane * WORD_BITS : (lane + 1) * WORD_BITS]),
                ram.read_enable.eq(self.read_enable),
                ram.read_address.eq(Mux(bank < self.read.rotate, self.read.wrapped, self.read.row)),
                self.words[bank].eq(ram.read_data),
            ]
