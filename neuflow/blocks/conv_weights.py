"""Weight input of the convolver: a ring of weights and a ring of map parameters.

A packet brings the parameters of every map block, then the weights (docs/machine.md, "Weights
packet"); what parameters mean is the drain's concern. The packets of later passes fill what the
present one leaves free, so loading overlaps computing.
"""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from neuflow.blocks.gate import add_gated, stay_awake
from neuflow.blocks.parameters_model import PARAMETER_BEATS
from neuflow.blocks.ram import Ram
from neuflow.blocks.streams import WORD_BITS, beat_stream
from neuflow.grid import GridConfig
from neuflow.layout import CONFIG_BITS, CONV_WEIGHTS


def block_parameters(grid: GridConfig) -> data.ArrayLayout:
    """Return the layout of a block's parameters as the beats bring them: [beat][map], 32 bits each."""
    return data.ArrayLayout(data.ArrayLayout(CONFIG_BITS, grid.maps), PARAMETER_BEATS)


class Ring(Component):
    """A ring of beats that is read again and again until it is freed.

    Members: ``push``, ``data`` In, ``comes`` In: a push follows in the next cycle; ``room`` Out: for one
    more behind those; ``ready`` Out: the beat at the read position is
    there; ``read`` In: read it (``value`` Out one cycle later) and step on; ``rewind`` In: go back to
    the oldest beat, ``free`` In: all beats passed leave. Either may come with a read, which then
    counts as passed, or alone. ``awake`` Out.
    """

    SETTLE = 4
    """Cycles from the last change to the last register: beats that leave, space, room; one to spare."""

    def __init__(self, width: int, depth: int):
        self.depth = depth
        super().__init__(
            {
                "comes": In(1),
                "push": In(1),
                "data": In(width),
                "room": Out(1),
                "ready": Out(1),
                "read": In(1),
                "rewind": In(1),
                "free": In(1),
                "value": Out(width),
                "awake": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        depth = self.depth
        m.submodules.ram = ram = Ram(len(self.data), depth)
        head, tail, oldest = (Signal(range(depth), name=n) for n in ("head", "tail", "oldest"))
        passed, unread = (Signal(range(depth + 1), name=n) for n in ("passed", "unread"))
        space = Signal(range(depth + 1), init=depth)
        ready = Signal()
        room = Signal(init=1)
        after_tail = Signal(range(depth))
        leaving = Signal(range(depth + 1))
        rewinds = self.rewind & ~self.free

        # ready looks one cycle ahead; what is freed is room a cycle later.
        left = Signal(range(depth + 1))
        m.d.comb += [
            left.eq(space - self.push),
            self.room.eq(room),
            self.ready.eq(ready),
            after_tail.eq(Mux(tail == depth - 1, 0, tail + 1)),
            ram.write_enable.eq(self.push),
            ram.write_address.eq(head),
            ram.write_data.eq(self.data),
            ram.read_enable.eq(self.read),
            ram.read_address.eq(tail),
            self.value.eq(ram.read_data),
        ]
        m.d.sync += [
            leaving.eq(Mux(self.free, passed + self.read, 0)),
            space.eq(left + leaving),
            room.eq(Mux(self.comes, left > 1, left != 0)),
            ready.eq(
                self.push
                | Mux(rewinds, (passed != 0) | ready, Mux(self.read, unread > 1, ready))
            ),
        ]
        with m.If(rewinds):
            m.d.sync += unread.eq(unread + passed + self.push)
        with m.Else():
            m.d.sync += unread.eq(unread + self.push - self.read)
        with m.If(self.push):
            m.d.sync += head.eq(Mux(head == depth - 1, 0, head + 1))
        position = Mux(self.read, after_tail, tail)
        with m.If(self.free):
            m.d.sync += [oldest.eq(position), tail.eq(position), passed.eq(0)]
        with m.Elif(self.rewind):
            m.d.sync += [tail.eq(oldest), passed.eq(0)]
        with m.Elif(self.read):
            m.d.sync += [tail.eq(after_tail), passed.eq(passed + 1)]
        changes = (self.comes, self.push, self.read, self.rewind, self.free)
        stay_awake(m, self.awake, *changes, settle=self.SETTLE)
        return m


class WeightStore(Component):
    """Weight buffer with its writer, and the parameters of the block that leaves next.

    Members
    -------
    i : In, beats of ``bus_words`` words: weights packets. Taken only under a configuration.
    config : In stream of CONV_WEIGHTS.
    listening, source : Out; the columns' weights line that is listened to.
    ready, read, rewind, free, value : the weight ring's read side, see :class:`Ring`.
    parameters, parameters_valid : Out, of the next block to leave; those of ``parameters_beats`` In.
    parameters_wanted : In; ``parameters_beats`` is that of the pass whose block comes next.
    parameters_take : In, pulse: copied; fetch those of the block after. With it at most one of
        ``parameters_rewind`` (that is block 0 of the same pass), ``parameters_free`` (the pass ends).

    Throughput one beat a cycle; stalls while its ring is full. A weight is ``ready`` two cycles after
    it is taken. A block's parameters are valid ``parameters_beats + 2``
    cycles after the take at the earliest.
    """

    def __init__(self, grid: GridConfig):
        self.grid = grid
        super().__init__(
            {
                "i": In(beat_stream(grid.bus_words)),
                "config": In(stream.Signature(CONV_WEIGHTS.shape())),
                "listening": Out(1),
                "source": Out(3),
                "ready": Out(1),
                "read": In(1),
                "rewind": In(1),
                "free": In(1),
                "value": Out(data.ArrayLayout(signed(WORD_BITS), grid.bus_words)),
                "parameters": Out(block_parameters(grid)),
                "parameters_valid": Out(1),
                "parameters_beats": In(range(PARAMETER_BEATS + 1)),
                "parameters_wanted": In(1),
                "parameters_take": In(1),
                "parameters_rewind": In(1),
                "parameters_free": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        grid = self.grid
        width = grid.bus_bits
        weights = Ring(width, grid.weight_words // grid.bus_words)
        blocks = Ring(width, PARAMETER_BEATS * grid.weight_blocks)
        add_gated(m, "weights", weights, platform)
        add_gated(m, "blocks", blocks, platform)

        # Input: parameters first.
        c = self.config.payload
        active = Signal()
        take = Signal()
        room = Signal()
        arrived = Signal(width, reset_less=True)
        leading = Signal.like(c.lead)  # parameter beats yet to come
        leads = Signal()  # there are any
        beat = self.i.payload
        m.d.comb += [
            self.listening.eq(active),
            self.source.eq(c.source),
            room.eq(Mux(leads, blocks.room, weights.room)),
            self.i.ready.eq(active & room),
            take.eq(active & room & self.i.valid),
            blocks.data.eq(arrived),
            weights.data.eq(arrived),
            blocks.comes.eq(take & leads),
            weights.comes.eq(take & ~leads),
            self.config.ready.eq(take & beat.last),
        ]
        # The line is long: what it brings goes to a ring a cycle later.
        m.d.sync += [blocks.push.eq(blocks.comes), weights.push.eq(weights.comes)]
        with m.If(take):
            m.d.sync += arrived.eq(beat.words.as_value())
        with m.If(~active):
            m.d.sync += [active.eq(self.config.valid), leading.eq(c.lead), leads.eq(c.lead != 0)]
        with m.Elif(take):
            m.d.sync += active.eq(~beat.last)
            with m.If(leads):
                m.d.sync += [leading.eq(leading - 1), leads.eq(leading != 1)]

        m.d.comb += [
            self.ready.eq(weights.ready),
            weights.read.eq(self.read),
            weights.rewind.eq(self.rewind),
            weights.free.eq(self.free),
            self.value.as_value().eq(weights.value),
        ]
        self._fetch(m, blocks)
        return m

    def _fetch(self, m, blocks):
        """Collect a block's parameters beat by beat, then wait until they are taken."""
        asked = Signal(range(PARAMETER_BEATS + 1))
        after = Signal.like(asked)
        asks = Signal(init=1)  # some are left to ask for
        valid = Signal()
        arriving = Signal(PARAMETER_BEATS)
        collected = Signal(block_parameters(self.grid), reset_less=True)
        m.d.comb += [
            blocks.read.eq(asks & self.parameters_wanted & blocks.ready),
            blocks.rewind.eq(self.parameters_take & self.parameters_rewind),
            blocks.free.eq(self.parameters_take & self.parameters_free),
            self.parameters.eq(collected),
            self.parameters_valid.eq(valid),
            after.eq(asked + 1),
        ]
        m.d.sync += [
            arriving.eq(Mux(blocks.read, 1 << asked, 0)),
            valid.eq(~asks & ~self.parameters_take),
        ]
        with m.If(self.parameters_take):
            m.d.sync += [asked.eq(0), asks.eq(1)]
        with m.Elif(blocks.read):
            m.d.sync += [asked.eq(after), asks.eq(after != self.parameters_beats)]
        for beat in range(PARAMETER_BEATS):
            with m.If(arriving[beat]):
                m.d.sync += collected[beat].as_value().eq(blocks.value)
