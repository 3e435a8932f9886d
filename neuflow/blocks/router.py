"""Router of a tile: any input to any outputs, one configuration word an output and packet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, DomainRenamer, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from neuflow.blocks.choose import select
from neuflow.blocks.config import config_stream
from neuflow.blocks.gate import fires, gate_registers
from neuflow.blocks.streams import Slice, beat_layout, beat_stream
from neuflow.layout import COLUMN_BITS, ROUTE, Kind, RouterIn, RouterOut


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
        outputs = len(self.outputs)
        room, done, moving = (Signal(outputs, name=name) for name in ("room", "done", "moving"))
        current, peers, words_stir = self._build_queues(m, done)

        # A packet moves when all its outputs are under its word (`armed`) and have room. Its end is
        # worked on a cycle later.
        streams = [self.input(i) for i in self.inputs]
        takes, armed, moves, last, ended, incomplete = (
            Signal(len(streams), name=name)
            for name in ("takes", "armed", "moves", "last", "ended", "incomplete")
        )
        m.d.comb += [
            # Outputs whose current word names the input; no packet is without peers.
            incomplete.eq(
                Cat(
                    (peers[k] & ~Cat(word.names[k] for word in current)).any()
                    for k in range(len(streams))
                )
            ),
            takes.eq(armed & ~Cat((of & ~room).any() for of in peers)),
            moves.eq(takes & Cat(stream.valid for stream in streams)),
            last.eq(moves & Cat(stream.payload.last for stream in streams)),
            Cat(stream.ready for stream in streams).eq(takes),
        ]
        m.d.sync += [ended.eq(last), armed.eq(~(incomplete | last | ended))]

        beats = [stream.payload.as_value() for stream in streams]
        for k, o in enumerate(self.outputs):
            out = Slice(beat_layout(self.lanes))
            m.submodules[f"{o.name.lower()}_slice"] = out
            connect(m, out.o, flipped(self.output(o)))
            m.d.comb += [
                room[k].eq(out.i.ready),
                moving[k].eq((current[k].names & moves).any()),
                out.i.valid.eq(moving[k]),
                out.i.payload.eq(select(beats, current[k].number)),
            ]
            m.d.sync += done[k].eq(moving[k] & out.i.payload.last)
        outs = (self.output(o) for o in self.outputs)
        arms = (~(armed ^ incomplete)).any()  # or disarms: words have changed
        # Where a packet has ended an output is done, and its words stir.
        m.d.comb += self.awake.eq(moves.any() | fires(*outs) | words_stir | arms)
        return gate_registers(m, "words", words_stir, platform)

    def _build_queues(self, m: Module, done: Signal) -> tuple[list[data.View], list[Signal], Value]:
        """Take ROUTE words from the bus.

        Return: by output the input it is under, see :meth:`_named`; by input the peers of
        the packet that words are held for (one at a time, else another word waits); and whether any of
        it may change. It does so twice a packet, so its registers are a domain of their own, ``words``.
        """
        words = self._build_words(m)
        word = words.o.payload
        target = word.target
        take = Signal(name="take")
        held, waits = Signal.like(target, name="held"), Signal.like(target, name="waits")

        # The word by output: the one that the output works under, and the one that waits behind it.
        named = Signal(self._named())
        current, waiting = (
            [Signal(self._named(), name=f"{o.name.lower()}_{name}") for o in self.outputs]
            for name in ("current", "waiting")
        )
        m.d.comb += [
            named.number.eq(word.number),
            named.names.eq(Const(1) << word.number),
        ]

        # While words for a packet of this input are held, another packet's words must wait.
        peers = [
            Signal(len(target), init=~0, name=f"{i.name.lower()}_peers") for i in self.inputs
        ]
        busy = reduce(or_, (word.names for word in (*current, *waiting)))
        differs = word.peers != select(peers, word.number)
        # Nothing but another word can take the room that is there, so it still is a cycle later.
        asks, conflict, full = (Signal(name=name) for name in ("asks", "conflict", "full"))
        m.d.words += [
            asks.eq(words.o.valid & ~take),
            conflict.eq(word.known & (named.names & busy).any() & differs),
            full.eq((target & (waits if self.depth == 2 else held)).any()),
        ]
        m.d.comb += [take.eq(asks & ~conflict & ~full), words.o.ready.eq(take)]
        for k in range(len(self.inputs)):
            with m.If(take & named.names[k] & target.any()):
                m.d.words += peers[k].eq(word.peers)

        # An output that is done goes on with the word that waits, or with the one that comes.
        direct, queued = Signal.like(target, name="direct"), Signal.like(target, name="queued")
        with m.If(take):
            m.d.comb += [direct.eq(target & (~held | done)), queued.eq(target & held & ~done)]
        m.d.words += [
            held.eq((held & ~done) | (waits & done) | direct),
            waits.eq((waits & ~done) | queued),
        ]
        for k in range(len(self.outputs)):
            with m.If(direct[k] | done[k]):
                m.d.words += current[k].eq(Mux(direct[k], named, waiting[k]))
            with m.If(done[k]):
                m.d.words += waiting[k].eq(0)
            with m.Elif(queued[k]):
                m.d.words += waiting[k].eq(named)
        return current, peers, words.i.valid | words.o.valid | take | done.any()

    def _named(self) -> data.StructLayout:
        """Return what an output keeps of a word: its input, one-hot in ``names``, and its ``number``.

        The number is the place among the inputs that exist: it selects the beat with the fewest
        look-up tables. What is decided beat by beat is so with less delay by ``names``: 0 if none.
        """
        return data.StructLayout({"names": len(self.inputs), "number": range(len(self.inputs))})

    def _build_words(self, m: Module) -> Slice:
        """Keep the ROUTE words for this router, of the ports that exist.

        ``number`` of the input, if that is ``known``; as sets of outputs ``target``, the word's own (no
        bit: drop it), and ``peers`` with it.
        """
        beat = self.bus.payload
        bits = len(self.outputs)
        kept = {"number": range(len(self.inputs)), "known": 1, "target": bits, "peers": bits}
        words = Slice(data.StructLayout(kept))
        m.submodules.words = DomainRenamer("words")(words)
        word = data.View(ROUTE.shape(), beat.data[: ROUTE.shape().size])
        coming = words.i.payload

        def is_one_of(inputs: Iterable[RouterIn]) -> Value:
            """Return whether the word's input is one of these, one look-up table."""
            known = Const(sum(1 << i for i in inputs), 1 << len(word.input))
            return known.bit_select(word.input, 1)

        places = list(enumerate(self.inputs))
        target = Signal(len(RouterOut))
        peers = Signal(len(RouterOut))
        m.d.comb += [
            coming.known.eq(is_one_of(self.inputs)),
            coming.number.eq(
                Cat(is_one_of(i for k, i in places if k >> bit & 1) for bit in range(len(coming.number)))
            ),
            target.eq(Mux(coming.known, Const(1) << word.output, 0)),
            peers.eq(word.peers | target),
            coming.target.eq(Cat(target[o] for o in self.outputs)),
            coming.peers.eq(Cat(peers[o] for o in self.outputs)),
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
