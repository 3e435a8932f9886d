"""The graph while a model is imported: nodes, tensors and what the host does, and their names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from neuflow.compiler.importer_step import Data, Step
from neuflow.errors import ModelError
from neuflow.ir import HostOp, Node, Shape, Tensor


def image_shape(dims: Sequence[int]) -> Shape:
    """Return (C, H, W) of one image from its ONNX dimensions; the order of values stays."""
    dims = tuple(int(d) for d in dims)
    if len(dims) == 3:
        return dims
    if len(dims) == 2:
        return (dims[0], 1, dims[1])
    return (math.prod(dims), 1, 1)


class GraphBuilder:
    """A graph to which nodes are added. ``taken``: names that no new tensor may have."""

    def __init__(self, taken: set[str]) -> None:
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.host: list[HostOp] = []
        self.inputs: list[str] = []
        self._taken = taken
        self._names: set[str] = set()
        self._new_tensors = 0

    def unique(self, wanted: str) -> str:
        """Return ``wanted``, or it with the first free number."""
        name, number = wanted, 1
        while name in self._names:
            name, number = f"{wanted}_{number}", number + 1
        self._names.add(name)
        return name

    def emit(
        self, step: Step, op: str, inputs: Sequence[Data], attrs: dict[str, Any],
        shape: tuple[int, ...] | None = None,
    ) -> Data:  # fmt: skip
        """Add a node for ``step``; ``shape`` is its result's ONNX shape."""
        shape = step.shapes[0] if shape is None else shape
        names = tuple(self.as_image(i) for i in inputs)
        output = self.add(self.node_name(step), op, names, image_shape(shape[1:]), attrs)
        return Data(output, shape, inputs[0].elem)

    def node_name(self, step: Step) -> str:
        """Return the ONNX node's name, or one made from its operation; not yet unique."""
        return step.node.name or f"{step.node.op_type.lower()}_{len(self.nodes)}"

    def as_image(self, data: Data) -> str:
        """Return the tensor of ``data`` as (C, H, W), through a view where it has another shape."""
        shape = image_shape(data.shape[1:])
        if self.tensors[data.name].shape == shape:
            return data.name
        return self.add("reshape", "reshape", (data.name,), shape, {"shape": shape})

    def add(
        self, name: str, op: str, inputs: tuple[str, ...], shape: Shape, attrs: dict[str, Any],
        output: str | None = None,
    ) -> str:  # fmt: skip
        """Add a node under a unique name; return its output, a new tensor."""
        name = self.unique(name)
        output = self._free_tensor(name) if output is None else output
        self.nodes.append(Node(name, op, inputs, output, attrs))
        self.tensors[output] = Tensor(output, shape)
        return output

    def _free_tensor(self, wanted: str) -> str:
        """Return a tensor name that no input, output or result of the host has."""
        name = wanted
        while name in self.tensors or name in self._taken:
            self._new_tensors += 1
            name = f"{wanted}.{self._new_tensors}"
        return name

    def rename(self, old: str, new: str) -> None:
        """Rename a tensor everywhere."""
        if new in self.tensors:  # an inner tensor that was only an alias of another
            raise AssertionError(f"tensor {new!r} exists twice")
        self.tensors = {
            (new if name == old else name): tensor for name, tensor in self.tensors.items()
        }
        tensor = self.tensors[new]
        self.tensors[new] = Tensor(new, tensor.shape)
        for place, node in enumerate(self.nodes):
            inputs = tuple(new if i == old else i for i in node.inputs)
            output = new if node.output == old else node.output
            self.nodes[place] = Node(node.name, node.op, inputs, output, node.attrs)
        self.host = [replace(h, input=new if h.input == old else h.input) for h in self.host]

    def rename_host(self, old: str, new: str) -> None:
        """Call a host operation's result by the name of the model's output."""
        if old not in {op.output for op in self.host}:
            raise ModelError(f"output {new!r}: is a copy of another output; remove it")
        self.host = [
            replace(
                op,
                input=new if op.input == old else op.input,
                output=new if op.output == old else op.output,
            )
            for op in self.host
        ]


__all__ = ["GraphBuilder", "image_shape"]
