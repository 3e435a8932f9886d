"""Networks to measure with, as ONNX models with seeded weights; see ``NETWORKS``.

>>> from examples.networks import resnet18
>>> model = resnet18(width=0.25, size=64, seed=0)  # an onnx.ModelProto

``python -m examples.networks`` lists them and writes them to files.
"""

from __future__ import annotations

from typing import NamedTuple

from examples.networks.blank import Blank, NetworkError
from examples.networks.count import Cost, count
from examples.networks.fill import fill, images
from examples.networks.light import LIGHT
from examples.networks.mobilenet import mobilenet, person_detection
from examples.networks.network import Network
from examples.networks.resnet import resnet8, resnet18, resnet20
from examples.networks.scene import connection_table, scene_parser
from examples.networks.tiny import autoencoder, ds_cnn
from examples.networks.vgg import vgg16

NETWORKS: dict[str, Network] = {
    "resnet18": resnet18,
    "resnet20": resnet20,
    "vgg16": vgg16,
    "mobilenet": mobilenet,
    "resnet8": resnet8,
    "person_detection": person_detection,
    "ds_cnn": ds_cnn,
    "autoencoder": autoencoder,
    "cn3": scene_parser,
    "cn3_norm": scene_parser.preset(normalise=True),
    "cn3_small": scene_parser.preset(size=(240, 320)),
    "cn3_small_norm": scene_parser.preset(size=(240, 320), normalise=True),
    **LIGHT,
}
"""All networks by name, at their published size."""


class Row(NamedTuple):
    """A line of :func:`table`."""

    network: Network
    macs: int
    parameters: int


def table() -> dict[str, Row]:
    """Return every network with what it costs, counted on its graph (no weight is drawn)."""
    return {name: Row(network, *count(network.blank())) for name, network in NETWORKS.items()}


__all__ = [
    "LIGHT",
    "NETWORKS",
    "Blank",
    "Cost",
    "Network",
    "NetworkError",
    "Row",
    "autoencoder",
    "connection_table",
    "count",
    "ds_cnn",
    "fill",
    "images",
    "mobilenet",
    "person_detection",
    "resnet8",
    "resnet18",
    "resnet20",
    "scene_parser",
    "table",
    "vgg16",
]
