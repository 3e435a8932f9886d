"""The real functions of one value that a mapper's table can hold, each said once.

A node "map" names its function; what the function depends on are the node's ``PARAMETERS``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]
Ends = tuple[float, float]

PARAMETERS = ("low", "high", "exponent", "alpha", "beta")
"""Attributes of a node "map" that its function may depend on, in the order of :func:`real`."""

SQUASH_BOUND = 8.0
"""Beyond +-8, tanh and sigmoid are flat."""
TAIL = 12.0
"""Beyond +-12, what e**x makes of a line is a line again: within e**-12 x 12 = 7.4e-5."""
EVERYTHING = (-math.inf, math.inf)


def _sigmoid(x: Real) -> Real:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def _erf(x: Real) -> Real:
    return np.asarray(np.vectorize(math.erf, otypes=[np.float64])(x))


def _softplus(x: Real) -> Real:
    return np.asarray(np.logaddexp(0.0, x))


def _elu(x: Real, alpha: float) -> Real:
    return np.where(x < 0, alpha * np.expm1(np.minimum(x, 0.0)), x)


def _gelu_by_tanh(x: Real) -> Real:
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


@dataclass(frozen=True)
class Function:
    """One function and what is known of it.

    Attributes
    ----------
    real : of float64 values and keywords of ``PARAMETERS``, those that it depends on.
    matters : beyond which operands its result no longer changes (to within e**-8 or a table's error).
    corners : between which operands it is smooth; no segment of a table reaches over one.
    odd : f(-x) = -f(x); its table holds f from 0 on.
    unit : its results lie within -1..1.
    positive : its results are not below 0.
    dips : it has its least value below 0, falls before and rises behind.
    """

    real: Callable[..., Real]
    matters: Callable[..., Ends] = lambda **_: EVERYTHING
    corners: Callable[..., tuple[float, ...]] = lambda **_: ()
    odd: bool = False
    unit: bool = False
    positive: bool = False
    dips: bool = False


def _squash(real: Callable[..., Real], odd: bool) -> Function:
    return Function(
        real, lambda **_: (-SQUASH_BOUND, SQUASH_BOUND), odd=odd, unit=True, positive=not odd
    )


def _rectifier(real: Callable[..., Real]) -> Function:
    """Return a function that is nearly 0 far below 0, 0 at 0 and nearly its operand far above."""
    return Function(
        real, lambda **_: (-TAIL, math.inf), lambda **_: (-TAIL, 0.0, TAIL), dips=True
    )


FUNCTIONS: dict[str, Function] = {
    # Lines: mapper_tables makes their tables exactly.
    "identity": Function(lambda x: np.asarray(x, np.float64)),
    "relu": Function(lambda x: np.maximum(x, 0.0), lambda **_: (0.0, math.inf), positive=True),
    "abs": Function(np.abs, positive=True),
    "clip": Function(
        lambda x, low=-math.inf, high=math.inf: np.clip(x, low, high),
        lambda low=-math.inf, high=math.inf: (low, high),
    ),
    # Smooth between corners.
    "power": Function(
        lambda x, low, high, exponent: np.power(np.clip(x, low, high), exponent or 0.0),
        lambda low, high, **_: (low, high), positive=True,
    ),
    "tanh": _squash(np.tanh, odd=True),
    "sigmoid": _squash(_sigmoid, odd=False),
    "erf": _squash(_erf, odd=True),
    "softsign": Function(lambda x: x / (1.0 + np.abs(x)), odd=True, unit=True),
    "softplus": Function(
        _softplus, lambda **_: (-TAIL, math.inf), lambda **_: (-TAIL, TAIL), positive=True
    ),
    "leakyrelu": Function(
        lambda x, alpha: np.where(x < 0, alpha * x, x), corners=lambda **_: (0.0,)
    ),
    "elu": Function(
        _elu, lambda **_: (-TAIL, math.inf), lambda **_: (-TAIL, 0.0)
    ),
    "selu": Function(
        lambda x, alpha, beta: beta * _elu(x, alpha),
        lambda **_: (-TAIL, math.inf), lambda **_: (-TAIL, 0.0),
    ),
    "celu": Function(
        lambda x, alpha: alpha * _elu(x / alpha, 1.0),
        lambda alpha: (-TAIL * alpha, math.inf), lambda alpha: (-TAIL * alpha, 0.0),
    ),
    "hardsigmoid": Function(
        lambda x, alpha, beta: np.clip(alpha * x + beta, 0.0, 1.0),
        lambda alpha, beta: (-beta / alpha, (1.0 - beta) / alpha),
        lambda alpha, beta: (-beta / alpha, (1.0 - beta) / alpha), positive=True,
    ),
    "hardswish": Function(
        lambda x: x * np.clip(x / 6.0 + 0.5, 0.0, 1.0),
        lambda **_: (-3.0, math.inf), lambda **_: (-3.0, 0.0, 3.0), dips=True,
    ),
    "gelu": _rectifier(lambda x: 0.5 * x * (1.0 + _erf(x * math.sqrt(0.5)))),
    "gelu_tanh": _rectifier(_gelu_by_tanh),
    "mish": _rectifier(lambda x: x * np.tanh(_softplus(x))),
    "swish": Function(
        lambda x, alpha: x * _sigmoid(alpha * x),
        lambda alpha: (-TAIL / alpha, math.inf),
        lambda alpha: (-TAIL / alpha, 0.0, TAIL / alpha), dips=True,
    ),
}  # fmt: skip
"""Function of a node "map" -> what it is."""


def parameters(attrs: Mapping[str, Any]) -> dict[str, float]:
    """Return the parameters among a node's attributes."""
    return {key: attrs[key] for key in PARAMETERS if attrs.get(key) is not None}


def real(
    name: str,
    low: float | None = None,
    high: float | None = None,
    exponent: float | None = None,
    alpha: float | None = None,
    beta: float | None = None,
) -> Callable[[Real], Real]:
    """Return a function by name with its parameters bound."""
    given = dict(zip(PARAMETERS, (low, high, exponent, alpha, beta), strict=True))
    known = {key: value for key, value in given.items() if value is not None}
    function = FUNCTIONS[name].real
    return lambda x: function(x, **known)


@lru_cache(maxsize=256)
def turn(name: str, **known: float) -> float:
    """Return where a function that dips is least, by thirds: it may be flat before, not behind."""
    low, high = -TAIL / known.get("alpha", 1.0), 0.0
    function = FUNCTIONS[name].real
    for _ in range(200):
        thirds = np.array([(2 * low + high) / 3, (low + 2 * high) / 3])
        left, right = function(thirds, **known)
        low, high = (float(thirds[0]), high) if left >= right else (low, float(thirds[1]))
    return (low + high) / 2
