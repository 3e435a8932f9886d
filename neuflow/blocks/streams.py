"""The stream contract and the small parts that every block is wired with.

A stream carries *beats*: ``lanes`` words, the count of valid words (from lane 0 up), and ``last``
on the final beat of a packet. Words are packed without gaps: only the last beat of a packet may
be partial, and no beat is empty. Once ``valid``, a beat stays as it is until it is taken.
"""

from __future__ import annotations

from amaranth.hdl import (
    Cat,
    ClockSignal,
    Const,
    Instance,
    Module,
    Mux,
    ResetSignal,
    Shape,
    Signal,
    Value,
    signed,
    unsigned,
)  # fmt: skip
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, Flow, In, Out, connect
from amaranth.utils import bits_for

from neuflow.blocks.place import flat_ports, is_export
from neuflow.fixed import WORD_BITS


def beat_layout(lanes: int) -> data.StructLayout:
    """Return the payload of a stream of ``lanes`` words a beat."""
    return data.StructLayout(
        {
            "words": data.ArrayLayout(signed(WORD_BITS), lanes),
            "count": unsigned(bits_for(lanes)),
            "last": unsigned(1),
        }
    )


def beat_stream(lanes: int) -> stream.Signature:
    """Return the signature of a stream of ``lanes`` words a beat."""
    return stream.Signature(beat_layout(lanes))


class Slice(Component):
    """Register slice: cuts every path between its two sides.

    Members: ``i`` In stream, ``o`` Out stream of ``shape``. Latency 1 cycle, throughput 1 beat a
    cycle, room for two beats, in two places that take turns. ``i.ready`` comes from a register, and
    ``o.ready``, which often comes late, reaches three registers, however wide a beat is.
    """

    LATENCY = 1

    def __init__(self, shape):
        self.shape = shape
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        if is_export(platform):  # one module of any width, written by hand
            return Instance(
                "neuflow_slice",
                p_WIDTH=Shape.cast(self.shape).width,
                i_clk=ClockSignal(),
                i_rst=ResetSignal(),
                **{
                    ("i_" if flow == Flow.In else "o_") + port: value
                    for port, flow, value in flat_ports(self)
                },
            )
        m = Module()
        places = [Signal(self.shape, name=f"place{k}", reset_less=True) for k in range(2)]
        turn = Signal()  # the place whose beat leaves first
        full = Signal()

        stays = Signal()
        m.d.comb += [
            self.i.ready.eq(~full),
            self.o.payload.eq(Mux(turn, places[1], places[0])),
            stays.eq(self.o.valid & ~self.o.ready),
        ]
        # A place follows the input until it holds a beat.
        for k, place in enumerate(places):
            with m.If(~full & ((turn ^ self.o.valid) == k)):
                m.d.sync += place.eq(self.i.payload)
        m.d.sync += [
            turn.eq(turn ^ (self.o.valid & self.o.ready)),
            self.o.valid.eq(full | stays | self.i.valid),
            full.eq(stays & (full | self.i.valid)),
        ]
        return m


def loose_layout(
    lanes_in: int, lanes_out: int, tag_bits: int, starts: bool = True
) -> data.StructLayout:
    """Return what :class:`Merger` takes: words ``first`` to ``first + count - 1`` of a beat."""
    return data.StructLayout(
        {
            "words": data.ArrayLayout(signed(WORD_BITS), lanes_in),
            "first": range(lanes_in),
            "count": range(lanes_in + 1),
            **({"start": range(lanes_out)} if starts else {}),
            "last": unsigned(1),
            "tag": unsigned(tag_bits),
        }
    )


def merged_layout(lanes: int, tag_bits: int, starts: bool = True) -> data.StructLayout:
    """Return what :class:`Merger` gives: a beat, and in ``strobe`` which lanes hold words."""
    beat = beat_layout(lanes)
    return data.StructLayout(
        {name: field.shape for name, field in beat}
        | ({"strobe": unsigned(lanes)} if starts else {})
        | {"tag": unsigned(tag_bits)}
    )


class Merger(Component):
    """Put words side by side: loose beats in, full beats out.

    Members: ``i`` In stream of :func:`loose_layout`: lane of the first wanted word, how many are
    wanted (0 up to all behind it; the last beat of a packet at least 1), ``start``: lane that the
    packet's first word goes to, ``tag``: the same for all beats of a packet. ``o`` Out stream of
    :func:`merged_layout`; ``count``: lanes up to the last word; words without a strobe mean nothing.
    ``awake`` Out, see ``neuflow.blocks.gate``. Without ``starts`` all packets begin at lane 0, and
    there are no strobes.
    LATENCY cycles from the word that fills a beat; one beat a cycle, and one more cycle where a last
    beat spills over.
    """

    LATENCY = 2

    def __init__(self, lanes_in: int, lanes_out: int, tag_bits: int, starts: bool = True):
        if lanes_in > lanes_out:
            raise ValueError(f"Merger: {lanes_in} lanes do not fit into {lanes_out}")
        self.lanes_in = lanes_in
        self.lanes_out = lanes_out
        self.starts = starts
        self.input = loose_layout(lanes_in, lanes_out, tag_bits, starts)
        self.output = merged_layout(lanes_out, tag_bits, starts)
        super().__init__(
            {
                "i": In(stream.Signature(self.input)),
                "o": Out(stream.Signature(self.output)),
                "awake": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes, i = self.lanes_out, self.i.payload

        # First stage: where the words go.
        fill = Signal(range(lanes))  # lane that the packet's next word goes to
        flush = Signal()  # what spilled over at the end of a packet leaves by itself
        at = Signal.like(fill)
        count = Signal.like(i.count)
        last = Signal()
        total = Signal(range(lanes + self.lanes_in))
        over = Signal(range(lanes))
        full = Signal()
        spills = Signal()
        m.d.comb += [
            at.eq(fill),
            count.eq(Mux(flush, 0, i.count)),
            last.eq(flush | i.last),
            total.eq(at + count),
            over.eq(total - lanes),
            full.eq(total >= lanes),
            spills.eq(last & full & (over != 0)),
        ]

        free = Signal()
        takes = Signal()
        m.d.comb += [
            free.eq(~self.o.valid | self.o.ready),
            takes.eq(free & (flush | self.i.valid)),
            self.i.ready.eq(free & ~flush),
        ]
        placed = Signal(self.output, reset_less=True)
        there = Signal()
        emits, fills = (Signal(name=name, reset_less=True) for name in ("emits", "fills"))
        fresh = Signal(lanes, reset_less=True)  # lanes that hold no word of before
        with m.If(free):
            m.d.sync += there.eq(flush | self.i.valid)
        with m.If(takes):
            m.d.sync += [
                placed.count.eq(Mux(full, lanes, total)),
                placed.last.eq(last & ~spills),
                fresh.eq(Cat(at <= k for k in range(lanes))),
                emits.eq(full | last),
                fills.eq(full),
                flush.eq(spills),
                fill.eq(Mux(last & ~spills, 0, Mux(full, over, total))),
            ]
            with m.If(~flush):
                m.d.sync += placed.tag.eq(i.tag)
        if self.starts:
            begun = Signal()  # a packet is under way
            low = Signal(range(lanes))  # lane of the first word in the beat that is being filled
            base = Signal.like(low)
            m.d.comb += [at.eq(Mux(begun, fill, i.start)), base.eq(Mux(begun, low, i.start))]
            with m.If(takes):
                m.d.sync += [
                    begun.eq(~last | spills),
                    placed.strobe.eq(Cat((base <= k) & (k < total) for k in range(lanes))),
                    low.eq(Mux(full, 0, base)),
                ]
        m.d.comb += self.awake.eq(free & (self.i.valid | flush | there | self.o.valid))

        # Second stage: merge with what is kept of before. A lane takes a word whether that means
        # something or not: so the choice takes half a look-up table a bit, and the rest none.
        words = self._build_rotation(m, at, takes)
        rest = Signal(self.output["words"].shape, reset_less=True)
        with m.If(free):
            m.d.sync += self.o.valid.eq(there & emits)
        with m.If(free & there):
            for name, _ in self.output:
                if name != "words":
                    m.d.sync += self.o.payload[name].eq(placed[name])
            for lane in range(lanes):
                word = words.word_select(lane % (len(words) // WORD_BITS), WORD_BITS)
                m.d.sync += self.o.payload.words[lane].eq(Mux(fresh[lane], word, rest[lane]))
                with m.If(fresh[lane] | fills):
                    m.d.sync += rest[lane].eq(word)
        return m

    def _build_rotation(self, m: Module, at: Signal, takes: Signal) -> Value:
        """Return, a cycle later, a word for each lane: lane k has word k - at + first.

        With powers of 2 the words repeat, so that there are only as many as at the input. The register
        lies behind the choice of four words, which is one look-up table.
        """
        lanes_in, lanes, i = self.lanes_in, self.lanes_out, self.i.payload
        words: Value = i.words.as_value()
        ways = lanes_in if lanes_in.bit_count() == lanes.bit_count() == 1 else lanes
        amount = Signal(range(ways))
        difference = at - i.first
        if ways != lanes_in:
            words = Cat(words, Const(0, (lanes - lanes_in) * WORD_BITS))
            difference = Mux(at < i.first, difference + lanes, difference)
        m.d.comb += amount.eq(difference)
        turned = Signal(ways * WORD_BITS, reset_less=True)
        left = Signal(max(len(amount) - 2, 0), reset_less=True)
        with m.If(takes):
            m.d.sync += [turned.eq(_turned(words, amount[:2], 1)), left.eq(amount[2:])]
        return _turned(turned, left, 4)


def _turned(words: Value, amount: Value, unit: int) -> Value:
    """Return ``words`` turned left by ``amount`` times ``unit`` of them."""
    for bit in range(len(amount)):
        turned = words.rotate_left((WORD_BITS * unit << bit) % len(words))
        words = Mux(amount[bit], turned, words)
    return words


class Packer(Component):
    """Close the gaps: loose beats in, packed beats out.

    Members: ``i`` In stream of ``lanes_in`` words whose beats may hold any count from 0 up (the
    last at least 1); ``o`` Out stream of ``lanes_out >= lanes_in`` words under the stream contract;
    ``awake`` Out.
    LATENCY cycles from the word that fills a beat; one beat a cycle, and one more cycle where a
    last beat spills over.
    """

    LATENCY = Merger.LATENCY

    def __init__(self, lanes_in: int, lanes_out: int):
        if lanes_in > lanes_out:
            raise ValueError(f"Packer: {lanes_in} lanes do not fit into {lanes_out}")
        self.lanes_in = lanes_in
        self.lanes_out = lanes_out
        super().__init__(
            {
                "i": In(beat_stream(lanes_in)),
                "o": Out(beat_stream(lanes_out)),
                "awake": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.merger = merger = Merger(self.lanes_in, self.lanes_out, 0, starts=False)
        m.d.comb += [self.i.ready.eq(merger.i.ready), merger.i.valid.eq(self.i.valid)]
        m.d.comb += [self.o.valid.eq(merger.o.valid), merger.o.ready.eq(self.o.ready)]
        m.d.comb += self.awake.eq(merger.awake)
        copy_fields(m, self.i.payload, merger.i.payload)
        copy_fields(m, merger.o.payload, self.o.payload)
        return m


def copy_fields(m: Module, source: data.View, sink: data.View) -> None:
    """Drive the fields of ``sink`` that ``source`` has too; the others stay 0."""
    names = {name for name, _ in source.shape()}
    for name, _ in sink.shape():
        if name in names:
            m.d.comb += Value.cast(sink[name]).eq(Value.cast(source[name]))


class Narrow(Component):
    """Split packed beats of ``lanes_in`` words into packed beats of ``lanes_out`` words.

    ``lanes_in`` is a multiple of ``lanes_out``. Latency 1 cycle; one beat out a cycle.
    """

    LATENCY = 1

    def __init__(self, lanes_in: int, lanes_out: int):
        if lanes_in % lanes_out:
            raise ValueError(f"Narrow: {lanes_in} lanes are no multiple of {lanes_out}")
        self.lanes_in = lanes_in
        self.lanes_out = lanes_out
        super().__init__({"i": In(beat_stream(lanes_in)), "o": Out(beat_stream(lanes_out))})

    def elaborate(self, platform):
        m = Module()
        lanes = self.lanes_out
        words = Signal(self.lanes_in * WORD_BITS, reset_less=True)
        left = Signal(range(self.lanes_in + 1))
        last = Signal(reset_less=True)
        final = Signal()

        m.d.comb += [
            final.eq(left <= lanes),
            self.o.valid.eq(left != 0),
            self.o.payload.words.as_value().eq(words),
            self.o.payload.count.eq(Mux(final, left, lanes)),
            self.o.payload.last.eq(last & final),
            self.i.ready.eq((left == 0) | (final & self.o.ready)),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                words.eq(self.i.payload.words.as_value()),
                left.eq(self.i.payload.count),
                last.eq(self.i.payload.last),
            ]
        with m.Elif(self.o.valid & self.o.ready):
            m.d.sync += [
                words.eq(words >> lanes * WORD_BITS),
                left.eq(Mux(final, 0, left - lanes)),
            ]
        return m


def wire(m: Module, source, sink) -> None:
    """Connect two streams, either of which may be an own port (pass it through ``flipped``)."""
    connect(m, source, sink)


__all__ = [
    "WORD_BITS", "Merger", "Narrow", "Packer", "Slice", "beat_layout", "beat_stream", "copy_fields",
    "loose_layout", "merged_layout", "wire",
]  # fmt: skip
