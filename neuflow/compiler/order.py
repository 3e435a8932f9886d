"""Order of maps: those that read the same channels go side by side.

A block of maps reads the channels of all its kernels that are not zero. With a table of connections
it reads fewer where its maps share channels, so maps are sorted into blocks. Their order in memory
changes with them, and the channels of the kernels that read them; values do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from neuflow.grid import GridConfig
from neuflow.ir import Node, QuantGraph

PER_MAP = ("weight", "bias", "m", "s", "zero")
"""Attributes of a convolution that have a number, or a kernel, for every map."""


def order_maps(graph: QuantGraph, grid: GridConfig, most: float) -> QuantGraph:
    """Sort the maps of convolutions with at most the part ``most`` of their kernels not zero.

    Only where all that read them are convolutions, perhaps behind functions and poolings; what they
    pass through gets the name of its tensor and "/ordered".
    """
    for place in range(len(graph.nodes)):
        node = graph.nodes[place]  # as those before it have changed it: its channels have their order
        if node.op != "conv" or node.attrs["groups"] > 1:
            continue
        kernels = np.any(node.attrs["weight"] != 0, axis=(2, 3))
        readers = _readers(graph, node.output)
        if readers is None or kernels.mean() > most:
            continue
        order = blocks_of_like(kernels, grid.maps)
        graph = _reordered(graph, node, readers, np.array(order))
    return graph


def _readers(graph: QuantGraph, tensor: str) -> list[Node] | None:
    """Return the nodes between a tensor and convolutions, these included; None: others read it."""
    if tensor in graph.outputs:
        return None
    found: list[Node] = []
    for node in graph.nodes:
        if tensor not in node.inputs:
            continue
        found.append(node)
        if node.op in ("map", "pool"):
            behind = _readers(graph, node.output)
            if behind is None:
                return None
            found += behind
        elif node.op != "conv" or node.attrs["groups"] > 1:
            return None
    return found


def _reordered(
    graph: QuantGraph, head: Node, readers: list[Node], order: NDArray[np.int64]
) -> QuantGraph:
    """Give the maps of ``head`` the order ``order``, up to the convolutions among ``readers``."""
    renamed: dict[str, str] = {}
    changed: dict[str, Node] = {}
    for node in (head, *readers):
        attrs = dict(node.attrs)
        if node is head:
            attrs |= {name: np.asarray(attrs[name])[order] for name in PER_MAP}
        elif node.op == "conv":
            attrs["weight"] = attrs["weight"][:, order]
        if node is head or node.op != "conv":
            renamed[node.output] = f"{node.output}/ordered"
        changed[node.name] = replace(node, attrs=attrs)
    tensors = dict(graph.tensors)
    for name, new in renamed.items():
        tensors[new] = replace(tensors.pop(name), name=new, onnx_shape=None)
    nodes = tuple(
        replace(
            changed.get(node.name, node),
            inputs=tuple(renamed.get(name, name) for name in node.inputs),
            output=renamed.get(node.output, node.output),
        )
        for node in graph.nodes
    )
    return replace(graph, nodes=nodes, tensors=tensors)


def blocks_of_like(kernels: NDArray[np.bool_], size: int) -> list[int]:
    """Return an order of maps in which blocks of ``size`` read few channels.

    ``kernels``: bool [maps, channels]. Each block takes the map that adds the fewest channels; then
    maps change places as long as that saves any.
    """
    reads = [sum(1 << int(channel) for channel in np.flatnonzero(row)) for row in kernels]
    left = list(range(len(reads)))
    blocks: list[list[int]] = []
    while left:
        block = [left.pop(0)]
        while left and len(block) < size:
            union = _union(reads, block)
            block.append(left.pop(_least([(union | reads[m]).bit_count() for m in left])))
        blocks.append(block)
    while _swap(reads, blocks):
        pass
    return [m for block in blocks for m in block]


def _union(reads: Sequence[int], block: Sequence[int]) -> int:
    union = 0
    for m in block:
        union |= reads[m]
    return union


def _least(values: Sequence[int]) -> int:
    return values.index(min(values))


def _swap(reads: Sequence[int], blocks: list[list[int]]) -> bool:
    """Exchange maps of two blocks wherever that saves channels; return whether any did."""
    any_saved = False
    counts = [_union(reads, block).bit_count() for block in blocks]
    for a, one in enumerate(blocks):
        for b, other in enumerate(blocks[:a]):
            for i in range(len(one)):
                for j in range(len(other)):
                    one[i], other[j] = other[j], one[i]
                    new = [_union(reads, block).bit_count() for block in (one, other)]
                    if sum(new) < counts[a] + counts[b]:
                        counts[a], counts[b], any_saved = new[0], new[1], True
                    else:
                        one[i], other[j] = other[j], one[i]
    return any_saved


__all__ = ["blocks_of_like", "order_maps"]
