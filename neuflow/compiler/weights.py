"""Weights packets: parameters of every block, then weights as the array uses them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from neuflow.blocks.convolver_model import by_tap
from neuflow.blocks.parameters_model import Form, packed, to_half_words
from neuflow.compiler.fit import plan_rows
from neuflow.compiler.geometry import ceil_div, connections, conv_shape, read_channels, round_up
from neuflow.compiler.mapping import Chain, Part, Piece, Span
from neuflow.compiler.schedule import Schedule
from neuflow.compiler.turn import Turn
from neuflow.errors import CompileError
from neuflow.grid import GridConfig

Words = NDArray[np.uint16]


def memory_order(shape: tuple[int, int, int]) -> NDArray[np.int64]:
    """Index (in C, H, W order) of each value of a tensor, in the order of memory (y, c, x)."""
    return np.arange(np.prod(shape, dtype=np.int64)).reshape(shape).transpose(1, 0, 2).reshape(-1)


def packet(
    chain: Chain, maps: Span, part: Part, sums_only: bool, grid: GridConfig, step: int = 0,
    gather: bool = False,
) -> Words:  # fmt: skip
    """Pack the weights of ``maps`` and ``part``; ``sums_only``: parameters are not used: one word, 0.

    ``step``: by tap, words of the row buffer from a channel to the next; ``gather``: last taps of rows
    are worked together.
    """
    taps = _steps(chain, maps, part, grid, step, gather) if step else _taps(chain, maps, part)
    lanes = grid.maps if step else 1  # of a map
    blocks = ceil_div(len(taps), grid.maps)
    padded = np.zeros((blocks * grid.maps, round_up(taps.shape[1], 2)), np.uint16)
    padded[: len(taps), : taps.shape[1]] = taps
    weights = padded.reshape(blocks, grid.maps, -1).transpose(0, 2, 1)
    form = Form() if sums_only else chain.form
    parameters = np.zeros((form.beats, blocks * grid.maps), np.int64)
    if not sums_only:
        parameters[:, : len(taps) : lanes] = _parameters(chain, maps)
    lead = parameters.reshape(-1, blocks, grid.maps).transpose(1, 0, 2)
    return np.concatenate([to_half_words(lead).reshape(-1), weights.reshape(-1)])


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


def _steps(
    chain: Chain, maps: Span, part: Part, grid: GridConfig, step: int, gather: bool
) -> Words:
    """Return the weights (maps * lanes, steps) of a pass by tap, as if lanes were maps."""
    assert chain.head is not None
    read = connections(chain, maps, part)
    size = part.channels.size, part.ky.size, part.kx.size
    weight = _taps(replace(chain, kernels=None), maps, part).reshape(maps.size, *size)
    order = read.reshape(-1)
    following = (np.roll(order, -1) - order[0]).reshape(read.shape) * step
    chosen = weight[np.arange(maps.size)[:, None], read].astype(np.int64)
    rows = by_tap(chosen, following, grid.maps, gather)
    return rows.reshape(len(rows), -1).astype(np.uint16)


def _parameters(chain: Chain, maps: Span) -> NDArray[np.int64]:
    """Return the maps' words [beats, maps] of layout.PARAMETERS."""
    assert chain.head is not None
    attrs = chain.head.attrs
    bias, m, s, zero = (
        np.asarray(attrs[name], np.int64)[maps.lo : maps.hi] for name in ("bias", "m", "s", "zero")
    )
    _check(chain, "biases", bias, -(1 << 47), (1 << 47) - 1)
    _check(chain, "multipliers", m, 0, (1 << 15) - 1)
    _check(chain, "shifts", s, 0, 62)
    _check(chain, "offsets", zero, -(1 << 15), (1 << 15) - 1)
    return packed(chain.form, bias, m, s, zero)


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
        key = _key(chain, piece, self.grid)
        if key in self.offsets:
            return
        assert piece.part is not None
        how = _by_tap(chain, piece, self.grid)
        words = packet(chain, piece.out.maps, piece.part, piece.partial_out, self.grid, *how)
        self.offsets[key] = (self.total, len(words))
        label = f"{chain.name}/weights/maps {piece.out.maps} {piece.part}"
        self.parts.append((self.total, label, words))
        self.total += round_up(len(words), self.grid.bus_words)

    def at(self, turn: Turn, piece: Piece) -> tuple[int, int]:
        """Return (offset, words) of a piece's packet."""
        return self.offsets[_key(turn.chain, piece, self.grid)]

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


def _key(chain: Chain, piece: Piece, grid: GridConfig) -> tuple:
    how = _by_tap(chain, piece, grid)
    return chain.name, piece.out.maps, piece.part, piece.partial_out, how


def _by_tap(chain: Chain, piece: Piece, grid: GridConfig) -> tuple[int, bool]:
    """Return ``step`` and ``gather`` of :func:`packet`; step 0: not by tap."""
    if not piece.by_tap:
        return 0, False
    shape = conv_shape(chain, piece)
    plan = plan_rows(chain, shape, grid)
    return 0 if plan is None else plan.array_step, shape.gathers(grid)


__all__ = ["Weights", "memory_order", "packet"]
