"""What is known of a tensor's values: calibrated ranges, what its consumers tell apart, and joins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuflow.compiler import float_eval, functions
from neuflow.errors import InputError
from neuflow.ir import Graph, Node, Tensor


@dataclass(frozen=True)
class Range:
    """Smallest and largest value of a tensor over the calibration inputs."""

    low: float
    high: float

    def within(self, low: float, high: float) -> Range:
        """Return the range clipped to ``low``..``high``."""
        return Range(min(max(self.low, low), high), min(max(self.high, low), high))

    @property
    def size(self) -> float:
        """Largest magnitude."""
        return max(abs(self.low), abs(self.high))


def calibrate(graph: Graph, calib: Mapping[str, ArrayLike]) -> dict[str, Range]:
    """Return every tensor's range when ``graph`` runs in float on ``calib``."""
    inputs = {name: _images(graph.tensors[name], calib) for name in graph.inputs}
    if len({len(x) for x in inputs.values()}) > 1:
        raise InputError("calibration inputs hold different numbers of images; give equally many")
    ranges: dict[str, Range] = {}
    # One image at a time: a deep network's tensors over all images would not fit into memory.
    for image in range(len(next(iter(inputs.values())))):
        one = {name: x[image : image + 1] for name, x in inputs.items()}
        for name, values in float_eval.walk(graph, one):
            finite = values[np.isfinite(values)]
            low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
            seen = ranges.get(name, Range(math.inf, -math.inf))
            ranges[name] = Range(min(seen.low, float(low)), max(seen.high, float(high)))
    return ranges


def _images(tensor: Tensor, calib: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
    """Return one calibration input as float64 [N, C, H, W]."""
    if tensor.name not in calib:
        raise InputError(f"calibration lacks input {tensor.name!r}; give an array for it")
    what = f"calibration input {tensor.name!r}"
    values = np.asarray(calib[tensor.name])
    if values.dtype.kind not in "biuf":
        raise InputError(f"{what} has dtype {values.dtype}; give numbers")
    values = values.astype(np.float64)
    own = tensor.shape if tensor.onnx_shape is None else tensor.onnx_shape
    if values.ndim < 1 or values.shape[1:] not in (tensor.shape, own) or not len(values):
        want = ", ".join(str(d) for d in ("N", *own))
        raise InputError(f"{what} has shape {values.shape}; give ({want})")
    if not np.isfinite(values).all():
        raise InputError(f"{what} holds NaN or infinity; replace them")
    return values.reshape(len(values), *tensor.shape)


def joined_by_concat(graph: Graph) -> dict[str, tuple[str, ...]]:
    """Return, for every tensor that takes part in a concat, all that must have its point."""
    groups: dict[str, set[str]] = {}
    for node in graph.nodes:
        if node.op == "concat" and not node.attrs.get("apart"):
            names = {node.output, *node.inputs}
            together = names.union(*(groups[name] for name in names if name in groups))
            groups |= dict.fromkeys(together, together)
    return {name: tuple(sorted(group)) for name, group in groups.items()}


def ranges_that_matter(graph: Graph) -> dict[str, tuple[float, float]]:
    """Return, for every tensor, beyond which values its consumers tell nothing apart."""
    everything = (-math.inf, math.inf)
    bounds = dict.fromkeys(graph.tensors, (math.inf, -math.inf))
    for name in graph.outputs:
        bounds[name] = everything
    for node in reversed(graph.nodes):
        own = _node_bounds(node, bounds[node.output])
        for name in node.inputs:
            low, high = bounds[name]
            bounds[name] = (min(low, own[0]), max(high, own[1]))
    return {n: b if b[0] <= b[1] else everything for n, b in bounds.items()}


def _node_bounds(node: Node, after: tuple[float, float]) -> tuple[float, float]:
    """Return beyond which operands a node's result no longer matters or changes."""
    function = node.attrs.get("function")
    if function is not None:
        return functions.FUNCTIONS[function].matters(**functions.parameters(node.attrs))
    if node.op in ("reshape", "concat", "slice") or (node.op == "pool" and node.attrs["kind"] == "max"):
        return after
    return (-math.inf, math.inf)
