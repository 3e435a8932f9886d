# amaranth: UnusedElaboratable=no
"""Configuration bus: taps pass packets on, receivers take theirs and queue them."""

from __future__ import annotations

import functools

import pytest
from amaranth.hdl import Module
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from neuflow.blocks.config import ConfigReceiver, ConfigTap, config_stream
from neuflow.blocks.gate import add_gated
from neuflow.layout import ALU, WINDOW, Kind
from tests.helpers import Config, Pace, configure, simulate, until

ALU_VALUES = [
    {"op": k, "shift_a": 31 - k, "shift_b": k, "shift": 47, "narrow": k & 1} for k in range(6)
]
WINDOW_VALUES = [
    {f.name: (k * 37 + 1) % (1 << f.bits - 1) - f.signed * k for f in WINDOW.fields}
    for k in range(6)
]


class Chain(Component):
    """Two taps in a row: an ALU (sub 1) at the first, a WINDOW unit at the second. All sleep."""

    def __init__(self, depth: int, column: int = 1):
        self.depth = depth
        self.column = column
        super().__init__(
            {
                "bus": In(config_stream()),
                "alu": Out(stream.Signature(ALU.shape())),
                "window": Out(stream.Signature(WINDOW.shape())),
                "end": Out(config_stream()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        first, second = ConfigTap(1), ConfigTap(1)
        alu = ConfigReceiver(Kind.ALU, ALU, self.depth)
        window = ConfigReceiver(Kind.WINDOW, WINDOW, self.depth)
        for name, part in (("first", first), ("second", second), ("alu", alu), ("window", window)):
            add_gated(m, name, part, platform)
        connect(m, flipped(self.bus), first.i)
        connect(m, first.o, second.i)
        connect(m, second.o, flipped(self.end))
        connect(m, first.local[0], alu.bus)
        connect(m, second.local[0], window.bus)
        connect(m, alu.o, flipped(self.alu))
        connect(m, window.o, flipped(self.window))
        m.d.comb += [alu.sub.eq(1), alu.columns.eq(self.column), window.columns.eq(self.column)]
        return m


async def take(ctx, *, source, layout, count, into, pace) -> None:
    """Receive configurations as dictionaries."""
    while len(into) < count:
        while pace.waits():
            await ctx.tick()
        ctx.set(source.ready, 1)
        raw = await until(ctx, source.valid, source.payload.as_value())
        ctx.set(source.ready, 0)
        into.append(layout.unpack([raw]))


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("pause", [0.0, 0.7])
def test_every_unit_gets_its_packets_in_order(depth: int, pause: float) -> None:
    dut = Chain(depth)
    packets = []
    for alu, window in zip(ALU_VALUES, WINDOW_VALUES, strict=True):
        packets.append(Config(Kind.ALU, alu, sub=1, columns=3))
        packets.append(Config(Kind.ALU, alu, sub=0, columns=1))  # another operator
        packets.append(Config(Kind.WINDOW, window, columns=1))
        packets.append(Config(Kind.WINDOW, window, columns=2))  # another column
    alus: list[dict[str, int]] = []
    windows: list[dict[str, int]] = []
    words = 0

    async def end(ctx) -> None:
        nonlocal words
        ctx.set(dut.end.ready, 1)
        while True:
            _, _, valid = await ctx.tick().sample(dut.end.valid)
            words += valid

    print("seeds 1, 2")
    simulate(
        dut,
        functools.partial(configure, bus=dut.bus, packets=packets),
        functools.partial(
            take, source=dut.alu, layout=ALU, count=6, into=alus, pace=Pace(pause, 1)
        ),
        functools.partial(
            take, source=dut.window, layout=WINDOW, count=6, into=windows, pace=Pace(pause, 2)
        ),
        background=[end],
    )
    assert alus == ALU_VALUES
    assert windows == WINDOW_VALUES
    assert words >= sum(len(packet.words()) for packet in packets) - 8


@pytest.mark.parametrize("depth", [1, 2])
def test_a_unit_holds_depth_packets_and_stalls_the_bus_then(depth: int) -> None:
    dut = Chain(depth)
    sent = 0

    async def send(ctx) -> None:
        nonlocal sent
        ctx.set(dut.end.ready, 1)
        for values in ALU_VALUES:
            await configure(ctx, bus=dut.bus, packets=[Config(Kind.ALU, values, sub=1)])
            sent += 1

    async def look(ctx) -> None:
        await ctx.tick().repeat(40)

    simulate(dut, look, background=[send])
    # One has just arrived, the first tap holds two words, and an ALU packet is one.
    assert sent == depth + 3


def test_a_word_takes_one_cycle_a_tap() -> None:
    dut = Chain(2)
    cycles = 0

    async def bench(ctx) -> None:
        nonlocal cycles
        ctx.set(dut.end.ready, 1)
        await configure(ctx, bus=dut.bus, packets=[Config(Kind.ALU, ALU_VALUES[0], sub=0)])
        while not ctx.get(dut.end.valid):
            await ctx.tick()
            cycles += 1

    simulate(dut, bench)
    assert cycles + 1 == 2 * ConfigTap.LATENCY
