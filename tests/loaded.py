"""What tests ask of a loaded graph: its outputs in float, the same as onnxruntime's, its operations."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from neuflow.compiler import float_eval
from neuflow.compiler.load import load
from neuflow.ir import OPS, Graph
from neuflow.run import host
from tests.onnx_builder import normal, reference

W = normal(4, 3, 3, 3, seed=1)
B = normal(4, seed=2)
FLAT = {"x": ("N", 3, 2, 4)}
NORM = {
    "s": normal(4, seed=6), "o": normal(4, seed=7), "m": normal(4, seed=8),
    "v": np.abs(normal(4, seed=9)) + 0.1,
}  # fmt: skip


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
