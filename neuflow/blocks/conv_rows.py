"""Row input of the convolver: a banked buffer that rows arrive in, ring by ring.

Where words go: docs/machine.md, "Rows packet"; the last stages: ``conv_rows_write``; the banks
themselves: ``conv_banks``.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import ceil_log2

from neuflow.blocks.conv_banks import (
    Locator,
    RowBanks,
    advance,
    write_address,
)
from neuflow.blocks.conv_rows_write import first_stretch, write_rows, write_words
from neuflow.blocks.gate import add_gated, fires, stay_awake
from neuflow.blocks.loops import loop
from neuflow.blocks.place import place
from neuflow.blocks.streams import WORD_BITS, Slice, beat_layout, beat_stream
from neuflow.grid import GridConfig
from neuflow.layout import CONV_ROWS, ROW_ADDRESS, SIZE, Scatter

JOINED = (Scatter.ROW, Scatter.BOTH_PHASES, Scatter.ROWS)
"""Ways to store rows in which what is missing of a beat is taken from the next one."""


class RowStore(Component):
    """Row buffer: the banks and their writer; see :class:`RowWriter` for what is not said here.

    Members: ``i``, ``config``, ``listening``, ``source``, ``stored``, ``released``, ``pass_done`` of the
    writer; ``read``, ``read_enable`` In, ``words`` Out of :class:`RowBanks`.
    """

    def __init__(self, grid: GridConfig):
        self.writer, self.banks = RowWriter(grid), RowBanks(grid)
        writer, banks = self.writer.signature.members, self.banks.signature.members
        outside = ("i", "config", "listening", "source", "stored", "released", "pass_done")
        super().__init__(
            {name: writer[name] for name in outside}
            | {name: banks[name] for name in ("read", "read_enable", "words")}
        )

    def elaborate(self, platform):
        m = Module()
        writer, banks = self.writer, self.banks
        add_gated(m, "writer", writer, platform)
        add_gated(m, "banks", banks, platform)
        connect(m, flipped(self.i), writer.i)
        connect(m, flipped(self.config), writer.config)
        m.d.comb += [
            *(getattr(self, n).eq(getattr(writer, n)) for n in ("listening", "source", "stored")),
            *(getattr(writer, n).eq(getattr(self, n)) for n in ("released", "pass_done")),
            *(getattr(banks, n).eq(getattr(writer, n)) for n in ("enables", "at", "beat")),
            *(getattr(banks, n).eq(getattr(self, n)) for n in ("read", "read_enable")),
            self.words.eq(banks.words),
        ]
        return m


class RowWriter(Component):
    """Writer of the row buffer.

    Members
    -------
    i : In, beats of ``bus_words`` words: rows packets, one or two for a configuration, and taken only
        under it.
    config : In stream of CONV_ROWS.
    listening, source : Out; the columns' rows line that is listened to.
    stored : Out, row records of the array's present pass that are complete.
    released : In, row records of that pass that the array no longer needs.
    pass_done : In, pulse: the array has read all it needs of its pass.
    enables, at, beat : Out, see ``RowBanks``. awake : Out.

    A configuration with ``rows`` = 0 takes no packet: the pass reads what the one before stored.

    Throughput: ``min(bus_words, rest of the row of one channel)`` words a cycle with
    ``Scatter.ROW``, of two beats where the next one is here; with ``Scatter.ROWS`` the rest and the
    next channel's row, likewise; with ``Scatter.BOTH_PHASES`` as with ROW, but it waits for the next
    beat where the row goes on; else no more than the rest of the beat, in as many cycles as there are
    phases among them with ``Scatter.PHASES``; one word with ``Scatter.WORD``.
    Stalls while the ring is full, or while the region belongs to an earlier pass. A record is told
    as ``stored`` 2 cycles after its last words were counted, and those are written ``WRITE`` cycles
    after they were: whoever sees ``stored`` must not read before.
    Between two packets lie about 8 cycles without a word.

    Stages: 0 count, 1 step, 2 walk, 3 sum of the bases, 4 and 5 bank address, 6 choose, 7 write.
    """

    WRITE = 7
    SETTLE = WRITE + 4
    """Cycles from what was counted last to the last register; the room follows sooner."""

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
                "enables": Out(grid.row_banks),
                "at": Out(write_address(grid)),
                "beat": Out(grid.bus_bits),
                "awake": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config.payload

        # Passes that are stored whole and not yet done by the array: 0, 1 or 2. A resident pass
        # counts as stored as soon as it would be allowed to store.
        lead = Signal(2)
        finished = Signal()
        m.d.sync += lead.eq(lead + finished - self.pass_done)

        # A configuration leaves when the stages behind the count are past it.
        active = Signal()
        starts = Signal()
        ends = Signal()
        flushing = Signal(4)
        m.d.sync += flushing.eq(Cat(ends, flushing))
        m.d.comb += [
            starts.eq(~active & self.config.valid & ~flushing.any()),
            self.config.ready.eq(flushing[-1]),
        ]
        with m.If(starts):
            m.d.sync += active.eq(1)
        with m.Elif(finished):
            m.d.sync += active.eq(0)

        store = Signal()
        record = Signal(SIZE)
        self.pairs = Signal(name="pairs")
        self.by_rows = Signal(name="by_rows")
        m.d.sync += [
            self.pairs.eq(c.scatter == Scatter.BOTH_PHASES),
            self.by_rows.eq(c.scatter == Scatter.ROWS),
        ]
        last_channel = Signal()
        record_ends = Signal()
        intake = self._intake(m, starts)
        beat = self._take(m, intake, active, store, last_channel)
        self._channels(m, active, store, beat, last_channel, record_ends)
        last_record = loop(m, "record", c.rows, ~active, record_ends)
        resident = Signal()
        allowed = Signal()
        m.d.sync += [resident.eq(c.rows == 0), allowed.eq(lead <= c.ahead)]
        # What is stored is known late in a cycle, so it counts a cycle later: until then all records of
        # the pass are told one by one, which is the same to the array.
        m.d.comb += [
            ends.eq(Mux(resident, active & allowed, record_ends & last_record)),
            finished.eq(Mux(resident, ends, flushing[0])),
        ]
        with m.If(flushing[0]):  # as long as the pass leads, nobody sees it
            m.d.sync += record.eq(0)
        with m.Elif(record_ends):
            m.d.sync += record.eq(record + 1)
        m.d.sync += self.stored.eq(Mux(lead == 0, record, (1 << SIZE) - 1))

        # Room for the record under way. Strides beyond the kernel free rows yet to come.
        room = Signal()
        limit = Signal(SIZE + 1)
        m.d.sync += [
            limit.eq(c.ring_rows + Mux(lead == 0, self.released, 0)),
            room.eq(
                active
                & (lead <= c.ahead)
                & Mux(record_ends, record + 1 < limit, record < limit)
            ),
        ]
        m.d.comb += store.eq(room & beat["valid"])
        beat["record_ends"] = record_ends
        self._place(m, platform, active, store, beat)

        # Rows that the array frees make room.
        freed = Signal.like(self.released)
        m.d.sync += freed.eq(self.released)
        stay_awake(
            m, self.awake, starts, finished, self.pass_done, store, beat["moves"],
            self.released != freed, settle=self.SETTLE,
        )  # fmt: skip
        return m

    def _channels(self, m, active, store, beat, last, record_ends):
        """Count the channels of a record, one or two a cycle; drive ``last`` and ``record_ends``."""
        c = self.config.payload
        left = Signal(SIZE)
        last_but_one = Signal()
        ends, both_end = store & beat["row_ends"], beat["both_end"]
        m.d.comb += record_ends.eq(ends & (last | (last_but_one & both_end)))

        def go_on(value, done):  # compared before it is lessened
            return [
                left.eq(value - done), last.eq(value == done + 1), last_but_one.eq(value == done + 2)
            ]  # fmt: skip

        with m.If(~active | record_ends):
            m.d.sync += go_on(c.channels, 0)
        with m.Elif(ends & both_end):
            m.d.sync += go_on(left, 2)
        with m.Elif(ends):
            m.d.sync += go_on(left, 1)

    def _intake(self, m, starts):
        """Let the packets of a configuration in; return the register that their beats come to."""
        m.submodules.slice = intake = Slice(beat_layout(self.grid.bus_words))
        opened = Signal()
        follows = Signal()  # the first of two packets comes in
        m.d.comb += [
            self.listening.eq(opened),
            self.source.eq(self.config.payload.source),
            self.i.ready.eq(opened & intake.i.ready),
            intake.i.valid.eq(opened & self.i.valid),
            intake.i.payload.eq(self.i.payload),
        ]
        with m.If(starts):
            m.d.sync += [opened.eq(self.config.payload.rows != 0), follows.eq(self.config.payload.two)]
        with m.Elif(self.i.valid & self.i.ready & self.i.payload.last):
            m.d.sync += [opened.eq(follows), follows.eq(0)]
        return intake

    def _take(self, m, intake, active, store, last_channel):
        """Take beats of a packet; count how many words may be stored at once.

        All counts are one less, so that they need no more bits than a lane's number. A *stretch* is
        what a beat holds of one row; its phases are stored one after another, a *lap* each. Where a
        row is stored as it comes, what is missing of a stretch is taken from the next beat: that one
        is whole, or the packet, and so the row, ends in it. Both phases at once must have it, so that
        all stretches of a row begin with phase 0. Of two channels' rows at once a stretch is what a beat
        holds of both, where they are of one record.
        """
        grid, c = self.grid, self.config.payload
        lanes, lane_bits = grid.bus_words, ceil_log2(grid.bus_words)
        valid = Signal()
        words = Signal(lanes * WORD_BITS, reset_less=True)
        taken = Signal(lane_bits, reset_less=True)
        left = Signal(lane_bits, reset_less=True)
        # The rest of the row: whole beats beyond the last `low` + 1 words.
        high = Signal(SIZE + 4 - lane_bits)
        low = Signal(lane_bits)
        more = Signal()
        width = Signal(SIZE + 4)
        count = Signal(lane_bits)
        row_ends = Signal()
        both_end = Signal()  # the next row as well
        beat_ends = Signal()
        by_word = Signal()
        by_row = Signal()
        last_lap = Signal()
        # The row, all that may go ends in the beat; words of the next beat may be, are taken.
        row_fits = Signal()
        fits = Signal()
        extends = Signal()
        joins = Signal()
        # The first beat comes cycles after the configuration.
        m.d.sync += [
            by_word.eq(c.scatter == Scatter.WORD),
            by_row.eq(Cat(c.scatter == way for way in JOINED).any()),
        ]
        rest = Signal(signed(lane_bits + 1))  # negative: it is borrowed from the whole beats
        with_next, most, most_more, both, begun = self._next_row(
            m, last_channel, low, more, count, rest
        )
        m.d.comb += [
            width.eq(c.width - 1),
            row_fits.eq(~more & (low <= left)),
            fits.eq(~most_more & (most <= left)),
            extends.eq(by_row & valid & intake.o.valid),
            joins.eq(extends & ~fits),
            row_ends.eq(last_lap & Mux(by_word, ~more & (low == 0), row_fits | (~more & extends))),
            both_end.eq(with_next & ~most_more & ((most <= left) | extends)),
            beat_ends.eq(last_lap & Mux(by_word, left == 0, most_more | (left <= most))),
            count.eq(
                Mux(by_word, 0, Mux(fits, most, Mux(joins, Mux(most_more, lanes - 1, most), left)))
            ),
            intake.o.ready.eq(~valid | (store & beat_ends)),
        ]
        following = intake.o.payload
        ahead = Signal(lane_bits)
        coming = following.words.as_value()
        unused = Signal(signed(lane_bits + 1))
        m.d.comb += [
            ahead.eq(Mux(joins, count - left, 0)),
            unused.eq(following.count - 1 - ahead),
        ]
        # A stretch that is stored in laps is never joined to the next beat's words, nor row's.
        laps = Mux(row_fits, low, left)
        part = self._laps(m, active, store, laps, count, row_ends, last_lap)
        with m.If(intake.o.ready):
            m.d.sync += [
                valid.eq(intake.o.valid & (unused >= 0)),
                words.eq(coming),
                left.eq(unused),
                taken.eq(ahead),
            ]
        with m.Elif(store & last_lap):
            m.d.sync += [left.eq(left - count - 1), taken.eq(taken + count + 1)]
        m.d.comb += rest.eq(low - count - 1)
        with m.If(~active | (store & row_ends & (~with_next | both_end))):
            m.d.sync += [
                Cat(low, high).eq(width),
                more.eq(width[lane_bits:] != 0),
                both.eq(width[:lane_bits] + c.width[:lane_bits]),
            ]
        with m.Elif(store & row_ends):
            m.d.sync += [
                Cat(low, high).eq(begun["words"]), more.eq(begun["more"]), both.eq(begun["both"])
            ]  # fmt: skip
        with m.Elif(store & last_lap):
            m.d.sync += [low.eq(rest), both.eq(begun["both_of_rest"])]
            with m.If(rest < 0):
                m.d.sync += [high.eq(high - 1), more.eq(high != 1)]
        words_now = Cat(
            Mux(joins & (lane < taken), *(w.word_select(lane, WORD_BITS) for w in (coming, words)))
            for lane in range(lanes)
        )
        return {
            "valid": valid & (~self.pairs | fits | extends), "words": words_now, "taken": taken,
            "rest": low, "row_ends": row_ends, "both_end": both_end,
            "moves": fires(intake.i, intake.o), **part,
        }  # fmt: skip

    def _next_row(self, m, last_channel, low, more, count, rest):
        """Add the next channel's row to what is left of one, where rows of two channels go at once.

        Return whether there is such a row; all that may go at once, said as ``low`` and ``more`` are;
        ``both``, the sum of ``low`` and a row's last words, a register for the caller to move along
        with ``low``, for it would be added in front of all that is compared; and what is left, said
        likewise, when ``count`` + 1 words have ended the row, or ``rest`` is left of it.
        """
        c, lanes = self.config.payload, self.grid.bus_words
        lane_bits = ceil_log2(lanes)
        with_next = Signal()
        last_words = c.width[:lane_bits]
        both = Signal(lane_bits + 1)
        left = Signal(signed(lane_bits + 2))  # negative: it is borrowed from the whole beats
        both_left = Signal(signed(lane_bits + 3))
        # Whole beats of a row, or one less, and whether there are any.
        beats = Signal(len(c.width) - lane_bits)
        some = Signal()
        beats_less = Signal.like(beats)
        some_less = Signal()
        m.d.sync += [
            beats.eq(c.width[lane_bits:]),
            some.eq(beats != 0),
            beats_less.eq(beats - 1),
            some_less.eq(beats_less != 0),
        ]
        m.d.comb += [
            with_next.eq(self.by_rows & ~last_channel),
            left.eq(both - count - 1),
            both_left.eq((both + last_words) - count - 1),
        ]
        most = Mux(with_next, both[:lane_bits], low)
        most_more = more | (with_next & (both[-1] | some))
        begun = {
            "words": Cat(left[:lane_bits], Mux(left < 0, beats_less, beats)),
            "more": Mux(left < 0, some_less, some),
            # A beat more where one was borrowed.
            "both": Cat(both_left[:lane_bits], both_left[lane_bits] ^ (left < 0)),
            "both_of_rest": Cat(left[:lane_bits], left[lane_bits] ^ (rest < 0)),
        }
        return with_next, most, most_more, both, begun

    def _laps(self, m, active, store, most_laps, count, row_ends, last_lap):
        """Go through the phases of a stretch of ``most_laps`` + 1 words, if need be in so many laps.

        If all its words are stored at once, those are ``count`` + 1.

        Return of the lap: ``number`` of words to store, ``first`` of them in the stretch, their
        ``phase``, and the ``step`` in their ring from here to the words of the next lap.
        """
        c, lanes = self.config.payload, self.grid.bus_words
        lane_bits = ceil_log2(lanes)
        most = lanes // 2  # words of one phase in a beat
        phases = Signal()
        alone = Signal()
        last_phase = Signal(4)
        m.d.sync += [
            phases.eq(c.scatter == Scatter.PHASES),
            alone.eq(c.scatter == Scatter.FIRST_PHASE),
            last_phase.eq(c.stride - 1),
        ]
        # The phase of the stretch's first word, and how far the first of phase 0 is.
        begins = Signal(4)
        behind = Signal(4)
        m.d.comb += behind.eq(Mux(begins == 0, 0, c.stride - begins))
        multiples = [Signal(8, name=f"strides{k}") for k in range(most + 1)]
        m.d.sync += [multiple.eq(k * c.stride) for k, multiple in enumerate(multiples)]

        lap = Signal(lane_bits)
        first = Signal(4)
        at = Signal(5)
        wrapped = Signal()
        on = Signal(range(most + 1))
        end = Signal(6)
        # From the strides' multiples to the end of the stretch; negative where it does not come there.
        beyond = [Signal(signed(9), name=f"beyond{k}") for k in range(most + 1)]
        number = Signal(lane_bits + 1)
        m.d.comb += [
            last_lap.eq(~phases | (lap == most_laps) | (lap == last_phase)),
            first.eq(Mux(phases, lap, behind)),
            at.eq(begins + lap),
            wrapped.eq(at >= c.stride),
            end.eq(begins + most_laps + 1),
            *(past.eq(end - multiple) for past, multiple in zip(beyond, multiples, strict=True)),
            # Strides that the stretch goes beyond, from the beginning of the one it begins in.
            on.eq(sum(past >= 0 for past in beyond[1:])),
            number.eq(sum(first + multiple <= most_laps for multiple in multiples[:most])),
        ]
        with m.If(~active | (store & row_ends)):
            m.d.sync += begins.eq(0)
        with m.Elif(store & last_lap):
            for past in beyond:  # the last that is not negative stays
                with m.If(past >= 0):
                    m.d.sync += begins.eq(past)
        with m.If(store):
            m.d.sync += lap.eq(Mux(last_lap, 0, lap + 1))

        several = phases | alone
        return {
            "first": Mux(several, first, 0),
            "number": Mux(several, number, count + 1),
            "phase": Mux(phases, Mux(wrapped, at - c.stride, at), 0),
            "step": Mux(
                phases,
                Mux(last_lap, on - wrapped, at + 1 == c.stride),
                Mux(self.pairs, most, Mux(alone, number, count + 1)),
            ),
        }

    def _place(self, m, platform, active, store, beat):
        """Walk through the ring with what is stored, then write it."""
        grid, c = self.grid, self.config.payload
        lane_bits = ceil_log2(grid.bus_words)
        flags = ("row_ends", "both_end", "record_ends")
        piece = data.StructLayout(
            {"number": lane_bits + 1, "taken": lane_bits, "words": grid.bus_bits}
            | {"first": 4, "phase": 4, "step": lane_bits + 1, "rest": lane_bits}
            | dict.fromkeys(flags, 1)
        )
        stages = range(self.WRITE)
        valid = [store] + [Signal(name=f"s{k}_valid") for k in stages[1:]]
        pieces = [Signal(piece, name=f"s{k}_piece", reset_less=True) for k in stages]
        m.d.comb += [pieces[0][name].eq(beat[name]) for name in piece.members]
        for k in stages[1:]:
            m.d.sync += valid[k].eq(valid[k - 1])
            with m.If(valid[k - 1]):
                m.d.sync += pieces[k].eq(pieces[k - 1])

        step = Signal(ROW_ADDRESS, reset_less=True)
        step_less = Signal(signed(ROW_ADDRESS + 1), reset_less=True)
        x_step_less = Signal(signed(ROW_ADDRESS + 1))
        offset = Signal(ceil_log2(grid.row_words), reset_less=True)
        # To the channel that comes behind, and what is stored of its row already.
        channels_step = Signal(ROW_ADDRESS, reset_less=True)
        begun = Signal(lane_bits, reset_less=True)
        by_word = Signal()
        m.d.sync += [
            channels_step.eq(c.channel_step << pieces[1].both_end),
            begun.eq(Mux(self.by_rows & ~pieces[1].both_end, pieces[1].number - pieces[1].rest - 1, 0)),
            by_word.eq(c.scatter == Scatter.WORD),
            x_step_less.eq(c.x_step - c.ring_words),
            step.eq(Mux(by_word, c.x_step, pieces[1].step)),
            step_less.eq(Mux(by_word, x_step_less, pieces[1].step - c.ring_words)),
            offset.eq(pieces[1].phase * c.phase_x_step[: len(offset)]),
        ]
        locator = Locator(grid)
        place(m, "locator", "locator", locator, platform)
        begin = ~active & ~valid[1] & ~valid[2]
        steps = (step, step_less, channels_step, begun)
        linear, position = self._walk(m, begin, valid[2], pieces[2], *steps)
        m.d.sync += [locator.linear.eq(linear + offset), locator.position.eq(position)]
        m.d.comb += locator.ring.eq(c.ring_words)
        first = first_stretch(m, self, pieces[4], locator)
        write_words(m, self, valid[4], pieces, first, locator)
        write_rows(m, self, first, locator)

    def _walk(self, m, begin, store, piece, step, step_less, channels_step, begun):
        """Step through x, channel and record; return (beginning of the ring, position in it)."""
        c = self.config.payload
        linear_row = Signal(ROW_ADDRESS)  # base + phase in y
        linear = Signal(ROW_ADDRESS)  # the same + channel
        row_position = Signal(ROW_ADDRESS)
        position = Signal(ROW_ADDRESS)
        phase_y = Signal(4)
        last_phase_y = Signal()
        next_row = Signal(ROW_ADDRESS)
        next_linear_row = Signal(ROW_ADDRESS)
        wraps = Signal()
        pitch_less = Signal(signed(ROW_ADDRESS + 1))
        m.d.sync += [wraps.eq(c.ring_words != 0), pitch_less.eq(c.pitch - c.ring_words)]
        after_row = advance(m, "after_row", row_position, c.pitch, pitch_less, wraps)
        after = advance(m, "after", position, step, step_less, wraps)
        m.d.comb += [
            last_phase_y.eq((c.scatter == Scatter.FIRST_PHASE) | (phase_y + 1 == c.stride)),
            next_row.eq(Mux(last_phase_y, after_row, row_position)),
            next_linear_row.eq(Mux(last_phase_y, c.base, linear_row + c.phase_y_step)),
        ]
        with m.If(store):
            m.d.sync += position.eq(after)
        with m.If(begin):
            m.d.sync += [
                linear_row.eq(c.base),
                linear.eq(c.base),
                row_position.eq(0),
                position.eq(0),
                phase_y.eq(0),
            ]
        with m.Elif(store & piece.row_ends & ~piece.record_ends):
            m.d.sync += [linear.eq(linear + channels_step), position.eq(row_position + begun)]
        with m.Elif(store & piece.record_ends):
            m.d.sync += [
                phase_y.eq(Mux(last_phase_y, 0, phase_y + 1)),
                linear_row.eq(next_linear_row),
                linear.eq(next_linear_row),
                row_position.eq(next_row),
                position.eq(next_row),
            ]
        return linear, position
