"""Seeded weights for a blank: He-normal, with statistics measured as the network fills up.

Real networks keep their scale through the depth because they were trained. Random ones do not:
small errors multiply, and channels die. So the network is evaluated on seeded images while its
weights are drawn: a BatchNormalization gets the mean and variance that its maps have, and a layer
without one is scaled to unit deviation (Mishkin and Matas, "All you need is a good init", ICLR
2016) with biases that centre its maps. Statistics are rounded to about 1 %, in float64, so that
the last bits of a sum do not reach the weights.
"""

from __future__ import annotations

import zlib
from collections import Counter

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from examples.networks.blank import Blank, Table
from examples.networks.evaluate import Real, evaluate

FEW = 16
"""With fewer values than this, a map has no statistics worth the name."""
PIXELS = 1 << 15
"""Images are measured until they have about so many pixels, at least 1 and at most 64."""


def images(shape: tuple[int, ...], count: int, seed: int) -> NDArray[np.float32]:
    """Return seeded inputs float32 [count, *shape] in [-1, 1], as rough as photographs are.

    Noise of five octaves is added up, as white noise alone would vanish in the first average.
    """
    rng = np.random.default_rng([seed, *shape])
    total = np.zeros((count, *shape))
    spatial = len(shape) - 1 if len(shape) > 1 else 1
    for step in (1, 2, 4, 8, 16):
        coarse = [*shape[: len(shape) - spatial], *(-(-n // step) for n in shape[-spatial:])]
        noise = rng.standard_normal((count, *coarse))
        for axis in range(-spatial, 0):
            noise = noise.repeat(step, axis=axis)
        total += noise[(slice(None), *(slice(n) for n in shape))]
    return np.clip(total / 5, -1, 1).astype(np.float32)


def fill(blank: Blank, seed: int = 0) -> ModelProto:
    """Return the model with its weights; the same seed gives the same bytes.

    Kernels that a connection table leaves out are zero.
    """
    weights = _Filler(blank, seed).run()
    model = ModelProto()
    model.CopyFrom(blank.model)
    del model.graph.input[1:]
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in weights.items())
    return model


class _Filler:
    """Walks the graph once; ``weights`` grows, ``values`` are the measured tensors."""

    def __init__(self, blank: Blank, seed: int):
        graph = blank.model.graph
        self.nodes = list(graph.node)
        self.seed = seed
        self.tables = blank.tables
        data, *missing = graph.input
        self.missing = {
            v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in missing
        }
        self.weights: dict[str, NDArray[np.float32]] = {}
        shape = tuple(d.dim_value for d in data.type.tensor_type.shape.dim)[1:]
        pixels = int(np.prod(shape[1:]))
        count = min(max(PIXELS // pixels, 1), 64)
        self.values: dict[str, Real] = {
            t.name: np.asarray(numpy_helper.to_array(t), np.float64) for t in graph.initializer
        }
        self.values[data.name] = images(shape, count, seed).astype(np.float64)
        self.uses = Counter(name for node in graph.node for name in node.input)
        self.users = {name: node for node in graph.node for name in node.input}
        self.views: dict[str, NodeProto] = {}

    def run(self) -> dict[str, NDArray[np.float32]]:
        """Return all weights, in the order of their use."""
        for node in self.nodes:
            if node.op_type in ("Unsqueeze", "Reshape") and node.input[0] in self.missing:
                self.views[node.output[0]] = node  # a weight in another shape: drawn when used
                continue
            draw = DRAW.get(node.op_type)
            known = draw(self, node) if draw else None
            if known is None:
                known = evaluate(node, [self.values[n] for n in node.input])
            self.values[node.output[0]] = known
            self._forget(node)
        assert not set(self.missing) - set(self.weights), "weights that nobody draws"
        return self.weights

    def _forget(self, node: NodeProto) -> None:
        for name in node.input:
            self.uses[name] -= 1
            if not self.uses[name]:
                self.values.pop(name, None)

    def _rng(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])

    def _set(self, name: str, value: NDArray[np.floating]) -> None:
        """Give the weight seen as ``name`` its value, in the shape it has in the model."""
        view = self.views.get(name)
        own = view.input[0] if view else name
        self.weights[own] = np.asarray(value, np.float32).reshape(self.missing[own])
        self.values[own] = self.weights[own].astype(np.float64)
        if view:
            self.values[name] = evaluate(view, [self.values[n] for n in view.input])

    def _scale(self, name: str, gain: float) -> None:
        """Multiply a weight whose product is known by now: nobody reads it here again."""
        view = self.views.get(name)
        self.weights[view.input[0] if view else name] *= np.float32(gain)
        self.values.pop(name)

    def _open(self, name: str) -> bool:
        return name in self.views or (name in self.missing and name not in self.weights)

    def _shape(self, name: str) -> tuple[int, ...]:
        view = self.views.get(name)
        return self.missing[view.input[0] if view else name]

    def _layer(self, node: NodeProto) -> Real | None:
        """Draw the weight and bias of a Conv or Gemm; return its output if it is known by then."""
        data, name, *bias = node.input
        if not self._open(name):
            return None  # fixed by the topology
        shape = self._shape(name)
        weight = self._rng(name).standard_normal(shape, np.float32)
        fan_in = shape[-1] if node.op_type == "Gemm" else int(np.prod(shape[1:]))
        if name in self.tables:
            fan_in = _connect(weight, self.tables[name])
        weight *= np.float32(np.sqrt(2 / fan_in))
        self._set(name, weight)
        sums = evaluate(node, [self.values[data], self.values[name], np.zeros(1)])
        user = self.users.get(node.output[0])
        normalised = user is not None and user.op_type == "BatchNormalization"
        gain, mean = (1.0, np.zeros(1)) if normalised else _statistics(sums)
        if not normalised:
            self._scale(name, gain)
            sums *= gain
        if bias:
            noise = self._rng(bias[0]).standard_normal(self._shape(bias[0]))
            self._set(bias[0], noise * (0.05 if normalised else 0.2) - mean * gain)
            sums += self.values[bias[0]].reshape((-1,) + (1,) * (sums.ndim - 2))
        return sums

    def _batch_norm(self, node: NodeProto) -> None:
        """Draw scale and bias; mean and variance are what the maps have."""
        data, scale, bias, mean, var = node.input
        x = self.values[data]
        axes = (0, *range(2, x.ndim))
        typical = float(x.std())
        # A map of few values, or a constant one, may show next to no variance.
        measured = 0.9 * x.var(axis=axes) + 0.1 * typical**2
        self._set(scale, self._rng(scale).uniform(0.5, 1.5, self._shape(scale)))
        self._set(bias, self._rng(bias).standard_normal(self._shape(bias)) * 0.3)
        self._set(mean, _grid(x.mean(axis=axes), typical))
        self._set(var, _grid(np.sqrt(measured), typical) ** 2)

    def _per_channel(self, node: NodeProto) -> None:
        """Draw the constant of a Mul or Add that follows a BatchNormalization (Caffe's Scale)."""
        name = node.input[1]
        if not self._open(name):
            return
        rng, shape = self._rng(name), self._shape(name)
        scale = node.op_type == "Mul"
        self._set(name, rng.uniform(0.5, 1.5, shape) if scale else rng.normal(0, 0.3, shape))


def _statistics(sums: Real) -> tuple[float, Real]:
    """Return the gain that gives maps unit deviation, and their means before it."""
    axes = (0, *range(2, sums.ndim))
    mean = sums.mean(axis=axes, keepdims=True)
    if sums.size // sums.shape[1] < FEW:
        mean = np.zeros_like(mean)
    typical = float(sums.std())
    return 1 / float(_grid((sums - mean).std(), typical)), _grid(mean.reshape(-1), typical)


def _connect(weight: NDArray[np.float32], table: Table) -> int:
    """Clear the kernels outside ``table``; return the products of a sum, on average."""
    weight[~table] = 0
    kernel = int(np.prod(weight.shape[2:]))
    return max(int(table.sum()) * kernel // len(table), 1)


def _grid(value: NDArray[np.floating] | np.floating, typical: float) -> Real:
    """Round to steps of about 1 % of ``typical``."""
    step = 2.0 ** (np.floor(np.log2(typical)) - 6)
    return np.asarray(np.round(np.asarray(value, np.float64) / step) * step)


DRAW = {
    "Conv": _Filler._layer,
    "Gemm": _Filler._layer,
    "BatchNormalization": _Filler._batch_norm,
    "Mul": _Filler._per_channel,
    "Add": _Filler._per_channel,
}
