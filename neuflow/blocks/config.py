"""The configuration bus: a chain of taps, and the receiver that every unit has.

The bus is a stream of ``layout.CONFIG_BEAT`` words. Each tile holds one :class:`ConfigTap`; the
taps of a column form a chain. A packet is for a unit when its kind and sub match and the unit's
column bit is among ``columns``. A unit registers each word before it works on it; while it has no
room for one of its own, that word keeps the next ones, of whatever unit, at the tap.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from neuflow.blocks.gate import fires
from neuflow.blocks.streams import Slice
from neuflow.layout import COLUMN_BITS, CONFIG_BEAT, CONFIG_BITS, Kind, Layout


def config_stream() -> stream.Signature:
    """Return the signature of the configuration bus."""
    return stream.Signature(CONFIG_BEAT.shape())


class ConfigTap(Component):
    """One stop of the bus: hand each word to the local units, then on to the next tap.

    Members: ``i`` In, ``o`` Out configuration bus; ``local[k]`` Out, one for each local unit; ``awake``.
    A word moves on when all local units and the next tap take it in the same cycle. Latency 1
    cycle, one word a cycle.
    """

    LATENCY = 1

    def __init__(self, units: int):
        self.units = units
        super().__init__(
            {
                "i": In(config_stream()),
                "o": Out(config_stream()),
                "local": Out(config_stream()).array(units),
                "awake": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.slice = head = Slice(CONFIG_BEAT.shape())
        connect(m, flipped(self.i), head.i)

        outs = [self.o, *(self.local[k] for k in range(self.units))]
        all_ready = Signal()
        m.d.comb += [all_ready.eq(Cat(*(out.ready for out in outs)).all()), head.o.ready.eq(all_ready)]
        for out in outs:
            # Every unit's ready comes from its registers alone.
            m.d.comb += [out.payload.eq(head.o.payload), out.valid.eq(head.o.valid & all_ready)]
        m.d.comb += self.awake.eq(fires(head.i, head.o))
        return m


class ConfigReceiver(Component):
    """Assemble the packets for one unit and queue them.

    Members: ``bus`` In configuration bus, ``sub`` In, ``columns`` In (one bit: the own column),
    ``o`` Out stream of the layout's record, ``awake`` Out. Holds ``depth`` (1 or 2) configurations,
    the one that the unit works under included: the unit takes it (``o.ready``) when its packet has
    passed; and one word that has just arrived. While that is its own and there is no room for it,
    ``bus.ready`` is 0. A packet is at ``o`` LATENCY + depth cycles after its last word. With ``peeks``,
    ``follows`` Out says whether another configuration waits behind that one, ``following`` Out which.
    """

    LATENCY = 1

    def __init__(self, kind: Kind, layout: Layout, depth: int, peeks: bool = False):
        self.kind = kind
        self.layout = layout
        self.depth = depth
        self.peeks = peeks
        super().__init__(
            {
                "bus": In(config_stream()),
                "sub": In(4),
                "columns": In(COLUMN_BITS),
                "o": Out(stream.Signature(layout.shape())),
                "awake": Out(1),
                **({"following": Out(layout.shape()), "follows": Out(1)} if peeks else {}),
            }
        )

    def elaborate(self, platform):
        m = Module()
        beat = self.bus.payload
        words = Signal(self.layout.words * CONFIG_BITS, reset_less=True)
        full = Signal()
        move = Signal()

        # The word that has arrived, and whether it is for this unit. That one came is known last in
        # a cycle, as all units' answers meet at the tap: it goes into a register and nowhere else.
        word = Signal(CONFIG_BITS, reset_less=True)
        last = Signal(reset_less=True)
        match = Signal(reset_less=True)
        came = Signal()
        mine = Signal()
        for_us = (
            (beat.kind == self.kind)
            & (beat.sub == self.sub)
            & (beat.columns & self.columns).any()
        )
        m.d.sync += full.eq(Mux(mine & ~full, last, full & ~move))
        m.d.comb += [
            mine.eq(came & match),
            self.bus.ready.eq(~(mine & full)),
            # A word that waits for room changes nothing, nor does one for another unit that follows such
            # a one: `came` may stay, as `match` does.
            self.awake.eq(self.bus.ready & (self.bus.valid & for_us | mine) | move | fires(self.o)),
        ]
        with m.If(self.bus.ready):
            m.d.sync += [
                word.eq(beat.data),
                last.eq(beat.last),
                came.eq(self.bus.valid),
                match.eq(for_us),
            ]
        with m.If(mine & ~full):
            m.d.sync += words.eq(Cat(words[CONFIG_BITS:], word))

        if self.depth == 1:
            m.d.comb += [
                self.o.payload.as_value().eq(words),
                self.o.valid.eq(full),
                move.eq(full & self.o.ready),
            ]
            return m
        if self.peeks:
            m.d.comb += [self.following.as_value().eq(words), self.follows.eq(full)]
        held = Signal(self.layout.shape(), reset_less=True)
        m.d.comb += [move.eq(full & (~self.o.valid | self.o.ready)), self.o.payload.eq(held)]
        with m.If(move):
            m.d.sync += [held.as_value().eq(words), self.o.valid.eq(1)]
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return m
