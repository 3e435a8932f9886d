"""Golden lies within its bound on every network, and at 16 bits within 40 dB of onnxruntime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from examples import digits
from examples.bench.works import WORKS
from examples.networks import images
from neuflow import api, cli, fixed
from neuflow.compiler import Stages, mapper_tables, run_passes
from neuflow.errors import InputError
from neuflow.grid import TINY
from neuflow.ir import Node
from neuflow.run import accuracy, golden, interval
from tests.onnx_builder import build, node, normal
from tests.reduced import REDUCED, dims, model_of

LEAST_DB = 40
CHAOTIC = {"resnet50": 39}
"""Networks that blow up any difference on their way -> least dB. Of ResNet-50's 88 dB, rounding the
input alone, all behind it in float64, leaves 54; MobileNet is alike but has fewer layers."""
LENETS = {"lenet5_a": 28, "lenet5_b": 32, "lenet5_c": 32}
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def network(name: str, folder: Path) -> tuple[Path, dict[str, NDArray[Any]]]:
    """Return a reduced network's file and two images of its input by name."""
    model, path = model_of(name), folder / f"{name}.onnx"
    onnx.save(model, path)
    (data,) = model.graph.input
    return path, {data.name: images(dims(data)[1:], 2, seed=1)}


def quantised(path: Path, x: dict[str, NDArray[Any]], bits: int = 16) -> Stages:
    return run_passes(Stages(path, TINY, x, bits), "quantised")


def check(path: Path, x: dict[str, NDArray[Any]], bits: int = 16) -> dict[str, float]:
    """Hold every tensor to its bound; return the SQNR of the outputs against onnxruntime."""
    stages = quantised(path, x, bits)
    found = accuracy.measure(stages["graph"], stages["quantised"], x)
    outputs = accuracy.against_onnxruntime(str(path), stages["quantised"], x)
    print(accuracy.text(found, outputs))
    for tensor in found:
        assert tensor.outside == 0 and tensor.error <= tensor.bound, tensor
    assert isinstance(outputs, dict), outputs
    return outputs


@pytest.mark.parametrize("name", [name for name in REDUCED if "small" not in name])
def test_network(name: str, tmp_path: Path) -> None:
    """Calibrated on its own input, so that nothing which matters saturates."""
    outputs = check(*network(name, tmp_path))
    assert all(ratio >= CHAOTIC.get(name, LEAST_DB) for ratio in outputs.values()), outputs


@pytest.mark.parametrize(
    "name", ["person_detection", "ds_cnn", "resnet8", "resnet20", "autoencoder", "mobilenet"]
)
def test_work_of_the_bench_at_full_size(name: str, tmp_path: Path) -> None:
    """Those that take seconds; ``neuflow accuracy`` does the same for the others."""
    work, path = WORKS[name], tmp_path / f"{name}.onnx"
    model = work.model()
    onnx.save(model, path)
    outputs = check(path, {model.graph.input[0].name: work.calibration()})
    assert all(ratio >= LEAST_DB for ratio in outputs.values()), outputs


@pytest.mark.parametrize("name", LENETS)
def test_lenet(name: str) -> None:
    x = {"image": digits.load(LENETS[name]).test_x[:8].astype(np.float64)}
    outputs = check(EXAMPLES / f"{name}.onnx", x)
    assert all(ratio >= LEAST_DB for ratio in outputs.values()), outputs


@pytest.mark.parametrize("name", ["resnet8", "ds_cnn", "person_detection", "cn3_norm"])
def test_network_at_8_bits_keeps_to_its_bound(name: str, tmp_path: Path) -> None:
    check(*network(name, tmp_path), bits=8)


def test_saturation_is_within_the_bound_and_counted() -> None:
    """Inputs far above those of calibration."""
    x = digits.load(32).test_x[:2].astype(np.float64)
    path = EXAMPLES / "lenet5_b.onnx"
    stages = quantised(path, {"image": x})
    found = accuracy.measure(stages["graph"], stages["quantised"], {"image": 40 * x})
    assert sum(tensor.saturated for tensor in found) > 0
    assert not any(tensor.outside for tensor in found)


@pytest.mark.parametrize("fault", ["rounding", "weight", "saturation"])
def test_a_fault_of_golden_is_outside_of_the_bound(fault: str, monkeypatch: Any) -> None:
    x = {"image": digits.load(32).test_x[:2].astype(np.float64) * (40 if fault == "saturation" else 1)}
    calibration = {"image": digits.load(32).test_x[:2].astype(np.float64)}
    stages = quantised(EXAMPLES / "lenet5_b.onnx", calibration)

    def floored(acc: Any, bias: Any, m: Any, s: Any, zero: Any, bits: int) -> Any:
        return fixed.saturate((np.asarray(acc) + bias) * m >> s, bits)

    def wrapped(acc: Any, bias: Any, m: Any, s: Any, zero: Any, bits: int) -> Any:
        words = fixed.round_shift((np.asarray(acc) + bias) * m, s) + zero
        return words.astype(np.int16).astype(np.int64)

    if fault == "weight":  # one bit of one weight, in golden alone
        right = golden.OPERATIONS["dense"]

        def wrong(node: Any, bits: int, x: Any) -> Any:
            weight = node.attrs["weight"].copy()
            weight[0, 0] ^= 1 << 13
            return right(type(node)(node.name, node.op, node.inputs, node.output,
                                    {**node.attrs, "weight": weight}), bits, x)  # fmt: skip

        monkeypatch.setitem(golden.OPERATIONS, "dense", wrong)
    else:
        monkeypatch.setattr(golden, "requantise", floored if fault == "rounding" else wrapped)
    found = accuracy.measure(stages["graph"], stages["quantised"], x)
    assert any(tensor.outside for tensor in found)


def test_the_command_prints_errors_bounds_and_ratios(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, x = network("ds_cnn", tmp_path)
    (name,) = x
    np.save(tmp_path / "x.npy", x[name])
    program, data = str(tmp_path / "p.nfp"), str(tmp_path / "x.npy")
    assert cli.main(["compile", str(path), "-o", program, "--grid", "tiny", "--calib", data]) == 0
    assert cli.main(["accuracy", str(path), program, "--input", data]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["tensor", "operator"]
    assert lines[-1].endswith("dB against onnxruntime")
    other = str(EXAMPLES / "lenet5_b.onnx")
    assert cli.main(["accuracy", other, program, "--input", data]) == 2
    assert "another model" in capsys.readouterr().err


KERNEL = normal(4, 3, 3, 3) / 5
CONV = node("Conv", ["x", "w"], "c", pads=[1, 1, 1, 1])
MODELS = {
    "batch": build([CONV], {"w": KERNEL}, {"x": (3, 3, 6, 8)}, ["c"]),
    "probabilities by another name": build(
        [CONV, node("Softmax", ["c"], "s", axis=1), node("Identity", ["s"], "y")], {"w": KERNEL}
    ),
    "padded maxima of negative values": build(
        [node("Abs", ["x"], "a"), node("Neg", ["a"], "n"), node("Pad", ["n", "p"], "q"),
         node("MaxPool", ["q"], "y", kernel_shape=[2, 2])], {"p": np.array([0, 0, 1, 1] * 2)},
    ),
    "batch that is squeezed away where it is 1": build(
        [node("GlobalMaxPool", ["x"], "p"), node("Squeeze", ["p"], "y")], {}
    ),
    "half": build([node("Conv", ["x", "w"], "y")], {"w": KERNEL.astype(np.float16)}),
}  # fmt: skip
BLOCK = helper.make_function(
    "own", "Block", ["a"], ["b"],
    [node("Conv", ["a", "k"], "c"), node("Softmax", ["c"], "b", axis=1)], [helper.make_opsetid("", 18)],
)  # fmt: skip
BLOCK.node.insert(0, helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(KERNEL)))
MODELS["probabilities of a function"] = build([helper.make_node("Block", ["x"], ["y"], domain="own")])
MODELS["probabilities of a function"].functions.append(BLOCK)
MODELS["probabilities of a function"].opset_import.append(helper.make_opsetid("own", 1))
DOUBLE = build([node("Conv", ["x", "w"], "y")], {"w": KERNEL.astype(np.float64)})
for model, kind in ((MODELS["half"], onnx.TensorProto.FLOAT16), (DOUBLE, onnx.TensorProto.DOUBLE)):
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = kind


@pytest.mark.parametrize("name", MODELS)
def test_onnxruntime_computes_the_model_as_it_is(name: str, tmp_path: Path) -> None:
    """Seven images in batches of three; operands of the host's; no optimisation that loses zeros."""
    path, x = tmp_path / "m.onnx", {"x": normal(7, 3, 6, 8, seed=1)}
    onnx.save(MODELS[name], path)
    (ratio,) = check(path, x).values()
    assert 65 < ratio < 120


def test_what_onnxruntime_cannot_run_is_said(tmp_path: Path) -> None:
    """It has no Conv of doubles; the command goes on without it."""
    path, x = tmp_path / "m.onnx", {"x": normal(2, 3, 6, 8)}
    onnx.save(DOUBLE, path)
    stages = quantised(path, x)
    says = accuracy.against_onnxruntime(str(path), stages["quantised"], x)
    assert isinstance(says, str) and "cannot run the model" in says and "Conv(11)" in says
    table = accuracy.text([], says).splitlines()
    assert len(table) == 2 and table[-1].endswith("all figures are against our own float64")


@pytest.mark.parametrize("bits", [16, 8])
def test_a_model_of_other_weights_is_refused(bits: int, tmp_path: Path) -> None:
    path, x = network("ds_cnn", tmp_path)
    stages = quantised(path, x, bits)
    graph = stages["graph"]
    place = next(i for i, node in enumerate(graph.nodes) if "weight" in node.attrs)
    layer = graph.nodes[place]
    weight = layer.attrs["weight"].copy()
    weight.flat[3] += 0.05 * np.abs(weight).max()
    other = replace(layer, attrs={**layer.attrs, "weight": weight})
    nodes = (*graph.nodes[:place], other, *graph.nodes[place + 1 :])
    with pytest.raises(InputError, match=r"layer '.*': the program was compiled from other weights;"):
        accuracy.measure(replace(graph, nodes=nodes), stages["quantised"], x)


B4 = normal(4, seed=3)
LIKE = [node("Conv", ["x", "w", "b"], "c"), node("LeakyRelu", ["c"], "r", alpha=0.1),
        node("MaxPool", ["r"], "p", kernel_shape=[2, 2]), node("Neg", ["r"], "n"),
        node("Sub", ["r", "n"], "y")]  # fmt: skip
OTHERS = {
    "bias": (0, LIKE[0], {"b": B4 + 0.1}),
    "function": (1, node("Elu", ["c"], "r", alpha=0.1), {}),
    "parameter": (1, node("LeakyRelu", ["c"], "r", alpha=0.2), {}),
    "pool": (2, node("AveragePool", ["r"], "p", kernel_shape=[2, 2]), {}),
    "operands": (4, node("Sub", ["n", "r"], "y"), {}),
    "term": (4, node("Add", ["r", "n"], "y"), {}),
    "pads": (2, node("MaxPool", ["r"], "p", kernel_shape=[3, 3], pads=[0, 0, 1, 1]), {}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_model_that_computes_something_else_is_refused(name: str, tmp_path: Path) -> None:
    """Of the same names and shapes: its errors would be figures of nothing."""
    place, other, weights = OTHERS[name]
    x = {"x": normal(2, 3, 6, 8)}
    for path, layers in (("one", LIKE), ("two", [*LIKE[:place], other, *LIKE[place + 1 :]])):
        values = {"w": KERNEL, "b": B4} | (weights if path == "two" else {})
        onnx.save(build(layers, values, outputs=["y", "p"]), tmp_path / f"{path}.onnx")
    program = api.compile(tmp_path / "one.onnx", "tiny", x)
    assert api.accuracy(tmp_path / "one.onnx", program, x)
    with pytest.raises(InputError, match=r"the program was compiled from|: another model"):
        api.accuracy(tmp_path / "two.onnx", program, x)


@pytest.mark.parametrize("counted", [0, 1])
def test_a_model_that_counts_padding_otherwise_is_refused(counted: int, tmp_path: Path) -> None:
    x = {"x": normal(2, 3, 6, 8)}
    for path, padded in (("one", counted), ("two", 1 - counted)):
        pads = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": padded}
        layers = [LIKE[0], node("AveragePool", ["c"], "y", **pads)]
        onnx.save(build(layers, {"w": KERNEL, "b": B4}, outputs=["y"]), tmp_path / f"{path}.onnx")
    program = api.compile(tmp_path / "one.onnx", "tiny", x)
    assert api.accuracy(tmp_path / "one.onnx", program, x)
    with pytest.raises(InputError, match="the program was compiled from another operation"):
        api.accuracy(tmp_path / "two.onnx", program, x)


def test_a_bound_that_is_no_word_keeps_its_word_within_the_interval() -> None:
    """By float64 alone the table's worst error ends a hair before the word that it was measured at."""
    form = fixed.FixedPoint(16, 15, 0.74609375)
    word = np.zeros((1, 1, 1, 1), np.int64)
    at = interval.Interval(0.0 * word, 0.0 * word)
    for low in np.float32(np.random.default_rng(0).uniform(0.3, 0.7, 300)).tolist():
        table = mapper_tables.build("clip", 15, 15, 16, low=low / form.step * 2.0**-15)
        attrs = {"function": "clip", "low": low, "high": np.inf, "table": table}
        clip = Node("y", "map", ("x",), "y", attrs)
        found = interval.propagate(clip, interval.Forms((form,), form), at)
        value = form.dequantise(golden.OPERATIONS["map"](clip, 16, word))
        assert (found.low <= value).all() and (value <= found.high).all(), low
        assert (found.high - found.low < 1.001 * form.step).all()


def test_signal_to_noise_is_in_decibels() -> None:
    assert accuracy.sqnr(np.array([3.0, 4.0]), np.array([3.0, 4.5])) == pytest.approx(20)
    assert accuracy.sqnr(np.ones(2), np.ones(2)) == np.inf


def test_values_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path, x = network("ds_cnn", tmp_path)
    (name,) = x
    stages = quantised(path, x)
    with pytest.raises(InputError, match="shape"):
        accuracy.measure(stages["graph"], stages["quantised"], {name: x[name][:, :, :3]})
    infinite = x[name].copy()
    infinite.flat[0] = np.inf  # a run saturates it
    with pytest.raises(InputError, match="holds infinity"):
        accuracy.measure(stages["graph"], stages["quantised"], {name: infinite})
