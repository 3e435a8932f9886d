"""Sums of convolutions of one geometry are one convolution of both inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from neuflow import api
from neuflow.compiler import compile_graph
from neuflow.compiler.load import load
from neuflow.compiler.quantise import quantise
from neuflow.grid import TINY
from neuflow.run import golden, host
from tests.loaded import same_as_onnxruntime
from tests.onnx_builder import conv, image_model, node, normal, onnx, reference

C, H, W = 3, 8, 9
WEIGHTS = {
    "w": normal(5, C, 1, 1, seed=1), "w4": normal(5, 4, 1, 1, seed=2), "b": normal(5, seed=3),
    "up": normal(4, C, 3, 3, seed=4) * 8, "w3": normal(5, C, 3, 3, seed=5),
    "half": normal(4, C, 1, 1, seed=6) / 16, "b2": normal(5, seed=7),
    "w43": normal(5, 4, 3, 3, seed=8) / 16,
}  # fmt: skip


def wide(x: str, y: str) -> list[Any]:
    """A Relu with large values and other bits than its operand."""
    return [conv(x, f"{y}c", "up", pads=[1, 1, 1, 1]), node("Relu", [f"{y}c"], y)]


CASES: dict[str, tuple[list[Any], int]] = {
    "shortcut": ([*wide("x", "r"), conv("r", "a", "w4", "b"), conv("x", "s", "w"),
                  node("Add", ["a", "s"], "t"), node("Relu", ["t"], "y")], 2),
    "shortcut of what others read": ([*wide("x", "r"), conv("r", "a", "w4"), conv("x", "s", "w"),
                                      node("Add", ["s", "a"], "t"), conv("r", "u", "w4"),
                                      node("Mul", ["t", "u"], "y")], 3),
    "three": ([*wide("x", "r"), conv("x", "h", "half"), conv("r", "a", "w4"), conv("x", "s", "w"),
               conv("h", "u", "w4"), node("Add", ["a", "s"], "t"), node("Add", ["t", "u"], "y")], 3),
    "a bias each": ([*wide("x", "r"), conv("r", "a", "w4", "b"), conv("x", "s", "w", "b2"),
                     node("Add", ["a", "s"], "y")], 2),
    "another dilation": ([*wide("x", "r"), conv("r", "a", "w43", pads=[1, 1, 1, 1]),
                          conv("x", "s", "w3", pads=[2, 2, 2, 2], dilations=[2, 2]),
                          node("Add", ["a", "s"], "y")], 3),
    "another stride": ([*wide("x", "r"), conv("r", "a", "w4", strides=[2, 2]),
                        conv("x", "s", "w3", strides=[2, 2], pads=[1, 1, 1, 1]),
                        node("Add", ["a", "s"], "y")], 3),
    "a sum that is read too": ([*wide("x", "r"), conv("r", "a", "w4"), conv("x", "s", "w"),
                                node("Add", ["a", "s"], "t"), node("Mul", ["t", "s"], "y")], 3),
    "of one input": ([conv("x", "a", "w"), conv("x", "s", "w", "b"), node("Add", ["a", "s"], "y")], 2),
}  # fmt: skip
"""Nodes from x to y, and how many convolutions are left."""


def model_of(nodes: list[Any]) -> onnx.ModelProto:
    return image_model(nodes, WEIGHTS, (C, H, W))


@pytest.mark.parametrize("name", CASES)
def test_real_values_stay(name: str) -> None:
    nodes, left = CASES[name]
    graph = same_as_onnxruntime(model_of(nodes))
    assert sum(n.op == "conv" for n in graph.nodes) == left


@pytest.mark.parametrize(("bits", "batch"), [(16, 1), (8, 2)])
@pytest.mark.parametrize("name", CASES)
def test_all_judges_agree(name: str, bits: int, batch: int) -> None:
    """Inputs of a sum may differ in point and scale."""
    x, model = {"x": normal(3, C, H, W, seed=20)}, model_of(CASES[name][0])
    graph = quantise(load(model), x, bits)
    program = api.Program(compile_graph(graph, TINY, batch))
    want = golden.run(graph, host.quantise_inputs(graph, x)).outputs
    np.testing.assert_array_equal(program.cycle(x).words["y"], want["y"])
    real, got = reference(model, x)["y"], host.dequantise_outputs(graph, want)["y"]
    assert np.abs(got - real).max() / np.abs(real).max() <= (1e-3 if bits == 16 else 0.1)


def test_neither_result_goes_to_memory() -> None:
    x = {"x": normal(1, C, H, W, seed=20)}
    graph = quantise(load(model_of(CASES["shortcut"][0])), x)
    assert [layer.operator for layer in compile_graph(graph, TINY).layers] == ["conv+map", "conv+map"]
    joined = next(n for n in graph.nodes if n.op == "concat")
    assert graph.tensors["x"].point != graph.tensors["r"].point
    assert set(joined.inputs) == {"x", "r"}
