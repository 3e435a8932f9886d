"""Quantised graphs for the back end's tests, and a naive reference that knows no machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from neuflow.blocks.alu_model import alu
from neuflow.blocks.mapper_model import apply_table
from neuflow.fixed import requantise
from neuflow.ir import MapTable, Node, QuantGraph, Tensor, Words
from neuflow.layout import SEGMENTS, AluOp


class Builder:
    """Builds a QuantGraph node by node, weights random; methods return a tensor's name."""

    def __init__(self, seed: int, bits: int = 16) -> None:
        self.rng = np.random.default_rng(seed)
        self.bits = bits
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.inputs: list[str] = []

    def _add(
        self, op: str, inputs: tuple[str, ...], shape: tuple[int, int, int], /, **attrs
    ) -> str:
        name = f"{op}{len(self.nodes)}"
        self.nodes.append(Node(name, op, inputs, name + ".out", attrs))
        self.tensors[name + ".out"] = Tensor(name + ".out", shape, self.bits, 8)
        return name + ".out"

    def input(self, *shape: int) -> str:
        name = f"in{len(self.inputs)}"
        self.tensors[name] = Tensor(name, shape, self.bits, 8)
        self.inputs.append(name)
        return name

    def _scales(self, maps: int, terms: int) -> dict:
        # Sums of words spread over the range of a word, a few beyond it.
        spread = 13 + int(np.ceil(np.log2(terms)) / 2)
        return {
            "bias": self.rng.integers(-(1 << 20), 1 << 20, maps),
            "m": self.rng.integers(1 << 12, 1 << 15, maps),
            "s": np.full(maps, spread + 9 + (16 - self.bits)),
            "zero": self.rng.integers(-9, 10, maps),
            "weight_point": 8,
        }

    def shorten(self, node: Node, beats: int) -> None:
        """Simplify a layer's scales, so that its maps' parameters take ``beats`` words at most."""
        if beats < 3:
            node.attrs["zero"][:] = 0
        if beats < 2:
            node.attrs["m"][:] = 1
            node.attrs["s"] -= 13

    def _weight(self, *shape: int) -> np.ndarray:
        high = 1 << (self.bits - 5)
        return self.rng.integers(-high, high, shape)

    def conv(
        self, x: str, maps: int, kernel, stride=(1, 1), dilation=(1, 1), pads=(0, 0, 0, 0), groups=1
    ) -> str:
        channels, *size = self.tensors[x].shape
        out = [
            (n + before + after - (k - 1) * d - 1) // s + 1
            for n, k, s, d, before, after in zip(
                size, kernel, stride, dilation, pads[:2], pads[2:], strict=True
            )
        ]
        weight = self._weight(maps, channels // groups, *kernel)
        return self._add(
            "conv", (x,), (maps, *out), weight=weight, stride=tuple(stride), pads=tuple(pads),
            dilation=tuple(dilation), groups=groups, **self._scales(maps, weight[0].size),
        )  # fmt: skip

    def table(self, x: str, maps: int, kernel, channels: int, **more) -> str:
        """A convolution whose maps read ``channels`` each, not all the same."""
        y = self.conv(x, maps, kernel, **more)
        for own in self.nodes[-1].attrs["weight"]:
            own[self.rng.permutation(len(own))[channels:]] = 0
        return y

    def dense(self, x: str, maps: int) -> str:
        inputs = self.tensors[x].size
        weight = self._weight(maps, inputs)
        return self._add("dense", (x,), (maps, 1, 1), weight=weight, **self._scales(maps, inputs))

    def relu(self, x: str) -> str:
        low = (-32768, 0, *range(1, SEGMENTS - 1))
        table = MapTable(low, (0, 0, *range(1, SEGMENTS - 1)), (0, *[1] * (SEGMENTS - 1)),
                         (0,) * SEGMENTS, 0, 0)  # fmt: skip
        return self._add("map", (x,), self.tensors[x].shape, table=table, function="relu")

    def odd_map(self, x: str) -> str:
        """An odd function of eight uneven segments with square terms."""
        low = (-32768, 0, 100, 700, 1500, 4000, 9000, 20000)
        b = tuple(int(v) for v in np.sort(self.rng.integers(0, 30000, SEGMENTS)))
        a, q = (tuple(int(v) for v in self.rng.integers(-99, 99, SEGMENTS)) for _ in range(2))
        table = MapTable(low, b, a, q, shift=14, square=6, odd=True)
        return self._add("map", (x,), self.tensors[x].shape, table=table, function="odd")

    def concat(self, *parts: str) -> str:
        shapes = [self.tensors[part].shape for part in parts]
        return self._add("concat", parts, (sum(s[0] for s in shapes), *shapes[0][1:]))

    def slice(self, x: str, first: int, count: int) -> str:
        shape = (count, *self.tensors[x].shape[1:])
        return self._add("slice", (x,), shape, first=first, count=count)

    def mean(self, x: str, kernel, stride, pads) -> str:
        """An average over real values alone: m and s differ from place to place."""
        y = self.pool(x, "sum", kernel, stride, pads)
        ones = np.ones((1, *self.tensors[x].shape), np.int64)
        counts = _pool({**self.nodes[-1].attrs, "m": 1, "s": 0, "zero": 0}, 16, ones)[0, 0]
        at = {"m": (1 << 14) // counts, "s": 14 + counts % 2, "zero": 0}
        self.nodes[-1] = replace(self.nodes[-1], attrs={**self.nodes[-1].attrs, **at})
        return y

    def pool(self, x: str, kind: str, kernel, stride, pads=(0, 0, 0, 0)) -> str:
        channels, *size = self.tensors[x].shape
        out = [
            (n + before + after - k) // s + 1
            for n, k, s, before, after in zip(size, kernel, stride, pads[:2], pads[2:], strict=True)
        ]
        scale = {"m": 1, "s": 0, "zero": 0}
        if kind == "sum":
            scale = {"m": (1 << 14) // (kernel[0] * kernel[1]), "s": 14, "zero": 3}
        return self._add(
            "pool", (x,), (channels, *out), kind=kind, kernel=tuple(kernel), stride=tuple(stride),
            pads=tuple(pads), **scale,
        )  # fmt: skip

    def alu(self, kind: str, a: str, b: str | None = None, shift_a=0, shift_b=0, shift=0) -> str:
        inputs = (a,) if b is None else (a, b)
        shifts = {"shift_a": shift_a, "shift_b": shift_b, "shift": shift}
        return self._add("alu", inputs, self.tensors[a].shape, kind=kind, **shifts)

    def reshape(self, x: str, *shape: int) -> str:
        return self._add("reshape", (x,), shape, shape=shape)

    def build(self, *outputs: str, name: str = "test") -> QuantGraph:
        return QuantGraph(
            name, tuple(self.nodes), self.tensors, tuple(self.inputs), outputs, bits=self.bits
        )

    def words(self, images: int) -> dict[str, Words]:
        """Random input words, large enough that some results saturate."""
        high = 1 << (self.bits - 1)
        return {
            name: self.rng.integers(-high, high, (images, *self.tensors[name].shape))
            for name in self.inputs
        }


def lenet(kind: str, seed: int = 0) -> Builder:
    """LeNet-5 (a), (b) or (c) with random weights: shapes of examples/train.py."""
    net = Builder(seed)
    if kind == "a":
        x = net.pool(net.relu(net.conv(net.input(1, 28, 28), 20, (5, 5))), "max", (2, 2), (2, 2))
        x = net.pool(net.relu(net.conv(x, 50, (5, 5))), "max", (2, 2), (2, 2))
        net.dense(net.relu(net.dense(net.reshape(x, 800, 1, 1), 500)), 10)
        return net
    squash = net.relu if kind == "b" else net.odd_map
    pooling = "max" if kind == "b" else "sum"
    x = net.pool(squash(net.conv(net.input(1, 32, 32), 6, (5, 5))), pooling, (2, 2), (2, 2))
    x = net.pool(squash(net.conv(x, 16, (5, 5))), pooling, (2, 2), (2, 2))
    x = squash(net.conv(x, 120, (5, 5)))
    net.dense(squash(net.dense(net.reshape(x, 120, 1, 1), 84)), 10)
    return net


# --- reference ------------------------------------------------------------------------------------


def evaluate(graph: QuantGraph, inputs: Mapping[str, Words]) -> dict[str, Words]:
    """Every tensor of ``graph``, int64 [N, C, H, W], node by node."""
    values = {name: np.asarray(words, np.int64) for name, words in inputs.items()}
    for node in graph.nodes:
        operands = [values[name] for name in node.inputs]
        bits = graph.tensors[node.output].bits
        values[node.output] = _OPS[node.op](node.attrs, bits, *operands)
    return values


def _conv(attrs, bits, x):
    weight, groups = attrs["weight"], attrs["groups"]
    (sy, sx), (dy, dx) = attrs["stride"], attrs["dilation"]
    top, left, bottom, right = attrs["pads"]
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    maps, channels, ky, kx = weight.shape
    extent = ((ky - 1) * dy + 1, (kx - 1) * dx + 1)
    views = np.lib.stride_tricks.sliding_window_view(x, extent, (2, 3))
    views = views[:, :, ::sy, ::sx, ::dy, ::dx]
    parts = [
        np.einsum(
            "nchwij,mcij->nmhw",
            views[:, g * channels : (g + 1) * channels],
            weight[g * (maps // groups) : (g + 1) * (maps // groups)],
            optimize=True,
        )
        for g in range(groups)
    ]
    return _leave(np.concatenate(parts, 1), attrs, bits)


def _dense(attrs, bits, x):
    return _leave((x.reshape(len(x), -1) @ attrs["weight"].T)[:, :, None, None], attrs, bits)


def _leave(sums, attrs, bits):
    columns = (np.asarray(attrs[n])[None, :, None, None] for n in ("bias", "m", "s", "zero"))
    return requantise(sums, *columns, bits=bits)


def _pool(attrs, bits, x):
    (ky, kx), (sy, sx) = attrs["kernel"], attrs["stride"]
    top, left, bottom, right = attrs["pads"]
    largest = attrs["kind"] == "max"
    fill = -(1 << 15) if largest else 0
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    views = np.lib.stride_tricks.sliding_window_view(x, (ky, kx), (2, 3))[:, :, ::sy, ::sx]
    reduced = views.max((-2, -1)) if largest else views.sum((-2, -1))
    return requantise(reduced, 0, attrs["m"], attrs["s"], attrs["zero"], bits)


def _alu(attrs, bits, a, b=None):
    shifts = {name: attrs[name] for name in ("shift_a", "shift_b", "shift")}
    return alu(AluOp[attrs["kind"].upper()], a, b, bits=bits, **shifts)


_OPS = {
    "conv": _conv,
    "dense": _dense,
    "pool": _pool,
    "alu": _alu,
    "concat": lambda attrs, bits, *parts: np.concatenate(parts, axis=1),
    "slice": lambda attrs, bits, x: x[:, attrs["first"] :][:, : attrs["count"]],
    "map": lambda attrs, bits, x: apply_table(attrs["table"], x, bits),
    "reshape": lambda attrs, bits, x: x.reshape(len(x), *attrs["shape"]),
}
