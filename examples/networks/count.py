"""What a network costs, counted on its graph: multiplications and parameters."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper

from examples.networks.blank import Blank


class Cost(NamedTuple):
    """``macs``: multiply-accumulates of one image; ``parameters``: weights that are learned.

    MACs are those of Conv and Gemm, products with padding included. Kernels that are all zero are
    connections that do not exist: they count in neither. Statistics of a BatchNormalization are
    no parameters.
    """

    macs: int
    parameters: int


def count(network: Blank | ModelProto) -> Cost:
    """Return the cost of a network, with or without weights."""
    model = network.model if isinstance(network, Blank) else network
    shapes = _shapes(model)
    kernels = _kernels(network)
    macs = 0
    parameters: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            weight, out = node.input[1], shapes[node.output[0]]
            taps = kernels[weight] * int(np.prod(shapes[weight][2:]))
            macs += taps * int(np.prod(out[2:]))
            parameters[weight] = taps
            parameters |= {name: shapes[name][0] for name in node.input[2:]}
        elif node.op_type == "Gemm":
            macs += int(np.prod(shapes[node.input[1]]))
            parameters |= {name: int(np.prod(shapes[name])) for name in node.input[1:]}
        elif node.op_type == "BatchNormalization":
            parameters |= {name: shapes[name][0] for name in node.input[1:3]}
        elif node.op_type in ("Mul", "Add") and shapes[node.input[1]][1:] == (1, 1):
            parameters[node.input[1]] = shapes[node.input[1]][0]
    return Cost(macs, sum(parameters.values()))


def _kernels(network: Blank | ModelProto) -> dict[str, int]:
    """Return how many kernels every Conv weight has that are not all zero."""
    model = network.model if isinstance(network, Blank) else network
    values = {t.name: t for t in model.graph.initializer}
    tables = network.tables if isinstance(network, Blank) else {}
    shapes = _declared(model)
    result: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        name = node.input[1]
        if name in values:
            weight = numpy_helper.to_array(values[name])
            result[name] = int(np.any(weight != 0, axis=(2, 3)).sum())
        elif name in tables:
            result[name] = int(tables[name].sum())
        else:
            result[name] = shapes[name][0] * shapes[name][1]
    return result


def _declared(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes of inputs and initialisers."""
    shapes = {t.name: tuple(t.dims) for t in model.graph.initializer}
    for value in model.graph.input:
        shapes[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    return shapes


def _shapes(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors, by ONNX's own inference."""
    bare = ModelProto()
    bare.CopyFrom(model)
    inferred = onnx.shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True)
    shapes = _declared(model)
    for value in [*inferred.graph.value_info, *inferred.graph.output]:
        shapes[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    return shapes
