"""What lies in the scratchpad: it fits, it saves, and every way of lying there gives golden's words."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from neuflow.compiler import Stages, compile_graph, run_passes
from neuflow.compiler.allocate import Space
from neuflow.compiler.schedule import Schedule
from neuflow.grid import TINY, GridConfig
from neuflow.ir import QuantGraph
from neuflow.run import device, rtl
from tests.quantgraphs import Builder, evaluate

ROOMY = dataclasses.replace(TINY, scratchpad_words=4096)
NONE = dataclasses.replace(TINY, scratchpad_words=0)


def chain_of_convolutions() -> Builder:
    net = Builder(5)
    x = net.relu(net.conv(net.input(3, 9, 10), 6, (3, 3), pads=(1, 1, 1, 1)))
    y = net.relu(net.conv(x, 6, (3, 3), pads=(1, 1, 1, 1)))
    x = net.alu("add", net.conv(y, 6, (1, 1)), x)
    net.dense(net.pool(x, "max", (2, 2), (2, 2)), 7)
    return net


def classifier() -> Builder:
    """Small maps, then a dense layer that reads them whole."""
    net = Builder(6)
    x = net.pool(net.relu(net.conv(net.input(2, 10, 10), 4, (3, 3))), "max", (2, 2), (2, 2))
    net.dense(net.relu(net.dense(x, 9)), 5)
    return net


def vectors() -> Builder:
    """Dense layers alone: an add and a concat of what they write."""
    net = Builder(8)
    x = net.relu(net.dense(net.input(6, 1, 1), 9))
    y = net.alu("add", net.dense(x, 9), x)
    net.dense(net.concat(y, net.relu(net.dense(y, 5))), 4)
    return net


def scheduled(graph: QuantGraph, grid: GridConfig, batch: int = 1) -> Schedule:
    stages = Stages(None, grid, batch=batch, nouns={"graph": None, "quantised": graph})
    return run_passes(stages, "schedule")["schedule"]


def near(schedule: Schedule) -> set[str]:
    return {name for name, place in schedule.places.items() if place.space is Space.SCRATCHPAD}


@pytest.mark.parametrize("words", [0, 512, 1024, 4096])
def test_what_lies_there_fits_and_more_room_takes_more(words):
    net = chain_of_convolutions()
    graph = net.build(net.nodes[-1].output)
    schedule = scheduled(graph, dataclasses.replace(TINY, scratchpad_words=words))
    places = [schedule.places[name] for name in near(schedule)]
    assert all(place.base + place.size <= words for place in places)
    assert not near(schedule) & {*graph.inputs, *graph.outputs}
    assert (len(near(schedule)) > 0) == (words > 0)
    if words == 4096:
        assert near(schedule) == set(schedule.places) - {*graph.inputs, *graph.outputs}
        assert schedule.work_words == 0


def test_tensors_that_live_at_once_do_not_meet():
    net = chain_of_convolutions()
    schedule = scheduled(net.build(net.nodes[-1].output), ROOMY)
    skip, inner = (schedule.places[f"map{k}.out"] for k in (1, 3))
    assert skip.base + skip.size <= inner.base or inner.base + inner.size <= skip.base


@pytest.mark.parametrize("make", [chain_of_convolutions, classifier, vectors])
@pytest.mark.parametrize("grid", [NONE, TINY, ROOMY], ids=["none", "tiny", "roomy"])
@pytest.mark.parametrize("batch", [1, 4, 16])
def test_the_device_section_gives_the_reference(make, grid, batch):
    net = make()
    graph, words = net.build(net.nodes[-1].output), net.words(batch + 1)
    found = device.run(compile_graph(graph, grid, batch), words)
    for name, want in evaluate(graph, words).items():
        if name in graph.outputs:
            assert np.array_equal(found.outputs[name], want)


@pytest.mark.rtl
@pytest.mark.parametrize("batch", [1, 4, 16])
def test_the_grid_gives_the_reference(batch):
    """On ``tiny`` itself, whose simulator other tests build too; small maps lie in its scratchpad."""
    net = classifier()
    graph, words = net.build(net.nodes[-1].output), net.words(batch)
    program = compile_graph(graph, TINY, batch)
    assert ("scratchpad" in program.schedule) and ("work" not in program.schedule or batch > 1)
    found = rtl.run(program, words)
    assert np.array_equal(found.outputs[graph.outputs[0]], evaluate(graph, words)[graph.outputs[0]])


def test_a_batch_is_interleaved_for_dense_layers_alone():
    net = classifier()
    graph = net.build(net.nodes[-1].output)
    schedule = scheduled(graph, ROOMY, batch=4)
    place = schedule.places["pool2.out"]
    assert place.space is Space.SCRATCHPAD
    assert (place.image, place.pixel, place.channel, place.record) == (1, 4, 16, 64)
    assert place.size == 4 * 64
    assert scheduled(graph, ROOMY).places["pool2.out"].pixel == 1
    assert scheduled(graph, NONE, batch=4).places["pool2.out"].pixel == 1


def test_a_large_batch_lies_in_bands_as_wide_as_a_group_of_lanes():
    """Five lanes take eight images, two beats. What the host sees stays in one piece."""
    net = classifier()
    graph = net.build(net.nodes[-1].output)
    places = scheduled(graph, ROOMY, batch=16).places
    maps, vector, scores = (places[name] for name in ("pool2.out", "map4.out", graph.outputs[0]))
    assert (maps.side, maps.band, maps.pixel, maps.channel, maps.record) == (8, 512, 8, 32, 128)
    assert (vector.side, vector.band, vector.pixel) == (8, 72, 8)
    assert [vector.of(image) for image in (0, 7, 8, 15)] == [0, 7, 72, 79]
    assert (scores.side, scores.pixel) == (16, 16)
    assert scheduled(graph, ROOMY, batch=12).places["map4.out"].side == 12


def test_partial_sums_take_what_is_left():
    net = Builder(7)
    net.conv(net.input(24, 6, 6), 6, (3, 3), pads=(1, 1, 1, 1))
    graph, words = net.build(net.nodes[-1].output), net.words(1)
    grid = dataclasses.replace(ROOMY, row_words=256)
    schedule = scheduled(graph, grid)
    sums = {place.space for turn in schedule.turns for place in turn.sums if place is not None}
    assert sums == {Space.SCRATCHPAD}
    found = device.run(compile_graph(graph, grid), words)
    assert np.array_equal(found.outputs[graph.outputs[0]], evaluate(graph, words)[graph.outputs[0]])
