"""The scratchpad: bursts of all ports against an array, turns, timing, errors."""

import dataclasses
import functools
import random

import numpy as np
import pytest
from helpers import Clock, Pace, simulate, until

from neuflow.blocks.scratchpad import Scratchpad
from neuflow.errors import ConfigError
from neuflow.grid import TINY
from neuflow.layout import SCRATCHPAD

BEATS = TINY.scratchpad_words // TINY.bus_words
NEAR = SCRATCHPAD // TINY.bus_words
"""First beat address of the scratchpad."""


async def ask(ctx, *, port, beat, beats):
    """Ask for a burst; return in the cycle after it was taken."""
    ctx.set(port.payload.address, NEAR + beat)
    ctx.set(port.payload.length, beats - 1)
    ctx.set(port.valid, 1)
    await until(ctx, port.ready)
    ctx.set(port.valid, 0)


async def write(ctx, *, dut, column, bursts, pace):
    """Write bursts (beat, data, strobes), each asked for as the port does: data behind, in order."""
    port, data = dut.write[column], dut.data[column]
    for beat, words, strobes in bursts:
        while pace.waits():
            await ctx.tick()
        await ask(ctx, port=port, beat=beat, beats=len(words))
        for k, (word, strobe) in enumerate(zip(words, strobes, strict=True)):
            while pace.waits():
                await ctx.tick()
            ctx.set(data.payload.data, word)
            ctx.set(data.payload.strobe, strobe)
            ctx.set(data.payload.last, k == len(words) - 1)
            ctx.set(data.valid, 1)
            await until(ctx, data.ready)
            ctx.set(data.valid, 0)
        await until(ctx, dut.write_response[column])


async def read(ctx, *, dut, port, bursts, pace):
    for beat, beats in bursts:
        while pace.waits():
            await ctx.tick()
        await ask(ctx, port=dut.read[port], beat=beat, beats=beats)


async def listen(ctx, *, dut, into, clock):
    """Note (cycle, data) of every beat by port; at most one port gets one."""
    async for _, _, valid, data in ctx.tick().sample(dut.response_valid, dut.response.data):
        assert valid.bit_count() <= 1
        if valid:
            into[valid.bit_length() - 1].append((clock.now, data))


def random_bursts(rng, low, high, count):
    for _ in range(count):
        beats = rng.randint(1, TINY.burst_beats)
        yield rng.randint(low, high - beats), beats


def beats_of(words):
    """Return an array of words as beats."""
    beats = words.reshape(-1, TINY.bus_words)
    return [sum(int(word) << 16 * k for k, word in enumerate(beat)) for beat in beats]


@pytest.mark.parametrize("pause", [0.0, 0.4])
def test_ports_read_what_ports_wrote(pause):
    seed = int(10 * pause) + 3
    print("seed", seed)
    rng = random.Random(seed)
    dut, clock = Scratchpad(TINY), Clock()
    model = np.zeros((BEATS, TINY.bus_words), np.int64)
    half = BEATS // TINY.columns
    plan = []
    for column in range(TINY.columns):
        bursts = []
        for beat, beats in random_bursts(rng, column * half, (column + 1) * half, 25):
            words = [[rng.randrange(1 << 16) for _ in range(TINY.bus_words)] for _ in range(beats)]
            strobes = [rng.choice([(1 << TINY.bus_words) - 1, rng.randrange(1 << TINY.bus_words)])
                       for _ in range(beats)]  # fmt: skip
            for k, (row, strobe) in enumerate(zip(words, strobes, strict=True)):
                for lane in range(TINY.bus_words):
                    if strobe >> lane & 1:
                        model[beat + k, lane] = row[lane]
            bursts.append((beat, beats_of(np.array(words)), strobes))
        plan.append(bursts)
    wanted = [list(random_bursts(rng, 0, BEATS, 20)) for _ in dut.read]
    got = [[] for _ in dut.read]

    async def run(ctx):
        while writing:
            await ctx.tick()
        for port, bursts in enumerate(wanted):
            await read(ctx, dut=dut, port=port, bursts=bursts[:1], pace=Pace())
        reading.append(1)

    async def write_all(ctx, *, column):
        await write(ctx, dut=dut, column=column, bursts=plan[column], pace=Pace(pause, seed + column))
        writing.remove(column)

    async def read_all(ctx, *, port):
        while not reading:
            await ctx.tick()
        await read(ctx, dut=dut, port=port, bursts=wanted[port][1:], pace=Pace(pause, seed + port))
        await ctx.tick().repeat(TINY.burst_beats * len(dut.read) + 8)

    writing, reading = list(range(TINY.columns)), []
    simulate(
        dut, run,
        *(functools.partial(write_all, column=c) for c in range(TINY.columns)),
        *(functools.partial(read_all, port=k) for k in range(len(dut.read))),
        background=[clock.run, functools.partial(listen, dut=dut, into=got, clock=clock)],
    )  # fmt: skip
    for bursts, beats in zip(wanted, got, strict=True):
        expected = [data for beat, n in bursts for data in beats_of(model[beat : beat + n])]
        assert [data for _, data in beats] == expected


def test_a_beat_a_cycle_and_bursts_in_turn():
    dut, clock, got = Scratchpad(TINY), Clock(), [[] for _ in range(3 * TINY.columns)]
    first = []

    async def ask_twice(ctx, *, port):
        for _ in range(2):
            await ask(ctx, port=dut.read[port], beat=8 * port, beats=4)
            first.append(clock.now)

    async def wait(ctx):
        await ctx.tick().repeat(60)

    simulate(
        dut, wait, *(functools.partial(ask_twice, port=k) for k in range(3)),
        background=[clock.run, functools.partial(listen, dut=dut, into=got, clock=clock)],
    )  # fmt: skip
    order = sorted((time, port) for port, beats in enumerate(got) for time, _ in beats)
    assert [port for _, port in order] == [0] * 4 + [1] * 4 + [2] * 4 + [0] * 4 + [1] * 4 + [2] * 4
    assert [time - min(first) for time, _ in order] == list(range(Scratchpad.READ, Scratchpad.READ + 24))


@pytest.mark.parametrize("writes", [False, True])
def test_a_burst_beyond_the_end_is_an_error(writes):
    dut = Scratchpad(TINY)

    async def run(ctx):
        for beat, error in ((BEATS - 2, 0), (BEATS - 1, 1)):
            if writes:
                await write(ctx, dut=dut, column=1, bursts=[(beat, [1, 2], [15, 15])], pace=Pace())
            else:
                await ask(ctx, port=dut.read[4], beat=beat, beats=2)
            await ctx.tick().repeat(6)
            assert ctx.get(dut.write_error if writes else dut.read_error) == error
            assert not ctx.get(dut.read_error if writes else dut.write_error)

    simulate(dut, run)


@pytest.mark.parametrize("words", [1002, 16])
def test_sizes_that_do_not_work_are_refused(words):
    with pytest.raises(ConfigError, match="scratchpad_words must"):
        dataclasses.replace(TINY, scratchpad_words=words)
