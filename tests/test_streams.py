# amaranth: UnusedElaboratable=no
"""Slice, Packer, Narrow: words stay in order, packets stay whole, speed is as promised."""

from __future__ import annotations

import functools
import random

import numpy as np
import pytest
from amaranth.lib.wiring import Component

from neuflow.blocks.streams import Narrow, Packer, Slice, beat_layout
from tests.helpers import PACES, Clock, Pace, beat_bits, get, run_unit, simulate, until, watch


def random_packets(seed: int, count: int) -> list[list[int]]:
    """Return a packet of one word, then packets of 1 to 14 random words."""
    rng = random.Random(seed)
    lengths = [1, *(rng.randrange(1, 15) for _ in range(count))]
    return [[rng.randrange(-32768, 32768) for _ in range(length)] for length in lengths]


def parts() -> dict[str, Component]:
    """Return one of each, fresh."""
    return {
        "slice": Slice(beat_layout(3)),
        "narrow 4 to 2": Narrow(4, 2),
        "narrow 4 to 1": Narrow(4, 1),
        "narrow 2 to 2": Narrow(2, 2),
        "packer 1 to 4": Packer(1, 4),
        "packer 4 to 4": Packer(4, 4),
        "packer 2 to 8": Packer(2, 8),
    }


@pytest.mark.parametrize("name", list(parts()))
@pytest.mark.parametrize("pauses", PACES)
def test_packets_keep_their_words(name: str, pauses: tuple[float, float]) -> None:
    dut = parts()[name]
    packets = random_packets(len(name), 20)
    result = run_unit(dut, [(dut.i, packets)], pauses=pauses, seed=4, expected=len(packets))
    assert result.packets == packets


@pytest.mark.parametrize("pauses", PACES)
@pytest.mark.parametrize(("lanes_in", "lanes_out"), [(1, 1), (2, 4), (4, 4), (3, 5)])
def test_packer_closes_gaps(lanes_in: int, lanes_out: int, pauses: tuple[float, float]) -> None:
    dut = Packer(lanes_in, lanes_out)
    packets = random_packets(lanes_out, 20)
    found: list[list[int]] = []
    rng = random.Random(6)
    print("seed 6")

    async def put_loose(ctx) -> None:
        source = Pace(pauses[0], 8)
        for packet in packets:
            rest = list(packet)
            while rest:
                while source.waits():
                    await ctx.tick()
                count = rng.randrange(0, min(lanes_in, len(rest)) + 1)
                words, rest = rest[:count], rest[count:]
                ctx.set(dut.i.payload.as_value(), beat_bits(words, lanes_in, not rest))
                ctx.set(dut.i.valid, 1)
                await until(ctx, dut.i.ready)
                ctx.set(dut.i.valid, 0)

    receive = functools.partial(
        get, stream=dut.o, count=len(packets), into=found, pace=Pace(pauses[1], 9)
    )
    simulate(dut, put_loose, receive, background=[functools.partial(watch, stream=dut.o)])
    assert found == packets


@pytest.mark.parametrize("name", list(parts()))
def test_a_beat_leaves_every_cycle(name: str) -> None:
    dut = parts()[name]
    lanes = len(dut.i.payload.words)
    result = run_unit(dut, [(dut.i, [list(range(lanes * 8))])])
    if "packer" in name:
        assert result.given[-1] - result.taken[-1] == dut.LATENCY
        assert np.diff(result.taken).tolist() == [1] * 7
    else:
        assert result.given[0] - result.taken[0] == dut.LATENCY
        assert set(np.diff(result.given).tolist()) == {1}


def test_slice_ready_does_not_follow_its_sink_in_the_same_cycle() -> None:
    dut = Slice(beat_layout(1))

    async def bench(ctx) -> None:
        ctx.set(dut.i.valid, 1)
        await ctx.tick().repeat(3)
        assert not ctx.get(dut.i.ready)
        ctx.set(dut.o.ready, 1)
        assert not ctx.get(dut.i.ready)
        await ctx.tick()
        assert ctx.get(dut.i.ready)

    simulate(dut, bench, background=[Clock().run])


def test_widths_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Packer(4, 2)
    with pytest.raises(ValueError, match="no multiple"):
        Narrow(4, 3)
