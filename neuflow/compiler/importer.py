"""Walks an ONNX graph and builds the nodes of :mod:`neuflow.ir`; ``operators`` says what each does.

The importer walks the sorted ONNX graph once. A value is a constant (then every operation on
constants is folded, by ONNX's reference evaluator) or data, whose first dimension is the batch.
A symbolic batch is given a number, so that shape arithmetic folds like all else and a Reshape that
mixes images shows; :attr:`Importer.reads_batch` says when a second number must give the same graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from neuflow.compiler import constants
from neuflow.errors import ModelError
from neuflow.ir import Graph, HostOp, Node, Shape, Tensor

SYMBOLIC_BATCH = 127
"""Stands for a symbolic first dimension while shapes are computed."""
OTHER_BATCH = 113
"""Stands for it once more, to see whether anything but shapes depends on it."""

MOST_VALUES = 1 << 31
"""Words that the machine's memory of 4 GB holds."""

FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial",
          "Bernoulli")  # fmt: skip
SUBGRAPHS = ("If", "Loop", "Scan", "SequenceMap")

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


HOST_OPS = {"Softmax": "softmax", "LogSoftmax": "logsoftmax", "ArgMax": "argmax"}
"""Operations that the host does after the grid, so at the end of a model only."""

Value = Array | Data | HostValue | None


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


def describe(node: NodeProto) -> str:
    """Return how messages name an ONNX node."""
    name = node.name or (node.output[0] if node.output else "?")
    return f"node {name!r} ({node.op_type})"


def refuse(node: NodeProto, reason: str, instead: str) -> ModelError:
    """Return the error for a node: one line with what is wrong and what would do instead."""
    return ModelError(f"{describe(node)}: {reason}; {instead}")


def image_shape(dims: Sequence[int]) -> Shape:
    """Return (C, H, W) of one image from its ONNX dimensions; the order of values stays."""
    dims = tuple(int(d) for d in dims)
    if len(dims) == 3:
        return dims
    if len(dims) == 2:
        return (dims[0], 1, dims[1])
    return (math.prod(dims), 1, 1)


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


class Importer:
    """Walks a checked, sorted ONNX model and builds the graph. Use once: ``run()``."""

    def __init__(
        self, model: ModelProto, opset: int, name: str, handlers: Handlers,
        symbolic_batch: int = SYMBOLIC_BATCH,
    ):  # fmt: skip
        self.model = model
        self.symbolic_batch = symbolic_batch
        self.handlers = handlers
        self.opset = opset
        self.name = name
        self.values: dict[str, Value] = {"": None}
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.host: list[HostOp] = []
        self.inputs: list[str] = []
        self.batch = 1
        self.fixed_batch: int | None = None
        self.symbolic = False
        self._folded_shape = False
        self._names: set[str] = set()
        self._new_tensors = 0
        graph = model.graph
        self._taken = {value.name for value in (*graph.input, *graph.output)}
        self._taken |= {node.output[0] for node in graph.node if node.op_type in HOST_OPS}

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
        shapes = {v.name: self._declared_shape(v) for v in inputs}
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

    def _declared_shape(self, value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
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
                self._rename_host(found.name, value.name)
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

    def _rename_host(self, old: str, new: str) -> None:
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
        step.shapes = self._infer(step)
        result = handler(self, step)
        self._check_result(step, result)
        self.values[node.output[0]] = result

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

    def _infer(self, step: Step) -> list[tuple[int, ...]]:
        """Return the outputs' shapes by ONNX's own inference."""
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
        schema = onnx.defs.get_schema(node.op_type, self.opset, "")
        try:
            found = onnx.shape_inference.infer_node_outputs(
                schema, node, types, known,
                opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8,
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
                f"its result {self.show(shapes[0])} is beyond the machine's memory of 4 GB",
                "export with a smaller input",
            )
        if any(d < 1 for d in shapes[0]):
            raise step.refuse(
                f"its result is empty or of unknown size {self.show(shapes[0])}",
                "use a larger input or a smaller kernel",
            )
        return shapes

    # --- emitting -----------------------------------------------------------------------------

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


Handlers = Mapping[str, Callable[[Importer, Step], Value]]
"""What imports a node of each operation on data."""
