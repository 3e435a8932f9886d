"""Cycles of two judges: the first layer, WRITE packet and cycle where they part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuflow.ir import Program
from neuflow.layout import ACTIVITY
from neuflow.layout import Activity as Activities
from neuflow.run import stats
from neuflow.run.stats import Measured

Trace = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Late:
    """The first WRITE packet that the judges see done at different times; None: never done."""

    word: int
    frame: int
    column: int
    cycle: int | None
    rtl: int | None


@dataclass(frozen=True)
class Activity:
    """The first cycle and column in which the activity differs; None: after that judge's end."""

    at: int
    column: int
    cycle: int | None
    rtl: int | None


@dataclass(frozen=True)
class Times:
    """How two runs differ. ``layers``: (name, cycles of the judge cycle, of rtl), those that differ."""

    total: tuple[int, int]
    layers: tuple[tuple[str, int, int], ...]
    packet: Late | None
    activity: Activity | None = None

    @property
    def cycle(self) -> int:
        """Cycle to look at: the first of all that is known to differ."""
        known = [min(self.total)]
        if self.packet is not None:
            known += [t for t in (self.packet.cycle, self.packet.rtl) if t is not None]
        if self.activity is not None:
            known.append(self.activity.at)
        return min(known)

    def with_activity(self, cycle: Trace, rtl: Trace) -> Times:
        """Add the first difference of two traces [cycles, columns], if there is one."""
        cycle, rtl = _said(cycle), _said(rtl)
        least = min(len(cycle), len(rtl))
        rows = (cycle[:least] != rtl[:least]).any(axis=1)
        if rows.any():
            at = int(rows.argmax())
            column = int((cycle[at] != rtl[at]).argmax())
            both = int(cycle[at, column]), int(rtl[at, column])
            return replace(self, activity=Activity(at, column, *both))
        if len(cycle) == len(rtl):
            return self
        ends = [int(trace[least, 0]) if len(trace) > least else None for trace in (cycle, rtl)]
        return replace(self, activity=Activity(least, 0, ends[0], ends[1]))


def _said(trace: Trace) -> Trace:
    """Clear what means nothing: the fields of a tap where there was none."""
    tap = sum(field.bits for field in ACTIVITY.fields[:2])
    said: Trace = np.where(trace >> Activities.MAC & 1, trace, trace & ((1 << tap) - 1))
    return said


def compare_times(
    program: Program,
    images: int,
    cycle: Measured,
    rtl: Measured,
    packets: Sequence[tuple[int, int, int, int, int]],
) -> Times | None:
    """Return how the two differ, None where they do not.

    ``packets``: (time, frame, column, program word, words) of every WRITE packet in program order.
    """
    layers: tuple[tuple[str, int, int], ...] = ()
    if [len(t) for t in cycle.write_done] == [len(t) for t in rtl.write_done]:
        both = (stats.layer_cycles(program, images, one) for one in (cycle, rtl))
        named = zip((layer.name for layer in program.layers), *both, strict=True)
        layers = tuple((name, a, b) for name, a, b in named if a != b)
    packet = _packet(cycle, rtl, packets)
    if cycle.cycles == rtl.cycles and not layers and packet is None:
        return None
    return Times((cycle.cycles, rtl.cycles), layers, packet)


def _packet(
    cycle: Measured, rtl: Measured, packets: Sequence[tuple[int, int, int, int, int]]
) -> Late | None:
    """Return the first WRITE packet in program order whose acknowledgements differ."""
    count = [0] * len(rtl.write_done)
    for _, frame, column, word, _ in packets:
        number = count[column]
        count[column] += 1
        ends = [
            done[column][number] if number < len(done[column]) else None
            for done in (cycle.write_done, rtl.write_done)
        ]
        if ends[0] != ends[1]:
            return Late(word, frame, column, ends[0], ends[1])
    return None


__all__ = ["Activity", "Late", "Times", "compare_times"]
