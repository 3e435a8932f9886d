"""Whole networks in the Verilog: words == golden, and everything measured == the cycle judge.

``make test`` runs every topology, narrow and small, on ``tiny``; ``make nightly`` runs all works of
the bench and all other networks at full size, on ``virtex6`` but for works of another grid, once as
it is and once with a bus that stalls at random (``-k ds_cnn`` for one of them), and says how long
each took.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from examples.bench.works import WORKS, work_of
from examples.networks import NETWORKS, images
from neuflow import api
from tests.reduced import REDUCED, SMALL, dims


def compiled(model: ModelProto, folder: Path, grid: str, calib: Any, batch: int = 1) -> api.Program:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return api.compile(path, grid, calib=calib, batch=batch)


def check(program: api.Program, x: Any, seed: int | None = None) -> None:
    """Run the three judges; with ``seed`` the bus stalls at random."""
    golden = program.golden(x)
    begin = time.monotonic()
    rtl = program.rtl(x, seed=seed)
    seconds = time.monotonic() - begin
    cycle = program.cycle(x, seed=seed)
    print(f"{program.name}: {rtl.stats['cycles']:,} cycles in {seconds:.1f} s, build included")
    for name, words in golden.words.items():
        assert np.array_equal(rtl.words[name], words), f"rtl: {name}"
        assert np.array_equal(cycle.words[name], words), f"cycle: {name}"
    assert {**cycle.stats, "judge": "rtl"} == rtl.stats
    assert sum(layer["cycles"] for layer in rtl.stats["layers"]) == rtl.stats["cycles"]


@pytest.mark.rtl
@pytest.mark.parametrize("name", SMALL)
def test_small_on_tiny(name: str, tmp_path: Path) -> None:
    model = NETWORKS[name](**SMALL[name])
    x = images(dims(model.graph.input[0])[1:], 2, seed=1)
    check(compiled(model, tmp_path, "tiny", x), x[:1])


@pytest.mark.rtl
@pytest.mark.nightly
def test_local_normalisation_on_tiny(tmp_path: Path) -> None:
    model = NETWORKS["cn3_norm"](**REDUCED["cn3_norm"])
    x = images(dims(model.graph.input[0])[1:], 1, seed=1)
    check(compiled(model, tmp_path, "tiny", x), x)


WHOLE = dict.fromkeys([*WORKS, *NETWORKS])
"""Names of works of the bench, and of networks that it does not measure."""


@pytest.mark.rtl
@pytest.mark.nightly
@pytest.mark.parametrize("seed", [None, 1], ids=["steady", "stalled"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.xdist_group(work_of(name).grid)) for name in WHOLE]
)
def test_whole_at_full_size(name: str, seed: int | None, tmp_path: Path) -> None:
    work = work_of(name)
    calib = work.calibration()
    x = np.resize(calib, (work.batch, *calib.shape[1:]))
    check(compiled(work.model(), tmp_path, work.grid, calib, work.batch), x, seed)


def test_a_work_of_another_grid_is_run_on_that(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran = []
    monkeypatch.setitem(globals(), "compiled", lambda *given: given)
    monkeypatch.setitem(globals(), "check", lambda given, x, seed: ran.append(given[2]))
    test_whole_at_full_size("resnet50_wide", None, tmp_path)
    assert ran == ["virtex6_wide"]
