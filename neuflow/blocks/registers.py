"""The register file behind the AXI4-Lite slave. ``layout.REGISTERS`` is its only truth."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from neuflow.blocks.axi import OKAY, SLVERR, axi4_lite
from neuflow.grid import GridConfig
from neuflow.layout import HARDWARE_VERSION, IDENTITY, REGISTERS, Register

SPECIAL = ("CONTROL", "STATUS")
"""Registers with bits of different kinds; all others are values, constants or inputs as a whole."""


def constants(grid: GridConfig) -> dict[str, int]:
    """Return the registers that never change."""
    return {
        "ID": IDENTITY,
        "VERSION": HARDWARE_VERSION,
        "GRID_HASH": int(grid.hash()[:8], 16),
        "PARAMETERS": grid.columns
        | grid.maps << 8
        | grid.pixels << 16
        | grid.bus_words << 24,
    }


def value_registers() -> list[Register]:
    """Return the registers that the host writes and the control unit reads, 32 bits each."""
    return [r for r in REGISTERS if r.access == "rw" and r.name not in SPECIAL]


def counter_registers(grid: GridConfig) -> list[Register]:
    """Return the registers that the control unit fills, 32 bits each."""
    return [r for r in REGISTERS if r.access == "ro" and r.name not in constants(grid)]


def member(register: Register) -> str:
    """Return the name of a register's port: ``host_input``, which the host writes, or ``cycles``.

    Without the prefix some would be keywords of Verilog.
    """
    return ("host_" if register.access == "rw" else "") + register.name.lower()


class Registers(Component):
    """AXI4-Lite slave.

    Members
    -------
    axi : In, the slave. Writes follow the byte strobes. An address without a register, and a write
        to a read-only one, answer SLVERR and change nothing.
    start, clear_done : Out, 1 for a cycle: the host wrote 1 to CONTROL bit 0, STATUS bit 1.
    busy, done, error : In, what STATUS shows.
    irq : Out, done and enabled.
    ``member(register)`` : Out for those the host writes (to be kept still while busy), In for
        those the control unit fills.

    A write takes 1 cycle once address and data are there, a read 1 cycle; one of each a cycle.
    ``start`` and ``clear_done`` come in the cycle after the write is taken.
    """

    def __init__(self, grid: GridConfig):
        self.grid = grid
        super().__init__(
            {
                "axi": In(axi4_lite()),
                "start": Out(1),
                "clear_done": Out(1),
                "busy": In(1),
                "done": In(1),
                "error": In(8),
                "irq": Out(1),
                **{member(r): Out(32) for r in value_registers()},
                **{member(r): In(32) for r in counter_registers(grid)},
            }
        )

    def elaborate(self, platform):
        m = Module()
        enabled = Signal()
        m.d.comb += self.irq.eq(self.done & enabled)
        self._build_writes(m, enabled)
        self._build_reads(m, enabled)
        return m

    def _build_writes(self, m: Module, enabled: Signal) -> None:
        aw, w, b = self.axi.aw, self.axi.w, self.axi.b
        accept = Signal()
        known = Signal()
        starts = Signal()
        clears = Signal()
        m.d.sync += [self.start.eq(starts), self.clear_done.eq(clears)]
        mask = Cat(bit.replicate(8) for bit in w.strb)
        m.d.comb += [
            accept.eq(aw.valid & w.valid & (~b.valid | b.ready)),
            aw.ready.eq(accept),
            w.ready.eq(accept),
        ]

        with m.Switch(aw.addr[2:]):
            for register in value_registers():
                with m.Case(register.address >> 2):
                    value = getattr(self, member(register))
                    m.d.comb += known.eq(1)
                    with m.If(accept):
                        m.d.sync += value.eq((value & ~mask) | (w.data & mask))
            with m.Case(_address("CONTROL") >> 2):
                m.d.comb += [known.eq(1), starts.eq(accept & w.strb[0] & w.data[0])]
                with m.If(accept & w.strb[0]):
                    m.d.sync += enabled.eq(w.data[1])
            with m.Case(_address("STATUS") >> 2):
                m.d.comb += [known.eq(1), clears.eq(accept & w.strb[0] & w.data[1])]

        with m.If(accept):
            m.d.sync += [b.valid.eq(1), b.resp.eq(Mux(known, OKAY, SLVERR))]
        with m.Elif(b.ready):
            m.d.sync += b.valid.eq(0)

    def _build_reads(self, m: Module, enabled: Signal) -> None:
        ar, r = self.axi.ar, self.axi.r
        values = {
            **{name: Const(value, 32) for name, value in constants(self.grid).items()},
            "CONTROL": Cat(Const(0, 1), enabled),
            "STATUS": Cat(self.busy, self.done, Const(0, 6), self.error),
        }
        value = Signal(32)
        known = Signal(init=1)
        with m.Switch(ar.addr[2:]):
            for register in REGISTERS:
                with m.Case(register.address >> 2):
                    if register.name in values:
                        m.d.comb += value.eq(values[register.name])
                    else:
                        m.d.comb += value.eq(getattr(self, member(register)))
            with m.Default():
                m.d.comb += known.eq(0)

        m.d.comb += ar.ready.eq(~r.valid | r.ready)
        with m.If(ar.ready):
            m.d.sync += r.valid.eq(ar.valid)
        with m.If(ar.ready & ar.valid):
            m.d.sync += [r.data.eq(value), r.resp.eq(Mux(known, OKAY, SLVERR))]


def _address(name: str) -> int:
    return next(r.address for r in REGISTERS if r.name == name)
