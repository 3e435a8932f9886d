"""The scratchpad: memory of the DMA on the chip, beside the one behind the AXI4 master.

Tensors that fit lie here and do not take the bus. Read and write ports reach it by the same requests
as the arbiter, by word addresses from ``layout.SCRATCHPAD`` on.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.wiring import Component, Out
from amaranth.utils import ceil_log2

from neuflow.blocks.arbiter import memory_members, pick, round_robin
from neuflow.blocks.gate import fires, stay_awake
from neuflow.blocks.ram import Ram
from neuflow.grid import GridConfig

SETTLE = 4
"""Cycles from the last beat's address to the last register: RAM, response, valid falls."""


class Scratchpad(Component):
    """A block RAM of ``scratchpad_words``, shared by the read ports, and by the write ports.

    Members
    -------
    read : requests of the ``3 columns`` read ports.
    response, response_valid : beats for them, as from the arbiter.
    write, data, write_response : requests, beats and acknowledgements of the ``columns`` write ports.
    read_error, write_error : sticky: a burst beyond its end was asked for.
    awake : Out.

    One beat read and one written a cycle; whole bursts, the ports in turn. A beat appears READ cycles
    after its request, one a cycle; the next burst follows without a gap. A write burst's beats are
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
                "read_error": Out(1),
                "write_error": Out(1),
                "awake": Out(1),
            }
        )
        self.beats = grid.scratchpad_words // grid.bus_words
        self.beat_bits = ceil_log2(self.beats)
        self.lanes = [Ram(grid.word_bits, self.beats) for _ in range(grid.bus_words)]

    def elaborate(self, platform):
        m = Module()
        for lane, ram in enumerate(self.lanes):
            m.submodules[f"lane{lane}"] = ram
        reads = self._build_reads(m)
        writes = self._build_writes(m)
        stay_awake(m, self.awake, reads, writes, settle=SETTLE)
        return m

    def _build_turn(self, m: Module, requests, ends, name: str) -> tuple[Signal, Signal, Signal]:
        """Let whole bursts take turns; the one at hand is over when ``ends``.

        Return: whose burst it is (one-hot, 0: none), the beat at hand, beats of the burst after it.
        """
        owner = Signal(len(requests), name=f"{name}_owner")
        burst = requests[0].payload
        address = Signal.like(burst.address, name=f"{name}_beat", reset_less=True)
        left = Signal.like(burst.length, name=f"{name}_left", reset_less=True)
        free, issue = Signal(name=f"{name}_free"), Signal(name=f"{name}_issue")
        valid = Cat(port.valid for port in requests)
        grant = round_robin(m, valid, issue, name)
        m.d.comb += [
            free.eq(~owner.any() | ends),
            issue.eq(free & valid.any()),
            Cat(port.ready for port in requests).eq(Mux(free, grant, 0)),
        ]
        with m.If(free):
            m.d.sync += owner.eq(grant)
        with m.If(issue):
            m.d.sync += [
                address.eq(pick(grant, [port.payload.address for port in requests])),
                left.eq(pick(grant, [port.payload.length for port in requests])),
            ]
        return owner, address, left

    def _outside(self, address: Signal):
        """Whether a beat address, whose top bit says scratchpad, lies beyond its end."""
        return address[:-1] >= self.beats

    def _build_reads(self, m: Module):
        """Read a beat a cycle of the burst at hand. Return: anything moves."""
        ends = Signal(name="read_ends")
        owner, address, left = self._build_turn(m, list(self.read), ends, "read")
        served = Signal.like(owner, name="served")  # whose beat the RAMs give
        beat = Signal.like(self.response.data, name="response_data", reset_less=True)
        m.d.comb += [ends.eq(left == 0), self.response.data.eq(beat)]
        for ram in self.lanes:
            m.d.comb += [
                ram.read_enable.eq(owner.any()),
                ram.read_address.eq(address[: self.beat_bits]),
            ]
        m.d.sync += [served.eq(owner), self.response_valid.eq(served)]
        with m.If(served.any()):
            m.d.sync += beat.eq(Cat(ram.read_data for ram in self.lanes))
        with m.If(owner.any()):
            with m.If(~ends):
                m.d.sync += [address.eq(address + 1), left.eq(left - 1)]
            with m.If(self._outside(address)):
                m.d.sync += self.read_error.eq(1)
        return owner.any() | fires(*self.read)

    def _build_writes(self, m: Module):
        """Write the beats of the burst at hand as they come. Return: anything moves."""
        moves = Signal(name="write_moves")
        ends = Signal(name="write_ends")
        owner, address, left = self._build_turn(m, list(self.write), ends, "write")
        coming = Signal.like(self.data[0].payload)
        # What the RAMs write. The harness of sim/ logs these four registers, by their names.
        wrote = Signal.like(owner, name="written_by")
        strobe = Signal(self.grid.bus_words, name="write_strobe")
        at = Signal(self.beat_bits, name="write_address", reset_less=True)
        data = Signal(self.grid.bus_bits, name="write_words", reset_less=True)
        ended = Signal()
        m.d.comb += [
            moves.eq((owner & Cat(port.valid for port in self.data)).any()),
            ends.eq(moves & (left == 0)),
            Cat(port.ready for port in self.data).eq(owner),
            coming.as_value().eq(pick(owner, [port.payload.as_value() for port in self.data])),
        ]
        m.d.sync += [
            strobe.eq(Mux(moves, coming.strobe, 0)),
            ended.eq(ends),
        ]
        m.d.comb += self.write_response.eq(Mux(ended, wrote, 0))
        with m.If(moves):
            m.d.sync += [wrote.eq(owner), data.eq(coming.data), at.eq(address)]
            with m.If(~ends):
                m.d.sync += [address.eq(address + 1), left.eq(left - 1)]
            with m.If(self._outside(address)):
                m.d.sync += self.write_error.eq(1)
        for lane, ram in enumerate(self.lanes):
            m.d.comb += [
                ram.write_enable.eq(strobe[lane]),
                ram.write_address.eq(at),
                ram.write_data.eq(data.word_select(lane, self.grid.word_bits)),
            ]
        return moves | fires(*self.write)


__all__ = ["Scratchpad"]
