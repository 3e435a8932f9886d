"""Sums of convolutions: one convolution that reads the inputs of both.

w x + v y = (w v) (x y): where two convolutions of the same geometry are added and nobody else reads
them, neither result is rounded, written or read again. The inputs lie side by side, in a concat.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from neuflow.ir import GEOMETRY, Graph, Node


def merge_sums(graph: Graph) -> Graph:
    """Return the same function with sums of two convolutions made one, where a concat costs nothing."""
    uses = Counter(name for node in graph.nodes for name in node.inputs) + Counter(graph.outputs)
    made = {node.output: node for node in graph.nodes}
    # What has its place in memory already: it cannot lie in one more concat.
    bound = {name for node in graph.nodes if node.op == "concat" for name in node.inputs}
    bound |= {node.output for node in graph.nodes if node.op == "reshape"} | {*graph.outputs}
    tensors = dict(graph.tensors)
    nodes: list[Node] = []
    for node in graph.nodes:
        pair = _convolutions(node, made, uses)
        if pair is None or len({pair[0].inputs, pair[1].inputs}) < 2:
            nodes.append(node)
            continue
        sources = [one.inputs[0] for one in pair]
        if bound & set(sources) or tensors[sources[0]].shape[1:] != tensors[sources[1]].shape[1:]:
            nodes.append(node)
            continue
        bound |= set(sources)
        name = f"{node.output}/both"
        first, second = (tensors[source] for source in sources)
        shape = (first.shape[0] + second.shape[0], *first.shape[1:])
        tensors[name] = replace(first, name=name, shape=shape, onnx_shape=None)
        nodes.append(Node(name, "concat", tuple(sources), name, {"apart": True}))
        merged = _merged(node, pair, name)
        nodes = [one for one in nodes if one.output not in node.inputs]
        nodes.append(merged)
        made[node.output] = merged
    return replace(graph, nodes=tuple(nodes), tensors=tensors)


def _convolutions(
    node: Node, made: Mapping[str, Node], uses: Mapping[str, int]
) -> tuple[Node, Node] | None:
    """Return the two convolutions of one geometry that a node adds up, if it does."""
    if node.op != "alu" or node.attrs["kind"] != "add":
        return None
    found = [made[name] for name in node.inputs if name in made and uses[name] == 1]
    if len(found) != 2 or any(one.op != "conv" or one.attrs["groups"] > 1 for one in found):
        return None
    a, b = found
    alike = all(a.attrs[name] == b.attrs[name] for name in GEOMETRY)
    same_kernel = a.attrs["weight"].shape[2:] == b.attrs["weight"].shape[2:]
    return (a, b) if alike and same_kernel else None


def _merged(node: Node, pair: tuple[Node, Node], source: str) -> Node:
    """Return the convolution that takes the place of a sum, by the name of its first one."""
    first, second = (one.attrs for one in pair)
    attrs = {
        **first,
        "weight": np.concatenate([first["weight"], second["weight"]], axis=1),
        "bias": np.asarray(first["bias"]) + np.asarray(second["bias"]),
    }
    return Node(pair[0].name, "conv", (source,), node.output, attrs)


__all__ = ["merge_sums"]
