"""Topologies without weights: an ONNX model whose weights are still inputs, and how to write one.

A blank is a valid model: its shapes can be inferred and its multiplications counted without a
single weight. ``fill`` turns it into a normal model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from neuflow.errors import NeuflowError

OPSET = 18
IR_VERSION = 8
Pair = tuple[int, int]
Size = int | Pair
"""Of an image: height and width, or one number for both."""
Table = NDArray[np.bool_]
"""A connection table [maps out, maps in]: which kernels exist."""


class NetworkError(NeuflowError):
    """A network cannot be built as asked; the message says what would do."""


@dataclass(frozen=True)
class Blank:
    """A topology.

    ``model``: its first input is the data, all others are float weights to fill in.
    ``tables``: connection tables by weight name; kernels outside are zero and not counted.
    """

    model: ModelProto
    tables: dict[str, Table] = field(default_factory=dict)


def scaled(maps: int, width: float) -> int:
    """Return ``width`` times ``maps``, at least 1; refuse a fraction (sums must still fit)."""
    result = maps * width
    if result != int(result) or result < 1:
        raise NetworkError(
            f"width {width:g} makes {result:g} of {maps} maps; take 1 over a power of 2, "
            "large enough to leave whole maps"
        )
    return int(result)


def pair(value: int | Pair) -> Pair:
    """Return (y, x) of what may be one number for both."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


class Layers:
    """Writes a topology, layer by layer; methods take and return tensor names.

    Names follow the layers: ``conv1`` makes node and tensor ``conv1`` from ``conv1.weight`` and
    ``conv1.bias``. ``shapes`` holds the shape of every tensor made, without the batch.

    Parameters
    ----------
    name : of the graph.
    shape : of the input "image", without the batch: (C, H, W), or (K,).
    """

    def __init__(self, name: str, shape: Sequence[int]):
        if not all(isinstance(n, int) and n > 0 for n in shape):
            raise NetworkError(
                f"{name}: {shape} is no shape of an input; give whole numbers above 0"
            )
        self.name = name
        self.shapes: dict[str, tuple[int, ...]] = {"image": tuple(shape)}
        self.tables: dict[str, Table] = {}
        self._nodes: list[NodeProto] = []
        self._weights: dict[str, tuple[int, ...]] = {}
        self._fixed: dict[str, TensorProto] = {}

    def conv(
        self,
        name: str,
        x: str,
        maps: int,
        kernel: int | Pair,
        stride: int | Pair = 1,
        pads: int | str = 0,
        groups: int = 1,
        bias: bool | NDArray[np.float32] = False,
        table: Table | None = None,
        weight: NDArray[np.float32] | None = None,
    ) -> str:
        """Add a Conv.

        ``pads``: zeros on each side, or "same" as TensorFlow pads (the odd zero at the end).
        ``table``: which kernels exist. ``weight``, ``bias``: fixed values in place of ones to
        fill in.
        """
        channels, height, width = self.shapes[x]
        (ky, kx), (sy, sx) = pair(kernel), pair(stride)
        (top, bottom), (left, right) = (
            _same(n, k, s) if pads == "same" else (int(pads), int(pads))
            for n, k, s in ((height, ky, sy), (width, kx, sx))
        )
        inputs = [x, self._weight(f"{name}.weight", (maps, channels // groups, ky, kx), weight)]
        if table is not None:
            self.tables[inputs[1]] = table
        if bias is not False:
            value = None if bias is True else bias
            inputs.append(self._weight(f"{name}.bias", (maps,), value))
        shape = (
            maps,
            (height + top + bottom - ky) // sy + 1,
            (width + left + right - kx) // sx + 1,
        )
        attrs = {"group": groups} if groups > 1 else {}
        return self.node(
            "Conv", name, inputs, shape,
            kernel_shape=[ky, kx], strides=[sy, sx], pads=[top, left, bottom, right], **attrs,
        )  # fmt: skip

    def dense(self, name: str, x: str, outputs: int) -> str:
        """Add a Gemm with bias; its weight is [outputs, inputs]."""
        (inputs,) = self.shapes[x]
        weight = self._weight(f"{name}.weight", (outputs, inputs))
        bias = self._weight(f"{name}.bias", (outputs,))
        return self.node("Gemm", name, [x, weight, bias], (outputs,), transB=1)

    def batch_norm(self, name: str, x: str, epsilon: float = 1e-5) -> str:
        """Add a BatchNormalization."""
        maps = self.shapes[x][:1]
        weights = [self._weight(f"{name}.{n}", maps) for n in ("scale", "bias", "mean", "var")]
        shape = self.shapes[x]
        return self.node("BatchNormalization", name, [x, *weights], shape, epsilon=epsilon)

    def each(self, op: str, name: str, *inputs: str) -> str:
        """Add an operation value by value: Relu, Tanh, Add, Sub, Mul, Div, Sqrt, ..."""
        return self.node(op, name, list(inputs), self.shapes[inputs[0]])

    def clip(self, name: str, x: str, low: float, high: float | None = None) -> str:
        """Add a Clip to [low, high]."""
        limits = [self.fixed(f"{name}.min", np.float32(low))]
        if high is not None:
            limits.append(self.fixed(f"{name}.max", np.float32(high)))
        return self.node("Clip", name, [x, *limits], self.shapes[x])

    def pool(
        self, op: str, name: str, x: str, kernel: int | Pair, stride: int | Pair, pads: int = 0
    ) -> str:
        """Add a MaxPool or AveragePool with ``pads`` on each side."""
        maps, *extent = self.shapes[x]
        kernels, strides = pair(kernel), pair(stride)
        sizes = zip(extent, kernels, strides, strict=True)
        shape = (maps, *((n + 2 * pads - k) // s + 1 for n, k, s in sizes))
        return self.node(
            op, name, [x], shape, kernel_shape=kernels, strides=strides, pads=[pads] * 4
        )

    def global_pool(self, name: str, x: str) -> str:
        """Add a GlobalAveragePool."""
        return self.node("GlobalAveragePool", name, [x], (self.shapes[x][0], 1, 1))

    def flatten(self, name: str, x: str) -> str:
        """Add a Flatten to two dimensions."""
        return self.node("Flatten", name, [x], (int(np.prod(self.shapes[x])),))

    def fixed(self, name: str, value: NDArray[np.float32] | np.float32) -> str:
        """Add a constant that is part of the topology."""
        self._fixed[name] = numpy_helper.from_array(np.asarray(value, np.float32), name)
        return name

    def node(
        self, op: str, name: str, inputs: list[str], shape: tuple[int, ...], **attrs: Any
    ) -> str:
        """Add any node; ``shape`` is its output's, without the batch."""
        if min(shape) < 1:
            raise NetworkError(f"{self.name}: nothing is left at {name}; take a larger size")
        self._nodes.append(helper.make_node(op, inputs, [name], name=name, **attrs))
        self.shapes[name] = shape
        return name

    def finish(self, output: str) -> Blank:
        """Return the topology; ``output`` names its result."""
        data = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, *self.shapes["image"]])
        weights = [
            helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in self._weights.items()
        ]
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, *self.shapes[output]])
        graph = helper.make_graph(
            self._nodes, self.name, [data, *weights], [result], list(self._fixed.values())
        )
        # Fixed versions: the newest that the onnx package knows may be too new for a runtime.
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
        onnx.checker.check_model(model, full_check=True)
        return Blank(model, self.tables)

    def _weight(
        self, name: str, shape: tuple[int, ...], value: NDArray[np.float32] | None = None
    ) -> str:
        if value is not None:
            assert value.shape == shape, f"{name}: {value.shape} is not {shape}"
            return self.fixed(name, value)
        self._weights[name] = shape
        return name


def _same(size: int, kernel: int, stride: int) -> Pair:
    """Return TensorFlow's zeros before and after: the output has ceil(size / stride) places."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
