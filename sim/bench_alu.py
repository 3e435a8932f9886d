"""Bench of the term-by-term operator: every operation over the extremes, then random packets."""

from __future__ import annotations

import random
from typing import Any

import cocotb

from neuflow.blocks.alu_model import UNARY
from neuflow.layout import AluOp
from sim import designs
from sim.streams import PACES, Traffic, exchange
from tests.helpers import Config
from tests.test_alu import PAIRS, SHIFTS, config, model

Job = tuple[Config, list[int], list[int]]


def random_jobs(seed: int, count: int) -> list[Job]:
    """Return packets of 1 to 9 random words under random operations."""
    rng = random.Random(seed)
    jobs = []
    for _ in range(count):
        length = rng.randrange(1, 10)
        a, b = ([rng.randrange(-32768, 32768) for _ in range(length)] for _ in range(2))
        shifts = rng.randrange(5), rng.randrange(5), rng.randrange(16)
        jobs.append((config(rng.choice(list(AluOp)), *shifts, rng.randrange(2)), a, b))
    return jobs


def extremes() -> list[Job]:
    """Return pairs of extreme words under every operation and several shifts."""
    jobs = []
    for op in AluOp:
        for k, shifts in enumerate(SHIFTS):
            pairs = PAIRS[k % 3 :: 3 if op != AluOp.DIV else 11]
            jobs.append((config(op, *shifts, k % 2), [a for a, _ in pairs], [b for _, b in pairs]))
    return jobs


async def run(dut: Any, jobs: list[Job], pauses: tuple[float, float]) -> None:
    """Send the packets of ``jobs``; compare with the model."""
    second = [b for entry, _, b in jobs if AluOp(entry.values["op"]) not in UNARY]
    traffic = Traffic(
        sends={"a": [a for _, a, _ in jobs], "b": second},
        expected={"o": [model(*job) for job in jobs]},
        configs={"bus": [entry for entry, _, _ in jobs]},
        constants={"sub": 1, "columns": 1},
    )
    await exchange(dut, designs.alu(), traffic, pauses)


@cocotb.test(timeout_time=300, timeout_unit="us")
async def extreme_words(dut: Any) -> None:
    await run(dut, extremes(), (0.0, 0.0))


@cocotb.test(timeout_time=300, timeout_unit="us")
@cocotb.parametrize(pauses=PACES)
async def random_packets(dut: Any, pauses: tuple[float, float]) -> None:
    await run(dut, random_jobs(cocotb.RANDOM_SEED, 150), pauses)
