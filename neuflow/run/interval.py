"""Between which reals golden's results must lie: interval arithmetic over a quantised graph.

Each operation takes intervals of its operands' values and returns the interval of its result, with
what the operation itself may add: half a word where it rounds, the ends of a word where it
saturates, a table's worst error. Written from ``docs/numbers.md``, with float sums tap by tap: it
shares no code with golden.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuflow.compiler import float_eval, functions
from neuflow.fixed import FixedPoint
from neuflow.ir import Node

Real = NDArray[np.float64]

SLACK = 2.0**-40
"""What float64 may lose in a sum, as a part of the sum of its terms' magnitudes."""


class Interval(NamedTuple):
    """Values, float64 [N, C, H, W]; ``low <= high`` everywhere."""

    low: Real
    high: Real


class Forms(NamedTuple):
    """Formats of a node's operands and of its result."""

    operands: tuple[FixedPoint, ...]
    result: FixedPoint


def propagate(node: Node, forms: Forms, *operands: Interval) -> Interval:
    """Return the interval of a node's result, held to the range of its word."""
    made = OPERATIONS[node.op](node, forms, *operands)
    ends = forms.result.low * forms.result.step, forms.result.high * forms.result.step
    return Interval(np.clip(made.low, *ends), np.clip(made.high, *ends))


def _rounded(low: Real, high: Real, form: FixedPoint) -> Interval:
    return Interval(low - form.step / 2, high + form.step / 2)


def _sum_of_products(node: Node, forms: Forms, x: Interval) -> Interval:
    """Middle and radius: the radius goes through the magnitudes of the weights."""
    a = node.attrs
    weight = np.asarray(a["weight"], np.float64)
    scale = a["m"] * 2.0 ** -np.asarray(a["s"], np.float64)
    gain = scale * forms.result.step
    weight = weight * gain.reshape(-1, *[1] * (weight.ndim - 1)) / forms.operands[0].step
    offset = np.asarray(a["bias"]) * scale * forms.result.step
    offset = offset + np.asarray(a["zero"]) * forms.result.step
    middle, radius = (x.low + x.high) / 2, (x.high - x.low) / 2
    evaluate = float_eval.OPERATIONS[node.op]
    plain = replace(node, attrs={**a, "weight": weight, "bias": offset})
    magnitudes = {**a, "weight": np.abs(weight), "bias": SLACK * np.abs(offset)}
    at = evaluate(plain, middle)
    spread = evaluate(replace(node, attrs=magnitudes), radius + SLACK * np.abs(middle))
    return _rounded(at - spread, at + spread, forms.result)


def _map(node: Node, forms: Forms, x: Interval) -> Interval:
    """The functions turn at 0, where they dip, or nowhere; a table is off by its worst error."""
    real, name = float_eval.function(node), node.attrs["function"]
    ends = [real(x.low), real(x.high)]
    low, high = np.minimum(*ends), np.maximum(*ends)
    dips = functions.FUNCTIONS[name].dips
    for turn in (0.0, *([functions.turn(name, **functions.parameters(node.attrs))] if dips else [])):
        there = (x.low < turn) & (x.high > turn)
        at = real(np.array([turn]))
        low = np.where(there, np.minimum(low, at), low)
        high = np.where(there, np.maximum(high, at), high)
    form = forms.result
    ends = [np.clip(v, form.low * form.step, form.high * form.step) for v in (low, high)]
    worst = node.attrs["table"].worst * (1 + SLACK) * form.step
    # The worst error was measured in words: what float64 loses of the value itself is no error.
    return Interval(
        ends[0] - worst - SLACK * np.abs(ends[0]), ends[1] + worst + SLACK * np.abs(ends[1])
    )


def _pool(node: Node, forms: Forms, x: Interval) -> Interval:
    a = node.attrs
    largest = a["kind"] == "max"
    plain = replace(node, attrs={**a, "kind": "max" if largest else "average", "divisor": 1})
    low, high = (float_eval.OPERATIONS["pool"](plain, side) for side in x)
    if largest and not a["s"]:
        return Interval(low, high)
    gain = pool_gain(node, forms)
    return _rounded(low * gain, high * gain, forms.result)


def pool_gain(node: Node, forms: Forms) -> NDArray[np.float64]:
    """Return by what a pool multiplies the sum, or the maximum, of a window of real values."""
    gain = node.attrs["m"] * 2.0 ** -np.asarray(node.attrs["s"], np.float64)
    return np.asarray(gain * (forms.result.step / forms.operands[0].step))


def _alu(node: Node, forms: Forms, a: Interval, b: Interval | None = None) -> Interval:
    kind = node.attrs["kind"]
    if kind in ("abs", "square"):
        raise ValueError(f"{node.name}: {kind} has no real counterpart in a model")
    assert b is not None
    if kind in ("add", "sub"):
        b = b if kind == "add" else Interval(-b.high, -b.low)
        return _rounded(a.low + b.low, a.high + b.high, forms.result)
    if kind in ("max", "min"):
        pick = np.maximum if kind == "max" else np.minimum
        return _rounded(pick(a.low, b.low), pick(a.high, b.high), forms.result)
    if kind == "mul":
        corners = [p * q for p in a for q in b]
        return _rounded(np.minimum.reduce(corners), np.maximum.reduce(corners), forms.result)
    return _quotient(a, b, forms.result)


def _quotient(a: Interval, b: Interval, form: FixedPoint) -> Interval:
    """By what may be zero: anything."""
    safe = (b.low > 0) | (b.high < 0)
    corners = [p / np.where(safe, q, 1.0) for p in a for q in b]
    low, high = np.minimum.reduce(corners), np.maximum.reduce(corners)
    low = np.where(safe, low, form.low * form.step)
    high = np.where(safe, high, form.high * form.step)
    return _rounded(low, high, form)


def _concat(node: Node, forms: Forms, *parts: Interval) -> Interval:
    return Interval(*(np.concatenate([part[side] for part in parts], axis=1) for side in (0, 1)))


def _slice(node: Node, forms: Forms, x: Interval) -> Interval:
    first = node.attrs["first"]
    return Interval(*(side[:, first : first + node.attrs["count"]] for side in x))


def _reshape(node: Node, forms: Forms, x: Interval) -> Interval:
    return Interval(*(side.reshape(len(side), *node.attrs["shape"]) for side in x))


OPERATIONS: dict[str, Callable[..., Any]] = {
    "conv": _sum_of_products,
    "dense": _sum_of_products,
    "map": _map,
    "pool": _pool,
    "alu": _alu,
    "concat": _concat,
    "slice": _slice,
    "reshape": _reshape,
}
