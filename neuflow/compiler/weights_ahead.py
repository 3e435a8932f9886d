"""Weights ahead: turns whose weights are sent before the fence of an earlier one.

Weights that take the bus longer than their arrays work had better load while earlier turns compute;
others would only take the bus from rows. Packets of weights go in the order of turns, so those between
go with them.
"""

from __future__ import annotations

from collections.abc import Sequence

from neuflow.blocks.parameters_model import PARAMETER_BEATS
from neuflow.compiler import cost
from neuflow.compiler.buffers import packet_words, weight_words
from neuflow.compiler.geometry import conv_shape
from neuflow.compiler.mapping import Pass
from neuflow.compiler.turn import Turn
from neuflow.grid import GridConfig

SOON = 512
"""Cycles in which weights load that a turn's own rows may wait for, at most."""


def weights_sent(
    turns: Sequence[Turn], packets: Sequence[tuple[int, ...]], grid: GridConfig
) -> list[int]:
    """Return for each turn how many packets of weights are sent before its fence.

    ``packets``: numbers of the turns of each. What waits on the bus for a unit must always get it. A
    packet of weights finds a place in its queue when the one that is so many before it has been stored
    whole. Turns before this one are sent whole, so they end, whatever their weights; those from this
    one on must find room in the rings together; and these must not take long to load, as the turn's
    own rows go behind: where packets behind this turn's must be stored, no longer than the bus is ahead
    of the arrays. With one place in its queue, a packet would hold up what the turn itself waits for.
    """
    found = []
    places = grid.config_queue
    due = 0  # packets that the turns so far begin
    whole = 0  # of them, those of turns before this one alone
    passes = [(turn.chain, Pass(turn.pieces)) for turn in turns]
    for number, hidden in enumerate(cost.bus_ahead(passes, grid)):
        due += due < len(packets) and packets[due][0] == number
        whole += whole < due and packets[whole][-1] < number
        end = due
        for ahead in range(due, len(packets) if places > 1 else 0):
            before = [n for packet in packets[whole : max(whole, ahead - places + 1)] for n in packet]
            stored = [turns[n] for n in before if n >= number]
            soon = SOON if ahead < due + places else min(SOON, hidden)
            if not _load_within(soon, stored, grid):
                break
            if any(turns[n].weights_bound for n in packets[ahead]):
                end = ahead + 1
        found.append(end)
    return found


def _load_within(cycles: float, turns: Sequence[Turn], grid: GridConfig) -> bool:
    """Whether the rings of a column hold the weights and parameters of all these turns, and soon do."""
    words = beats = packets = 0
    for turn in turns:
        if turn.chain.head is not None:
            shapes = [conv_shape(turn.chain, piece) for piece in turn.pieces]
            words += max(weight_words(shape, grid) for shape in shapes)
            beats += max(shape.lead_beats(grid) for shape in shapes)
            packets += sum(packet_words(shape, grid) for shape in shapes)
    fits = words <= grid.weight_words and beats <= PARAMETER_BEATS * grid.weight_blocks
    return fits and packets <= cycles * grid.bus_words_per_cycle


__all__ = ["weights_sent"]
