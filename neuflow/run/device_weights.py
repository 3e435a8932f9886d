"""Weights that a column has stored before their pass runs: what its rings hold, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from neuflow.blocks.parameters_model import PARAMETER_BEATS
from neuflow.grid import GridConfig
from neuflow.run.device_memory import Packet

Stored = tuple[Mapping[str, int], Packet]
"""Fields of CONV_WEIGHTS, and the packet."""


class WeightRings:
    """Rings of weights and of parameters of one column."""

    def __init__(self, grid: GridConfig) -> None:
        self.grid = grid
        self.stored: deque[Stored] = deque()

    def has_room(self, fields: Mapping[str, int], words: int) -> bool:
        """Whether a packet of ``words`` fits behind those stored."""
        sizes = [*((f["lead"], len(packet)) for f, packet in self.stored), (fields["lead"], words)]
        beats = sum(lead for lead, _ in sizes)
        weights = sum(size - lead * self.grid.bus_words for lead, size in sizes)
        return (
            weights <= self.grid.weight_words and beats <= PARAMETER_BEATS * self.grid.weight_blocks
        )


__all__ = ["WeightRings"]
