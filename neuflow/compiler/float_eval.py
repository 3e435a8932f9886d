"""The float judge: what a :class:`Graph` computes in real numbers, one operation at a time.

Used to calibrate, and to say how far the integers are from the model. It shares no code with
golden: convolution sums tap by tap here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from neuflow.compiler import functions
from neuflow.ir import Graph, Node

Real = NDArray[np.float64]


def evaluate(graph: Graph, inputs: Mapping[str, NDArray[np.floating]]) -> dict[str, Real]:
    """Return every tensor of ``graph``, float64 [N, C, H, W]."""
    return dict(walk(graph, inputs))


def walk(
    graph: Graph, inputs: Mapping[str, NDArray[np.floating]]
) -> Iterator[tuple[str, Real]]:
    """Yield (name, values) in order; a tensor is forgotten after its last use, to save memory."""
    uses = Counter(name for node in graph.nodes for name in node.inputs)
    held: dict[str, Real] = {}
    for name in graph.inputs:
        held[name] = np.asarray(inputs[name], np.float64)
        yield name, held[name]
    for node in graph.nodes:
        result = OPERATIONS[node.op](node, *[held[name] for name in node.inputs])
        for name in node.inputs:
            uses[name] -= 1
            if not uses[name]:
                held.pop(name, None)
        if uses[node.output]:
            held[node.output] = result
        yield node.output, result


def _padded(x: Real, pads: tuple[int, int, int, int], value: float) -> Real:
    top, left, bottom, right = pads
    around = ((0, 0), (0, 0), (top, bottom), (left, right))
    return np.pad(x, around, constant_values=value)


def _tap(x: Real, at: tuple[int, int], size: tuple[int, int], stride: tuple[int, int]) -> Real:
    """Return what one kernel place sees, for all output places."""
    (y, x0), (height, width) = at, size
    return x[:, :, y : y + (height - 1) * stride[0] + 1 : stride[0],
             x0 : x0 + (width - 1) * stride[1] + 1 : stride[1]]  # fmt: skip


def _size(x: Real, reach: tuple[int, int], stride: tuple[int, int]) -> tuple[int, int]:
    height = (x.shape[2] - reach[0]) // stride[0] + 1
    return height, (x.shape[3] - reach[1]) // stride[1] + 1


def _conv(node: Node, x: Real) -> Real:
    a = node.attrs
    weight = np.asarray(a["weight"], np.float64)
    maps, per_group, ky, kx = weight.shape
    dy, dx = a["dilation"]
    x = _padded(x, a["pads"], 0.0)
    size = _size(x, ((ky - 1) * dy + 1, (kx - 1) * dx + 1), a["stride"])
    out = np.zeros((len(x), maps, *size))
    each = maps // a["groups"]
    for group in range(a["groups"]):
        rows = slice(group * each, (group + 1) * each)
        part = x[:, group * per_group : (group + 1) * per_group]
        for y in range(ky):
            for z in range(kx):
                seen = _tap(part, (y * dy, z * dx), size, a["stride"])
                flat = seen.reshape(len(x), per_group, -1)
                out[:, rows] += (weight[rows, :, y, z] @ flat).reshape(len(x), each, *size)
    return out + np.asarray(a["bias"], np.float64)[:, None, None]


def _dense(node: Node, x: Real) -> Real:
    weight = np.asarray(node.attrs["weight"], np.float64)
    out = x.reshape(len(x), -1) @ weight.T + np.asarray(node.attrs["bias"], np.float64)
    return out[:, :, None, None]


def function(node: Node) -> Callable[[Real], Real]:
    """Return the real function of a node "map"."""
    return functions.real(node.attrs["function"], **functions.parameters(node.attrs))


def _map(node: Node, x: Real) -> Real:
    return function(node)(x)


def _pool(node: Node, x: Real) -> Real:
    a = node.attrs
    ky, kx = a["kernel"]
    largest = a["kind"] == "max"
    divisor = np.array(a.get("divisor", ky * kx), np.float64)
    if a["kind"] == "mean":
        divisor = window_counts(node, np.ones((1, 1, *x.shape[2:])))
    x = _padded(x, a["pads"], -np.inf if largest else 0.0)
    size = _size(x, (ky, kx), a["stride"])
    taps = [_tap(x, (y, z), size, a["stride"]) for y in range(ky) for z in range(kx)]
    if largest:
        return np.asarray(np.maximum.reduce(taps))
    return np.asarray(sum(taps)) / divisor


def window_counts(node: Node, ones: Real) -> Real:
    """Return how many values each window of a pool sees in an image of ``ones``."""
    attrs = {**node.attrs, "kind": "average", "divisor": 1}
    return _pool(replace(node, attrs=attrs), ones)


def _alu(node: Node, a: Real, b: Real) -> Real:
    kind = node.attrs["kind"]
    if kind == "div":
        with np.errstate(divide="ignore", invalid="ignore"):
            return a / b
    terms = {"add": np.add, "sub": np.subtract, "mul": np.multiply}
    return (terms | {"max": np.maximum, "min": np.minimum})[kind](a, b)


def _concat(node: Node, *parts: Real) -> Real:
    return np.concatenate(parts, axis=1)


def _slice(node: Node, x: Real) -> Real:
    first: int = node.attrs["first"]
    return x[:, first : first + node.attrs["count"]]


def _reshape(node: Node, x: Real) -> Real:
    return x.reshape(len(x), *node.attrs["shape"])


OPERATIONS: dict[str, Callable[..., Real]] = {
    "conv": _conv,
    "dense": _dense,
    "map": _map,
    "pool": _pool,
    "alu": _alu,
    "concat": _concat,
    "slice": _slice,
    "reshape": _reshape,
}
