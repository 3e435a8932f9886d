"""Mapper tables: exact where the function is piecewise linear, else as near as 8 parabolas are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuflow.blocks.mapper_model import apply_table, fields
from neuflow.compiler import functions
from neuflow.compiler.mapper_tables import build, worst_error
from neuflow.errors import CompileError
from neuflow.ir import MapTable
from neuflow.layout import MAPPER, SEGMENTS


def all_words(bits: int) -> np.ndarray:
    return np.arange(-(1 << (bits - 1)), 1 << (bits - 1), dtype=np.int64)


def rounded(function: str, in_point: int, out_point: int, bits: int, *bounds: float) -> np.ndarray:
    """Return the exact function of every word, rounded half up and saturated."""
    exact = functions.real(function, *bounds)(all_words(bits) * 2.0**-in_point) * 2.0**out_point
    top = 1 << (bits - 1)
    return np.clip(np.floor(exact + 0.5), -top, top - 1).astype(np.int64)


def check_fields(table: MapTable, bits: int) -> None:
    """Every value fits its field; segments ascend; together they cover every operand."""
    MAPPER.pack(**fields(table, bits))
    assert len(table.low) == len(table.b) == len(table.a) == len(table.q) == SEGMENTS
    assert list(table.low) == sorted(table.low)
    assert table.low[0] == (0 if table.odd or table.even else -32768)
    assert 0 <= table.shift <= 40
    assert 0 <= table.square <= 16


@pytest.mark.parametrize("bits", [16, 8])
@pytest.mark.parametrize("function", ["relu", "identity", "abs"])
@pytest.mark.parametrize(("in_point", "out_point"), [(8, 8), (8, 9), (12, 3), (3, 12), (-2, -1),
                                                     (15, 0), (0, 16)])  # fmt: skip
def test_linear_functions_are_the_exact_function_rounded(
    function: str, in_point: int, out_point: int, bits: int
) -> None:
    table = build(function, in_point, out_point, bits)
    check_fields(table, bits)
    words = apply_table(table, all_words(bits), bits)
    assert words.tolist() == rounded(function, in_point, out_point, bits).tolist()
    assert table.worst <= 0.5
    assert table.worst == 0 or out_point < in_point


def test_abs_is_even_and_its_most_negative_word_saturates() -> None:
    table = build("abs", 8, 8)
    assert table.even
    assert apply_table(table, [-32768, 32767, -1, 0]).tolist() == [32767, 32767, 1, 0]


@pytest.mark.parametrize("bits", [16, 8])
@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 6.0), (-0.7, 2.3), (-math.inf, 1.0),
                                           (0.5, math.inf), (2.0, 2.0), (-900.0, 900.0),
                                           (300.0, 400.0), (-400.0, -300.0)])  # fmt: skip
@pytest.mark.parametrize(("in_point", "out_point"), [(8, 8), (5, 8), (8, 5)])
def test_clip_is_within_a_rounding(
    in_point: int, out_point: int, low: float, high: float, bits: int
) -> None:
    table = build("clip", in_point, out_point, bits, low, high)
    check_fields(table, bits)
    words = apply_table(table, all_words(bits), bits)
    exact = rounded("clip", in_point, out_point, bits, low, high)
    assert np.abs(words - exact).max() <= 1
    assert table.worst <= 1.0
    if out_point >= in_point:
        assert words.tolist() == exact.tolist()


# (function, in, out, bits) -> worst error in words of the output, rounded up to 0.1
REACHED = {
    ("tanh", 12, 15, 16): 8.5,
    ("tanh", 11, 15, 16): 8.7,
    ("tanh", 8, 8, 16): 1.1,
    ("tanh", 5, 7, 8): 1.0,
    ("tanh", 4, 7, 8): 0.8,
    ("sigmoid", 12, 15, 16): 21.8,
    ("sigmoid", 8, 8, 16): 1.3,
    ("sigmoid", 4, 7, 8): 1.0,
}


@pytest.mark.parametrize(("case", "limit"), REACHED.items(), ids=str)
def test_smooth_functions_reach_what_the_documentation_says(
    case: tuple[str, int, int, int], limit: float
) -> None:
    function, in_point, out_point, bits = case
    table = build(*case)
    check_fields(table, bits)
    words = apply_table(table, all_words(bits), bits)
    exact = functions.real(function)(all_words(bits) * 2.0**-in_point) * 2.0**out_point
    top = 1 << (bits - 1)
    worst = float(np.abs(words - np.clip(exact, -top, top - 1)).max())
    assert worst == table.worst
    assert worst <= limit


# (function, alpha, beta) -> worst error, words, at points 12 -> 12 and 14 -> 14 of 16 bits, 4 -> 4 of 8
FUNCTIONS = {
    ("leakyrelu", 0.01, None): (1.0, 1.0, 0.8),
    ("leakyrelu", -0.5, None): (0.5, 0.5, 0.5),
    ("hardsigmoid", 0.2, 0.5): (0.5, 0.9, 0.5),
    ("hardswish", None, None): (0.6, 0.9, 0.6),
    ("elu", 1.0, None): (2.3, 1.8, 1.0),
    ("selu", 1.67, 1.05): (4.8, 3.0, 0.9),
    ("celu", 0.5, None): (2.4, 2.3, 0.9),
    ("softplus", None, None): (5.4, 1.9, 1.0),
    ("softsign", None, None): (1.9, 1.7, 0.9),
    ("erf", None, None): (1.5, 2.1, 0.9),
    ("gelu", None, None): (5.7, 6.0, 1.0),
    ("gelu_tanh", None, None): (6.0, 6.2, 1.0),
    ("mish", None, None): (7.6, 4.8, 1.0),
    ("swish", 1.0, None): (7.7, 3.6, 1.0),
}


@pytest.mark.parametrize(("case", "limits"), FUNCTIONS.items(), ids=str)
def test_functions_with_corners_and_tails(
    case: tuple[str, float | None, float | None], limits: tuple[float, ...]
) -> None:
    name, alpha, beta = case
    known = {key: v for key, v in (("alpha", alpha), ("beta", beta)) if v is not None}
    for (point, bits), limit in zip(((12, 16), (14, 16), (4, 8)), limits, strict=True):
        table = build(name, point, point, bits, **known)
        check_fields(table, bits)
        words = apply_table(table, all_words(bits), bits)
        exact = functions.real(name, **known)(all_words(bits) * 2.0**-point) * 2.0**point
        top = 1 << (bits - 1)
        assert np.abs(words - np.clip(exact, -top, top - 1)).max() == table.worst <= limit


def test_a_leaky_relu_is_the_relu_from_zero_on() -> None:
    words = np.arange(0, 32768)
    for points in ((12, 12), (12, 9), (9, 12)):
        leaky, plain = build("leakyrelu", *points, alpha=0.01), build("relu", *points)
        assert np.array_equal(apply_table(leaky, words), apply_table(plain, words))


@pytest.mark.parametrize("name", ["gelu", "swish", "mish", "elu"])
def test_no_segment_reaches_over_where_saturation_begins(name: str) -> None:
    """The output's range ends within the curve, at +-1, or the line, at 8."""
    alpha = {"alpha": 1.0} if name in ("swish", "elu") else {}
    assert build(name, 12, 15, **alpha).worst < 40
    assert build(name, 10, 12, **alpha).worst < 28


def test_no_segment_begins_behind_the_last_word() -> None:
    table = build("softplus", 10, 10)  # the best bound ends a segment at 32767
    check_fields(table, 16)
    assert max(table.low) < 32768


def test_tanh_is_odd_to_the_bit() -> None:
    words = all_words(16)[1:]
    table = build("tanh", 12, 15)
    assert table.odd
    result = apply_table(table, words)
    held = np.maximum(result, -32767)  # -1 is a word, +1 is not
    assert np.array_equal(held, -held[::-1])
    assert apply_table(table, [0]).tolist() == [0]


def test_tables_are_the_same_every_time() -> None:
    first = build("sigmoid", 12, 15)
    build.cache_clear()
    assert build("sigmoid", 12, 15) == first


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    function=st.sampled_from(["tanh", "sigmoid", "relu", "abs", "identity", "gelu", "hardswish",
                              "softplus", "erf", "mish"]),
    in_point=st.integers(-4, 20),
    gain=st.integers(-15, 16),
    bits=st.sampled_from([16, 8]),
)
def test_any_points_give_a_table_that_fits_the_fields(
    function: str, in_point: int, gain: int, bits: int
) -> None:
    table = build(function, in_point, in_point + gain, bits)
    check_fields(table, bits)
    if function in ("tanh", "sigmoid") and in_point + gain <= bits - 1:
        # Never worse than a thousandth, or two words where a word is coarser.
        assert table.worst <= max(2.0, 1.2e-3 * 2.0 ** (in_point + gain))


def test_worst_error_sees_a_planted_error() -> None:
    table = build("tanh", 12, 15)
    b = list(table.b)
    b[3] += 100
    planted = MapTable(table.low, tuple(b), table.a, table.q, table.shift, table.square, odd=True)
    assert worst_error(planted, np.tanh, 12, 15, 16) > 90


def test_points_too_far_apart_are_refused() -> None:
    with pytest.raises(CompileError, match=r"map relu: binary points 0 -> 17 are 17 apart, -15"):
        build("relu", 0, 17)


@pytest.mark.parametrize(
    ("exponent", "low", "high", "points", "worst"),
    [
        (-0.75, 1.0, np.inf, (14, 14), 1.3),
        (-0.75, 1.0, np.inf, (10, 14), 12.3),
        (0.5, 0.01, np.inf, (12, 13), 14.5),
        (0.5, 0.01, 2.0, (12, 13), 7.1),
        (0.5, 0.0, np.inf, (12, 13), 202.0),
    ],
)
def test_powers_are_flat_beyond_their_bounds(
    exponent: float, low: float, high: float, points: tuple[int, int], worst: float
) -> None:
    table = build("power", *points, 16, low, high, exponent)
    assert table.worst <= worst
    words = np.arange(-32768, 32768)
    got = apply_table(table, words)
    real = np.clip(words * 2.0 ** -points[0], low, high) ** exponent * 2.0 ** points[1]
    assert np.abs(got - np.clip(real, -32768, 32767)).max() == table.worst
    below = words * 2.0 ** -points[0] <= low - 2.0 ** -points[0]
    assert len(np.unique(got[below])) == 1
