"""Mutated ONNX models: each is refused by one line, or compiled and evaluated; nothing else happens.

``make test`` draws 60, ``make nightly`` 2,000. A case is named by its number and is the same in every
run.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from neuflow import api
from neuflow.errors import NeuflowError
from tests.mutated_models import mutate
from tests.random_models import RandomModel


def check(number: int, folder: Path) -> None:
    model = RandomModel(number).build()
    said = mutate(model, np.random.default_rng(number))
    print(f"{number}: {[node.op_type for node in model.graph.node]}: {said}")
    path = folder / f"mutated{number}.onnx"
    onnx.save(model, path)
    try:
        program = api.compile(path, "virtex6")
        graph = program.ir.graph
        x = api.random_inputs([graph.tensors[name] for name in graph.inputs])
        outputs = program.golden(x).outputs
    except NeuflowError as error:
        assert "\n" not in str(error) and "; " in str(error), error
        return
    assert all(np.isfinite(values).all() for values in outputs.values())


@pytest.mark.parametrize("number", range(60))
def test_no_model_ends_in_an_internal_error(number: int, tmp_path: Path) -> None:
    check(number, tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("first", range(60, 2060, 40))
def test_no_model_ends_in_an_internal_error_at_night(first: int, tmp_path: Path) -> None:
    for number in range(first, first + 40):
        check(number, tmp_path)
