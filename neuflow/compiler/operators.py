"""What every ONNX operator means here, and when it is refused: one function each, and a table.

A function takes the importer and a :class:`Step` and returns the node's value. ``HANDLERS`` is
the list of what is possible; operations on constants alone are folded before they come here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuflow.compiler.importer import (
    FLOATS,
    HOST_OPS,
    Array,
    Data,
    HostValue,
    Importer,
    Step,
    Value,
    image_shape,
)
from neuflow.ir import HostOp, Shape

# --- operators: views ---------------------------------------------------------------------------


def _view(importer: Importer, step: Step) -> Value:
    """Flatten, Reshape, Squeeze, Unsqueeze: the values keep their order, only the shape changes."""
    data = step.data()
    for index in range(1, len(step.values)):
        step.constant(index, "shape")
    # Kept as a name until an operation needs the shape: dense layers flatten by themselves.
    return Data(data.name, step.shapes[0], data.elem)


def _same(importer: Importer, step: Step) -> Value:
    """Identity, and Dropout at inference."""
    if step.node.op_type == "Dropout":
        training = step.constant(2, "training_mode")
        if training is not None and bool(training):
            raise step.refuse(
                "is in training mode", "export the model in evaluation mode (model.eval())"
            )
    return step.value(0)


def _cast(importer: Importer, step: Step) -> Value:
    if step.attrs.get("to") not in FLOATS:
        raise step.refuse("casts data to a type that is not float", "keep the data in float")
    data = step.data()
    return Data(data.name, data.shape, step.attrs["to"])


def _transpose(importer: Importer, step: Step) -> Value:
    data = step.data()
    order = step.attrs.get("perm", list(range(len(data.shape)))[::-1])
    moved = [axis for axis in order if data.shape[axis] > 1]
    if moved != sorted(moved):
        raise step.refuse(
            f"changes the order of the values (perm {list(order)})",
            "keep N, C, H, W order throughout; weights may be transposed",
        )
    return Data(data.name, step.shapes[0], data.elem)


# --- operators: convolution and dense -----------------------------------------------------------


def _conv(importer: Importer, step: Step) -> Value:
    data = step.data()
    weight = step.weights(1, "weight")
    assert weight is not None
    if len(data.shape) not in (3, 4):
        raise step.refuse(
            f"is over {len(data.shape) - 2} spatial dimensions", "1-D and 2-D Conv are possible"
        )
    bias = step.weights(2, "bias")
    kernel = weight.shape[2:]
    declared = tuple(step.attrs.get("kernel_shape", kernel))
    if declared != kernel:
        raise step.refuse(
            f"kernel_shape {list(declared)} is not its weight's {list(kernel)}", "export it again"
        )
    groups = int(step.attrs.get("group", 1))
    _check_conv(step, data, weight, bias, groups)
    stride, dilation, pads = _window(step, data.shape, kernel)
    if len(kernel) == 1:
        weight = weight[:, :, None, :]
    attrs = {
        "weight": weight.astype(np.float32),
        "bias": (np.zeros(len(weight)) if bias is None else bias).astype(np.float32),
        "stride": stride,
        "dilation": dilation,
        "pads": pads,
        "groups": groups,
    }
    return importer.emit(step, "conv", [data], attrs)


def _check_conv(step: Step, data: Data, weight: Array, bias: Array | None, groups: int) -> None:
    """Refuse weights that do not fit the data: ONNX's inference looks at the kernel alone."""
    maps, each = weight.shape[:2]
    if data.shape[1] != each * groups:
        raise step.refuse(
            f"its weight is for {each * groups} channels, the data have {data.shape[1]}",
            "correct the model, export it again",
        )
    if maps % groups:
        raise step.refuse(
            f"{maps} maps cannot be cut into {groups} groups", "correct the model, export it again"
        )
    if bias is not None and bias.shape != (maps,):
        raise step.refuse(
            f"its bias has shape {list(bias.shape)}, not one value for each of {maps} maps",
            "correct the model, export it again",
        )


Pair = tuple[int, int]
Pads = tuple[int, int, int, int]


def _window(
    step: Step, shape: tuple[int, ...], kernel: Sequence[int]
) -> tuple[Pair, Pair, Pads]:
    """Return stride, dilation (y, x) and pads (top, left, bottom, right) of a Conv or pool."""
    rank = len(kernel)
    stride = list(step.attrs.get("strides", [1] * rank))
    dilation = list(step.attrs.get("dilations", [1] * rank))
    mode = step.attrs.get("auto_pad", b"NOTSET").decode()
    before, after = [0] * rank, [0] * rank
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        for axis in range(rank):
            size, reach = shape[2 + axis], (kernel[axis] - 1) * dilation[axis] + 1
            out = -(-size // stride[axis])
            total = max((out - 1) * stride[axis] + reach - size, 0)
            small, large = total // 2, total - total // 2
            upper = mode == "SAME_UPPER"
            before[axis], after[axis] = (small, large) if upper else (large, small)
    elif mode == "NOTSET":
        pads = list(step.attrs.get("pads", [0] * (2 * rank)))
        before, after = pads[:rank], pads[rank:]
    if min(before + after) < 0:
        raise step.refuse(f"has negative pads {before + after}", "crop the input before the model")
    if rank == 1:
        stride, dilation, before, after = [1, *stride], [1, *dilation], [0, *before], [0, *after]
    return (
        (int(stride[0]), int(stride[1])),
        (int(dilation[0]), int(dilation[1])),
        (int(before[0]), int(before[1]), int(after[0]), int(after[1])),
    )


def _gemm(importer: Importer, step: Step) -> Value:
    data = step.data()
    weight = step.weights(1, "weight")
    assert weight is not None
    if step.attrs.get("transA", 0):
        raise step.refuse("transA = 1 transposes the data", "export with transA = 0")
    if not step.attrs.get("transB", 0):
        weight = weight.T
    weight = weight * step.attrs.get("alpha", 1.0)
    bias = np.zeros(len(weight))
    offset = step.weights(2, "bias")
    if offset is not None:
        vector = _per_channel(offset, step.shapes[0])
        if vector is None:
            raise step.refuse(
                f"bias of shape {list(offset.shape)} differs from image to image",
                "use one bias a result",
            )
        bias = vector * step.attrs.get("beta", 1.0)
    return _dense(importer, step, data, weight, bias)


def _dense(
    importer: Importer, step: Step, data: Data, weight: Array, bias: Array
) -> Data:
    attrs = {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}
    # The tensor as it was before views: dense flattens C, H, W by itself.
    shape = image_shape(step.shapes[0][1:])
    output = importer.add(importer.node_name(step), "dense", (data.name,), shape, attrs)
    return Data(output, step.shapes[0], data.elem)


def _matmul(importer: Importer, step: Step) -> Value:
    left, right = step.value(0), step.value(1)
    if isinstance(left, Data) and isinstance(right, Data):
        raise step.refuse(
            "multiplies two computed matrices", "one factor must be a constant weight"
        )
    if not isinstance(left, Data):
        raise step.refuse(
            "the constant is the left factor, which mixes the batch",
            "write data @ weight (transpose both)",
        )
    weight = step.weights(1, "weight")
    assert weight is not None
    if len(left.shape) != 2 or weight.ndim != 2:
        raise step.refuse(
            f"factors have {len(left.shape)} and {weight.ndim} dimensions, only 2 are possible",
            "flatten the data to [N, K] first, or use a 1x1 Conv for a product at every place",
        )
    return _dense(importer, step, left, weight.T, np.zeros(weight.shape[1]))


# --- operators: scales and terms ----------------------------------------------------------------


def _per_channel(constant: Array, shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    """Return a constant that broadcasts over ``shape`` as one value a channel, if it is that."""
    if constant.ndim > len(shape):
        if any(d != 1 for d in constant.shape[: constant.ndim - len(shape)]):
            return None
        constant = constant.reshape(constant.shape[constant.ndim - len(shape) :])
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


def _batch_norm(importer: Importer, step: Step) -> Value:
    arrays = [step.weights(i, w) for i, w in enumerate(("scale", "bias", "mean", "variance"), 1)]
    gamma, beta, mean, variance = (np.asarray(a, np.float64) for a in arrays)
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


def _terms(importer: Importer, step: Step) -> Value:
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
        if a.shape != b.shape:
            raise step.refuse(
                f"the shapes {importer.show(a.shape)} and {importer.show(b.shape)} differ",
                "broadcasting between tensors is not possible, make them equal",
            )
        return importer.emit(step, "alu", [a, b], {"kind": kind}, a.shape)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.asarray(a + b)
    data, constant = (a, b) if isinstance(a, Data) else (b, a)
    assert isinstance(data, Data) and isinstance(constant, np.ndarray)
    if not np.isfinite(constant).all():
        raise step.refuse("its constant holds NaN or infinite values", "export the model again")
    vector = _per_channel(constant, data.shape)
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


def _neg(importer: Importer, step: Step) -> Value:
    data = step.data()
    channels = data.shape[1] if len(data.shape) > 1 else 1
    return _scale(importer, step, data, -np.ones(channels), np.zeros(channels))


# --- operators: functions -----------------------------------------------------------------------


def _function(importer: Importer, step: Step) -> Value:
    attrs = {"function": step.node.op_type.lower()}
    return importer.emit(step, "map", [step.data()], attrs)


def _clip(importer: Importer, step: Step) -> Value:
    bounds = []
    for index, (key, default) in enumerate((("min", -math.inf), ("max", math.inf)), 1):
        constant = step.constant(index, key)
        bound = step.attrs.get(key, default) if constant is None else float(constant.reshape(-1)[0])
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


# --- operators: pooling -------------------------------------------------------------------------


def _pool(importer: Importer, step: Step) -> Value:
    data = step.data()
    kernel = [int(k) for k in step.attrs["kernel_shape"]]
    if len(kernel) not in (1, 2):
        raise step.refuse(f"is over {len(kernel)} spatial dimensions", "1-D and 2-D are possible")
    stride, dilation, pads = _window(step, data.shape, kernel)
    if dilation != (1, 1):
        raise step.refuse(f"dilations {list(dilation)} are not 1", "use dilations of 1")
    if step.attrs.get("storage_order", 0):
        raise step.refuse("storage_order is 1", "use 0")
    if len(kernel) == 1:
        kernel = [1, *kernel]
    average = step.node.op_type == "AveragePool"
    pads, grown = _stretch(image_shape(data.shape[1:]), image_shape(step.shapes[0][1:]),
                           (kernel[0], kernel[1]), stride, pads)  # fmt: skip
    if average and any(pads) and (grown or not step.attrs.get("count_include_pad", 0)):
        reason, instead = (
            ("ceil_mode = 1 makes windows reach beyond the padded input", "use ceil_mode = 0")
            if grown
            else ("count_include_pad = 0 with pads divides by a number that changes at the border",
                  "use count_include_pad = 1, or no pads")
        )  # fmt: skip
        raise step.refuse(reason, instead)
    if any(p >= k for p, k in zip(pads, kernel * 2, strict=True)):
        raise step.refuse(
            f"pads {list(pads)} reach the kernel {kernel}", "use pads smaller than the kernel"
        )
    attrs = {
        "kind": "average" if average else "max",
        "kernel": (kernel[0], kernel[1]),
        "stride": stride,
        "pads": pads,
    }
    return importer.emit(step, "pool", [data], attrs)


def _stretch(
    size: Shape, out: Shape, kernel: Pair, stride: Pair, pads: Pads
) -> tuple[Pads, bool]:
    """Lengthen the pads at the end until all windows of ``out`` fit (ceil_mode)."""
    ends, grown = [], False
    for axis in range(2):
        have = pads[2 + axis]
        need = (out[1 + axis] - 1) * stride[axis] + kernel[axis] - size[1 + axis] - pads[axis]
        grown |= need > have
        # A longer pad than any window reaches would count as padded, and change nothing.
        ends.append(max(0, need))
    return (pads[0], pads[1], ends[0], ends[1]), grown


def _global_pool(importer: Importer, step: Step) -> Value:
    data = step.data()
    _, height, width = image_shape(data.shape[1:])
    kind = "average" if step.node.op_type == "GlobalAveragePool" else "max"
    attrs = {"kind": kind, "kernel": (height, width), "stride": (1, 1), "pads": (0, 0, 0, 0)}
    return importer.emit(step, "pool", [data], attrs)


def _reduce_mean(importer: Importer, step: Step) -> Value:
    data = step.data()
    axes_input = step.constant(1, "axes")
    axes = step.attrs.get("axes") if axes_input is None else axes_input.reshape(-1).tolist()
    rank = len(data.shape)
    found = sorted(int(a) % rank for a in axes) if axes is not None else []
    if rank not in (3, 4) or found != list(range(2, rank)):
        raise step.refuse(
            f"reduces axes {found or 'all'}", "only the mean over height and width is possible"
        )
    _, height, width = image_shape(data.shape[1:])
    attrs = {
        "kind": "average", "kernel": (height, width), "stride": (1, 1), "pads": (0, 0, 0, 0),
    }  # fmt: skip
    pooled = importer.emit(step, "pool", [data], attrs, (*data.shape[:2], *[1] * (rank - 2)))
    return Data(pooled.name, step.shapes[0], data.elem)


# --- operators: on the host ---------------------------------------------------------------------

def _host(importer: Importer, step: Step) -> Value:
    """Softmax, LogSoftmax, ArgMax at the end of the model: done in float on the host."""
    value = step.value(0)
    assert isinstance(value, Data | HostValue)
    op = HOST_OPS[step.node.op_type]
    rank = len(value.shape)
    old = op != "argmax" and importer.opset < 13
    axis = int(step.attrs.get("axis", 0 if op == "argmax" else 1 if old else -1))
    axis += rank if axis < 0 else 0
    if axis == 0:
        raise step.refuse("works along the batch (axis 0)", "use the axis of the classes")
    attrs: dict[str, Any] = {}
    if old and axis != rank - 1:
        attrs["flatten"] = True  # before opset 13: over all dimensions from the axis on
    if op == "argmax":
        attrs["keepdims"] = bool(step.attrs.get("keepdims", 1))
        attrs["last"] = bool(step.attrs.get("select_last_index", 0))
    if isinstance(value, Data):
        source = importer.as_image(value)
        if source in importer.inputs:
            raise step.refuse("is applied to an input", "a model needs an operation before it")
        attrs["shape"] = value.shape[1:]
    else:
        source = value.name
    name = step.node.output[0]
    importer.host.append(HostOp(op, source, name, axis, attrs))
    return HostValue(name, step.node.op_type, step.shapes[0])


HANDLERS: dict[str, Callable[[Importer, Step], Value]] = {
    "Abs": _function,
    "Add": _terms,
    "ArgMax": _host,
    "AveragePool": _pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Conv": _conv,
    "Div": _terms,
    "Dropout": _same,
    "Flatten": _view,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "Identity": _same,
    "LogSoftmax": _host,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Mul": _terms,
    "Neg": _neg,
    "ReduceMean": _reduce_mean,
    "Relu": _function,
    "Reshape": _view,
    "Sigmoid": _function,
    "Softmax": _host,
    "Squeeze": _view,
    "Sub": _terms,
    "Sum": _terms,
    "Tanh": _function,
    "Transpose": _transpose,
    "Unsqueeze": _view,
}
"""Operations on data that are possible. Any operation on constants is."""
