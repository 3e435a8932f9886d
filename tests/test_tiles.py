# amaranth: UnusedElaboratable=no
"""Tiles: packets go through the units as routed, and every kind becomes Verilog."""

from __future__ import annotations

import functools
import random
import re

import numpy as np
import pytest

from neuflow.blocks import alu_model, mapper_model, window_model
from neuflow.blocks.tiles import FifoTile, MapperTile, OperatorTile
from neuflow.blocks.window_model import WindowSpec
from neuflow.grid import TINY
from neuflow.ir import MapTable
from neuflow.layout import AluOp, Kind, RouterIn, RouterOut, WindowOp
from neuflow.verilog import export
from tests.helpers import PACES, Config, Pace, configure, get, put, simulate, watch

ROW, COLUMN = 4, 2


def route(source: RouterIn, *targets: RouterOut) -> list[Config]:
    """Return the ROUTE words of one packet."""
    peers = sum(1 << o for o in targets)
    return [
        Config(Kind.ROUTER, {"output": o, "input": source, "peers": peers}, ROW, 1 << COLUMN)
        for o in targets
    ]


def run(dut, configs, sent, wanted, pauses=(0.0, 0.0), seed=0) -> None:
    """Send packets (by port), compare what comes out of ports."""
    print(f"seed {seed}, pauses {pauses}")
    found = {port: [] for port in wanted}

    async def address(ctx) -> None:
        ctx.set(dut.row, ROW)
        ctx.set(dut.columns, 1 << COLUMN)
        ctx.set(dut.config_out.ready, 1)

    benches = [address, functools.partial(configure, bus=dut.config_in, packets=configs)]
    for k, (port, packets) in enumerate(sent.items()):
        pace = Pace(pauses[0], seed + k)
        stream = getattr(dut, port)
        benches.append(functools.partial(put, stream=stream, packets=packets, pace=pace))
    for k, port in enumerate(wanted):
        stream, pace = getattr(dut, port), Pace(pauses[1], seed + 20 + k)
        count = len(wanted[port])
        benches.append(
            functools.partial(get, stream=stream, count=count, into=found[port], pace=pace)
        )
    rules = [functools.partial(watch, stream=getattr(dut, port)) for port in wanted]
    simulate(dut, *benches, background=rules)
    assert found == wanted


def words(seed: int, count: int) -> list[int]:
    """Return random words."""
    rng = random.Random(seed)
    return [rng.randrange(-32768, 32768) for _ in range(count)]


@pytest.mark.parametrize("pauses", PACES)
def test_operator_tile_adds_then_pools(pauses: tuple[float, float]) -> None:
    x, residue = words(1, 2 * 4 * 5), words(2, 2 * 4 * 5)
    spec = WindowSpec(WindowOp.MAX, (2, 2), (2, 2), out=(2, 2), m=3, s=1)
    alu = {"op": AluOp.ADD, "shift_a": 0, "shift_b": 2, "shift": 2, "narrow": 0}
    configs = [
        Config(Kind.ALU, alu, 1, 1 << COLUMN),
        Config(Kind.WINDOW, spec.fields(2, 4, 5), 0, 1 << COLUMN),
        *route(RouterIn.NORTH, RouterOut.LOCAL2),
        *route(RouterIn.GLOBAL, RouterOut.LOCAL3),
        *route(RouterIn.LOCAL1, RouterOut.LOCAL4, RouterOut.EAST),
        *route(RouterIn.LOCAL2, RouterOut.GLOBAL),
    ]
    total = alu_model.alu(AluOp.ADD, x, residue, shift_b=2, shift=2)
    image = total.reshape(4, 2, 5).transpose(1, 0, 2)
    pooled = window_model.window(spec, image).transpose(1, 0, 2).ravel()
    run(
        OperatorTile(TINY), configs, {"north_in": [x], "global_in": [residue]},
        {"east_out": [total.tolist()], "global_out": [pooled.tolist()]}, pauses, seed=3,
    )  # fmt: skip


@pytest.mark.parametrize("pauses", PACES)
def test_mapper_tile_maps_and_passes_by(pauses: tuple[float, float]) -> None:
    table = MapTable((-32768, *[0] * 7), (0,) * 8, (0, *[3] * 7), (0,) * 8, 1, 0)
    x, y = words(5, 13), words(6, 3)
    configs = [
        Config(Kind.MAPPER, mapper_model.fields(table), 0, 1 << COLUMN),
        *route(RouterIn.SOUTH, RouterOut.LOCAL0),
        *route(RouterIn.LOCAL0, RouterOut.NORTH),
        *route(RouterIn.WEST, RouterOut.GLOBAL),
    ]
    mapped = mapper_model.apply_table(table, np.array(x)).tolist()
    run(
        MapperTile(TINY), configs, {"south_in": [x], "west_in": [y]},
        {"north_out": [mapped], "global_out": [y]}, pauses, seed=5,
    )  # fmt: skip


def test_fifo_tile_holds_its_half_of_the_words() -> None:
    x = words(7, TINY.fifo_words // 2)
    configs = [
        *route(RouterIn.NORTH, RouterOut.LOCAL0),
        *route(RouterIn.LOCAL0, RouterOut.SOUTH),
        *route(RouterIn.EAST, RouterOut.LOCAL1),
        *route(RouterIn.LOCAL1, RouterOut.GLOBAL),
    ]
    run(
        FifoTile(TINY), configs, {"north_in": [x], "east_in": [x[::-1]]},
        {"south_out": [x], "global_out": [x[::-1]]}, (0.0, 0.5), seed=8,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [OperatorTile, MapperTile, FifoTile])
def test_tiles_become_verilog(kind) -> None:
    texts = export(kind(TINY), "tile")
    assert re.search(r"^module tile ?\(", texts["tile"], re.MULTILINE)
    # The two FIFOs of a tile are one module; the window unit has its memory, and a bank for each lane.
    rams = {OperatorTile: 3, MapperTile: 0, FifoTile: 1}[kind]
    assert "".join(texts.values()).count("neuflow_ram #(") == rams
