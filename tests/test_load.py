"""Each operation of ONNX becomes layers that compute the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from neuflow.compiler.load import load
from tests.loaded import FLAT, NORM, B, W, ops, outputs_of, same_as_onnxruntime
from tests.onnx_builder import build, node, normal

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
    low = node("Constant", [], "low", value_float=-np.inf)
    high = {"high": np.float32(0.5)}
    same_as_onnxruntime(build([low, node("Clip", ["x", "low", "high"], "y")], high))


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


def test_batch_normalisation_folds_into_conv_and_gemm() -> None:
    norm = node("BatchNormalization", ["c", "s", "o", "m", "v"], "y", epsilon=1e-3)
    model = build([node("Conv", ["x", "w", "b"], "c"), norm], {"w": W, "b": B, **NORM})
    assert ops(same_as_onnxruntime(model)) == ["conv"]
    dense = [node("Flatten", ["x"], "f"), node("Gemm", ["f", "w"], "c"), norm]
    model = build(dense, {"w": normal(24, 4), **NORM}, FLAT)
    assert ops(same_as_onnxruntime(model)) == ["dense"]
