"""Every operator from ONNX to the device section: near to onnxruntime, and golden == device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from neuflow.compiler import compile_graph
from neuflow.compiler.load import load
from neuflow.compiler.quantise import quantise
from neuflow.grid import TINY, VIRTEX6
from neuflow.ir import Program, QuantGraph
from neuflow.run import device, golden, host
from tests.onnx_builder import build, node, normal, reference

C, H, W = 6, 9, 11
INPUT = {"x": ("N", C, H, W)}
PADS = [1, 1, 1, 1]
NORM = {
    "s": normal(C, seed=1), "o": normal(C, seed=2), "m": normal(C, seed=3),
    "v": np.abs(normal(C, seed=4)) + 0.1,
}  # fmt: skip
WEIGHTS = {
    "w": normal(C, C, 3, 3, seed=5) / 8, "b": normal(C, seed=6), "w1": normal(4, C, 1, 1, seed=7),
    "w2": normal(2, C, 3, 3, seed=8) / 6, "dw": normal(C, 1, 3, 3, seed=9),
    "dw2": normal(2 * C, 1, 3, 3, seed=10), "half": normal(4, C // 2, 3, 3, seed=11) / 4,
    "p": np.array([0, 0, 1, 2, 0, 0, 3, 0]), "c": normal(C, 1, 1, seed=12), "k": np.float32(0.25),
}  # fmt: skip


def conv(x: str, y: str, w: str = "w", **attrs: Any) -> Any:
    return node("Conv", [x, w], y, **{"pads": PADS, **attrs})


CASES: dict[str, tuple[list[Any], float]] = {
    "concat": ([conv("x", "a"), node("Relu", ["a"], "r"), conv("x", "c1", "w2"),
                node("Concat", ["r", "c1"], "y", axis=1)], 2e-3),
    "concat of the input, twice": ([conv("x", "a", "w2"), node("Concat", ["x", "a", "x"], "y", axis=1)],
                                   2e-3),
    "concat that is an output too": ([node("Tanh", ["x"], "t"), conv("x", "a", "w2"),
                                      node("Concat", ["t", "a"], "q", axis=1),
                                      node("Concat", ["q", "t"], "r", axis=1),
                                      node("Abs", ["r"], "y")], 2e-3),
    "concat of pools": ([node("MaxPool", ["x"], "a", kernel_shape=[3, 3], pads=PADS),
                         node("AveragePool", ["x"], "d", kernel_shape=[3, 3], pads=PADS),
                         node("Concat", ["a", "d"], "y", axis=1)], 2e-3),
    "concat of vectors": ([node("GlobalAveragePool", ["x"], "a"), node("GlobalMaxPool", ["x"], "d"),
                           node("Flatten", ["a"], "f"), node("Flatten", ["d"], "g"),
                           node("Concat", ["f", "g"], "y", axis=1)], 1e-3),
    "sum of three": ([conv("x", "a"), node("Relu", ["x"], "r"), node("Sum", ["a", "r", "x"], "y")],
                     3e-3),
    "scale and offset": ([node("Mul", ["x", "c"], "a"), node("Add", ["a", "k"], "d"),
                          node("Relu", ["d"], "y")], 1e-3),
    "average of real values": ([node("AveragePool", ["x"], "y", kernel_shape=[3, 4],
                                     strides=[2, 1], pads=[1, 2, 0, 3])], 1e-3),
    "conv and average of real values": ([conv("x", "a"), node("AveragePool", ["a"], "y",
                                        kernel_shape=[3, 3], pads=PADS)], 2e-3),
    "mean": ([node("ReduceMean", ["x"], "y", axes=[-1, 2], keepdims=0)], 1e-3),
    "pad and conv": ([node("Pad", ["x", "p"], "q"), conv("q", "y", pads=[0, 1, 0, 0])], 2e-3),
    "pad alone": ([node("Pad", ["x", "p"], "q"), node("Tanh", ["q"], "y")], 1e-3),
    "same upper": ([conv("x", "y", pads=None, auto_pad="SAME_UPPER", strides=[2, 2])], 2e-3),
    "same lower": ([conv("x", "y", pads=None, auto_pad="SAME_LOWER", strides=[2, 2])], 2e-3),
    "two groups": ([conv("x", "y", "half", group=2)], 2e-3),
    "depthwise": ([conv("x", "y", "dw", group=C)], 2e-3),
    "depthwise, stride 2": ([conv("x", "y", "dw", group=C, pads=[0, 0, 1, 1], strides=[2, 2])],
                            2e-3),
    "depthwise, two maps a channel": ([conv("x", "y", "dw2", group=C)], 2e-3),
    "norm before relu and conv": ([node("BatchNormalization", ["x", "s", "o", "m", "v"], "n"),
                                   node("Relu", ["n"], "r"), conv("r", "y", "w1", pads=[0] * 4)],
                                  6e-3),
    "response normalisation": ([node("LRN", ["x"], "y", size=3, alpha=0.5, beta=0.75, bias=1.0)],
                               4e-3),
    "maximum": ([conv("x", "a"), node("Max", ["a", "x", "k"], "y")], 2e-3),
    "local normalisation": ([conv("x", "a"), node("Sub", ["x", "a"], "d"), node("Mul", ["d", "d"], "q"),
                             node("Abs", ["q"], "q1"), conv("q1", "e"), node("Clip", ["e", "k"], "f"),
                             node("Sqrt", ["f"], "g"), node("Div", ["d", "g"], "y")], 2e-2),
}  # fmt: skip
"""Nodes from x to y, and the largest error to onnxruntime at 16 bits, in the output's largest value."""


def model_of(nodes: list[Any]) -> ModelProto:
    used = {name for n in nodes for name in n.input}
    weights = {k: v for k, v in {**WEIGHTS, **NORM}.items() if k in used}
    for n in nodes:  # pads=None: left out
        for attribute in [a for a in n.attribute if a.name == "pads" and not a.ints]:
            n.attribute.remove(attribute)
    outputs = ["y", "q"] if any(n.output[0] == "q" and n.op_type == "Concat" for n in nodes) else ["y"]
    return build(nodes, weights, INPUT, outputs, opset=13)


def quantised(name: str, bits: int = 16) -> tuple[QuantGraph, ModelProto, dict[str, Any]]:
    model = model_of(CASES[name][0])
    x = {"x": normal(6, C, H, W, seed=20)}
    return quantise(load(model), x, bits), model, x


@pytest.mark.parametrize("name", CASES)
def test_golden_is_near_to_onnxruntime(name: str) -> None:
    graph, model, x = quantised(name)
    got = host.dequantise_outputs(graph, golden.run(graph, host.quantise_inputs(graph, x)).outputs)
    for output, want in reference(model, x).items():
        assert got[output].shape == want.shape
        error = np.abs(got[output] - want).max() / np.abs(want).max()
        assert 0 < error <= CASES[name][1], error


@pytest.mark.parametrize("grid", [TINY, VIRTEX6], ids=lambda grid: grid.name)
@pytest.mark.parametrize(("bits", "batch"), [(16, 1), (8, 3)])
@pytest.mark.parametrize("name", CASES)
def test_device_equals_golden(name: str, bits: int, batch: int, grid: Any) -> None:
    graph, _, x = quantised(name, bits)
    words = host.quantise_inputs(graph, {"x": x["x"][:4]})
    got = device.run(compile_graph(graph, grid, batch), words).outputs
    for output, want in golden.run(graph, words).outputs.items():
        np.testing.assert_array_equal(got[output], want, err_msg=output)


def program_of(name: str) -> Program:
    return compile_graph(quantised(name)[0], VIRTEX6)


def layers(name: str) -> list[str]:
    return [layer.operator for layer in program_of(name).layers]


def test_what_operators_cost() -> None:
    """A concat is no pass; what cannot lie in its memory is copied."""
    assert layers("concat") == ["conv+map", "conv"]
    assert sorted(layers("concat of the input, twice")) == ["conv", "copy", "copy"]
    assert layers("depthwise") == ["conv"]
    assert layers("norm before relu and conv") == ["conv+map", "conv"]
    assert layers("scale and offset") == ["conv+map"]
    assert layers("response normalisation") == ["alu", "conv+map+alu"]
    assert layers("pad and conv") == ["conv"]
    assert layers("pad alone") == ["conv+map"]


def test_a_depthwise_layer_takes_few_passes_and_its_zeros_are_not_counted() -> None:
    model = build([node("Conv", ["x", "w"], "y", group=64, pads=PADS)], {"w": normal(64, 1, 3, 3)},
                  {"x": (1, 64, 14, 14)})  # fmt: skip
    program = compile_graph(quantise(load(model), {"x": normal(1, 64, 14, 14)}), VIRTEX6)
    assert sum(program.layers[0].writes) <= 16
    assert program.layers[0].macs == 64 * 9 * 14 * 14
