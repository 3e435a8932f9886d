"""Router of a tile: any input to any outputs, one configuration word an output and packet."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from neuflow.blocks.config import config_stream
from neuflow.blocks.streams import Slice, beat_layout, beat_stream
from neuflow.layout import COLUMN_BITS, ROUTE, Kind, RouterIn, RouterOut

_INPUT_BITS = 4
_PEER_BITS = 10


_HELD = data.StructLayout({"input": unsigned(_INPUT_BITS), "peers": unsigned(_PEER_BITS)})
"""What an output keeps of a ROUTE word."""


class Router(Component):
    """Send packets from inputs to outputs as ROUTE words say; only the ports named exist.

    Members: ``bus`` In configuration bus; ``sub`` In(4), ``columns`` In(8) as in ConfigReceiver;
    for every input a stream ``<name>_in`` In, for every output ``<name>_out`` Out, of ``lanes``
    words a beat (``north_in``, ``local0_out``, ``global_out``).

    Every output works under one ROUTE word for one packet and queues ``depth`` of them, that one
    included. A beat moves from its input to all ``peers`` in one cycle: when each peer's current
    word names this input and each has room. Peers that do not exist are not waited for.

    Words are taken in the order in which packets come out of an input: a ROUTE word waits on the
    bus while another packet of the same input, with other peers, still has its words here. (An
    output that learnt of its packet too early would steal beats from the packet before.)
    A word for an output that does not exist is dropped.

    Latency 1 cycle; one beat a cycle for each output, also from packet to packet with ``depth`` 2
    (one idle cycle with ``depth`` 1). No ready depends combinationally on a port's ready.
    """

    LATENCY = 1

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
        outs = self.outputs
        current = {o: Signal(_HELD, name=f"{o.name.lower()}_current") for o in outs}
        valid = {o: Signal(name=f"{o.name.lower()}_valid") for o in outs}
        done = {o: Signal(name=f"{o.name.lower()}_done") for o in outs}

        self._build_queues(m, current, valid, done)
        moves = self._build_moves(m, current, valid)
        for o in outs:
            m.submodules[f"{o.name.lower()}_slice"] = out = Slice(beat_layout(self.lanes))
            connect(m, out.o, flipped(self.output(o)))

            # Only the switch sees wide data: one case of it is evaluated a cycle.
            with m.Switch(current[o].input):
                for i in self.inputs:
                    with m.Case(i):
                        m.d.comb += [
                            out.i.payload.eq(self.input(i).payload),
                            out.i.valid.eq(valid[o] & self.input(i).valid & moves[i]),
                        ]
            m.d.comb += [
                self._room[o].eq(out.i.ready),
                done[o].eq(out.i.valid & out.i.payload.last),
            ]
        return m

    def _build_queues(self, m, current, valid, done):
        """Take ROUTE words from the bus into the queue of their output."""
        beat = self.bus.payload
        word = Signal(ROUTE.shape())
        addressed, target_free, conflict = Signal(), Signal(), Signal()
        m.d.comb += [
            word.as_value().eq(beat.data),
            addressed.eq(
                (beat.kind == Kind.ROUTER)
                & (beat.sub == self.sub)
                & (beat.columns & self.columns).any()
            ),
            self.bus.ready.eq(~addressed | (target_free & ~conflict)),
            target_free.eq(1),
        ]
        take = self.bus.valid & self.bus.ready & addressed

        conflicts = []
        for o in self.outputs:
            here = Signal(name=f"{o.name.lower()}_take")
            m.d.comb += here.eq(take & (word.output == o))
            load = here
            queue = [(valid[o], current[o])]
            if self.depth == 2:
                waits = Signal(name=f"{o.name.lower()}_waits")
                waiting = Signal(_HELD, name=f"{o.name.lower()}_waiting")
                queue.append((waits, waiting))
                load = here & (~valid[o] | done[o])
            with m.If(word.output == o):
                m.d.comb += target_free.eq(~queue[-1][0])
            conflicts += [
                v & (held.input == word.input) & (held.peers != word.peers) for v, held in queue
            ]

            with m.If(done[o]):
                m.d.sync += valid[o].eq(0)
                if self.depth == 2:
                    m.d.sync += [valid[o].eq(waits), current[o].eq(waiting), waits.eq(0)]
            with m.If(load):
                m.d.sync += [
                    current[o].input.eq(word.input),
                    current[o].peers.eq(word.peers),
                    valid[o].eq(1),
                ]
            if self.depth == 2:
                with m.Elif(here):
                    m.d.sync += [
                        waiting.input.eq(word.input),
                        waiting.peers.eq(word.peers),
                        waits.eq(1),
                    ]
        m.d.comb += conflict.eq(Cat(*conflicts).any())

    def _build_moves(self, m, current, valid):
        """Decide for every input whether all outputs of its packet can take a beat."""
        self._room = {o: Signal(name=f"{o.name.lower()}_room") for o in self.outputs}
        moves = {}
        for i in self.inputs:
            selected = {o: valid[o] & (current[o].input == i) for o in self.outputs}
            able = Signal(_PEER_BITS, name=f"{i.name.lower()}_able")
            wanted = Signal(_PEER_BITS, name=f"{i.name.lower()}_wanted")
            ready = Signal(name=f"{i.name.lower()}_moves")
            for o, picks in selected.items():
                with m.If(picks):
                    m.d.comb += [able[o].eq(self._room[o]), wanted.eq(current[o].peers)]
            exist = sum(1 << o for o in self.outputs)
            m.d.comb += [
                ready.eq((wanted != 0) & ((wanted & exist & ~able) == 0)),
                self.input(i).ready.eq(ready),
            ]
            moves[i] = ready
        return moves


__all__ = ["Router"]
