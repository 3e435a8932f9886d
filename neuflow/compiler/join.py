"""Concat by memory layout: its inputs lie side by side in the records of its output.

Whoever makes an input writes straight into its channels there, so a concat itself takes no pass.
Where that is not possible (the input comes from outside, is an output of the model, a view, or has
its place in another concat already) a node "copy" makes one more tensor that can lie there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from neuflow.compiler.mapping import Join, Span
from neuflow.ir import Node, QuantGraph


@dataclass(frozen=True)
class Joined:
    """A graph whose concats take no work; ``joins``: where their inputs lie."""

    graph: QuantGraph
    joins: dict[str, Join]


def join(graph: QuantGraph) -> Joined:
    """Give every input of a concat its channels in the output; copy what cannot lie there."""
    fixed = {node.output for node in graph.nodes if node.op == "reshape"}
    fixed |= {*graph.inputs, *graph.outputs}
    joins: dict[str, Join] = {}
    tensors = dict(graph.tensors)
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op != "concat":
            nodes.append(node)
            continue
        inputs, channel = [], 0
        for place, name in enumerate(node.inputs):
            if name in fixed or name in joins:
                copy = f"{node.name}/copy{place}"
                tensors[copy] = replace(tensors[name], name=copy, onnx_shape=None)
                nodes.append(Node(copy, "copy", (name,), copy))
                name = copy
            joins[name] = Join(node.output, channel)
            channel += tensors[name].shape[0]
            inputs.append(name)
        nodes.append(replace(node, inputs=tuple(inputs)))
    return Joined(replace(graph, nodes=tuple(nodes), tensors=tensors), joins)


def owner(joins: Mapping[str, Join], tensor: str, channels: int) -> tuple[str, Span]:
    """Return the tensor whose memory ``tensor`` lies in, and which channels of it."""
    first = 0
    while tensor in joins:
        first += joins[tensor].channel
        tensor = joins[tensor].of
    return tensor, Span(first, first + channels)


def written_by(graph: QuantGraph, views: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """Return for every tensor which tensors passes must have written before it can be read."""
    made: dict[str, frozenset[str]] = {name: frozenset() for name in graph.inputs}
    for node in graph.nodes:
        if node.op == "concat" or node.output in views:
            made[node.output] = frozenset().union(*_made(made, node))
        else:
            made[node.output] = frozenset((node.output,))
    return made


def _made(made: Mapping[str, frozenset[str]], node: Node) -> Iterator[frozenset[str]]:
    for name in node.inputs:
        yield made[name]


__all__ = ["Joined", "join", "owner", "written_by"]
