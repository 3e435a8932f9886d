"""The scratchpad: memory of the DMA on the chip, beside the one behind the AXI4 master.

Tensors that fit lie here and do not take the bus. Read and write ports reach it by the same requests
as the arbiter, by word addresses from ``layout.SCRATCHPAD`` on.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out, flipped
from amaranth.utils import ceil_log2

from neuflow.blocks.arbiter import memory_members, pick, round_robin
from neuflow.blocks.dma_address import request_stream, response_stream, write_layout
from neuflow.blocks.gate import fires, stay_awake
from neuflow.blocks.place import place
from neuflow.blocks.ram import Ram
from neuflow.blocks.streams import wire
from neuflow.grid import SCRATCHPAD_BANKS, GridConfig

BANKS = SCRATCHPAD_BANKS

SETTLE = 4
"""Cycles from the last beat's address to the last register: RAM, response, valid falls."""


class Turns(Component):
    """Turns of some ports at ``BANKS`` banks, to read or to write: a beat a cycle at each of them.

    Members
    -------
    request : In, bursts of the ``ports`` ports; one is taken a cycle.
    valid : In, one bit a port: the beat of its burst is there.
    ready : Out, one bit a port: the beat of its burst moves, if it is there.
    serves : Out, one-hot for each bank: port whose beat moves there. at : Out, its place in the bank.
    ends : Out, one bit a port: its burst's last beat moves.
    outside : Out, a beat moves that lies beyond the scratchpad's end.
    moves : Out, 0: no register changes.

    Even beats lie in bank 0, odd ones in bank 1. A *slot* for each bank holds a burst, which visits the
    banks in turn: where two slots meet at a bank one waits a cycle, then they keep out of each other's
    way. Who waited goes first when they meet next. Whole bursts, the ports in turn; those of one port
    are never in both slots, so that its beats come in order. A burst follows without a gap.
    """

    def __init__(self, grid: GridConfig, ports: int):
        self.beats = grid.scratchpad_words // grid.bus_words
        row = ceil_log2(self.beats // BANKS)
        super().__init__(
            {
                "request": In(request_stream(grid)).array(ports),
                "valid": In(ports),
                "ready": Out(ports),
                "serves": Out(ports).array(BANKS),
                "at": Out(row).array(BANKS),
                "ends": Out(ports),
                "outside": Out(1),
                "moves": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bursts = [port.payload for port in self.request]
        owner = [Signal.like(self.valid, name=f"owner{k}") for k in range(BANKS)]
        burst = [Signal.like(bursts[0], name=f"burst{k}", reset_less=True) for k in range(BANKS)]
        beat, left = [one.address for one in burst], [one.length for one in burst]
        may, moves, ends, free = (
            [Signal(name=f"{name}{k}") for k in range(BANKS)]
            for name in ("may", "moves", "ends", "free")
        )

        # One of two slots that meet waits.
        first = Signal()
        meet = Signal()
        m.d.comb += meet.eq(owner[0].any() & owner[1].any() & (beat[0][0] == beat[1][0]))
        m.d.sync += first.eq(first ^ meet)
        for k in range(BANKS):
            m.d.comb += [
                may[k].eq(owner[k].any() & ~(meet & (first != k))),
                moves[k].eq(may[k] & (owner[k] & self.valid).any()),
                ends[k].eq(moves[k] & (left[k] == 0)),
                free[k].eq(~owner[k].any() | ends[k]),
            ]

        grant = self._build_grant(m, owner, free)
        coming = pick(grant, [one.as_value() for one in bursts])
        for k, taken in enumerate((grant, Mux(free[0], 0, grant))):
            with m.If(free[k]):
                m.d.sync += [owner[k].eq(taken), burst[k].eq(coming)]
            with m.Elif(moves[k]):
                m.d.sync += [beat[k].eq(beat[k] + 1), left[k].eq(left[k] - 1)]

        self._build_banks(m, owner, beat, may, moves)
        m.d.comb += [
            self.ends.eq(Mux(ends[0], owner[0], 0) | Mux(ends[1], owner[1], 0)),
            self.moves.eq(Cat(owner).any() | fires(*self.request)),
        ]
        return m

    def _build_grant(self, m: Module, owner: list[Signal], free: list[Signal]) -> Signal:
        """Take a burst, of a port without one, into a slot that is free; return whose (one-hot)."""
        busy, asks = (Signal.like(self.valid, name=name) for name in ("busy", "asks"))
        issue = Signal()
        grant = round_robin(m, asks, issue, "turn")
        m.d.comb += [
            busy.eq(Mux(free[0], 0, owner[0]) | Mux(free[1], 0, owner[1])),
            asks.eq(Mux(Cat(free).any(), Cat(port.valid for port in self.request) & ~busy, 0)),
            issue.eq(asks.any()),
            Cat(port.ready for port in self.request).eq(grant),
        ]
        return grant

    def _build_banks(self, m, owner, beat, may, moves) -> None:
        """Say what moves at each bank."""
        odd = [address[0] for address in beat]
        m.d.comb += [
            self.ready.eq(Mux(may[0], owner[0], 0) | Mux(may[1], owner[1], 0)),
            # The top bit says scratchpad.
            self.outside.eq(
                Cat(moves[k] & (beat[k][:-1] >= self.beats) for k in range(BANKS)).any()
            ),
        ]
        for bank in range(BANKS):
            here = [(odd[k] == bank) for k in range(BANKS)]
            m.d.comb += [
                self.serves[bank].eq(
                    Mux(moves[0] & here[0], owner[0], 0) | Mux(moves[1] & here[1], owner[1], 0)
                ),
                self.at[bank].eq(Mux(may[0] & here[0], beat[0][1:], beat[1][1:])),
            ]


class Bank(Component):
    """Half of the scratchpad: a memory a word of a beat, and their registers.

    Members
    -------
    read, read_at : In, one-hot: for whom the beat of which place is read. answers, beat : Out, the
        same 2 cycles later, and the beat.
    write, write_at, coming : In, one-hot: whose beat goes to which place; the beat.
    ends : In, it is its burst's last. done : Out, the same 1 cycle later, one-hot.
    """

    def __init__(self, grid: GridConfig, depth: int):
        self.grid = grid
        reads, at = 3 * grid.columns, ceil_log2(depth)
        super().__init__(
            {
                "read": In(reads),
                "read_at": In(at),
                "answers": Out(reads),
                "beat": Out(grid.bus_bits),
                "write": In(grid.columns),
                "write_at": In(at),
                "coming": In(write_layout(grid)),
                "ends": In(1),
                "done": Out(grid.columns),
            }
        )
        self.lanes = [Ram(grid.word_bits, depth) for _ in range(grid.bus_words)]

    def elaborate(self, platform):
        m = Module()
        served = Signal.like(self.read)  # whose beat the RAMs give
        m.d.sync += [served.eq(self.read), self.answers.eq(served)]
        with m.If(served.any()):
            m.d.sync += self.beat.eq(Cat(ram.read_data for ram in self.lanes))

        # What the RAMs write. The harness of sim/ logs these four registers, by their names.
        wrote = Signal.like(self.write, name="written_by")
        strobe = Signal(self.grid.bus_words, name="write_strobe")
        at = Signal.like(self.write_at, name="write_address", reset_less=True)
        data = Signal(self.grid.bus_bits, name="write_words", reset_less=True)
        ended = Signal()
        m.d.comb += self.done.eq(Mux(ended, wrote, 0))
        m.d.sync += [ended.eq(self.ends), strobe.eq(Mux(self.write.any(), self.coming.strobe, 0))]
        with m.If(self.write.any()):
            m.d.sync += [wrote.eq(self.write), at.eq(self.write_at), data.eq(self.coming.data)]

        for lane, ram in enumerate(self.lanes):
            m.submodules[f"lane{lane}"] = ram
            m.d.comb += [
                ram.read_enable.eq(self.read.any()),
                ram.read_address.eq(self.read_at),
                ram.write_enable.eq(strobe[lane]),
                ram.write_address.eq(at),
                ram.write_data.eq(data.word_select(lane, self.grid.word_bits)),
            ]
        return m


class Scratchpad(Component):
    """A block RAM of ``scratchpad_words``, shared by the read ports, and by the write ports.

    Members
    -------
    read : requests of the ``3 columns`` read ports.
    response, response_valid : of each bank, beats for them, as from the arbiter; a port gets one of
        one bank at a time.
    write, data, write_response : requests, beats and acknowledgements of the ``columns`` write ports.
    read_error, write_error : sticky: a burst beyond its end was asked for.
    awake : Out.

    ``BANKS`` beats read and as many written a cycle, of different ports: see :class:`Turns`. A beat
    appears READ cycles after its request, one a cycle if none waits. A write burst's beats are
    taken from the cycle after its request on, and acknowledged 1 cycle after the last: what is read
    from then on is what was written.
    """

    READ = 3

    def __init__(self, grid: GridConfig):
        self.grid = grid
        reads = 3 * grid.columns
        super().__init__(
            {
                **memory_members(grid, reads),
                "response": Out(response_stream(grid).members["payload"].shape).array(BANKS),
                "response_valid": Out(reads).array(BANKS),
                "read_error": Out(1),
                "write_error": Out(1),
                "awake": Out(1),
            }
        )

    def answers(self, port: int) -> list[tuple[Value, Value]]:
        """Return valid and payload of all that brings beats to a read port."""
        return [(self.response_valid[bank][port], self.response[bank]) for bank in range(BANKS)]

    def elaborate(self, platform):
        m = Module()
        grid = self.grid
        m.submodules.reads = reads = Turns(grid, len(self.read))
        m.submodules.writes = writes = Turns(grid, len(self.write))
        for turns, requests in ((reads, self.read), (writes, self.write)):
            for inner, outer in zip(turns.request, requests, strict=True):
                wire(m, flipped(outer), inner)
        banks = [Bank(grid, grid.scratchpad_words // grid.bus_words // BANKS) for _ in range(BANKS)]
        for k, bank in enumerate(banks):
            place(m, f"bank{k}", "scratchpad_bank", bank, platform)
            beats = [port.payload.as_value() for port in self.data]
            m.d.comb += [
                bank.read.eq(reads.serves[k]),
                bank.read_at.eq(reads.at[k]),
                self.response[k].data.eq(bank.beat),
                self.response_valid[k].eq(bank.answers),
                bank.write.eq(writes.serves[k]),
                bank.write_at.eq(writes.at[k]),
                bank.coming.as_value().eq(pick(writes.serves[k], beats)),
                bank.ends.eq((writes.serves[k] & writes.ends).any()),
            ]
        m.d.comb += [
            reads.valid.eq(~0),
            writes.valid.eq(Cat(port.valid for port in self.data)),
            Cat(port.ready for port in self.data).eq(writes.ready),
            self.write_response.eq(banks[0].done | banks[1].done),
        ]
        for turns, error in ((reads, self.read_error), (writes, self.write_error)):
            with m.If(turns.outside):
                m.d.sync += error.eq(1)
        stay_awake(m, self.awake, reads.moves, writes.moves, settle=SETTLE)
        return m


__all__ = ["BANKS", "Bank", "Scratchpad", "Turns"]
