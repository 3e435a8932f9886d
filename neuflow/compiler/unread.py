"""Maps that nobody reads: what works value by value on them is left out.

A convolution reads no channel whose kernels are all zero. Where only such convolutions read what a
chain without a convolver makes, it need not make the maps at either end that none of them reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from neuflow.compiler.fuse import Fused
from neuflow.compiler.mapping import Chain, Join, Span
from neuflow.ir import QuantGraph


def leave_out_unread(fused: Fused, graph: QuantGraph, joins: Mapping[str, Join]) -> Fused:
    """Return chains that write only the maps that others read, from the first to the last one."""
    shared = {*graph.outputs, *joins, *(join.of for join in joins.values())}
    shared |= {*fused.views, *fused.views.values()}
    chains = []
    for chain in fused.chains:
        if chain.head is None and not (chain.reorder or chain.batched or chain.output in shared):
            chain = replace(chain, kept=_maps_read(chain, fused.chains))
        chains.append(chain)
    return replace(fused, chains=tuple(chains))


def _maps_read(chain: Chain, chains: tuple[Chain, ...]) -> Span | None:
    """Return which maps of a chain's output are read; None: perhaps all."""
    spans = []
    for other in chains:
        if chain.output not in other.tensors_read:
            continue
        if other.kernels is None or other.tensors_read.count(chain.output) != 1:
            return None
        if other.source != chain.output:
            return None
        spans.append(other.channels_read)
    if not spans:
        return None
    return Span(min(span.lo for span in spans), max(span.hi for span in spans))


__all__ = ["leave_out_unread"]
