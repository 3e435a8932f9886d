# amaranth: UnusedElaboratable=no
"""The whole machine around an array that hands its operands back: memory to memory by program."""

import functools
import random

import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from axi_memory import AxiMemory, lite_read, lite_write
from helpers import simulate, watch
from test_control import INPUT, OUTPUT, PAGE, PROGRAM, end, fence, memory_words, packet

from neuflow.blocks import dma_model
from neuflow.blocks.config import config_stream
from neuflow.blocks.streams import Narrow, beat_stream
from neuflow.blocks.top import Top
from neuflow.grid import TINY
from neuflow.layout import ACTIVITY, READ, REGISTERS, WRITE, Activity, Error, Kind, Relocate

ADDRESS = {r.name: r.address for r in REGISTERS}


class Loopback(Component):
    """Stand-in for the array: source 0 sends the operand line back, source 1 the rows line."""

    def __init__(self, grid, taps=1):
        self.grid = grid
        self.taps = taps
        columns, wide, lanes = grid.columns, grid.bus_words, grid.lanes
        super().__init__(
            {
                "config": In(config_stream()),
                "rows": In(beat_stream(wide)).array(columns),
                "rows_dest": In(8).array(columns),
                "weights": In(beat_stream(wide)).array(columns),
                "weights_dest": In(8).array(columns),
                "operand": In(beat_stream(lanes)).array(columns),
                "partials": In(beat_stream(lanes)).array(columns),
                "write": Out(beat_stream(lanes)).array(columns),
                "write_source": In(1).array(columns),
                "activity": Out(ACTIVITY.shape()).array(columns),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.config.ready.eq(1)
        for c in range(self.grid.columns):
            m.submodules[f"narrow{c}"] = narrow = Narrow(self.grid.bus_words, self.grid.lanes)
            connect(m, flipped(self.rows[c]), narrow.i)
            m.d.comb += self.weights[c].ready.eq(1)
            m.d.comb += self.activity[c].flags.eq(self.taps << Activity.MAC)
            with m.If(self.write_source[c]):
                connect(m, narrow.o, flipped(self.write[c]))
            with m.Else():
                connect(m, flipped(self.operand[c]), flipped(self.write[c]))
        return m


def descriptor(base, run, counts=(), steps=()):
    values = {"base": base, "run": run}
    for level in range(3):
        values[f"count{level}"] = counts[level] if level < len(counts) else 1
        values[f"step{level}"] = steps[level] if level < len(steps) else 0
    return values


def copy(column, source, target, from_rows=False):
    """Return instructions that copy ``source`` to ``target`` in one column."""
    kind = Kind.READ_ROWS if from_rows else Kind.READ_OPERAND
    read = READ.pack(**source, dest=1)
    write = WRITE.pack(**target, source=int(from_rows))
    return packet(kind, read, 1 << column, relocate=Relocate.INPUT) + packet(
        Kind.WRITE, write, 1 << column, relocate=Relocate.OUTPUT
    )


async def start(ctx, lite, **values):
    """Write registers and start with the interrupt on."""
    settings = {"PROGRAM": PROGRAM, "INPUT": INPUT, "OUTPUT": OUTPUT, "FRAMES": 1, "WATCHDOG": 1000}
    for name, value in (settings | values).items():
        await lite_write(ctx, lite, ADDRESS[name], value)
    await lite_write(ctx, lite, ADDRESS["CONTROL"], 3)


async def registers(ctx, lite):
    """Return all registers by name."""
    return {name: (await lite_read(ctx, lite, address))[0] for name, address in ADDRESS.items()}


@pytest.mark.parametrize("pause", [0.0, 0.3])
def test_program_copies_memory_over_frames(pause):
    print("seed", int(10 * pause))
    rng = random.Random(int(10 * pause))
    dut = Top(TINY, array=Loopback(TINY))
    frames, ring, step = 3, 2, PAGE
    # Flat, transposed, unaligned, word by word; both columns; both sources.
    copies = [
        (0, descriptor(5, 37), descriptor(3, 37), False),
        (1, descriptor(0, 1, (6, 7), (7, 1)), descriptor(400, 42), False),
        (0, descriptor(64, 24), descriptor(101, 3, (8,), (9,)), True),
        (1, descriptor(9, 5, (3, 2), (11, 40)), descriptor(600, 6, (5,), (-6,)), True),
        (0, descriptor(2, 10), descriptor(800, 10), False),
    ]
    program = []
    for k, one in enumerate(copies):
        program += copy(*one) + (fence(3) if k == 1 else [])
    program += packet(Kind.READ_WEIGHTS, READ.pack(**descriptor(0, 16), dest=2), 3)
    words = memory_words(program + end(step, step))
    inputs = [rng.randrange(1 << 16) for _ in range(ring * PAGE)]
    words[INPUT * PAGE : (INPUT + ring) * PAGE] = inputs
    memory = AxiMemory(TINY, dut.m_axi, words, latency=5, pause=pause, interleave=True, seed=7)

    expected = words.copy()
    for frame in range(frames):
        shift = frame % ring * step
        for _, source, target, _ in copies:
            taken = expected[INPUT * PAGE + shift + dma_model.word_addresses(source)]
            expected[OUTPUT * PAGE + shift + dma_model.word_addresses(target)] = taken

    result = {}
    done_pulses = 0

    async def host(ctx):
        await start(ctx, dut.s_axi, FRAMES=frames, RING=ring)
        await ctx.tick().until(dut.irq)
        result.update(await registers(ctx, dut.s_axi))
        await lite_write(ctx, dut.s_axi, ADDRESS["STATUS"], 2)
        assert not ctx.get(dut.irq)

    async def activity(ctx):
        nonlocal done_pulses
        async for _, _, bits in ctx.tick().sample(dut.activity):
            done_pulses += (bits & (0x1_0000_0001 << Activity.WRITE_DONE)).bit_count()

    rules = [functools.partial(watch, stream=stream) for stream in dut.array.write]
    simulate(dut, host, background=[memory.run, activity, *rules])
    assert (memory.words == expected).all()
    assert result["STATUS"] == 2
    assert result["FRAMES_DONE"] == frames
    assert done_pulses == frames * len(copies)
    assert result["CONFIG_WORDS"] == frames * (10 * 7 + 7)
    assert result["MAC_CYCLES"] == 2 * result["CYCLES"]
    assert result["WRITE_BEATS"] == memory.write_beats
    assert result["READ_BEATS"] <= memory.read_beats


@pytest.mark.parametrize("reading", [True, False])
def test_memory_errors_end_in_the_status_register(reading):
    dut = Top(TINY, array=Loopback(TINY))
    words = memory_words(copy(0, descriptor(0, 20), descriptor(0, 20)) + end())
    page = INPUT if reading else OUTPUT
    bad = {(page * PAGE + 8) // TINY.bus_words}
    memory = AxiMemory(TINY, dut.m_axi, words, errors=bad)

    async def host(ctx):
        await start(ctx, dut.s_axi)
        await ctx.tick().until(dut.irq)
        status, _ = await lite_read(ctx, dut.s_axi, ADDRESS["STATUS"])
        error = Error.READ_RESPONSE if reading else Error.WRITE_RESPONSE
        assert status == 2 | error << 8

    simulate(dut, host, background=[memory.run])


def test_missing_operand_hangs_until_the_watchdog():
    dut = Top(TINY, array=Loopback(TINY, taps=0))  # taps would be progress
    write = WRITE.pack(**descriptor(0, 20), source=0)
    memory = AxiMemory(TINY, dut.m_axi, memory_words(packet(Kind.WRITE, write) + end()))

    async def host(ctx):
        await start(ctx, dut.s_axi, WATCHDOG=50)
        await ctx.tick().until(dut.irq)
        assert (await registers(ctx, dut.s_axi))["STATUS"] == 2 | Error.HANG << 8

    simulate(dut, host, background=[memory.run])

