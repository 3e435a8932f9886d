"""Convolutions and dense layers of an ONNX model, as other simulators want them."""

from __future__ import annotations

from typing import NamedTuple

import onnx
from onnx import ModelProto


class ConvLayer(NamedTuple):
    """One layer: padded input ``height`` x ``width``, kernel, channels, filters, stride.

    A dense layer is a 1 x 1 image. Groups are counted as if they were connected: the simulators
    that we compare with do not know them.
    """

    name: str
    height: int
    width: int
    kernel_y: int
    kernel_x: int
    channels: int
    filters: int
    stride: int

    @property
    def pixels(self) -> int:
        """Output positions."""
        rows = (self.height - self.kernel_y) // self.stride + 1
        return rows * ((self.width - self.kernel_x) // self.stride + 1)

    @property
    def taps(self) -> int:
        """Products of one result."""
        return self.kernel_y * self.kernel_x * self.channels

    @property
    def macs(self) -> int:
        """Multiply-accumulates, padded taps counted."""
        return self.pixels * self.taps * self.filters


def layers(model: ModelProto) -> list[ConvLayer]:
    """Return the Conv and Gemm nodes of a model, in order; other operators are left out."""
    shapes = _shapes(model)
    found = []
    for number, node in enumerate(model.graph.node):
        name = f"{number}_{node.op_type}"
        if node.op_type == "Conv":
            found.append(_conv(name, node, shapes))
        elif node.op_type == "Gemm":
            (inputs,), outputs = shapes[node.input[0]][1:], shapes[node.output[0]][-1]
            found.append(ConvLayer(name, 1, 1, 1, 1, inputs, outputs, 1))
    return found


def is_grouped(model: ModelProto) -> bool:
    """Whether a convolution has groups, so that its layer above stands for another network."""
    attributes = [a for node in model.graph.node if node.op_type == "Conv" for a in node.attribute]
    return any(a.name == "group" and a.i > 1 for a in attributes)


def _conv(name: str, node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> ConvLayer:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    _, channels, height, width = shapes[node.input[0]]
    filters, _, kernel_y, kernel_x = shapes[node.input[1]]
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    stride = attributes.get("strides", [1, 1])[0]
    height, width = height + top + bottom, width + left + right
    return ConvLayer(name, height, width, kernel_y, kernel_x, channels, filters, stride)


def _shapes(model: ModelProto) -> dict[str, tuple[int, ...]]:
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    for value in [*inferred.input, *inferred.value_info, *inferred.output]:
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(d.dim_value or 1 for d in dims)
    return shapes
