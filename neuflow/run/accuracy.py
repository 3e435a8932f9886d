"""How far golden is from the model, layer by layer, and how far it can be at most.

Three evaluations side by side: the float graph in float64, the quantised graph in golden's
integers, and the interval in which golden must lie (:mod:`neuflow.run.interval`). A word outside
its interval is a bug.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuflow.compiler import float_eval, functions
from neuflow.compiler.importer import HOST_OPS
from neuflow.errors import InputError
from neuflow.ir import Graph, Node, QuantGraph, Shape, Words
from neuflow.run import golden, host
from neuflow.run.interval import Forms, Interval, Real, pool_gain, propagate


@dataclass(frozen=True)
class Accuracy:
    """Of one tensor: worst error and its bound in the tensor's own values.

    ``outside``: words that are not within their interval, 0 unless there is a bug. ``saturated``:
    words at an end of the range whose real value lies beyond it. ``sqnr``: signal to quantisation
    noise, dB; infinite where there is no noise.
    """

    name: str
    operator: str
    error: float
    bound: float
    outside: int
    saturated: int
    sqnr: float


def measure(graph: Graph, quantised: QuantGraph, inputs: Mapping[str, Real]) -> list[Accuracy]:
    """Return the accuracy of every input and of every node's result, in order.

    Parameters
    ----------
    graph : the float graph that ``quantised`` was made of.
    inputs : real values by name, [N, ...] in the model's own shapes.
    """
    return [_accuracy(quantised, *found) for found in walk(graph, quantised, inputs)]


Found = tuple[str, str, Real, Words, Interval]
"""Tensor, operator, real values, golden's words, interval of golden's values."""


def walk(graph: Graph, quantised: QuantGraph, inputs: Mapping[str, Real]) -> Iterator[Found]:
    """Yield every tensor in order; forgotten after its last use, to save memory."""
    real_nodes = {node.output: node for node in graph.nodes}
    uses = Counter(name for node in quantised.nodes for name in node.inputs)
    held: dict[str, tuple[Real, Words, Interval]] = {}
    words = host.quantise_inputs(quantised, inputs)
    for name in quantised.inputs:
        real = np.asarray(inputs[name], np.float64).reshape(words[name].shape)
        if np.isinf(real).any():
            raise InputError(f"input {name!r} holds infinity, which has no error; replace those values")
        value = host.form(quantised.tensors[name]).dequantise(words[name])
        held[name] = real, words[name], Interval(value, value)
        yield name, "input", *held[name]
    for node in quantised.nodes:
        made = _evaluate(quantised, node, real_nodes, [held[name] for name in node.inputs])
        for name in node.inputs:
            uses[name] -= 1
            if not uses[name]:
                held.pop(name, None)
        held[node.output] = made
        yield node.output, node.op, *made


def _evaluate(
    quantised: QuantGraph, node: Node, real_nodes: Mapping[str, Node], operands: list[Any]
) -> tuple[Real, Words, Interval]:
    reals, words, intervals = (list(column) for column in zip(*operands, strict=True))
    counterpart = real_nodes.get(node.output)
    # A change of point for a concat stands for no node of the model.
    real = reals[0]
    if counterpart is not None:
        _check_operation(node, counterpart)
        real = float_eval.OPERATIONS[counterpart.op](counterpart, *reals)
    forms = Forms(
        tuple(host.form(quantised.tensors[name]) for name in node.inputs),
        host.form(quantised.tensors[node.output]),
    )
    if counterpart is not None and "weight" in node.attrs:
        _check_weights(node, counterpart, forms)
    if counterpart is not None and node.op == "pool" and node.attrs["kind"] == "sum":
        _check_divisors(node, counterpart, forms, quantised.tensors[node.inputs[0]].shape)
    result = golden.OPERATIONS[node.op](node, quantised.bits, *words)
    return real, result, propagate(node, forms, *intervals)


SAME = ("stride", "dilation", "pads", "groups", "kernel", "first", "count", "shape", "function")
"""Attributes that quantisation leaves as they are, beside the parameters of functions."""


def _check_operation(node: Node, counterpart: Node) -> None:
    """Refuse a model in which a tensor of the program's is made by another operation, or of others."""
    alike = node.op == counterpart.op
    for key in (*SAME, *functions.PARAMETERS):
        alike &= key not in node.attrs or node.attrs[key] == counterpart.attrs.get(key)
    if node.op == "alu":
        alike &= node.attrs["kind"] == counterpart.attrs["kind"]
    elif node.op == "pool":
        alike &= (node.attrs["kind"] == "max") == (counterpart.attrs["kind"] == "max")
    if node.op != "concat":  # an input of other words goes through a change of point
        alike &= node.inputs == counterpart.inputs
    if not alike:
        raise _other_operation(node)


def _other_operation(node: Node) -> InputError:
    return InputError(
        f"layer {node.name!r}: the program was compiled from another operation; compile this model"
    )


def _check_divisors(node: Node, counterpart: Node, forms: Forms, shape: Shape) -> None:
    """Refuse a model whose averages have other divisors: what both make of ones shows them."""
    ones = np.ones((1, *shape))
    pool = float_eval.OPERATIONS["pool"]
    count = pool(replace(node, attrs={**node.attrs, "kind": "average", "divisor": 1}), ones)
    wanted = pool(counterpart, ones)
    if (np.abs(count * pool_gain(node, forms) - wanted) > wanted * 2.0**-13).any():  # m has 15 bits
        raise _other_operation(node)


def _check_weights(node: Node, counterpart: Node, forms: Forms) -> None:
    """Refuse a model whose weights are not those that the program's were rounded from."""
    m, s = node.attrs["m"], np.asarray(node.attrs["s"], np.float64)
    gain = m * 2.0**-s * forms.result.step  # of a word of an accumulator
    by_map = gain.reshape(-1, *[1] * (node.attrs["weight"].ndim - 1))
    for key, unit in (("weight", by_map / forms.operands[0].step), ("bias", gain.reshape(-1))):
        wanted = np.asarray(counterpart.attrs[key], np.float64)
        off = np.abs(node.attrs[key] * unit - wanted)
        if (off > unit + np.abs(wanted) * 2.0**-13).any():  # for m has 15 bits
            raise InputError(
                f"layer {node.name!r}: the program was compiled from other weights; compile this model"
            )


def _accuracy(
    quantised: QuantGraph, name: str, operator: str, real: Real, words: Words, interval: Interval
) -> Accuracy:
    form = host.form(quantised.tensors[name])
    value = form.dequantise(words)
    low, high = form.low * form.step, form.high * form.step
    within = (interval.low <= value) & (value <= interval.high)
    beyond = ((words == form.low) & (real < low)) | ((words == form.high) & (real > high))
    return Accuracy(
        name,
        operator,
        error=float(np.abs(value - real).max()),
        bound=float(np.maximum(interval.high - real, real - interval.low).max()),
        outside=int(value.size - within.sum()),
        saturated=int(beyond.sum()),
        sqnr=sqnr(real, value),
    )


def sqnr(wanted: NDArray[Any], got: NDArray[Any]) -> float:
    """Return 10 log10(sum wanted**2 / sum (wanted - got)**2), dB."""
    wanted = np.asarray(wanted, np.float64)
    noise = float(np.square(wanted - np.asarray(got, np.float64)).sum())
    signal = float(np.square(wanted).sum())
    if not noise:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def against_onnxruntime(
    model: str, quantised: QuantGraph, inputs: Mapping[str, Real]
) -> dict[str, float] | str:
    """Return the SQNR of what the grid gives against onnxruntime, dB by output; or why there is none.

    ``model``: path of the ONNX file. Outputs are those before what the host computes (softmax and the
    like), which would hide what the grid lost.
    """
    try:
        import onnxruntime
    except ImportError:
        return "onnxruntime is not installed"
    import onnx
    import onnx.inliner

    content = onnx.load(model)
    if content.functions:  # what the host takes may lie within
        content = onnx.inliner.inline_local_functions(content)
    names = _onnx_names(content, quantised)
    del content.graph.output[:]
    content.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    plain = onnxruntime.SessionOptions()
    plain.log_severity_level = 4
    # What it makes of a model is not always the model: the zeros of a Pad before a MaxPool are lost.
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    words = golden.run(quantised, host.quantise_inputs(quantised, inputs)).outputs
    try:
        session = onnxruntime.InferenceSession(
            content.SerializeToString(), plain, providers=["CPUExecutionProvider"]
        )
        reals = _run(session, names, inputs)
    except InputError:
        raise
    except Exception as error:  # it lacks some operations of some types, and has many kinds of error
        return f"onnxruntime cannot run the model ({' '.join(str(error).split())[:200]})"
    found = {}
    for name, wanted in zip(quantised.outputs, reals, strict=True):
        got = host.form(quantised.tensors[name]).dequantise(words[name])
        found[name] = sqnr(wanted.astype(np.float64), got.reshape(wanted.shape))
    return found


NUMPY_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
"""What onnxruntime calls the type of an input -> NumPy's."""


def _run(session: Any, names: list[str], inputs: Mapping[str, Real]) -> list[NDArray[Any]]:
    """Run all images, as many at once as the model's batch says; return ``names``, [N, values]."""
    declared = session.get_inputs()
    for value in declared:
        if value.name not in inputs:
            raise InputError(f"onnxruntime asks for input {value.name!r}, which was not given")
    count = len(inputs[declared[0].name])
    batch = declared[0].shape[0] if isinstance(declared[0].shape[0], int) else 1
    runs = []
    for first in range(0, count, batch):
        images = np.minimum(np.arange(first, first + batch), count - 1)  # the last fills the last batch
        feed = {
            value.name: inputs[value.name][images]
            .reshape(batch, *value.shape[1:])
            .astype(NUMPY_TYPES[value.type])
            for value in declared
        }
        # A Squeeze of everything takes a batch of 1 away, too.
        runs.append([result.reshape(batch, -1) for result in session.run(names, feed)])
    return [np.concatenate(parts)[:count] for parts in zip(*runs, strict=True)]


def _onnx_names(content: Any, quantised: QuantGraph) -> list[str]:
    """Return what the model calls the outputs of the grid: those that the host takes may be inner."""
    producers = {name: node for node in content.graph.node for name in node.output}
    takers = {op.input: op.output for op in quantised.host}
    own = {value.name for value in content.graph.output}
    names = []
    for name in quantised.outputs:
        if name not in own:
            node = producers[takers[name]]
            while node.op_type not in HOST_OPS:  # a copy of its result, which gave it its name
                node = producers[node.input[0]]
            name = node.input[0]
        names.append(name)
    return names


def text(found: list[Accuracy], outputs: Mapping[str, float] | str) -> str:
    """Return the table for people; ``outputs`` as :func:`against_onnxruntime` gives them."""
    head = f"{'tensor':<28} {'operator':<9} {'worst error':>12} {'bound':>12} {'outside':>8}"
    lines = [f"{head} {'saturated':>10} {'SQNR dB':>8}"]
    lines += [
        f"{a.name:<28} {a.operator:<9} {a.error:>12.4g} {a.bound:>12.4g} {a.outside:>8} "
        f"{a.saturated:>10} {a.sqnr:>8.1f}"
        for a in found
    ]
    if isinstance(outputs, str):
        lines.append(f"{outputs}: all figures are against our own float64")
    else:
        lines += [f"{name}: {ratio:.1f} dB against onnxruntime" for name, ratio in outputs.items()]
    return "\n".join(lines)
