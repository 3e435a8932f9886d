"""What a node computes, in float64: an ONNX model evaluated on the way, while it gets its weights.

Plain NumPy, so that weights drawn from measured statistics do not depend on a runtime's order of
sums. Only what the networks here use; one image or many.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from examples.networks.blank import NetworkError

Real = NDArray[np.float64]
Attrs = dict[str, Any]


def evaluate(node: NodeProto, inputs: list[Real]) -> Real:
    """Return the first output of ``node``; a batch [N, ...] stands where the model says 1."""
    if node.op_type not in OPERATIONS:
        raise NetworkError(f"{node.name or node.output[0]}: {node.op_type} is not known here")
    attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return OPERATIONS[node.op_type](attrs, *inputs)


def _taps(attrs: Attrs, x: Real, kernel: tuple[int, ...], fill: float) -> list[Real]:
    """Return what each tap of a window sees, [N, C, H out, W out] each, ky before kx."""
    top, left, bottom, right = attrs.get("pads", (0, 0, 0, 0))
    sy, sx = attrs.get("strides", (1, 1))
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    height = (x.shape[2] - kernel[0]) // sy + 1
    width = (x.shape[3] - kernel[1]) // sx + 1
    return [
        x[:, :, ky : ky + (height - 1) * sy + 1 : sy, kx : kx + (width - 1) * sx + 1 : sx]
        for ky in range(kernel[0])
        for kx in range(kernel[1])
    ]


def _conv(attrs: Attrs, x: Real, weight: Real, bias: Real | None = None) -> Real:
    groups = attrs.get("group", 1)
    maps, each, *kernel = weight.shape
    # One matrix a tap and group, each in one piece: only those go to the fast matrix product.
    flat = np.moveaxis(weight.reshape(groups, maps // groups, each, -1), 3, 0).copy()
    total: Any = 0
    for index, tap in enumerate(_taps(attrs, x, (kernel[0], kernel[1]), 0.0)):
        count, _, height, width = tap.shape
        if each == 1 and maps == groups:  # depthwise: a product a map
            total = total + tap * flat[index, :, 0, 0][:, None, None]
        else:
            seen = np.ascontiguousarray(tap).reshape(count, groups, each, height * width)
            total = total + flat[index] @ seen
    result = np.asarray(total).reshape(count, maps, height, width)
    return result if bias is None else result + bias[:, None, None]


def _max_pool(attrs: Attrs, x: Real) -> Real:
    taps = _taps(attrs, x, tuple(attrs["kernel_shape"]), -np.inf)
    result = taps[0]
    for tap in taps[1:]:
        result = np.maximum(result, tap)
    return result


def _average_pool(attrs: Attrs, x: Real) -> Real:
    kernel = tuple(attrs["kernel_shape"])
    real = sum(_taps(attrs, np.ones_like(x[:1, :1]), kernel, 0.0))  # padding does not count
    return np.asarray(sum(_taps(attrs, x, kernel, 0.0)) / real)


def _batch_norm(attrs: Attrs, x: Real, scale: Real, bias: Real, mean: Real, var: Real) -> Real:
    shape = (-1,) + (1,) * (x.ndim - 2)
    gain = scale / np.sqrt(var + attrs.get("epsilon", 1e-5))
    return x * gain.reshape(shape) + (bias - mean * gain).reshape(shape)


def _lrn(attrs: Attrs, x: Real) -> Real:
    size = attrs["size"]
    around = ((0, 0), ((size - 1) // 2, size // 2), (0, 0), (0, 0))
    squares = np.pad(x * x, around)
    total = sum(squares[:, k : k + x.shape[1]] for k in range(size))
    return x / (attrs["bias"] + attrs["alpha"] / size * total) ** attrs["beta"]


def _gemm(attrs: Attrs, x: Real, weight: Real, bias: Real) -> Real:
    return x @ (weight.T if attrs.get("transB") else weight) + bias


def _softmax(attrs: Attrs, x: Real) -> Real:
    power = np.exp(x - x.max(axis=1, keepdims=True))
    return power / power.sum(axis=1, keepdims=True)


def _clip(attrs: Attrs, x: Real, low: Real, high: Real | None = None) -> Real:
    return np.clip(x, low, high)


def _unsqueeze(attrs: Attrs, x: Real) -> Real:
    return np.expand_dims(x, tuple(attrs["axes"]))


def _reshape(attrs: Attrs, x: Real, shape: Real) -> Real:
    """Only to two dimensions: of data, to [N, rest]; and to a shape that says all of it."""
    sizes = [int(n) for n in shape]
    if len(sizes) == 2 and sizes[0] in (0, 1):
        return x.reshape(len(x), -1)
    return x.reshape([len(x) if n == 0 else n for n in sizes])


OPERATIONS: dict[str, Callable[..., Any]] = {
    "Conv": _conv,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda attrs, x: x.mean(axis=(2, 3), keepdims=True),
    "BatchNormalization": _batch_norm,
    "LRN": _lrn,
    "Gemm": _gemm,
    "Softmax": _softmax,
    "Clip": _clip,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Flatten": lambda attrs, x: x.reshape(len(x), -1),
    "Concat": lambda attrs, *x: np.concatenate(x, axis=attrs["axis"]),
    "Dropout": lambda attrs, x: x,
    "Relu": lambda attrs, x: np.maximum(x, 0),
    "Tanh": lambda attrs, x: np.tanh(x),
    "Sqrt": lambda attrs, x: np.sqrt(x),
    "Sum": lambda attrs, *x: sum(x),
    "Add": lambda attrs, a, b: a + b,
    "Sub": lambda attrs, a, b: a - b,
    "Mul": lambda attrs, a, b: a * b,
    "Div": lambda attrs, a, b: a / b,
}
