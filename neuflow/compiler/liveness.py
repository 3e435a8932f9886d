"""Which tensors lie where, from when to when, and which of them lie in the scratchpad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from neuflow.compiler.allocate import Buffer, Space, pack, tensor_place
from neuflow.compiler.fuse import root
from neuflow.compiler.join import owner
from neuflow.compiler.mapping import Chain, Join, Span
from neuflow.grid import GridConfig
from neuflow.ir import QuantGraph

FREE_RIDE = 1 / 16
"""What a word is worth that a chain moves over the bus beside work that takes longer."""


@dataclass(frozen=True)
class Memory:
    """Whose memory a tensor lies in: see ``mapping.Mapping``."""

    graph: QuantGraph
    views: Mapping[str, str]
    joins: Mapping[str, Join]

    def of(self, tensor: str) -> tuple[str, Span]:
        """Return the tensor whose memory ``tensor`` lies in, and which of its channels."""
        tensor = root(self.views, tensor)
        return owner(self.joins, tensor, self.graph.tensors[tensor].shape[0])

    def lives(self, chains: Sequence[Chain]) -> dict[str, tuple[int, int]]:
        """Return for every tensor that has memory the first and the last chain that use it.

        The inputs of a concat share its memory, from the first that is written to its last reader.
        """
        live: dict[str, tuple[int, int]] = {}
        for index, chain in enumerate(chains):
            for name in (chain.output, *chain.tensors_read):
                tensor = self.of(name)[0]
                live[tensor] = (live.get(tensor, (index,))[0], index)
        return {
            name: (first, last + self._goes_on(chains, last)) for name, (first, last) in live.items()
        }

    def _goes_on(self, chains: Sequence[Chain], index: int) -> bool:
        """Whether the chain after this one need not wait for it: what it writes lies elsewhere, then."""
        if index + 1 == len(chains):
            return False
        written = self.of(chains[index].output)[0]
        return all(self.of(name)[0] != written for name in chains[index + 1].tensors_read)


def with_scratchpad(
    memory: Memory, chains: Sequence[Chain], batch: int, grid: GridConfig
) -> tuple[Chain, ...]:
    """Choose the tensors that lie in the scratchpad; return the chains, which say it of theirs.

    Those first whose words save most bus cycles for the time that they take room; a word is worth
    less where the arrays work longer than the bus.
    """
    outside = {*memory.graph.inputs, *memory.graph.outputs}
    worth: dict[str, float] = {}
    for chain in chains:
        value = 1.0 if _bound_by_bus(memory, chain, batch, grid) else FREE_RIDE
        for name in (chain.output, *chain.tensors_read):
            worth[name] = worth.get(name, 0.0) + value
    candidates = []
    for name, (first, last) in memory.lives(chains).items():
        if name not in outside:
            shape = memory.graph.tensors[name].shape
            size = tensor_place(Space.SCRATCHPAD, 0, shape, batch, grid.bus_words).size
            gain = sum(
                value * memory.graph.tensors[part].size * batch
                for part, value in worth.items()
                if memory.of(part)[0] == name
            )
            candidates.append((gain / (size * (last - first + 1)), Buffer(name, size, first, last)))
    candidates.sort(key=lambda pair: (-pair[0], pair[1].size, pair[1].name))
    chosen: list[Buffer] = []
    for _, buffer in candidates:
        if fits(tried := [*chosen, buffer], grid):
            chosen = tried
    names = {buffer.name for buffer in chosen}
    return tuple(
        replace(chain, scratchpad=frozenset(
            name for name in (chain.output, *chain.tensors_read) if memory.of(name)[0] in names
        ))
        for chain in chains
    )  # fmt: skip


def fits(buffers: Sequence[Buffer], grid: GridConfig) -> bool:
    """Whether the scratchpad has room for all ``buffers``."""
    return pack(buffers, grid.bus_words)[1] <= grid.scratchpad_words


def _bound_by_bus(memory: Memory, chain: Chain, batch: int, grid: GridConfig) -> bool:
    words = batch * sum(memory.graph.tensors[n].size for n in (chain.output, *chain.tensors_read))
    macs = 0
    if chain.head is not None:
        weights = chain.head.attrs["weight"].size
        words += weights
        macs = weights * batch * (1 if chain.is_dense else chain.shapes[0][1] * chain.shapes[0][2])
    return words * grid.macs > macs * grid.bus_words_per_cycle


__all__ = ["FREE_RIDE", "Memory", "fits", "with_scratchpad"]
