"""The networks narrow and small: one table for all tests of whole networks."""

from __future__ import annotations

import functools
from typing import Any

from onnx import ModelProto, ValueInfoProto

from examples.networks import NETWORKS

CN3 = {"width": 0.25, "size": (96, 104)}
REDUCED: dict[str, dict[str, Any]] = {
    "resnet18": {"width": 0.25, "size": 64},
    "resnet20": {"width": 0.25, "size": 16},
    "vgg16": {"width": 0.125, "size": 32},
    "mobilenet": {"width": 0.25, "size": 64},
    "resnet8": {"width": 0.5, "size": 16},
    "person_detection": {"width": 0.125, "size": 64},
    "ds_cnn": {"width": 0.25, "size": (25, 10)},
    "autoencoder": {"width": 0.5, "size": 80},
    "cn3": CN3,
    "cn3_norm": CN3,
    "cn3_small": CN3,
    "cn3_small_norm": CN3,
    "alexnet": {"width": 0.125, "size": 96},
    "densenet121": {"width": 0.125, "size": 64},
    "googlenet": {"width": 0.125, "size": 64},
    "inception_v2": {"width": 0.125, "size": 64},
    "resnet50": {"width": 0.125, "size": 64},
    "squeezenet": {"width": 0.125, "size": 64},
    "vgg19": {"width": 0.125, "size": 32},
    "zfnet512": {"width": 0.125, "size": 96},
}
"""Name -> what its function is called with. Large enough for values to be like the full size's."""

_SMALLER: dict[str, dict[str, Any]] = {
    "resnet18": {"width": 0.125, "size": 32},
    "vgg16": {"width": 0.0625},
    "mobilenet": {"width": 0.125, "size": 32},
    "person_detection": {"size": 32},
    "cn3": {"size": (92, 92)},
    "alexnet": {"width": 0.0625, "size": 80},
    "densenet121": {"size": 32},
    "inception_v2": {"size": 32},
    "resnet50": {"size": 32},
    "squeezenet": {"size": 32},
    "vgg19": {"width": 0.0625},
    "zfnet512": {"width": 0.0625, "size": 80},
}
NOT_IN_RTL = ("cn3_norm", "cn3_small", "cn3_small_norm")
"""Of the scene parser one size is enough; its normalisation takes too long on so few MACs."""

SMALL = {
    name: reduced | _SMALLER.get(name, {})
    for name, reduced in REDUCED.items()
    if name not in NOT_IN_RTL
}
"""The same for the Verilog of ``tiny``, which takes its time."""


@functools.cache
def model_of(name: str) -> ModelProto:
    """Return a reduced network; callers leave it as it is."""
    return NETWORKS[name](**REDUCED[name])


def dims(value: ValueInfoProto) -> tuple[int, ...]:
    """Return a declared shape."""
    return tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
