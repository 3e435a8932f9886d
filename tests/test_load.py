"""ONNX becomes a graph that computes the same, or is refused by a line that says why."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from neuflow.compiler import float_eval
from neuflow.compiler.load import load
from neuflow.errors import ModelError
from neuflow.ir import OPS, Graph
from neuflow.run import host
from tests.onnx_builder import build, node, normal, reference

ROOT = Path(__file__).resolve().parents[1]
W = normal(4, 3, 3, 3, seed=1)
B = normal(4, seed=2)


def outputs_of(graph: Graph, inputs: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Return the model's outputs in its own shapes, evaluated in float."""
    feeds = {
        name: np.asarray(x, np.float64).reshape(len(x), *graph.tensors[name].shape)
        for name, x in inputs.items()
    }
    values = float_eval.evaluate(graph, feeds)
    real = {}
    for name in graph.outputs:
        own = graph.tensors[name].onnx_shape
        assert own is not None
        real[name] = values[name].reshape(len(values[name]), *own)
    return host.apply(graph.host, real)


def same_as_onnxruntime(model: ModelProto, batch: int = 2) -> Graph:
    """Load, evaluate on seeded inputs, compare every output with onnxruntime; return the graph."""
    graph = load(model)
    batch = graph.batch or batch
    inputs = {}
    for place, name in enumerate(graph.inputs):
        own = graph.tensors[name].onnx_shape
        assert own is not None
        inputs[name] = normal(batch, *own, seed=10 + place)
    want = reference(model, inputs)
    got = outputs_of(graph, inputs)
    assert set(got) == set(want)
    for name, values in want.items():
        assert got[name].shape == values.shape
        np.testing.assert_allclose(got[name], values, rtol=1e-4, atol=1e-5)
    assert all(n.op in OPS for n in graph.nodes)
    return graph


def ops(graph: Graph) -> list[str]:
    """Return the operations in order."""
    return [n.op for n in graph.nodes]


# --- what is possible ---------------------------------------------------------------------------

CONVS: dict[str, dict[str, Any]] = {
    "plain": {},
    "pads": {"pads": [1, 2, 0, 1]},
    "strides": {"strides": [2, 3]},
    "dilations": {"dilations": [2, 1], "pads": [2, 1, 2, 1]},
    "same_upper": {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    "same_lower": {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
    "valid": {"auto_pad": "VALID"},
}


@pytest.mark.parametrize("attrs", CONVS.values(), ids=CONVS)
def test_conv(attrs: dict[str, Any]) -> None:
    conv = node("Conv", ["x", "w", "b"], "y", **attrs)
    graph = same_as_onnxruntime(build([conv], {"w": W, "b": B}))
    assert ops(graph) == ["conv"]


def test_conv_without_bias_grouped_and_one_dimensional() -> None:
    grouped = node("Conv", ["x", "w"], "y", group=3)
    same_as_onnxruntime(build([grouped], {"w": normal(6, 1, 3, 3)}))
    line = build([node("Conv", ["x", "w"], "y", pads=[1, 0])], {"w": normal(4, 3, 3)},
                 {"x": ("N", 3, 9)})  # fmt: skip
    assert same_as_onnxruntime(line).tensors["y"].shape == (4, 1, 8)


FUNCTIONS = ("Relu", "Tanh", "Sigmoid", "Abs", "Neg")


@pytest.mark.parametrize("op", FUNCTIONS)
def test_function(op: str) -> None:
    same_as_onnxruntime(build([node(op, ["x"], "y")]))


ACTIVATIONS: dict[str, tuple[str, dict[str, Any], int]] = {
    "leaky": ("LeakyRelu", {}, 18), "leaky_0.2": ("LeakyRelu", {"alpha": 0.2}, 7),
    "elu": ("Elu", {}, 18), "elu_2": ("Elu", {"alpha": 2.0}, 18), "celu": ("Celu", {}, 18),
    "celu_3": ("Celu", {"alpha": 3.0}, 18), "selu": ("Selu", {}, 18),
    "selu_2": ("Selu", {"alpha": 1.5, "gamma": 2.0}, 18), "erf": ("Erf", {}, 18),
    "gelu": ("Gelu", {}, 20), "gelu_tanh": ("Gelu", {"approximate": "tanh"}, 20),
    "hardsigmoid": ("HardSigmoid", {}, 18), "hardswish": ("HardSwish", {}, 18),
    "hardsigmoid_1": ("HardSigmoid", {"alpha": 1.0, "beta": 0.25}, 18), "mish": ("Mish", {}, 18),
    "softplus": ("Softplus", {}, 18), "softsign": ("Softsign", {}, 18),
}  # fmt: skip


@pytest.mark.parametrize(("op", "attrs", "opset"), ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_activation(op: str, attrs: dict[str, Any], opset: int) -> None:
    graph = same_as_onnxruntime(build([node(op, ["x"], "y", **attrs)], opset=opset))
    assert ops(graph) == ["map"]


def test_swish() -> None:
    """onnxruntime knows none at the operator set that has it: against ONNX's formula."""
    model = build([node("Swish", ["x"], "y", alpha=2.0)], opset=24)
    x = normal(2, 3, 6, 8).astype(np.float64)
    got = outputs_of(load(model), {"x": x})["y"]
    np.testing.assert_allclose(got, x / (1 + np.exp(-2 * x)), rtol=1e-9)


PRODUCTS: dict[str, tuple[list[Any], str]] = {
    "swish": ([node("Sigmoid", ["c"], "s")], "swish"),
    "hardswish": ([node("HardSigmoid", ["c"], "s", alpha=1 / 6)], "hardswish"),
    "mish": ([node("Softplus", ["c"], "p"), node("Tanh", ["p"], "s")], "mish"),
}


@pytest.mark.parametrize(("gate", "function"), PRODUCTS.values(), ids=PRODUCTS)
@pytest.mark.parametrize("order", [1, -1])
def test_a_product_with_its_own_gate_is_one_function(
    gate: list[Any], function: str, order: int
) -> None:
    nodes = [node("Conv", ["x", "w"], "c"), *gate, node("Mul", ["c", "s"][::order], "y")]
    graph = same_as_onnxruntime(build(nodes, {"w": W}))
    assert [n.attrs.get("function", n.op) for n in graph.nodes] == ["conv", function]
    for outputs in (["y", "s"], ["y", gate[0].output[0]]):  # a gate that is read by others stays
        assert "alu" in ops(same_as_onnxruntime(build(nodes, {"w": W}, outputs=outputs)))


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Sigmoid", ["x"], "s"), node("Abs", ["x"], "a"), node("Mul", ["a", "s"], "y")],
        [node("HardSigmoid", ["x"], "s", alpha=0.2), node("Mul", ["x", "s"], "y")],
        [node("Sigmoid", ["x"], "s"), node("Mul", ["s", "s"], "y")],
        [node("Softplus", ["x"], "p"), node("Tanh", ["p"], "s"), node("Mul", ["p", "s"], "y")],
    ],
)
def test_other_products_stay(nodes: list[Any]) -> None:
    assert "alu" in ops(same_as_onnxruntime(build(nodes)))


@pytest.mark.parametrize("slope", [np.float32(0.25), B[:3, None, None] / 4, normal(1)], ids=str)
def test_parametric_relu(slope: Any) -> None:
    graph = same_as_onnxruntime(build([node("PRelu", ["x", "s"], "y")], {"s": slope}))
    assert ops(graph) == (["conv", "alu"] if np.size(slope) > 1 else ["map"])


def test_clip_by_inputs_by_attributes_and_with_one_bound() -> None:
    bounds = {"low": np.float32(-1), "high": np.float32(1)}
    graph = same_as_onnxruntime(build([node("Clip", ["x", "low", "high"], "y")], bounds))
    assert (graph.nodes[0].attrs["low"], graph.nodes[0].attrs["high"]) == (-1.0, 1.0)
    same_as_onnxruntime(build([node("Clip", ["x", "", "high"], "y")], {"high": np.float32(0.5)}))
    same_as_onnxruntime(build([node("Clip", ["x"], "y", min=-0.5, max=0.25)], opset=9))


POOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "max": ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "max_pads": ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "max_ceil": ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    "max_same": ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "average": ("AveragePool", {"kernel_shape": [2, 4], "strides": [2, 2]}),
    "average_pads": (
        "AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    ),
    "average_of_real_values": (
        "AveragePool", {"kernel_shape": [3, 3], "pads": [1, 0, 1, 2], "strides": [2, 1]},
    ),
    "average_same": ("AveragePool", {"kernel_shape": [3, 2], "auto_pad": "SAME_LOWER"}),
    "average_ceil_of_real_values": (
        "AveragePool", {"kernel_shape": [4, 4], "strides": [3, 3], "ceil_mode": 1},
    ),
    "average_wider_than_the_image": (
        "AveragePool", {"kernel_shape": [7, 9], "pads": [0, 0, 1, 1]},
    ),
    "average_ceil_that_fits": (
        "AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
    ),
    "global_average": ("GlobalAveragePool", {}),
    "global_max": ("GlobalMaxPool", {}),
    "mean": ("ReduceMean", {"axes": [2, 3], "keepdims": 0}),
}  # fmt: skip


@pytest.mark.parametrize(("op", "attrs"), POOLS.values(), ids=POOLS)
def test_pool(op: str, attrs: dict[str, Any]) -> None:
    opset = 13 if op == "ReduceMean" else 18
    graph = same_as_onnxruntime(build([node(op, ["x"], "y", **attrs)], opset=opset))
    assert "pool" in ops(graph)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Sum"])
def test_two_tensors(op: str) -> None:
    inputs = {"x": ("N", 3, 6, 8), "z": ("N", 3, 6, 8)}
    graph = same_as_onnxruntime(build([node(op, ["x", "z"], "y")], inputs=inputs))
    assert ops(graph) == ["alu"]
    model = build([node(op, ["x", "x"], "y")])
    assert load(model).nodes[0].inputs == ("x", "x")


def test_concat_of_channels_and_of_vectors() -> None:
    inputs = {"x": ("N", 3, 6, 8), "z": ("N", 1, 6, 8)}
    nodes = [node("Relu", ["x"], "r"), node("Concat", ["r", "z", "x"], "y", axis=-3)]
    graph = same_as_onnxruntime(build(nodes, inputs=inputs))
    assert ops(graph) == ["map", "concat"]
    flat = [node("Flatten", ["x"], "f"), node("Gemm", ["f", "w"], "g"),
            node("Concat", ["f", "g"], "y", axis=1)]  # fmt: skip
    assert "concat" in ops(same_as_onnxruntime(build(flat, {"w": normal(24, 5)}, FLAT)))
    one = [node("Relu", ["x"], "r"), node("Concat", ["r"], "y", axis=1)]
    assert ops(same_as_onnxruntime(build(one))) == ["map"]


def test_a_concat_that_begins_like_another_begins_with_it() -> None:
    nodes = [
        node("Conv", ["x", "w", "b"], "a", pads=[1, 1, 1, 1]),
        node("Concat", ["x", "a"], "c1", axis=1),
        node("Conv", ["c1", "v"], "d", pads=[1, 1, 1, 1]),
        node("Concat", ["x", "a", "d"], "c2", axis=1),
        node("Relu", ["c2"], "y"),
    ]
    graph = same_as_onnxruntime(build(nodes, {"w": W, "b": B, "v": normal(2, 7, 3, 3)}))
    last = [n for n in graph.nodes if n.op == "concat"][-1]
    assert last.inputs == ("c1", "d")


PAD = {"p": np.array([0, 0, 1, 2, 0, 0, 3, 0])}
PADDED: dict[str, tuple[list[Any], list[str]]] = {
    "conv": ([node("Conv", ["q", "w", "b"], "y", pads=[1, 0, 0, 1])], ["map", "conv"]),
    "max": ([node("MaxPool", ["q"], "y", kernel_shape=[4, 3])], ["map", "pool"]),
    "average": ([node("AveragePool", ["q"], "y", kernel_shape=[4, 3])], ["map", "pool"]),
    "wide": ([node("MaxPool", ["q"], "y", kernel_shape=[2, 2])], ["map", "conv", "pool"]),
    "other": ([node("Tanh", ["q"], "y")], ["map", "conv", "map"]),
    "two": ([node("Conv", ["q", "w", "b"], "c"), node("Tanh", ["q"], "t"), node("Tanh", ["c"], "u"),
             node("GlobalMaxPool", ["t"], "g"), node("GlobalMaxPool", ["u"], "h"),
             node("Concat", ["g", "h"], "y", axis=1)],
            ["map", "conv", "conv", "map", "map", "pool", "pool", "concat"]),
}  # fmt: skip


@pytest.mark.parametrize(("after", "want"), PADDED.values(), ids=PADDED)
def test_pad_is_folded_where_that_is_the_same(after: list[Any], want: list[str]) -> None:
    nodes = [node("Relu", ["x"], "r"), node("Pad", ["r", "p"], "q"), *after]
    assert ops(same_as_onnxruntime(build(nodes, {**PAD, "w": W, "b": B}))) == want


def test_pad_before_a_maximum_of_negative_values_stays() -> None:
    nodes = [node("Pad", ["x", "p"], "q"), node("MaxPool", ["q"], "y", kernel_shape=[4, 4])]
    assert ops(same_as_onnxruntime(build(nodes, PAD))) == ["conv", "pool"]


def test_pad_in_its_old_form_and_with_axes() -> None:
    old = [node("Pad", ["x"], "q", pads=[0, 0, 1, 2, 0, 0, 3, 0]), node("Relu", ["q"], "y")]
    same_as_onnxruntime(build(old, opset=9))
    new = [node("Pad", ["x", "p", "", "axes"], "q"), node("Relu", ["q"], "y")]
    same_as_onnxruntime(build(new, {"p": np.array([1, 0, 0, 2]), "axes": np.array([-1, 2])}))
    none = [node("Pad", ["x", "p"], "q"), node("Relu", ["q"], "y")]
    assert ops(same_as_onnxruntime(build(none, {"p": np.zeros(8, np.int64)}))) == ["map"]


def test_local_response_normalisation() -> None:
    lrn = node("LRN", ["x"], "y", size=3, alpha=0.3, beta=0.6, bias=1.5)
    graph = same_as_onnxruntime(build([lrn], inputs={"x": ("N", 7, 4, 5)}))
    assert ops(graph) == ["alu", "conv", "map", "alu"]
    even = node("LRN", ["x"], "y", size=4, alpha=0.3, beta=0.6, bias=1.5)  # not in onnxruntime
    x = normal(2, 7, 4, 5).astype(np.float64)
    want = x.copy()
    for c in range(7):  # from 1 channel before to 2 behind
        around = (x[:, max(0, c - 1) : c + 3] ** 2).sum(axis=1)
        want[:, c] /= (1.5 + 0.3 / 4 * around) ** 0.6
    got = outputs_of(load(build([even], inputs={"x": (2, 7, 4, 5)})), {"x": x})["y"]
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_powers_take_the_bounds_of_a_clip() -> None:
    low, half, down = {"k": np.float32(0.1)}, {"e": np.float32(0.5)}, {"e": np.float32(-0.75)}
    root = [node("Clip", ["x", "k"], "c"), node("Sqrt", ["c"], "y")]
    graph = same_as_onnxruntime(build(root, low))
    assert [n.attrs["function"] for n in graph.nodes] == ["power"]
    assert graph.nodes[0].attrs["low"] == pytest.approx(0.1)
    power = [node("Max", ["k", "x"], "c"), node("Pow", ["c", "e"], "y")]
    same_as_onnxruntime(build(power, {**low, **half}))
    same_as_onnxruntime(build(power, {**low, **down}))
    square = [node("Pow", ["x", "e"], "y")]
    assert ops(same_as_onnxruntime(build(square, {"e": np.float32(2)}))) == ["alu"]


@pytest.mark.parametrize("op", ["Max", "Min"])
def test_extremes_of_tensors_and_numbers(op: str) -> None:
    inputs = {"x": ("N", 3, 6, 8), "z": ("N", 3, 6, 8)}
    model = build([node(op, ["x", "k", "z"], "y")], {"k": np.float32(0.2)}, inputs)
    assert ops(same_as_onnxruntime(model)) == ["alu", "map"]


def test_scale_and_offset_in_their_old_form_are_one_layer_with_the_norm() -> None:
    nodes = [
        node("BatchNormalization", ["x", "s", "o", "m", "v"], "n"),
        node("Unsqueeze", ["g"], "g3", axes=[1, 2]),
        node("Mul", ["n", "g3"], "p"),
        node("Unsqueeze", ["h"], "h3", axes=[1, 2]),
        node("Add", ["p", "h3"], "a"),
        node("Relu", ["a"], "y"),
    ]
    weights = {**NORM, "g": normal(4, seed=3), "h": normal(4, seed=4)}
    graph = same_as_onnxruntime(build(nodes, weights, {"x": ("N", 4, 3, 5)}, opset=9))
    assert ops(graph) == ["conv", "map"]
    assert graph.nodes[0].attrs["groups"] == 4


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
def test_pool_over_an_image_beyond_the_largest_window(op: str) -> None:
    graph = same_as_onnxruntime(build([node(op, ["x"], "y")], inputs={"x": ("N", 2, 300, 7)}))
    assert ops(graph) == ["pool", "pool"]
    assert max(max(n.attrs["kernel"]) for n in graph.nodes) <= 255


FLAT = {"x": ("N", 3, 2, 4)}
GEMMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "transposed": {"transB": 1},
    "scaled": {"transB": 1, "alpha": 0.5, "beta": -2.0},
}


@pytest.mark.parametrize("attrs", GEMMS.values(), ids=GEMMS)
def test_gemm_flattens_by_itself(attrs: dict[str, Any]) -> None:
    weight = normal(5, 24, seed=3) if attrs.get("transB") else normal(24, 5, seed=3)
    nodes = [node("Flatten", ["x"], "f"), node("Gemm", ["f", "w", "b"], "y", **attrs)]
    graph = same_as_onnxruntime(build(nodes, {"w": weight, "b": normal(5)}, FLAT))
    assert ops(graph) == ["dense"]
    assert graph.nodes[0].inputs == ("x",)


def test_matmul_with_a_bias_added_is_one_dense() -> None:
    nodes = [
        node("Reshape", ["x", "shape"], "f"),
        node("Transpose", ["w"], "wt"),
        node("MatMul", ["f", "wt"], "m"),
        node("Add", ["b", "m"], "y"),
    ]
    weights = {"w": normal(5, 24), "b": normal(5), "shape": np.array([-1, 24])}
    assert ops(same_as_onnxruntime(build(nodes, weights, FLAT))) == ["dense"]


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("shape", [(), (1, 4, 1, 1), (4, 1, 1)], ids=str)
def test_constant_after_conv_is_folded(op: str, shape: tuple[int, ...]) -> None:
    nodes = [node("Conv", ["x", "w", "b"], "c"), node(op, ["c", "k"], "y")]
    weights = {"w": W, "b": B, "k": np.asarray(normal(*shape, seed=5) + 2, np.float32)}
    assert ops(same_as_onnxruntime(build(nodes, weights))) == ["conv"]


def test_constant_minus_tensor_is_folded() -> None:
    nodes = [node("Conv", ["x", "w"], "c"), node("Sub", ["k", "c"], "y")]
    assert ops(same_as_onnxruntime(build(nodes, {"w": W, "k": np.float32(3)}))) == ["conv"]


def test_constant_that_cannot_be_folded_is_a_convolution_of_its_own() -> None:
    """The result before is also an output here, or comes from an input."""
    weights = {"w": W, "k": np.float32(3)}
    both = [node("Conv", ["x", "w"], "c"), node("Mul", ["c", "k"], "y")]
    assert ops(same_as_onnxruntime(build(both, weights, outputs=["c", "y"]))) == ["conv", "conv"]
    graph = same_as_onnxruntime(build([node("Mul", ["x", "k"], "y")], {"k": np.float32(3)}))
    assert graph.nodes[0].attrs["groups"] == 3


NORM = {
    "s": normal(4, seed=6), "o": normal(4, seed=7), "m": normal(4, seed=8),
    "v": np.abs(normal(4, seed=9)) + 0.1,
}  # fmt: skip


def test_batch_normalisation_folds_into_conv_and_gemm() -> None:
    norm = node("BatchNormalization", ["c", "s", "o", "m", "v"], "y", epsilon=1e-3)
    model = build([node("Conv", ["x", "w", "b"], "c"), norm], {"w": W, "b": B, **NORM})
    assert ops(same_as_onnxruntime(model)) == ["conv"]
    dense = [node("Flatten", ["x"], "f"), node("Gemm", ["f", "w"], "c"), norm]
    model = build(dense, {"w": normal(24, 4), **NORM}, FLAT)
    assert ops(same_as_onnxruntime(model)) == ["dense"]


def test_identity_dropout_and_views_vanish() -> None:
    nodes = [
        node("Conv", ["x", "w", "b"], "c"),
        node("Identity", ["c"], "i"),
        node("Dropout", ["i"], "d"),
        node("Unsqueeze", ["d", "axes"], "u"),
        node("Squeeze", ["u", "axes"], "s"),
        node("Relu", ["s"], "y"),
    ]
    model = build(nodes, {"w": W, "b": B, "axes": np.array([1])}, {"x": ("N", 3, 6, 8)})
    with pytest.raises(ModelError, match="5 dimensions"):
        load(model)
    del nodes[3:5]
    nodes[-1] = node("Relu", ["d"], "y")
    assert ops(same_as_onnxruntime(build(nodes, {"w": W, "b": B}))) == ["conv", "map"]


def test_casts_to_the_type_of_something_vanish() -> None:
    """As PyTorch's exporter writes every BatchNormalization and LeakyRelu that it does not optimise."""
    nodes = [
        node("CastLike", ["double", "x"], "w"),
        node("Conv", ["x", "w"], "c"),
        node("CastLike", ["c", "b"], "d"),
        node("CastLike", ["d", "x"], "e"),
        node("Mul", ["e", "k1"], "y"),
    ]
    weights = {"double": W.astype(np.float64), "b": B, "k": np.int64(3)}
    nodes.insert(4, node("CastLike", ["k", "e"], "k1"))
    assert ops(same_as_onnxruntime(build(nodes, weights))) == ["conv"]


def test_reshape_at_the_end_is_a_view_in_chw_order() -> None:
    nodes = [node("Relu", ["x"], "r"), node("Reshape", ["r", "shape"], "y")]
    graph = same_as_onnxruntime(build(nodes, {"shape": np.array([0, 4, 36])}))
    assert graph.tensors["y"].onnx_shape == (4, 36)


def test_shape_arithmetic_with_a_symbolic_batch_folds() -> None:
    nodes = [
        node("Relu", ["x"], "r"),
        node("Shape", ["r"], "s"),
        node("Gather", ["s", "zero"], "n", axis=0),
        node("Unsqueeze", ["n", "axes"], "n1"),
        node("Constant", [], "rest", value_ints=[-1]),
        node("Concat", ["n1", "rest"], "target", axis=0),
        node("Reshape", ["r", "target"], "f"),
        node("Gemm", ["f", "w"], "y"),
    ]
    weights = {"zero": np.array(0), "axes": np.array([0]), "w": normal(24, 5)}
    assert ops(same_as_onnxruntime(build(nodes, weights, FLAT))) == ["map", "dense"]


def test_as_many_channels_as_the_number_that_stands_for_the_batch() -> None:
    weights = {"w": normal(127, 127, 1, 1)}
    model = build([node("Conv", ["x", "w"], "y")], weights, {"x": ("N", 127, 2, 3)})
    assert ops(same_as_onnxruntime(model)) == ["conv"]


def test_weights_listed_among_the_inputs_are_no_inputs() -> None:
    model = build([node("Conv", ["x", "w", "b"], "y")], {"w": W, "b": B}, list_weights=True)
    assert same_as_onnxruntime(model).inputs == ("x",)


def test_fixed_batch_is_kept_and_one_is_none() -> None:
    relu = [node("Relu", ["x"], "y")]
    assert same_as_onnxruntime(build(relu, inputs={"x": (5, 3, 4, 4)})).batch == 5
    assert same_as_onnxruntime(build(relu, inputs={"x": (1, 3, 4, 4)}), 1).batch is None
    assert load(build(relu)).batch is None


@pytest.mark.parametrize(("op", "opset"), [("Softmax", 18), ("LogSoftmax", 18), ("ArgMax", 18),
                                           ("Softmax", 11)])  # fmt: skip
def test_final_operation_is_done_on_the_host(op: str, opset: int) -> None:
    nodes = [node("Flatten", ["x"], "f"), node("Gemm", ["f", "w"], "scores"),
             node(op, ["scores"], "y", axis=1)]  # fmt: skip
    graph = same_as_onnxruntime(build(nodes, {"w": normal(24, 5)}, FLAT, opset=opset))
    assert graph.outputs == ("scores",)
    assert [(h.op, h.output) for h in graph.host] == [(op.lower(), "y")]


def test_host_operation_beside_its_operand_as_an_output_and_in_a_chain() -> None:
    nodes = [node("Flatten", ["x"], "f"), node("Gemm", ["f", "w"], "scores"),
             node("Softmax", ["scores"], "p", axis=-1),
             node("ArgMax", ["p"], "y", axis=1, keepdims=0)]  # fmt: skip
    for outputs in (["scores", "y"], ["p", "scores"], ["y"], ["y", "p"]):
        model = build(nodes, {"w": normal(24, 5)}, FLAT, outputs)
        graph = load(model)
        x = normal(3, 3, 2, 4)
        got = outputs_of(graph, {"x": x})
        want = reference(model, {"x": x})
        for name in outputs:
            np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-6)


def test_a_layer_may_be_called_as_what_the_host_makes_of_its_result() -> None:
    layers = [helper.make_node("Conv", ["x", "w"], ["c"], "p"),
              helper.make_node("Softmax", ["c"], ["p"], "s", axis=1),
              node("LogSoftmax", ["p"], "y", axis=2)]  # fmt: skip
    graph = same_as_onnxruntime(build(layers, {"w": W}))
    assert [op.output for op in graph.host] == ["p", "y"]


def test_two_outputs_of_one_tensor_and_an_input_as_output() -> None:
    nodes = [node("Relu", ["x"], "y"), node("Identity", ["y"], "z"), node("Identity", ["x"], "k")]
    graph = same_as_onnxruntime(build(nodes, outputs=["y", "z", "k"]))
    assert ops(graph) == ["map", "map", "map"]


def test_nodes_are_sorted_dead_ones_dropped_names_unique() -> None:
    nodes = [
        helper.make_node("Relu", ["c"], ["y"], name="same"),
        helper.make_node("LSTM", ["c", "w", "w"], ["never"], name="dead"),
        helper.make_node("Abs", ["x"], ["c"], name="same"),
    ]
    graph = load(build(nodes, {"w": W}))
    assert [n.attrs["function"] for n in graph.nodes] == ["abs", "relu"]
    assert len({n.name for n in graph.nodes}) == 2


def test_residual_block_with_two_uses() -> None:
    nodes = [
        node("Conv", ["x", "w", "b"], "c", pads=[1, 1, 1, 1]),
        node("Relu", ["c"], "r"),
        node("Conv", ["r", "v"], "d", pads=[1, 1, 1, 1]),
        node("Add", ["d", "c"], "a"),
        node("Relu", ["a"], "y"),
    ]
    weights = {"w": W, "b": B, "v": normal(4, 4, 3, 3)}
    assert ops(same_as_onnxruntime(build(nodes, weights))) == ["conv", "map", "conv", "alu", "map"]


MODELS = sorted([*(ROOT / "examples").glob("*.onnx"), *(ROOT / "tests" / "data").glob("*.onnx")])


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_exported_models_compute_what_onnxruntime_does(path: Path) -> None:
    graph = load(path)
    model = onnx.load(path)
    inputs = {n: normal(3, *(graph.tensors[n].onnx_shape or ())) for n in graph.inputs}
    want = reference(model, inputs)
    for name, values in outputs_of(graph, inputs).items():
        np.testing.assert_allclose(values, want[name], rtol=1e-3, atol=1e-4)
    assert {n.op for n in graph.nodes} <= {"conv", "dense", "map", "pool"}


def test_loading_leaves_the_model_as_it_is() -> None:
    model = build([node("Relu", ["x"], "y"), node("Abs", ["x"], "dead")])
    before = model.SerializeToString()
    load(model)
    assert model.SerializeToString() == before


# --- ONNX's own conformance cases ---------------------------------------------------------------

CONFORM = """concat_2d_axis_1 concat_3d_axis_1 concat_3d_axis_negative_2 lrn lrn_default
celu elu elu_default elu_example erf gelu_default_1 gelu_tanh_2 hardsigmoid hardsigmoid_default hardswish
leakyrelu leakyrelu_default leakyrelu_example mish selu selu_default softplus softsign swish
averagepool_2d_pads averagepool_2d_same_upper averagepool_2d_same_lower averagepool_2d_ceil
averagepool_2d_precomputed_pads averagepool_2d_precomputed_same_upper
max_example max_two_inputs min_example min_two_inputs abs add averagepool_1d_default
averagepool_2d_default averagepool_2d_strides
averagepool_2d_pads_count_include_pad averagepool_2d_precomputed_pads_count_include_pad
batchnorm_example batchnorm_epsilon clip clip_splitbounds clip_default_max
clip_min_greater_than_max basic_conv_with_padding basic_conv_without_padding
conv_with_autopad_same conv_with_strides_and_asymmetric_padding conv_with_strides_no_padding
conv_with_strides_padding div dropout_default dropout_random_old flatten_axis1
flatten_default_axis gemm_alpha gemm_beta gemm_default_no_bias gemm_default_scalar_bias
gemm_default_vector_bias gemm_default_zero_bias gemm_transposeB globalaveragepool globalmaxpool
identity matmul_2d maxpool_1d_default maxpool_2d_ceil maxpool_2d_default maxpool_2d_pads
maxpool_2d_precomputed_same_upper maxpool_2d_same_lower maxpool_2d_same_upper maxpool_2d_strides
maxpool_2d_ceil_output_size_reduce_by_one mul neg relu reshape_extended_dims
reshape_negative_dim reshape_reduced_dims reshape_reordered_last_dims
reshape_zero_and_negative_dim sigmoid squeeze_negative_axes sub sum_example sum_two_inputs tanh
transpose_all_permutations_0 unsqueeze_axis_1""".split()
TWO_DATA = {"Add", "Sub", "Mul", "Div", "Sum", "Concat", "Max", "Min"}


@pytest.fixture(scope="module")
def cases() -> dict[str, Any]:
    """Return ONNX's node cases by name."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own data overflow on purpose
        return {case.name: case for case in collect_testcases(None)}


@pytest.mark.parametrize("name", CONFORM)
def test_onnx_conformance_case(cases: dict[str, Any], name: str) -> None:
    """All but the data operands become weights, as in a model that was exported."""
    case = cases[f"test_{name}"]
    model = ModelProto()
    model.CopyFrom(case.model)
    operands, results = case.data_sets[0]
    tested = model.graph.node[0]
    feeds = {}
    for value, array in zip(model.graph.input, operands, strict=True):
        if list(tested.input).index(value.name) == 0 or tested.op_type in TWO_DATA:
            feeds[value.name] = array
        else:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), value.name))
    got = outputs_of(load(model), feeds)[model.graph.output[0].name]
    assert got.shape == results[0].shape
    np.testing.assert_allclose(got, results[0], rtol=1e-4, atol=1e-5)


# --- refusals -------------------------------------------------------------------------------------


def conv_with(**weights: Any) -> ModelProto:
    return build([node("Conv", ["x", "w", "b"], "y")], {"w": W, "b": B, **weights})


def nan_weight() -> NDArray[np.float32]:
    bad = W.copy()
    bad[1, 2, 0, 0] = np.nan
    return bad


NUMBER_OF_IMAGES = [
    node("Shape", ["x"], "s"),
    node("Gather", ["s", "zero"], "i", axis=0),
    node("Cast", ["i"], "n", to=TensorProto.FLOAT),
]

OLD_FUNCTION = build([helper.make_node("Block", ["x"], ["y"], "b", domain="own")])
OLD_FUNCTION.functions.append(helper.make_function(
    "own", "Block", ["a"], ["r"], [node("Relu", ["a"], "r")], [helper.make_opsetid("", 13)]
))  # fmt: skip
OLD_FUNCTION.opset_import.append(helper.make_opsetid("own", 1))

REFUSED: dict[str, tuple[ModelProto, str]] = {
    "unknown operation": (
        build([node("Exp", ["x"], "y")]),
        r"node 'y' \(Exp\): this operation is not supported; use Sigmoid or Tanh",
    ),
    "unknown operation, no hint": (
        build([node("Floor", ["x"], "y")]),
        r"node 'y' \(Floor\): this operation is not supported; possible are Abs, Add, ",
    ),
    "Celu that falls": (
        build([node("Celu", ["x"], "y", alpha=-1.0)]),
        r"node 'y' \(Celu\): alpha is -1; use an alpha above 0",
    ),
    "slopes above and below 1": (
        build([node("PRelu", ["x", "s"], "y")], {"s": np.float32([[[0.5]], [[2]], [[1]]])}),
        r"node 'y' \(PRelu\): has a slope above 1 beside others; use slopes up to 1, or one slope",
    ),
    "slope of every place": (
        build([node("PRelu", ["x", "s"], "y")], {"s": normal(3, 6, 8)}),
        r"node 'y' \(PRelu\): its slope of shape \[3, 6, 8\] is not one value a channel; use one",
    ),
    "unknown domain": (
        build([helper.make_node("Fancy", ["x"], ["y"], name="f", domain="my.own")]),
        r"node 'f' \(Fancy\): domain 'my.own' is not ONNX's own; export with standard operators",
    ),
    "function of another operator set": (
        OLD_FUNCTION,
        r"node 'b' \(Block\): is a function of another operator set than the model; export both",
    ),
    "average ceil": (
        build([node("AveragePool", ["x"], "y", kernel_shape=[4, 4], strides=[3, 3], ceil_mode=1,
                    count_include_pad=1)]),
        r"node 'y' \(AveragePool\): ceil_mode = 1 .*; use ceil_mode = 0",
    ),
    "window behind the data": (
        build([node("MaxPool", ["x"], "y", kernel_shape=[1, 2], strides=[2, 3], ceil_mode=1)]),
        r"node 'y' \(MaxPool\): ceil_mode = 1 makes windows begin behind the data, .*; use ceil_mode",
    ),
    "dilated pool": (
        build([node("MaxPool", ["x"], "y", kernel_shape=[2, 2], dilations=[2, 2])]),
        r"node 'y' \(MaxPool\): dilations \[2, 2\] are not 1; use dilations of 1",
    ),
    "joined rows": (
        build([node("Concat", ["x", "x"], "y", axis=2)]),
        r"node 'y' \(Concat\): joins along axis 2; join channels \(axis 1\)",
    ),
    "joined constant": (
        build([node("Concat", ["x", "k"], "y", axis=1)], {"k": normal(1, 3, 6, 8)}, {"x": (1, 3, 6, 8)}),
        r"node 'y' \(Concat\): input 1 must be computed from the model's inputs, .*; ",
    ),
    "reflected padding": (
        build([node("Pad", ["x", "p"], "y", mode="reflect")], {"p": np.array([0, 0, 1, 1] * 2)}),
        r"node 'y' \(Pad\): mode is 'reflect'; only padding with zeros",
    ),
    "padding with ones": (
        build([node("Pad", ["x", "p", "v"], "y")],
              {"p": np.array([0, 0, 1, 1] * 2), "v": np.float32(1)}),
        r"node 'y' \(Pad\): fills with 1; pad with 0",
    ),
    "padded channels": (
        build([node("Pad", ["x", "p"], "y")], {"p": np.array([0, 1, 0, 0] * 2)}),
        r"node 'y' \(Pad\): pads the batch or the channels; pad height .*: a 1x1 Conv",
    ),
    "cropped": (
        build([node("Pad", ["x", "p"], "y")], {"p": np.array([0, 0, -1, 0] * 2)}),
        r"node 'y' \(Pad\): has negative pads .*; crop the input",
    ),
    "cube": (
        build([node("Pow", ["x", "e"], "y")], {"e": np.float32(3)}),
        r"node 'y' \(Pow\): raises to 3; multiply the tensor with itself by Mul",
    ),
    "root below": (
        build([node("Pow", ["x", "e"], "y")], {"e": np.float32(-0.5)}),
        r"node 'y': a power below 0 is infinite at 0; put Clip with a min above 0 before it",
    ),
    "LRN that divides by 0": (
        build([node("LRN", ["x"], "y", size=3, bias=0.0)]),
        r"node 'y' \(LRN\): alpha .* can divide by 0; use a bias",
    ),
    "maximum by channel": (
        build([node("Max", ["x", "k"], "y")], {"k": normal(3, 1, 1)}),
        r"node 'y' \(Max\): has a constant of shape \[3, 1, 1\] that is not one finite number; use",
    ),
    "broadcast": (
        build([node("Add", ["x", "z"], "y")],
              inputs={"x": ("N", 3, 6, 8), "z": ("N", 3, 1, 1)}),
        r"node 'y' \(Add\): the shapes \[N, 3, 6, 8\] and \[N, 3, 1, 1\] differ; broadcasting",
    ),
    "constant of full shape": (
        build([node("Add", ["x", "k"], "y")], {"k": normal(3, 6, 8)}),
        r"node 'y' \(Add\): the constant of shape \[3, 6, 8\] is not one value a channel",
    ),
    "constant over tensor": (
        build([node("Div", ["k", "x"], "y")], {"k": np.float32(1)}),
        r"node 'y' \(Div\): divides a constant by a tensor; ",
    ),
    "constant that adds channels": (
        build([node("Max", ["x", "k"], "y")], {"k": np.zeros((3, 1, 1), np.float32)},
              {"x": ("N", 1, 4, 4)}),
        r"node 'y' \(Max\): its constants broadcast \[N, 1, 4, 4\] to \[N, 3, 4, 4\]; give constants",
    ),
    "constant that adds dimensions": (
        build([node("Pow", ["x", "k"], "y")], {"k": np.full((1, 1, 1), 2, np.float32)}, {"x": (1, 4)}),
        r"node 'y' \(Pow\): its constants broadcast \[1, 4\] to \[1, 1, 4\]; give constants",
    ),
    "term of more dimensions": (
        build([node("Add", ["x", "k"], "y")], {"k": normal(1, 1, 4)}, {"x": (1, 4)}),
        r"node 'y' \(Add\): the constant of shape \[1, 1, 4\] is not one value a channel of \[1, 4\]",
    ),
    "norm in training, as it was before operator set 14": (
        build([helper.make_node("BatchNormalization", ["x", "s", "s", "s", "s"], list("yabcd"), "n")],
              {"s": np.ones(3, np.float32)}, opset=9),
        r"node 'n' \(BatchNormalization\): is in training mode; export the model in evaluation mode",
    ),
    "cast to the type of numbers that are none": (
        build([node("CastLike", ["x", "k"], "c"), node("CastLike", ["c", "x"], "y")],
              {"k": np.int64(3)}),
        r"node 'c' \(CastLike\): casts data to a type that is not float; keep the data in float",
    ),
    "the number that stands for the batch, by chance": (
        build([node("Reshape", ["x", "s"], "y")], {"s": np.array([127, -1])}, {"x": ("N", 127, 4)}),
        r"node 'y' \(Reshape\): moves or mixes the batch, the first dimension: \[N, 127, 4\] -> \[127,",
    ),
    "a constant of as many images, by chance": (
        build([node("Add", ["x", "k"], "y")], {"k": np.ones((127, 4), np.float32)}, {"x": ("N", 4)}),
        r"node 'y' \(Add\): its inputs do not fit each other .*; correct the model",
    ),
    "view of another size, any number of images": (
        build([node("Reshape", ["x", "s"], "r"), node("Relu", ["r"], "y")], {"s": np.array([0, 100])}),
        r"node 'r' \(Reshape\): makes \[N, 100\] of \[N, 3, 6, 8\], another number of values; correct",
    ),
    "norm of every place": (
        build([node("BatchNormalization", ["x", "s", "s", "s", "s"], "y", spatial=0)],
              {"s": np.ones((3, 6, 8), np.float32)}, opset=7),
        r"node 'y' \(BatchNormalization\): normalises every place by itself \(spatial = 0\); use one",
    ),
    "mean over the batch": (
        build([*NUMBER_OF_IMAGES, node("Div", ["x", "n"], "y")], {"zero": np.array(0)}),
        r"node 'y': computes with the number of images, which is symbolic; export with the batch fixed",
    ),
    "places left out before and behind": (
        build([node("Conv", ["x", "w"], "y", strides=[6, 6], auto_pad="SAME_UPPER")],
              {"w": normal(4, 3, 2, 2)}),
        r"node 'y' \(Conv\): SAME_UPPER with stride 6 .* over 2 leaves 4 places out; write its pads",
    ),
    "input that is an output": (
        build([node("Relu", ["x"], "y")], outputs=["y", "x"]),
        r"output 'x': is an input too; remove it, the host knows it already",
    ),
    "division by 0": (
        build([node("Div", ["x", "k"], "y")], {"k": np.float32(0)}),
        r"node 'y' \(Div\): divides by the constant 0; correct the constant",
    ),
    "transposed data": (
        build([node("Transpose", ["x"], "y", perm=[0, 2, 3, 1])]),
        r"node 'y' \(Transpose\): changes the order of the values \(perm \[0, 2, 3, 1\]\); keep N",
    ),
    "mixed batch": (
        build([node("Flatten", ["x"], "f", axis=0), node("Relu", ["f"], "y")]),
        r"node 'f' \(Flatten\): moves or mixes the batch.*\[N, 3, 6, 8\] -> \[1, .*; keep images",
    ),
    "Softmax inside": (
        build([node("Relu", ["x"], "r"), node("Softmax", ["r"], "s", axis=1),
               node("Relu", ["s"], "y")]),
        r"node 'y' \(Relu\): uses the result of Softmax, which the host computes after the grid; ",
    ),
    "Softmax over the batch": (
        build([node("Relu", ["x"], "r"), node("Softmax", ["r"], "y", axis=0)]),
        r"node 'y' \(Softmax\): works along the batch \(axis 0\); use the axis of the classes",
    ),
    "product of tensors": (
        build([node("MatMul", ["x", "z"], "y")], inputs={"x": (4, 4), "z": (4, 4)}),
        r"node 'y' \(MatMul\): multiplies two computed matrices; one factor must be a constant",
    ),
    "product of rank 4": (
        build([node("MatMul", ["x", "w"], "y")], {"w": normal(8, 5)}),
        r"node 'y' \(MatMul\): factors have 4 and 2 dimensions, only 2 .*; flatten the data",
    ),
    "product of other sizes": (
        build([node("Reshape", ["x", "s"], "r"), node("Gemm", ["r", "w"], "y")],
              {"s": np.int64([1, 100]), "w": normal(100, 5)}, {"x": (1, 3, 6, 8)}),
        r"node 'r' \(Reshape\): makes \[1, 100\] of \[1, 3, 6, 8\], another number of values; correct",
    ),
    "Gemm of other sizes": (
        build([node("Conv", ["x", "k"], "c"), node("Reshape", ["c", "s"], "r"),
               node("MatMul", ["r", "w"], "y")],
              {"k": W, "s": np.int64([0, -1]), "w": normal(90, 5)}),
        r"node 'y' \(MatMul\): ",
    ),
    "weights that overflow when folded": (
        build([node("Flatten", ["x"], "f"), node("Gemm", ["f", "w"], "y", alpha=1e38)],
              {"w": 1e3 * np.ones((144, 2), np.float32)}),
        r"node 'y': its weight, with what is folded into it, overflows float32; train or export",
    ),
    "kernel beyond the data": (
        build([node("Conv", ["x", "w"], "y", strides=[2, 2])], {"w": W}, {"x": ("N", 3, 2, 8)}),
        r"node 'y' \(Conv\): its kernel reaches over 3, the padded data are 2 long; give larger",
    ),
    "window beyond the data": (
        build([node("MaxPool", ["x"], "y", kernel_shape=[3, 3], strides=[2, 2])],
              inputs={"x": ("N", 3, 8, 2)}),
        r"node 'y' \(MaxPool\): its kernel reaches over 3, the padded data are 2 long; give larger",
    ),
    "transposed data of Gemm": (
        build([node("Gemm", ["x", "w"], "y", transA=1)], {"w": normal(4, 5)}, {"x": (4, 4)}),
        r"node 'y' \(Gemm\): transA = 1 transposes the data; export with transA = 0",
    ),
    "training norm": (
        build([node("Conv", ["x", "w"], "c"),
               node("BatchNormalization", ["c", "s", "o", "m", "v"], "y", training_mode=1)],
              {"w": W, **NORM}),
        r"node 'y' \(BatchNormalization\): is in training mode; export .*model.eval",
    ),
    "NaN weight": (
        conv_with(w=nan_weight()),
        r"node 'y' \(Conv\): weight 'w' holds NaN or infinite values; train or export",
    ),
    "infinite bias": (
        conv_with(b=np.array([1, 2, np.inf, 0], np.float32)),
        r"node 'y' \(Conv\): bias 'b' holds NaN or infinite values",
    ),
    "missing weight": (
        build([node("Conv", ["x", "w"], "y")]),
        r"node 'y' \(Conv\): 'w' is missing, neither a weight, .*; export the model together with",
    ),
    "weight that is an input": (
        build([node("Conv", ["x", "w"], "y")], inputs={"x": (1, 3, 6, 8), "w": (1, 3, 3, 3)}),
        r"node 'y' \(Conv\): weight 'w' is computed at run time, not a constant weight; export",
    ),
    "weight of another shape": (
        conv_with(w=normal(4, 2, 3, 3)),
        r"node 'y' \(Conv\): its weight is for 2 channels, the data have 3; correct",
    ),
    "weight of another type": (
        build([node("Conv", ["x", "w"], "y")], {"w": W.astype(np.float64)}),
        r"node 'y' \(Conv\): its inputs do not fit each other \(.*type tensor\(double\)\); correct",
    ),
    "groups that do not divide": (
        build([node("Conv", ["x", "w"], "y", group=3)], {"w": normal(4, 1, 3, 3)}),
        r"node 'y' \(Conv\): 4 maps cannot be cut into 3 groups; correct",
    ),
    "bias of another length": (
        conv_with(b=normal(3)),
        r"node 'y' \(Conv\): its bias has shape \[3\], not one value for each of 4 maps; correct",
    ),
    "norm of another length": (
        build([node("BatchNormalization", ["x", "s", "o", "m", "v"], "y")], NORM),
        r"node 'y' \(BatchNormalization\): its inputs do not fit each other .*; correct",
    ),
    "no such operation": (
        build([node("Relluh", ["x"], "y")]),
        r"node 'y' \(Relluh\): ONNX has no such operation; export with standard operators",
    ),
    "Gemm of another length": (
        build([node("Gemm", ["x", "w"], "y")], {"w": normal(4, 5)}, {"x": ("N", 3)}),
        r"node 'y' \(Gemm\): its inputs do not fit each other .*; correct",
    ),
    "kernel beyond the input": (
        conv_with(w=normal(4, 3, 9, 9)),
        r"node 'y' \(Conv\): .*; ",
    ),
    "symbolic height": (
        build([node("Relu", ["x"], "y")], inputs={"x": ("N", 3, "H", 8)}),
        r"input 'x': dimension 2 is symbolic \('H'\); export with a fixed size",
    ),
    "input beyond any memory": (
        build([node("Relu", ["x"], "y")], inputs={"x": ("N", 3, 2**40, 2**40)}),
        r"input 'x': an image is beyond the machine's memory of 4 GB; export with a smaller one",
    ),
    "result beyond any memory": (
        build([node("Pad", ["x", "p"], "y")], {"p": np.array([0, 0, 0, 0, 0, 0, 0, 2**31])}),
        r"node 'y' \(Pad\): its result \[N, 3, 6, 2147483656\] is beyond the machine's memory of 4 GB",
    ),
    "five dimensions": (
        build([node("Relu", ["x"], "y")], inputs={"x": ("N", 3, 2, 4, 8)}),
        r"input 'x': 5 dimensions; at most batch, channels, height, width",
    ),
    "unused input": (
        build([node("Relu", ["x"], "y")], inputs={"x": (1, 3), "z": (1, 3)}),
        r"input 'z': no output depends on it; remove it",
    ),
    "different batches": (
        build([node("Relu", ["x"], "y"), node("Relu", ["z"], "u")],
              inputs={"x": (2, 3), "z": (3, 3)}, outputs=["y", "u"]),
        r"inputs have different batches \('x': 2, 'z': 3\); export all with the same",
    ),
    "copies alone": (
        build([node("Softmax", ["x"], "y")]),
        r"node 'y' \(Softmax\): is applied to an input; a model needs an operation before it",
    ),
    "used mask": (
        build([helper.make_node("Dropout", ["x"], ["y", "mask"], name="d")], outputs=["y", "mask"]),
        r"node 'd' \(Dropout\): its further output 'mask' is used; only the first output",
    ),
    "constant output": (
        build([node("Relu", ["x"], "y"), node("Constant", [], "k", value_float=1.0)],
              outputs=["y", "k"]),
        r"output 'k': is constant; remove it",
    ),
    "random weights": (
        build([node("RandomNormal", [], "r", shape=[1, 3, 1, 1]), node("Add", ["x", "r"], "y")]),
        r"node 'r' \(RandomNormal\): this operation is not supported; ",
    ),
    "cycle": (
        build([node("Add", ["x", "b"], "a"), node("Relu", ["a"], "b"), node("Relu", ["b"], "y")]),
        r"node '[ab]' \(\w+\): takes part in a cycle",
    ),
    "no output": (build([node("Relu", ["x"], "y")], outputs=[]), r"the graph is empty"),
    "no node": (build([], outputs=["x"]), r"the graph is empty"),
    "integers": (
        helper.make_model(
            helper.make_graph(
                [node("Relu", ["x"], "y")], "g",
                [helper.make_tensor_value_info("x", TensorProto.INT8, [1, 3])],
                [helper.make_tensor_value_info("y", TensorProto.INT8, [1, 3])],
            ),
            opset_imports=[helper.make_opsetid("", 18)],
        ),
        r"input 'x': elements are INT8; export the float model",
    ),
    "old opset": (
        build([node("Relu", ["x"], "y")], opset=6),
        r"operator set 6 is not within 7\.\..*; export with opset 18",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("model", "message"), REFUSED.values(), ids=REFUSED)
def test_refusal_names_cause_and_fix_on_one_line(model: ModelProto, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load(model)
    text = str(caught.value)
    assert "\n" not in text
    assert ";" in text, "no fix is named"


def test_files_that_are_no_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file; give the path"):
        load(tmp_path / "absent.onnx")
    for content in (b"hello, I am text\n" * 10, b"", b"\x00" * 64, b"PK\x03\x04" + b"zip" * 30):
        bad = tmp_path / "bad.onnx"
        bad.write_bytes(content)
        with pytest.raises(ModelError, match=r"not an ONNX file") as caught:
            load(bad)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"MaxPool", b"Max\xffool", r"damaged: b'Max\\xffool' is no text; copy"),
        (b"strides", b"str\xffdes", r"damaged: b'str\\xffdes' is no text; copy"),
        (b"NOTSET", b"NOTS\xffT", r"damaged: b'NOTS\\xffT' is no text; copy"),
    ],
)
def test_names_that_are_no_text_are_refused(
    old: bytes, new: bytes, message: str, tmp_path: Path
) -> None:
    layer = node("MaxPool", ["x"], "y", kernel_shape=[2, 2], strides=[2, 2], auto_pad="NOTSET")
    path = tmp_path / "damaged.onnx"
    path.write_bytes(build([layer]).SerializeToString().replace(old, new))
    with pytest.raises(ModelError, match=message):
        load(path)


def test_a_weight_of_no_known_type_is_refused() -> None:
    model = build([node("Conv", ["x", "w"], "y")], {"w": normal(40, 3, 5, 5)})
    model.graph.initializer[0].data_type = 50
    with pytest.raises(ModelError, match=r"weight 'w': its values do not fit its type \(50\).*; exp"):
        load(model)


def test_missing_external_data_is_refused_and_present_data_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = build([node("Conv", ["x", "w"], "y")], {"w": normal(40, 3, 5, 5)})
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    graph = load(path)
    np.testing.assert_array_equal(graph.nodes[0].attrs["weight"], normal(40, 3, 5, 5))
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"external data weights.bin cannot be read.*; keep") as e:
        load(path)
    assert "\n" not in str(e.value)
