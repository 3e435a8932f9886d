"""What every block test is written with: one simulator run, packets in and out, a rule watcher."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from amaranth.hdl import Elaboratable, EnableInserter, Value
from amaranth.sim import Simulator, SimulatorContext
from amaranth.utils import bits_for

from neuflow.blocks.streams import WORD_BITS
from neuflow.layout import UNITS, Kind

Bench = Callable[[SimulatorContext], Coroutine[Any, Any, None]]
Packet = Sequence[int]


def simulate(
    dut: Elaboratable,
    *benches: Bench,
    background: Iterable[Bench] = (),
    clocked: bool = True,
    limit: int = 20_000,
) -> None:
    """Run benches to their end; a watchdog fails the test after ``limit`` cycles."""
    # A part that can sleep is tested asleep, as it is placed.
    sim = Simulator(EnableInserter(dut.awake)(dut) if hasattr(dut, "awake") else dut)

    async def watchdog(ctx: SimulatorContext) -> None:
        for _ in range(limit):
            await ctx.tick()
        raise AssertionError(f"still running after {limit} cycles")

    if clocked:
        sim.add_clock(1e-6)
        sim.add_testbench(watchdog, background=True)
    for bench in background:
        sim.add_testbench(bench, background=True)
    for bench in benches:
        sim.add_testbench(bench)
    sim.run()


@dataclass
class Pace:
    """How often a side pauses: in each cycle with probability ``pause``, seeded by ``seed``."""

    pause: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def waits(self) -> bool:
        """Whether to pause in this cycle."""
        return self.pause > 0 and self.random.random() < self.pause


PACES = [(0.0, 0.0), (0.6, 0.0), (0.0, 0.6), (0.4, 0.4)]
"""(pauses of sources, pauses of sinks): no stalls, gaps, stalls, both."""


@dataclass
class Clock:
    """Counts cycles for the benches of one run."""

    now: int = 0

    async def run(self, ctx: SimulatorContext) -> None:
        """Background bench."""
        while True:
            await ctx.tick()
            self.now += 1


async def until(ctx: SimulatorContext, condition: Any, value: Any = 0) -> int:
    """Pass clock edges up to the first at which ``condition`` holds; return ``value`` there."""
    while True:
        # A plain loop: the simulator's own ``until`` complains when a failed run is cleared away.
        _, _, holds, sampled = await ctx.tick().sample(condition, Value.cast(value))
        if holds:
            return sampled


def beat_bits(words: Sequence[int], lanes: int, last: bool) -> int:
    """Return a beat as one number. Lanes beyond the count hold words that would show if used."""
    filled = [*words, *[0x5A5A] * (lanes - len(words))]
    bits = sum((word & 0xFFFF) << WORD_BITS * lane for lane, word in enumerate(filled))
    tail = len(words) | last << bits_for(lanes)
    return bits | tail << WORD_BITS * lanes


def beat_words(bits: int, lanes: int) -> tuple[list[int], bool]:
    """Return the words and the last flag of a beat given as one number."""
    tail = bits >> WORD_BITS * lanes
    count = tail & (1 << bits_for(lanes)) - 1
    raw = [bits >> WORD_BITS * lane & 0xFFFF for lane in range(count)]
    return [word - 0x10000 if word > 0x7FFF else word for word in raw], bool(
        tail >> bits_for(lanes)
    )


async def put(
    ctx: SimulatorContext, *, stream: Any, packets: Sequence[Packet], pace: Pace | None = None,
    moments: list[int] | None = None, clock: Clock | None = None,
) -> None:  # fmt: skip
    """Send packets of words, packed into beats; note the cycle of each transfer in ``moments``."""
    pace = pace or Pace()
    lanes = len(stream.payload.words)
    raw = stream.payload.as_value()
    for packet in packets:
        for first in range(0, len(packet), lanes):
            while pace.waits():
                await ctx.tick()
            words = [int(word) for word in packet[first : first + lanes]]
            ctx.set(raw, beat_bits(words, lanes, first + lanes >= len(packet)))
            ctx.set(stream.valid, 1)
            await until(ctx, stream.ready)
            if moments is not None and clock is not None:
                moments.append(clock.now)
            ctx.set(stream.valid, 0)


async def get(
    ctx: SimulatorContext, *, stream: Any, count: int, into: list[list[int]],
    pace: Pace | None = None, moments: list[int] | None = None, clock: Clock | None = None,
) -> None:  # fmt: skip
    """Receive ``count`` packets; note the cycle of each transfer in ``moments``."""
    pace = pace or Pace()
    packet: list[int] = []
    while len(into) < count:
        while pace.waits():
            await ctx.tick()
        ctx.set(stream.ready, 1)
        bits = await until(ctx, stream.valid, stream.payload.as_value())
        ctx.set(stream.ready, 0)
        if moments is not None and clock is not None:
            moments.append(clock.now)
        words, last = beat_words(bits, len(stream.payload.words))
        packet += words
        if last:
            into.append(packet)
            packet = []


async def watch(ctx: SimulatorContext, *, stream: Any) -> None:
    """Background bench: a stalled beat stays; only the last beat is partial; none is empty."""
    lanes = len(stream.payload.words)
    held = None
    signals = (stream.valid, stream.ready, stream.payload.as_value())
    while True:
        _, reset, valid, ready, bits = await ctx.tick().sample(*signals)
        assert held is None or (valid and bits == held), "beat changed while stalled"
        held = bits if valid and not ready and not reset else None
        if valid and not reset:
            words, last = beat_words(bits, lanes)
            assert 1 <= len(words) <= lanes, f"beat of {len(words)} words"
            assert last or len(words) == lanes, "partial beat that is not the last"


@dataclass
class Config:
    """One configuration packet."""

    kind: Kind
    values: dict[str, int] = field(default_factory=dict)
    sub: int = 0
    columns: int = 1

    def words(self) -> list[int]:
        """Return the packet's words."""
        return UNITS[self.kind].pack(**self.values)


async def configure(
    ctx: SimulatorContext, *, bus: Any, packets: Sequence[Config], pace: Pace | None = None
) -> None:
    """Send configuration packets."""
    pace = pace or Pace()
    for packet in packets:
        words = packet.words()
        for index, word in enumerate(words):
            while pace.waits():
                await ctx.tick()
            ctx.set(bus.payload.kind, packet.kind)
            ctx.set(bus.payload.sub, packet.sub)
            ctx.set(bus.payload.columns, packet.columns)
            ctx.set(bus.payload.data, word)
            ctx.set(bus.payload.last, index == len(words) - 1)
            ctx.set(bus.valid, 1)
            await until(ctx, bus.ready)
            ctx.set(bus.valid, 0)


async def _address(ctx: SimulatorContext, *, dut: Any, sub: int) -> None:
    ctx.set(dut.columns, 1)
    if hasattr(dut, "sub"):
        ctx.set(dut.sub, sub)


@dataclass
class Run:
    """What a run of a unit gave: packets by output, cycles of the transfers in and out."""

    packets: list[list[int]] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    given: list[int] = field(default_factory=list)


def run_unit(
    dut: Any,
    inputs: Sequence[tuple[Any, Sequence[Packet]]],
    configs: Sequence[Config] = (),
    *,
    pauses: tuple[float, float] = (0.0, 0.0),
    seed: int = 0,
    expected: int = 1,
    sub: int = 0,
    limit: int = 20_000,
) -> Run:
    """Run a unit with output ``o``: send packets and configurations, receive ``expected``."""
    print(f"seed {seed}, pauses {pauses}")
    run, clock = Run(), Clock()
    source, sink = pauses
    benches: list[Bench] = []
    for index, (stream, packets) in enumerate(inputs):
        moments = run.taken if index == 0 else None
        benches.append(
            functools.partial(
                put, stream=stream, packets=packets, pace=Pace(source, seed + index),
                moments=moments, clock=clock,
            )
        )  # fmt: skip
    if configs:
        benches.insert(0, functools.partial(_address, dut=dut, sub=sub))
        benches.append(
            functools.partial(
                configure, bus=dut.bus, packets=configs, pace=Pace(source / 2, seed + 90)
            )
        )
    benches.append(
        functools.partial(
            get, stream=dut.o, count=expected, into=run.packets, pace=Pace(sink, seed + 91),
            moments=run.given, clock=clock,
        )
    )  # fmt: skip
    rules = functools.partial(watch, stream=dut.o)
    simulate(dut, *benches, background=[clock.run, rules], limit=limit)
    return run
