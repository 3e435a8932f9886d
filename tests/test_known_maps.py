"""Maps known before any input is: left out of the float graph, and what lies in their place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from neuflow import api
from neuflow.compiler import compile_graph
from neuflow.compiler.load import load
from neuflow.compiler.quantise import quantise
from neuflow.grid import TINY
from neuflow.ir import Graph
from neuflow.run import frames, golden, host
from tests.loaded import same_as_onnxruntime
from tests.onnx_builder import image_model, node, normal, onnx, reference

C, H, W = 4, 9, 11
PADS = [1, 1, 1, 1]
BELL = np.zeros((C, C, 3, 3), np.float32)
BELL[1, 1] = 1 / 9
WEIGHTS = {
    "bell": BELL, "one": np.array([1, 0, 1, 1], np.float32), "w": normal(5, C, 3, 3, seed=1),
    "two": np.array([2, 0, 2, 2], np.float32), "k": np.float32(0.1), "v": normal(C, C, 1, 1, seed=2),
}  # fmt: skip


def conv(x: str, y: str, w: str = "w", bias: str = "", pads: list[int] = PADS) -> Any:
    return node("Conv", [x, w, bias] if bias else [x, w], y, pads=pads)


NORMALISED = [
    conv("x", "mean", "bell"), node("Sub", ["x", "mean"], "d"), node("Mul", ["d", "d"], "q"),
    conv("q", "e", "bell", "one"), node("Clip", ["e", "k"], "f"), node("Sqrt", ["f"], "g"),
    node("Div", ["d", "g"], "n"),
]  # fmt: skip
"""Map 1 is normalised, the others stay what they are."""

CASES: dict[str, tuple[list[Any], dict[str, int]]] = {
    "normalised": ([*NORMALISED, conv("n", "y")], {"d": 1, "q": 1, "e": 1, "g": 1, "n": 1}),
    "read twice": ([*NORMALISED, conv("n", "a"), node("Relu", ["a"], "r"), conv("n", "b"),
                    node("Add", ["r", "b"], "y")], {"n": 1}),
    "read by a pool too": ([*NORMALISED, conv("n", "a", pads=[0] * 4),
                            node("MaxPool", ["n"], "b", kernel_shape=[3, 3]),
                            node("Concat", ["a", "b"], "y", axis=1)], {"mean": 4, "n": 4}),
    "an output": ([*NORMALISED, node("Abs", ["n"], "y")], {"n": 4}),
    "constants at the border": ([conv("x", "a", "bell", "two"), conv("a", "y")], {"a": 4}),
    "constants within": ([conv("x", "a", "bell", "two"), conv("a", "y", pads=[0] * 4)], {"a": 1}),
    "a computed map's copies": ([conv("x", "t", "v", pads=[0] * 4), node("Tanh", ["t"], "u"),
                                 conv("u", "m", "bell"), node("Sub", ["u", "m"], "n"),
                                 conv("n", "y")], {"n": 1, "u": 4}),
    "copies in two sums": ([conv("x", "m", "bell"), node("Sub", ["x", "m"], "a"),
                            node("Add", ["m", "x"], "b"), conv("a", "c"), conv("b", "d"),
                            node("Add", ["c", "d"], "y")], {"m": 4}),
}  # fmt: skip
"""Nodes from x to y, and of how many maps some tensors are computed."""


def model_of(nodes: list[Any]) -> onnx.ModelProto:
    return image_model(nodes, WEIGHTS, (C, H, W))


@pytest.mark.parametrize("name", CASES)
def test_real_values_stay(name: str) -> None:
    nodes, maps = CASES[name]
    graph = same_as_onnxruntime(model_of(nodes))
    assert {tensor: graph.tensors[tensor].shape[0] for tensor in maps} == maps


@pytest.mark.parametrize(("bits", "batch"), [(16, 1), (8, 2)])
@pytest.mark.parametrize("name", CASES)
def test_all_judges_agree(name: str, bits: int, batch: int) -> None:
    """Over frames, the last half empty, with what an input's frame has room for; near to the model."""
    x, model = {"x": normal(3, C, H, W, seed=20)}, model_of(CASES[name][0])
    graph = quantise(load(model), x, bits)
    program = api.Program(compile_graph(graph, TINY, batch))
    want = golden.run(graph, host.quantise_inputs(graph, x)).outputs
    np.testing.assert_array_equal(program.cycle(x).words["y"], want["y"])
    real, got = reference(model, x)["y"], host.dequantise_outputs(graph, want)["y"]
    assert np.abs(got - real).max() / np.abs(real).max() <= (2e-3 if bits == 16 else 0.2)


@pytest.mark.rtl
def test_the_verilog_agrees() -> None:
    """Here the frame of inputs is written to."""
    x = {"x": normal(2, C, H, W, seed=20)}
    graph = quantise(load(model_of(CASES["normalised"][0])), x)
    program = api.Program(compile_graph(graph, TINY, 1))
    rtl, cycle = program.rtl(x), program.cycle(x)
    np.testing.assert_array_equal(rtl.words["y"], golden.run(
        graph, host.quantise_inputs(graph, x)).outputs["y"])  # fmt: skip
    assert rtl.stats["cycles"] == cycle.stats["cycles"]


def test_maps_lie_beside_the_input_whose_maps_they_replace() -> None:
    """A frame of inputs has room for them, and the host's words keep the input's own point."""
    x = {"x": normal(2, C, H, W, seed=20)}
    graph = quantise(load(model_of(CASES["normalised"][0])), x)
    program = compile_graph(graph, TINY)
    (port,) = program.inputs
    words = (C + 1) * W
    assert port.record_step == words + -words % TINY.bus_words
    room = frames.holes(program)[: H * port.record_step].reshape(H, -1)
    assert not room[:, : C * W].any() and room[:, C * W :].all()
    joined = next(node.output for node in graph.nodes if node.op == "concat")
    scale = graph.tensors[joined].scale
    points = [graph.tensors[name].point or 0 for name in ("x", "n")]
    own, made = points
    assert own != made and graph.tensors[joined].point == min(points)
    assert scale == (2.0 ** (min(points) - own),) * C + (2.0 ** (min(points) - made),)
    operators = [layer.operator for layer in program.layers]
    assert operators == ["conv+alu", "alu", "conv+map+alu", "conv"]


def test_an_input_lies_in_no_concat_that_is_an_output() -> None:
    """Neither beside it nor further in: it is copied."""
    nodes = [conv("x", "a"), node("Concat", ["x", "a"], "c", axis=1), node("Tanh", ["a"], "t"),
             node("Concat", ["c", "t"], "y", axis=1)]  # fmt: skip
    x = {"x": normal(2, C, H, W, seed=20)}
    graph: Graph = load(model_of(nodes))
    program = api.Program(compile_graph(quantise(graph, x), TINY))
    np.testing.assert_array_equal(program.cycle(x).words["y"], program.golden(x).words["y"])
