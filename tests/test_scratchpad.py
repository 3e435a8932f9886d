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
    """Note (cycle, data) of every beat by port; a bank has one for at most one port, a port gets one."""
    banks = [port for answer in zip(dut.response_valid, dut.response, strict=True) for port in answer]
    async for _, _, *answers in ctx.tick().sample(*banks):
        served = 0
        for valid, beat in zip(answers[::2], answers[1::2], strict=True):
            assert valid.bit_count() <= 1 and not valid & served
            served |= valid
            if valid:
                into[valid.bit_length() - 1].append((clock.now, beat.data))


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


def beats_by_cycle(plan):
    """Ask for each port's bursts (beat, beats) one behind the other.

    Return by cycle which ports get a beat, from the cycle of the first request taken on.
    """
    dut, clock, got = Scratchpad(TINY), Clock(), [[] for _ in range(3 * TINY.columns)]
    first = []

    async def ask_all(ctx, *, port, bursts):
        for beat, beats in bursts:
            await ask(ctx, port=dut.read[port], beat=beat, beats=beats)
            first.append(clock.now)

    async def wait(ctx):
        await ctx.tick().repeat(60)

    simulate(
        dut, wait, *(functools.partial(ask_all, port=k, bursts=b) for k, b in plan.items()),
        background=[clock.run, functools.partial(listen, dut=dut, into=got, clock=clock)],
    )  # fmt: skip
    times = {time for beats in got for time, _ in beats}
    return [
        {port for port, beats in enumerate(got) for time, _ in beats if time == now}
        for now in range(min(first), max(times) + 1)
    ]


def test_two_beats_a_cycle_and_bursts_in_turn():
    moved = beats_by_cycle({port: [(8 * port, 4)] * 2 for port in range(3)})
    assert moved[: Scratchpad.READ] == [set()] * Scratchpad.READ
    # A burst is taken a cycle: the second one begins a beat behind the first, and never meets it.
    assert moved[Scratchpad.READ :] == (
        [{0}] + [{0, 1}] * 3 + [{1, 2}] + [{0, 2}] * 3 + [{0, 1}] + [{1, 2}] * 3 + [{2}]
    )  # fmt: skip


def test_bursts_of_one_port_follow_without_a_gap_and_in_order():
    """Its beats never come from both banks at once."""
    assert beats_by_cycle({4: [(0, 4), (7, 3), (2, 4)]})[Scratchpad.READ :] == [{4}] * 11


def test_who_waits_at_a_bank_goes_first_the_next_time():
    # Port 1 comes to the bank at which port 0 is by then, and waits a cycle; so does port 0 when the
    # second burst of port 1 comes to its bank.
    moved = beats_by_cycle({0: [(0, 4), (0, 4)], 1: [(9, 4), (8, 4)]})[Scratchpad.READ :]
    assert moved == [{0}] * 2 + [{0, 1}] * 4 + [{1}] + [{0, 1}] * 2 + [{1}]


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


@pytest.mark.parametrize("words", [1002, 1004, 16])
def test_sizes_that_do_not_work_are_refused(words):
    with pytest.raises(ConfigError, match="scratchpad_words must"):
        dataclasses.replace(TINY, scratchpad_words=words)
