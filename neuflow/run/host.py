"""What the host does around the grid: words from real inputs, and the final operators in float."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuflow.errors import InputError
from neuflow.fixed import FixedPoint, by_channel
from neuflow.ir import HostOp, QuantGraph, Tensor, Words


def quantise_inputs(graph: QuantGraph, inputs: Mapping[str, ArrayLike]) -> dict[str, Words]:
    """Return words int64 [N, C, H, W] of real inputs [N, C, H, W] or in the model's own shape."""
    words = {}
    for name in graph.inputs:
        if name not in inputs:
            raise InputError(f"input {name!r} is missing; give an array for it")
        tensor, values = graph.tensors[name], np.asarray(inputs[name], np.float64)
        if values.ndim < 1 or values.shape[1:] not in (tensor.shape, own_shape(tensor)):
            want = ", ".join(str(d) for d in ("N", *own_shape(tensor)))
            raise InputError(f"input {name!r} has shape {values.shape}; the model takes ({want})")
        if np.isnan(values).any():
            raise InputError(f"input {name!r} holds NaN; replace those values")
        words[name] = form(tensor).quantise(values).reshape(len(values), *tensor.shape)
    return words


def dequantise_outputs(graph: QuantGraph, words: Mapping[str, Words]) -> dict[str, NDArray[Any]]:
    """Return the model's outputs: float32 in its own shapes, final operators applied."""
    reals = {}
    for name in graph.outputs:
        tensor = graph.tensors[name]
        values = form(tensor).dequantise(words[name]).astype(np.float32)
        reals[name] = values.reshape(len(values), *own_shape(tensor))
    return apply(graph.host, reals)


def form(tensor: Tensor) -> FixedPoint:
    """Return the format of a quantised tensor's words."""
    if tensor.bits is None or tensor.point is None:
        raise ValueError(f"tensor {tensor.name!r} is not quantised")
    return FixedPoint(tensor.bits, tensor.point, by_channel(tensor.scale))


def own_shape(tensor: Tensor) -> tuple[int, ...]:
    """Return the model's own shape of one image."""
    return tensor.shape if tensor.onnx_shape is None else tensor.onnx_shape


def apply(host: Iterable[HostOp], outputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Do the final operators in float; operands that are no outputs of the model are dropped.

    Parameters
    ----------
    host : in order; each may use results of those before it.
    outputs : what the grid gave, real, [N, ...] by name.
    """
    values = dict(outputs)
    inner = set()
    for op in host:
        x = values[op.input]
        if "shape" in op.attrs:
            x = x.reshape(len(x), *op.attrs["shape"])
        values[op.output] = OPERATIONS[op.op](op, x)
        if not op.attrs.get("keep", False):
            inner.add(op.input)
    return {name: value for name, value in values.items() if name not in inner}


def _log_softmax(op: HostOp, x: NDArray[Any]) -> NDArray[Any]:
    axes = tuple(range(op.axis, x.ndim)) if op.attrs.get("flatten") else (op.axis,)
    shifted = x.astype(np.float64) - x.max(axis=axes, keepdims=True)
    total = np.log(np.exp(shifted).sum(axis=axes, keepdims=True))
    return np.asarray(shifted - total, np.float32)


def _softmax(op: HostOp, x: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.exp(_log_softmax(op, x).astype(np.float64)), np.float32)


def _argmax(op: HostOp, x: NDArray[Any]) -> NDArray[np.int64]:
    if op.attrs.get("last"):
        found = x.shape[op.axis] - 1 - np.flip(x, op.axis).argmax(axis=op.axis)
    else:
        found = x.argmax(axis=op.axis)
    return np.expand_dims(found, op.axis) if op.attrs.get("keepdims", True) else found


OPERATIONS: dict[str, Callable[[HostOp, NDArray[Any]], NDArray[Any]]] = {
    "softmax": _softmax,
    "logsoftmax": _log_softmax,
    "argmax": _argmax,
}
