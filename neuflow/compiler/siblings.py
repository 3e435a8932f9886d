"""Sibling convolutions: those that read one tensor alike become one layer, which reads it once.

A layer begins with a wait for its first rows, and a small one takes no longer than its input takes to
come. Of convolutions beside each other (the two that reduce channels in a module of GoogLeNet) one that
makes the maps of all has the input read once. Their outputs become slices of its output, which take no
pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from neuflow.compiler.fuse import MOSTLY
from neuflow.compiler.geometry import ceil_div
from neuflow.compiler.join import Joined
from neuflow.compiler.mapping import Join
from neuflow.compiler.order import PER_MAP
from neuflow.grid import GridConfig
from neuflow.ir import GEOMETRY, Node, QuantGraph


@dataclass(frozen=True)
class _Branch:
    """A convolution and the function behind it, if there is one."""

    conv: Node
    function: Node | None

    @property
    def output(self) -> str:
        """What others read."""
        return (self.function or self.conv).output


def merge_siblings(joined: Joined, grid: GridConfig) -> Joined:
    """Return the graph with sibling convolutions merged, and where their outputs lie.

    Only where convolutions alone read what they make, so that nothing else could follow in the same
    walk, and where the weights of all fit in one pass.
    """
    graph, joins = joined.graph, dict(joined.joins)
    alike: dict[tuple[object, ...], list[_Branch]] = {}
    for node in graph.nodes:
        branch = _branch(graph, joins, node)
        if branch is not None:
            alike.setdefault(_key(graph, branch), []).append(branch)
    for branches in alike.values():
        together: list[_Branch] = []
        for branch in branches:
            if _fits([*together, branch], grid):
                together.append(branch)
        if len(together) > 1:
            graph = _merged(graph, together)
            channel = 0
            for branch in together:
                joins[branch.output] = Join(_name(together), channel)
                channel += len(branch.conv.attrs["weight"])
    return Joined(graph, joins)


def _branch(graph: QuantGraph, joins: Mapping[str, Join], node: Node) -> _Branch | None:
    """Return the branch that begins with ``node``, if it may be merged with others."""
    if node.op != "conv" or node.attrs["groups"] > 1:
        return None
    if np.any(node.attrs["weight"] != 0, axis=(2, 3)).mean() <= MOSTLY:
        return None
    readers = _readers(graph, node.output)
    function = readers[0] if len(readers) == 1 and readers[0].op == "map" else None
    branch = _Branch(node, function)
    if {node.output, branch.output} & {*joins, *graph.outputs}:
        return None
    behind = _readers(graph, branch.output)
    return branch if behind and all(reader.op == "conv" for reader in behind) else None


def _readers(graph: QuantGraph, tensor: str) -> list[Node]:
    return [node for node in graph.nodes if tensor in node.inputs]


def _key(graph: QuantGraph, branch: _Branch) -> tuple[object, ...]:
    """What branches that can be merged have in common."""
    conv, table = branch.conv, branch.function and branch.function.attrs["table"]
    outputs = (conv.output, branch.output)
    return (
        conv.inputs, conv.attrs["weight"].shape[1:], *(conv.attrs[name] for name in GEOMETRY),
        table, *(graph.tensors[name].bits for name in outputs),
    )  # fmt: skip


def _fits(branches: list[_Branch], grid: GridConfig) -> bool:
    """Whether the weight buffers of all columns hold the weights of all branches."""
    blocks = sum(ceil_div(len(branch.conv.attrs["weight"]), grid.maps) for branch in branches)
    taps = prod(branches[0].conv.attrs["weight"].shape[1:])
    return ceil_div(blocks, grid.columns) * grid.maps * taps <= grid.weight_words


def _name(branches: list[_Branch]) -> str:
    return "+".join(branch.output for branch in branches)


def _merged(graph: QuantGraph, branches: list[_Branch]) -> QuantGraph:
    """Put one convolution, its function and the slices of its output where the first branch was."""
    first, output = branches[0], _name(branches)
    name = "+".join(branch.conv.name for branch in branches)
    sums = output if first.function is None else f"{output}/sums"
    weights = {
        of: np.concatenate([np.asarray(branch.conv.attrs[of]) for branch in branches])
        for of in PER_MAP
    }
    same = {of: value for of, value in first.conv.attrs.items() if of in GEOMETRY}
    nodes = [replace(first.conv, name=name, output=sums, attrs=same | weights)]
    if first.function is not None:
        nodes.append(replace(first.function, name=f"{name}/map", inputs=(sums,), output=output))
    channel, slices = 0, []
    for branch in branches:
        attrs = {"first": channel, "count": len(branch.conv.attrs["weight"])}
        slices.append(Node(f"{branch.output}/slice", "slice", (output,), branch.output, attrs))
        channel += attrs["count"]
    shape = (channel, *graph.tensors[first.output].shape[1:])
    tensors = dict(graph.tensors)
    for new, like in ((sums, first.conv.output), (output, first.output)):
        tensors[new] = replace(tensors[like], name=new, shape=shape, onnx_shape=None)
    gone = {node.name for branch in branches for node in (branch.conv, branch.function) if node}
    kept = []
    for node in graph.nodes:
        if node is first.conv:
            kept += [*nodes, *slices]
        elif node.name not in gone:
            kept.append(node)
    return replace(graph, nodes=tuple(kept), tensors=tensors)


__all__ = ["merge_siblings"]
