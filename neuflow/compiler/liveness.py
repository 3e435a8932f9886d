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
"""What a cycle of the bus is worth beside work that takes longer, or the other way round."""


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

    One after the other, each time the one that saves most cycles for the room and time that it takes.
    """
    loads = [_Load.of(memory, chain, batch, grid) for chain in chains]
    outside = {memory.of(name)[0] for name in (*memory.graph.inputs, *memory.graph.outputs)}
    left = []
    for name, (first, last) in sorted(memory.lives(chains).items()):
        if name not in outside:
            shape = memory.graph.tensors[name].shape
            size = tensor_place(Space.SCRATCHPAD, 0, shape, batch, grid.bus_words).size
            left.append(Buffer(name, size, first, last))
    near: list[Buffer] = []
    names: frozenset[str] = frozenset()
    while left:
        best = max(left, key=lambda one: _gain(loads[one.first : one.last + 1], names, one, grid))
        left.remove(best)
        if fits([*near, best], grid):
            near.append(best)
            names |= {best.name}
    inner = frozenset(n for n in names if batch > 1 and _interleaves(n, memory, chains, loads))

    def mine(chain: Chain, chosen: frozenset[str]) -> frozenset[str]:
        return frozenset(n for n in (chain.output, *chain.tensors_read) if memory.of(n)[0] in chosen)

    return tuple(
        replace(chain, scratchpad=mine(chain, names), interleaved=mine(chain, inner))
        for chain in chains
    )


def _interleaves(
    tensor: str, memory: Memory, chains: Sequence[Chain], loads: Sequence[_Load]
) -> bool:
    """Whether dense layers alone read a tensor, and whoever writes it has the time to do so by words.

    Then their inputs need not be put in order word by word when they are waited for.
    """
    users = [
        (chain, load)
        for chain, load in zip(chains, loads, strict=True)
        if tensor in (memory.of(name)[0] for name in (chain.output, *chain.tensors_read))
    ]
    (writer, load), *readers = users
    flat = memory.graph.tensors[tensor].shape[1:] == (1, 1)
    return (
        writer.output == tensor and not writer.reorder and not flat and load.write[1] <= load.macs
        and all(reader.is_dense and reader.source == tensor for reader, _ in readers)
    )  # fmt: skip


def _gain(loads: Sequence[_Load], near: frozenset[str], buffer: Buffer, grid: GridConfig) -> float:
    """Cycles saved by one more buffer in the scratchpad, for a word of it and a chain of its life."""
    more = near | {buffer.name}
    saved = sum(load.cycles(near, grid) - load.cycles(more, grid) for load in loads)
    return saved / (buffer.size * len(loads))


@dataclass(frozen=True)
class _Load:
    """What a chain asks for: cycles of all MACs, words of weights, words of tensors by their memory."""

    macs: float
    weights: int
    reads: tuple[tuple[str, int], ...]
    write: tuple[str, int]

    @staticmethod
    def of(memory: Memory, chain: Chain, batch: int, grid: GridConfig) -> _Load:
        def words(name: str) -> tuple[str, int]:
            return memory.of(name)[0], memory.graph.tensors[name].size * batch

        weights = macs = 0
        if chain.head is not None:
            weights = chain.head.attrs["weight"].size
            places = 1 if chain.is_dense else chain.shapes[0][1] * chain.shapes[0][2]
            macs = weights * places * batch
        reads = tuple(words(name) for name in chain.tensors_read)
        return _Load(macs / grid.macs, weights, reads, words(chain.output))

    def cycles(self, near: frozenset[str], grid: GridConfig) -> float:
        """Cycles with these buffers in the scratchpad; what is not the bound shows in part."""
        inside = sum(words for name, words in self.reads if name in near)
        far = self.weights + sum(words for _, words in self.reads) - inside
        if self.write[0] in near:
            inside = max(inside, self.write[1])
        else:
            far += self.write[1]
        bus = max(far / grid.bus_words_per_cycle, inside / grid.bus_words)
        return max(self.macs, bus) + FREE_RIDE * min(self.macs, bus)


def fits(buffers: Sequence[Buffer], grid: GridConfig) -> bool:
    """Whether the scratchpad has room for all ``buffers``."""
    return pack(buffers, grid.bus_words)[1] <= grid.scratchpad_words


__all__ = ["Memory", "fits", "with_scratchpad"]
