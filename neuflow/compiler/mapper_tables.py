"""Tables of the mapper: 8 segments, linear or quadratic, for a function and two binary points.

Relu, clip, abs and identity are exact up to the one rounding of the mapper. All other functions get the
segments that make the worst error smallest: each is as long as a common error bound and the function's
corners allow, and the bound is bisected until 8 segments suffice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from neuflow.blocks.mapper_model import apply_table
from neuflow.compiler import functions
from neuflow.errors import CompileError
from neuflow.fixed import FixedPoint
from neuflow.ir import MapTable
from neuflow.layout import MAPPER, SEGMENTS

WORD = 16
FIRST_LOW = -(1 << (WORD - 1))
_HIGH = (1 << (WORD - 1)) - 1
MAX_SHIFT = 40
MAX_SQUARE = 16
_LIMIT = {f.name: (1 << (f.bits - 1)) - 1 for f in MAPPER.fields if f.signed}
B_MAX, A_MAX, Q_MAX = _LIMIT["b0"], _LIMIT["a0"], _LIMIT["q0"]
LINEAR = ("relu", "clip", "abs", "identity")

Real = NDArray[np.float64]


@dataclass(frozen=True)
class Piece:
    """One segment: value = b + a d + q d^2 in words of the output, d = x - low in input words."""

    low: int
    b: float
    a: float = 0.0
    q: float = 0.0


@lru_cache(maxsize=256)
def build(
    function: str,
    in_point: int,
    out_point: int,
    bits: int = 16,
    low: float | None = None,
    high: float | None = None,
    exponent: float | None = None,
    alpha: float | None = None,
    beta: float | None = None,
) -> MapTable:
    """Return the table of ``function``, its ``worst`` error measured over all input words.

    Parameters
    ----------
    function : a name in ``functions.FUNCTIONS``.
    in_point, out_point : binary points of input and output.
    bits : of the words, 16 or 8.
    low, high : bounds of clip and power, real values.
    exponent : of power.
    alpha, beta : of the functions that have them.
    """
    gain = out_point - in_point
    if not -15 <= gain <= 16:
        raise CompileError(
            f"map {function}: binary points {in_point} -> {out_point} are {abs(gain)} apart, "
            "-15..16 are possible; calibrate with inputs of the real range"
        )
    known = dict(zip(functions.PARAMETERS, (low, high, exponent, alpha, beta), strict=True))
    real, kind = functions.real(function, **known), functions.FUNCTIONS[function]
    if function in LINEAR:
        table = _linear(function, gain, in_point, out_point, bits, low, high)
    else:
        domain = (0, 1 << (bits - 1)) if kind.odd else _domain(in_point, bits, low, high)
        form, corners = FixedPoint(bits, out_point), kind.corners(**functions.parameters(known))
        stops = _stops(real, corners, domain, in_point, form) if corners else []
        table = _smooth(real, domain, in_point, form, kind.odd, stops)
    return replace(table, worst=worst_error(table, real, in_point, out_point, bits))


def worst_error(
    table: MapTable, real: Callable[[Real], Real], in_point: int, out_point: int, bits: int
) -> float:
    """Return max |table - exact| over all words, in output words; exact is held to the range."""
    words = np.arange(-(1 << (bits - 1)), 1 << (bits - 1), dtype=np.int64)
    exact = _exact(real, words, in_point, FixedPoint(bits, out_point))
    return float(np.abs(apply_table(table, words, bits) - exact).max())


def noise(
    table: MapTable, function: str, in_point: int, out_point: int, bits: int,
    seen: tuple[float, float], **known: float,
) -> float:  # fmt: skip
    """Return the RMS error over the words of ``seen``, real bounds, over the exact values' RMS.

    ``known`` as for :func:`build`. 0 for what is linear, which is exact but for one rounding.
    """
    if function in LINEAR:
        return 0.0
    first, last = FixedPoint(bits, in_point).quantise(seen)
    words = np.arange(first, last + 1, dtype=np.int64)
    exact = _exact(functions.real(function, **known), words, in_point, FixedPoint(bits, out_point))
    signal = float(np.linalg.norm(exact))
    return float(np.linalg.norm(apply_table(table, words, bits) - exact)) / signal if signal else 0.0


def _exact(
    real: Callable[[Real], Real], words: NDArray[np.int64], in_point: int, form: FixedPoint
) -> Real:
    """Return the function of input words in output words, not rounded but held to their range."""
    values = np.asarray(words * 2.0**-in_point, np.float64)
    return np.clip(real(values) * 2.0**form.point, form.low, form.high)


# --- piecewise linear functions -------------------------------------------------------------------


def _linear(
    function: str, gain: int, in_point: int, out_point: int, bits: int,
    low: float | None, high: float | None,
) -> MapTable:  # fmt: skip
    """Return the exact table of relu, clip, abs or identity."""
    slope = 2.0**gain
    # The slope is a power of two: exact, and the table readable, at the least scale.
    shift = max(0, -gain)
    if function == "abs":
        return _table([Piece(0, 0, slope)], shift, 0, even=True)
    if function == "relu":
        return _table([Piece(FIRST_LOW, 0), Piece(0, 0, slope)], shift, 0)
    bounds = (low, high) if function == "clip" else (-math.inf, math.inf)
    pieces = _clip_pieces(slope, in_point, FixedPoint(bits, out_point), bounds)
    return _table(pieces, shift, 0)


def _clip_pieces(
    slope: float, in_point: int, out: FixedPoint, bounds: tuple[float | None, float | None]
) -> list[Piece]:
    """Return constant, line, constant; beyond the output's range the mapper saturates by itself."""
    low = -math.inf if bounds[0] is None else bounds[0]
    high = math.inf if bounds[1] is None else bounds[1]
    bottom, top = (int(v) for v in out.quantise([low, high]))
    # First input words at which the line, then the upper constant, holds.
    start = max(math.ceil(max(low, out.low * out.step) * 2.0**in_point), FIRST_LOW)
    end = math.ceil(high * 2.0**in_point) if math.isfinite(high) else _HIGH + 1
    if slope < 1:
        # The line's value at its beginning must be a whole word: begin where it is one.
        grain = round(1 / slope)
        start = start // grain * grain
    pieces = [Piece(FIRST_LOW, bottom)] if start > FIRST_LOW else []
    if start <= _HIGH and start < max(end, FIRST_LOW):
        pieces.append(Piece(start, start * slope, slope))
    if end <= _HIGH:
        pieces.append(Piece(max(end, FIRST_LOW), top))
    return [p for p in pieces if p.low <= _HIGH] or [Piece(FIRST_LOW, bottom)]


# --- smooth functions -----------------------------------------------------------------------------


def _domain(
    in_point: int, bits: int, low: float | None, high: float | None
) -> tuple[int, int]:
    """Return the first and the last word within the bounds; beyond them the function is flat."""
    first, last = -(1 << (bits - 1)), 1 << (bits - 1)
    start = first if low is None else max(first, math.floor(low * 2.0**in_point))
    end = last if high is None or math.isinf(high) else min(last, math.ceil(high * 2.0**in_point))
    return min(start, last - 2), max(min(start, last - 2) + 1, end)


def _stops(
    real: Callable[[Real], Real], corners: tuple[float, ...], domain: tuple[int, int], in_point: int,
    form: FixedPoint,
) -> list[int]:  # fmt: skip
    """Return the words at which a segment must begin: corners, and where saturation ends or begins."""
    words = np.arange(domain[0], domain[1] + 1)
    exact = real(np.asarray(words * 2.0**-in_point, np.float64)) * 2.0**form.point
    beyond = (exact > form.high + 1).astype(np.int64) - (exact < form.low)
    stops = set((np.flatnonzero(np.diff(beyond)) + domain[0] + 1).tolist())
    for corner in corners:
        word = math.ceil(corner * 2.0**in_point)
        if domain[0] < word <= domain[1] and beyond[word - domain[0]] == 0:
            stops.add(word)
    return sorted(stops)


def _smooth(
    real: Callable[[Real], Real], domain: tuple[int, int], in_point: int, form: FixedPoint,
    odd: bool, stops: list[int],
) -> MapTable:  # fmt: skip
    """Return the table with the smallest worst error over ``domain``; flat before and behind it.

    A segment begins at each word of ``stops`` within the domain.
    """

    def target(x: Real) -> Real:
        # What no word holds is not worth a segment.
        exact = np.asarray(real(x * 2.0**-in_point) * 2.0**form.point)
        return exact if odd else np.clip(exact, form.low, form.high + 1)

    start, end = domain
    # Segment 0 begins at the lowest word. Under a symmetry that is 0; among the 256 words of 8
    # bits a segment that begins at -32768 can hold no curve, and is left out.
    before = not odd and start > FIRST_LOW
    behind = end < 1 << (form.bits - 1)
    pieces = _cover(target, start, end, SEGMENTS - before - behind, stops)
    pieces = [piece for piece in pieces if piece.low <= _HIGH]  # |-32768| goes with the last
    ends = [p.low - 1 for p in pieces[1:]] + [end]
    shift, square = _scales(max(abs(p.a) for p in pieces), max(abs(p.q) for p in pieces))
    pieces = [
        _whole(p, high, target, 2.0**shift, 2.0 ** (shift - square))
        for p, high in zip(pieces, ends, strict=True)
    ]
    if before:
        pieces = [Piece(FIRST_LOW, pieces[0].b), *pieces]
    if behind:
        pieces.append(Piece(end + 1, _rounded(float(target(np.array([end]))[0]), B_MAX)))
    return _table(pieces, shift, square, odd=odd)


def _whole(
    piece: Piece, high: int, target: Callable[[Real], Real], q_scale: float, a_scale: float
) -> Piece:
    """Return the piece with coefficients that the fields hold exactly.

    q is rounded first; the line is fitted again to what is left, its slope rounded, and at last
    its beginning: each takes up what the rounding before it spoilt.
    """
    if high == piece.low:
        return Piece(piece.low, _rounded(piece.b, B_MAX))
    length = high - piece.low
    d = _CHECK * length
    y = target(piece.low + d)
    q = _rounded(piece.q * q_scale, Q_MAX) / q_scale
    left = y - q * d * d
    anchored = piece.low == 0 and y[0] == 0
    line, _ = _minimax(_POWERS[1:, 1:2], left[1:]) if anchored else _minimax(_POWERS[:, :2], left)
    a = _rounded(line[-1] / length * a_scale, A_MAX) / a_scale
    left = left - a * d
    b = 0 if anchored else _rounded((left.max() + left.min()) / 2, B_MAX)
    return Piece(piece.low, b, a, q)


def _cover(
    target: Callable[[Real], Real], start: int, end: int, count: int, stops: list[int]
) -> list[Piece]:
    """Cover ``start`` to ``end`` by at most ``count`` pieces, the worst error bisected."""
    good, bad = 4.0 * (1 << WORD), 0.0
    best = _greedy(target, start, end, count, stops, good)
    assert best is not None
    for _ in range(30):
        middle = (good + bad) / 2
        found = _greedy(target, start, end, count, stops, middle)
        if found is None:
            bad = middle
        else:
            best, good = found, middle
        if good - bad < 1e-3:
            break
    return best


def _greedy(
    target: Callable[[Real], Real], start: int, end: int, count: int, stops: list[int], bound: float
) -> list[Piece] | None:
    """Make each piece as long as ``bound`` and the next stop allow; None: ``count`` do not reach."""
    pieces: list[Piece] = []
    low = start
    while low <= end:
        if len(pieces) == count:
            return None
        high = min([end, *(stop - 1 for stop in stops if stop > low)])
        piece, error = _fit(target, low, high)
        if error > bound:
            short, long = low, high
            while long - short > 1:
                middle = (short + long) // 2
                if _fit(target, low, middle)[1] > bound:
                    long = middle
                else:
                    short = middle
            high = short
            piece, _ = _fit(target, low, high)
        pieces.append(piece)
        low = high + 1
    return pieces


_CHECK = np.linspace(0.0, 1.0, 33)
_POWERS = np.vander(_CHECK, 3, increasing=True)


def _fit(target: Callable[[Real], Real], low: int, high: int) -> tuple[Piece, float]:
    """Return the parabola with the smallest worst error on [low, high], and that error.

    One that begins at f(0) = 0, so under odd symmetry, goes through it: no jump at zero. One word is
    its value: between it and the next the function may have a corner.
    """
    if low == high:
        return Piece(low, float(target(np.array([low]))[0])), 0.0
    length = high - low
    y = target(low + _CHECK * length)
    if low == 0 and y[0] == 0:
        (c1, c2), error = _minimax(_POWERS[1:, 1:], y[1:])
        return Piece(low, 0.0, c1 / length, c2 / length**2), error
    best, error = _minimax(_POWERS, y)
    return Piece(low, best[0], best[1] / length, best[2] / length**2), error


def _minimax(powers: Real, y: Real) -> tuple[Real, float]:
    """Return the coefficients with the smallest worst error over the points, and that error.

    Remez's exchange: solve for the polynomial whose errors at n + 1 reference points alternate in
    sign, bring the point of the worst error into the reference, repeat while that helps.
    """
    points, n = powers.shape
    at = (1 - np.cos(np.pi * np.arange(n + 1) / n)) / 2
    reference = np.floor(at * (points - 1) + 0.5).astype(np.int64)
    alternating = (-1.0) ** np.arange(n + 1)
    best, error = np.zeros(n), math.inf
    for _ in range(10):
        system = np.column_stack([powers[reference], alternating])
        solved = np.linalg.solve(system, y[reference])[:n]
        gap = y - powers @ solved
        worst = int(np.abs(gap).argmax())
        if abs(gap[worst]) >= error * (1 - 1e-9):
            break
        best, error = solved, float(abs(gap[worst]))
        if worst in reference:
            break
        reference = _exchanged(reference, gap, worst)
    return best, error


def _exchanged(reference: NDArray[np.int64], gap: Real, worst: int) -> NDArray[np.int64]:
    """Put the point of the worst error into the reference so that signs go on alternating."""
    new = reference.copy()
    same = np.sign(gap[reference]) == np.sign(gap[worst])
    after = int(np.searchsorted(reference, worst))
    if after == 0:
        return new if _set(new, 0, worst, same[0]) else np.append(worst, reference[:-1])
    if after == len(reference):
        return new if _set(new, -1, worst, same[-1]) else np.append(reference[1:], worst)
    new[after - 1 if same[after - 1] else after] = worst
    return new


def _set(reference: NDArray[np.int64], place: int, point: int, wanted: bool) -> bool:
    if wanted:
        reference[place] = point
    return wanted


# --- to integers ----------------------------------------------------------------------------------


def _table(
    pieces: list[Piece], shift: int, square: int, odd: bool = False, even: bool = False
) -> MapTable:
    """Round the pieces to the fields; repeat the last up to 8."""
    pieces = pieces + [pieces[-1]] * (SEGMENTS - len(pieces))
    return MapTable(
        low=tuple(p.low for p in pieces),
        b=tuple(_rounded(p.b, B_MAX) for p in pieces),
        a=tuple(_rounded(p.a * 2.0 ** (shift - square), A_MAX) for p in pieces),
        q=tuple(_rounded(p.q * 2.0**shift, Q_MAX) for p in pieces),
        shift=shift,
        square=square,
        odd=odd,
        even=even,
    )


def _scales(slope: float, bend: float) -> tuple[int, int]:
    """Return the largest shift for which slope and bend fit, and the least square with it."""
    for shift in range(MAX_SHIFT, -1, -1):
        if bend * 2.0**shift > Q_MAX:
            continue
        for square in range(MAX_SQUARE + 1):
            if slope * 2.0 ** (shift - square) <= A_MAX:
                return shift, square
    raise CompileError("map: its slope does not fit the mapper; choose nearer binary points")


def _rounded(value: float, limit: int) -> int:
    """Return the nearest integer within the field, halves up."""
    return max(-limit - 1, min(limit, math.floor(value + 0.5)))
