"""Activations by table: the judges agree on them, and their results keep to their bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import neuflow
from neuflow.compiler import Stages, functions, mapper_tables, run_passes
from neuflow.fixed import FixedPoint
from neuflow.grid import TINY
from neuflow.ir import Node
from neuflow.run import accuracy, interval
from tests.onnx_builder import build, conv, node, normal

ACTIVATIONS: dict[str, dict[str, Any]] = {
    "LeakyRelu": {}, "Elu": {}, "Celu": {"alpha": 0.5}, "Selu": {}, "HardSigmoid": {}, "HardSwish": {},
    "Softplus": {}, "Softsign": {}, "Erf": {}, "Gelu": {}, "Mish": {}, "Swish": {"alpha": 1.5},
}  # fmt: skip
X = normal(2, 3, 6, 8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model of one convolution and every activation of it, each an output."""
    nodes = [conv("x", "c", "w"), node("PRelu", ["c", "s"], "prelu")]
    nodes += [node(op, ["c"], op.lower(), **attrs) for op, attrs in ACTIVATIONS.items()]
    weights = {"w": normal(4, 3, 3, 3, seed=1) / 2, "s": np.float32([-0.5, 0.1, 0.25, 1])[:, None, None]}
    outputs = ["prelu", *(op.lower() for op in ACTIVATIONS)]
    path = tmp_path_factory.mktemp("activations") / "all.onnx"
    onnx.save(build(nodes, weights, outputs=outputs, opset=24), path)
    return path


@pytest.mark.rtl
@pytest.mark.parametrize("bits", [16, 8])
def test_judges_agree(model: Path, bits: int) -> None:
    program = neuflow.compile(model, "tiny", X, bits=bits)
    golden, cycle, rtl = program.golden(X), program.cycle(X), program.rtl(X)
    for name, words in golden.words.items():
        assert np.array_equal(words, cycle.words[name]), name
        assert np.array_equal(words, rtl.words[name]), name
    assert cycle.stats["cycles"] == rtl.stats["cycles"]


def found(model: Path, x: NDArray[Any], bits: int) -> dict[str, accuracy.Accuracy]:
    """Return every tensor's accuracy, calibrated on other inputs than it is measured with."""
    stages = run_passes(Stages(model, TINY, {"x": X}, bits), "quantised")
    measured = accuracy.measure(stages["graph"], stages["quantised"], {"x": x})
    return {tensor.name: tensor for tensor in measured}


@pytest.mark.parametrize("bits", [16, 8])
@pytest.mark.parametrize("size", [1, 4])
def test_results_keep_to_their_bounds(model: Path, bits: int, size: int) -> None:
    measured = found(model, size * normal(2, 3, 6, 8, seed=5), bits)
    for tensor in measured.values():
        assert tensor.outside == 0 and tensor.error <= tensor.bound, tensor
    if bits == 16 and size == 1:
        assert all(tensor.sqnr >= 50 for tensor in measured.values())


DIPS = [name for name, function in functions.FUNCTIONS.items() if function.dips]


@pytest.mark.parametrize("name", DIPS)
def test_the_bound_knows_where_a_function_turns(name: str) -> None:
    """Between -3 and 0 each is 0 or nearly, and less in between."""
    known = {"alpha": 1.5} if name == "swish" else {}
    table = mapper_tables.build(name, 12, 12, **known)
    step = Node(name, "map", ("x",), "y", {"function": name, **known, "table": table})
    form = FixedPoint(16, 12)
    wide = interval.Interval(np.array([-3.0]), np.array([0.0]))
    got = interval.propagate(step, interval.Forms((form,), form), wide)
    values = functions.FUNCTIONS[name].real(np.linspace(-3.0, 0.0, 3001), **known)
    assert values.min() < -0.1
    assert values.min() - table.worst * form.step - 1e-6 <= got.low[0] <= values.min()
