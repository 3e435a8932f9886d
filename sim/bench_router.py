"""Bench of the router: packets arrive whole and in order at every peer of a multicast."""

from __future__ import annotations

from typing import Any

import cocotb

from neuflow.layout import Kind
from sim import designs
from sim.designs import ROUTER_INPUTS, ROUTER_OUTPUTS
from sim.streams import PACES, Traffic, exchange
from tests.helpers import Config
from tests.test_router import random_plan, routes

SUB, COLUMNS = 3, 4


@cocotb.test(timeout_time=150, timeout_unit="us")
@cocotb.parametrize(pauses=PACES)
async def random_multicasts(dut: Any, pauses: tuple[float, float]) -> None:
    plan = random_plan(cocotb.RANDOM_SEED, 300)
    configs = [config for source, targets, _ in plan for config in routes(source, targets)]
    for config in configs:
        config.columns = COLUMNS | 2
    # Words for another tile, for another column and of another kind pass by.
    word = {"output": ROUTER_OUTPUTS[0], "input": ROUTER_INPUTS[0], "peers": 1 << ROUTER_OUTPUTS[0]}
    others = [
        Config(Kind.ROUTER, word, sub=SUB - 1, columns=COLUMNS),
        Config(Kind.ROUTER, word, sub=SUB, columns=COLUMNS - 1),
        Config(Kind.CONV_WEIGHTS, {"source": 0, "lead": 1}, sub=SUB, columns=COLUMNS),
    ]
    traffic = Traffic(
        sends={f"{i.name.lower()}_in": [w for s, _, w in plan if s == i] for i in ROUTER_INPUTS},
        expected={
            f"{o.name.lower()}_out": [w for _, targets, w in plan if o in targets]
            for o in ROUTER_OUTPUTS
        },
        configs={"bus": [*others, *configs]},
        constants={"sub": SUB, "columns": COLUMNS},
    )
    await exchange(dut, designs.router(), traffic, pauses)
