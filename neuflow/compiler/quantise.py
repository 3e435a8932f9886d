"""Graph -> QuantGraph: binary points by calibration, words for weights, exact bounds.

Rules (``docs/numbers.md`` has the formulas):

- A tensor's point is the largest at which its largest calibrated magnitude times ``MARGIN`` still
  is a word, so that nothing saturates on the calibration inputs. Only what the consumers tell
  apart counts: below 0 nothing before a relu, beyond its bounds nothing before a clip, beyond
  +-8 nothing before tanh or sigmoid (tanh is within 2.3e-7 of +-1 there, sigmoid within 3.4e-4
  of 0 and 1, less than its table's error); such words may saturate, which changes no result.
- tanh and sigmoid results have ``bits - 1`` fractional bits: +-1 itself is the only value that
  does not fit, by less than one word.
- Between convolutions a tensor has a scale too, so that no bit of its words stays empty
  (:mod:`neuflow.compiler.scales`). What weights and biases owe it is done before they are words.
- The result of a clip needs no head room beyond its bounds.
- Max pooling and views keep the point. A bias has the accumulator's point.
- All inputs and the output of a concat, and of concats of concats, have one point, the smallest that
  any of them asks for. A tensor that cannot have it is brought to it by a node "map" (identity).
  Inputs of concats that the compiler made for convolutions keep their own, and the kernels that read
  a channel are multiplied by what sets it apart.
- 16 bits: a power of two a map for the weights, m = 1; maps lend ``LENT`` bits at most to their bias
  where this makes a layer's packets shorter. 8 bits: weights scaled map by map so that the largest
  is 127. m / 2**s brings the map back to the output's point.
- ``q8_8``: every tensor and every weight has 8 fractional bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuflow.blocks.parameters_model import bias_bits
from neuflow.compiler import float_eval, functions, mapper_tables, scales
from neuflow.compiler.ranges import Range, calibrate, joined_by_concat, ranges_that_matter
from neuflow.errors import CompileError
from neuflow.fixed import FixedPoint, by_channel
from neuflow.ir import Graph, Node, QuantGraph

MARGIN = {16: 1.5, 8: 1.125}
"""Head room over the calibrated magnitude, for inputs that calibration has not seen. 8 bits have
little to spare: what the rounding of the layers before may add."""

MAX_POINT = 24
"""Largest point of a tensor: smaller values than 2**-24 are zero to any network."""

ACC_BITS = 47
"""|sum| + |bias| stays below 2**47, see fixed.requantise."""

SHORT_BIAS = 1 << bias_bits(1) - 1
"""A layer all of whose biases are smaller has the shortest packets of parameters."""

LENT = 2
"""Bits that the weights of a map give up at most to make its bias smaller: what activations lose by
rounding is well above what weights of 14 bits do."""

MAX_SHIFT = 62
MAX_LEFT = 31
MAX_MULTIPLIER = (1 << 15) - 1


def quantise(
    graph: Graph, calib: Mapping[str, ArrayLike], bits: int = 16, q8_8: bool = False
) -> QuantGraph:
    """Return the integer form of ``graph``.

    Parameters
    ----------
    graph : simplified float graph.
    calib : calibration inputs by name, [N, C, H, W] or the model's own shape; N >= 1.
    bits : width of words and weights, 16 or 8.
    q8_8 : 8 fractional bits everywhere instead of points by calibration; needs 16 bits.
    """
    if bits not in MARGIN:
        raise CompileError(f"bits = {bits}: words of 16 or 8 bits are possible")
    if q8_8 and bits != 16:
        raise CompileError("q8.8 needs words of 16 bits; leave out one of q8.8 and bits 8")
    ranges = calibrate(graph, calib)
    result = _Quantiser(graph, ranges, bits, q8_8).run()
    check(result)
    return result


class _Quantiser:
    """Walks the graph once. ``point`` holds the binary point of every tensor so far."""

    def __init__(self, graph: Graph, ranges: dict[str, Range], bits: int, q8_8: bool):
        self.graph = graph
        self.ranges = ranges
        self.bits = bits
        self.q8_8 = q8_8
        self.point: dict[str, int] = {}
        self.bounds = ranges_that_matter(graph)
        self.joined = joined_by_concat(graph)
        self.clips = {
            node.output: Range(node.attrs["low"], node.attrs["high"]).size
            for node in graph.nodes
            if node.attrs.get("function") == "clip"
        }
        self.scale: dict[str, Any] = dict.fromkeys(graph.tensors, 1.0)
        if not q8_8:
            sizes = {
                name: max(self._size(other) for other in self.joined.get(name, (name,)))
                for name in graph.tensors
            }
            self.scale |= scales.choose(graph, sizes, bits)
        self.nodes: list[Node] = []
        self.tensors = dict(graph.tensors)

    def run(self) -> QuantGraph:
        """Return the quantised graph."""
        for name in self.graph.inputs:
            self.point[name] = self._wanted(name)
        for node in self.graph.nodes:
            if node.op == "concat" and not node.attrs.get("apart"):
                node = self._aligned(node)
            new = getattr(self, f"_{node.op}")(node)
            self.nodes.append(replace(node, op=new[0], attrs=new[1]))
        tensors = {
            name: replace(tensor, bits=self.bits, point=self.point[name], scale=self.scale[name])
            for name, tensor in self.tensors.items()
        }
        g = self.graph
        return QuantGraph(
            g.name, tuple(self.nodes), tensors, g.inputs, g.outputs, g.host, g.batch, self.bits
        )

    def _wanted(self, name: str) -> int:
        """Return the point that the calibrated range asks for, of all tensors joined with it."""
        if self.q8_8:
            return 8
        return min(self._own_point(other) for other in self.joined.get(name, (name,)))

    def _own_point(self, name: str) -> int:
        size = self._size(name)
        if self.bounds[name][1] == functions.SQUASH_BOUND == size:
            return self.bits - 1 - 3  # 8.0 itself saturates to 7.9998, which is as flat
        return largest_point(size / self.scale[name], self.bits, MAX_POINT)

    def _size(self, name: str) -> float:
        """Return the largest magnitude that matters, head room included."""
        low, high = self.bounds[name]
        seen, margin = self.ranges[name], MARGIN[self.bits]
        size = Range(seen.low * margin, seen.high * margin).within(low, high).size
        if name in self.clips:  # no input goes beyond, so no head room is needed
            size = min(size, self.clips[name])
        return size

    # --- layers -----------------------------------------------------------------------------

    def _conv(self, node: Node) -> tuple[str, dict[str, Any]]:
        """Weights, bias, and how the accumulator comes back to the output's point."""
        in_scale, out_scale = by_channel(self.scale[node.inputs[0]]), self.scale[node.output]
        weight = np.asarray(node.attrs["weight"], np.float64) * (in_scale / out_scale)
        bias = np.asarray(node.attrs["bias"], np.float64) / out_scale
        in_point, out_point = self.point[node.inputs[0]], self._wanted(node.output)
        if self.bits == 16:
            words, out_point = self._plain(node, weight, bias, in_point, out_point)
        else:
            words = self._scaled(node, weight, bias, in_point, out_point)
        self.point[node.output] = out_point
        return node.op, {**node.attrs, **words, "zero": np.zeros(len(weight), np.int64)}

    _dense = _conv

    def _plain(
        self, node: Node, weight: NDArray[Any], bias: NDArray[Any], in_point: int, out_point: int
    ) -> tuple[dict[str, Any], int]:
        """A point for each map's weights, its accumulator's point = input's + weights', m = 2**k."""
        rows = list(zip(weight, bias.tolist(), strict=True))
        maps = [self._plain_map(*row, in_point, out_point) for row in rows]
        widest = max(abs(offset) for _, offset, _ in maps)
        if SHORT_BIAS <= widest < SHORT_BIAS * 2.0**LENT and not self.q8_8:
            maps = [self._plain_map(*row, in_point, out_point, SHORT_BIAS) for row in rows]
        words, offsets, points = (list(column) for column in zip(*maps, strict=True))
        if _worst(np.stack(words), np.array(offsets), self.bits) >= 2.0**ACC_BITS:
            raise CompileError(
                f"node {node.name!r}: sums of its products and bias can pass 2**47 at q8.8; leave "
                "the points to calibration"
            )
        accumulators = in_point + np.array(points, np.int64)
        out_point = min(out_point, int(accumulators.min()) + 14)
        shift = accumulators - out_point
        attrs = {
            "weight": np.stack(words),
            "bias": np.array(offsets).astype(np.int64),
            "m": 1 << np.maximum(-shift, 0),
            "s": np.maximum(shift, 0),
            "weight_point": np.array(points, np.int64),
        }
        return attrs, out_point

    def _plain_map(
        self,
        weight: NDArray[Any],
        bias: float,
        in_point: int,
        out_point: int,
        bias_limit: float = 2.0**ACC_BITS,
    ) -> tuple[NDArray[np.int64], float, int]:
        """Return one map's words, its bias in words of its accumulator, and its weights' point."""
        size = float(np.abs(weight).max(initial=0.0))
        wanted = 8 if self.q8_8 else largest_point(size, self.bits, MAX_SHIFT - 15 - in_point)
        while True:
            acc = in_point + wanted
            words = FixedPoint(self.bits, wanted).quantise(weight)
            offset = float(np.floor(bias * 2.0**acc + 0.5))
            fits = _worst(words[None], np.array([offset]), self.bits) < 2.0**ACC_BITS
            fits = fits and abs(offset) < bias_limit
            if self.q8_8 or (fits and acc - out_point <= MAX_SHIFT):
                return words, offset, wanted
            wanted -= 1  # a bias far above the products, or very many of them

    def _scaled(
        self, node: Node, weight: NDArray[Any], bias: NDArray[Any], in_point: int, out_point: int
    ) -> dict[str, Any]:
        """Weights of each map scaled so that the largest is 127; m / 2**s undoes it."""
        flat = weight.reshape(len(weight), -1)
        high = FixedPoint(self.bits).high
        # A bias far above the products enlarges the scale, so that it fits the accumulator.
        large = np.maximum(np.abs(flat).max(axis=1) / high, np.abs(bias) * 2.0 ** (in_point - 40))
        scale = np.where(large > 0, large, 1.0)
        words = np.floor(flat / scale[:, None] + 0.5).astype(np.int64)
        unit = scale * 2.0**-in_point
        factors = [multiplier(float(u) * 2.0**out_point) for u in unit]
        if any(m is None for m in factors):
            raise CompileError(
                f"node {node.name!r}: its weights are too large for its outputs at 8 bits; use 16"
            )
        m, s = np.array(factors, np.int64).T
        return {
            "weight": words.reshape(weight.shape),
            "bias": np.floor(bias / unit + 0.5).astype(np.int64),
            "m": m,
            "s": s,
            "weight_point": math.floor(-math.log2(float(scale.max()))),
            "weight_scale": scale,
        }

    def _map(self, node: Node) -> tuple[str, dict[str, Any]]:
        """A table for the points on both sides."""
        name, in_point = node.attrs["function"], self.point[node.inputs[0]]
        out_point = self._wanted(node.output)
        if functions.FUNCTIONS[name].unit and not self.q8_8:
            joined = node.output in self.joined
            out_point = min(out_point, self.bits - 1) if joined else self.bits - 1
        out_point = min(max(out_point, in_point - 15), in_point + 16)
        self.point[node.output] = out_point
        known = functions.parameters(node.attrs)
        if name == "clip":
            known = {end: bound / self.scale[node.output] for end, bound in known.items()}
        table = mapper_tables.build(name, in_point, out_point, self.bits, **known)
        seen = self.ranges[node.inputs[0]]
        noise = mapper_tables.noise(
            table, name, in_point, out_point, self.bits, (seen.low, seen.high), **known
        )
        return "map", {**node.attrs, "table": replace(table, noise=noise)}

    def _pool(self, node: Node) -> tuple[str, dict[str, Any]]:
        """Maximum: the words themselves. Average: the sum times m / 2**s."""
        attrs = {k: node.attrs[k] for k in ("kernel", "stride", "pads")}
        in_point = self.point[node.inputs[0]]
        out_point = self._wanted(node.output)
        if node.attrs["kind"] == "max":
            out_point = min(in_point, out_point) if node.output in self.joined else in_point
            self.point[node.output] = out_point
            return "pool", {"kind": "max", **attrs, "m": 1, "s": in_point - out_point, "zero": 0}
        divisors = self._divisors(node)
        least = divisors.min()
        if multiplier(2.0 ** (out_point - in_point) / least) is None:
            out_point = in_point
        self.point[node.output] = out_point
        m, s = _multipliers(2.0 ** (out_point - in_point) / divisors)
        return "pool", {"kind": "sum", **attrs, "m": m, "s": s, "zero": 0}

    def _divisors(self, node: Node) -> NDArray[np.float64]:
        """Return by what an average divides: one number, or [H, W] where it changes."""
        if node.attrs["kind"] == "average":
            ky, kx = node.attrs["kernel"]
            return np.array(node.attrs.get("divisor", ky * kx), np.float64)
        ones = np.ones((1, 1, *self.tensors[node.inputs[0]].shape[1:]))
        return float_eval.window_counts(node, ones)[0, 0]

    def _aligned(self, node: Node) -> Node:
        """Return a concat whose inputs have one point, those that had not through a map."""
        out_point = min(self.point[name] for name in node.inputs)
        made: dict[str, str] = {}
        for place, name in enumerate(node.inputs):
            if self.point[name] == out_point or name in made:
                continue
            attrs = {"function": "identity"}
            output = f"{node.name}/point{place}"
            scaler = Node(output, "map", (name,), output, attrs)
            table = mapper_tables.build("identity", self.point[name], out_point, self.bits)
            self.tensors[output] = replace(self.tensors[name], name=output, onnx_shape=None)
            self.nodes.append(replace(scaler, attrs={**attrs, "table": table}))
            self.point[output] = out_point
            self.scale[output] = self.scale[name]
            made[name] = output
        return replace(node, inputs=tuple(made.get(name, name) for name in node.inputs))

    def _concat(self, node: Node) -> tuple[str, dict[str, Any]]:
        """One point for all, or a scale for every channel that says the point of its input."""
        point = self.point[node.output] = min(self.point[name] for name in node.inputs)
        if node.attrs.get("apart"):
            self.scale[node.output] = tuple(
                each * 2.0 ** (point - self.point[name])
                for name in node.inputs
                for each in self._scales(name)
            )
        return "concat", {}

    def _slice(self, node: Node) -> tuple[str, dict[str, Any]]:
        (source,), first, count = node.inputs, node.attrs["first"], node.attrs["count"]
        self.point[node.output] = self.point[source]
        if isinstance(self.scale[source], tuple):
            self.scale[node.output] = self._scales(source)[first : first + count]
        return "slice", dict(node.attrs)

    def _scales(self, name: str) -> tuple[float, ...]:
        """Return the scale of every channel."""
        scale = self.scale[name]
        return scale if isinstance(scale, tuple) else (scale,) * self.tensors[name].shape[0]

    def _alu(self, node: Node) -> tuple[str, dict[str, Any]]:
        """Both operands brought to one point exactly, one rounding at the end."""
        kind = node.attrs["kind"]
        a, b = (self.point[name] for name in node.inputs)
        out = self._wanted(node.output)
        shift_a = shift_b = shift = 0
        if kind == "mul":
            out = max(min(out, a + b), a + b - 47)
            shift = a + b - out
        elif kind == "div":
            up = out - a + b
            shift_a, shift_b = max(up, 0), max(-up, 0)
        else:
            exact = max(a, b, out)
            shift_a, shift_b, shift = exact - a, exact - b, exact - out
        if max(shift_a, shift_b) > MAX_LEFT or shift > 47:
            raise CompileError(
                f"node {node.name!r} ({kind}): its operands' ranges are 2**{MAX_LEFT} apart; scale "
                "one of them"
            )
        self.point[node.output] = out
        return "alu", {"kind": kind, "shift_a": shift_a, "shift_b": shift_b, "shift": shift}

    def _reshape(self, node: Node) -> tuple[str, dict[str, Any]]:
        self.point[node.output] = self.point[node.inputs[0]]
        return "reshape", dict(node.attrs)


def largest_point(size: float, bits: int, limit: int) -> int:
    """Return the largest point, at most ``limit``, at which ``size`` is no more than a word."""
    if size <= 0:
        return min(bits - 1, limit)
    point = math.floor(math.log2(FixedPoint(bits).high / size))
    # log2 may be off by one unit in its last place: settle it exactly.
    while size * 2.0 ** (point + 1) <= FixedPoint(bits).high:
        point += 1
    while size * 2.0**point > FixedPoint(bits).high:
        point -= 1
    return min(point, limit)


def multiplier(factor: float) -> tuple[int, int] | None:
    """Return (m, s) with m / 2**s nearest to ``factor``, m < 32768 as large as fits.

    A power of two is exact, with the smallest m. None: ``factor`` is too large.
    """
    exponent = math.log2(factor)
    if exponent == math.floor(exponent) and -MAX_SHIFT <= exponent <= 14:
        return 1 << max(int(exponent), 0), max(-int(exponent), 0)
    s = min(math.floor(math.log2(MAX_MULTIPLIER / factor)), MAX_SHIFT)
    if s < 0:
        return None
    return math.floor(factor * 2.0**s + 0.5), s


def _multipliers(factors: NDArray[np.float64]) -> tuple[Any, Any]:
    """Return m and s of each factor (none of them too large), plain where there is but one."""
    pairs = {float(f): multiplier(float(f)) for f in np.unique(factors)}
    m, s = (
        np.vectorize(lambda f, part=part: (pairs[f] or (0, 0))[part], otypes=[np.int64])(factors)
        for part in (0, 1)
    )
    return (m, s) if factors.ndim else (int(m), int(s))


def _worst(words: NDArray[np.int64], bias: NDArray[Any], bits: int) -> float:
    """Return the largest |sum| + |bias| over the maps for the worst input."""
    flat = np.abs(words.reshape(len(words), -1)).sum(axis=1).astype(np.float64)
    return float((flat * 2.0 ** (bits - 1) + np.abs(bias)).max(initial=0.0))


def check(graph: QuantGraph) -> None:
    """Raise ``CompileError`` unless every sum keeps to 47 bits and every field to its range.

    The proof: |sum| <= sum |w| * 2**(bits - 1) for any input words, so sum |w| * 2**(bits - 1) +
    |bias| < 2**47 for every map means that no accumulator overflows, in whatever order it adds.
    """
    for node in graph.nodes:
        if node.op not in ("conv", "dense"):
            continue
        worst = _worst(node.attrs["weight"], node.attrs["bias"], graph.bits)
        if worst >= 2.0**ACC_BITS:
            raise CompileError(
                f"node {node.name!r}: sums can reach 2**{math.log2(worst):.1f}, the accumulator "
                "holds 2**47; use smaller weights, or cut the layer"
            )
        m, s = node.attrs["m"], node.attrs["s"]
        if m.min() < 0 or m.max() > MAX_MULTIPLIER or s.min() < 0 or s.max() > MAX_SHIFT:
            raise CompileError(
                f"node {node.name!r}: its scale does not fit (m {m.max()}, s {s.max()}); calibrate "
                "with inputs of the real range"
            )
