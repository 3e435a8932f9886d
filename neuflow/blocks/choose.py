"""One of many values by its number."""

from __future__ import annotations

from amaranth.hdl import Mux


def chosen(values, number):
    """Return the value of that number, by a tree of two-way choices: pairs that differ in bit 0 first.

    A look-up table of six inputs holds two levels of it. Beyond the last value, any of them.
    """
    for bit in number:
        pairs = zip(values[::2], values[1::2], strict=False)
        alone = values[-1:] if len(values) % 2 else []
        values = [*(Mux(bit, odd, even) for even, odd in pairs), *alone]
    return values[0]


__all__ = ["chosen"]
