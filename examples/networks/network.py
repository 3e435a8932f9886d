"""A network: called, it returns a model with weights; its ``blank`` returns the topology alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from onnx import ModelProto

from examples.networks.blank import Blank
from examples.networks.fill import fill


class Network:
    """``network(width=..., size=..., ..., seed=0)`` is a model in ONNX with seeded weights.

    ``blank(width=..., size=..., ...)`` is the same topology before the weights are drawn.
    """

    def __init__(self, topology: Callable[..., Blank]):
        functools.update_wrapper(self, topology)
        self.blank = topology

    def __call__(self, *args: Any, seed: int = 0, **options: Any) -> ModelProto:
        """Return the model; arguments as those of the topology, and the weights' ``seed``."""
        return fill(self.blank(*args, **options), seed)

    def preset(self, **options: Any) -> Network:
        """Return this network with other defaults."""
        return Network(functools.partial(self.blank, **options))


def network(topology: Callable[..., Blank]) -> Network:
    """Make a function that writes a topology into a :class:`Network`."""
    return Network(topology)
