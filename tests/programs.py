"""Small programs made by hand, for tests of what surrounds the compiler."""

from __future__ import annotations

from neuflow.grid import TINY, GridConfig
from neuflow.ir import Layer, Node, Port, Program, QuantGraph, Tensor

PAGE_WORDS = 2048


def program(
    batch: int = 1,
    grid: GridConfig = TINY,
    shape: tuple[int, int, int] = (3, 4, 5),
    device: bytes = b"",
    layers: tuple[Layer, ...] = (),
    along_x: bool = False,
) -> Program:
    """Return a program with one input ``x`` and one output ``y`` of one shape, Q8.8."""
    channels, height, width = shape
    record = -(-channels * width // grid.bus_words) * grid.bus_words
    words = -(-batch * height * record // PAGE_WORDS) * PAGE_WORDS
    tensors = {name: Tensor(name, shape, 16, 8, shape) for name in ("x", "y")}
    graph = QuantGraph(
        "hand", (Node("same", "reshape", ("x",), "y", {"shape": shape}),), tensors, ("x",), ("y",)
    )
    ports = {n: Port(t, 0, height * record, record, along_x) for n, t in tensors.items()}
    ends = (ports["x"],), (ports["y"],)
    return Program("hand", grid, device, 0, words, words, batch, graph, *ends, layers, ())
