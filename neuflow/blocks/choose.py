"""One of many values by its number."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Mux, Value


def select(values: Sequence[Value], number: Value) -> Value:
    """Return the one of ``values`` that ``number`` names; any for a number beyond them.

    As a tree, two by each bit: a look-up table of six inputs holds a choice of four.
    """
    if len(values) == 1:
        return values[0]
    half = 1 << (len(values) - 1).bit_length() - 1
    low, high = values[:half], values[half:]
    return Mux(number[half.bit_length() - 1], select(high, number), select(low, number))


__all__ = ["select"]
