"""Bench of the FIFO: packets pass unchanged, whoever stalls."""

from __future__ import annotations

from typing import Any

import cocotb

from sim import designs
from sim.streams import PACES, Traffic, exchange
from tests.test_fifo import random_packets


@cocotb.test(timeout_time=150, timeout_unit="us")
@cocotb.parametrize(pauses=PACES)
async def packets_pass_unchanged(dut: Any, pauses: tuple[float, float]) -> None:
    packets = [[-32768], *random_packets(cocotb.RANDOM_SEED, 200)]
    traffic = Traffic(sends={"i": packets}, expected={"o": packets})
    await exchange(dut, designs.fifo(), traffic, pauses)
