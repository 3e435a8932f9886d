"""A memory behind AXI4 for the Python simulator, which checks the master while it answers."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from amaranth.sim import SimulatorContext

from neuflow.grid import GridConfig


@dataclass
class AxiMemory:
    """Memory of 16-bit ``words``; give :meth:`run` to the simulator as a background bench.

    ``pause``: probability that a channel does nothing in a cycle; ``interleave``: beats of
    different IDs come mixed; ``errors``: beat addresses that are answered with SLVERR. Bursts are
    recorded as (ID, beat address, beats) in the order of their addresses.
    """

    grid: GridConfig
    axi: Any
    words: np.ndarray
    latency: int = 2
    write_latency: int = 2
    pause: float = 0.0
    interleave: bool = False
    seed: int = 0
    errors: set[int] = field(default_factory=set)
    reads: list[tuple[int, int, int]] = field(default_factory=list)
    writes: list[tuple[int, int, int]] = field(default_factory=list)
    most_reads: int = 0
    """Most read bursts that were under way at once; writes likewise."""
    most_writes: int = 0
    read_beats: int = 0
    write_beats: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.now = 0
        self.pending: list[list[int]] = []  # reads under way: id, next beat, beats left, ready at
        self.current: list[int] | None = None
        self.addresses: deque[tuple[int, int, int]] = deque()
        self.beats: list[tuple[int, int]] = []
        self.bursts: deque[list[tuple[int, int]]] = deque()
        self.responses: list[tuple[int, int, int]] = []  # id, response, ready at
        self.held: dict[str, Any] = {}

    def _waits(self) -> bool:
        return self.pause > 0 and self.random.random() < self.pause

    async def run(self, ctx: SimulatorContext) -> None:
        """Answer for ever."""
        ar, r, aw, w, b = (getattr(self.axi, name) for name in ("ar", "r", "aw", "w", "b"))
        for channel in (ar, aw, w):
            ctx.set(channel.ready, not self._waits())
        samples = ctx.tick().sample(
            ar.valid, ar.ready, ar.addr, ar.id, ar.len,
            aw.valid, aw.ready, aw.addr, aw.id, aw.len,
            w.valid, w.ready, w.data, w.strb, w.last,
            r.valid, r.ready, b.valid, b.ready,
        )  # fmt: skip
        async for _, reset, *s in samples:
            self.now += 1
            if reset:
                continue
            self._hold("ar", s[0], s[1], s[2:5])
            self._hold("aw", s[5], s[6], s[7:10])
            self._hold("w", s[10], s[11], s[12:15])
            if s[0] and s[1]:
                self._address(self.reads, *s[2:5])
                self.pending.append([s[3], s[2] // self._bytes, s[4] + 1, self.now + self.latency])
            if s[5] and s[6]:
                self._address(self.writes, *s[7:10])
                self.addresses.append(self.writes[-1])
            if s[10] and s[11]:
                self._beat(*s[12:15])
            assert s[10] or not self.beats, "gap within a write burst"
            self._finish_writes()
            self.most_reads = max(self.most_reads, len(self.pending))
            self.most_writes = max(self.most_writes, len(self.addresses) + len(self.responses))
            for channel in (ar, aw, w):
                ctx.set(channel.ready, not self._waits())
            if not s[15] or s[16]:
                self._send_read(ctx, r)
            if not s[17] or s[18]:
                self._send_response(ctx, b)

    @property
    def _bytes(self) -> int:
        return self.grid.bus_bits // 8

    def _hold(self, name: str, valid: int, ready: int, payload: list[int]) -> None:
        held = self.held.get(name)
        assert held is None or (valid and held == payload), f"{name} changed while stalled"
        self.held[name] = payload if valid and not ready else None

    def _address(self, log: list[tuple[int, int, int]], address: int, number: int, length: int):
        size = (length + 1) * self._bytes
        assert address % self._bytes == 0, f"address {address:#x} is not a beat's"
        assert address // 4096 == (address + size - 1) // 4096, f"{address:#x} crosses 4 KB"
        assert length + 1 <= self.grid.burst_beats, f"burst of {length + 1} beats"
        log.append((number, address // self._bytes, length + 1))

    def _beat(self, data: int, strobe: int, last: int) -> None:
        self.write_beats += 1
        self.beats.append((data, strobe))
        if last:
            self.bursts.append(self.beats)
            self.beats = []

    def _finish_writes(self) -> None:
        while self.addresses and self.bursts:
            number, beat, beats = self.addresses.popleft()
            burst = self.bursts.popleft()
            assert len(burst) == beats, f"write of {beats} beats brought {len(burst)}"
            bad = False
            for offset, (data, strobe) in enumerate(burst):
                bad |= beat + offset in self.errors
                for lane in range(self.grid.bus_words):
                    both = strobe >> 2 * lane & 3
                    assert both in (0, 3), "half a word strobed"
                    if both:
                        word = (beat + offset) * self.grid.bus_words + lane
                        self.words[word] = data >> 16 * lane & 0xFFFF
            self.responses.append((number, 2 * bad, self.now + self.write_latency))

    def _send_read(self, ctx: SimulatorContext, r: Any) -> None:
        ctx.set(r.valid, 0)
        if self._waits():
            return
        if self.current is None or self.interleave:
            heads = {burst[0]: burst for burst in reversed(self.pending)}
            ready = [burst for burst in heads.values() if burst[3] <= self.now]
            if not ready:
                return
            if self.interleave:
                self.current = self.random.choice(sorted(ready))
            else:
                self.current = min(ready, key=lambda burst: burst[3])
        number, beat, left, _ = self.current
        first = beat * self.grid.bus_words
        words = self.words[first : first + self.grid.bus_words] if first < len(self.words) else []
        ctx.set(r.data, sum(int(word) << 16 * lane for lane, word in enumerate(words)))
        ctx.set(r.id, number)
        ctx.set(r.resp, 2 if beat in self.errors else 0)
        ctx.set(r.last, left == 1)
        ctx.set(r.valid, 1)
        self.read_beats += 1
        self.current[1] += 1
        self.current[2] -= 1
        if left == 1:
            self.pending = [burst for burst in self.pending if burst is not self.current]
            self.current = None

    def _send_response(self, ctx: SimulatorContext, b: Any) -> None:
        ctx.set(b.valid, 0)
        if self._waits():
            return
        for index, (number, response, moment) in enumerate(self.responses):
            if moment <= self.now:
                ctx.set(b.id, number)
                ctx.set(b.resp, response)
                ctx.set(b.valid, 1)
                del self.responses[index]
                return


async def lite_write(
    ctx: SimulatorContext, lite: Any, address: int, value: int, strobe: int = 15
) -> int:
    """Write a register; return the response."""
    requests = ((lite.aw, {"addr": address}), (lite.w, {"data": value, "strb": strobe}))
    for channel, fields in requests:
        for name, number in fields.items():
            ctx.set(getattr(channel, name), number)
        ctx.set(channel.valid, 1)
    ctx.set(lite.b.ready, 1)
    # The slave takes address and data together.
    await ctx.tick().until(lite.aw.ready)
    ctx.set(lite.aw.valid, 0)
    ctx.set(lite.w.valid, 0)
    (response,) = await ctx.tick().sample(lite.b.resp).until(lite.b.valid)
    ctx.set(lite.b.ready, 0)
    return int(response)


async def lite_read(ctx: SimulatorContext, lite: Any, address: int) -> tuple[int, int]:
    """Read a register; return (value, response)."""
    ctx.set(lite.ar.addr, address)
    ctx.set(lite.ar.valid, 1)
    ctx.set(lite.r.ready, 1)
    await ctx.tick().until(lite.ar.ready)
    ctx.set(lite.ar.valid, 0)
    value, response = await ctx.tick().sample(lite.r.data, lite.r.resp).until(lite.r.valid)
    ctx.set(lite.r.ready, 0)
    return int(value), int(response)
