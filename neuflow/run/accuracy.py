"""How far golden is from the model, layer by layer, and how far it can be at most.

Three evaluations side by side: the float graph in float64, the quantised graph in golden's
integers, and the interval in which golden must lie (:mod:`neuflow.run.interval`). A word outside
its interval is a bug.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuflow.compiler import float_eval
from neuflow.errors import InputError
from neuflow.ir import Graph, Node, QuantGraph, Words
from neuflow.run import golden, host
from neuflow.run.interval import Forms, Interval, Real, propagate


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
        real = float_eval.OPERATIONS[counterpart.op](counterpart, *reals)
    forms = Forms(
        tuple(host.form(quantised.tensors[name]) for name in node.inputs),
        host.form(quantised.tensors[node.output]),
    )
    if counterpart is not None and "weight" in node.attrs:
        _check_weights(node, counterpart, forms)
    result = golden.OPERATIONS[node.op](node, quantised.bits, *words)
    return real, result, propagate(node, forms, *intervals)


def _check_weights(node: Node, counterpart: Node, forms: Forms) -> None:
    """Refuse a model whose weights are not those that the program's were rounded from."""
    m, s = node.attrs["m"], np.asarray(node.attrs["s"], np.float64)
    gain = (m * 2.0**-s * forms.result.step).reshape(-1, *[1] * (node.attrs["weight"].ndim - 1))
    unit = gain / forms.operands[0].step  # of a weight's word, but that m has 15 bits
    wanted = np.asarray(counterpart.attrs["weight"], np.float64)
    if (np.abs(node.attrs["weight"] * unit - wanted) > unit + np.abs(wanted) * 2.0**-13).any():
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
) -> dict[str, float] | None:
    """Return the SQNR of what the grid gives against onnxruntime, dB by output; None without it.

    ``model``: path of the ONNX file. Outputs are those before what the host computes (softmax and the
    like), which would hide what the grid lost.
    """
    try:
        import onnxruntime
    except ImportError:
        return None
    import onnx

    content = onnx.load(model)
    names = _onnx_names(content, quantised)
    kind = onnx.TensorProto.FLOAT
    del content.graph.output[:]
    content.graph.output.extend(onnx.helper.make_tensor_value_info(n, kind, None) for n in names)
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        content.SerializeToString(), quiet, providers=["CPUExecutionProvider"]
    )
    words = golden.run(quantised, host.quantise_inputs(quantised, inputs)).outputs
    count = len(next(iter(words.values())))
    images = [_run(session, names, quantised, inputs, n) for n in range(count)]
    found = {}
    for name in quantised.outputs:
        wanted = np.concatenate([image[name].reshape(1, -1) for image in images])
        got = host.form(quantised.tensors[name]).dequantise(words[name])
        found[name] = sqnr(wanted, got.reshape(wanted.shape))
    return found


def _run(
    session: Any, names: list[str], quantised: QuantGraph, inputs: Mapping[str, Real], image: int
) -> dict[str, NDArray[Any]]:
    """Run one image; a model may have a batch of one fixed."""
    feed = {}
    for value in session.get_inputs():
        if value.name not in inputs:
            raise InputError(f"onnxruntime asks for input {value.name!r}, which was not given")
        shape = [size if isinstance(size, int) else 1 for size in value.shape]
        feed[value.name] = np.asarray(inputs[value.name][image], np.float32).reshape(shape)
    return dict(zip(quantised.outputs, session.run(names, feed), strict=True))


def _onnx_names(content: Any, quantised: QuantGraph) -> list[str]:
    """Return what the model calls the outputs of the grid: those that the host takes may be inner."""
    producers = {name: node for node in content.graph.node for name in node.output}
    takers = {op.input: producers[op.output] for op in quantised.host if op.output in producers}
    own = {value.name for value in content.graph.output}
    return [name if name in own else takers[name].input[0] for name in quantised.outputs]


def text(found: list[Accuracy], outputs: Mapping[str, float] | None) -> str:
    """Return the table for people."""
    head = f"{'tensor':<28} {'operator':<9} {'worst error':>12} {'bound':>12} {'outside':>8}"
    lines = [f"{head} {'saturated':>10} {'SQNR dB':>8}"]
    lines += [
        f"{a.name:<28} {a.operator:<9} {a.error:>12.4g} {a.bound:>12.4g} {a.outside:>8} "
        f"{a.saturated:>10} {a.sqnr:>8.1f}"
        for a in found
    ]
    if outputs is None:
        lines.append("onnxruntime is not installed: all figures are against our own float64")
    else:
        lines += [f"{name}: {ratio:.1f} dB against onnxruntime" for name, ratio in outputs.items()]
    return "\n".join(lines)
