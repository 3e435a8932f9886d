"""Weights that are sent before the fence of an earlier turn: which, their room, the gain."""

from __future__ import annotations

import dataclasses
import importlib

import numpy as np
import pytest

from neuflow.compiler import Stages, compile_graph, run_passes
from neuflow.compiler.turn import Turn
from neuflow.compiler.weights_ahead import weights_sent
from neuflow.cycle import judge
from neuflow.grid import TINY, VIRTEX6, GridConfig
from neuflow.ir import QuantGraph
from neuflow.layout import CONV_WEIGHTS
from neuflow.run import device, rtl
from neuflow.run.device_memory import DeviceFault
from neuflow.run.device_weights import WeightRings
from tests.quantgraphs import Builder, evaluate


def separable(channels: int, size: int) -> Builder:
    """Depthwise and pointwise convolutions in turn: few weights, then many."""
    net = Builder(2)
    x = net.input(channels, size, size)
    for _ in range(2):
        x = net.conv(x, channels, (3, 3), pads=(1, 1, 1, 1), groups=channels)
        x = net.conv(x, channels, (1, 1))
    return net


def graph_of(net: Builder) -> QuantGraph:
    return net.build(net.nodes[-1].output)


def turns_of(graph: QuantGraph, grid: GridConfig) -> tuple[Turn, ...]:
    stages = Stages(None, grid, nouns={"graph": None, "quantised": graph})
    return run_passes(stages, "schedule")["schedule"].turns


def test_many_weights_go_before_the_fence_of_the_turn_before_the_last() -> None:
    graph = graph_of(separable(128, 6))
    turns = turns_of(graph, VIRTEX6)
    labels = [turn.label for turn in turns]
    fenced, many = labels.index("conv2/pass0"), labels.index("conv3/pass0")
    assert many == fenced + 2 and turns[fenced].fence and turns[many].weights_bound
    assert weights_sent(turns, VIRTEX6)[fenced] == many + 1
    origins = [name for _, name in compile_graph(graph, VIRTEX6).origins]
    reads = origins.index("conv3/pass0/column0/READ_WEIGHTS")
    assert origins.index("conv2/pass1/column0/READ_WEIGHTS") < reads < origins.index("conv2/pass0/fence")


def test_with_one_place_in_its_queue_no_packet_goes_ahead() -> None:
    grid = dataclasses.replace(VIRTEX6, name="short", config_queue=1)
    turns = turns_of(graph_of(separable(128, 6)), grid)
    assert weights_sent(turns, grid) == list(range(1, len(turns) + 1))


def test_weights_wait_in_the_rings_as_far_as_these_have_room() -> None:
    rings = WeightRings(dataclasses.replace(TINY, weight_words=64, weight_blocks=2, bus_words=4))
    assert rings.has_room({"lead": 6}, 24 + 64)
    assert not rings.has_room({"lead": 7}, 28 + 64) and not rings.has_room({"lead": 6}, 24 + 68)
    rings.stored.append(({"lead": 4}, np.zeros(16 + 40, np.int16)))
    assert rings.has_room({"lead": 2}, 8 + 24)
    assert not rings.has_room({"lead": 3}, 12) and not rings.has_room({"lead": 0}, 28)


def test_a_program_that_counts_on_more_room_than_there_is_is_refused() -> None:
    """The machine would wait for ever."""
    net = separable(128, 6)
    graph = graph_of(net)
    program, words = compile_graph(graph, VIRTEX6), net.words(1)
    got = device.run(program, words).outputs[graph.outputs[0]]
    np.testing.assert_array_equal(got, evaluate(graph, words)[graph.outputs[0]])
    (at,) = (word for word, name in program.origins if name == "conv2/pass0/column0/CONV_WEIGHTS")
    code = np.frombuffer(program.device, "<u4").copy()
    fields = CONV_WEIGHTS.unpack(code[at + 1 : at + 2])
    code[at + 1 : at + 2] = CONV_WEIGHTS.pack(**fields | {"lead": 3 * VIRTEX6.weight_blocks + 1})
    with pytest.raises(DeviceFault, match="deadlock"):
        device.run(dataclasses.replace(program, device=code.tobytes()), words)


def test_rtl_takes_weights_ahead() -> None:
    net = separable(16, 2)
    graph = graph_of(net)
    turns = turns_of(graph, TINY)
    assert any(end > n + 2 and turns[n].fence for n, end in enumerate(weights_sent(turns, TINY)))
    program, words = compile_graph(graph, TINY), net.words(1)
    got = rtl.run(program, words)
    np.testing.assert_array_equal(
        got.outputs[graph.outputs[0]], evaluate(graph, words)[graph.outputs[0]]
    )
    assert got.stats["cycles"] == judge.simulate(program, 1).cycles


def test_weights_ahead_gain_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of(separable(128, 6))
    ahead = judge.simulate(compile_graph(graph, VIRTEX6), 1).cycles
    assemble = importlib.import_module("neuflow.compiler.assemble")
    monkeypatch.setattr(assemble, "weights_sent", lambda turns, grid: range(1, len(turns) + 1))
    assert ahead < judge.simulate(compile_graph(graph, VIRTEX6), 1).cycles - 400
