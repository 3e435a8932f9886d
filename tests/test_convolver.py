# amaranth: UnusedElaboratable=no
"""The convolver against its model: kernels, strides, borders, rings, partial sums, stalls."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from neuflow.blocks import convolver_model as model
from neuflow.blocks.convolver import Convolver
from neuflow.grid import TINY, GridConfig
from neuflow.layout import Scatter
from tests.convolver_layers import LAYERS, Layer, configs, expected, rows_packets, weights_packet
from tests.helpers import Pace, configure, get, put, simulate, watch


def run(
    layers: list[Layer], grid: GridConfig = TINY, pauses: tuple[float, float] = (0.0, 0.0),
    partials: list[list[int]] | None = None, seed: int = 7,
    data: list[dict[str, Any]] | None = None, taps: list[int] | None = None,
) -> list[list[int]]:  # fmt: skip
    """Send all packets of ``layers`` and return what comes out, one packet a layer.

    ``taps``: receives, cycle by cycle, whether a tap was issued.
    """
    dut = Convolver(grid)
    data = data or [layer.data() for layer in layers]
    rows = [p for pair in zip(layers, data, strict=True) for p in rows_packets(*pair)]
    weights = [weights_packet(*pair, grid) for pair in zip(layers, data, strict=True)]
    units = [[c] for layer in layers for c in configs(layer, grid)]
    by_unit = [[units[i * 4 + u][0] for i in range(len(layers))] for u in range(4)]
    source, sink = pauses
    out: list[list[int]] = []

    async def columns(ctx: Any) -> None:
        ctx.set(dut.columns, 1)

    async def observe(ctx: Any) -> None:
        async for _, _, tap in ctx.tick().sample(dut.tap):
            if taps is not None:
                taps.append(tap)

    benches: list[Any] = [columns]
    for bus, packets in zip(dut.config, by_unit, strict=True):
        benches.append(functools.partial(configure, bus=bus, packets=packets))
    benches += [
        functools.partial(put, stream=dut.rows, packets=rows, pace=Pace(source, seed)),
        functools.partial(put, stream=dut.weights, packets=weights, pace=Pace(source, seed + 1)),
        functools.partial(
            put, stream=dut.partials, packets=partials or [], pace=Pace(source, seed + 2)
        ),
        functools.partial(
            get, stream=dut.o, count=len(layers), into=out, pace=Pace(sink, seed + 3)
        ),
    ]
    watchers = [functools.partial(watch, stream=dut.o), observe]
    simulate(dut, *benches, background=watchers, limit=40_000)
    return out


@pytest.mark.parametrize("name", LAYERS)
def test_equals_the_model(name: str) -> None:
    assert run([LAYERS[name]]) == [expected(LAYERS[name])]


WIDE = replace(
    TINY, maps=4, bus_words=8, pixels=7, row_banks=16, row_words=1024, reorder_words=512
)


@pytest.mark.parametrize("stride", [2, 3, 4, 9])
@pytest.mark.parametrize("width", [16, 19, 21, 23])
def test_phases_of_wide_beats(stride: int, width: int) -> None:
    layer = Layer(height=3, width=width, stride=stride, kernel=(2, 3), channels=2)
    thin = replace(layer, kernel=(1, 1), decimated=True, base=512, ahead=1, seed=2)
    assert run([layer, thin], WIDE) == [expected(layer), expected(thin)]


@pytest.mark.parametrize("banks", [16, 32])
@pytest.mark.parametrize("pauses", [(0.0, 0.0), (0.5, 0.0)])
def test_both_phases_at_once_from_any_bank(banks: int, pauses: tuple[float, float]) -> None:
    """Rows that begin and end anywhere in a beat, and go on behind the end of the buffer."""
    grid = replace(WIDE, row_banks=banks)
    layers = [
        Layer(height=3, width=width, stride=2, kernel=(2, 3), maps=4, channels=2, seed=width,
              base=grid.row_words - 11 * width)
        for width in range(4, 20)
    ]  # fmt: skip
    assert {configs(layer, grid)[0].values["scatter"] for layer in layers} == {Scatter.BOTH_PHASES}
    assert run(layers, grid, pauses) == [expected(layer) for layer in layers]


@pytest.mark.parametrize("channels", [2, 3, 5])
@pytest.mark.parametrize("pauses", [(0.0, 0.0), (0.5, 0.0)])
def test_rows_of_two_channels_at_once_from_any_bank(
    channels: int, pauses: tuple[float, float]
) -> None:
    """Rows that begin and end anywhere in a beat, and go on behind the end of the buffer."""
    layers = [
        Layer(height=3, width=width, kernel=(2, 1), channels=channels, joined=True, seed=width,
              base=WIDE.row_words - 5 * width, first=width % 3, ahead=0)
        for width in range(1, 20)
    ]  # fmt: skip
    assert run(layers, WIDE, pauses) == [expected(layer) for layer in layers]


@pytest.mark.parametrize("maps", [1, 2, 8])
def test_two_stretches_at_once_of_other_beats(maps: int) -> None:
    grid = replace(WIDE, maps=maps, bus_words=2 * maps, row_banks=32, weight_words=512)
    names = ("stride_odd", "joined")
    layers = [
        replace(LAYERS[name], base=base, seed=base) for base in range(0, 48, 5) for name in names
    ]
    assert run(layers, grid) == [expected(layer) for layer in layers]


@pytest.mark.parametrize("pauses", [(0.6, 0.0), (0.0, 0.7), (0.4, 0.4)])
@pytest.mark.parametrize("depth", [1, 2])
def test_passes_follow_one_another_under_stalls(pauses: tuple[float, float], depth: int) -> None:
    layers = [
        LAYERS["ring"],
        replace(LAYERS["same"], ahead=1, base=400, seed=3),
        replace(LAYERS["few_slots"], seed=4),
        replace(LAYERS["column_vector"], seed=5),
        replace(LAYERS["one_beat"], seed=8),
        replace(LAYERS["two_beats"], seed=9),
        replace(LAYERS["stride"], seed=6),
    ]
    grid = replace(TINY, config_queue=depth)
    assert run(layers, grid, pauses) == [expected(layer) for layer in layers]


@pytest.mark.parametrize("first", [1, 2, 3])
@pytest.mark.parametrize("pauses", [(0.0, 0.0), (0.6, 0.0), (0.4, 0.4)])
def test_rows_may_come_as_two_packets(first: int, pauses: tuple[float, float]) -> None:
    names = ("same", "ring", "stride", "decimated", "valid")
    layers = [replace(LAYERS[name], first=first, seed=k) for k, name in enumerate(names)]
    layers.insert(2, replace(LAYERS["same"], seed=9))
    assert run(layers, TINY, pauses) == [expected(layer) for layer in layers]


FOUR = replace(WIDE, pixels=5, weight_words=512)
"""Four map lanes, and banks for the words beyond the pixels'."""


@pytest.mark.parametrize("pauses", [(0.0, 0.0), (0.6, 0.0), (0.0, 0.7), (0.4, 0.4)])
@pytest.mark.parametrize("grid", [TINY, FOUR, replace(FOUR, pixels=1)])
def test_passes_by_tap_among_others(grid: GridConfig, pauses: tuple[float, float]) -> None:
    layers = [
        LAYERS["by_tap_ring"],
        replace(LAYERS["same"], ahead=1, base=256, seed=3),
        replace(LAYERS["by_tap_short"], seed=4),
        replace(LAYERS["closed_ring"], seed=8),
        replace(LAYERS["by_tap_extremes"], seed=5),
        replace(LAYERS["closed_by_tap_short" if grid.tap_gap else "closed"], seed=9),
        replace(LAYERS["pointwise"], seed=6),
        replace(LAYERS["by_tap"], seed=7, slots=2),
    ]
    assert run(layers, grid, pauses) == [expected(layer) for layer in layers]


@pytest.mark.parametrize("kernel_y", [5, 6, 7, 9])
@pytest.mark.parametrize("pauses", [(0.0, 0.0), (0.4, 0.4)])
def test_last_taps_of_rows_wait_for_each_other(kernel_y: int, pauses: tuple[float, float]) -> None:
    """One, two and three of them in a channel's first step of them; banks for not a word more."""
    grid = replace(FOUR, pixels=9, row_banks=16)
    assert grid.tap_gather and not replace(grid, pixels=10).tap_gather
    layer = Layer(
        height=kernel_y, width=13, channels=3, maps=2, by_tap=2, gather=1, kernel=(kernel_y, 9),
        pads=(1, 0, 1, 0), seed=kernel_y,
    )
    layers = [layer, replace(LAYERS["by_tap_short"], ahead=1, base=800), replace(layer, seed=2)]
    assert run(layers, grid, pauses) == [expected(layer) for layer in layers]


@pytest.mark.parametrize("lanes", [2, 4, 8])
@pytest.mark.parametrize("kernel_y", range(1, 20))
def test_every_tap_has_its_lane(lanes: int, kernel_y: int) -> None:
    for kernel_x in (1, lanes - 1, lanes, 2 * lanes, 2 * lanes + 1):
        for gather in {False, model.can_gather(kernel_y, kernel_x, lanes)}:
            order, names = model.tap_order(kernel_y, kernel_x, lanes, gather)
            steps = model.tap_steps(kernel_x, lanes, gather)
            assert len(order) == model.channel_steps(kernel_y, steps, lanes, gather)
            assert sorted(order[order >= 0].tolist()) == list(range(kernel_y * kernel_x))
            assert names.any() and (order[names, -1] < 0).all()
            # A name is there before a channel's last row begins, where there is more than one.
            if kernel_y > 1:
                assert np.flatnonzero(names)[0] < len(order) - steps
    assert not model.can_gather(2 * lanes, 2 * lanes + 1, lanes)


def test_a_map_by_tap_writes_nothing_behind_its_own() -> None:
    # Behind two maps the reorder buffer begins again: a third one's words would fall on the first's.
    layer = Layer(height=6, width=8, maps=2, by_tap=1, kernel=(2, 3), slots=5)
    grid = replace(TINY, reorder_words=64)
    assert configs(layer, grid)[3].values["map_step"] == 31
    assert run([layer], grid) == [expected(layer)]


@pytest.mark.parametrize("seed", range(3))
def test_a_row_keeps_its_slot_until_it_is_read(seed: int) -> None:
    # A sink that hardly takes: the rows after the next are there long before the last is read.
    layer = Layer(height=9, width=6, maps=2, kernel=(1, 1), slots=2, seed=seed)
    assert run([layer], pauses=(0.0, 0.95), seed=seed) == [expected(layer)]


@pytest.mark.parametrize(
    "layer",
    [
        Layer(channels=4, maps=3, pads=(1, 1, 1, 1)),  # bound by its taps
        Layer(channels=3, maps=2, kernel=(1, 3), width=9, height=2),  # odd taps
        Layer(channels=1, maps=6, kernel=(1, 2), width=6, height=4),  # bound by the drain
        Layer(channels=4, maps=3, by_tap=3, kernel=(3, 3)),  # by tap, bound by its steps
        Layer(channels=2, maps=2, by_tap=1, gather=1, kernel=(3, 5), width=8),  # and last taps apart
    ],
)
def test_a_group_takes_the_cycles_of_the_formula(layer: Layer) -> None:
    taps: list[int] = []
    assert run([layer], taps=taps) == [expected(layer)]
    assert_cycles(layer, TINY, taps)


def assert_cycles(layer: Layer, grid: GridConfig, taps: list[int]) -> None:
    """Check the cycles in which taps were issued against the formula."""
    height, width = layer.out_shape
    groups = model.groups(height, width, max(width, layer.width), grid.pixels)
    (kernel_y, steps), addition = layer.kernel, 0
    blocks, channels = -(-layer.maps // grid.maps), layer.channels
    gather = bool(layer.gather)
    if layer.by_tap:
        blocks, channels = layer.maps, layer.by_tap
        steps, addition = model.tap_steps(steps, grid.maps, gather), model.addition(grid.maps)
    of_block = channels * model.channel_steps(kernel_y, steps, grid.maps, gather)
    issued = [cycle for cycle, tap in enumerate(taps) if tap]
    assert len(issued) == groups * blocks * of_block
    # From the last tap of the second group, as the first one's drain is free, to that of the last.
    of_group = blocks * of_block
    span = issued[-1] - issued[2 * of_group - 1]
    assert span == (groups - 2) * model.group_cycles(blocks, of_block, grid.pixels, addition)


@pytest.mark.parametrize(("maps", "pixels"), [(2, 20), (4, 25), (8, 18)])
def test_blocks_by_tap_leave_as_fast_as_they_are_added(maps: int, pixels: int) -> None:
    grid = replace(
        TINY, maps=maps, bus_words=2 * maps, pixels=pixels, row_banks=32, row_words=1024,
        weight_words=512, reorder_words=2048, burst_beats=4,
    )  # fmt: skip
    layer = Layer(height=9, width=12, maps=3, by_tap=1, kernel=(2, 3))
    taps: list[int] = []
    assert run([layer], grid, taps=taps) == [expected(layer)]
    assert_cycles(layer, grid, taps)


def test_partial_sums_join_exactly() -> None:
    whole = Layer(channels=5, maps=3, pads=(1, 1, 1, 1), extreme=True)
    data = whole.data()
    first = {**data, "image": data["image"][:2], "weight": data["weight"][:, :2]}
    middle = {**data, "image": data["image"][2:3], "weight": data["weight"][:, 2:3]}
    last = {**data, "image": data["image"][3:], "weight": data["weight"][:, 3:]}
    (one,) = run([replace(whole, channels=2, partial_out=1)], data=[first])
    (two,) = run(
        [replace(whole, channels=1, partial_in=1, partial_out=1)], partials=[one], data=[middle]
    )
    (out,) = run(
        [replace(whole, channels=2, partial_in=1)], partials=[two], data=[last], pauses=(0.3, 0.3)
    )
    assert out == expected(whole)


def test_one_wrong_weight_bit_shows() -> None:
    layer = LAYERS["valid"]
    data = layer.data()
    data["weight"] = data["weight"] ^ np.eye(1, data["weight"].size, 4, dtype=np.int64).reshape(
        data["weight"].shape
    )
    assert run([layer], data=[data]) != [expected(layer)]
