"""Walks an ONNX graph and builds the nodes of :mod:`neuflow.ir`; ``operators`` says what each does.

The importer walks the sorted ONNX graph once. A value is a constant (then every operation on
constants is folded, by ONNX's reference evaluator) or data, whose first dimension is the batch.
A symbolic batch is given a number, so that shape arithmetic folds like all else and a Reshape that
mixes images shows; :attr:`Importer.reads_batch` says when a second number must give the same graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

from neuflow.compiler import constants
from neuflow.compiler.importer_graph import GraphBuilder, image_shape
from neuflow.compiler.importer_shapes import declared_shape, inferred_shapes
from neuflow.compiler.importer_step import Data, HostValue, Step, Value
from neuflow.errors import ModelError
from neuflow.ir import Graph, Tensor

SYMBOLIC_BATCH = 127
"""Stands for a symbolic first dimension while shapes are computed."""
OTHER_BATCH = 113
"""Stands for it once more, to see whether anything but shapes depends on it."""

RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial",
          "Bernoulli")  # fmt: skip
SUBGRAPHS = ("If", "Loop", "Scan", "SequenceMap")

HOST_OPS = {"Softmax": "softmax", "LogSoftmax": "logsoftmax", "ArgMax": "argmax"}
"""Operations that the host does after the grid, so at the end of a model only."""

HINTS: dict[str, str] = {
    "ConvTranspose": "use Conv",
    "Exp": "use Sigmoid or Tanh",
    "QLinearConv": "export the float model, quantisation is done here",
    "QuantizeLinear": "export the float model, quantisation is done here",
    "DequantizeLinear": "export the float model, quantisation is done here",
    "Reciprocal": "use Div of two tensors",
    "Resize": "resize on the host, before the model",
    "Slice": "cut on the host, or use the pads and strides of Conv and pool",
    "Split": "use a 1x1 Conv for each part",
    "Upsample": "resize on the host, before the model",
    "InstanceNormalization": "use BatchNormalization",
    "LayerNormalization": "use BatchNormalization",
    "If": "export one branch",
    "Loop": "unroll it",
}
"""What to use instead of an operation."""


class Importer(GraphBuilder):
    """Walks a checked, sorted ONNX model and builds the graph. Use once: ``run()``."""

    def __init__(
        self, model: ModelProto, opset: int, name: str, handlers: Handlers,
        symbolic_batch: int = SYMBOLIC_BATCH,
    ):  # fmt: skip
        graph = model.graph
        taken = {value.name for value in (*graph.input, *graph.output)}
        taken |= {node.output[0] for node in graph.node if node.op_type in HOST_OPS}
        super().__init__(taken)
        self.model = model
        self.symbolic_batch = symbolic_batch
        self.handlers = handlers
        self.opset = opset
        self.name = name
        self.values: dict[str, Value] = {"": None}
        self.batch = 1
        self.fixed_batch: int | None = None
        self.symbolic = False
        self._folded_shape = False

    def run(self) -> Graph:
        """Return the graph, not yet simplified."""
        graph = self.model.graph
        for tensor in graph.initializer:
            try:
                self.values[tensor.name] = numpy_helper.to_array(tensor)
            except (KeyError, TypeError, ValueError):
                raise ModelError(
                    f"{self.name}: weight {tensor.name!r}: its values do not fit its type "
                    f"({tensor.data_type}) and shape {tuple(tensor.dims)}; export the model again"
                ) from None
        for sparse in graph.sparse_initializer:
            raise ModelError(
                f"{self.name}: weight {sparse.values.name!r} is sparse; export dense weights"
            )
        self._read_inputs()
        for node in graph.node:
            self._import(node)
        return self._finish()

    @property
    def reads_batch(self) -> bool:
        """Whether anything may depend on the number that stands for a symbolic batch.

        A Shape that was folded; or a constant that has this number by chance, in a shape or as one.
        """
        number = self.symbolic_batch
        constants = [value for value in self.values.values() if isinstance(value, np.ndarray)]
        return self.symbolic and (
            self._folded_shape
            or any(number in c.shape or (c.dtype.kind in "iu" and number in c) for c in constants)
        )

    # --- inputs and outputs -----------------------------------------------------------------

    def _read_inputs(self) -> None:
        """Declare the inputs that are no weights; settle the batch."""
        used = {name for node in self.model.graph.node for name in node.input}
        used |= {value.name for value in self.model.graph.output}
        inputs = [v for v in self.model.graph.input if v.name not in self.values]
        if not inputs:
            raise ModelError(f"{self.name}: has no inputs, only constants; export it with an input")
        shapes = {v.name: declared_shape(v) for v in inputs}
        self._settle_batch(shapes)
        for value in inputs:
            if value.name not in used:
                raise ModelError(
                    f"input {value.name!r}: no output depends on it; remove it from the model"
                )
            dims = shapes[value.name][1:]
            shape = (self.batch, *[int(d) for d in dims if d is not None])
            self.values[value.name] = Data(value.name, shape, value.type.tensor_type.elem_type)
            own = shape[1:]
            self.tensors[value.name] = Tensor(value.name, image_shape(own), onnx_shape=own)
            self.inputs.append(value.name)

    def _settle_batch(self, shapes: dict[str, tuple[int | None, ...]]) -> None:
        """Give the batch its number; all inputs must agree."""
        batches = {shape[0] for shape in shapes.values()}
        if len(batches) > 1:
            listed = ", ".join(f"{n!r}: {s[0] or 'symbolic'}" for n, s in shapes.items())
            raise ModelError(
                f"{self.name}: inputs have different batches ({listed}); export all with the same "
                "first dimension"
            )
        fixed = batches.pop()
        self.batch = self.symbolic_batch if fixed is None else fixed
        self.fixed_batch = fixed if fixed is not None and fixed > 1 else None
        self.symbolic = fixed is None

    def _finish(self) -> Graph:
        """Name the outputs as the model does."""
        outputs: list[str] = []
        for value in self.model.graph.output:
            found = self.values[value.name]
            if isinstance(found, HostValue):
                self.rename_host(found.name, value.name)
                continue
            if not isinstance(found, Data):
                raise ModelError(
                    f"output {value.name!r}: is constant; remove it, the host knows it already"
                )
            outputs.append(self._name_output(found, value.name))
        self._finish_host(outputs)
        if not self.nodes:
            raise ModelError(
                f"{self.name}: the graph is empty; a model needs at least one operation"
            )
        return Graph(
            self.name, tuple(self.nodes), self.tensors, tuple(self.inputs),
            tuple(dict.fromkeys(outputs)), tuple(self.host), self.fixed_batch,
        )  # fmt: skip

    def _finish_host(self, outputs: list[str]) -> None:
        """Let the tensors that the host works on leave the grid; mark those that are outputs too.

        HostOp.attrs: ``keep``, whether the operand is an output of the model as well; ``shape``,
        for operands from the grid: the model's shape of the operand without the batch.
        """
        made = {op.output for op in self.host}
        wanted = {value.name for value in self.model.graph.output}
        for place, op in enumerate(self.host):
            self.host[place] = replace(op, attrs={**op.attrs, "keep": op.input in wanted})
            if op.input in made:
                continue
            tensor = self.tensors[op.input]
            if tensor.onnx_shape is None:
                self.tensors[op.input] = replace(tensor, onnx_shape=op.attrs["shape"])
            outputs.append(op.input)

    def _name_output(self, data: Data, name: str) -> str:
        """Call tensor ``data`` ``name``; where it has a name to keep already, copy it."""
        if name in self.inputs and self.model.graph.node:
            raise ModelError(f"output {name!r}: is an input too; remove it, the host knows it already")
        keeps = data.name in self.inputs or self.tensors[data.name].onnx_shape is not None
        shape = image_shape(data.shape[1:])
        if keeps and data.name != name:
            if not self.nodes and len(self.model.graph.node) == 0:
                raise ModelError(
                    f"{self.name}: the graph is empty, output {name!r} is an input; a model needs "
                    "at least one operation"
                )
            source = data.name
            if self.tensors[source].shape != shape:
                source = self.add("reshape", "reshape", (source,), shape, {"shape": shape})
            self.add("identity", "map", (source,), shape, {"function": "identity"}, name)
        elif data.name != name:
            self._rename(data.name, name)
        self.tensors[name] = Tensor(name, self.tensors[name].shape, onnx_shape=data.shape[1:])
        return name

    def _rename(self, old: str, new: str) -> None:
        """Rename a tensor, also where it is a value."""
        self.rename(old, new)
        for key, value in self.values.items():
            if isinstance(value, Data) and value.name == old:
                self.values[key] = Data(new, value.shape, value.elem)

    # --- one node ---------------------------------------------------------------------------

    def _import(self, node: NodeProto) -> None:
        """Fold a node of constants, or hand it to its operator."""
        values = [self.values[name] for name in node.input]
        attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        step = Step(node, values, attrs)
        host = next((v for v in values if isinstance(v, HostValue)), None)
        if host is not None and node.op_type not in (*HOST_OPS, "Identity"):
            raise step.refuse(
                f"uses the result of {host.op}, which the host computes after the grid",
                f"{host.op} is possible at the end of a model only; remove what follows it",
            )
        if self._fold(step):
            return
        self._check_node(step)
        handler = self.handlers.get(node.op_type)
        if handler is None:
            possible = "possible are " + ", ".join(self.handlers)
            raise step.refuse(
                "this operation is not supported", HINTS.get(node.op_type, possible)
            )
        for extra in node.output[1:]:
            if extra and self._is_used(extra):
                raise step.refuse(
                    f"its further output {extra!r} is used", "only the first output is possible"
                )
        old_training = (  # before operator set 14 further outputs said it
            node.op_type == "BatchNormalization" and self.opset < 14 and any(node.output[1:])
        )
        if old_training or step.attrs.get("training_mode", 0):
            raise step.refuse(
                "is in training mode", "export the model in evaluation mode (model.eval())"
            )
        step.shapes = inferred_shapes(step, self.opset, self.show)
        result = handler(self, step)
        self._check_result(step, result)
        self.values[node.output[0]] = result

    def _check_node(self, step: Step) -> None:
        """Refuse what ONNX's checker passes over: inputs left out, and attributes that are no number."""
        node = step.node
        formal = onnx.defs.get_schema(node.op_type, self.opset, "").inputs
        for index, name in enumerate(node.input):
            wanted = formal[min(index, len(formal) - 1)]
            if not name and wanted.option != onnx.defs.OpSchema.FormalParameterOption.Optional:
                raise step.refuse(f"input {index} ({wanted.name}) is left out", "export it again")
        for name, value in step.attrs.items():
            if isinstance(value, float) and not math.isfinite(value) and node.op_type != "Clip":
                raise step.refuse(f"{name} is {value:g}", "export it again, with a finite number")

    def _check_result(self, step: Step, result: Value) -> None:
        """Hold the invariants: the first dimension is the batch, the shape is the one ONNX infers."""
        if not isinstance(result, Data):
            return
        if len(result.shape) < 1 or result.shape[0] != self.batch:
            shapes = f"{self.show(step.data().shape)} -> {self.show(result.shape)}"
            also = ", or export with the batch fixed to 1" if self.symbolic else ""
            raise step.refuse(
                f"moves or mixes the batch, the first dimension: {shapes}",
                f"keep images apart{also}",
            )
        if len(result.shape) > 4:
            raise step.refuse(
                f"result has {len(result.shape)} dimensions", "at most N, C, H, W are possible"
            )
        if result.shape != step.shapes[0]:
            raise step.refuse(
                f"its constants broadcast {self.show(result.shape)} to {self.show(step.shapes[0])}",
                "give constants no more dimensions, and none longer, than the tensor has",
            )

    def show(self, shape: tuple[int, ...]) -> str:
        """Return an ONNX shape for a message, a symbolic batch as N."""
        dims = ["N" if self.symbolic and d == self.batch else str(d) for d in shape]
        return f"[{', '.join(dims)}]"

    def _is_used(self, name: str) -> bool:
        graph = self.model.graph
        return any(name in n.input for n in graph.node) or any(name == o.name for o in graph.output)

    def _fold(self, step: Step) -> bool:
        """Compute a node whose result depends on no input; True if it was one."""
        node = step.node
        if any(isinstance(v, Data | HostValue) for v in step.values):
            return self._fold_shape(step)
        if node.op_type in RANDOM or node.op_type in SUBGRAPHS:
            return False
        self.values |= constants.fold(step, self.opset)
        return True

    def _fold_shape(self, step: Step) -> bool:
        """Fold what only the shape or the type of data matters to, which are constants here."""
        data, kind = step.value(0), step.node.op_type
        if kind == "CastLike" and isinstance(data, np.ndarray):
            like = step.data(1)
            self.values[step.node.output[0]] = data.astype(helper.tensor_dtype_to_np_dtype(like.elem))
            return True
        if kind not in ("Shape", "Size") or not isinstance(data, Data):
            return False
        dims = data.shape[step.attrs.get("start", 0) : step.attrs.get("end", len(data.shape))]
        result = dims if kind == "Shape" else math.prod(dims)
        self._folded_shape = True
        self.values[step.node.output[0]] = np.array(result, np.int64)
        return True


Handlers = Mapping[str, Callable[[Importer, Step], Value]]
"""What imports a node of each operation on data."""
