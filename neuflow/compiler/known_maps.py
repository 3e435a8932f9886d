"""Maps known before any input is: constants, and copies of maps that lie in memory already.

A convolution without a kernel for a map gives its bias everywhere; functions and terms of constants
are constants; minus 0 and divided by 1 a map stays what it was. Such maps are not computed: who made
them makes the others alone, and convolutions that read them read the maps that they repeat. Exact in
real numbers; fewer roundings in words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from neuflow.compiler import float_eval
from neuflow.ir import Graph, Node, Tensor


class Same(NamedTuple):
    """Channel ``channel`` of ``tensor``."""

    tensor: str
    channel: int


Map = float | Same
"""What a map is: a number everywhere, or a channel that somebody computes."""

BY_MAP = ("map", "alu", "pool")
"""Operations whose map c depends on the maps c of their operands alone."""

NEUTRAL = {"add": 0.0, "sub": 0.0, "mul": 1.0, "div": 1.0}
"""Second operands that leave the first as it is; of add and mul the first likewise."""


def leave_out_known(graph: Graph) -> Graph:
    """Return the same function with only the maps computed that are not known, where that is possible.

    What is computed of a tensor is a span of its channels, under its name. A convolution that reads
    several tensors instead of one reads their concat.
    """
    maps = _maps(graph)
    if all(m == Same(t, c) for t, each in maps.items() for c, m in enumerate(each)):
        return graph
    demand = _Demand(graph, maps)
    demand.run()
    return _Rewriter(graph, demand).run()


# --- what maps are ------------------------------------------------------------------------------


def _maps(graph: Graph) -> dict[str, list[Map]]:
    maps: dict[str, list[Map]] = {name: _own(graph.tensors[name]) for name in graph.inputs}
    for node in graph.nodes:
        own = _own(graph.tensors[node.output])
        if node.op == "conv" and node.attrs["groups"] == 1:
            bias = np.asarray(node.attrs["bias"], np.float64)
            for m in np.flatnonzero(~np.any(node.attrs["weight"], axis=(1, 2, 3))):
                own[m] = float(bias[m])
        elif node.op in ("map", "alu"):
            own = [
                _result(node, operands, one)
                for one, *operands in zip(own, *(maps[name] for name in node.inputs), strict=True)
            ]
        maps[node.output] = own
    return maps


def _own(tensor: Tensor) -> list[Map]:
    return [Same(tensor.name, channel) for channel in range(tensor.shape[0])]


def _result(node: Node, operands: Sequence[Map], own: Map) -> Map:
    """Return what a map of a node's output is, by those of its operands; ``own``: what is computed."""
    if all(isinstance(operand, float) for operand in operands):
        with np.errstate(all="ignore"):
            values = [np.float64(operand) for operand in operands if isinstance(operand, float)]
            value = float(float_eval.OPERATIONS[node.op](node, *values))
        return value if math.isfinite(value) else own
    if node.op == "alu":
        a, b = operands
        neutral = NEUTRAL.get(node.attrs["kind"])
        if neutral is not None and b == neutral:
            return a
        if neutral is not None and a == neutral and node.attrs["kind"] in ("add", "mul"):
            return b
    return own


# --- which of them are needed -------------------------------------------------------------------


@dataclass
class _Demand:
    """Which channels of every tensor are computed, from the outputs back to the inputs.

    ``parts``: tensors that convolutions read instead of a tensor, itself the last of them.
    """

    graph: Graph
    maps: dict[str, list[Map]]
    wanted: dict[str, set[int]] = field(default_factory=dict)
    parts: dict[str, list[str]] = field(default_factory=dict)

    def run(self) -> None:
        """Fill ``wanted`` and ``parts``."""
        graph = self.graph
        views = {node.output for node in graph.nodes if node.op == "reshape"}
        joined = {name for node in graph.nodes if node.op == "concat" for name in node.inputs}
        self.bound = views | joined | set(graph.outputs)  # these cannot lie in one more concat
        for name in graph.outputs:
            self.whole(name)
        for node in reversed(graph.nodes):
            if node.op == "conv" and node.attrs["groups"] == 1:
                self.read(node)
            elif node.op in BY_MAP and not views & set(node.inputs):
                span = self.span(node.output)
                for name in node.inputs:
                    self.wanted.setdefault(name, set()).update(span)
            else:
                for name in (node.output, *node.inputs):
                    self.whole(name)

    def span(self, name: str) -> range:
        """Return the channels of a tensor that are computed."""
        wanted = self.wanted.get(name, set())
        if name in self.graph.inputs:
            return range(self.graph.tensors[name].shape[0])
        return range(min(wanted), max(wanted) + 1) if wanted else range(0)

    def whole(self, name: str) -> None:
        """Ask for all channels."""
        self.wanted[name] = set(range(self.graph.tensors[name].shape[0]))

    def read(self, node: Node) -> None:
        """Ask for the channels that a convolution has kernels for."""
        for found in self.taken(node).values():
            if isinstance(found, Same):
                self.wanted.setdefault(found.tensor, set()).add(found.channel)

    def taken(self, node: Node) -> dict[int, Map]:
        """Return what a convolution takes for the channels that it has kernels for; one at least."""
        rows = self.span(node.output)
        if not rows:
            return {}
        kernels = np.any(node.attrs["weight"][rows.start : rows.stop], axis=(0, 2, 3))
        found = {int(c): self._instead(node, int(c)) for c in np.flatnonzero(kernels)}
        if not any(isinstance(one, Same) for one in found.values()):
            found[0] = Same(node.inputs[0], 0)
        return found

    def _instead(self, node: Node, channel: int) -> Map:
        source = node.inputs[0]
        found, own = self.maps[source][channel], Same(source, channel)
        if channel in self.span(source):
            return own
        if isinstance(found, float):
            # Around the image is 0, whatever the map.
            return found if found == 0 or not any(node.attrs["pads"]) else own
        if found == own:
            return own
        parts = self.parts.setdefault(source, [])
        if found.tensor not in parts:
            if found.tensor in self.bound or (source in self.bound and not parts):
                return own
            self.bound |= {found.tensor, source}
            parts.append(found.tensor)
        return found


# --- the graph without the others ---------------------------------------------------------------


class _Rewriter:
    def __init__(self, graph: Graph, demand: _Demand) -> None:
        self.graph, self.demand = graph, demand
        self.tensors = dict(graph.tensors)
        self.nodes: list[Node] = []
        self.joined: dict[str, str] = {}

    def run(self) -> Graph:
        for node in self.graph.nodes:
            span = self.demand.span(node.output)
            if not span:
                continue
            self.tensors[node.output] = self._shaped(node.output, len(span))
            if node.op == "conv" and node.attrs["groups"] == 1:
                node = self._conv(node, span)
            elif node.op in BY_MAP:
                node = replace(node, inputs=tuple(self._view(name, span) for name in node.inputs))
            self.nodes.append(node)
        return replace(self.graph, nodes=tuple(self.nodes), tensors=self.tensors)

    def _shaped(self, name: str, channels: int) -> Tensor:
        tensor = self.graph.tensors[name]
        return replace(tensor, shape=(channels, *tensor.shape[1:]))

    def _view(self, name: str, span: range) -> str:
        """Return a tensor that is the channels ``span`` of ``name``, numbered as in the old graph."""
        return self._slice(name, span.start - self.demand.span(name).start, len(span))

    def _slice(self, name: str, first: int, count: int) -> str:
        tensor = self.tensors[name]
        if count == tensor.shape[0]:
            return name
        view = f"{name}/{first}..{first + count - 1}"
        if view not in self.tensors:
            shape = (count, *tensor.shape[1:])
            self.tensors[view] = replace(tensor, name=view, shape=shape, onnx_shape=None)
            attrs = {"first": first, "count": count}
            self.nodes.append(Node(view, "slice", (name,), view, attrs))
        return view

    def _conv(self, node: Node, maps: range) -> Node:
        """Return a convolution with the maps ``maps``, that reads what is computed."""
        source, rows = node.inputs[0], slice(maps.start, maps.stop)
        weight, bias = node.attrs["weight"][rows], np.asarray(node.attrs["bias"])[rows]
        taken = self.demand.taken(node)
        parts = sorted({one.tensor for one in taken.values() if isinstance(one, Same)})
        first = dict.fromkeys(parts, 0)
        if len(parts) > 1:
            source, first = self._concat(source)
        else:
            (source,) = parts
        places: dict[int, int] = {}
        for channel, one in taken.items():
            if isinstance(one, Same):
                span = self.demand.span(one.tensor)
                places[channel] = first[one.tensor] + one.channel - span.start
            else:
                bias = (bias + one * weight[:, channel].sum(axis=(1, 2))).astype(bias.dtype)
        low, high = min(places.values()), max(places.values()) + 1
        kernels = np.zeros((len(maps), high - low, *weight.shape[2:]), weight.dtype)
        for channel, place in places.items():
            kernels[:, place - low] = weight[:, channel]
        attrs: dict[str, Any] = {**node.attrs, "weight": kernels, "bias": bias}
        return replace(node, inputs=(self._slice(source, low, high - low),), attrs=attrs)

    def _concat(self, source: str) -> tuple[str, dict[str, int]]:
        """Return the concat that is read instead of ``source``, and where each part begins in it."""
        parts = [*self.demand.parts[source], source]
        sizes = [self.tensors[part].shape[0] for part in parts]
        starts = np.cumsum([0, *sizes])
        if source not in self.joined:
            name = self.joined[source] = f"{source}/joined"
            self.tensors[name] = replace(self._shaped(source, int(starts[-1])), name=name)
            self.nodes.append(Node(name, "concat", tuple(parts), name, {"apart": True}))
        return self.joined[source], dict(zip(parts, map(int, starts), strict=False))


__all__ = ["leave_out_known"]
