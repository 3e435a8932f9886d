"""Weights that a column has, or that come, before their passes run: what its rings hold, in order."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from neuflow.blocks.parameters_model import PARAMETER_BEATS
from neuflow.grid import GridConfig
from neuflow.run.device_memory import DeviceFault, Packet


@dataclass
class _Left:
    """What no pass has taken yet of a packet: words of parameters and of weights."""

    parameters: Packet
    weights: Packet


class WeightRings:
    """Rings of weights and of parameters of one column: packets of one pass or of several.

    ``source``: column whose port the last packet came from.
    """

    def __init__(self, grid: GridConfig) -> None:
        self.grid = grid
        self.left: deque[_Left] = deque()
        self.source = 0

    def put(self, lead: int, packet: Packet, source: int) -> None:
        """Add a packet, which ``lead`` beats of parameters begin. More than fits comes as room does.

        Raises ``DeviceFault`` where the parameters alone do not fit: weights come behind them, and no
        pass ends without.
        """
        if lead > PARAMETER_BEATS * self.grid.weight_blocks:
            raise DeviceFault(f"deadlock: {lead} beats of parameters overflow their buffer")
        words = lead * self.grid.bus_words
        self.left.append(_Left(packet[:words], packet[words:]))
        self.source = source

    def take(self, parameters: int, weights: int) -> tuple[Packet, Packet]:
        """Return so many words of parameters and weights, which leave: all of one packet."""
        left = self.left[0]
        taken = left.parameters[:parameters], left.weights[:weights]
        if (len(taken[0]), len(taken[1])) != (parameters, weights):
            raise DeviceFault(
                f"weights packet with {len(left.parameters)} + {len(left.weights)} words left, "
                f"not {parameters} + {weights}"
            )
        left.parameters, left.weights = left.parameters[parameters:], left.weights[weights:]
        if not len(left.parameters) + len(left.weights):
            self.left.popleft()
        return taken

    def has_room(self, lead: int = 0, words: int = 0) -> bool:
        """Whether all that is left, and a packet of ``words`` behind it, fits."""
        parameters = sum(len(left.parameters) for left in self.left) + lead * self.grid.bus_words
        weights = sum(len(left.weights) for left in self.left) + words - lead * self.grid.bus_words
        most = PARAMETER_BEATS * self.grid.weight_blocks * self.grid.bus_words
        return weights <= self.grid.weight_words and parameters <= most


__all__ = ["WeightRings"]
