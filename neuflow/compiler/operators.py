"""What every ONNX operator means here, and when it is refused: one function each, and a table.

A function takes the importer and a :class:`Step` and returns the node's value. ``HANDLERS`` is
the list of what is possible; operations on constants alone are folded before they come here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import helper

from neuflow.compiler.importer import HOST_OPS, Importer
from neuflow.compiler.importer_graph import image_shape
from neuflow.compiler.importer_shapes import FLOATS
from neuflow.compiler.importer_step import Array, Data, HostValue, Step, Value
from neuflow.compiler.operators_terms import (
    batch_norm,
    clip,
    extremes,
    function,
    gelu,
    lrn,
    negate,
    per_channel,
    power,
    prelu,
    root,
    terms,
)
from neuflow.compiler.operators_window import global_pool, pad, pool, reduce_mean, window_of
from neuflow.ir import HostOp

# --- operators: views ---------------------------------------------------------------------------


def _view(importer: Importer, step: Step) -> Value:
    """Flatten, Reshape, Squeeze, Unsqueeze: the values keep their order, only the shape changes."""
    data = step.data()
    for index in range(1, len(step.values)):
        step.constant(index, "shape")
    if importer.opset < 11 and min(step.attrs.get("axes", ()), default=0) < 0:
        raise step.refuse(
            f"axes {list(step.attrs['axes'])} count from the end, which operator set 11 came with",
            "export with opset 18",
        )
    if math.prod(data.shape) != math.prod(step.shapes[0]):  # inference does not count
        raise step.refuse(
            f"makes {importer.show(step.shapes[0])} of {importer.show(data.shape)}, another number of "
            "values",
            "correct the model, export it again",
        )
    # Kept as a name until an operation needs the shape: dense layers flatten by themselves.
    return Data(data.name, step.shapes[0], data.elem)


def _same(importer: Importer, step: Step) -> Value:
    """Identity, and Dropout at inference."""
    if step.node.op_type == "Dropout":
        if step.number(2, "training_mode", 0):
            raise step.refuse(
                "is in training mode", "export the model in evaluation mode (model.eval())"
            )
    return step.value(0)


def _cast(importer: Importer, step: Step) -> Value:
    """Cast, and CastLike of data; of a constant the importer has folded it."""
    data, like = step.data(), step.value(1)
    if isinstance(like, Data):
        kind = like.elem
    elif isinstance(like, np.ndarray):
        kind = helper.np_dtype_to_tensor_dtype(like.dtype)
    else:
        kind = step.attrs["to"]
    if kind not in FLOATS:
        raise step.refuse("casts data to a type that is not float", "keep the data in float")
    return Data(data.name, data.shape, kind)


def _transpose(importer: Importer, step: Step) -> Value:
    data = step.data()
    order = step.attrs.get("perm", list(range(len(data.shape)))[::-1])
    if sorted(order) != list(range(len(data.shape))):
        raise step.refuse(
            f"perm {list(order)} is no order of the data's {len(data.shape)} dimensions",
            "correct the model, export it again",
        )
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
    stride, dilation, pads = window_of(step, data.shape, kernel)
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
        vector = per_channel(offset, step.shapes[0])
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
    if len(data.shape) != 2 or data.shape[1] != weight.shape[1]:
        raise step.refuse(
            f"its weight is for {weight.shape[1]} values, the data are {importer.show(data.shape)}",
            "correct the model, export it again",
        )
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


# --- operators: joining -------------------------------------------------------------------------


def _concat(importer: Importer, step: Step) -> Value:
    """Concat over the channels; the inputs lie side by side in memory, so that it costs nothing."""
    if len(step.values) == 1:
        return step.value(0)
    parts = [step.data(index) for index in range(len(step.values))]
    axis = int(step.attrs["axis"]) % len(parts[0].shape)
    if axis != 1:
        raise step.refuse(
            f"joins along axis {axis}", "join channels (axis 1); other axes on the host"
        )
    return importer.emit(step, "concat", parts, {})


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
    "Abs": function,
    "Add": terms,
    "ArgMax": _host,
    "AveragePool": pool,
    "BatchNormalization": batch_norm,
    "Cast": _cast,
    "CastLike": _cast,
    "Celu": function,
    "Clip": clip,
    "Concat": _concat,
    "Conv": _conv,
    "Div": terms,
    "Dropout": _same,
    "Elu": function,
    "Erf": function,
    "Flatten": _view,
    "Gelu": gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": global_pool,
    "GlobalMaxPool": global_pool,
    "HardSigmoid": function,
    "HardSwish": function,
    "Identity": _same,
    "LRN": lrn,
    "LeakyRelu": function,
    "LogSoftmax": _host,
    "MatMul": _matmul,
    "Max": extremes,
    "MaxPool": pool,
    "Min": extremes,
    "Mish": function,
    "Mul": terms,
    "Neg": negate,
    "PRelu": prelu,
    "Pad": pad,
    "Pow": power,
    "ReduceMean": reduce_mean,
    "Relu": function,
    "Reshape": _view,
    "Selu": function,
    "Sigmoid": function,
    "Softmax": _host,
    "Softplus": function,
    "Softsign": function,
    "Sqrt": root,
    "Squeeze": _view,
    "Sub": terms,
    "Sum": terms,
    "Swish": function,
    "Tanh": function,
    "Transpose": _transpose,
    "Unsqueeze": _view,
}
"""Operations on data that are possible. Any operation on constants is."""
