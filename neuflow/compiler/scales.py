"""A factor for tensors whose words would stay half empty under a power of two alone.

A point is a power of two, so the largest word of a tensor may be little more than half of what its
bits hold. Between convolutions a tensor's words may have any factor: the weights that make it are
multiplied by it, the weights that read it divided, before they become words. No machine word has to
know of it, no operation is added. Relu, pooling, sums, maxima and views pass a factor on, so what
they tie together has one; inputs, outputs and the operands of all other functions have 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from neuflow.fixed import FixedPoint
from neuflow.ir import Graph, Node

STEPS = 1024
"""A scale is a multiple of 1 / STEPS in (1/2, 1]: exact in float, and short in a listing."""

_MAPS = ("relu", "clip", "abs", "identity")
_TERMS = ("add", "sub", "max", "min")


def choose(graph: Graph, sizes: Mapping[str, float], bits: int) -> dict[str, float]:
    """Return the scale of every tensor: its value = word * scale * 2**-point.

    Parameters
    ----------
    graph : float graph.
    sizes : largest magnitude of every tensor, head room included.
    bits : width of a word.
    """
    scales = dict.fromkeys(graph.tensors, 1.0)
    copies = {node.output for node in graph.nodes if _copies(node)}
    for names in _tied(graph):
        rounded = sorted(name for name in names - copies if sizes[name])
        fills = [_fill(sizes[name], bits) for name in rounded]
        candidates = sorted({math.ceil(fill * STEPS) / STEPS for fill in fills} | {1.0})
        best = min(candidates, key=lambda scale: sum(_noise(fill / scale) for fill in fills))
        scales |= dict.fromkeys(names, best)
    return scales


def _fill(size: float, bits: int) -> float:
    """Return which part of a word ``size`` takes under the best power of two, in (1/2, 1]."""
    part = math.frexp(size / FixedPoint(bits).high)[0]
    return 1.0 if part == 0.5 else part


def _noise(fill: float) -> float:
    """Return the power of the rounding noise over that of the signal, but for a constant."""
    return (1 if fill <= 1 else 4) / fill**2


def _tied(graph: Graph) -> Iterator[set[str]]:
    """Yield the sets of tensors that have one scale, without those whose scale must be 1."""
    sets = {name: {name} for name in graph.tensors}
    fixed = {*graph.inputs, *graph.outputs}
    for node in graph.nodes:
        names = {node.output, *node.inputs}
        if node.attrs.get("apart"):
            continue
        if _passes_on(node):
            together = set().union(*(sets[name] for name in names))
            sets |= dict.fromkeys(together, together)
        elif node.op not in ("conv", "dense"):
            fixed |= names
    seen: set[str] = set()
    for name, together in sets.items():
        if name not in seen and not together & fixed:
            yield together
        seen |= together


def _copies(node: Node) -> bool:
    """Whether a node's result has its operands' words, so that nothing is rounded."""
    largest = node.op == "pool" and node.attrs["kind"] == "max"
    return largest or node.op in ("concat", "slice", "reshape")


def _passes_on(node: Node) -> bool:
    """Whether the result of a node is multiplied by what its operands are multiplied by."""
    if node.op == "map":
        return node.attrs["function"] in _MAPS
    return node.op in ("pool", "concat", "slice", "reshape") or (
        node.op == "alu" and node.attrs["kind"] in _TERMS
    )
