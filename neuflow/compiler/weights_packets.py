"""Which turns share a packet of weights: units hold few configurations, their rings many weights.

A packet brings the parameters of all its turns, then their weights, as the rings take them. So the bus
can bring what turns long after this one need, as far as the rings have room, and never has to wait
for the next packet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from neuflow.blocks.parameters_model import PARAMETER_BEATS
from neuflow.compiler import cost
from neuflow.compiler.buffers import packet_words
from neuflow.compiler.fit import limit, plan_rows
from neuflow.compiler.geometry import conv_shape
from neuflow.compiler.mapping import Chain, Pass, Piece
from neuflow.compiler.turn import Turn
from neuflow.grid import GridConfig
from neuflow.layout import CONV_WEIGHTS, READ

AHEAD = 4
"""The bus must be ahead of the arrays by so many times what the parameters of a shared packet take: all
of them come before the first of its weights."""

COPIES = 2
"""Turns at most with the same weights, for these to be in shared packets: in each once more."""


def by_tap(chain: Chain, piece: Piece, grid: GridConfig) -> tuple[int, bool]:
    """Return ``step`` and ``gather`` as ``weights.packed_weights`` takes them; step 0: not by tap."""
    if not piece.by_tap:
        return 0, False
    shape = conv_shape(chain, piece)
    plan = plan_rows(chain, shape, grid)
    return 0 if plan is None else plan.array_step, shape.gathers(grid)


def weights_key(chain: Chain, piece: Piece, grid: GridConfig) -> tuple:
    """Return what tells the weights of pieces apart."""
    return chain.name, piece.out.maps, piece.part, piece.partial_out, by_tap(chain, piece, grid)


def sources(turn: Turn, grid: GridConfig) -> tuple[tuple[int, int], ...]:
    """Return the column of each piece of a convolution, and the one whose port brings its weights."""
    first: dict[tuple, int] = {}
    return tuple(
        (piece.column, first.setdefault(weights_key(turn.chain, piece, grid), piece.column))
        for piece in turn.pieces
    )


@dataclass(frozen=True)
class _Run:
    """Turns, by number, that may share packets.

    ``ports``: see :func:`sources`; ``beats`` of parameters and ``words`` of each piece's column, in
    the same order; ``hidden``: cycles that the bus is ahead when the first of them begins.
    """

    turns: tuple[int, ...]
    ports: tuple[tuple[int, int], ...]
    beats: tuple[int, ...]
    words: tuple[int, ...]
    hidden: float

    @classmethod
    def of(cls, number: int, turn: Turn, hidden: float, grid: GridConfig) -> _Run:
        """Return the run of one turn."""
        chain, pieces = turn.chain, turn.pieces
        shapes = [conv_shape(chain, piece) for piece in pieces]
        beats = tuple(shape.lead_beats(grid) for shape in shapes)
        words = tuple(packet_words(shape, grid) for shape in shapes)
        return cls((number,), sources(turn, grid), beats, words, hidden)

    def followed(self, other: _Run, grid: GridConfig) -> _Run | None:
        """Return both as one, if they may be.

        Half a ring must hold all parameters, so that those of the next packet find room meanwhile; and
        the first turn's weights must be there in time nevertheless.
        """
        if self.ports != other.ports:
            return None
        both = replace(
            self,
            turns=self.turns + other.turns,
            beats=tuple(map(sum, zip(self.beats, other.beats, strict=True))),
            words=tuple(map(sum, zip(self.words, other.words, strict=True))),
        )
        brought = {port: beats for (_, port), beats in zip(self.ports, both.beats, strict=True)}
        load = sum(brought.values()) * grid.bus_words / grid.bus_words_per_cycle
        most = min(PARAMETER_BEATS * grid.weight_blocks // 2, limit(CONV_WEIGHTS, "lead"))
        fits = max(both.beats) <= most and max(both.words) <= limit(READ, "run")
        return both if fits and AHEAD * load <= self.hidden else None


def shared_packets(turns: Sequence[Turn], grid: GridConfig) -> list[tuple[int, ...]]:
    """Return the numbers of the turns of each packet, in order; those without weights are in none.

    Turns share a packet where each column has its weights from the same port, few other turns have
    the same ones, and the last takes the bus longer than the arrays: to others a packet of
    their own comes soon enough.
    """
    uses = Counter(
        key
        for turn in turns
        if turn.chain.head is not None
        for key in {weights_key(turn.chain, piece, grid) for piece in turn.pieces}
    )
    found: list[tuple[int, ...]] = []
    run: _Run | None = None
    ahead = cost.bus_ahead([(turn.chain, Pass(turn.pieces)) for turn in turns], grid)
    for number, (turn, hidden) in enumerate(zip(turns, ahead, strict=True)):
        if turn.chain.head is None:
            continue
        few = all(uses[weights_key(turn.chain, piece, grid)] <= COPIES for piece in turn.pieces)
        this = _Run.of(number, turn, hidden, grid)
        joined = run.followed(this, grid) if few and run is not None else None
        if joined is None and run is not None:
            found += _divided(run.turns, turns)
        run = joined or (this if few else None)
        if not few:
            found.append((number,))
    return found + (_divided(run.turns, turns) if run is not None else [])


def _divided(run: tuple[int, ...], turns: Sequence[Turn]) -> list[tuple[int, ...]]:
    """Return one packet up to the last turn bound by weights, and one for each behind it."""
    bound = [k for k, number in enumerate(run) if turns[number].weights_bound]
    end = bound[-1] + 1 if bound else 0
    return [run[:end]] * bool(end) + [(number,) for number in run[end:]]


__all__ = ["by_tap", "shared_packets", "sources", "weights_key"]
