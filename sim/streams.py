"""Streams of the exported Verilog under cocotb: drivers, and monitors that check the rules.

A stream ``i`` has the ports ``i__payload``, ``i__valid`` and ``i__ready``. After a rising edge a
handle still reads as before it; what is written then counts from the next edge on.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cocotb
from amaranth.hdl import UnusedElaboratable
from amaranth.lib.wiring import Component, Flow
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge

from neuflow.blocks.place import flat_ports
from neuflow.blocks.streams import beat_layout
from neuflow.layout import CONFIG_BEAT
from tests.helpers import PACES, Config, Pace, Packet, beat_bits, beat_words

PERIOD_NS = 10
RESET_CYCLES = 3
SURPLUS_CYCLES = 40
"""Cycles after the last packet in which nothing more may come out."""

# Benches make a component for the names of its ports alone.
warnings.simplefilter("ignore", UnusedElaboratable)


class Rules:
    """The rules of a stream: a stalled beat stays, none is empty, only the last is partial."""

    def __init__(self, name: str, lanes: int):
        self.name = name
        self.lanes = lanes
        self.held: int | None = None

    def see(self, valid: bool, ready: bool, bits: int) -> None:
        """Check one cycle; ``bits`` is the payload, of no matter where ``valid`` is 0."""
        if self.held is not None:
            assert valid, f"{self.name}: a stalled beat was withdrawn"
            assert bits == self.held, f"{self.name}: a stalled beat changed"
        self.held = bits if valid and not ready else None
        if valid:
            words, last = beat_words(bits, self.lanes)
            assert 1 <= len(words) <= self.lanes, f"{self.name}: a beat of {len(words)} words"
            full = len(words) == self.lanes
            assert last or full, f"{self.name}: a partial beat that is not the last"


@dataclass
class Port:
    """The handles of one stream port."""

    dut: Any
    name: str

    def __post_init__(self) -> None:
        self.payload = getattr(self.dut, f"{self.name}__payload")
        self.valid = getattr(self.dut, f"{self.name}__valid")
        self.ready = getattr(self.dut, f"{self.name}__ready")

    @property
    def lanes(self) -> int:
        """Words of a beat."""
        bits = len(self.payload)
        return next(n for n in range(1, bits) if beat_layout(n).size == bits)

    async def edge(self) -> None:
        """Wait for the next rising edge."""
        await RisingEdge(self.dut.clk)

    async def pause(self, pace: Pace) -> None:
        """Let the cycles pass in which this side does nothing."""
        while pace.waits():
            await self.edge()

    async def send(self, bits: int) -> None:
        """Offer one payload until it is taken."""
        self.payload.value = bits
        self.valid.value = 1
        await self.edge()
        while not int(self.ready.value):
            await self.edge()
        self.valid.value = 0

    async def receive(self) -> int:
        """Take one payload."""
        self.ready.value = 1
        await self.edge()
        while not int(self.valid.value):
            await self.edge()
        self.ready.value = 0
        return int(self.payload.value)


async def put(port: Port, packets: Sequence[Packet], pace: Pace) -> None:
    """Send packets of words, packed into beats."""
    lanes = port.lanes
    for packet in packets:
        for first in range(0, len(packet), lanes):
            await port.pause(pace)
            words = [int(word) for word in packet[first : first + lanes]]
            await port.send(beat_bits(words, lanes, first + lanes >= len(packet)))


async def get(port: Port, count: int, pace: Pace, into: list[list[int]]) -> None:
    """Receive ``count`` packets."""
    packet: list[int] = []
    while len(into) < count:
        await port.pause(pace)
        words, last = beat_words(await port.receive(), port.lanes)
        packet += words
        if last:
            into.append(packet)
            packet = []


async def configure(port: Port, packets: Sequence[Config], pace: Pace) -> None:
    """Send configuration packets."""
    for packet in packets:
        words = packet.words()
        for index, word in enumerate(words):
            await port.pause(pace)
            beat = {"kind": packet.kind, "sub": packet.sub, "columns": packet.columns}
            beat |= {"data": word, "last": index == len(words) - 1}
            await port.send(CONFIG_BEAT.pack_int(beat))


async def watch(port: Port) -> None:
    """Check the rules of a stream for ever."""
    rules = Rules(port.name, port.lanes)
    while True:
        await port.edge()
        valid = bool(int(port.valid.value))
        # Before the first beat a payload may be X where a simulator knows that.
        bits = int(port.payload.value) if valid else 0
        rules.see(valid, bool(int(port.ready.value)), bits)


async def reset(dut: Any, component: Component) -> None:
    """Start the clock, drive every input to 0 and reset."""
    for name, flow, _ in flat_ports(component):
        if flow == Flow.In:
            getattr(dut, name).value = 0
    dut.rst.value = 1
    Clock(dut.clk, PERIOD_NS, unit="ns").start()
    await ClockCycles(dut.clk, RESET_CYCLES)
    dut.rst.value = 0


@dataclass
class Traffic:
    """What goes through a block in one test, by the name of the port."""

    sends: Mapping[str, Sequence[Packet]] = field(default_factory=dict)
    expected: Mapping[str, Sequence[Packet]] = field(default_factory=dict)
    configs: Mapping[str, Sequence[Config]] = field(default_factory=dict)
    constants: Mapping[str, int] = field(default_factory=dict)


async def exchange(
    dut: Any, component: Component, traffic: Traffic, pauses: tuple[float, float]
) -> None:
    """Send everything at once, each port at its own pace; compare what comes out."""
    source, sink = pauses
    seed = cocotb.RANDOM_SEED
    cocotb.log.info("seed %d, pauses of sources %.1f, of sinks %.1f", seed, source, sink)
    await reset(dut, component)
    for name, value in traffic.constants.items():
        getattr(dut, name).value = value

    found: dict[str, list[list[int]]] = {name: [] for name in traffic.expected}
    outputs = [Port(dut, name) for name in found]
    tasks = []
    for index, (name, configs) in enumerate(traffic.configs.items()):
        tasks.append(configure(Port(dut, name), configs, Pace(source / 2, seed + index)))
    for index, (name, packets) in enumerate(traffic.sends.items()):
        tasks.append(put(Port(dut, name), packets, Pace(source, seed + 20 + index)))
    for index, port in enumerate(outputs):
        wanted = len(traffic.expected[port.name])
        tasks.append(get(port, wanted, Pace(sink, seed + 40 + index), found[port.name]))
        cocotb.start_soon(watch(port))
    for task in [cocotb.start_soon(task) for task in tasks]:
        await task

    for name, packets in traffic.expected.items():
        assert found[name] == [[int(word) for word in packet] for packet in packets], name
    for _ in range(SURPLUS_CYCLES):
        await RisingEdge(dut.clk)
        for port in outputs:
            assert not int(port.valid.value), f"{port.name}: a beat too many"


__all__ = ["PACES", "Port", "Rules", "Traffic", "exchange", "reset", "watch"]
