"""Depthwise layers in two rounds of rows: where, what is gained, that compare and search know of it."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from neuflow.compiler import Stages, compile_graph, run_passes
from neuflow.compiler.early_rows import early_rows
from neuflow.compiler.mapping import Mapping
from neuflow.cycle import judge
from neuflow.grid import VIRTEX6
from neuflow.ir import QuantGraph
from neuflow.run import device
from neuflow.run.compare_locate import Locator
from tests.quantgraphs import Builder, evaluate


def separable(size: int, last: int = 128) -> Builder:
    """Much work, then depthwise and pointwise on ``size`` x ``size``, and a layer of ``last`` maps."""
    net = Builder(6)
    x = net.input(16, 4 * size, 4 * size)
    x = net.conv(x, 64, (3, 3), pads=(1, 1, 1, 1))
    x = net.conv(x, 128, (1, 1), (4, 4))
    x = net.conv(x, 128, (3, 3), pads=(1, 1, 1, 1), groups=128)
    x = net.conv(x, 128, (1, 1))
    net.conv(x, last, (1, 1))
    return net


def graph_of(net: Builder) -> QuantGraph:
    return net.build(net.nodes[-1].output)


def mappings(graph: QuantGraph) -> tuple[Mapping, Mapping]:
    """Return the mapping before and after."""
    stages = run_passes(Stages(None, VIRTEX6, nouns={"graph": None, "quantised": graph}), "early")
    return stages["mapping"], stages["early"]


def changed(net: Builder) -> list[str]:
    before, after = mappings(graph_of(net))
    both = zip(before.assignments, after.assignments, strict=True)
    return [new.chain.name for old, new in both if new.passes != old.passes]


def test_rows_come_in_two_rounds_and_cycles_are_gained(monkeypatch: pytest.MonkeyPatch) -> None:
    net = separable(6)
    graph, words = graph_of(net), net.words(1)
    before, after = mappings(graph)
    assert changed(net) == ["conv2"]
    rows = [{piece.out.rows for piece in one.pieces} for one in after.assignments[2].passes]
    assert rows == [{(0, 3)}, {(3, 6)}]
    program = compile_graph(graph, VIRTEX6)
    got = device.run(program, words).outputs[graph.outputs[0]]
    np.testing.assert_array_equal(got, evaluate(graph, words)[graph.outputs[0]])
    assert Locator(program, words).known and not program.cuts
    module = importlib.import_module("neuflow.compiler.early_rows")
    monkeypatch.setattr(module, "_waits", lambda *_: False)
    assert str(mappings(graph)[1]) == str(before)
    cycles = judge.simulate(program, 1).cycles
    assert cycles < judge.simulate(compile_graph(graph, VIRTEX6), 1).cycles - 100


def test_not_where_the_next_layer_begins_with_few_rows() -> None:
    assert changed(separable(14)) == []


def test_not_where_the_bus_is_late() -> None:
    """The last layer's weights take it longer than all before it work."""
    assert changed(separable(6, last=2048)) == []


def test_a_cut_that_is_given_stays() -> None:
    before, _ = mappings(graph_of(separable(6)))
    assert str(early_rows(before, VIRTEX6, {"conv2": 0})) == str(before)
