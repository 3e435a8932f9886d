"""Concat by memory layout: its inputs lie side by side in the records of its output.

Whoever makes an input writes straight into its channels there, so a concat itself takes no pass.
Where that is not possible (the input is an output of the model, a view, or has its place in another
concat already) a node "copy" makes one more tensor that can lie there. With an input of the model, a
concat lies in the frame of inputs, whose records have room for the other channels.
A slice is the other way round: some channels of a tensor, where they lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from neuflow.compiler.mapping import Join, Span
from neuflow.ir import Node, QuantGraph

SIDE_BY_SIDE = ("concat", "slice")
"""Operations that only say where channels lie."""


@dataclass(frozen=True)
class Joined:
    """A graph whose concats take no work; ``joins``: where their inputs, and slices, lie."""

    graph: QuantGraph
    joins: dict[str, Join]


def join(graph: QuantGraph) -> Joined:
    """Give every input of a concat its channels in the output; copy what cannot lie there."""
    fixed = {node.output for node in graph.nodes if node.op == "reshape"} | {*graph.outputs}
    joins: dict[str, Join] = {}
    inside = {*graph.inputs}  # what lies in the frame of inputs
    tensors = dict(graph.tensors)
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op == "slice":
            joins[node.output] = Join(node.inputs[0], node.attrs["first"])
        if node.op != "concat":
            nodes.append(node)
            continue
        inputs, channel = [], 0
        for place, name in enumerate(node.inputs):
            if name in fixed or name in joins or (name in inside and node.output in fixed):
                copy = f"{node.name}/copy{place}"
                tensors[copy] = replace(tensors[name], name=copy, onnx_shape=None)
                nodes.append(Node(copy, "copy", (name,), copy))
                name = copy
            joins[name] = Join(node.output, channel)
            inside |= {node.output} if name in inside else set()
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
        if node.op in SIDE_BY_SIDE or node.output in views:
            made[node.output] = frozenset().union(*_made(made, node))
        else:
            made[node.output] = frozenset((node.output,))
    return made


def _made(made: Mapping[str, frozenset[str]], node: Node) -> Iterator[frozenset[str]]:
    for name in node.inputs:
        yield made[name]


__all__ = ["SIDE_BY_SIDE", "Joined", "join", "owner", "written_by"]
