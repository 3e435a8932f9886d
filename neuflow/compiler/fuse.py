"""Nodes to chains: what follows a convolver in the same column without touching memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from neuflow.compiler.fit import limit
from neuflow.compiler.join import SIDE_BY_SIDE, written_by
from neuflow.compiler.mapping import Chain, Step
from neuflow.ir import GEOMETRY, Node, QuantGraph, Shape
from neuflow.layout import CONV_ARRAY

HEADS = ("conv", "dense")
UNARY = ("abs", "square")
MOSTLY = 0.75
"""Up to this part of its kernels, a convolution is cut so that zero ones cost less."""
MOST_KEPT = 4
"""Of so many rows, and columns, at most one is kept where a stride does not fit its field."""
COPIES = ("reshape", "copy")
ALUS = 2


@dataclass(frozen=True)
class Fused:
    """Chains, operands first; ``views``: tensors that share the memory of another one."""

    chains: tuple[Chain, ...]
    views: dict[str, str]


def legalise(graph: QuantGraph) -> QuantGraph:
    """Rewrite nodes that the machine has no form for into ones that it has; values stay equal.

    A convolution whose kernel covers its whole unpadded input becomes a dense layer. Unequal
    strides, and those beyond their field, become a common divisor and a window that keeps every n-th
    row or column.
    """
    nodes: list[Node] = []
    tensors = dict(graph.tensors)
    for node in graph.nodes:
        if node.op != "conv":
            nodes.append(node)
            continue
        source, output = tensors[node.inputs[0]], tensors[node.output]
        if _covers_input(node, source.shape, output.shape):
            nodes.append(_as_dense(node))
            continue
        sy, sx = node.attrs["stride"]
        common = sx if output.shape[1] == 1 else sy if output.shape[2] == 1 else int(np.gcd(sy, sx))
        step = _stride_that_fits(common)
        if (sy, sx) == (step, step):
            nodes.append(node)
        elif 1 in output.shape[1:] and step == common:
            nodes.append(replace(node, attrs={**node.attrs, "stride": (step, step)}))
        else:
            keep = (max(1, sy // step), max(1, sx // step))
            height, width = ((n - 1) * k + 1 for n, k in zip(output.shape[1:], keep, strict=True))
            every_name = f"{node.output}/every"
            shape = (output.shape[0], height, width)
            tensors[every_name] = replace(output, name=every_name, shape=shape)
            nodes.append(
                replace(node, output=every_name, attrs={**node.attrs, "stride": (step, step)})
            )
            nodes.append(_keep_every(node, every_name, keep))
    return replace(graph, nodes=tuple(nodes), tensors=tensors)


def _stride_that_fits(stride: int) -> int:
    """Return the largest divisor that the array's field holds, if few places are worked in vain.

    Else the stride itself: such a layer is cut place by place.
    """
    most = limit(CONV_ARRAY, "stride")
    found = next(step for step in range(min(stride, most), 0, -1) if stride % step == 0)
    return found if stride // found <= MOST_KEPT else stride


def _covers_input(node: Node, source: Shape, output: Shape) -> bool:
    kernel = node.attrs["weight"].shape[2:]
    return (
        node.attrs["groups"] == 1
        and output[1:] == (1, 1)
        and source[1:] == tuple(kernel)
        and not any(node.attrs["pads"])
        and all(d == 1 or k == 1 for d, k in zip(node.attrs["dilation"], kernel, strict=True))
    )


def _as_dense(node: Node) -> Node:
    weight = node.attrs["weight"]
    attrs = {name: value for name, value in node.attrs.items() if name not in GEOMETRY}
    return replace(node, op="dense", attrs={**attrs, "weight": weight.reshape(len(weight), -1)})


def _keep_every(node: Node, source: str, keep: tuple[int, int]) -> Node:
    attrs = {
        "kind": "max", "kernel": (1, 1), "stride": keep, "pads": (0, 0, 0, 0),
        "m": 1, "s": 0, "zero": 0,
    }  # fmt: skip
    return Node(f"{node.name}/every", "pool", (source,), node.output, attrs)


def find_views(graph: QuantGraph, batch: int) -> dict[str, str]:
    """Tensors that need no memory of their own: reshapes that memory order does not see.

    A dense layer reads through any reshape, since the order of its weights can follow.
    """
    uses = _consumers(graph)
    views: dict[str, str] = {}
    for node in graph.nodes:
        if node.op != "reshape" or node.output in graph.outputs:
            continue
        source, output = graph.tensors[node.inputs[0]].shape, graph.tensors[node.output].shape
        only_dense = all(use.op in ("dense", "reshape") for use in uses.get(node.output, ()))
        same_axis = batch == 1 or (source[1:] == (1, 1)) == (output[1:] == (1, 1))
        if only_dense and _reaches_only_dense(node, uses, graph):
            views[node.output] = node.inputs[0]
        elif source[1] == output[1] == 1 and same_axis:
            views[node.output] = node.inputs[0]
    return views


def _reaches_only_dense(node: Node, uses: dict[str, list[Node]], graph: QuantGraph) -> bool:
    if node.output in graph.outputs:
        return False
    return all(
        use.op == "dense" or (use.op == "reshape" and _reaches_only_dense(use, uses, graph))
        for use in uses.get(node.output, ())
    )


def root(views: Mapping[str, str], tensor: str) -> str:
    """Follow views to the tensor that owns the memory."""
    while tensor in views:
        tensor = views[tensor]
    return tensor


def _consumers(graph: QuantGraph) -> dict[str, list[Node]]:
    uses: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for tensor in dict.fromkeys(node.inputs):
            uses.setdefault(tensor, []).append(node)
    return uses


def fuse(graph: QuantGraph, batch: int, alone: Iterable[str] = (), side: int = 0) -> Fused:
    """Gather nodes into chains, each as long as routing, its units and single consumers allow.

    ``alone``: names of nodes that must begin a chain of their own (their fusion did not fit).
    ``side``: images of a batch that lie side by side, see ``allocate.side_by_side``; 0: all.
    """
    views = find_views(graph, batch)
    side = side or batch
    fuser = _Fuser(graph, (batch // side, side), views, frozenset(alone))
    return Fused(_ordered(graph, fuser.run(), views), views)


class _Fuser:
    """``bands``: of a batch, and images of each: height and width of what a batched chain sees."""

    def __init__(
        self, graph: QuantGraph, bands: tuple[int, int], views: dict[str, str], alone: frozenset[str]
    ) -> None:
        self.graph, self.bands, self.views, self.alone = graph, bands, views, alone
        self.uses = _consumers(graph)
        self.taken: set[str] = set()

    def run(self) -> list[Chain]:
        chains = []
        # Heads first, so that an add is done where its convolution ends.
        for heads in (True, False):
            for node in self.graph.nodes:
                if node.name in self.taken or node.output in self.views or node.op in SIDE_BY_SIDE:
                    continue
                if (node.op in HEADS) == heads:
                    chains.append(self.chain(node))
        return chains

    def chain(self, first: Node) -> Chain:
        self.taken.add(first.name)
        head = first if first.op in HEADS else None
        batched = self.is_batched(first)
        steps: list[Step] = []
        if head is None and first.op not in COPIES:
            steps.append(self.first_step(first))
        output = first.output
        while first.op not in COPIES:
            step = self.next_step(output, head, steps, batched)
            if step is None:
                break
            steps.append(step)
            self.taken.add(step.node.name)
            output = step.node.output
        tensors = [first.output if head else first.inputs[0], *(step.node.output for step in steps)]
        source = first.inputs[0]
        if first.op in ("dense", "reshape"):  # these read any shape, in an order of their own
            source = root(self.views, source)
        if first.op == "reshape":
            tensors = [first.output]
        shapes = tuple(self.shape(name, batched) for name in tensors)
        flat = head is None and batched
        return Chain(
            name=first.name, head=head, source=source,
            source_shape=shapes[0] if flat else self.graph.tensors[source].shape,
            steps=tuple(steps), output=output, shapes=shapes, batched=batched,
            bits=self.graph.tensors[output].bits or self.graph.bits, reorder=first.op == "reshape",
            kernels=_kernels(first),
        )  # fmt: skip

    def is_batched(self, first: Node) -> bool:
        """Dense layers, and what works value by value on tensors of 1 x 1 extent."""
        if first.op == "dense":
            return True
        names = (*first.inputs, first.output)
        flat = all(self.graph.tensors[name].shape[1:] == (1, 1) for name in names)
        return flat and first.op in ("alu", "map", "copy")

    def shape(self, tensor: str, batched: bool) -> Shape:
        shape = self.graph.tensors[tensor].shape
        return (shape[0], *self.bands) if batched else shape

    def first_step(self, node: Node) -> Step:
        if node.op != "alu" or node.attrs["kind"] in UNARY:
            return Step(node)
        a, b = node.inputs
        return Step(node, sides="ab") if a == b else Step(node, b, "a")

    def next_step(
        self, tensor: str, head: Node | None, steps: list[Step], batched: bool
    ) -> Step | None:
        """Return the step that can follow ``tensor`` in the same walk, if there is one."""
        uses = self.uses.get(tensor, [])
        if len(uses) != 1 or tensor in self.graph.outputs:
            return None
        node = uses[0]
        if node.name in self.taken or node.name in self.alone:
            return None
        ops = [step.node.op for step in steps]
        if node.op == "map" and "map" not in ops:
            return Step(node)
        if node.op == "pool" and "pool" not in ops and not batched:
            return Step(node)
        if node.op == "alu" and ops.count("alu") < ALUS:
            return self.alu_step(node, tensor, steps)
        return None

    def alu_step(self, node: Node, tensor: str, steps: list[Step]) -> Step | None:
        if node.attrs["kind"] in UNARY:
            return Step(node)
        a, b = node.inputs
        if a == b:
            return Step(node, sides="ab")
        if any(step.operand is not None for step in steps):
            return None  # one operand line a column
        other, side = (b, "a") if a == tensor else (a, "b")
        return Step(node, other, side)


def _kernels(node: Node) -> NDArray[np.bool_] | None:
    """Return which kernels of a convolution are not zero, None if most (or no convolution)."""
    if node.op != "conv" or node.attrs["groups"] > 1:
        return None  # merge_groups has weighed zeros against passes
    if node.attrs.get("by_block"):
        return None
    kernels: NDArray[np.bool_] = np.any(node.attrs["weight"] != 0, axis=(2, 3))
    return None if kernels.mean() > MOSTLY else kernels


def _ordered(graph: QuantGraph, chains: list[Chain], views: dict[str, str]) -> tuple[Chain, ...]:
    """Sort chains so that every tensor is written before it is read, else as the graph has them."""
    position = {node.name: i for i, node in enumerate(graph.nodes)}
    needs = written_by(graph, views)
    ready: set[str] = set()

    def rank(chain: Chain) -> int:
        return position.get(chain.nodes[-1].name if chain.nodes else chain.name, 0)

    left, done = sorted(chains, key=rank), []
    while left:
        chain = next(c for c in left if all(needs[t] <= ready for t in c.tensors_read))
        left.remove(chain)
        done.append(chain)
        ready.add(chain.output)
    return tuple(done)
