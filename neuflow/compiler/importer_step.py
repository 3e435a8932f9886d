"""One ONNX node while it is imported, and the values that it takes and gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from neuflow.errors import ModelError

Array = NDArray[Any]


@dataclass(frozen=True)
class Data:
    """A value that depends on the inputs: ``shape`` as ONNX has it, batch first."""

    name: str
    shape: tuple[int, ...]
    elem: int = TensorProto.FLOAT


@dataclass(frozen=True)
class HostValue:
    """What the host computes after the grid."""

    name: str
    op: str
    shape: tuple[int, ...]


Value = Array | Data | HostValue | None


def describe(node: NodeProto) -> str:
    """Return how messages name an ONNX node."""
    name = node.name or (node.output[0] if node.output else "?")
    return f"node {name!r} ({node.op_type})"


def refuse(node: NodeProto, reason: str, instead: str) -> ModelError:
    """Return the error for a node: one line with what is wrong and what would do instead."""
    return ModelError(f"{describe(node)}: {reason}; {instead}")


@dataclass
class Step:
    """One ONNX node while it is imported: its inputs' values, attributes, and output's shape."""

    node: NodeProto
    values: list[Value]
    attrs: dict[str, Any]
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def refuse(self, reason: str, instead: str) -> ModelError:
        """Return the error for this node."""
        return refuse(self.node, reason, instead)

    def value(self, index: int) -> Value:
        """Return an input, None where it is left out."""
        return self.values[index] if index < len(self.values) else None

    def data(self, index: int = 0) -> Data:
        """Return an input that must depend on the model's inputs."""
        value = self.value(index)
        if not isinstance(value, Data):
            raise self.refuse(
                f"input {index} must be computed from the model's inputs, not be constant",
                "swap the operands or fold the constants",
            )
        return value

    def constant(self, index: int, what: str) -> Array | None:
        """Return an input that must be constant; None where it is left out."""
        value = self.value(index)
        if value is None or isinstance(value, np.ndarray):
            return value
        raise self.refuse(
            f"{what} {self.node.input[index]!r} is computed at run time, not a constant weight",
            "export the model with its weights as initialisers",
        )

    def number(self, index: int, what: str, default: float) -> float:
        """Return a constant that is one number; ``default`` where it is left out."""
        array = self.constant(index, what)
        if array is None:
            return default
        if array.size != 1:
            raise self.refuse(f"{what} has shape {list(array.shape)}", "give one number")
        return float(array.reshape(()))

    def weights(self, index: int, what: str) -> NDArray[np.float64] | None:
        """Return constant weights in float64; refuse NaN and infinity."""
        array = self.constant(index, what)
        if array is None:
            return None
        array = np.asarray(array, np.float64)
        if not np.isfinite(array).all():
            raise self.refuse(
                f"{what} {self.node.input[index]!r} holds NaN or infinite values",
                "train or export the model again",
            )
        return array


__all__ = ["Array", "Data", "HostValue", "Step", "Value", "describe", "refuse"]
