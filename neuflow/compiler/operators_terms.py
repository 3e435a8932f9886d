"""ONNX operators that work value by value: terms, scales, functions, and response normalisation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from neuflow.compiler.importer import Importer
from neuflow.compiler.importer_step import Array, Data, Step, Value

# --- scales and terms -----------------------------------------------------------------------------


def per_channel(constant: Array, shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    """Return a constant that broadcasts over ``shape`` as one value a channel, if it is that."""
    if constant.ndim > len(shape):
        return None
    constant = constant.reshape((1,) * (len(shape) - constant.ndim) + constant.shape)
    for axis, (have, want) in enumerate(zip(constant.shape, shape, strict=True)):
        if have not in (1, want):
            return None
        if axis == 1 or have == 1:
            continue
        first = constant.take([0], axis=axis)
        if not (constant == first).all():
            return None
        constant = first
    channels = shape[1] if len(shape) > 1 else 1
    flat = constant.reshape(-1)
    if flat.size not in (1, channels):
        return None
    return np.broadcast_to(flat, (channels,)).astype(np.float64)


def batch_norm(importer: Importer, step: Step) -> Value:
    """BatchNormalization at inference: one scale and offset a channel."""
    arrays = [step.weights(i, w) for i, w in enumerate(("scale", "bias", "mean", "variance"), 1)]
    gamma, beta, mean, variance = (np.asarray(a, np.float64) for a in arrays)
    if gamma.ndim != 1:
        raise step.refuse(
            "normalises every place by itself (spatial = 0)", "use one scale and offset a channel"
        )
    if any(array.shape != gamma.shape for array in (beta, mean, variance)):
        shapes = [list(array.shape) for array in (gamma, beta, mean, variance)]
        raise step.refuse(
            f"its scale, bias, mean and variance have shapes {shapes}, not one value a channel each",
            "correct the model, export it again",
        )
    epsilon = step.attrs.get("epsilon", 1e-5)
    if (variance + epsilon <= 0).any():
        raise step.refuse("holds a variance below 0", "train or export the model again")
    scale = gamma / np.sqrt(variance + epsilon)
    return _scale(importer, step, step.data(), scale, beta - mean * scale)


def _scale(importer: Importer, step: Step, data: Data, scale: Array, offset: Array) -> Data:
    """One scale and offset a channel; ``simplify`` folds it into the layer before."""
    attrs = {"scale": np.asarray(scale, np.float64), "offset": np.asarray(offset, np.float64)}
    if not (np.isfinite(attrs["scale"]).all() and np.isfinite(attrs["offset"]).all()):
        raise step.refuse("its constants give infinite values", "correct the constants")
    return importer.emit(step, "scale", [data], attrs, data.shape)


_KINDS = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Sum": "add"}


def terms(importer: Importer, step: Step) -> Value:
    """Add, Sub, Mul, Div of two tensors of one shape, or of a tensor and constants."""
    kind = _KINDS[step.node.op_type]
    if len(step.values) == 1:
        return step.value(0)
    result = step.values[0]
    for place in range(1, len(step.values)):
        result = _two_terms(importer, step, kind, result, step.values[place])
    return result


def _two_terms(importer: Importer, step: Step, kind: str, a: Value, b: Value) -> Value:
    if isinstance(a, Data) and isinstance(b, Data):
        return _pair(importer, step, kind, a, b)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.asarray(a + b)
    data, constant = (a, b) if isinstance(a, Data) else (b, a)
    assert isinstance(data, Data) and isinstance(constant, np.ndarray)
    if not np.isfinite(constant).all():
        raise step.refuse("its constant holds NaN or infinite values", "export the model again")
    vector = per_channel(constant, data.shape)
    if vector is None:
        raise step.refuse(
            f"the constant of shape {list(constant.shape)} is not one value a channel of "
            f"{importer.show(data.shape)}",
            "use a scalar or a per-channel constant, or feed it as a second input of equal shape",
        )
    one, zero = np.ones_like(vector), np.zeros_like(vector)
    if kind == "div":
        if isinstance(a, np.ndarray):
            raise step.refuse(
                "divides a constant by a tensor", "only a tensor by a constant or a tensor"
            )
        if (vector == 0).any():
            raise step.refuse("divides by the constant 0", "correct the constant")
        return _scale(importer, step, data, 1 / vector, zero)
    if kind == "mul":
        return _scale(importer, step, data, vector, zero)
    if kind == "sub" and isinstance(a, np.ndarray):
        return _scale(importer, step, data, -one, vector)
    return _scale(importer, step, data, one, vector if kind == "add" else -vector)


def _pair(importer: Importer, step: Step, kind: str, a: Data, b: Data) -> Data:
    """Combine two tensors term by term."""
    if a.shape != b.shape:
        raise step.refuse(
            f"the shapes {importer.show(a.shape)} and {importer.show(b.shape)} differ",
            "broadcasting between tensors is not possible, make them equal",
        )
    return importer.emit(step, "alu", [a, b], {"kind": kind}, a.shape)


def negate(importer: Importer, step: Step) -> Value:
    """Neg."""
    data = step.data()
    channels = data.shape[1] if len(data.shape) > 1 else 1
    return _scale(importer, step, data, -np.ones(channels), np.zeros(channels))


# --- functions ------------------------------------------------------------------------------------


_PARAMETERS = {"alpha": "alpha", "beta": "beta", "gamma": "beta"}
"""Attribute of an ONNX function -> what a node "map" calls it."""


def function(importer: Importer, step: Step) -> Value:
    """Abs, Relu, Tanh and all others of one value whose attributes are numbers."""
    operation = step.node.op_type
    schema = onnx.defs.get_schema(operation, importer.opset, "")
    attrs: dict[str, Any] = {"function": operation.lower()}
    for name, own in _PARAMETERS.items():
        if name in schema.attributes:
            attrs[own] = float(step.attrs.get(name, schema.attributes[name].default_value.f))
    if operation in ("Celu", "HardSigmoid", "Swish") and attrs["alpha"] <= 0:
        raise step.refuse(f"alpha is {attrs['alpha']:g}", "use an alpha above 0")
    return importer.emit(step, "map", [step.data()], attrs)


def gelu(importer: Importer, step: Step) -> Value:
    """Gelu, by erf or by tanh."""
    way = step.attrs.get("approximate", b"none").decode()
    if way not in ("none", "tanh"):
        raise step.refuse(f"approximate is {way!r}", "use none or tanh")
    name = "gelu" if way == "none" else "gelu_tanh"
    return importer.emit(step, "map", [step.data()], {"function": name})


def prelu(importer: Importer, step: Step) -> Value:
    """PRelu: one slope is a function; slopes up to 1 by channel are max(x, slope x)."""
    data, slopes = step.data(), step.weights(1, "slope")
    assert slopes is not None
    vector = per_channel(slopes, data.shape)
    if vector is None:
        raise step.refuse(
            f"its slope of shape {list(slopes.shape)} is not one value a channel",
            "use one slope, or one a channel",
        )
    if (vector == vector[0]).all():
        attrs = {"function": "leakyrelu", "alpha": float(vector[0])}
        return importer.emit(step, "map", [data], attrs)
    if (vector > 1).any():
        raise step.refuse("has a slope above 1 beside others", "use slopes up to 1, or one slope")
    scaled = _scale(importer, step, data, vector, np.zeros_like(vector))
    return _pair(importer, step, "max", data, scaled)


def clip(importer: Importer, step: Step) -> Value:
    """Clip, its bounds constant."""
    bounds = []
    for index, (key, default) in enumerate((("min", -math.inf), ("max", math.inf)), 1):
        bound = step.number(index, key, step.attrs.get(key, default))
        if math.isnan(bound):
            raise step.refuse(f"{key} is NaN", "export the model again")
        bounds.append(float(bound))
    low, high = bounds
    if low > high:
        low = high  # ONNX: min(max(x, low), high)
    if math.isinf(low) and math.isinf(high) and low < high:
        return step.data()
    if low == math.inf or high == -math.inf:
        raise step.refuse("clips everything to infinity", "correct its bounds")
    return importer.emit(
        step, "map", [step.data()], {"function": "clip", "low": low, "high": high}
    )


def extremes(importer: Importer, step: Step) -> Value:
    """Max, Min of tensors of one shape and of constants that are one number each."""
    kind = step.node.op_type.lower()
    result: Data | None = None
    bound = -math.inf if kind == "max" else math.inf
    for value in step.values:
        if isinstance(value, np.ndarray):
            if len(np.unique(value)) != 1 or not np.isfinite(value).all():
                raise step.refuse(
                    f"has a constant of shape {list(value.shape)} that is not one finite number",
                    "use one number for all values",
                )
            bound = (max if kind == "max" else min)(bound, float(value.reshape(-1)[0]))
            continue
        assert isinstance(value, Data)
        result = value if result is None else _pair(importer, step, kind, result, value)
    assert result is not None
    if math.isinf(bound):
        return result
    bounds = {"low": bound, "high": math.inf} if kind == "max" else {"low": -math.inf, "high": bound}
    return importer.emit(step, "map", [result], {"function": "clip", **bounds}, result.shape)


# --- powers ---------------------------------------------------------------------------------------


def root(importer: Importer, step: Step) -> Value:
    """Sqrt; of negative values it gives 0 here, where ONNX gives NaN."""
    return _power(importer, step, step.data(), 0.5)


def power(importer: Importer, step: Step) -> Value:
    """Pow by a constant: 1, 2, or an exponent that is no whole number."""
    data, exponent = step.data(), step.number(1, "exponent", 1.0)
    if exponent == 1.0:
        return data
    if exponent == 2.0:
        return importer.emit(step, "alu", [data, data], {"kind": "mul"}, data.shape)
    if not math.isfinite(exponent) or (exponent >= 0 and exponent.is_integer()):
        raise step.refuse(f"raises to {exponent:g}", "multiply the tensor with itself by Mul")
    return _power(importer, step, data, exponent)


def _power(importer: Importer, step: Step, data: Data, exponent: float, low: float = 0.0) -> Data:
    """x ** exponent for x >= low; ``simplify`` takes a Clip before it into ``low``."""
    attrs = {"function": "power", "exponent": exponent, "low": low, "high": math.inf}
    return importer.emit(step, "map", [data], attrs, data.shape)


def lrn(importer: Importer, step: Step) -> Value:
    """x (bias + alpha / size sum x^2)^-beta, the sum over ``size`` neighbouring channels.

    A product, a 1x1 Conv whose weights are a band along the diagonal, a power, a product.
    """
    data = step.data()
    if len(data.shape) < 3:
        raise step.refuse(f"is over {len(data.shape)} dimensions", "normalise images: N, C, H, W")
    size = int(step.attrs["size"])
    if size < 1:
        raise step.refuse(f"normalises over {size} channels", "use a size of 1 or more")
    alpha, beta = step.attrs.get("alpha", 1e-4), step.attrs.get("beta", 0.75)
    bias = float(step.attrs.get("bias", 1.0))
    if bias <= 0 or alpha < 0 or beta <= 0:
        raise step.refuse(
            f"alpha {alpha:g}, beta {beta:g}, bias {bias:g} can divide by 0",
            "use a bias and a beta above 0 and an alpha of 0 or more",
        )
    channels = data.shape[1]
    offset = np.arange(channels)[None, :] - np.arange(channels)[:, None]
    band = (offset >= -((size - 1) // 2)) & (offset <= size // 2)
    attrs = {
        "weight": (band * (alpha / size)).reshape(channels, channels, 1, 1).astype(np.float32),
        "bias": np.full(channels, bias, np.float32),
        "stride": (1, 1),
        "dilation": (1, 1),
        "pads": (0, 0, 0, 0),
        "groups": 1,
    }
    squares = importer.emit(step, "alu", [data, data], {"kind": "mul"}, data.shape)
    sums = importer.emit(step, "conv", [squares], attrs, data.shape)
    factor = _power(importer, step, sums, -beta, bias)
    return importer.emit(step, "alu", [data, factor], {"kind": "mul"}, data.shape)
