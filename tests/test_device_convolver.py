"""Passes worked out as convolutions are, word for word, those worked out lane by lane."""

from __future__ import annotations

import numpy as np
import pytest

from neuflow.compiler import compile_graph
from neuflow.errors import CompileError
from neuflow.grid import TINY
from neuflow.ir import Program
from neuflow.run import device, device_convolver
from neuflow.run.device_convolver import DeviceConvolver
from tests.grids import GRIDS
from tests.quantgraphs import Builder
from tests.random_graphs import RandomGraph, RandomTable


def packets(program: Program, words: dict) -> list[np.ndarray]:
    """Every packet that is written, partial sums with all their lanes among them."""
    found: list[np.ndarray] = []
    device.run(program, words, lambda _, written: found.append(written.words.copy()))
    return found


def compare(program: Program, words: dict, monkeypatch: pytest.MonkeyPatch) -> int:
    """Work a program out both ways; return the passes that were convolutions."""
    passes = 0

    def counted(*arguments):
        nonlocal passes
        passes += 1
        return convolve(*arguments)

    convolve = device_convolver.convolve
    with monkeypatch.context() as patch:
        patch.setattr(device_convolver, "convolve", counted)
        got = packets(program, words)
    with monkeypatch.context() as patch:
        patch.setattr(DeviceConvolver, "_is_convolution", lambda *_: False)
        want = packets(program, words)
    assert len(got) == len(want)
    assert all(np.array_equal(g, w) for g, w in zip(got, want, strict=True))
    return passes


def test_random_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = 0
    for case in range(40):
        made = RandomGraph(3000 + case)
        compiled = compile_graph(made.net.build(*made.outputs), TINY)
        passes += compare(compiled, made.net.words(1), monkeypatch)
    assert passes >= 40  # of some 90


@pytest.mark.parametrize("grid", ["tiny", "octet", "vector"])
def test_random_tables_by_tap(grid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = 0
    for case in range(30):
        made = RandomTable(case)
        try:
            compiled = compile_graph(made.net.build(*made.outputs), GRIDS[grid])
        except CompileError:
            continue
        if " by tap" in compiled.mapping:
            passes += compare(compiled, made.net.words(1), monkeypatch)
    assert passes >= 3


@pytest.mark.parametrize(
    ("shape", "kernel", "more"),
    [
        ((40, 6, 20), (3, 3), {}),  # partial sums
        ((3, 20, 21), (5, 4), {"stride": (2, 2), "pads": (2, 1, 2, 1)}),
        ((4, 30, 9), (3, 3), {"stride": (3, 3)}),
        ((6, 24, 40), (1, 1), {"stride": (2, 2)}),
        ((2, 30, 14), (3, 4), {}),  # closed row ends
    ],
)
def test_kernels(
    shape: tuple, kernel: tuple, more: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Builder(3)
    net.conv(net.input(*shape), 5, kernel, **more)
    compiled = compile_graph(net.build(net.nodes[-1].output), TINY)
    assert compare(compiled, net.words(2), monkeypatch)
