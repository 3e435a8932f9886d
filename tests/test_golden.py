"""Golden: equal to naive integer loops, near to onnxruntime within rounding, fast, picky."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from examples import filter_bank
from neuflow.compiler.load import load
from neuflow.compiler.quantise import quantise
from neuflow.errors import InputError
from neuflow.ir import HostOp, Node, QuantGraph, Tensor
from neuflow.run import golden, host
from tests.onnx_builder import build, node, normal, reference

ROOT = Path(__file__).resolve().parents[1]
Words = NDArray[np.int64]


def graph_of(op: str, attrs: dict[str, Any], x: Words, out: tuple[int, int, int], bits: int = 16,
             second: Words | None = None) -> QuantGraph:  # fmt: skip
    """Return a graph of one node whose inputs have the shapes of ``x`` and ``second``."""
    names = ("a",) if second is None else ("a", "b")
    tensors = {name: Tensor(name, x.shape[1:], bits, 8) for name in names}
    tensors["y"] = Tensor("y", out, bits, 8)
    return QuantGraph("one", (Node("n", op, names, "y", attrs),), tensors, names, ("y",), bits=bits)


def clip(value: int, bits: int) -> int:
    top = 1 << (bits - 1)
    return max(-top, min(top - 1, value))


def leave(total: int, m: int, s: int, zero: int, bits: int) -> int:
    """The requantiser in Python's unbounded integers."""
    half = 1 << (s - 1) if s else 0
    return clip(((total * m + half) >> s) + zero, bits)


def naive_conv(x: Words, attrs: dict[str, Any], out: tuple[int, int, int], bits: int) -> Words:
    """Convolution by seven loops over Python integers."""
    w = attrs["weight"]
    maps, each, ky, kx = w.shape
    (sy, sx), (dy, dx) = attrs["stride"], attrs["dilation"]
    top, left = attrs["pads"][:2]
    result = np.empty((len(x), *out), np.int64)
    for n, k, oy, ox in itertools.product(*map(range, result.shape)):
        first = k // (maps // attrs["groups"]) * each
        total = int(attrs["bias"][k])
        for c, i, j in itertools.product(range(each), range(ky), range(kx)):
            y, z = oy * sy + i * dy - top, ox * sx + j * dx - left
            if 0 <= y < x.shape[2] and 0 <= z < x.shape[3]:
                total += int(w[k, c, i, j]) * int(x[n, first + c, y, z])
        m, s, zero = (int(attrs[key][k]) for key in ("m", "s", "zero"))
        result[n, k, oy, ox] = leave(total, m, s, zero, bits)
    return result


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Words, dict[str, Any], tuple[int, int, int], int]:
    """Draw a small convolution with extreme words among random ones."""
    bits = draw(st.sampled_from([16, 8]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups, each, per = (draw(st.integers(1, 3)) for _ in range(3))
    ky, kx = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    pads = tuple(draw(st.integers(0, 2)) for _ in range(4))
    height = draw(st.integers((ky - 1) * dilation[0] + 1, 7))
    width = draw(st.integers((kx - 1) * dilation[1] + 1, 7))
    top = 1 << (bits - 1)

    def words(*shape: int) -> Words:
        values = rng.integers(-top, top, shape)
        ends = rng.choice([-top, top - 1, 0, -1], shape)
        return np.where(rng.random(shape) < 0.3, ends, values)

    maps = groups * per
    attrs = {
        "weight": words(maps, each, ky, kx), "bias": rng.integers(-(2**40), 2**40, maps),
        "m": rng.integers(0, 1 << 15, maps), "s": rng.integers(0, 63, maps),
        "zero": words(maps), "stride": stride, "dilation": dilation, "pads": pads,
        "groups": groups,
    }  # fmt: skip
    oy = (height + pads[0] + pads[2] - (ky - 1) * dilation[0] - 1) // stride[0] + 1
    ox = (width + pads[1] + pads[3] - (kx - 1) * dilation[1] - 1) // stride[1] + 1
    return words(2, groups * each, height, width), attrs, (maps, oy, ox), bits


@settings(max_examples=40, deadline=None)
@given(convolutions())
def test_conv_equals_the_naive_loops(case: Any) -> None:
    x, attrs, out, bits = case
    got = golden.run(graph_of("conv", attrs, x, out, bits), {"a": x}).outputs["y"]
    assert np.array_equal(got, naive_conv(x, attrs, out, bits))


def conv_attrs(weight: Words) -> dict[str, Any]:
    maps = len(weight)
    return {
        "weight": weight, "bias": np.zeros(maps, np.int64), "m": np.ones(maps, np.int64),
        "s": np.full(maps, 20), "zero": np.zeros(maps, np.int64), "stride": (1, 1),
        "dilation": (1, 1), "pads": (1, 0, 0, 2), "groups": 1,
    }  # fmt: skip


def test_cutting_into_blocks_and_summing_in_int64_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(5)
    x = rng.integers(-32768, 32768, (5, 3, 9, 11))
    attrs = conv_attrs(rng.integers(-32768, 32768, (4, 3, 2, 3)))
    graph = graph_of("conv", attrs, x, (4, 9, 11))
    whole = golden.run(graph, {"a": x}).outputs["y"]
    for block in (1, 500, 2000, 5000):
        monkeypatch.setattr(golden, "BLOCK", block)
        assert np.array_equal(golden.run(graph, {"a": x}).outputs["y"], whole)
    monkeypatch.setattr(golden, "EXACT", 0)
    assert golden._sum_type(attrs["weight"], 16) is np.int64
    assert np.array_equal(golden.run(graph, {"a": x}).outputs["y"], whole)


def test_float64_sums_only_where_they_are_exact() -> None:
    """sum |w| = 2**38 times words of up to 2**15 is 2**53, one too many."""
    weight = np.full((2, 256), -(1 << 30))
    assert golden._sum_type(weight, 16) is np.int64
    assert golden._sum_type(weight, 8) is np.float64
    weight[:, 0] += 1
    assert golden._sum_type(weight, 16) is np.float64


def test_dense_equals_python_integers() -> None:
    rng = np.random.default_rng(6)
    x = rng.integers(-32768, 32768, (3, 4, 2, 2))
    w = rng.integers(-32768, 32768, (5, 16))
    x[0], w[0] = -32768, -32768
    attrs = {
        "weight": w, "bias": rng.integers(-(2**40), 2**40, 5), "m": rng.integers(0, 1 << 15, 5),
        "s": rng.integers(20, 50, 5), "zero": rng.integers(-9, 9, 5),
    }  # fmt: skip
    got = golden.run(graph_of("dense", attrs, x, (5, 1, 1)), {"a": x}).outputs["y"]
    assert got.shape == (3, 5, 1, 1)
    for n, k in itertools.product(range(3), range(5)):
        total = sum(int(a) * int(b) for a, b in zip(x[n].reshape(-1), w[k], strict=True))
        m, s, zero = (int(attrs[key][k]) for key in ("m", "s", "zero"))
        assert got[n, k, 0, 0] == leave(total + int(attrs["bias"][k]), m, s, zero, 16)


@pytest.mark.parametrize("kind", ["max", "sum"])
@pytest.mark.parametrize("bits", [16, 8])
def test_pool_equals_the_naive_loops(kind: str, bits: int) -> None:
    rng = np.random.default_rng(7)
    top = 1 << (bits - 1)
    x = rng.integers(-top, top, (2, 3, 5, 6))
    x[0] = -top
    attrs = {"kind": kind, "kernel": (3, 2), "stride": (2, 1), "pads": (1, 1, 2, 0),
             "m": 29127, "s": 18, "zero": -3}  # fmt: skip
    out = (3, 3, 6)
    got = golden.run(graph_of("pool", attrs, x, out, bits), {"a": x}).outputs["y"]
    for n, c, oy, ox in itertools.product(range(2), *map(range, out)):
        seen = [
            int(x[n, c, y, z])
            for y in range(2 * oy - 1, 2 * oy + 2) for z in range(ox - 1, ox + 1)
            if 0 <= y < 5 and 0 <= z < 6
        ]  # fmt: skip
        total = max(seen) if kind == "max" else sum(seen)
        assert got[n, c, oy, ox] == leave(total, 29127, 18, -3, bits)


def naive_alu(kind: str, a: int, b: int, sa: int, sb: int, shift: int, bits: int) -> int:
    """layout.ALU in Python's integers and fractions."""
    from fractions import Fraction

    if kind == "div":
        if b == 0:
            return 0 if a == 0 else clip(1 << 40 if a > 0 else -(1 << 40), bits)
        exact = abs(Fraction(a << sa, b << sb))
        size = int(exact + Fraction(1, 2))
        return clip(size if (a < 0) == (b < 0) else -size, bits)
    left, right = a << sa, b << sb
    total = {
        "add": left + right, "sub": left - right, "mul": a * b, "max": max(left, right),
        "min": min(left, right), "abs": abs(left), "square": a * a,
    }[kind]  # fmt: skip
    return leave(total, 1, shift, 0, bits)


@pytest.mark.parametrize("kind", ["add", "sub", "mul", "div", "max", "min", "abs", "square"])
@pytest.mark.parametrize(("sa", "sb", "shift"), [(0, 0, 0), (3, 0, 5), (0, 31, 20), (31, 0, 47)])
@pytest.mark.parametrize("bits", [16, 8])
def test_alu_equals_python_integers(kind: str, sa: int, sb: int, shift: int, bits: int) -> None:
    top = 1 << (bits - 1)
    rng = np.random.default_rng(8)
    ends = [-top, -top + 1, -3, -1, 0, 1, 2, top - 1, *rng.integers(-top, top, 4).tolist()]
    pairs = list(itertools.product(ends, ends))
    a, b = (np.array(v).reshape(1, 1, 1, -1) for v in zip(*pairs, strict=True))
    attrs = {"kind": kind, "shift_a": sa, "shift_b": sb, "shift": shift}
    graph = graph_of("alu", attrs, a, a.shape[1:], bits, second=b)
    got = golden.run(graph, {"a": a, "b": b}).outputs["y"].reshape(-1)
    want = [naive_alu(kind, x, y, sa, sb, shift, bits) for x, y in pairs]
    assert got.tolist() == want


# --- against onnxruntime --------------------------------------------------------------------------

X = normal(4, 3, 6, 8, seed=11)
W = normal(5, 3, 3, 3, seed=12)
B = normal(5, seed=13)


def error_of(model: Any, bits: int, x: Any = X) -> tuple[float, QuantGraph, Any]:
    """Return the largest error against onnxruntime, the quantised graph and its float inputs."""
    graph = quantise(load(model), {"x": x}, bits)
    words = golden.run(graph, host.quantise_inputs(graph, {"x": x})).outputs
    got = host.dequantise_outputs(graph, words)["y"]
    want = reference(model, {"x": x})["y"]
    assert got.shape == want.shape
    return float(np.abs(got - want).max()), graph, want


@pytest.mark.parametrize("bits", [16, 8])
def test_conv_is_within_the_rounding_of_inputs_weights_and_result(bits: int) -> None:
    """error <= sum |w| step_x / 2 + sum |x| step_w / 2 + products of both + step_y / 2."""
    error, graph, _ = error_of(
        build([node("Conv", ["x", "w", "b"], "y", pads=[1, 1, 1, 1])], {"w": W, "b": B}), bits
    )
    attrs = graph.nodes[0].attrs
    step_w = attrs.get("weight_scale", np.array([2.0 ** -attrs["weight_point"]])).max()
    step_x, step_y = (host.form(graph.tensors[n]).step for n in ("x", "y"))
    taps = W[0].size
    reach = float(np.abs(X).max())
    bound = np.abs(W).reshape(5, -1).sum(axis=1).max() * step_x / 2 + taps * reach * step_w / 2
    bound += taps * step_x * step_w / 4 + step_x * step_w / 2 + step_y / 2
    bound *= 1 + 2**-13  # m has 15 bits
    assert error <= bound + 1e-4 * float(np.abs(W).sum())
    assert error > 0
    assert error <= {16: 2e-3, 8: 0.4}[bits]


@pytest.mark.parametrize(("op", "attrs"), [
    ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("AveragePool", {"kernel_shape": [2, 2]}),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("Relu", {}), ("Abs", {}), ("Tanh", {}), ("Sigmoid", {}),
])  # fmt: skip
@pytest.mark.parametrize("bits", [16, 8])
def test_other_operations_are_within_their_rounding(
    op: str, attrs: dict[str, Any], bits: int
) -> None:
    """Half a step in, a step and a half out (average: m), or the table's worst error out."""
    error, graph, _ = error_of(build([node(op, ["x"], "y", **attrs)]), bits)
    step_x, step_y = (host.form(graph.tensors[n]).step for n in ("x", "y"))
    table = graph.nodes[0].attrs.get("table")
    words = 1.5 if table is None else table.worst + 0.5
    assert error <= step_x / 2 + words * step_y + 1e-6


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
def test_terms_are_within_their_rounding(op: str) -> None:
    inputs = {"x": ("N", 3, 6, 8), "z": ("N", 3, 6, 8)}
    feeds = {"x": X, "z": np.abs(X[::-1]) + np.float32(0.5)}
    model = build([node(op, ["x", "z"], "y")], inputs=inputs)
    graph = quantise(load(model), feeds)
    words = golden.run(graph, host.quantise_inputs(graph, feeds)).outputs
    error = np.abs(host.dequantise_outputs(graph, words)["y"] - reference(model, feeds)["y"]).max()
    step_x, step_z, step_y = (host.form(graph.tensors[n]).step for n in ("x", "z", "y"))
    x, z = np.abs(feeds["x"]).max(), feeds["z"]
    reach = {
        "Add": step_x / 2 + step_z / 2,
        "Sub": step_x / 2 + step_z / 2,
        "Mul": z.max() * step_x / 2 + x * step_z / 2 + step_x * step_z / 4,
        "Div": (step_x / 2 + x / z.min() * step_z / 2) / (z.min() - step_z / 2),
    }[op]
    assert 0 < error <= reach + step_y / 2 + 1e-6


# Largest error of a score, in parts of the largest score, over the 360 held-out digits.
LENETS = [("lenet5_a", 28, 2e-4, 2e-2), ("lenet5_b", 32, 2e-4, 6e-2), ("lenet5_c", 32, 5e-4, 4e-2)]


@pytest.mark.parametrize(("name", "size", "fine", "coarse"), LENETS)
def test_lenets_score_as_in_float(name: str, size: int, fine: float, coarse: float) -> None:
    digits = pytest.importorskip("examples.digits")
    import onnx

    path = ROOT / "examples" / f"{name}.onnx"
    if not path.is_file():
        pytest.skip(f"{path.name} is not there")
    data = digits.load(size)
    want = reference(onnx.load(path), {"image": data.test_x})["scores"]
    for bits, limit in ((16, fine), (8, coarse)):
        graph = quantise(load(path), {"image": data.train_x[:32]}, bits)
        words = golden.run(graph, host.quantise_inputs(graph, {"image": data.test_x})).outputs
        got = host.dequantise_outputs(graph, words)["scores"]
        assert np.abs(got - want).max() <= limit * np.abs(want).max()
        right, base = ((s.argmax(axis=1) == data.test_y).mean() for s in (got, want))
        assert right >= base - {16: 0.0, 8: 0.01}[bits]


# --- speed, manners, host -------------------------------------------------------------------------


def test_filter_bank_and_a_hundred_digits_are_fast() -> None:
    """Budgets of 2 s and 1 s; processor time, so that other work on the machine does not count."""
    x = np.random.default_rng(9).uniform(-1, 1, (1, 4, 500, 500))
    bank = quantise(load(filter_bank.filter_bank()), {"image": x})
    words = host.quantise_inputs(bank, {"image": x})
    begin = time.thread_time()
    golden.run(bank, words)
    assert time.thread_time() - begin < 2.0
    path = ROOT / "examples" / "lenet5_a.onnx"
    if path.is_file():
        digits = np.random.default_rng(9).uniform(0, 1, (100, 1, 28, 28))
        lenet = quantise(load(path), {"image": digits[:8]})
        words = host.quantise_inputs(lenet, {"image": digits})
        begin = time.thread_time()
        golden.run(lenet, words)
        assert time.thread_time() - begin < 1.0


def test_filter_bank_words_equal_an_independent_sum_at_some_places() -> None:
    x = np.random.default_rng(10).uniform(-1, 1, (1, 4, 500, 500))
    bank = quantise(load(filter_bank.filter_bank()), {"image": x})
    words = host.quantise_inputs(bank, {"image": x})["image"]
    got = golden.run(bank, {"image": words}).outputs["maps"]
    attrs = bank.nodes[0].attrs
    padded = np.pad(words, ((0, 0), (0, 0), (4, 5), (4, 5)))
    for k, y, z in [(0, 0, 0), (1, 499, 499), (2, 17, 250), (3, 250, 3), (0, 333, 499)]:
        total = int((padded[0, :, y : y + 10, z : z + 10] * attrs["weight"][k]).sum())
        s = int(attrs["s"][k])
        assert got[0, k, y, z] == leave(total + int(attrs["bias"][k]), int(attrs["m"][k]), s, 0, 16)


RELU = {"kind": "max", "kernel": (1, 1), "stride": (1, 1), "pads": (0, 0, 0, 0), "m": 1, "s": 0,
        "zero": 0}  # fmt: skip


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "inputs given: none; the program takes: a"),
        ({"b": np.zeros((1, 1, 2, 2), int)}, "inputs given: b; the program takes: a"),
        ({"a": np.zeros((1, 1, 2, 2))}, "dtype float64; give words"),
        ({"a": np.zeros((1, 2, 2), int)}, r"has shape \(1, 2, 2\); its words are \(N, 1, 2, 2\)"),
        ({"a": np.zeros((0, 1, 2, 2), int)}, r"has shape \(0, 1, 2, 2\)"),
        ({"a": np.full((1, 1, 2, 2), 32768)}, "holds words beyond 16 bits; saturate them"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs: dict[str, Any], message: str) -> None:
    graph = graph_of("pool", RELU, np.zeros((1, 1, 2, 2), np.int64), (1, 2, 2))
    with pytest.raises(InputError, match=message):
        golden.run(graph, inputs)


def test_host_quantises_saturates_and_refuses() -> None:
    graph = graph_of("pool", RELU, np.zeros((1, 1, 1, 4), np.int64), (1, 1, 4))
    values = np.array([[[[1000.0, -1000.0, 0.5 / 256, -0.5 / 256]]]])
    assert host.quantise_inputs(graph, {"a": values})["a"].tolist() == [[[[32767, -32768, 1, 0]]]]
    with pytest.raises(InputError, match="input 'a' holds NaN"):
        host.quantise_inputs(graph, {"a": values * np.nan})
    with pytest.raises(InputError, match="input 'a' is missing"):
        host.quantise_inputs(graph, {})
    with pytest.raises(InputError, match=r"has shape \(4,\); the model takes \(N, 1, 1, 4\)"):
        host.quantise_inputs(graph, {"a": values[0, 0, 0]})


def test_host_operations_keep_only_the_models_outputs() -> None:
    scores = normal(3, 5)
    ops = (
        HostOp("softmax", "s", "p", 1, {"shape": (5,), "keep": False}),
        HostOp("argmax", "p", "y", 1, {"keep": True, "keepdims": False, "last": False}),
    )
    got = host.apply(ops, {"s": scores})
    assert set(got) == {"p", "y"}
    np.testing.assert_allclose(got["p"].sum(axis=1), 1.0, rtol=1e-6)
    assert got["y"].tolist() == scores.argmax(axis=1).tolist()
    last = HostOp("argmax", "s", "y", 1, {"keepdims": True, "last": True})
    assert host.apply([last], {"s": np.array([[1.0, 7.0, 7.0]])})["y"].tolist() == [[2]]
