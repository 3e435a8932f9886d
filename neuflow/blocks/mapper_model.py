"""What the mapper computes, and how long it takes. No Amaranth here."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from neuflow.fixed import Int
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
    words = np.ascontiguousarray(x, np.int64)
    high = (1 << (bits - 1)) - 1
    found = mapped(*arguments(table), words.reshape(-1), -high - 1, high)
    return found.reshape(words.shape)


def arguments(table: MapTable) -> tuple[Int, int, int, bool, bool]:
    """Return the first arguments of :func:`mapped`."""
    segments = np.array([table.low, table.b, table.a, table.q], np.int64)
    return segments, table.shift, table.square, table.odd, table.even


def mapped(
    segments: Int, shift: int, square: int, odd: bool, even: bool, x: Int, low: int, high: int
) -> Int:
    """:func:`apply_table` of int64 words [n] to ``low`` .. ``high``; numba may compile it as it is.

    ``segments``: rows min, b, a and q of a table.
    """
    folded = np.abs(x) if odd or even else x
    number = np.zeros_like(x)
    for least in segments[0, 1:]:
        number += folded >= least
    d = folded - segments[0][number]
    exact = segments[1][number] << shift
    exact = exact + ((segments[2][number] << square) + segments[3][number] * d) * d
    rounded = (exact + (1 << shift >> 1)) >> shift
    if odd:
        rounded = np.where(x < 0, -rounded, rounded)
    return np.minimum(np.maximum(rounded, low), high)


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


__all__ = ["LATENCY", "PACKET_GAP", "apply_table", "arguments", "cycles", "fields", "mapped"]
