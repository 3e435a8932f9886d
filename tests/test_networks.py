"""The networks: right topology and cost, sane values through the depth, the same every time."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper
from scipy import signal

from examples.networks import (
    NETWORKS,
    Cost,
    NetworkError,
    connection_table,
    count,
    images,
    resnet18,
    scene_parser,
    table,
    vgg16,
)
from examples.networks.__main__ import main
from examples.networks.evaluate import evaluate
from examples.networks.scene import KERNEL, THRESHOLD
from tests.reduced import REDUCED, dims, model_of

PUBLISHED = [
    # name, millions of MACs, tolerance, parameters, source
    ("resnet18", 1814, 1e-3, 11_689_512, "torchvision's table of weights; paper: 1.8 billion"),
    ("resnet20", 40.6, 5e-3, 269_722 + 48, "He et al., Soft Filter Pruning, IJCAI 2018: 4.06e7"),
    ("vgg16", 15_470, 1e-3, 138_357_544, "torchvision; the paper: 138 million weights"),
    ("vgg19", 19_630, 1e-3, 143_667_240, "torchvision; the paper: 144 million weights"),
    ("mobilenet", 569, 1e-3, 4_231_976, "the paper, table 4: 569 million; Keras: parameters"),
    ("resnet50", 4089, 1e-3, 25_557_032, "torchvision (stride in the 3x3 convolution)"),
    ("densenet121", 2834, 1e-3, 7_978_856 + 83_648, "torchvision; here Mul and Add come on top"),
    ("squeezenet", 350, 5e-3, 1_235_496, "torchvision, SqueezeNet 1.1"),
    # The paper's budget. The exported pools round down where the original rounds up.
    (
        "googlenet",
        1500,
        0.05,
        6_998_552,
        "Szegedy et al., CVPR 2015: 1.5 billion; Caffe: 7 million",
    ),
    # MLPerf Tiny: MACs as commonly quoted; parameters as Keras counts the reference models, less
    # the statistics of the normalisations.
    ("resnet8", 12.5, 5e-3, 78_666 - 480, "MLPerf Tiny reference model"),
    ("person_detection", 7.5, 5e-3, 221_794 - 5_472, "MLPerf Tiny reference model"),
    ("ds_cnn", 2.66, 5e-3, 24_908 - 1_152, "MLPerf Tiny reference model"),
    ("autoencoder", 0.264, 1e-3, 269_992 - 2_064, "MLPerf Tiny reference model"),
    # (48 + 384 + 1536 + 1024) kernels of 81, 2560 weights; biases of 220 maps and 20 classes.
    ("cn3", 3700, 5e-3, 2992 * 81 + 2560 + 240, "the NeuFlow paper's table 3, recounted"),
    ("cn3_small", 1350, 5e-3, 2992 * 81 + 2560 + 240, "the same at 320x240"),
]
SEED = 3


@functools.cache
def layers_of(name: str) -> dict[str, NDArray[np.float32]]:
    """Return every tensor that depends on the data, by onnxruntime; images are not those filled by."""
    model = ModelProto()
    model.CopyFrom(model_of(name))
    constant = {t.name for t in model.graph.initializer}
    names = []
    for node in model.graph.node:
        if set(node.input) <= constant:
            constant.update(node.output)
        else:
            names.append(node.output[0])
    kind = onnx.TensorProto.FLOAT
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(n, kind, None) for n in names)
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), quiet, providers=["CPUExecutionProvider"]
    )
    (data,) = model.graph.input
    image = images(dims(data)[1:], 1, seed=1234)
    return {data.name: image} | dict(zip(names, session.run(None, {data.name: image}), strict=True))


def weights_of(model: ModelProto) -> dict[str, NDArray[Any]]:
    """Return the initialisers."""
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


# Values


def test_every_network_is_tested() -> None:
    assert list(REDUCED) == list(NETWORKS)


@pytest.mark.parametrize("name", REDUCED)
def test_model_is_valid_with_one_input(name: str) -> None:
    model = model_of(name)
    onnx.checker.check_model(model, full_check=True)
    assert len(model.graph.input) == 1 and len(model.graph.output) == 1
    assert dims(model.graph.input[0])[0] == 1


@pytest.mark.parametrize("name", REDUCED)
def test_layers_keep_their_scale(name: str) -> None:
    layers = layers_of(name)
    softmaxes = {n.output[0] for n in model_of(name).graph.node if n.op_type == "Softmax"}
    for tensor, values in layers.items():
        assert np.isfinite(values).all(), tensor
        if tensor not in softmaxes:
            assert 0.05 < values.std() < 8 and np.abs(values).max() < 64, (tensor, values.std())
    for tensor in softmaxes:
        assert np.isclose(layers[tensor].sum(), 1) and layers[tensor].std() > 0


@pytest.mark.parametrize("name", REDUCED)
def test_few_maps_are_dead(name: str) -> None:
    layers = layers_of(name)
    for node in model_of(name).graph.node:
        if node.op_type in ("Relu", "Clip") and layers[node.output[0]][0, 0].size >= 16:
            alive = layers[node.output[0]].any(axis=(0, 2, 3)).mean()
            assert alive > 0.7, f"{node.output[0]}: {alive:.0%} of the maps are ever above zero"


@pytest.mark.parametrize("name", REDUCED)
def test_evaluation_is_onnxruntimes(name: str) -> None:
    layers, model = layers_of(name), model_of(name)
    values = {k: np.asarray(v, np.float64) for k, v in weights_of(model).items()}
    values |= {k: v.astype(np.float64) for k, v in layers.items()}
    for node in model.graph.node:
        result = evaluate(node, [values[k] for k in node.input])
        known = values.setdefault(node.output[0], result)
        np.testing.assert_allclose(result, known, rtol=2e-4, atol=2e-4, err_msg=node.output[0])


@pytest.mark.parametrize("name", REDUCED)
def test_same_seed_same_bytes(name: str) -> None:
    first = model_of(name).SerializeToString()
    assert NETWORKS[name](**REDUCED[name]).SerializeToString() == first
    if name in ("resnet20", "squeezenet"):
        assert NETWORKS[name](**REDUCED[name], seed=SEED).SerializeToString() != first


# Topology and cost


@pytest.mark.parametrize("name", REDUCED)
def test_reduced_network_has_the_same_nodes(name: str) -> None:
    full, model = NETWORKS[name].blank().model, model_of(name)
    for a, b in zip(full.graph.node, model.graph.node, strict=True):
        assert (a.op_type, a.input, a.output) == (b.op_type, b.input, b.output)
        strides = [[list(x.ints) for x in n.attribute if x.name == "strides"] for n in (a, b)]
        assert strides[0] == strides[1] or a.op_type == "AveragePool"


@pytest.mark.parametrize("name", REDUCED)
def test_weights_cost_what_the_topology_says(name: str) -> None:
    assert count(model_of(name)) == count(NETWORKS[name].blank(**REDUCED[name]))


@functools.cache
def costs() -> dict[str, Cost]:
    """Return the cost of every network at full size."""
    return {name: Cost(row.macs, row.parameters) for name, row in table().items()}


@pytest.mark.parametrize("name, millions, tolerance, parameters, source", PUBLISHED)
def test_cost_is_as_published(
    name: str, millions: float, tolerance: float, parameters: int, source: str
) -> None:
    assert costs()[name].macs / 1e6 == pytest.approx(millions, rel=tolerance), source
    assert costs()[name].parameters == parameters, source


def test_alexnet_at_its_own_size_costs_as_published() -> None:
    # 227x227, as trained: 724 million (Sze et al., Proceedings of the IEEE 2017, table II).
    assert count(NETWORKS["alexnet"].blank(size=227)).macs == pytest.approx(724e6, rel=1e-3)


def test_light_models_at_full_size_are_the_packages() -> None:
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    original = onnx.load(folder / "light_bvlc_alexnet.onnx").graph
    kept = [node for node in original.node if node.op_type != "ConstantOfShape"]
    model = NETWORKS["alexnet"].blank().model
    assert list(model.graph.node) == kept and model.opset_import[0].version == 9
    flat = {t.name: t for t in model.graph.initializer}["OC2_DUMMY_1"]
    assert numpy_helper.to_array(flat).tolist() == [1, 9216]


def test_tensorflows_padding_is_asymmetric() -> None:
    def pads(name: str) -> dict[str, list[int]]:
        nodes = NETWORKS[name].blank().model.graph.node
        return {
            node.name: list(a.ints) for node in nodes for a in node.attribute if a.name == "pads"
        }

    assert pads("resnet8")["stack2.conv1"] == [0, 0, 1, 1]
    assert pads("resnet8")["stack2.short"] == [0, 0, 0, 0]
    assert pads("ds_cnn")["conv1.conv"] == [4, 1, 5, 1]
    assert pads("mobilenet")["conv1.conv"] == [0, 0, 1, 1]
    assert pads("person_detection")["depthwise2.conv"] == [0, 0, 1, 1]


# The scene parser


def test_connections_are_dealt_evenly() -> None:
    connections = connection_table(128, 48, 8)
    assert (connections.sum(axis=1) == 8).all()
    assert set(connections.sum(axis=0)) <= {21, 22}
    assert (connections == connection_table(128, 48, 8)).all()
    assert (connections != connection_table(128, 48, 8, seed=1)).any()
    assert connection_table(3, 5, 8).all()  # fewer inputs than asked for: all of them


def test_unconnected_kernels_are_zero() -> None:
    weight = weights_of(model_of("cn3"))["c6.weight"]
    assert (weight.any(axis=(2, 3)) == connection_table(32, 12, 8)).all()


def test_scene_parser_has_the_papers_extents() -> None:
    model = onnx.shape_inference.infer_shapes(scene_parser.blank().model)
    shapes = {v.name: dims(v)[1:] for v in [*model.graph.value_info, *model.graph.output]}
    assert [shapes[name] for name in ("c1", "p2", "c3", "p4", "c5", "c6", "linear")] == [
        (12, 367, 492), (12, 183, 246), (32, 175, 238), (32, 87, 119), (48, 79, 111),
        (128, 71, 103), (20, 71, 103),
    ]  # fmt: skip


def test_luma_is_normalised_and_other_maps_are_not() -> None:
    layers = layers_of("cn3_norm")
    image = layers["image"][0].astype(np.float64)
    at = np.arange(KERNEL) - KERNEL // 2
    bell = np.exp(-(at**2) / (2 * (KERNEL / 4) ** 2))
    bell = np.outer(bell, bell) / np.outer(bell, bell).sum()
    centred = image[0] - signal.correlate(image[0], bell, mode="same")
    deviation = np.sqrt(signal.correlate(centred**2, bell, mode="same"))
    wanted = centred / np.maximum(deviation, THRESHOLD)
    np.testing.assert_allclose(layers["n0"][0, 0], wanted, rtol=1e-4, atol=1e-4)
    assert (layers["n0"][0, 1:] == layers["image"][0, 1:]).all()


def test_pooling_may_be_average() -> None:
    model = scene_parser.blank(width=0.25, size=96, pool="AveragePool").model
    assert [n.op_type for n in model.graph.node].count("AveragePool") == 2


# Errors and the command line


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("resnet18", {"width": 0.3}, "width 0.3 makes 19.2 of 64 maps; take 1 over a power of 2"),
        ("googlenet", {"width": 1 / 64}, "take 1 over a power of 2"),
        ("cn3", {"size": 60}, "scene_parser: nothing is left at c6; take a larger size"),
        ("alexnet", {"size": 16}, "take a larger size"),
        ("autoencoder", {"size": (8, 8)}, "give whole numbers above 0"),
        ("vgg16", {"size": 0}, "give whole numbers above 0"),
        ("vgg19", {"size": 0}, "take a larger size"),
    ],
)
def test_what_cannot_be_built_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        NETWORKS[name].blank(**options)


def test_command_line_writes_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.onnx"
    arguments = ["cn3", "-o", str(path), "--width", "0.25", "--size", "96x104", "--seed", "0"]
    assert main(arguments) == 0
    assert onnx.load(path) == model_of("cn3")
    assert capsys.readouterr().out == f"{path}\n"


def test_command_line_lists_and_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "resnet18              1,814.073    11,689,512" in lines and len(lines) == 21
    assert main(["resnet19"]) == 2
    assert "no network 'resnet19'; take one of resnet18" in capsys.readouterr().err
    assert main(["vgg16", "--seed", "-1"]) == 2
    assert main(["vgg16", "--width", "0.3"]) == 2
    with pytest.raises(SystemExit):
        main(["vgg16", "--size", "large"])


def test_functions_say_what_they_are() -> None:
    assert vgg16.__doc__ and "column D" in vgg16.__doc__
    assert (
        resnet18(width=0.125, size=32, classes=7)
        .graph.output[0]
        .type.tensor_type.shape.dim[1]
        .dim_value
        == 7
    )
