"""The machine under cocotb: memory on ``m_axi``, a host on ``s_axi``, stalls on every channel."""

from __future__ import annotations

import logging
import random
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam
from numpy.typing import NDArray

from neuflow.layout import INSTRUCTION, REGISTERS, Kind, Opcode, Relocate
from sim.streams import PERIOD_NS, RESET_CYCLES

ADDRESS = {register.name: register.address for register in REGISTERS}
START, INTERRUPT = 1, 2
"""Bits of CONTROL."""
BUSY, DONE = 1, 2
"""Bits of STATUS; the error code is in bits 15:8."""
PAGE_BYTES = 4096
PAGE_WORDS = PAGE_BYTES // 2
MEMORY_BYTES = 1 << 18


def instruction(opcode: Opcode, **values: int) -> list[int]:
    """Return an instruction; fields not given are 0."""
    fields = dict.fromkeys((field.name for field in INSTRUCTION.fields), 0)
    return INSTRUCTION.pack(**fields | {"opcode": opcode} | values)


def config(
    kind: Kind, words: Sequence[int], columns: int, sub: int = 0, relocate: int = Relocate.NONE
) -> list[int]:
    """Return a CONFIG instruction with its packet."""
    head = instruction(
        Opcode.CONFIG, kind=kind, sub=sub, columns=columns, length=len(words), relocate=relocate
    )
    return [*head, *words]


def end(input_step: int = 0, output_step: int = 0) -> list[int]:
    """Return END; steps in words."""
    return [*instruction(Opcode.END), input_step, output_step]


def stalls(rng: random.Random, share: float) -> Iterator[bool]:
    """Yield for each cycle whether a channel pauses."""
    while True:
        yield rng.random() < share


class Machine:
    """The machine, its memory and its host.

    ``pause``: share of cycles in which a channel pauses, on both buses. ``fail_reads`` and
    ``fail_writes``: byte addresses of beats that the memory answers with SLVERR.
    """

    def __init__(
        self, dut: Any, pause: float = 0.0,
        fail_reads: Collection[int] = (), fail_writes: Collection[int] = (),
    ):  # fmt: skip
        cocotb.log.info("seed %d, pauses %.1f", cocotb.RANDOM_SEED, pause)
        for name in ("cocotb.neuflow_top.m_axi", "cocotb.neuflow_top.s_axi"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self.dut = dut
        reset = {"reset": dut.aresetn, "reset_active_level": False}
        self.ram = AxiRam(AxiBus.from_prefix(dut, "m_axi"), dut.aclk, size=MEMORY_BYTES, **reset)
        self.host = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), dut.aclk, **reset)
        self._fail(fail_reads, fail_writes)
        rng = random.Random(cocotb.RANDOM_SEED)
        for port in (self.ram, self.host):
            for channel in ("aw", "w", "b"):
                side = getattr(port.write_if, f"{channel}_channel")
                side.set_pause_generator(stalls(rng, pause))
            for channel in ("ar", "r"):
                side = getattr(port.read_if, f"{channel}_channel")
                side.set_pause_generator(stalls(rng, pause))

    def _fail(self, reads: Collection[int], writes: Collection[int]) -> None:
        """Let the memory refuse beats: it answers SLVERR where an access raises."""
        size = len(self.dut.m_axi_rdata) // 8
        memory = self.ram

        async def read(address: int, length: int) -> bytes:
            if address in reads:
                raise ValueError("planted read error")
            return memory.read(address, length)

        async def write(address: int, data: bytes) -> None:
            if address // size * size in writes:
                raise ValueError("planted write error")
            memory.write(address, data)

        memory.read_if._read = read
        memory.write_if._write = write

    def store(self, address: int, words: NDArray[Any] | Sequence[int]) -> None:
        """Put 16-bit words into memory at a byte address."""
        self.ram.write(address, (np.asarray(words, np.int64) & 0xFFFF).astype("<u2").tobytes())

    def words(self) -> NDArray[np.int16]:
        """Return the whole memory as 16-bit words."""
        return np.frombuffer(self.ram.read(0, MEMORY_BYTES), "<i2").copy()

    def load(self, address: int, program: Sequence[int]) -> None:
        """Put a program's 32-bit words into memory at a byte address."""
        self.ram.write(address, np.array(program, "<u4").tobytes())

    async def reset(self) -> None:
        """Start the clock and reset."""
        self.dut.aresetn.value = 0
        # The memory's model leaves X where nothing is valid yet, but the ID says which port's ready
        # is shown.
        self.dut.m_axi_rid.value = 0
        self.dut.m_axi_bid.value = 0
        Clock(self.dut.aclk, PERIOD_NS, unit="ns").start()
        await ClockCycles(self.dut.aclk, RESET_CYCLES)
        self.dut.aresetn.value = 1
        await ClockCycles(self.dut.aclk, RESET_CYCLES)

    async def write(self, name: str, value: int) -> None:
        """Write a register."""
        await self.host.write_dword(ADDRESS[name], value)

    async def read(self, name: str) -> int:
        """Read a register."""
        return int(await self.host.read_dword(ADDRESS[name]))

    async def registers(self) -> dict[str, int]:
        """Read all registers."""
        return {name: await self.read(name) for name in ADDRESS}

    async def run(
        self, program: int, inputs: int, outputs: int, frames: int = 1, ring: int = 0,
        watchdog: int = 5000,
    ) -> dict[str, int]:  # fmt: skip
        """Reset, start at these byte addresses, wait for the interrupt; return all registers."""
        await self.reset()
        for name, address in (("PROGRAM", program), ("INPUT", inputs), ("OUTPUT", outputs)):
            assert address % PAGE_BYTES == 0
            await self.write(name, address // PAGE_BYTES)
        await self.write("FRAMES", frames)
        await self.write("RING", ring)
        await self.write("WATCHDOG", watchdog)
        await self.write("CONTROL", START | INTERRUPT)
        await RisingEdge(self.dut.irq)
        found = await self.registers()
        assert not found["STATUS"] & BUSY
        await self.write("STATUS", DONE)
        await ClockCycles(self.dut.aclk, 2)
        assert not int(self.dut.irq.value), "the interrupt stays after its cause is cleared"
        return found


__all__ = ["BUSY", "DONE", "PAGE_BYTES", "PAGE_WORDS", "Machine", "config", "end", "instruction"]
