"""Small ONNX models for the tests of the front end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

OPSET = 18
IR_VERSION = 8
Dims = Sequence[int | str]


def node(op: str, inputs: Sequence[str], output: str, **attrs: Any) -> NodeProto:
    """Return a node that is called as its output is."""
    return helper.make_node(op, list(inputs), [output], name=output, **attrs)


def build(
    nodes: Sequence[NodeProto],
    weights: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Dims] | None = None,
    outputs: Sequence[str] = ("y",),
    opset: int = OPSET,
    list_weights: bool = False,
) -> ModelProto:
    """Return a model of float inputs (default: x, [N, 3, 6, 8]); outputs have no declared shape.

    ``list_weights`` names the weights among the inputs, as old exporters do.
    """
    inputs = {"x": ("N", 3, 6, 8)} if inputs is None else inputs
    weights = {} if weights is None else weights
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()]
    declared = [
        helper.make_tensor_value_info(k, TensorProto.FLOAT, list(v)) for k, v in inputs.items()
    ]
    if list_weights:
        declared += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors]
    indices = {n.output[0] for n in nodes if n.op_type == "ArgMax"}
    results = [
        helper.make_tensor_value_info(
            name, TensorProto.INT64 if name in indices else TensorProto.FLOAT, None
        )
        for name in outputs
    ]
    graph = helper.make_graph(list(nodes), "test", declared, results, tensors)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def conv(x: str, y: str, *weights: str, **attrs: Any) -> NodeProto:
    """Return a convolution of ``x`` with a weight, and perhaps a bias."""
    return node("Conv", [x, *weights], y, **attrs)


def image_model(
    nodes: Sequence[NodeProto], weights: Mapping[str, Any], shape: tuple[int, int, int]
) -> ModelProto:
    """Return a model from images x, [N, *shape], to y, with those of ``weights`` that it uses."""
    used = {name for n in nodes for name in n.input}
    mine = {name: w for name, w in weights.items() if name in used}
    return build(nodes, mine, {"x": ("N", *shape)}, opset=13)


def reference(model: ModelProto, inputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return what onnxruntime computes."""
    options = onnxruntime.SessionOptions()
    # Its own simplification makes a Pad part of a MaxPool, where the zeros are lost.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = {name: np.asarray(value, np.float32) for name, value in inputs.items()}
    names = [output.name for output in model.graph.output]
    return dict(zip(names, session.run(names, feeds), strict=True))


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Return seeded standard-normal float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


__all__ = ["OPSET", "build", "node", "normal", "onnx", "reference"]
