"""Shapes while a model is imported: those that its inputs declare, and those that ONNX infers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from neuflow.compiler.importer_step import Data, HostValue, Step
from neuflow.errors import ModelError

MOST_VALUES = 1 << 31
"""Words that the machine's memory of 4 GB holds."""

FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)


def declared_shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    """Return an input's dimensions, None for the batch where it is symbolic."""
    kind = value.type.tensor_type
    if kind.elem_type not in FLOATS:
        found = TensorProto.DataType.Name(kind.elem_type)
        raise ModelError(
            f"input {value.name!r}: elements are {found}; export the float model, quantisation "
            "is done here"
        )
    if not kind.HasField("shape") or not kind.shape.dim:
        raise ModelError(f"input {value.name!r}: has no shape; export with a fixed input shape")
    dims = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]
    if len(dims) > 4:
        raise ModelError(
            f"input {value.name!r}: {len(dims)} dimensions; at most batch, channels, height, "
            "width are possible"
        )
    for place, dim in enumerate(dims):
        if dim is None and place > 0:
            symbol = kind.shape.dim[place].dim_param or "?"
            raise ModelError(
                f"input {value.name!r}: dimension {place} is symbolic ({symbol!r}); export "
                "with a fixed size, only the batch may be symbolic"
            )
        if dim is not None and dim < 1:
            raise ModelError(
                f"input {value.name!r}: dimension {place} is {dim}; export with a size of 1 or "
                "more"
            )
    if math.prod(int(d) for d in dims[1:] if d is not None) >= MOST_VALUES:
        raise ModelError(
            f"input {value.name!r}: an image is beyond the machine's memory of 4 GB; export with a "
            "smaller one"
        )
    return tuple(dims)


def inferred_shapes(
    step: Step, opset: int, show: Callable[[tuple[int, ...]], str]
) -> list[tuple[int, ...]]:
    """Return the outputs' shapes by ONNX's own inference; ``show`` puts one into words."""
    node = step.node
    types, known = {}, {}
    for name, value in zip(node.input, step.values, strict=True):
        if isinstance(value, Data):
            types[name] = helper.make_tensor_type_proto(value.elem, value.shape)
        elif isinstance(value, np.ndarray):
            elem = helper.np_dtype_to_tensor_dtype(value.dtype)
            types[name] = helper.make_tensor_type_proto(elem, value.shape)
            if value.dtype == np.int64 and value.size <= 64:
                known[name] = numpy_helper.from_array(value, name)
        elif isinstance(value, HostValue):
            types[name] = helper.make_tensor_type_proto(TensorProto.FLOAT, value.shape)
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    try:
        found = onnx.shape_inference.infer_node_outputs(
            schema, node, types, known,
            opset_imports=[helper.make_opsetid("", opset)], ir_version=8,
        )  # fmt: skip
    except (
        onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError
    ) as error:  # fmt: skip
        text = " ".join(str(error).split())[:160]
        raise step.refuse(
            f"its inputs do not fit each other ({text})", "correct the model, export it again"
        ) from None
    shapes = []
    for name in node.output:
        dims = found[name].tensor_type.shape.dim if name in found else []
        shapes.append(tuple(int(d.dim_value) for d in dims))
    if math.prod(shapes[0][1:]) >= MOST_VALUES:
        raise step.refuse(
            f"its result {show(shapes[0])} is beyond the machine's memory of 4 GB",
            "export with a smaller input",
        )
    if any(d < 1 for d in shapes[0]):
        raise step.refuse(
            f"its result is empty or of unknown size {show(shapes[0])}",
            "use a larger input or a smaller kernel",
        )
    return shapes


__all__ = ["FLOATS", "MOST_VALUES", "declared_shape", "inferred_shapes"]
