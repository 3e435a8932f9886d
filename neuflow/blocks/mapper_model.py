"""What the mapper computes, and how long it takes. No Amaranth here."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from neuflow.fixed import Int, round_shift, saturate
from neuflow.ir import MapTable
from neuflow.layout import SEGMENTS

LATENCY = 16
"""Cycles from a beat's way in to its result."""

PACKET_GAP = 6
"""Cycles after the last beat of a packet before the next may go in: its table changes."""


def apply_table(table: MapTable, x: ArrayLike, bits: int = 16) -> Int:
    """Return the words that a mapper gives for words ``x``; the formula is at ``layout.MAPPER``.

    Parameters
    ----------
    table : contents of the mapper.
    x : 16-bit words, any shape.
    bits : width of the result, 16 or 8.
    """
    x = np.asarray(x, np.int64)
    folded = np.abs(x) if table.odd or table.even else x
    segments = np.array([table.low, table.b, table.a, table.q], np.int64)
    number = segments[0].searchsorted(folded, side="right") - 1
    low, b, a, q = segments.take(number, axis=1)
    d = folded - low
    exact = (b << table.shift) + ((a << table.square) + q * d) * d
    rounded = round_shift(exact, table.shift)
    if table.odd:
        rounded = np.where(x < 0, -rounded, rounded)
    return saturate(rounded, bits)


def fields(table: MapTable, bits: int = 16) -> dict[str, int]:
    """Return the fields of ``layout.MAPPER`` for a table."""
    values = {
        "odd": int(table.odd),
        "even": int(table.even),
        "narrow": int(bits == 8),
        "shift": table.shift,
        "square": table.square,
    }
    for i in range(SEGMENTS):
        values |= {f"min{i}": table.low[i], f"b{i}": table.b[i]}
        values |= {f"a{i}": table.a[i], f"q{i}": table.q[i]}
    return values


def cycles(beats: int) -> int:
    """Return the cycles from the first beat offered to the last beat given, without stalls."""
    return LATENCY + beats - 1


__all__ = ["LATENCY", "PACKET_GAP", "apply_table", "cycles", "fields"]
