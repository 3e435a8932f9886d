"""Scales between convolutions: words use all their bits, values stay those of the model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto

from neuflow.compiler import scales
from neuflow.compiler.load import load
from neuflow.compiler.quantise import LENT, MARGIN, SHORT_BIAS, largest_point, quantise
from neuflow.compiler.ranges import calibrate
from neuflow.errors import InputError
from neuflow.fixed import FixedPoint
from neuflow.ir import QuantGraph
from neuflow.run import accuracy, host
from tests.onnx_builder import build, node, normal

W = normal(4, 4, 3, 3, seed=1)
INPUT = {"x": ("N", 4, 8, 8)}
B = normal(4, seed=2)
X = normal(3, 4, 8, 8, seed=3)


def between(*nodes: Any, last: str = "r", weights: dict[str, Any] | None = None) -> ModelProto:
    """Return a model of two convolutions with ``nodes`` between: from c to ``last``."""
    ends = node("Conv", ["x", "w", "b"], "c"), node("Conv", [last, "w", "b"], "y")
    return build([ends[0], *nodes, ends[1]], {"w": W, "b": B, **(weights or {})}, INPUT)


def quantised(model: ModelProto, bits: int = 16, q8_8: bool = False) -> QuantGraph:
    return quantise(load(model), {"x": X}, bits, q8_8)


RELU = node("Relu", ["c"], "r")


@pytest.mark.parametrize("bits", [16, 8])
def test_a_tensor_between_convolutions_fills_its_word(bits: int) -> None:
    model = between(RELU)
    graph = quantise(load(model), {"x": X}, bits)
    size = calibrate(load(model), {"x": X})["r"].size * MARGIN[bits]
    form = host.form(graph.tensors["r"])
    assert form.high * (1 - 2 / scales.STEPS) < size / form.step <= form.high
    assert graph.tensors["c"].scale == graph.tensors["r"].scale < 1
    assert graph.tensors["x"].scale == graph.tensors["y"].scale == 1


@pytest.mark.parametrize(("nodes", "last"), [
    ([RELU, node("MaxPool", ["r"], "p", kernel_shape=[2, 2])], "p"),
    ([RELU, node("AveragePool", ["r"], "p", kernel_shape=[2, 2])], "p"),
    ([RELU, node("Abs", ["c"], "a"), node("Sub", ["r", "a"], "s")], "s"),
    ([RELU, node("Add", ["r", "c"], "s"), node("Relu", ["s"], "t")], "t"),
    ([RELU, node("Max", ["r", "c"], "s"), node("Min", ["s", "r"], "t")], "t"),
    ([node("Clip", ["c", "low", "high"], "r")], "r"),
])  # fmt: skip
def test_what_passes_a_scale_on_has_one(nodes: list[Any], last: str) -> None:
    """And every word is within its bound of the model's own value."""
    weights = {"low": np.float32(-1.7), "high": np.float32(2.6)}
    model = between(*nodes, last=last, weights=weights)
    graph = quantised(model)
    inner = {name for name in graph.tensors if name not in ("x", "y")}
    assert len({graph.tensors[name].scale for name in inner}) == 1
    assert graph.tensors[last].scale < 1
    found = accuracy.measure(load(model), graph, {"x": X})
    assert not any(tensor.outside for tensor in found)
    assert found[-1].sqnr > 60


@pytest.mark.parametrize(("nodes", "last"), [
    ([node("Tanh", ["c"], "r")], "r"),
    ([node("Mul", ["c", "c"], "m"), node("Relu", ["m"], "r")], "r"),
])  # fmt: skip
def test_other_functions_have_none(nodes: list[Any], last: str) -> None:
    assert {t.scale for t in quantised(between(*nodes, last=last)).tensors.values()} == {1.0}


def test_q8_8_has_none() -> None:
    assert {t.scale for t in quantised(between(RELU), q8_8=True).tensors.values()} == {1.0}


def test_inputs_of_a_concat_share_one() -> None:
    model = between(RELU, node("Concat", ["r", "c"], "j", axis=1), last="j",
                    weights={"v": normal(4, 8, 1, 1, seed=5)})  # fmt: skip
    model.graph.node[-1].input[1] = "v"
    graph = quantised(model)
    tied = [graph.tensors[name] for name in ("c", "r", "j")]
    assert len({(t.scale, t.point) for t in tied}) == 1 and tied[0].scale < 1


@given(st.floats(1e-6, 1e6), st.sampled_from([16, 8]))
def test_one_size_alone_fills_the_word(size: float, bits: int) -> None:
    graph = load(between(RELU))
    sizes = dict.fromkeys(graph.tensors, size)
    scale = scales.choose(graph, sizes, bits)["r"]
    assert 0.5 < scale <= 1 and scale * scales.STEPS == int(scale * scales.STEPS)
    high = FixedPoint(bits).high
    used = size / scale / high
    used *= 2.0 ** -np.ceil(np.log2(used))
    assert 1 - 2 / scales.STEPS < used <= 1


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_no_other_scale_loses_less(c: float, r: float) -> None:
    graph = load(between(RELU))

    def noise(scale: float) -> float:
        """Return what rounding adds, each tensor's over its signal."""
        steps = [scale * 2.0 ** -largest_point(size / scale, 16, 60) for size in (c, r)]
        return sum((step / size) ** 2 for step, size in zip(steps, (c, r), strict=True))

    chosen = scales.choose(graph, {"x": 1.0, "y": 1.0, "c": c, "r": r}, 16)["r"]
    least = min(noise(n / scales.STEPS) for n in range(scales.STEPS // 2, scales.STEPS + 1))
    assert noise(chosen) <= least * (1 + 1e-9)


def test_tensors_of_zeros_have_none() -> None:
    graph = load(between(RELU))
    assert set(scales.choose(graph, dict.fromkeys(graph.tensors, 0.0), 16).values()) == {1.0}


@pytest.mark.parametrize("name", ["c", "r"])
def test_a_wrong_scale_is_outside_of_the_bound(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = between(RELU)
    graph = quantised(model)
    wrong = replace(graph.tensors[name], scale=graph.tensors[name].scale * (1 + 2**-9))
    broken = replace(graph, tensors={**graph.tensors, name: wrong})
    assert not any(t.outside for t in accuracy.measure(load(model), graph, {"x": X}))
    with pytest.raises(InputError, match="compiled from other weights"):  # as the words would mean
        accuracy.measure(load(model), broken, {"x": X})
    monkeypatch.setattr(accuracy, "_check_weights", lambda *_: None)
    assert any(t.outside for t in accuracy.measure(load(model), broken, {"x": X}))


@pytest.mark.parametrize(("size", "lent"), [(0.4, 0), (0.9, 1), (1.9, 2), (3, 0)])
def test_weights_lend_bits_only_where_that_makes_packets_shorter(size: float, lent: int) -> None:
    bias = np.float32([size, 0, 0, 0])
    weights = {"w": np.clip(W, -0.99, 0.99), "b": bias}
    model = build([node("Conv", ["x", "w", "b"], "y")], weights, INPUT)
    attrs = quantise(load(model), {"x": np.clip(X, -1, 1)}).nodes[0].attrs
    points = attrs["weight_point"]
    assert points[0] == 15 - lent and set(points[1:].tolist()) == {15}
    assert (np.abs(attrs["bias"]).max() < SHORT_BIAS) == (size < 2) and lent <= LENT
