# amaranth: UnusedElaboratable=no
"""Global lines: multicast packets reach every listener once, whole, in order, under stalls."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from neuflow.blocks.lines import Lines
from tests.helpers import PACES, Pace, get, put, simulate, watch


@pytest.mark.parametrize("pauses", PACES)
def test_multicast(pauses: tuple[float, float]) -> None:
    # Line 0 sends to sinks {0, 2}, then {1}; line 1 to {1}, then {0, 1, 2}.
    packets = {0: [[1, 2, 3, 4, 5], [6]], 1: [[7, 8], [9, 10, 11, 12, 13, 14, 15, 16, 17]]}
    dests = {0: [0b101, 0b010], 1: [0b010, 0b111]}
    order = {0: [0, 1], 1: [1, 0, 1], 2: [0, 1]}  # sources that each sink listens to, in turn
    want = {
        0: [packets[0][0], packets[1][1]],
        1: [packets[1][0], packets[0][1], packets[1][1]],
        2: [packets[0][0], packets[1][1]],
    }
    dut = Lines(3, 4)
    got: dict[int, list[list[int]]] = {0: [], 1: [], 2: []}
    source_pause, sink_pause = pauses

    async def send(ctx: Any, p: int) -> None:
        for number, packet in enumerate(packets[p]):
            ctx.set(dut.dest[p], dests[p][number])
            await put(ctx, stream=dut.i[p], packets=[packet], pace=Pace(source_pause, p + number))

    async def receive(ctx: Any, c: int) -> None:
        for number, source in enumerate(order[c]):
            ctx.set(dut.source[c], source)
            ctx.set(dut.listening[c], 1)
            pace = Pace(sink_pause, 5 + c + number)
            await get(ctx, stream=dut.o[c], count=number + 1, into=got[c], pace=pace)
            ctx.set(dut.listening[c], 0)

    benches = [functools.partial(send, p=p) for p in packets]
    benches += [functools.partial(receive, c=c) for c in order]
    watchers = [functools.partial(watch, stream=dut.o[c]) for c in order]
    simulate(dut, *benches, background=watchers, limit=2000)
    assert got == want
