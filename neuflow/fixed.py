"""Numbers, said once: signed fixed point, its rounding and its saturation (NumPy side).

A word is a signed integer of ``bits`` bits; its value is ``word * scale * 2**-point``, where the
scale (1 unless said) is none of the machine's business. Every operator computes exactly and leaves
through :func:`requantise`: one rounding (half up: add half, then an arithmetic shift right, which
floors), one saturation, never a wrap. ``blocks/arith.py`` turns the same rules into gates;
``tests/test_fixed.py`` sweeps both over the extremes together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Int = NDArray[np.int64]

WORD_BITS = 16
"""Width of a word on every link and in memory, bits."""

NARROW_BITS = 8
"""Width that ``--bits 8`` saturates to; a value still takes a word."""

ACC_BITS = 48
"""Width of an accumulator, bits."""

PARTIAL_WORDS = ACC_BITS // WORD_BITS
"""Words of a partial sum, low first."""


@dataclass(frozen=True)
class FixedPoint:
    """Format of a tensor's words.

    Parameters
    ----------
    bits : width of a word, sign included, 2 to 32.
    point : binary point; may be negative or larger than ``bits``.
    scale : value = word * scale * 2**-point; see :mod:`neuflow.compiler.scales`. A number, or an array
        [C, 1, 1] with one for every channel of arrays [..., C, H, W].
    """

    bits: int = 16
    point: int = 8
    scale: Any = 1.0

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 32:
            raise ValueError(f"FixedPoint: {self.bits} bits; 2 to 32 are possible")

    @property
    def low(self) -> int:
        """Smallest word."""
        return -(1 << (self.bits - 1))

    @property
    def high(self) -> int:
        """Largest word."""
        return (1 << (self.bits - 1)) - 1

    @property
    def step(self) -> Any:
        """Value of one unit in the last place, as ``scale`` is."""
        return self.scale * 2.0**-self.point

    def quantise(self, values: ArrayLike) -> Int:
        """Return the words nearest to real ``values``: halves go up, the ends saturate."""
        scaled = np.floor(np.asarray(values, np.float64) / self.step + 0.5)
        return np.clip(scaled, self.low, self.high).astype(np.int64)

    def dequantise(self, words: ArrayLike) -> NDArray[np.float64]:
        """Return the real values of ``words``."""
        return np.asarray(words, np.float64) * self.step


def by_channel(scale: float | tuple[float, ...]) -> Any:
    """Return a tensor's scale as :class:`FixedPoint` takes it."""
    return np.reshape(scale, (-1, 1, 1)) if isinstance(scale, tuple) else scale


def saturate(values: ArrayLike, bits: int) -> Int:
    """Clip integers to the range of a signed word of ``bits`` bits."""
    high = (1 << (bits - 1)) - 1
    # Not np.clip, which takes longer than both on a small packet.
    return np.minimum(np.maximum(np.asarray(values, np.int64), -high - 1), high)


def round_shift(values: ArrayLike, shift: ArrayLike) -> Int:
    """Divide integers by ``2**shift``, rounding halves up: ``(v + half) >> shift``.

    ``shift`` is 0 to 62 and may be an array; half is ``2**(shift-1)``, and 0 where shift is 0.
    """
    shift = np.asarray(shift, np.int64)
    half = np.left_shift(np.int64(1), shift) >> 1
    return np.asarray((np.asarray(values, np.int64) + half) >> shift, np.int64)


def requantise(
    acc: ArrayLike, bias: ArrayLike, m: ArrayLike, s: ArrayLike, zero: ArrayLike, bits: int
) -> Int:
    """Leave the accumulator: ``sat((((acc + bias) * m + half) >> s) + zero)``.

    Parameters
    ----------
    acc : exact sums, ``|acc + bias| < 2**47``.
    bias : 48-bit signed, per output map.
    m : multiplier, 0 to 32767 (15 bits, so that ``acc * m`` keeps to 62 bits).
    s : shift right, 0 to 62.
    zero : signed offset added after the shift, range of a word.
    bits : width of the result; 16, or 8 for ``--bits 8``.
    """
    high = (1 << (bits - 1)) - 1
    acc, bias, m, s, zero = (np.asarray(value, np.int64) for value in (acc, bias, m, s, zero))
    return requantised(acc, bias, m, s, zero, -high - 1, high)


def requantised(acc: Int, bias: Int, m: Int, s: Int, zero: Int, low: int, high: int) -> Int:
    """:func:`requantise` of int64 arrays to ``low`` .. ``high``; numba may compile it as it is."""
    total = (acc + bias) * m
    rounded = (total + (np.left_shift(1, s) >> 1)) >> s
    return np.minimum(np.maximum(rounded + zero, low), high)
