"""The arbiter: all DMA ports and the program fetch share one AXI4 master."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Member, Out
from amaranth.utils import ceil_log2

from neuflow.blocks.axi import axi4, beat_bits, read_ports
from neuflow.blocks.choose import select
from neuflow.blocks.dma_address import (
    BURSTS,
    READ_BEATS,
    ROWS_TURNS,
    WRITES,
    request_stream,
    response_stream,
    write_stream,
)
from neuflow.blocks.queue import Queue
from neuflow.blocks.streams import Slice
from neuflow.grid import GridConfig


def round_robin(m: Module, requests: Value, taken: Signal, name: str) -> Signal:
    """Return a one-hot grant among ``requests`` (0 if none); each turn starts after the last taken.

    ``taken`` says that the grant of this cycle is used.
    """
    count = len(requests)
    after = Signal(count, name=f"{name}_after")  # ports behind the one that was served last
    behind = Signal(count, name=f"{name}_behind")
    chosen = Signal(count, name=f"{name}_chosen")
    grant = Signal(count, name=f"{name}_grant")
    m.d.comb += [
        behind.eq(requests & after),
        chosen.eq(Mux(behind.any(), behind, requests)),
        grant.eq(chosen & (~chosen + 1)),
    ]
    with m.If(taken):
        m.d.sync += after.eq(~(grant | (grant - 1)))
    return grant


def pick(grant: Value, values: list[Value]) -> Value:
    """Return the value that the one-hot ``grant`` names, 0 if none."""
    result: Value = Const(0, len(values[0]))
    for k, value in enumerate(values):
        result = result | Mux(grant[k], value, 0)
    return result


def number_of(grant: Value) -> Value:
    """Return the number of the bit that is set in the one-hot ``grant``.

    For ``select``, which takes half the look-up tables of ``pick``, of what is as wide as a beat.
    """
    count = len(grant)
    return Cat(
        Cat(grant[k] for k in range(count) if k >> bit & 1).any() for bit in range(ceil_log2(count))
    )


def memory_members(grid: GridConfig, reads: int) -> dict[str, Member]:
    """Return what DMA ports ask of a memory: see :class:`Arbiter`; ``reads``: its read ports."""
    return {
        "read": In(request_stream(grid)).array(reads),
        "write": In(request_stream(grid)).array(grid.columns),
        "data": In(write_stream(grid)).array(grid.columns),
        "write_response": Out(grid.columns),
    }


class Arbiter(Component):
    """Share one AXI4 master between the read ports, the program fetch and the write ports.

    Members
    -------
    read : requests of the ``3 columns + 1`` read ports (rows, weights, operand of each column; the
        program fetch last); ID = index.
    response, response_valid : beats for the read ports, which must take them at once; the payload
        is common, valid has one bit a port.
    write, data : requests and beats of the ``columns`` write ports; ID = column.
    write_response : one bit a write port: a burst is acknowledged.
    axi : the master.
    read_error, write_error : sticky: a response other than OKAY or EXOKAY. The program fetch is
        left out: it reads ahead, beyond the program's end; its beats carry ``error`` instead.
    read_beat, write_beat : 1 for a cycle, 1 cycle after a beat moved.

    Reads: the program fetch first (it asks for at most a word a cycle, and every unit waits for
    its configuration), then rows (arrays wait for those of a first group, while weights are mostly
    needed later; a row buffer that is full asks for none), with operands in turn for every other
    burst (drains wait for them as arrays do for rows), and any other after ``ROWS_TURNS`` of them;
    then all others in turn, which goes on where it was before the rows; one address a cycle.
    No burst is asked for while ``READ_BEATS`` beats or more are under way, and at most ``BURSTS``
    bursts are. Writes: one address a cycle, in turn; up to ``WRITES`` addresses are out before their
    data, which follow without a gap. An address appears 1 cycle after its request, a beat 1 cycle
    after it came or was offered. Deterministic.
    """

    LATENCY = 1

    def __init__(self, grid: GridConfig):
        self.grid = grid
        reads = read_ports(grid)
        super().__init__(
            {
                **memory_members(grid, reads),
                "response": Out(response_stream(grid).members["payload"].shape),
                "response_valid": Out(reads),
                "axi": Out(axi4(grid)),
                "read_error": Out(1),
                "write_error": Out(1),
                "read_beat": Out(1),
                "write_beat": Out(1),
            }
        )

    def answers(self, port: int) -> list[tuple[Value, Value]]:
        """Return valid and payload of all that brings beats to a read port."""
        return [(self.response_valid[port], self.response)]

    def elaborate(self, platform):
        m = Module()
        self._build_read_addresses(m)
        self._build_read_data(m)
        self._build_writes(m)
        self._build_write_responses(m)
        return m

    def _address(self, beat: Value) -> Value:
        """Return the byte address of a beat."""
        return Cat(Const(0, ceil_log2(self.grid.bus_bits // 8)), beat[: beat_bits(self.grid)])

    def _build_read_addresses(self, m: Module) -> None:
        ar, r = self.axi.ar, self.axi.r
        count = len(self.read)
        free = Signal()
        issue = Signal()
        finish = Signal()
        bursts = [port.payload for port in self.read]
        requests = Cat(port.valid for port in self.read)
        fetch = self.read[-1].valid

        # Judged by the counts of a cycle ago: one burst may have been asked for since. Its beats
        # count one more cycle later, so that two additions do not follow the grant.
        under_way = Signal(range(BURSTS + 1))
        beats = Signal(range(READ_BEATS + 3 * self.grid.burst_beats + 1))
        asked = Signal(range(self.grid.burst_beats + 1))
        opened = Signal()
        length = Signal.like(bursts[0].length)
        m.d.sync += [
            under_way.eq(under_way + issue - finish),
            asked.eq(Mux(issue, length + 1, 0)),
            beats.eq(beats + asked - self.read_beat),
            opened.eq((under_way < BURSTS - 1) & (beats < READ_BEATS)),
        ]

        rows, operands = (
            Cat(port.valid if k % 3 == of else Const(0, 1) for k, port in enumerate(self.read[:-1]))
            for of in (0, 2)
        )
        streak = Signal(range(ROWS_TURNS + 1))  # bursts of rows before this one, one behind the other
        of_rows = Signal()
        tired = Signal()
        behind = Cat(port.valid & (k % 3 != 0) for k, port in enumerate(self.read[:-1]))
        # Turns of their own: else each burst of rows would be followed by one of the port behind.
        rows_turn = round_robin(m, rows, issue & ~fetch & of_rows, "rows")
        others = Mux(rows.any() & ~tired, operands, behind)
        turn = round_robin(m, others, issue & ~fetch & ~of_rows, "read")
        with m.If(issue & ~fetch):
            m.d.sync += streak.eq(Mux(of_rows, streak + (streak != ROWS_TURNS), 0))
        grant = Signal(count)
        m.d.comb += [
            tired.eq((streak == ROWS_TURNS) & behind.any()),
            of_rows.eq(rows.any() & ~tired & ~((streak != 0) & operands.any())),
            grant.eq(Mux(fetch, 1 << (count - 1), Mux(of_rows, rows_turn, turn))),
            length.eq(pick(grant, [burst.length for burst in bursts])),
            free.eq((~ar.valid | ar.ready) & opened),
            issue.eq(free & requests.any()),
            finish.eq(r.valid & r.last),
            Cat(port.ready for port in self.read).eq(Mux(free, grant, 0)),
        ]
        with m.If(issue):
            m.d.sync += [
                ar.addr.eq(self._address(pick(grant, [burst.address for burst in bursts]))),
                ar.len.eq(length),
                ar.id.eq(pick(grant, [Const(k, len(ar.id)) for k in range(count)])),
                ar.valid.eq(1),
            ]
        with m.Elif(ar.ready):
            m.d.sync += ar.valid.eq(0)

    def _build_read_data(self, m: Module) -> None:
        """A port has room for all it asks for: beats go straight through a register."""
        r = self.axi.r
        select = Cat(r.id == k for k in range(len(self.read)))
        beat = Signal.like(self.response, reset_less=True)
        m.d.comb += [r.ready.eq(1), self.response.eq(beat)]
        m.d.sync += [
            beat.data.eq(r.data),
            beat.error.eq(r.resp[1]),
            self.response_valid.eq(Mux(r.valid, select, 0)),
            self.read_beat.eq(r.valid),
        ]
        with m.If(beat.error & self.response_valid[:-1].any()):
            m.d.sync += self.read_error.eq(1)

    def _build_writes(self, m: Module) -> None:
        aw = self.axi.aw
        free = Signal()
        issue = Signal()
        bursts = [port.payload for port in self.write]
        requests = Cat(port.valid for port in self.write)
        m.submodules.turns = turns = Queue(data.StructLayout({"owner": self.grid.columns}), WRITES)

        grant = round_robin(m, requests, issue, "write")
        m.d.comb += [
            free.eq((~aw.valid | aw.ready) & turns.i.ready),
            issue.eq(free & requests.any()),
            Cat(port.ready for port in self.write).eq(Mux(free, grant, 0)),
            turns.i.valid.eq(issue),
            turns.i.payload.owner.eq(grant),
        ]
        with m.If(issue):
            m.d.sync += [
                aw.addr.eq(self._address(pick(grant, [burst.address for burst in bursts]))),
                aw.len.eq(pick(grant, [burst.length for burst in bursts])),
                aw.id.eq(pick(grant, [Const(k, len(aw.id)) for k in range(len(grant))])),
            ]
        m.d.sync += aw.valid.eq(issue | (aw.valid & ~aw.ready))
        self._build_write_data(m, turns)

    def _build_write_data(self, m: Module, turns: Queue) -> None:
        """Send the beats of the bursts in the order of their addresses."""
        w = self.axi.w
        m.submodules.leaves = leaves = Slice(self.data[0].payload.shape())
        owner = turns.o.payload.owner
        valid = Signal()
        m.d.comb += [
            valid.eq((Cat(port.valid for port in self.data) & owner).any()),
            leaves.i.payload.as_value().eq(
                select([port.payload.as_value() for port in self.data], number_of(owner))
            ),
            leaves.i.valid.eq(turns.o.valid & valid),
            Cat(port.ready for port in self.data).eq(
                Mux(turns.o.valid & leaves.i.ready, owner, 0)
            ),
            turns.o.ready.eq(leaves.i.valid & leaves.i.ready & leaves.i.payload.last),
            w.data.eq(leaves.o.payload.data),
            w.strb.eq(Cat(bit.replicate(2) for bit in leaves.o.payload.strobe)),
            w.last.eq(leaves.o.payload.last),
            w.valid.eq(leaves.o.valid),
            leaves.o.ready.eq(w.ready),
        ]
        m.d.sync += self.write_beat.eq(w.valid & w.ready)

    def _build_write_responses(self, m: Module) -> None:
        b = self.axi.b
        m.d.comb += b.ready.eq(1)
        m.d.sync += self.write_response.eq(
            Cat(b.valid & (b.id == k) for k in range(self.grid.columns))
        )
        with m.If(b.valid & b.resp[1]):
            m.d.sync += self.write_error.eq(1)
