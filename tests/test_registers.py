# amaranth: UnusedElaboratable=no
"""The AXI4-Lite slave against layout.REGISTERS."""

import hashlib

import pytest
from axi_memory import lite_read, lite_write
from helpers import simulate

from neuflow.blocks.axi import OKAY, SLVERR
from neuflow.blocks.registers import Registers, counter_registers, member, value_registers
from neuflow.grid import TINY, VIRTEX6
from neuflow.layout import HARDWARE_VERSION, IDENTITY, REGISTERS

ADDRESS = {r.name: r.address for r in REGISTERS}

MAPS = {0x0002_0000: "25c7e95d7bfdc3f6"}
"""Version -> digest of names, addresses and access of its registers. Add a line, change none."""


def test_the_version_moves_with_the_register_map():
    registers = repr([(r.name, r.address, r.access) for r in REGISTERS])
    digest = hashlib.sha256(registers.encode()).hexdigest()[:16]
    assert MAPS.get(HARDWARE_VERSION) == digest, "registers have changed: HARDWARE_VERSION must too"


@pytest.mark.parametrize("grid", [TINY, VIRTEX6], ids=lambda grid: grid.name)
def test_constants_identify_the_grid(grid):
    dut = Registers(grid)
    want = {
        "ID": IDENTITY,
        "VERSION": HARDWARE_VERSION,
        "GRID_HASH": int(grid.hash(), 16) >> 256 - 32,
        "PARAMETERS": grid.columns | grid.maps << 8 | grid.pixels << 16 | grid.bus_words << 24,
    }

    async def host(ctx):
        for name, value in want.items():
            assert await lite_read(ctx, dut.axi, ADDRESS[name]) == (value, OKAY)
            assert await lite_write(ctx, dut.axi, ADDRESS[name], 5) == SLVERR
            assert await lite_read(ctx, dut.axi, ADDRESS[name]) == (value, OKAY)

    simulate(dut, host)


def test_every_value_register_holds_what_is_written():
    dut = Registers(TINY)

    async def host(ctx):
        for k, register in enumerate(value_registers()):
            assert await lite_write(ctx, dut.axi, register.address, 0x1111_1111 * (k + 1)) == OKAY
        for k, register in enumerate(value_registers()):
            value = 0x1111_1111 * (k + 1)
            assert await lite_read(ctx, dut.axi, register.address) == (value, OKAY)
            assert ctx.get(getattr(dut, member(register))) == value

    assert {r.name for r in value_registers()} >= {"PROGRAM", "INPUT", "OUTPUT", "FRAMES", "RING"}
    simulate(dut, host)


def test_byte_strobes_write_only_their_bytes():
    dut = Registers(TINY)

    async def host(ctx):
        await lite_write(ctx, dut.axi, ADDRESS["FRAMES"], 0xAABB_CCDD)
        await lite_write(ctx, dut.axi, ADDRESS["FRAMES"], 0x1122_3344, strobe=0b0101)
        assert await lite_read(ctx, dut.axi, ADDRESS["FRAMES"]) == (0xAA22_CC44, OKAY)

    simulate(dut, host)


def test_every_counter_is_readable_and_read_only():
    dut = Registers(TINY)

    async def host(ctx):
        for k, register in enumerate(counter_registers(TINY)):
            ctx.set(getattr(dut, member(register)), 0x8000_0000 + k)
        for k, register in enumerate(counter_registers(TINY)):
            assert await lite_write(ctx, dut.axi, register.address, 0) == SLVERR
            assert await lite_read(ctx, dut.axi, register.address) == (0x8000_0000 + k, OKAY)

    simulate(dut, host)


def test_addresses_without_a_register_answer_with_an_error():
    dut = Registers(TINY)

    async def host(ctx):
        for address in (max(ADDRESS.values()) + 4, 0xFFC):
            assert (await lite_read(ctx, dut.axi, address))[1] == SLVERR
            assert await lite_write(ctx, dut.axi, address, 1) == SLVERR

    simulate(dut, host)


def test_start_pulses_once_and_reads_zero():
    dut = Registers(TINY)
    pulses = []

    async def count(ctx):
        async for _, _, start, clear in ctx.tick().sample(dut.start, dut.clear_done):
            pulses.append((start, clear))

    async def host(ctx):
        await lite_write(ctx, dut.axi, ADDRESS["CONTROL"], 3)
        assert await lite_read(ctx, dut.axi, ADDRESS["CONTROL"]) == (2, OKAY)
        await lite_write(ctx, dut.axi, ADDRESS["STATUS"], 2)
        await lite_write(ctx, dut.axi, ADDRESS["STATUS"], 0)

    simulate(dut, host, background=[count])
    assert sum(start for start, _ in pulses) == 1
    assert sum(clear for _, clear in pulses) == 1


def test_status_and_interrupt():
    dut = Registers(TINY)

    async def host(ctx):
        ctx.set(dut.busy, 1)
        assert await lite_read(ctx, dut.axi, ADDRESS["STATUS"]) == (1, OKAY)
        ctx.set(dut.busy, 0)
        ctx.set(dut.done, 1)
        ctx.set(dut.error, 4)
        assert await lite_read(ctx, dut.axi, ADDRESS["STATUS"]) == (0x402, OKAY)
        assert not ctx.get(dut.irq)
        await lite_write(ctx, dut.axi, ADDRESS["CONTROL"], 2)
        assert ctx.get(dut.irq)
        ctx.set(dut.done, 0)
        assert not ctx.get(dut.irq)

    simulate(dut, host)


def test_responses_wait_for_the_host():
    dut = Registers(TINY)

    async def host(ctx):
        for channel in (dut.axi.aw, dut.axi.ar):
            ctx.set(channel.addr, ADDRESS["FRAMES"])
            ctx.set(channel.valid, 1)
        ctx.set(dut.axi.w.valid, 1)
        ctx.set(dut.axi.w.strb, 15)
        await ctx.tick().repeat(4)
        # The first answers are held, so the second requests are not taken.
        for channel in (dut.axi.aw, dut.axi.w, dut.axi.ar):
            assert not ctx.get(channel.ready)
        assert ctx.get(dut.axi.b.valid)
        assert ctx.get(dut.axi.r.valid)
        assert ctx.get(dut.axi.r.data) == 0

    simulate(dut, host)
