"""Graph -> Graph: fold per-channel scales, drop views that nobody needs and dead nodes.

The importer leaves what :data:`neuflow.ir.OPS` does not have or need: nodes "scale" (one factor and
one offset a channel: BatchNormalization, constants of Add, Sub, Mul, Div), nodes "pad", and views
before dense layers, which flatten by themselves.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from neuflow.compiler.known_maps import leave_out_known
from neuflow.compiler.merge_sums import merge_sums
from neuflow.compiler.windows import fold_pads, one_by_one, split_large_pools
from neuflow.errors import ModelError
from neuflow.ir import Graph, Node


def simplify(graph: Graph) -> Graph:
    """Return the same function in the operations of ``OPS`` alone."""
    graph = fold_clips(fold_pads(fold_scales(fold_products(graph))))
    graph = share_concats(split_large_pools(graph))
    graph = leave_out_known(drop_dead(drop_views(graph)))
    return check(drop_dead(merge_sums(graph)))


def fold_products(graph: Graph) -> Graph:
    """Make x sigmoid(x), x hardsigmoid(x) and x tanh(softplus(x)) one function, as exporters write it.

    So it is a table behind the layer before, where the product would read two tensors from memory.
    """
    made = {node.output: node for node in graph.nodes}
    uses = _uses(graph)
    nodes = []
    for node in graph.nodes:
        if node.op == "alu" and node.attrs["kind"] == "mul":
            for x, gate in (node.inputs, node.inputs[::-1]):
                attrs = _product(x, made.get(gate), made, uses)
                if attrs is not None:
                    node = replace(node, op="map", inputs=(x,), attrs=attrs)
                    break
        nodes.append(node)
    return drop_dead(replace(graph, nodes=tuple(nodes)))


def _product(
    x: str, gate: Node | None, made: dict[str, Node], uses: Counter[str]
) -> dict[str, Any] | None:
    """Return the function x gate(x), if there is one and nothing else reads the gate."""
    if gate is None or uses[gate.output] > 1:
        return None
    function, inner = gate.attrs.get("function"), made.get(gate.inputs[0])
    if function == "sigmoid" and gate.inputs[0] == x:
        return {"function": "swish", "alpha": 1.0}
    if function == "hardsigmoid" and gate.inputs[0] == x:
        sixth = abs(gate.attrs["alpha"] - 1 / 6) < 1e-6 and gate.attrs["beta"] == 0.5
        return {"function": "hardswish"} if sixth else None
    if function == "tanh" and inner is not None and inner.inputs[0] == x:
        alone = inner.attrs.get("function") == "softplus" and uses[inner.output] == 1
        return {"function": "mish"} if alone else None
    return None


def fold_scales(graph: Graph) -> Graph:
    """Fold each scale into the conv or dense before it.

    y = scale (w x + bias) + offset. Where the layer before is no conv or dense, or its result is
    also used elsewhere, the scale becomes a 1x1 convolution of its own, one group a channel.
    """
    uses = _uses(graph)
    made: dict[str, int] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op != "scale":
            made[node.output] = len(nodes)
            nodes.append(node)
            continue
        place = made.get(node.inputs[0], -1)
        before = nodes[place] if place >= 0 else None
        if before is not None and before.op in ("conv", "dense") and uses[before.output] == 1:
            nodes[place] = _folded(before, node)
            made[node.output] = place
        else:
            made[node.output] = len(nodes)
            nodes.append(_depthwise(node))
    return replace(graph, nodes=tuple(nodes))


def _uses(graph: Graph) -> Counter[str]:
    """Return how often each tensor is read, by nodes, outputs and the host."""
    uses = Counter(name for node in graph.nodes for name in node.inputs)
    uses.update(graph.outputs)
    return uses


def _folded(layer: Node, scale: Node) -> Node:
    """Return ``layer`` with the scale after it, under the scale's output name."""
    factor, offset = scale.attrs["scale"], scale.attrs["offset"]
    weight = np.asarray(layer.attrs["weight"], np.float64)
    bias = np.asarray(layer.attrs["bias"], np.float64)
    attrs = {
        **layer.attrs,
        "weight": (weight * factor.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.float32),
        "bias": (bias * factor + offset).astype(np.float32),
    }
    _finite(scale, attrs["weight"], attrs["bias"])
    return replace(layer, output=scale.output, attrs=attrs)


def _depthwise(node: Node) -> Node:
    """Return a scale as a 1x1 convolution with one group a channel."""
    attrs = one_by_one(node.attrs["scale"], node.attrs["offset"])
    _finite(node, attrs["weight"], attrs["bias"])
    return replace(node, op="conv", attrs=attrs)


def fold_clips(graph: Graph) -> Graph:
    """Let powers read what lies before a clip, and take its bounds themselves.

    A power below 0 needs such a bound: near 0 it is beyond any word.
    """
    made = {node.output: node for node in graph.nodes}
    nodes = []
    for node in graph.nodes:
        if node.attrs.get("function") == "power":
            before = made.get(node.inputs[0])
            if before is not None and before.attrs.get("function") == "clip":
                bounds = (max(node.attrs["low"], before.attrs["low"]), before.attrs["high"])
                attrs = {**node.attrs, "low": bounds[0], "high": max(bounds)}
                node = replace(node, inputs=before.inputs, attrs=attrs)
            if node.attrs["exponent"] < 0 and node.attrs["low"] <= 0:
                raise ModelError(
                    f"node {node.name!r}: a power below 0 is infinite at 0; put Clip with a min "
                    "above 0 before it"
                )
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def share_concats(graph: Graph) -> Graph:
    """Let a concat that begins with all of an earlier one's inputs begin with that one itself.

    So every feature of a dense block lies in memory once.
    """
    seen: dict[tuple[str, ...], str] = {}
    nodes = []
    for node in graph.nodes:
        if node.op == "concat":
            whole = node.inputs
            for count in range(len(whole) - 1, 1, -1):
                if whole[:count] in seen:
                    node = replace(node, inputs=(seen[whole[:count]], *whole[count:]))
                    break
            seen.setdefault(whole, node.output)
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def _finite(node: Node, *arrays: np.ndarray) -> None:
    if not all(np.isfinite(a).all() for a in arrays):
        raise ModelError(
            f"node {node.name!r}: folding it gives weights beyond float32; train or export again"
        )


def drop_views(graph: Graph) -> Graph:
    """Let dense layers read what lies before views; drop views of a view and of an equal shape."""
    source = {n.output: n.inputs[0] for n in graph.nodes if n.op == "reshape"}
    nodes = []
    for node in graph.nodes:
        inputs = node.inputs
        if node.op in ("dense", "reshape"):
            while inputs[0] in source:
                inputs = (source[inputs[0]],)
        nodes.append(replace(node, inputs=inputs))
    return replace(graph, nodes=tuple(nodes))


def drop_dead(graph: Graph) -> Graph:
    """Keep only nodes that an output needs, and only their tensors."""
    needed = set(graph.outputs)
    nodes: list[Node] = []
    for node in reversed(graph.nodes):
        if node.output in needed:
            nodes.append(node)
            needed.update(node.inputs)
    nodes.reverse()
    kept = needed | set(graph.inputs)
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name in kept}
    return replace(graph, nodes=tuple(nodes), tensors=tensors)


def check(graph: Graph) -> Graph:
    """Raise unless order, names and shapes are as :class:`Graph` promises; return ``graph``."""
    known = set(graph.inputs)
    for node in graph.nodes:
        missing = [name for name in node.inputs if name not in known]
        if missing or node.output in known:
            raise AssertionError(f"{graph.name}: node {node.name} is out of order or repeated")
        known.add(node.output)
    if len({node.name for node in graph.nodes}) != len(graph.nodes):
        raise AssertionError(f"{graph.name}: node names repeat")
    unused = [i for i in graph.inputs if not any(i in n.inputs for n in graph.nodes)]
    if unused:
        raise ModelError(
            f"input {unused[0]!r}: no operation uses its values; remove it from the model"
        )
    if not graph.nodes:
        raise ModelError(f"{graph.name}: the graph is empty; a model needs at least one operation")
    return graph
