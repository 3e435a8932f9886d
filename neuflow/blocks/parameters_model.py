"""Parameters of maps as words of a weights packet (layout.PARAMETERS). No Amaranth here.

Most maps need few bits: a bias far below 2**47, shifts that are alike, m = 1, zero = 0. So a packet
has one, two or three words of 32 bits of each of its maps, the fewest that say all of them exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuflow.layout import CONFIG_BITS, PARAMETERS

Int = NDArray[np.int64]

PARAMETER_BEATS = PARAMETERS.words
"""Words of PARAMETERS at most."""

_FIELDS: dict[str, tuple[int, int, int]] = {}
"""Field -> word, first bit in it, bits."""
_offset = 0
for _field in PARAMETERS.fields:
    _FIELDS[_field.name] = *divmod(_offset, CONFIG_BITS), _field.bits
    _offset += _field.bits

_BIAS = ("bias_low", "bias_middle", "bias_high")
_SHIFT = ("shift_low", "shift_high")


def bias_bits(beats: int) -> int:
    """Return the bits of a bias, sign included, that ``beats`` words hold."""
    return sum(bits for word, _, bits in (_FIELDS[name] for name in _BIAS) if word < beats)


@dataclass(frozen=True)
class Form:
    """How the maps of a packet are said: fields ``beats`` and ``shift`` of CONV_DRAIN."""

    beats: int = 1
    shift: int = 0


def form(bias: ArrayLike, m: ArrayLike, s: ArrayLike, zero: ArrayLike) -> Form:
    """Return the shortest form that says these parameters [maps] without loss."""
    bias, m, s, zero = (np.asarray(values, np.int64) for values in (bias, m, s, zero))
    shift = int(s.min(initial=63))
    high = np.maximum(bias, ~bias).max(initial=0)
    beats = next((n for n in (1, 2) if high < 1 << bias_bits(n) - 1), PARAMETER_BEATS)
    if (m != 1).any() or (s - shift >> _FIELDS["shift_low"][2]).any():
        beats = max(beats, 2)
    if zero.any():
        beats = PARAMETER_BEATS
    return Form(beats, shift)


def packed(form: Form, bias: ArrayLike, m: ArrayLike, s: ArrayLike, zero: ArrayLike) -> Int:
    """Return 32-bit words [beats, maps]. The parameters must fit ``form``."""
    bias, m, s, zero = (np.asarray(values, np.int64) for values in (bias, m, s, zero))
    words = np.zeros((PARAMETER_BEATS, len(bias)), np.int64)
    for names, values in ((_BIAS, bias), (_SHIFT, s - form.shift), (("m",), m), (("zero",), zero)):
        for name in names:
            word, first, bits = _FIELDS[name]
            words[word] |= (values & (1 << bits) - 1) << first
            values = values >> bits
    return words[: form.beats]


def unpacked(form: Form, words: ArrayLike) -> Int:
    """Return bias, m, s and zero [4, maps] from 32-bit words [beats, maps], as the gates do."""
    words = np.asarray(words, np.int64)

    def number(*names: str) -> tuple[Int, int]:
        value, width = np.zeros(words.shape[1], np.int64), 0
        for name in names:
            word, first, bits = _FIELDS[name]
            if word < form.beats:
                value |= (words[word] >> first & (1 << bits) - 1) << width
                width += bits
        return value, width

    def signed(value: Int, width: int) -> Int:
        return value - (value >> width - 1 << width) if width else value

    found = np.zeros((4, words.shape[1]), np.int64)
    found[0] = signed(*number(*_BIAS))
    found[1] = number("m")[0] if form.beats > 1 else 1
    found[2] = number(*_SHIFT)[0] + form.shift & 63
    if form.beats == PARAMETER_BEATS:
        found[3] = signed(*number("zero"))
    return found


def to_half_words(words: Int) -> NDArray[np.uint16]:
    """Return 32-bit words as they lie in memory: 16 bits each, low first."""
    return np.ascontiguousarray(words).astype("<u4").view("<u2")


def from_half_words(half_words: ArrayLike) -> Int:
    """Inverse of :func:`to_half_words`."""
    return np.ascontiguousarray(half_words).astype("<u2").view("<u4").astype(np.int64)


__all__ = [
    "PARAMETER_BEATS",
    "Form",
    "bias_bits",
    "form",
    "from_half_words",
    "packed",
    "to_half_words",
    "unpacked",
]
