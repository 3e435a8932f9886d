"""Random ONNX models: operations that the importer takes, with attributes of any value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from tests.onnx_builder import build, node

OPSET = 20
"""Of Gelu, Mish and HardSwish as operations of their own."""

Size = tuple[int, int, int]
"""Channels, height, width."""

CURVES: dict[str, Sequence[dict[str, Any]]] = {
    "Relu": ({},), "LeakyRelu": ({"alpha": 0.1}, {"alpha": 0.3}), "Sigmoid": ({},), "Tanh": ({},),
    "HardSwish": ({},), "HardSigmoid": ({},), "Elu": ({}, {"alpha": 0.5}), "Selu": ({},),
    "Softplus": ({},), "Softsign": ({},), "Abs": ({},), "Neg": ({},), "Erf": ({},), "Mish": ({},),
}  # fmt: skip
"""Functions of one number -> attributes that are drawn from."""

JOINS = ("Add", "Sum", "Sub", "Mul", "Max", "Min", "Concat")


class RandomModel:
    """Random operations on images ``x``, [N, *image]: 1 to 9 draws, and perhaps a dense layer."""

    kinds = ("conv", "conv", "conv", "curve", "branches", "branches", "pool", "scale", "pad", "lrn")

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        # Many channels are read in parts, whose sums come back from memory.
        self.most = int(self.rng.choice([16, 16, 80]))
        self.image: Size = (self.upto(self.most // 2), self.upto(24), self.upto(24))
        self.sizes: dict[str, Size] = {"x": self.image}
        self.last = "x"
        while not self.nodes:
            for _ in range(self.upto(9)):
                getattr(self, f"add_{self.rng.choice(self.kinds)}")()
        if self.rng.random() < 0.4:
            self.add_dense()

    def build(self) -> onnx.ModelProto:
        """Return the model."""
        return build(
            self.nodes, self.weights, {"x": ("N", *self.image)}, (self.last,), OPSET
        )

    def upto(self, high: int, low: int = 1) -> int:
        return int(self.rng.integers(low, high + 1))

    def weight(self, values: Any, kind: type = np.float32) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = np.asarray(values, kind)
        return name

    def normal(self, *shape: int, scale: float = 1.0) -> str:
        return self.weight(scale * self.rng.standard_normal(shape))

    def add(self, op: str, *inputs: str, **attrs: Any) -> bool:
        """Append a node behind which there is something left, and go on from it."""
        made = node(op, inputs, f"t{len(self.nodes)}", **attrs)
        self.nodes.append(made)
        size = self._size_of(made.output[0])
        if size is None or min(size) < 1:
            self.nodes.pop()
            return False
        self.last = made.output[0]
        self.sizes[self.last] = size
        return True

    def _size_of(self, name: str) -> Size | None:
        """Return the size of the newest result as ONNX infers it."""
        declared = {key: ("N", *size) for key, size in self.sizes.items()}
        newest = self.nodes[-1]
        used = {key: declared[key] for key in newest.input if key in declared}
        weights = {key: self.weights[key] for key in newest.input if key in self.weights}
        model = build([newest], weights, used, (name,), OPSET)
        try:
            found = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        except onnx.shape_inference.InferenceError:
            return None
        dims = found.graph.output[0].type.tensor_type.shape.dim
        _, channels, height, width = (dim.dim_value for dim in dims)
        return channels, height, width

    def holds(self, window: list[int], pads: list[int]) -> bool:
        """Whether the padded data have a place for a window; ONNX's inference may see one too many."""
        padded = np.add(self.sizes[self.last][1:], np.add(pads[:2], pads[2:]))
        return bool((padded >= window).all())

    # Operations.

    def add_conv(self, maps: int = 0, same: bool = False) -> bool:
        """A convolution; ``same``: its result has the height and width of its input."""
        channels = self.sizes[self.last][0]
        kernel = [self.upto(5), self.upto(5)] if self.rng.random() < 0.4 else [3, 3]
        dilation = [self.upto(2), self.upto(2)]
        reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
        strides = [1, 1] if same or self.rng.random() < 0.5 else [self.upto(3), self.upto(3)]
        pads = [self.upto(k // 2, 0) for k in kernel * 2]
        if same:
            pads = [reach[0] // 2, reach[1] // 2, reach[0] - reach[0] // 2, reach[1] - reach[1] // 2]
        if not self.holds([n + 1 for n in reach], pads):
            return False
        groups = int(self.rng.choice([n for n in range(1, channels + 1) if channels % n == 0]))
        if maps % groups or self.rng.random() < 0.5:
            groups = 1
        maps = maps or groups * self.upto(max(1, self.most // groups))
        taps = channels // groups * kernel[0] * kernel[1]
        inputs = [self.last, self.normal(maps, channels // groups, *kernel, scale=taps**-0.5)]
        if self.rng.random() < 0.7:
            inputs.append(self.normal(maps, scale=0.3))
        return self.add("Conv", *inputs, kernel_shape=kernel, strides=strides, pads=pads,
                        dilations=dilation, group=groups)  # fmt: skip

    def add_curve(self) -> None:
        op = str(self.rng.choice([*CURVES, "Clip", "PRelu"]))
        if op == "Clip":
            self.add(op, self.last, self.weight(self.upto(1, -1)), self.weight(self.upto(6, 2)))
        elif op == "PRelu":
            self.add(op, self.last, self.weight(self.rng.random((self.sizes[self.last][0], 1, 1))))
        else:
            self.add(op, self.last, **CURVES[op][self.upto(len(CURVES[op])) - 1])

    def add_scale(self) -> None:
        """Normalisation, or a constant by channel or for all."""
        channels = self.sizes[self.last][0]
        op = str(self.rng.choice(["BatchNormalization", "Mul", "Add", "Sub", "Div"]))
        if op == "BatchNormalization":
            scale, variance = (self.weight(self.rng.uniform(0.5, 1.5, channels)) for _ in range(2))
            bias, mean = (self.normal(channels, scale=0.3) for _ in range(2))
            self.add(op, self.last, scale, bias, mean, variance)
            return
        shape = [(1,), (channels, 1, 1), (1, channels, 1, 1)][self.upto(2, 0)]
        signs = self.rng.choice([-1, 1], shape)
        self.add(op, self.last, self.weight(signs * self.rng.uniform(0.5, 2, shape)))

    def add_pool(self) -> None:
        op = str(self.rng.choice(["MaxPool", "AveragePool"]))
        if self.rng.random() < 0.1:
            self.add("GlobalAveragePool", self.last)
            return
        kernel = [self.upto(4), self.upto(4)]
        attrs: dict[str, Any] = {
            "kernel_shape": kernel, "strides": [self.upto(3), self.upto(3)],
            "pads": [self.upto(k // 2, 0) for k in kernel * 2],
        }  # fmt: skip
        if op == "AveragePool":
            attrs["count_include_pad"] = self.upto(1, 0)
        if self.holds(kernel, attrs["pads"]):
            self.add(op, self.last, **attrs)

    def add_pad(self) -> None:
        edges = [self.upto(2, 0) for _ in range(4)]
        pads = self.weight([0, 0, *edges[:2], 0, 0, *edges[2:]], np.int64)
        self.add("Pad", self.last, pads)

    def add_lrn(self) -> None:
        self.add("LRN", self.last, size=int(self.rng.choice([3, 5])))

    def add_branches(self) -> None:
        """Two branches from here, one of them perhaps without an operation, are joined."""
        begin = self.last
        if not self.add_conv(same=True):
            return
        if self.rng.random() < 0.5:
            self.add_curve()
        first, second = self.last, begin
        op = str(self.rng.choice(JOINS))
        fits = op == "Concat" or self.sizes[first] == self.sizes[begin]
        if not fits or self.rng.random() < 0.4:
            self.last = begin
            if not self.add_conv(self.sizes[first][0], same=True):
                return
            second = self.last
        pair = [first, second] if self.rng.random() < 0.5 else [second, first]
        self.add(op, *pair, **({"axis": 1} if op == "Concat" else {}))

    def add_dense(self) -> None:
        """The last operation: there are no rows behind it."""
        inputs, outputs = int(np.prod(self.sizes[self.last])), self.upto(12)
        self.nodes.append(node("Flatten", [self.last], "flat"))
        weights = self.normal(outputs, inputs, scale=inputs**-0.5), self.normal(outputs)
        self.last = "dense"
        self.nodes.append(node("Gemm", ["flat", *weights], self.last, transB=1))
