"""Graph -> Graph: what slides a window over padded or very large images, in forms the machine has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from neuflow.compiler.functions import FUNCTIONS
from neuflow.ir import Graph, Node, Tensor
from neuflow.layout import WINDOW

LARGEST = (1 << next(f.bits for f in WINDOW.fields if f.name == "kernel_y")) - 1
"""Rows or columns of the largest window of the machine."""

Pads = tuple[int, int, int, int]


def one_by_one(
    scale: ArrayLike, offset: ArrayLike, pads: Pads = (0, 0, 0, 0)
) -> dict[str, Any]:
    """Return the attributes of a 1x1 convolution with one group a channel."""
    factor = np.asarray(scale, np.float32)
    return {
        "weight": factor.reshape(-1, 1, 1, 1),
        "bias": np.asarray(offset, np.float32),
        "stride": (1, 1),
        "dilation": (1, 1),
        "pads": pads,
        "groups": len(factor),
    }


# --- padding ------------------------------------------------------------------------------------


def fold_pads(graph: Graph) -> Graph:
    """Add the zeros of each node "pad" to the pads of its consumers, where that is the same.

    What is left becomes a copy: a 1x1 convolution of weights 1 with those pads.
    """
    made = {node.output: node for node in graph.nodes}
    nodes = []
    for node in graph.nodes:
        if node.op == "pad":
            ones = np.ones(graph.tensors[node.inputs[0]].shape[0])
            nodes.append(replace(node, op="conv", attrs=one_by_one(ones, 0 * ones, node.attrs["pads"])))
            continue
        before = made.get(node.inputs[0])
        if before is not None and before.op == "pad":
            attrs = _padded(node, before.attrs["pads"], _is_positive(before.inputs[0], made))
            if attrs is not None:
                node = replace(node, inputs=before.inputs, attrs=attrs)
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def _padded(node: Node, more: Pads, positive: bool) -> Mapping[str, Any] | None:
    """Return the attributes of ``node`` with ``more`` pads, None where that is not the same."""
    attrs = node.attrs
    pads = tuple(a + b for a, b in zip(attrs.get("pads", more), more, strict=True))
    if node.op == "conv":
        return {**attrs, "pads": pads}
    if node.op != "pool" or any(p >= k for p, k in zip(pads, attrs["kernel"] * 2, strict=True)):
        return None
    if attrs["kind"] == "max":
        # A zero beside values of 0 or more never changes the maximum.
        return {**attrs, "pads": pads} if positive else None
    if any(attrs["pads"]) and (attrs["kind"] == "mean" or "divisor" in attrs):
        return None
    return {**attrs, "pads": pads}


def _is_positive(tensor: str, made: Mapping[str, Node]) -> bool:
    """Whether ``tensor`` holds no values below 0."""
    node = made.get(tensor)
    while node is not None and (node.op in ("pad", "reshape") or node.attrs.get("kind") == "max"):
        node = made.get(node.inputs[0])
    if node is None:
        return False
    function = node.attrs.get("function")
    if function == "clip":
        return bool(node.attrs["low"] >= 0)
    return function is not None and FUNCTIONS[function].positive


# --- large windows ------------------------------------------------------------------------------


def split_large_pools(graph: Graph) -> Graph:
    """Cut a pool over a whole image beyond the machine's largest window into two, one after another.

    The first reduces equal blocks (zeros fill the last), the second what they gave.
    """
    tensors = dict(graph.tensors)
    nodes: list[Node] = []
    for node in graph.nodes:
        source = tensors[node.inputs[0]]
        if _is_large(node, source):
            nodes.extend(_two_pools(node, source, tensors))
        else:
            nodes.append(node)
    return replace(graph, nodes=tuple(nodes), tensors=tensors)


def _is_large(node: Node, source: Tensor) -> bool:
    return (
        node.op == "pool"
        and node.attrs["kernel"] == source.shape[1:]
        and max(node.attrs["kernel"]) > LARGEST
        and not any(node.attrs["pads"])
    )


def _two_pools(node: Node, source: Tensor, tensors: dict[str, Tensor]) -> Iterator[Node]:
    channels, *size = source.shape
    blocks = [-(-n // LARGEST) for n in size]
    kernel = tuple(-(-n // b) for n, b in zip(size, blocks, strict=True))
    blocks = [-(-n // k) for n, k in zip(size, kernel, strict=True)]
    ends = tuple(b * k - n for b, k, n in zip(blocks, kernel, size, strict=True))
    name = f"{node.output}/blocks"
    tensors[name] = Tensor(name, (channels, blocks[0], blocks[1]))
    kind = node.attrs["kind"]
    attrs: dict[str, Any] = {"kind": kind, "kernel": kernel, "stride": kernel, "pads": (0, 0, *ends)}
    yield Node(f"{node.name}/blocks", "pool", node.inputs, name, attrs)
    attrs = {"kind": kind, "kernel": tuple(blocks), "stride": (1, 1), "pads": (0, 0, 0, 0)}
    if kind != "max":
        divisor = node.attrs.get("divisor", size[0] * size[1])
        attrs["divisor"] = divisor / (kernel[0] * kernel[1])
    yield replace(node, inputs=(name,), attrs=attrs)
