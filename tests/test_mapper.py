# amaranth: UnusedElaboratable=no
"""Mapper against its model, and the model against Python integers."""

from __future__ import annotations

import random

import numpy as np
import pytest

from neuflow.blocks import mapper_model
from neuflow.blocks.mapper import Mapper
from neuflow.ir import MapTable
from neuflow.layout import Kind
from tests.helpers import PACES, Config, run_unit

WORDS = np.arange(-32768, 32768)


def random_table(seed: int) -> MapTable:
    """Return a table of random numbers over the fields' whole ranges."""
    rng = random.Random(seed)
    low = (-32768, *sorted(rng.sample(range(-32767, 32768), 7)))
    scale = rng.choice([1, 3, 8, 17])
    a, b, q = (
        tuple(rng.randrange(-(1 << bits) // 2, (1 << bits) // 2) >> scale * shrink for _ in low)
        for bits, shrink in ((18, 1), (17, 0), (16, 1))
    )
    symmetry = rng.randrange(3)
    return MapTable(
        low, b, a, q, rng.randrange(41), rng.randrange(17), symmetry == 1, symmetry == 2
    )


ENDS = [
    MapTable(
        (-32768, *range(32761, 32768)), (65535,) * 8, (131071,) * 8, (32767,) * 8, 0, 16, odd=True
    ),
    MapTable((-32768,) * 8, (-65536,) * 8, (-131072,) * 8, (-32768,) * 8, 40, 16, even=True),
    MapTable((-32768, *[32767] * 7), (-65536,) * 8, (131071,) * 8, (32767,) * 8, 40, 0),
    MapTable((-32768, *[0] * 7), (0,) * 8, (1,) * 8, (0,) * 8, 0, 0, odd=True),
]
TABLES = ENDS + [random_table(seed) for seed in range(12)]


def exact(table: MapTable, x: int, bits: int) -> int:
    """Return the formula of layout.MAPPER in Python integers."""
    folded = abs(x) if table.odd or table.even else x
    k = max(k for k in range(8) if folded >= table.low[k])
    d = folded - table.low[k]
    y = (table.b[k] << table.shift) + ((table.a[k] << table.square) + table.q[k] * d) * d
    out = (y + (1 << table.shift >> 1)) >> table.shift
    if table.odd and x < 0:
        out = -out
    high = (1 << (bits - 1)) - 1
    return max(-high - 1, min(high, out))


def interesting(table: MapTable) -> list[int]:
    """Return the words at the ends, at zero and around each segment's beginning."""
    near = [x + d for x in (0, *table.low, *(-v for v in table.low)) for d in (-1, 0, 1)]
    return sorted({x for x in [*near, -32768, 32767] if -32768 <= x <= 32767})


@pytest.mark.parametrize("bits", [16, 8])
def test_model_is_exact(bits: int) -> None:
    for table in TABLES:
        words = interesting(table) + WORDS[::257].tolist()
        wanted = [exact(table, x, bits) for x in words]
        assert mapper_model.apply_table(table, words, bits).tolist() == wanted


def test_model_is_exact_for_every_word() -> None:
    table = TABLES[-1]
    wanted = [exact(table, x, 16) for x in range(-32768, 32768)]
    assert mapper_model.apply_table(table, WORDS).tolist() == wanted


def run(jobs, lanes=4, depth=2, pauses=(0.0, 0.0), seed=0, limit=20_000):
    """Run packets (table, bits, words) through the gates; compare with the model."""
    dut = Mapper(lanes, depth)
    result = run_unit(
        dut, [(dut.i, [words for _, _, words in jobs])],
        [Config(Kind.MAPPER, mapper_model.fields(table, bits)) for table, bits, _ in jobs],
        pauses=pauses, seed=seed, expected=len(jobs), limit=limit,
    )  # fmt: skip
    for (table, bits, words), found in zip(jobs, result.packets, strict=True):
        assert found == mapper_model.apply_table(table, words, bits).tolist()
    return result


def test_gates_agree_at_every_boundary_of_every_table() -> None:
    run([(t, bits, interesting(t) + WORDS[::4001].tolist()) for t in TABLES for bits in (16, 8)])


@pytest.mark.parametrize("pauses", PACES)
@pytest.mark.parametrize(("lanes", "depth"), [(1, 2), (4, 1)])
def test_random_packets_with_stalls(lanes: int, depth: int, pauses: tuple[float, float]) -> None:
    rng = random.Random(3)
    jobs = []
    for length in (1, 2, 4, 5, 13, 1):
        words = [rng.randrange(-32768, 32768) for _ in range(length)]
        jobs.append((rng.choice(TABLES), 16, words))
    run(jobs, lanes, depth, pauses, seed=lanes)


def test_latency_and_throughput_are_as_the_model_says() -> None:
    jobs = [(TABLES[4], 16, [1]), (TABLES[5], 16, list(range(40)))]
    result = run(jobs)
    assert result.given[0] - result.taken[0] == mapper_model.LATENCY
    assert result.given[1] - result.taken[1] == mapper_model.LATENCY
    assert np.diff(result.given[1:]).tolist() == [1] * 9
    assert mapper_model.cycles(10) == mapper_model.LATENCY + 9


def test_packets_follow_each_other_after_the_gap() -> None:
    jobs = [(TABLES[4], 16, list(range(120)))] * 3
    result = run(jobs)
    # The queue holds the third configuration by then: 30 beats last longer than its 18 words.
    assert result.taken[60] - result.taken[59] == mapper_model.PACKET_GAP


def test_gates_agree_for_every_word() -> None:
    run([(TABLES[-1], 16, WORDS.tolist())], lanes=8)
