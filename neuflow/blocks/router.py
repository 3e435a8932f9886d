"""Router of a tile: any input to any outputs, one configuration word an output and packet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from neuflow.blocks.config import config_stream
from neuflow.blocks.gate import fires, stay_awake
from neuflow.blocks.streams import Slice, beat_layout, beat_stream
from neuflow.layout import COLUMN_BITS, ROUTE, Kind, RouterIn, RouterOut

_INPUT_BITS = 4

SETTLE = 4
"""Cycles from the last beat or word to the last register: end, current word, armed; one to spare."""


class Router(Component):
    """Send packets from inputs to outputs as ROUTE words say; only the ports named exist.

    Members: ``bus`` In configuration bus; ``sub`` In(4), ``columns`` In(8) as in ConfigReceiver;
    for every input a stream ``<name>_in`` In, for every output ``<name>_out`` Out, of ``lanes``
    words a beat (``north_in``, ``local0_out``, ``global_out``); ``awake`` Out.

    Every output works under one ROUTE word for one packet and queues ``depth`` of them, that one
    included. A beat moves from its input to all ``peers`` in one cycle: when each peer's current
    word names this input and each has room. Peers that do not exist are not waited for.

    Words are taken in the order in which packets come out of an input: a ROUTE word waits on the
    bus while another packet of the same input, with other peers, still has its words here. (An
    output that learnt of its packet too early would steal beats from the packet before.)
    A word that names an output or input that does not exist is dropped.

    Latency 1 cycle; one beat a cycle for each output; from packet to packet of an input GAP idle
    cycles where the words are there in time. A ROUTE word takes two cycles; two more words wait in
    front of it. No ready depends combinationally on a port's ready or valid.
    """

    LATENCY = 1
    GAP = 2

    def __init__(
        self, inputs: Sequence[RouterIn], outputs: Sequence[RouterOut], lanes: int, depth: int
    ):
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.lanes = lanes
        self.depth = depth
        super().__init__(
            {
                "bus": In(config_stream()),
                "sub": In(4),
                "columns": In(COLUMN_BITS),
                "awake": Out(1),
                **{f"{i.name.lower()}_in": In(beat_stream(lanes)) for i in self.inputs},
                **{f"{o.name.lower()}_out": Out(beat_stream(lanes)) for o in self.outputs},
            }
        )

    def input(self, name: RouterIn):
        """Return the stream of an input."""
        return getattr(self, f"{name.name.lower()}_in")

    def output(self, name: RouterOut):
        """Return the stream of an output."""
        return getattr(self, f"{name.name.lower()}_out")

    def elaborate(self, platform):
        m = Module()
        bits = len(RouterOut)
        exist = sum(1 << o for o in self.outputs)
        room, done, moving = (Signal(bits, name=n) for n in ("room", "done", "moving"))

        # By input, one bit an output: whose current word names it, whose waiting word does, and
        # the peers of the packet they are for (one at a time, see _build_queues).
        current = {i: Signal(bits, name=f"{i.name.lower()}_current") for i in self.inputs}
        waiting = {i: Signal(bits, name=f"{i.name.lower()}_waiting") for i in self.inputs}
        peers = {i: Signal(bits, init=exist, name=f"{i.name.lower()}_peers") for i in self.inputs}
        sources, words = self._build_queues(m, exist, current, waiting, peers, done)

        # A packet moves when all its outputs are under its word (`armed`) and have room. Its end is
        # worked on a cycle later.
        moves = {i: Signal(name=f"{i.name.lower()}_moves") for i in self.inputs}
        takes = {i: Signal(name=f"{i.name.lower()}_takes") for i in self.inputs}
        ended = {i: Signal(name=f"{i.name.lower()}_ended") for i in self.inputs}
        for i in self.inputs:
            beats = self.input(i)
            armed = Signal(name=f"{i.name.lower()}_armed")
            last = Signal(name=f"{i.name.lower()}_last")
            complete = current[i].any() & ((peers[i] & ~current[i]) == 0)
            m.d.comb += [
                takes[i].eq(armed & ((peers[i] & ~room) == 0)),
                moves[i].eq(beats.valid & takes[i]),
                last.eq(moves[i] & beats.payload.last),
                beats.ready.eq(takes[i]),
            ]
            m.d.sync += [ended[i].eq(last), armed.eq(complete & ~last & ~ended[i])]
        m.d.comb += [
            moving.eq(reduce(or_, (Mux(moves[i], current[i], 0) for i in self.inputs))),
            done.eq(reduce(or_, (Mux(ended[i], current[i], 0) for i in self.inputs))),
        ]

        for o in self.outputs:
            out = Slice(beat_layout(self.lanes))
            m.submodules[f"{o.name.lower()}_slice"] = out
            connect(m, out.o, flipped(self.output(o)))
            m.d.comb += [room[o].eq(out.i.ready), out.i.valid.eq(moving[o])]
            with m.Switch(sources[o]):
                for i in self.inputs:
                    with m.Case(i):
                        m.d.comb += out.i.payload.eq(self.input(i).payload)
        outs = (self.output(o) for o in self.outputs)
        stay_awake(
            m, self.awake, Cat(*moves.values()).any(), fires(*outs), self.bus.valid, words.o.valid,
            settle=SETTLE,
        )  # fmt: skip
        return m

    def _build_queues(self, m, exist, current, waiting, peers, done):
        """Take ROUTE words from the bus; return by output the input it is under, and the words."""
        bits = len(RouterOut)
        words = self._build_words(m, exist)
        word = words.o.payload
        target, names = word.target, word.names
        conflict, full, take = Signal(name="conflict"), Signal(name="full"), Signal(name="take")
        held = Signal(bits)
        waits = Signal(bits)
        m.d.comb += full.eq((target & (waits if self.depth == 2 else held)).any())

        # While words for a packet of this input are held, another packet's words must wait.
        with m.Switch(word.input):
            for i in self.inputs:
                with m.Case(i):
                    m.d.comb += conflict.eq(((current[i] | waiting[i]) != 0) & (names != peers[i]))
        # Nothing but another word can take the room that is there, so it still is a cycle later.
        m.d.comb += words.o.ready.eq(take)
        m.d.sync += take.eq(words.o.valid & ~take & ~conflict & ~full)

        # An output that is done goes on with the word that waits, or with the one that comes.
        direct = Signal(bits)
        queued = Signal(bits)
        with m.If(take):
            m.d.comb += [direct.eq(target & (~held | done)), queued.eq(target & held & ~done)]
        sources = {o: Signal(_INPUT_BITS, name=f"{o.name.lower()}_source") for o in self.outputs}
        with m.If(take | done.any()):
            m.d.sync += [
                held.eq((held & ~done) | (waits & done) | direct),
                waits.eq((waits & ~done) | queued),
            ]
            for i in self.inputs:
                named = word.input == i
                m.d.sync += [
                    current[i].eq(
                        (current[i] & ~done) | (waiting[i] & done) | Mux(named, direct, 0)
                    ),
                    waiting[i].eq((waiting[i] & ~done) | Mux(named, queued, 0)),
                ]
                with m.If(take & named & target.any()):
                    m.d.sync += peers[i].eq(names)
            for o in self.outputs:
                next_source = Signal(_INPUT_BITS, name=f"{o.name.lower()}_next_source")
                with m.If(direct[o]):
                    m.d.sync += sources[o].eq(word.input)
                with m.Elif(done[o]):
                    m.d.sync += sources[o].eq(next_source)
                with m.If(queued[o]):
                    m.d.sync += next_source.eq(word.input)
        return sources, words

    def _build_words(self, m, exist) -> Slice:
        """Keep the ROUTE words for this router: input, ``target`` (no bit: drop it), all ``names``."""
        beat = self.bus.payload
        bits = len(RouterOut)
        kept = data.StructLayout({"input": _INPUT_BITS, "target": bits, "names": bits})
        m.submodules.words = words = Slice(kept)
        word = data.View(ROUTE.shape(), beat.data[: ROUTE.shape().size])
        known = Cat(word.input == i for i in self.inputs).any()
        target = Mux(known, (Const(1, 1) << word.output) & exist, 0)[:bits]
        m.d.comb += [
            words.i.payload.input.eq(word.input),
            words.i.payload.target.eq(target),
            words.i.payload.names.eq((word.peers & exist) | target),
            words.i.valid.eq(
                self.bus.valid
                & (beat.kind == Kind.ROUTER)
                & (beat.sub == self.sub)
                & (beat.columns & self.columns).any()
            ),
            self.bus.ready.eq(words.i.ready),
        ]
        return words


__all__ = ["Router"]
