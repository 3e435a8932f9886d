"""Bench of the mapper: tables over their whole ranges, at every segment boundary."""

from __future__ import annotations

import random
from typing import Any

import cocotb

from neuflow.blocks import mapper_model
from neuflow.ir import MapTable
from neuflow.layout import Kind
from sim import designs
from sim.streams import PACES, Traffic, exchange
from tests.helpers import Config
from tests.test_mapper import TABLES, interesting

Job = tuple[MapTable, int, list[int]]


async def run(dut: Any, jobs: list[Job], pauses: tuple[float, float]) -> None:
    """Send packets (table, bits, words); compare with the model."""
    traffic = Traffic(
        sends={"i": [words for _, _, words in jobs]},
        expected={"o": [mapper_model.apply_table(t, words, bits) for t, bits, words in jobs]},
        configs={"bus": [Config(Kind.MAPPER, mapper_model.fields(t, bits)) for t, bits, _ in jobs]},
        constants={"sub": 0, "columns": 1},
    )
    await exchange(dut, designs.mapper(), traffic, pauses)


@cocotb.test(timeout_time=200, timeout_unit="us")
async def segment_boundaries(dut: Any) -> None:
    await run(dut, [(t, bits, interesting(t)) for t in TABLES for bits in (16, 8)], (0.0, 0.0))


@cocotb.test(timeout_time=200, timeout_unit="us")
@cocotb.parametrize(pauses=PACES)
async def random_packets(dut: Any, pauses: tuple[float, float]) -> None:
    rng = random.Random(cocotb.RANDOM_SEED)
    jobs = []
    for _ in range(40):
        words = [rng.randrange(-32768, 32768) for _ in range(rng.randrange(1, 30))]
        jobs.append((rng.choice(TABLES), rng.choice([16, 8]), words))
    await run(dut, jobs, pauses)
