"""Mutations of ONNX models: what damaged files, other exporters and careless hands make of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, defs, helper, numpy_helper

OPERATIONS = sorted(schema.name for schema in defs.get_all_schemas() if schema.domain == "")
NUMBERS = (0, -1, 1, 2, 3, 7, 1000, 2**31, -(2**31))
FLOATS = (0.0, -1.0, 0.5, 1e30, np.nan, np.inf)
TEXTS = ("SAME_UPPER", "SAME_LOWER", "VALID", "SAME", "tanh", "reflect", "")
TYPES = (np.float16, np.float64, np.int8, np.int32, np.int64)

Rng = np.random.Generator


def mutate(model: ModelProto, rng: Rng) -> str:
    """Change ``model`` in one to three places, and say how."""
    said = []
    for _ in range(rng.integers(1, 4)):
        mutation = _one(rng, MUTATIONS)
        mutation(model, rng)
        said.append(mutation.__name__.strip("_"))
    return ", ".join(said)


def _one(rng: Rng, items: Any) -> Any:
    return items[int(rng.integers(len(items)))]


def _node(model: ModelProto, rng: Rng) -> NodeProto:
    return _one(rng, model.graph.node)


def _name(model: ModelProto, rng: Rng) -> str:
    """Return the name of a tensor that a node computes or takes."""
    return _one(rng, [name for node in model.graph.node for name in (*node.output, *node.input)])


def _other_attribute(model: ModelProto, rng: Rng) -> None:
    node = _node(model, rng)
    if not node.attribute:
        return
    attribute = _one(rng, node.attribute)
    if attribute.ints:
        attribute.ints[int(rng.integers(len(attribute.ints)))] = _one(rng, NUMBERS)
    elif attribute.type == AttributeProto.INT:
        attribute.i = _one(rng, NUMBERS)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = _one(rng, FLOATS)


def _no_attribute(model: ModelProto, rng: Rng) -> None:
    node = _node(model, rng)
    if node.attribute:
        node.attribute.pop(int(rng.integers(len(node.attribute))))


def _one_attribute_more(model: ModelProto, rng: Rng) -> None:
    node = _node(model, rng)
    known = defs.get_schema(node.op_type).attributes
    left = sorted(set(known) - {attribute.name for attribute in node.attribute})
    if not left:
        return
    name = _one(rng, left)
    values = {
        "INT": _one(rng, NUMBERS), "FLOAT": _one(rng, FLOATS), "STRING": _one(rng, TEXTS),
        "INTS": rng.integers(0, 4, _one(rng, (1, 2, 2, 4))).tolist(),
    }  # fmt: skip
    if known[name].type.name in values:
        node.attribute.append(helper.make_attribute(name, values[known[name].type.name]))


def _other_operation(model: ModelProto, rng: Rng) -> None:
    _node(model, rng).op_type = _one(rng, OPERATIONS)


def _other_operator_set(model: ModelProto, rng: Rng) -> None:
    model.opset_import[0].version = int(rng.integers(1, 30))


def _no_last_input(model: ModelProto, rng: Rng) -> None:
    del _node(model, rng).input[-1:]


def _one_input_more(model: ModelProto, rng: Rng) -> None:
    _node(model, rng).input.append(_name(model, rng))


def _input_left_out(model: ModelProto, rng: Rng) -> None:
    node = _node(model, rng)
    if node.input:
        node.input[int(rng.integers(len(node.input)))] = ""


def _inputs_exchanged(model: ModelProto, rng: Rng) -> None:
    node = _node(model, rng)
    node.input[:] = rng.permutation(list(node.input)).tolist()


def _node_twice(model: ModelProto, rng: Rng) -> None:
    model.graph.node.append(_node(model, rng))


def _other_output(model: ModelProto, rng: Rng) -> None:
    model.graph.output[0].name = _name(model, rng)


def _other_input_shape(model: ModelProto, rng: Rng) -> None:
    dims = model.graph.input[0].type.tensor_type.shape.dim
    _one(rng, dims).dim_value = _one(rng, (0, 1, 2, 5, -1, 1000))


def _no_weight(model: ModelProto, rng: Rng) -> None:
    if model.graph.initializer:
        model.graph.initializer.pop(int(rng.integers(len(model.graph.initializer))))


def _on_weight(change: Callable[[np.ndarray, Rng], np.ndarray]) -> Callable[[ModelProto, Rng], None]:
    def mutation(model: ModelProto, rng: Rng) -> None:
        if model.graph.initializer:
            tensor: TensorProto = _one(rng, model.graph.initializer)
            changed = change(numpy_helper.to_array(tensor).copy(), rng)
            tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))

    mutation.__name__ = change.__name__
    return mutation


@_on_weight
def _weight_of_other_type(values: np.ndarray, rng: Rng) -> np.ndarray:
    with np.errstate(all="ignore"):
        return values.astype(_one(rng, TYPES))


@_on_weight
def _weight_of_other_rank(values: np.ndarray, rng: Rng) -> np.ndarray:
    return values.reshape(_one(rng, ((1, *values.shape), (*values.shape, 1), (-1,))))


@_on_weight
def _weight_cut_short(values: np.ndarray, rng: Rng) -> np.ndarray:
    return values.reshape(-1)[: rng.integers(3)]


@_on_weight
def _weight_with_one_other_value(values: np.ndarray, rng: Rng) -> np.ndarray:
    if values.size and values.dtype.kind == "f":
        values.flat[rng.integers(values.size)] = _one(rng, (np.nan, -np.inf, 1e30, 1e-40, 0))
    return values


MUTATIONS: tuple[Callable[[ModelProto, Rng], None], ...] = (
    _other_attribute, _other_attribute, _no_attribute, _one_attribute_more, _one_attribute_more,
    _other_operation, _other_operator_set, _no_last_input, _one_input_more, _input_left_out,
    _inputs_exchanged, _node_twice, _other_output, _other_input_shape, _no_weight,
    _weight_of_other_type, _weight_of_other_rank, _weight_cut_short, _weight_with_one_other_value,
)  # fmt: skip
