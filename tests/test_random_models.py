"""Random ONNX models, from the file to the machine, on presets and on random grids.

Golden lies within its bound on every tensor, and within 40 dB of onnxruntime where nothing saturates;
the judge *cycle* gives golden's words, and the same cycles with and without jumps. ``make test``
draws 8 models on each of four presets and on a random grid each, ``make nightly`` 200. A case is
named by grid and number and is the same in every run.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from neuflow import api
from neuflow.cycle import judge
from neuflow.errors import CompileError
from neuflow.grid import PRESETS
from tests.random_grids import random_grid
from tests.random_models import RandomModel

GRIDS = ("tiny", "virtex6", "ecp5_85k", "asic45", "random")
LEAST_DB = 40
IMAGES = 2


def check(grid: str, number: int, folder: Path) -> None:
    drawn = RandomModel(number)
    path = folder / f"model{number}.onnx"
    onnx.save(drawn.build(), path)
    rng = np.random.default_rng(number)
    x = rng.standard_normal((4, *drawn.image)).astype(np.float32)
    batch = int(rng.integers(1, IMAGES + 1))
    print(f"{grid} {number}: batch {batch}, {[node.op_type for node in drawn.nodes]}")
    try:
        program = api.compile(path, PRESETS.get(grid) or random_grid(number), calib=x, batch=batch)
    except CompileError as error:
        # The buffers of a random grid may be too small even for a value at a time.
        assert grid == "random" and str(error).endswith("; use a grid with larger buffers")
        return

    tensors, outputs = api.accuracy(path, program, x)
    for tensor in tensors:
        assert tensor.outside == 0 and tensor.error <= tensor.bound, tensor
    assert isinstance(outputs, dict), outputs
    if not any(tensor.saturated for tensor in tensors) and not api.coarse(program.ir):
        assert min(outputs.values()) >= LEAST_DB, outputs

    want, got = program.golden(x[:IMAGES]), program.cycle(x[:IMAGES])
    for name, words in want.words.items():
        assert np.array_equal(got.words[name], words), name
    assert got.stats["cycles"] == judge.simulate(program.ir, IMAGES, timeline=True).cycles


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("number", range(8))
def test_machine_gives_what_onnxruntime_does(grid: str, number: int, tmp_path: Path) -> None:
    check(grid, 1000 * GRIDS.index(grid) + number, tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("number", range(8, 208))
def test_machine_gives_what_onnxruntime_does_at_night(
    grid: str, number: int, tmp_path: Path
) -> None:
    check(grid, 1000 * GRIDS.index(grid) + number, tmp_path)
