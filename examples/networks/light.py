"""The light models of the onnx package, with weights: AlexNet, GoogLeNet, ResNet-50 and others.

The package carries models of the ONNX model zoo whose weights are made by ConstantOfShape, all
0.02. They stay as they were exported (operator set 9, Reshape by a constant, Dropout with a mask
output, Unsqueezed constants); only their weights are drawn anew, and are initialisers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from examples.networks.blank import IR_VERSION, Blank, NetworkError, Pair, Size, pair, scaled
from examples.networks.network import Network

FILES = {
    "alexnet": "bvlc_alexnet",
    "densenet121": "densenet121",
    "googlenet": "inception_v1",
    "inception_v2": "inception_v2",
    "resnet50": "resnet50",
    "squeezenet": "squeezenet",
    "vgg19": "vgg19",
    "zfnet512": "zfnet512",
}
"""Names here, and in the package (``light_<name>.onnx``)."""
CLASSES = 1000
SIZE = 224


def light(name: str, width: float = 1.0, size: Size = SIZE) -> Blank:
    """Return the topology of a light model.

    Parameters
    ----------
    name : a key of ``FILES``.
    width : of all layers but the last.
    size : of the image. Where it is not 224, Reshape flattens what there is, and
        the last average pooling covers the whole map.
    """
    model = _read(name)
    weights = _loose_weights(model)
    for weight, dims in weights.items():
        weights[weight] = _resized(dims, width)
    data = next(i.name for i in model.graph.input if i.name.endswith("data_0"))
    _declare(model, data, weights, pair(size))
    if (width, pair(size)) != (1.0, pair(SIZE)):
        _refit(model, data, width, name)
    onnx.checker.check_model(model)
    return Blank(model)


def _read(name: str) -> ModelProto:
    folder = Path(onnx.backend.test.__file__).parent / "data" / "light"
    model = onnx.load(folder / f"light_{FILES[name]}.onnx")
    model.graph.name = name
    model.ir_version = IR_VERSION  # weights need not be inputs any more
    return model


def _loose_weights(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """Take all float weights out of the model, whichever way they are made; return their shapes."""
    graph = model.graph
    constants = {t.name: t for t in graph.initializer}
    made = [n for n in graph.node if n.op_type == "ConstantOfShape"]
    used = {name for node in graph.node for name in node.input if node not in made}
    weights = {
        node.output[0]: tuple(int(d) for d in numpy_helper.to_array(constants[node.input[0]]))
        for node in made
    }
    weights |= {
        t.name: tuple(t.dims) for t in graph.initializer if t.data_type == TensorProto.FLOAT
    }
    kept = [t for t in graph.initializer if t.name in used and t.name not in weights]
    nodes = [n for n in graph.node if n not in made]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    return {name: dims for name, dims in weights.items() if name in used}


def _resized(dims: tuple[int, ...], width: float) -> tuple[int, ...]:
    """Scale what counts maps: all but classes, image channels and kernel extents."""
    maps = len(dims) if dims[:2] == (1, 1) else min(len(dims), 2)
    return tuple(
        n if k >= maps or n in (1, 3, CLASSES) else scaled(n, width) for k, n in enumerate(dims)
    )


def _declare(model: ModelProto, data: str, weights: dict[str, tuple[int, ...]], size: Pair) -> None:
    """Make the data and all weights the inputs of the model."""
    shapes = {data: (1, 3, *size)} | weights
    del model.graph.input[:]
    model.graph.input.extend(
        helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in shapes.items()
    )


def _refit(model: ModelProto, data: str, width: float, name: str) -> None:
    """Adapt to another size what holds an extent: average pooling at the end, Reshape, Gemm."""
    graph = model.graph
    for node in graph.node:
        if node.op_type == "AveragePool" and _attr(node, "kernel_shape") == [7, 7]:
            pads = _attr(node, "pads") or [0] * 4
            height, wide = _shape(model, node.input[0], name)[2:]
            kernel = [height + pads[0] + pads[2], wide + pads[1] + pads[3]]
            next(a for a in node.attribute if a.name == "kernel_shape").ints[:] = kernel
    for node, shape in _reshapes(model):
        dims = [int(n) for n in numpy_helper.to_array(shape)]
        flat = [1, -1] if dims[0] == 1 else list(_resized((dims[0], dims[1]), width))
        shape.CopyFrom(numpy_helper.from_array(np.array(flat), shape.name))
        for user in graph.node:
            if user.op_type == "Gemm" and user.input[0] == node.output[0]:
                _fit_gemm(model, user, _shape(model, node.output[0], name)[1])
    _shape(model, graph.output[0].name, name)


def _fit_gemm(model: ModelProto, node: NodeProto, inputs: int) -> None:
    """Give the weight of a Gemm its number of inputs, where it is not a reshaped one."""
    for value in model.graph.input:
        if value.name == node.input[1]:
            value.type.tensor_type.shape.dim[1].dim_value = inputs


def _reshapes(model: ModelProto) -> Iterator[tuple[NodeProto, TensorProto]]:
    constants = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Reshape":
            yield node, constants[node.input[1]]


def _attr(node: NodeProto, name: str) -> list[int]:
    return next((list(a.ints) for a in node.attribute if a.name == name), [])


def _shape(model: ModelProto, tensor: str, name: str) -> tuple[int, ...]:
    """Return an inferred shape."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    for value in [*inferred.value_info, *inferred.output]:
        dims = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        if value.name == tensor and dims and min(dims) > 0:
            return dims
    raise NetworkError(f"{name}: nothing is left at {tensor}; take a larger size")


def light_network(name: str) -> Network:
    """Return a light model as a network."""

    def topology(width: float = 1.0, size: Size = SIZE) -> Blank:
        return light(name, width, size)

    topology.__name__ = name
    topology.__doc__ = f"{FILES[name]} of the ONNX model zoo, from the onnx package."
    return Network(topology)


LIGHT = {name: light_network(name) for name in FILES}
