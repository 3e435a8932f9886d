"""What the term-by-term operator computes, and how long it takes. No Amaranth here."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from neuflow.fixed import Int, round_shift, saturate
from neuflow.layout import AluOp

UNARY = frozenset({AluOp.ABS, AluOp.SQUARE})
"""Operations that take stream a only."""

LATENCY = 11
"""Cycles from a beat's way in to its result, DIV excepted."""


DIVIDE_BITS = 2
"""Bits of twice a quotient that the divider finds in a cycle."""

LEAST_BITS = 17
"""Bits of twice a quotient that the divider finds at least, where there are as many: with a 1 in
front they are beyond a word."""

SKIPPED_BITS, SKIPS = 4, 3
"""Leading bits that are skipped together, and how often at most."""


def alu(
    op: AluOp,
    a: ArrayLike,
    b: ArrayLike | None = None,
    *,
    shift_a: int = 0,
    shift_b: int = 0,
    shift: int = 0,
    bits: int = 16,
) -> Int:
    """Return the words that an operator gives for words ``a`` and ``b``; formulas: layout.ALU.

    Parameters
    ----------
    op : operation; ``b`` is None for the unary ones.
    a, b : 16-bit words, one shape.
    shift_a, shift_b : left shifts, 0 to 31, before ADD, SUB, MAX, MIN, DIV (a alone: ABS).
    shift : right shift of the exact result, 0 to 47, halves up; DIV has none.
    bits : width of the result, 16 or 8.
    """
    a = np.asarray(a, np.int64)
    b = a if op == AluOp.SQUARE else np.zeros_like(a) if b is None else np.asarray(b, np.int64)
    if a.shape != b.shape:
        raise ValueError(f"ALU: operands of {a.shape} and {b.shape}")
    if op == AluOp.DIV:
        return _divide(a, b, shift_a - shift_b, bits)
    left, right = a << shift_a, b << shift_b
    exact = {
        AluOp.ADD: lambda: left + right,
        AluOp.SUB: lambda: left - right,
        AluOp.MUL: lambda: a * b,
        AluOp.SQUARE: lambda: a * b,
        AluOp.MAX: lambda: np.maximum(left, right),
        AluOp.MIN: lambda: np.minimum(left, right),
        AluOp.ABS: lambda: np.abs(left),
    }[op]()
    return saturate(round_shift(exact, shift), bits)


def _divide(a: Int, b: Int, net: int, bits: int) -> Int:
    """Return ``a * 2**net / b``, halves away from zero; by zero the end with a's sign."""
    above = np.abs(a) << max(net, 0)
    below = np.abs(b) << max(-net, 0)
    rounded = (2 * above + below) // np.maximum(2 * below, 1)
    beyond = np.where(a == 0, 0, 1 << 17)
    size = np.where(b == 0, beyond, np.minimum(rounded, 1 << 17))
    return saturate(np.where((a < 0) != (b < 0), -size, size), bits)


def divide_cycles(shift_a: int, shift_b: int) -> int:
    """Return the cycles from one beat of a DIV to the next: ``DIVIDE_BITS`` bits in each but two."""
    more = shift_a - shift_b
    skipped = min(max(0, more) // SKIPPED_BITS, SKIPS) * SKIPPED_BITS
    return 2 + (max(0, LEAST_BITS + more) - skipped + DIVIDE_BITS - 1) // DIVIDE_BITS


def cycles(op: AluOp, beats: int, shift_a: int = 0, shift_b: int = 0) -> int:
    """Return the cycles from the first beat offered to the last beat given, without stalls.

    ``LATENCY + beats - 1``; a DIV takes :func:`divide_cycles` for each beat instead of one.
    """
    each = divide_cycles(shift_a, shift_b) if op == AluOp.DIV else 1
    return LATENCY - 1 + each * beats


__all__ = ["LATENCY", "UNARY", "alu", "cycles", "divide_cycles"]
