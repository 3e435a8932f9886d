"""Configurations that wait in front of the interpreter's units, in the order of the program."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from neuflow.grid import GridConfig
from neuflow.layout import Kind
from neuflow.run.device_memory import DeviceFault


class Config(NamedTuple):
    """A configuration in a queue: fields, number and word of its instruction, its unit."""

    fields: Mapping[str, int]
    time: int
    word: int
    unit: tuple[int, ...]
    """Kind, column, sub; of a router the output too."""

    def __str__(self) -> str:
        """Where it comes from, for faults."""
        return f"word {self.word}, column {self.unit[1]} {Kind(self.unit[0]).name}"

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Say of faults within where the configuration comes from."""
        try:
            yield
        except DeviceFault as fault:
            raise DeviceFault(f"{self}: {fault}") from None


class Queues:
    """The queues of all units of a grid; a router has one an output, and looks at all of an input."""

    def __init__(self, grid: GridConfig) -> None:
        self.depth = grid.config_queue
        self.waiting: dict[tuple[int, ...], deque[Config]] = {}
        self.peers: dict[tuple[int, ...], list[int]] = {}  # by router input, of its ROUTE words: equal

    def put(self, config: Config) -> None:
        """Queue a configuration; there must be room."""
        self.waiting.setdefault(config.unit, deque()).append(config)
        if config.unit[0] == Kind.ROUTER:
            self._peers(config).append(config.fields["peers"])

    def room(self, unit: tuple[int, ...]) -> int:
        """Return how many more a unit takes."""
        return self.depth - len(self.waiting.get(unit, ()))

    def is_mixed(self, config: Config) -> bool:
        """Whether a ROUTE word is for other outputs than those before it of its router's input.

        Their packets must have gone before it comes.
        """
        if config.unit[0] != Kind.ROUTER:
            return False
        before = self._peers(config)
        return bool(before) and before[0] != config.fields["peers"]

    def first(self, *unit: int) -> Config | None:
        """Return what a unit works under next, if anything."""
        queue = self.waiting.get(unit)
        return queue[0] if queue else None

    def take(self, *unit: int) -> Config:
        """Return what a unit works under next, which leaves; a fault where there is nothing."""
        queue = self.waiting.get(unit)
        if not queue:
            name = f"{Kind(unit[0]).name}{unit[2:]} of column {unit[1]}"
            raise DeviceFault(f"{name} has no configuration")
        config = queue.popleft()
        if unit[0] == Kind.ROUTER:
            self._peers(config).pop()
        return config

    def left(self) -> list[str]:
        """Return where those come from that nobody has taken, one a unit."""
        return [str(queue[0]) for queue in self.waiting.values() if queue]

    def _peers(self, config: Config) -> list[int]:
        _, column, row, _ = config.unit
        return self.peers.setdefault((column, row, config.fields["input"]), [])


__all__ = ["Config", "Queues"]
