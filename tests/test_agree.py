"""The judges agree: golden words == RTL words for every example, grid, batch and word width."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

import neuflow
from examples import digits
from neuflow.compiler import compile_graph
from neuflow.grid import TINY
from neuflow.run import golden, rtl
from tests.quantgraphs import Builder

pytestmark = [pytest.mark.rtl, pytest.mark.xdist_group("virtex6")]

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SIZES = {"a": 28, "b": 32, "c": 32}
MARGIN = {16: 1, 8: 4}
"""Images of the held-out digits that golden may lose against float."""


@functools.cache
def compiled(model: str, grid: str, batch: int, bits: int) -> neuflow.Program:
    data = digits.load(SIZES[model])
    return neuflow.compile(
        EXAMPLES / f"lenet5_{model}.onnx", grid=grid, calib=data.train_x[:64], batch=batch, bits=bits
    )


def agree(program: neuflow.Program, images: np.ndarray) -> dict:
    golden, rtl = program.golden(images), program.rtl(images)
    for name in golden.words:
        assert np.array_equal(golden.words[name], rtl.words[name]), name
    assert np.array_equal(golden.output, rtl.output)
    return dict(rtl.stats)


@pytest.mark.parametrize("model", SIZES)
@pytest.mark.parametrize(("batch", "bits", "images"), [(1, 16, 2), (16, 16, 20), (1, 8, 2)])
def test_on_virtex6(model: str, batch: int, bits: int, images: int) -> None:
    program = compiled(model, "virtex6", batch, bits)
    stats = agree(program, digits.load(SIZES[model]).test_x[:images])
    assert stats["passes"] == -(-images // batch)
    assert sum(layer["cycles"] for layer in stats["layers"]) == stats["cycles"]
    assert stats["cycles"] > stats["network_roofline_cycles"]


@pytest.mark.parametrize(("model", "batch", "images"), [("b", 1, 2), ("c", 2, 2), ("b", 16, 17)])
def test_on_tiny_every_layer_is_cut(model: str, batch: int, images: int) -> None:
    agree(compiled(model, "tiny", batch, 16), digits.load(SIZES[model]).test_x[:images])


@pytest.mark.nightly
def test_on_four_grids() -> None:
    """Its simulator takes minutes to build."""
    program, image = compiled("b", "asic45_4grid", 2, 16), digits.load(32).test_x[:2]
    assert agree(program, image) == {**program.cycle(image).stats, "judge": "rtl"}


def test_random_stalls_of_the_bus_change_no_word() -> None:
    program = compiled("b", "virtex6", 1, 16)
    image = digits.load(32).test_x[:1]
    quiet = program.rtl(image)
    for seed in (1, 2):
        stalled = program.rtl(image, seed=seed)
        assert np.array_equal(quiet.words["scores"], stalled.words["scores"])
        assert stalled.stats["cycles"] > quiet.stats["cycles"]


@pytest.mark.parametrize("model", SIZES)
@pytest.mark.parametrize("bits", MARGIN)
def test_golden_keeps_the_accuracy(model: str, bits: int) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    data = digits.load(SIZES[model])
    session = onnxruntime.InferenceSession(EXAMPLES / f"lenet5_{model}.onnx")
    (scores,) = session.run(None, {"image": data.test_x})
    golden = compiled(model, "virtex6", 1, bits).golden(data.test_x).output
    right = [(s.argmax(1) == data.test_y).sum() for s in (scores, golden)]
    assert len(data.test_y) >= 360 and right[0] >= 0.985 * len(data.test_y)
    assert right[1] >= right[0] - MARGIN[bits]


def test_operators_on_tiny() -> None:
    """Concat in memory beside other writers, borders of averages, merged groups, kernels of zero."""
    net = Builder(3)
    x = net.input(4, 9, 10)
    a = net.relu(net.conv(x, 3, (3, 3), pads=(1, 1, 1, 1)))
    b = net.mean(x, (3, 3), (1, 1), (1, 1, 1, 1))
    c = net.conv(a, 4, (3, 3), pads=(1, 1, 1, 1))
    net.nodes[-1].attrs["weight"][:2, 1:] = 0
    d = net.concat(a, b, x, c)
    e = net.conv(d, 14, (3, 3), pads=(1, 1, 1, 1), groups=14)
    f = net.concat(d, e, a)
    y = net.pool(f, "max", (3, 3), (2, 2), (1, 1, 1, 1))
    graph, words = net.build(y, f), net.words(2)
    program = compile_graph(graph, TINY, 2)
    want, got = golden.run(graph, words).outputs, rtl.run(program, words).outputs
    for name in want:
        assert np.array_equal(want[name], got[name]), name
