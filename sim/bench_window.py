"""Bench of the window reduction: all shapes of its tests, both operations."""

from __future__ import annotations

from typing import Any

import cocotb

from neuflow.blocks import window_model
from neuflow.layout import Kind, WindowOp
from sim import designs
from sim.streams import PACES, Traffic, exchange
from tests.helpers import Config
from tests.test_window import CASES, image, spec_for, stream


@cocotb.test(timeout_time=300, timeout_unit="us")
@cocotb.parametrize(pauses=PACES)
async def shapes(dut: Any, pauses: tuple[float, float]) -> None:
    seed = cocotb.RANDOM_SEED
    jobs = []
    for index, (shape, kernel, stride, pad, ceil) in enumerate(CASES):
        op = list(WindowOp)[(index + seed) % 2]
        scale = {"m": 1 + index, "s": index % 4, "bits": 16 - 8 * (index % 3 == 2)}
        spec = spec_for(op, shape, kernel, stride, pad, ceil, **scale)
        jobs.append((spec, image(shape, seed + index, ends=index % 4 == 0)))
    traffic = Traffic(
        sends={"i": [stream(x) for _, x in jobs]},
        expected={"o": [stream(window_model.window(spec, x)) for spec, x in jobs]},
        configs={"bus": [Config(Kind.WINDOW, spec.fields(*x.shape)) for spec, x in jobs]},
        constants={"sub": 0, "columns": 1},
    )
    await exchange(dut, designs.window(), traffic, pauses)
