"""Quantising: points from ranges, no saturation in calibration, sums provably below 2**47."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto

from neuflow.compiler import float_eval
from neuflow.compiler.load import load
from neuflow.compiler.quantise import MARGIN, check, largest_point, multiplier, quantise
from neuflow.compiler.ranges import Range, calibrate
from neuflow.errors import CompileError, InputError
from neuflow.ir import Node, QuantGraph, Tensor
from neuflow.run import golden, host
from tests.onnx_builder import build, node, normal

ROOT = Path(__file__).resolve().parents[1]
W = normal(4, 3, 3, 3, seed=1)
B = normal(4, seed=2)
X = normal(6, 3, 6, 8, seed=3)


def conv(*after: Any, weights: dict[str, Any] | None = None, **kwargs: Any) -> ModelProto:
    first = node("Conv", ["x", "w", "b"], "c" if after else "y")
    return build([first, *after], {"w": W, "b": B, **(weights or {})}, **kwargs)


def quantised(model: ModelProto, bits: int = 16, q8_8: bool = False, x: Any = X) -> QuantGraph:
    return quantise(load(model), {"x": x}, bits, q8_8)


@given(st.floats(1e-6, 1e6), st.sampled_from([16, 8]))
def test_largest_point_is_the_largest_that_does_not_saturate(size: float, bits: int) -> None:
    point = largest_point(size, bits, 60)
    high = (1 << (bits - 1)) - 1
    assert size * 2.0**point <= high < size * 2.0 ** (point + 1)


@given(st.floats(1e-9, 3e4))
def test_multiplier_uses_all_fifteen_bits(factor: float) -> None:
    found = multiplier(factor)
    assert found is not None
    m, s = found
    assert 1 <= m < 1 << 15
    assert 0 <= s <= 62
    assert abs(m / 2**s - factor) <= factor / 2**14


@pytest.mark.parametrize(
    ("factor", "want"),
    [(1.0, (1, 0)), (0.25, (1, 2)), (8.0, (8, 0)), (2.0**-40, (1, 40)), (1 / 9, (29127, 18))],
)
def test_multiplier_is_exact_for_powers_of_two(factor: float, want: tuple[int, int]) -> None:
    assert multiplier(factor) == want


def test_multiplier_refuses_what_is_too_large() -> None:
    assert multiplier(40000.0) is None


def bias_words(point: np.ndarray) -> list[int]:
    return np.floor(B.astype(np.float64) * 2.0**point + 0.5).astype(np.int64).tolist()


def test_points_follow_the_rule() -> None:
    graph = load(conv())
    ranges = calibrate(graph, {"x": X})
    result = quantise(graph, {"x": X})
    for name in ("x", "y"):
        point = result.tensors[name].point
        assert point == largest_point(ranges[name].size * MARGIN[16], 16, 24)
    attrs = result.nodes[0].attrs
    sizes = np.abs(W.reshape(len(W), -1)).max(axis=1)
    assert attrs["weight_point"].tolist() == [largest_point(float(n), 16, 47) for n in sizes]
    acc = result.tensors["x"].point + attrs["weight_point"]
    assert attrs["s"].tolist() == (acc - result.tensors["y"].point).tolist()
    assert set(attrs["m"].tolist()) == {1}
    assert attrs["bias"].tolist() == bias_words(acc)


@pytest.mark.parametrize("bias", [1e10, 2.0**127])
def test_a_bias_far_above_all_else_costs_the_weights_their_bits(bias: float) -> None:
    result = quantised(conv(weights={"b": np.float32([bias, 1, 1, 1])}))
    attrs, form = result.nodes[0].attrs, host.form(result.tensors["y"])
    assert np.abs(attrs["weight"][0]).max() < 16 and 0 < int(attrs["bias"][0]) < 1 << 47
    assert form.dequantise(int(attrs["bias"][0]) >> int(attrs["s"][0])) == pytest.approx(bias, 1e-3)


def test_each_map_s_weights_use_all_their_bits() -> None:
    """A map whose weights are a thousandth of another's is no less exact."""
    small = W.copy()
    small[1] /= 1000
    attrs = quantised(conv(weights={"w": small})).nodes[0].attrs
    largest = np.abs(attrs["weight"].reshape(len(W), -1)).max(axis=1)
    assert (largest > 1 << 14).all() and attrs["s"][1] >= attrs["s"][0] + 9


def test_only_what_the_consumer_tells_apart_counts() -> None:
    """A bias of -1000 before a relu costs no precision; beyond +-8 tanh is flat."""
    low = {"b": np.float32([-1000, 1, 1, 1])}
    relu = quantised(conv(node("Relu", ["c"], "y"), weights=low))
    assert relu.tensors["c"].point == relu.tensors["y"].point >= 10
    plain = quantised(conv(weights=low))
    assert plain.tensors["y"].point <= 5
    for function in ("Tanh", "Sigmoid"):
        wide = {"b": np.float32([-1000, 1000, 1, 1])}
        result = quantised(conv(node(function, ["c"], "y"), weights=wide))
        assert (result.tensors["c"].point, result.tensors["y"].point) == (12, 15)


def test_a_tensor_with_another_consumer_keeps_its_whole_range() -> None:
    low = {"b": np.float32([-1000, 1, 1, 1])}
    model = conv(node("Relu", ["c"], "y"), weights=low, outputs=["y", "c"])
    assert (quantised(model).tensors["c"].point or 0) <= 5


def test_max_pool_and_views_keep_the_point_through_to_the_function() -> None:
    pool = node("MaxPool", ["c"], "p", kernel_shape=[2, 2])
    model = conv(pool, node("Flatten", ["p"], "f"), node("Tanh", ["f"], "y"),
                 weights={"b": np.float32([-99, 99, 1, 1])})  # fmt: skip
    result = quantised(model)
    assert {result.tensors[n].point for n in ("c", "p", result.nodes[2].output)} == {12}


def test_q8_8_is_eight_everywhere() -> None:
    model = conv(node("Relu", ["c"], "r"), node("AveragePool", ["r"], "p", kernel_shape=[2, 2]),
                 node("Mul", ["p", "p"], "m"), node("Tanh", ["m"], "y"))  # fmt: skip
    result = quantised(model, q8_8=True)
    assert {t.point for t in result.tensors.values()} == {8}
    layer = result.nodes[0].attrs
    assert set(layer["weight_point"].tolist()) == {8}
    assert (set(layer["m"].tolist()), set(layer["s"].tolist())) == ({1}, {8})
    assert layer["weight"].tolist() == np.floor(W * 256.0 + 0.5).astype(int).tolist()


@pytest.mark.parametrize(("bits", "q8_8"), [(16, False), (8, False), (16, True)])
@pytest.mark.parametrize("name", ["lenet5_a", "lenet5_b", "lenet5_c"])
def test_nothing_that_matters_saturates_in_calibration(name: str, bits: int, q8_8: bool) -> None:
    digits = pytest.importorskip("examples.digits")
    path = ROOT / "examples" / f"{name}.onnx"
    if not path.is_file():
        pytest.skip(f"{path.name} is not there")
    x = digits.load(28 if name == "lenet5_a" else 32).train_x[:32]
    graph = load(path)
    result = quantise(graph, {"image": x}, bits, q8_8)
    feeds = {"image": x.astype(np.float64)}
    real = float_eval.evaluate(graph, feeds)
    words = golden.evaluate(result, host.quantise_inputs(result, {"image": x}))
    squashed = {n.inputs[0] for n in result.nodes if n.attrs.get("function") in ("tanh", "relu")}
    for tensor, values in words.items():
        form = host.form(result.tensors[tensor])
        ends = (values == form.high) | ((values == form.low) if tensor not in squashed else False)
        beyond = np.abs(real[tensor]) >= 8.0
        # tanh(x) for large x rounds to the end of the range by itself.
        flat = (1 - np.abs(real[tensor]) < 2 * form.step) & (form.point == bits - 1)
        assert not (ends & ~beyond & ~flat).any(), tensor


def test_padded_average_of_nine_uses_fifteen_bits_and_of_four_is_exact() -> None:
    nine = build([node("AveragePool", ["x"], "y", kernel_shape=[3, 3])])
    attrs = quantised(nine, q8_8=True).nodes[0].attrs
    assert (attrs["kind"], attrs["m"], attrs["s"], attrs["zero"]) == ("sum", 29127, 18, 0)
    four = build([node("AveragePool", ["x"], "y", kernel_shape=[2, 2])])
    attrs = quantised(four, q8_8=True).nodes[0].attrs
    assert (attrs["m"], attrs["s"]) == (1, 2)


def test_all_inputs_of_joined_concats_have_one_point() -> None:
    nodes = [
        node("Mul", ["c", "k"], "big"), node("Tanh", ["c"], "t"),
        node("Concat", ["c", "t"], "q", axis=1), node("Concat", ["q", "big"], "y", axis=1),
    ]  # fmt: skip
    result = quantised(conv(*nodes, weights={"k": np.float32(100)}))
    assert len({result.tensors[n].point for n in ("c", "t", "q", "big", "y")}) == 1
    assert [n.op for n in result.nodes] == ["conv", "conv", "map", "concat", "concat"]


def test_an_input_of_a_concat_that_cannot_have_its_point_is_mapped_to_it() -> None:
    nodes = [node("Reshape", ["c", "s"], "r"), node("Mul", ["r", "k"], "big"),
             node("Concat", ["r", "big"], "y", axis=1)]  # fmt: skip
    weights = {"k": np.float32(100), "s": np.array([0, 8, 4, 3])}
    result = quantised(conv(*nodes, weights=weights))
    points = {result.tensors[n].point for n in result.nodes[-1].inputs}
    assert points == {result.tensors["y"].point}
    assert [n.attrs.get("function") for n in result.nodes[-2:]] == ["identity", None]


def test_a_clip_needs_no_head_room_beyond_its_bounds() -> None:
    clip = node("Clip", ["c", "low", "high"], "y")
    result = quantised(conv(clip, weights={"low": np.float32(0), "high": np.float32(6),
                                           "b": B + 5}))  # fmt: skip
    assert (result.tensors["c"].point, result.tensors["y"].point) == (12, 12)


def test_an_average_of_real_values_divides_by_their_number() -> None:
    model = build([node("AveragePool", ["x"], "y", kernel_shape=[3, 3], pads=[1, 1, 1, 1])])
    attrs = quantised(model, q8_8=True).nodes[0].attrs
    exact = attrs["m"] / 2.0 ** attrs["s"]
    assert exact.shape == (6, 8)
    np.testing.assert_allclose(exact[[0, 0, 1], [0, 1, 1]], [1 / 4, 1 / 6, 1 / 9], rtol=2**-14)


@pytest.mark.parametrize("kind", ["Add", "Sub"])
def test_terms_of_different_points_are_aligned_exactly(kind: str) -> None:
    inputs = {"x": ("N", 3, 6, 8), "z": ("N", 3, 6, 8)}
    graph = load(build([node(kind, ["x", "z"], "y")], inputs=inputs))
    result = quantise(graph, {"x": X, "z": X * 1000})
    attrs = result.nodes[0].attrs
    points = [result.tensors[n].point or 0 for n in ("x", "z", "y")]
    exact = max(points)
    assert [attrs["shift_a"], attrs["shift_b"], attrs["shift"]] == [exact - p for p in points]
    assert points[0] > points[1]


def test_product_and_quotient_points() -> None:
    inputs = {"x": ("N", 3, 6, 8), "z": ("N", 3, 6, 8)}
    z = np.abs(X) + 1
    mul = quantise(load(build([node("Mul", ["x", "z"], "y")], inputs=inputs)), {"x": X, "z": z})
    a, b, y = (mul.tensors[n].point or 0 for n in ("x", "z", "y"))
    assert mul.nodes[0].attrs["shift"] == a + b - y >= 0
    div = quantise(load(build([node("Div", ["x", "z"], "y")], inputs=inputs)), {"x": X, "z": z})
    a, b, y = (div.tensors[n].point or 0 for n in ("x", "z", "y"))
    attrs = div.nodes[0].attrs
    assert a + attrs["shift_a"] - b - attrs["shift_b"] == y


def test_eight_bits_scale_every_map_to_127() -> None:
    weight = W * np.array([1, 0.01, 30, 1e-4], np.float32)[:, None, None, None]
    result = quantised(conv(weights={"w": weight}), 8)
    attrs = result.nodes[0].attrs
    assert np.abs(attrs["weight"]).reshape(4, -1).max(axis=1).tolist()[0] == 127
    assert np.abs(attrs["weight"]).max() == 127
    unit = attrs["weight_scale"] * 2.0 ** -(result.tensors["x"].point or 0)
    want = unit * 2.0 ** (result.tensors["y"].point or 0)
    np.testing.assert_allclose(attrs["m"] / 2.0 ** attrs["s"], want, rtol=2**-14)
    assert {t.bits for t in result.tensors.values()} == {8}


def test_huge_bias_lowers_the_weights_point_until_the_sum_fits() -> None:
    for bits in (16, 8):
        tiny = {"w": W * np.float32(1e-9), "b": np.float32([1e3, 1, 1, 1])}
        result = quantised(conv(weights=tiny), bits)
        check(result)
        real = host.dequantise_outputs(
            result, golden.run(result, host.quantise_inputs(result, {"x": X})).outputs
        )["y"]
        np.testing.assert_allclose(real[:, 0], 1e3, atol=host.form(result.tensors["y"]).step)


def sums(weight: int, count: int, bias: int) -> QuantGraph:
    """Return one dense layer of ``count`` equal weights."""
    attrs = {
        "weight": np.full((1, count), weight, np.int64), "bias": np.array([bias]),
        "m": np.array([1]), "s": np.array([8]), "zero": np.array([0]), "weight_point": 8,
    }  # fmt: skip
    tensors = {"x": Tensor("x", (count, 1, 1), 16, 8), "y": Tensor("y", (1, 1, 1), 16, 8)}
    return QuantGraph("sum", (Node("fc", "dense", ("x",), "y", attrs),), tensors, ("x",), ("y",))


def test_the_bound_of_47_bits_is_checked_to_the_last_unit() -> None:
    count = 1 << 16
    check(sums(1 << 15, count, (1 << 46) - 1))
    with pytest.raises(CompileError, match=r"node 'fc': sums can reach 2\*\*47.0, .* 2\*\*47"):
        check(sums(1 << 15, count, 1 << 46))


def test_q8_8_bias_beyond_the_accumulator_is_refused() -> None:
    with pytest.raises(CompileError, match=r"node 'y': sums of its products and bias can pass 2"):
        quantised(conv(weights={"b": np.float32([1e12, 0, 0, 0])}), q8_8=True)


def test_all_zero_weights_and_inputs_work() -> None:
    zero = {"w": W * 0, "b": B * 0}
    for bits in (16, 8):
        result = quantised(conv(weights=zero), bits, x=X * 0)
        words = golden.run(result, host.quantise_inputs(result, {"x": X * 0})).outputs["y"]
        assert not words.any()


@pytest.mark.parametrize(
    ("calib", "message"),
    [
        ({}, "calibration lacks input 'x'; give an array"),
        ({"x": X[0]}, r"calibration input 'x' has shape \(3, 6, 8\); give \(N, 3, 6, 8\)"),
        ({"x": X[:0]}, r"calibration input 'x' has shape \(0, 3, 6, 8\)"),
        ({"x": X * np.nan}, "calibration input 'x' holds NaN"),
        ({"x": X.astype(complex)}, "calibration input 'x' has dtype complex128; give numbers"),
    ],
)
def test_bad_calibration_is_refused(calib: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        quantise(load(conv()), calib)


def test_inputs_of_one_number_an_image_are_calibrated() -> None:
    graph = load(build([node("Relu", ["x"], "y")], inputs={"x": ("N",)}))
    assert calibrate(graph, {"x": np.array([-1.0, 3.0])})["x"] == Range(-1.0, 3.0)


def test_impossible_widths_are_refused() -> None:
    with pytest.raises(CompileError, match="words of 16 or 8 bits"):
        quantised(conv(), 12)
    with pytest.raises(CompileError, match=r"q8\.8 needs words of 16 bits"):
        quantised(conv(), 8, True)


def test_range_is_clipped_at_both_ends() -> None:
    assert Range(-5.0, 3.0).within(-1.0, 2.0) == Range(-1.0, 2.0)
    assert Range(-5.0, 3.0).within(0.0, np.inf).size == 3.0
