"""Whole networks in the Verilog: words == golden, and everything measured == the cycle judge.

``make test`` runs every topology, narrow and small, on ``tiny``; ``make nightly`` runs all works of
the bench at full size on ``virtex6`` (``-k ds_cnn`` for one of them) and says how long each took.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from examples.bench.works import WORKS
from examples.networks import NETWORKS, images
from neuflow import api
from tests.test_networks import REDUCED, dims

SMALL: dict[str, dict[str, Any]] = {
    "resnet18": {"width": 0.125, "size": 32},
    "resnet20": {"width": 0.25, "size": 16},
    "vgg16": {"width": 0.0625, "size": 32},
    "mobilenet": {"width": 0.125, "size": 32},
    "resnet8": {"width": 0.5, "size": 16},
    "person_detection": {"width": 0.125, "size": 32},
    "ds_cnn": {"width": 0.25, "size": (25, 10)},
    "autoencoder": {"width": 0.5, "size": 80},
    "cn3": {"width": 0.25, "size": (92, 92)},
    "alexnet": {"width": 0.0625, "size": 80},
    "densenet121": {"width": 0.125, "size": 32},
    "googlenet": {"width": 0.125, "size": 64},
    "inception_v2": {"width": 0.125, "size": 32},
    "resnet50": {"width": 0.125, "size": 32},
    "squeezenet": {"width": 0.125, "size": 32},
    "vgg19": {"width": 0.0625, "size": 32},
    "zfnet512": {"width": 0.0625, "size": 80},
}


def compiled(model: ModelProto, folder: Path, grid: str, calib: Any, batch: int = 1) -> api.Program:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return api.compile(path, grid, calib=calib, batch=batch)


def check(program: api.Program, x: Any) -> None:
    """Run the three judges."""
    golden = program.golden(x)
    begin = time.monotonic()
    rtl = program.rtl(x)
    seconds = time.monotonic() - begin
    cycle = program.cycle(x)
    print(f"{program.name}: {rtl.stats['cycles']:,} cycles in {seconds:.1f} s, build included")
    for name, words in golden.words.items():
        assert np.array_equal(rtl.words[name], words), f"rtl: {name}"
        assert np.array_equal(cycle.words[name], words), f"cycle: {name}"
    assert {**cycle.stats, "judge": "rtl"} == rtl.stats
    assert sum(layer["cycles"] for layer in rtl.stats["layers"]) == rtl.stats["cycles"]


def test_every_topology_is_run() -> None:
    """Of the scene parser one size; its normalisation takes too long on so few MACs."""
    assert set(NETWORKS) - set(SMALL) == {"cn3_norm", "cn3_small", "cn3_small_norm"}


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


@pytest.mark.rtl
@pytest.mark.nightly
@pytest.mark.xdist_group("virtex6")
@pytest.mark.parametrize("name", WORKS)
def test_whole_on_virtex6(name: str, tmp_path: Path) -> None:
    work = WORKS[name]
    calib = work.calibration()
    x = np.resize(calib, (work.batch, *calib.shape[1:]))
    check(compiled(work.model(), tmp_path, "virtex6", calib, work.batch), x)
