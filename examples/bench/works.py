"""What is measured: networks, their inputs, and what others published for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from examples import digits, filter_bank
from examples.networks import NETWORKS, images

HERE = Path(__file__).resolve().parents[1]
Images = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Work:
    """One row: ``model`` and ``calibration`` (also the inputs) make what is compiled for ``grid``.

    ``batch``: images of a pass. ``rtl``: the Verilog runs it too, in ``make bench``; the others
    run there with ``--all``. ``again``: the network of a row above, on another grid or in another
    batch, of which SCALE-Sim knows nothing. ``published``: figures of others, never measured by us.
    """

    title: str
    model: Callable[[], onnx.ModelProto]
    calibration: Callable[[], Images]
    batch: int = 1
    grid: str = "virtex6"
    rtl: bool = False
    scale_sim: bool = False
    again: bool = False
    published: str = ""


def _network(name: str, title: str, **more: Any) -> tuple[str, Work]:
    network = NETWORKS[name]

    def model() -> onnx.ModelProto:
        return network()

    def calibration() -> Images:
        shape = network.blank().model.graph.input[0].type.tensor_type.shape.dim
        return images(tuple(d.dim_value or 1 for d in shape)[1:], 2, seed=1)

    return name, Work(title, model, calibration, **more)


def _lenet() -> onnx.ModelProto:
    return onnx.load(HERE / "lenet5_b.onnx")


def _digits() -> Images:
    return digits.load(32).train_x[:64]


WORKS: dict[str, Work] = dict(
    [
        ("lenet5_b", Work("LeNet-5 (b)", _lenet, _digits, rtl=True, scale_sim=True,
                          published="NNgen 1.3.4, 400 MACs: 19,642 cycles (int8), 22,386 (int16)")),
        ("lenet5_b64", Work("LeNet-5 (b), batch 64", _lenet, _digits, batch=64, rtl=True,
                            again=True)),
        ("filter_bank", Work("filter bank 500x500", filter_bank.filter_bank,
                             lambda: filter_bank.photo(500, 500), rtl=True,
                             published="neuFlow, Virtex-6: 182 frames/s")),
        _network("cn3", "CN3, 500x375", rtl=True, published="neuFlow, Virtex-6: 12 frames/s"),
        _network("cn3_norm", "CN3, 500x375, normalised", rtl=True,
                 published="neuFlow, Virtex-6: 12 frames/s"),
        _network("cn3_small", "CN3, 320x240", rtl=True),
        _network("resnet8", "ResNet-8", rtl=True, published="fpgaConvNet: 0.86 of its MACs"),
        _network("person_detection", "MobileNet 0.25, 96x96", rtl=True,
                 published="fpgaConvNet: 0.09 of its MACs"),
        _network("ds_cnn", "DS-CNN", rtl=True),
        _network("autoencoder", "autoencoder", rtl=True),
        _network("resnet20", "ResNet-20", rtl=True),
        _network("alexnet", "AlexNet, grouped", rtl=True, scale_sim=True,
                 published="Snowflake: 0.94 of its MACs, conv layers"),
        _network("resnet18", "ResNet-18", rtl=True),
        _network("resnet50", "ResNet-50", rtl=True,
                 published="Snowflake: 0.953 of its MACs"),
        ("resnet50_wide", _network("resnet50", "ResNet-50, `virtex6_wide`", grid="virtex6_wide",
                                   rtl=True, again=True, published="Snowflake: 0.953 of its MACs")[1]),
        _network("googlenet", "GoogLeNet", rtl=True,
                 published="Snowflake: 0.91 of its MACs, conv layers"),
        _network("vgg16", "VGG-16", rtl=True),
        _network("vgg19", "VGG-19", rtl=True),
        _network("densenet121", "DenseNet-121", rtl=True),
        _network("squeezenet", "SqueezeNet", rtl=True),
        _network("mobilenet", "MobileNet v1", rtl=True),
    ]
)  # fmt: skip
"""Rows of the bench, by name."""


def work_of(name: str) -> Work:
    """Return a work of the bench, or a network that it does not measure, as a work."""
    return WORKS[name] if name in WORKS else _network(name, name)[1]


GROWTH = ("alexnet", "resnet18", "vgg16")
"""Networks whose cost is shown over the number of MACs ..."""

GROWTH_GRIDS = ("cnp", "virtex6", "asic45_4grid")
"""... on these grids: 100, 400 and 1600 MACs."""

PAIRED = ("lenet5_b64", "resnet8", "filter_bank", "cn3_small")
"""Works that the Verilog also runs two at a time, to see what a second core brings."""

SILICON = "asic45"
"""Grid of the table of its own: as many MACs as ``virtex6``, more words a cycle, each way its own."""

SILICON_WORKS = tuple(name for name, work in WORKS.items() if work.grid == "virtex6")

SILICON_RTL = 20_000_000
"""Cycles up to which the Verilog runs a work there; all of them with ``--all``."""

SILICON_PUBLISHED = {"filter_bank": "neuFlow, 45 nm, after layout: 294 GOPS"}
"""As ``Work.published``, for that grid."""
