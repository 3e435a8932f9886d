"""Grouped convolutions: small groups are done together, zeros between them.

A convolver gives ``grid.maps`` maps at once, and each pass costs some cycles beside its work. A
depthwise layer with one pass a channel would leave all but one map idle and wait for its drain;
several groups as one, with kernels of zero where input and output are of different groups, take
more taps and fewer passes. The sums are the same. Where a group then has ``grid.maps`` maps, one
pass does many (``by_block``): each block of maps walks on to the channels of its own.
``channel_maps``: maps that read the same channel, the others have zeros there.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from neuflow.compiler.geometry import ceil_div
from neuflow.grid import GridConfig
from neuflow.ir import Node, QuantGraph

PASS_CYCLES = 150
"""What a pass costs beside its work, about."""


def merge_groups(graph: QuantGraph, grid: GridConfig) -> QuantGraph:
    """Return the graph with the groups of every convolution merged as far as that pays."""
    nodes = []
    for node in graph.nodes:
        if node.op == "conv" and node.attrs["groups"] > 1:
            height, width = graph.tensors[node.output].shape[1:]
            node = merged(node, height * width, grid)
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def merged(node: Node, positions: int, grid: GridConfig) -> Node:
    """Return a grouped convolution of ``positions`` outputs a map with fewer, larger groups."""
    node = _together(node, _best(node, positions, grid))
    groups = node.attrs["groups"]
    by_block = groups > 1 and len(node.attrs["weight"]) == groups * grid.maps
    return replace(node, attrs={**node.attrs, "by_block": by_block})


def _best(node: Node, positions: int, grid: GridConfig) -> int:
    """Return how many groups to take together: a divisor of their number, by the least cycles."""
    groups = node.attrs["groups"]
    maps, channels, ky, kx = node.attrs["weight"].shape
    each = maps // groups

    def cycles(together: int) -> tuple[int, int]:
        blocks = ceil_div(each * together, grid.maps)
        taps = max(channels * together * ky * kx, grid.pixels)
        work = ceil_div(positions, grid.pixels) * blocks * taps
        passes = 1 if each * together == grid.maps else groups // together
        return groups // together * work + passes * PASS_CYCLES, -together

    return min((n for n in range(1, groups + 1) if groups % n == 0), key=cycles)


def _together(node: Node, together: int) -> Node:
    weight = node.attrs["weight"]
    maps, channels, *kernel = weight.shape
    each = maps // node.attrs["groups"]
    weights = np.zeros((maps, channels * together, *kernel), weight.dtype)
    for one in range(maps):
        first = one // each % together * channels
        weights[one, first : first + channels] = weight[one]
    groups = node.attrs["groups"] // together
    attrs = {**node.attrs, "weight": weights, "groups": groups, "channel_maps": each}
    return replace(node, attrs=attrs)
