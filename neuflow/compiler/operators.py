"""ONNX operators -> nodes of :mod:`neuflow.ir`: what each means here, and why some are refused.

The importer walks the sorted ONNX graph once. A value is a constant (then every operation on
constants is folded, by ONNX's reference evaluator) or data, whose first dimension is the batch.
A symbolic batch is given a number that no other dimension has, so that shape arithmetic folds
like all else and a Reshape that mixes images shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from neuflow.errors import ModelError
from neuflow.ir import Graph, HostOp, Node, Shape, Tensor

SYMBOLIC_BATCH = 127
"""Stands for a symbolic first dimension while shapes are computed."""

FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial",
          "Bernoulli")  # fmt: skip

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

    def __init__(self, model: ModelProto, opset: int, name: str):
        self.model = model
        self.opset = opset
        self.name = name
        self.values: dict[str, Value] = {"": None}
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.host: list[HostOp] = []
        self.inputs: list[str] = []
        self.batch = 1
        self.fixed_batch: int | None = None
        self._names: set[str] = set()
        self._new_tensors = 0

    def run(self) -> Graph:
        """Return the graph, not yet simplified."""
        graph = self.model.graph
        for tensor in graph.initializer:
            self.values[tensor.name] = numpy_helper.to_array(tensor)
        for sparse in graph.sparse_initializer:
            raise ModelError(
                f"{self.name}: weight {sparse.values.name!r} is sparse; export dense weights"
            )
        self._read_inputs()
        for node in graph.node:
            self._import(node)
        return self._finish()

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
            self.tensors[value.name] = Tensor(value.name, image_shape(shape[1:]), onnx_shape=shape[1:])
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
                    f"input {value.name!r}: dimension {place} is symbolic ({symbol!r}); export with "
                    "a fixed size, only the batch may be symbolic"
                )
            if dim is not None and dim < 1:
                raise ModelError(
                    f"input {value.name!r}: dimension {place} is {dim}; export with a size of 1 or "
                    "more"
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
        self.batch = SYMBOLIC_BATCH if fixed is None else fixed
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
            raise ModelError(f"{self.name}: the graph is empty; a model needs at least one operation")
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

        HostOp.attrs: ``shape``, the model's shape of the operand without the batch; ``keep``,
        whether the operand is an output of the model as well. Both only for operands from the grid.
        """
        made = {op.output for op in self.host}
        wanted = {value.name for value in self.model.graph.output}
        for place, op in enumerate(self.host):
            if op.input in made:
                continue
            keep = op.input in wanted
            self.host[place] = replace(op, attrs={**op.attrs, "keep": keep})
            tensor = self.tensors[op.input]
            if tensor.onnx_shape is None:
                self.tensors[op.input] = replace(tensor, onnx_shape=op.attrs["shape"])
            outputs.append(op.input)

    def _name_output(self, data: Data, name: str) -> str:
        """Call tensor ``data`` ``name``; where it has a name to keep already, copy it."""
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
        if node.domain not in ("", "ai.onnx"):
            raise step.refuse(
                f"domain {node.domain!r} is not ONNX's own", "export with standard operators only"
            )
        host = next((v for v in values if isinstance(v, HostValue)), None)
        if host is not None and node.op_type not in (*HOST_OPS, "Identity"):
            raise step.refuse(
                f"uses the result of {host.op}, which the host computes after the grid",
                f"{host.op} is possible at the end of a model only; remove what follows it",
            )
        if self._fold(step):
            return
        handler = HANDLERS.get(node.op_type)
        if handler is None:
            raise step.refuse("this operation is not supported", _hint(node.op_type))
        for extra in node.output[1:]:
            if extra and self._is_used(extra):
                raise step.refuse(
                    f"its further output {extra!r} is used", "only the first output is possible"
                )
        step.shapes = self._infer(step)
        result = handler(self, step)
        self._check_result(step, result)
        self.values[node.output[0]] = result

    def _check_result(self, step: Step, result: Value) -> None:
        """Hold the invariant: the first dimension is the batch."""
        if not isinstance(result, Data):
            return
        if len(result.shape) < 1 or result.shape[0] != self.batch:
            raise step.refuse(
                f"moves or mixes the batch, the first dimension: {self._show(step.data().shape)} -> "
                f"{self._show(result.shape)}",
                "keep images apart" + (
                    ", or export with the batch fixed to 1" if self.symbolic else ""
                ),
            )
        if len(result.shape) > 4:
            raise step.refuse(
                f"result has {len(result.shape)} dimensions", "at most N, C, H, W are possible"
            )

    def _show(self, shape: tuple[int, ...]) -> str:
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
        if node.op_type in RANDOM or any(
            a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute
        ):
            return False
        feeds = {n: v for n, v in zip(node.input, step.values, strict=True) if v is not None}
        try:
            results = ReferenceEvaluator(node, opsets={"": self.opset}).run(None, feeds)
        except Exception as error:  # the evaluator raises whatever its operator's code does
            text = " ".join(str(error).split())[:120]
            raise step.refuse(
                f"this operation on constants cannot be computed ({text})", "export it again"
            ) from None
        for name, result in zip(node.output, results, strict=False):
            self.values[name] = np.asarray(result)
        return True

    def _fold_shape(self, step: Step) -> bool:
        """Fold Shape and Size of data, which are constants here."""
        data, kind = step.value(0), step.node.op_type
        if kind not in ("Shape", "Size") or not isinstance(data, Data):
            return False
        dims = data.shape[step.attrs.get("start", 0) : step.attrs.get("end", len(data.shape))]
        result = np.array(dims, np.int64) if kind == "Shape" else np.array(math.prod(dims), np.int64)
        self.values[step.node.output[0]] = result
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
        except (onnx.shape_inference.InferenceError, RuntimeError) as error:
            text = " ".join(str(error).split())[:160]
            raise step.refuse(
                f"its inputs do not fit each other ({text})", "correct the model and export it again"
            ) from None
        shapes = []
        for name in node.output:
            dims = found[name].tensor_type.shape.dim if name in found else []
            shapes.append(tuple(int(d.dim_value) for d in dims))
        if any(d < 1 for d in shapes[0]):
            raise step.refuse(
                f"its result is empty or of unknown size {list(shapes[0])}",
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
        """Return the tensor of ``data`` in its shape (C, H, W); a view is added where it differs."""
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
        """Return a tensor name that neither an input nor an output of the model has."""
        taken = {v.name for v in self.model.graph.input} | {v.name for v in self.model.graph.output}
        name = wanted
        while name in self.tensors or name in taken:
            self._new_tensors += 1
            name = f"{wanted}.{self._new_tensors}"
        return name


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
    stride, dilation, pads = _window(step, data.shape, kernel)
    if len(kernel) == 1:
        weight = weight[:, :, None, :]
    attrs = {
        "weight": weight.astype(np.float32),
        "bias": (np.zeros(len(weight)) if bias is None else bias).astype(np.float32),
        "stride": stride,
        "dilation": dilation,
        "pads": pads,
        "groups": int(step.attrs.get("group", 1)),
    }
    return importer.emit(step, "conv", [data], attrs)


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
    return np.broadcast_to(flat, (channels,)).astype(np.float64) if flat.size in (1, channels) else None


def _batch_norm(importer: Importer, step: Step) -> Value:
    if step.attrs.get("training_mode", 0):
        raise step.refuse(
            "is in training mode", "export the model in evaluation mode (model.eval())"
        )
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
                f"the shapes {importer._show(a.shape)} and {importer._show(b.shape)} differ",
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
            f"{importer._show(data.shape)}",
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

HOST_OPS = {"Softmax": "softmax", "LogSoftmax": "logsoftmax", "ArgMax": "argmax"}


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
            raise step.refuse("is applied to an input", "a model needs at least one operation before")
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

HINTS: dict[str, str] = {
    "Concat": "write the branches as separate outputs, or use Add",
    "ConvTranspose": "use Conv",
    "Elu": "use Relu, Tanh or Sigmoid",
    "Gelu": "use Relu, Tanh or Sigmoid",
    "HardSigmoid": "use Sigmoid, or a scale folded into Conv and Clip",
    "HardSwish": "use Relu or Clip (ReLU6)",
    "LRN": "use BatchNormalization",
    "LeakyRelu": "use Relu",
    "PRelu": "use Relu",
    "Pad": "set the pads of the Conv or pool that follows (zeros)",
    "QLinearConv": "export the float model, quantisation is done here",
    "QuantizeLinear": "export the float model, quantisation is done here",
    "DequantizeLinear": "export the float model, quantisation is done here",
    "Resize": "resize on the host, before the model",
    "Upsample": "resize on the host, before the model",
    "InstanceNormalization": "use BatchNormalization",
    "LayerNormalization": "use BatchNormalization",
    "If": "export one branch",
    "Loop": "unroll it",
}


def _hint(op: str) -> str:
    """Return what to use instead of an operation."""
    return HINTS.get(op, "possible are " + ", ".join(HANDLERS))
