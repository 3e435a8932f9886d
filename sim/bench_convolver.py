"""Bench of the convolver: passes of every shape, one after another, and exact partial sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cocotb

from neuflow.fixed import PARTIAL_WORDS
from neuflow.grid import TINY
from sim import designs
from sim.streams import PACES, Traffic, exchange
from tests.convolver_layers import LAYERS, Layer, configs, expected, rows_packets, weights_packet

Data = dict[str, Any]


async def run(
    dut: Any,
    passes: Sequence[tuple[Layer, Data]],
    pauses: tuple[float, float],
    wanted: Sequence[Sequence[int]],
    partials: Sequence[Sequence[int]] = (),
) -> None:
    """Send the packets of ``passes``; compare what comes out with ``wanted``."""
    units = [configs(layer, TINY) for layer, _ in passes]
    traffic = Traffic(
        sends={
            "rows": [packet for one in passes for packet in rows_packets(*one)],
            "weights": [weights_packet(layer, data, TINY) for layer, data in passes],
            "partials": partials,
        },
        expected={"o": wanted},
        configs={f"config__{k}": [unit[k] for unit in units] for k in range(4)},
        constants={"columns": 1},
    )
    await exchange(dut, designs.convolver(), traffic, pauses)


@cocotb.test(timeout_time=400, timeout_unit="us")
async def every_layer(dut: Any) -> None:
    layers = list(LAYERS.values())
    passes = [(layer, layer.data()) for layer in layers]
    await run(dut, passes, (0.0, 0.0), [expected(layer) for layer in layers])


@cocotb.test(timeout_time=300, timeout_unit="us")
@cocotb.parametrize(pauses=PACES[1:])
async def passes_under_stalls(dut: Any, pauses: tuple[float, float]) -> None:
    seed = cocotb.RANDOM_SEED
    names = ("ring", "same", "few_slots", "column_vector", "stride", "extremes")
    layers = [replace(LAYERS[name], seed=seed + k) for k, name in enumerate(names)]
    layers[1] = replace(layers[1], ahead=1, base=400)
    passes = [(layer, layer.data()) for layer in layers]
    await run(dut, passes, pauses, [expected(layer) for layer in layers])


def partial_words(layer: Layer, data: Data) -> list[int]:
    """Return the partial sums packet of a layer: for group, block, pixel, word: one word a map."""
    from neuflow.blocks import convolver_model

    values = configs(layer, TINY)[3].values
    totals = convolver_model.sums(data["image"], data["weight"], **layer.geometry)
    words = []
    for group in range(values["groups"]):
        for block in range(values["blocks"]):
            for lane in range(TINY.pixels):
                y, x = divmod(group * TINY.pixels + lane, values["pitch"])
                inside = y < values["height"] and x < values["width"]
                for part in range(PARTIAL_WORDS):
                    for k in range(block * TINY.maps, (block + 1) * TINY.maps):
                        total = int(totals[k, y, x]) if inside and k < layer.maps else 0
                        words.append((total >> 16 * part) & 0xFFFF)
    return [word - 0x10000 if word & 0x8000 else word for word in words]


@cocotb.test(timeout_time=300, timeout_unit="us")
async def partial_sums_are_added(dut: Any) -> None:
    whole = Layer(channels=5, maps=4, pads=(1, 1, 1, 1), extreme=True, seed=cocotb.RANDOM_SEED)
    data = whole.data()
    first, rest = (
        {**data, "image": data["image"][part], "weight": data["weight"][:, part]}
        for part in (slice(2), slice(2, 5))
    )
    layer = replace(whole, channels=3, partial_in=1)
    partials = partial_words(replace(whole, channels=2), first)
    await run(dut, [(layer, rest)], (0.3, 0.3), [expected(whole)], [partials])
