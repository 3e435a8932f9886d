"""Weights packets: parameters of every block, then weights as the array uses them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from neuflow.compiler.geometry import ceil_div, read_channels, round_up
from neuflow.compiler.mapping import Chain, Part, Piece, Span
from neuflow.compiler.schedule import Schedule, Turn
from neuflow.errors import CompileError
from neuflow.grid import GridConfig

Words = NDArray[np.uint16]


def memory_order(shape: tuple[int, int, int]) -> NDArray[np.int64]:
    """Index (in C, H, W order) of each value of a tensor, in the order of memory (y, c, x)."""
    return np.arange(np.prod(shape, dtype=np.int64)).reshape(shape).transpose(1, 0, 2).reshape(-1)


def packet(chain: Chain, maps: Span, part: Part, sums_only: bool, grid: GridConfig) -> Words:
    """Pack the weights of ``maps`` and ``part``; ``sums_only``: parameters are not used, so 0."""
    taps = _taps(chain, maps, part)
    blocks = ceil_div(maps.size, grid.maps)
    padded = np.zeros((blocks * grid.maps, round_up(taps.shape[1], 2)), np.uint16)
    padded[: maps.size, : taps.shape[1]] = taps
    weights = padded.reshape(blocks, grid.maps, -1).transpose(0, 2, 1)
    parameters = np.zeros((6, blocks * grid.maps), np.uint16)
    if not sums_only:
        parameters[:, : maps.size] = _parameters(chain, maps)
    lead = parameters.reshape(6, blocks, grid.maps).transpose(1, 0, 2)
    return np.concatenate([lead.reshape(-1), weights.reshape(-1)])


def _taps(chain: Chain, maps: Span, part: Part) -> Words:
    """Return the weights (maps, taps) of one pass, taps in the order (channel, ky, kx)."""
    assert chain.head is not None
    weight = np.asarray(chain.head.attrs["weight"])[maps.lo : maps.hi]
    _check(chain, "weights", weight, -(1 << 15), (1 << 15) - 1)
    weight = weight.astype(np.uint16)
    if chain.head.op == "dense":
        order = memory_order(chain.source_shape)[part.channels.lo : part.channels.hi]
        return weight[:, order]
    if chain.by_block:
        return weight[:, :, part.ky.lo : part.ky.hi, part.kx.lo : part.kx.hi].reshape(len(weight), -1)
    # The channels of a group are numbered from its first one.
    first = part.channels.lo % weight.shape[1] if weight.shape[1] else 0
    box = weight[:, first : first + part.channels.size, part.ky.lo : part.ky.hi]
    if read := read_channels(chain, maps, part):
        box = box[:, list(read)]
    return box[..., part.kx.lo : part.kx.hi].reshape(len(weight), -1)


def _parameters(chain: Chain, maps: Span) -> NDArray[np.int64]:
    """Return (6, maps): bias low, middle, high, m, s, zero as 16-bit words."""
    assert chain.head is not None
    attrs = chain.head.attrs
    bias, m, s, zero = (
        np.asarray(attrs[name], np.int64)[maps.lo : maps.hi] for name in ("bias", "m", "s", "zero")
    )
    _check(chain, "biases", bias, -(1 << 47), (1 << 47) - 1)
    _check(chain, "multipliers", m, 0, (1 << 15) - 1)
    _check(chain, "shifts", s, 0, 62)
    _check(chain, "offsets", zero, -(1 << 15), (1 << 15) - 1)
    low, middle, high = (bias >> shift & 0xFFFF for shift in (0, 16, 32))
    return np.stack([low, middle, high, m, s, zero & 0xFFFF])


def _check(chain: Chain, what: str, values: NDArray[np.int64], low: int, high: int) -> None:
    if values.size and not (values.min() >= low and values.max() <= high):
        raise CompileError(f"{chain.name}: {what} are not within {low}..{high}; quantise again")


class Weights:
    """All weights packets of a program, each once, in the order of first use.

    ``at`` is the :data:`~neuflow.compiler.configure.WeightsAt` of the assembler.
    """

    def __init__(self, schedule: Schedule, grid: GridConfig) -> None:
        self.grid = grid
        self.offsets: dict[tuple, tuple[int, int]] = {}
        self.parts: list[tuple[int, str, Words]] = []
        self.total = 0
        for turn in schedule.turns:
            if turn.chain.head is not None:
                for piece in turn.pieces:
                    self._add(turn.chain, piece)

    def _add(self, chain: Chain, piece: Piece) -> None:
        key = _key(chain, piece)
        if key in self.offsets:
            return
        assert piece.part is not None
        words = packet(chain, piece.out.maps, piece.part, piece.partial_out, self.grid)
        self.offsets[key] = (self.total, len(words))
        label = f"{chain.name}/weights/maps {piece.out.maps} {piece.part}"
        self.parts.append((self.total, label, words))
        self.total += round_up(len(words), self.grid.bus_words)

    def at(self, turn: Turn, piece: Piece) -> tuple[int, int]:
        """Return (offset, words) of a piece's packet."""
        return self.offsets[_key(turn.chain, piece)]

    def labels(self) -> Iterator[tuple[int, str]]:
        """Yield (offset, origin) of every packet."""
        for offset, label, _ in self.parts:
            yield offset, label

    def words(self) -> Words:
        """Return all packets, each aligned to bus words."""
        out = np.zeros(self.total, np.uint16)
        for offset, _, words in self.parts:
            out[offset : offset + len(words)] = words
        return out


def _key(chain: Chain, piece: Piece) -> tuple:
    return chain.name, piece.out.maps, piece.part, piece.partial_out


__all__ = ["Weights", "memory_order", "packet"]
