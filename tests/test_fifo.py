# amaranth: UnusedElaboratable=no
"""FIFO: what goes in comes out, at full speed, up to its capacity."""

from __future__ import annotations

import random

import numpy as np
import pytest

from neuflow.blocks.fifo import Fifo
from tests.helpers import PACES, run_unit, simulate


def random_packets(seed: int, count: int) -> list[list[int]]:
    """Return packets of 1 to 12 random words."""
    rng = random.Random(seed)
    lengths = [rng.randrange(1, 13) for _ in range(count)]
    return [[rng.randrange(-32768, 32768) for _ in range(length)] for length in lengths]


@pytest.mark.parametrize(("lanes", "words"), [(1, 1), (2, 2), (4, 4), (4, 12), (2, 33)])
@pytest.mark.parametrize("pauses", PACES)
def test_packets_pass_unchanged(lanes: int, words: int, pauses: tuple[float, float]) -> None:
    packets = [[-32768], *random_packets(words, 25)]
    dut = Fifo(lanes, words)
    result = run_unit(
        dut, [(dut.i, packets)], pauses=pauses, seed=lanes, expected=len(packets)
    )
    assert result.packets == packets


def test_latency_and_that_a_beat_passes_every_cycle() -> None:
    dut = Fifo(2, 8)
    result = run_unit(dut, [(dut.i, [list(range(40))])])
    assert result.given[0] - result.taken[0] == dut.LATENCY
    assert np.diff(result.given).tolist() == [1] * 19


@pytest.mark.parametrize("depth", [1, 3, 4])
def test_holds_its_depth_and_two_beats_more(depth: int) -> None:
    dut = Fifo(1, depth)
    taken = 0

    async def fill(ctx) -> None:
        nonlocal taken
        ctx.set(dut.i.valid, 1)
        ctx.set(dut.i.payload.count, 1)
        for _ in range(depth + 8):
            taken += ctx.get(dut.i.ready)
            await ctx.tick()

    simulate(dut, fill)
    assert taken == depth + 2


def test_refuses_to_hold_nothing() -> None:
    with pytest.raises(ValueError, match="hold no beat"):
        Fifo(4, 3)
