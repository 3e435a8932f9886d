"""Weights that columns have, or that come, before their passes: ports bring them, rings hold them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from neuflow.blocks.parameters_model import PARAMETER_BEATS
from neuflow.grid import GridConfig
from neuflow.layout import Kind
from neuflow.run.device_memory import DeviceFault, Packet, words_named
from neuflow.run.device_queues import Queues


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


class WeightPorts:
    """The rings of all columns, and the ports that bring packets to them in the order of the queues.

    ``line``: returns the next packet of a column's port (kind, column) for one of its listeners.
    """

    def __init__(
        self, grid: GridConfig, queues: Queues, line: Callable[[Kind, int, int], Packet]
    ) -> None:
        self.rings = [WeightRings(grid) for _ in range(grid.columns)]
        self.queues, self.line = queues, line

    def arrive(self, unit: tuple[int, ...]) -> bool:
        """Whether a packet of weights that a pass has begun still passes ``unit``, for want of room."""
        kind, column = unit[:2]
        if kind == Kind.CONV_WEIGHTS:
            return not self.rings[column].has_room()
        if kind != Kind.READ_WEIGHTS:
            return False
        return any(rings.source == column and not rings.has_room() for rings in self.rings)

    def store(self, unit: tuple[int, ...]) -> bool:
        """Let a packet of weights that ``unit`` waits for go to the rings; return whether one could."""
        kind, column = unit[:2]
        config = self.queues.first(*unit)
        if kind not in (Kind.CONV_WEIGHTS, Kind.READ_WEIGHTS) or config is None:
            return False
        return self._store_from(config.fields["source"] if kind == Kind.CONV_WEIGHTS else column, ())

    def _store_from(self, column: int, waiting: tuple[int, ...]) -> bool:
        """Let the next packet of a column's port go to the rings, or one that must go before it.

        ``waiting``: ports whose packets wait for this one. Return whether one went.
        """
        read = self.queues.first(Kind.READ_WEIGHTS, column, 0)
        if read is None or column in waiting:
            return False
        words = words_named(read.fields)
        listeners = [c for c in range(len(self.rings)) if read.fields["dest"] >> c & 1]
        for c in listeners:
            config = self.queues.first(Kind.CONV_WEIGHTS, c, 0)
            if config is None:
                return False
            source = config.fields["source"]
            if source != column:
                return self._store_from(source, (*waiting, column))
            if not self.rings[c].has_room(config.fields["lead"], words):
                return False
        for c in listeners:
            self.bring(c)
        return True

    def bring(self, column: int) -> None:
        """Take a column's next packet of weights."""
        config = self.queues.take(Kind.CONV_WEIGHTS, column, 0)
        source = config.fields["source"]
        with config.faults():
            packet = self.line(Kind.READ_WEIGHTS, source, column)
            self.rings[column].put(config.fields["lead"], packet, source)


__all__ = ["WeightPorts", "WeightRings"]
