"""The street-scene parser CN3 of the NeuFlow paper, and its connection tables.

Farabet et al., "NeuFlow: A Runtime Reconfigurable Dataflow Processor for Vision", ECVW 2011,
table 3. Where the paper contradicts itself we read it so:

- 48 kernels in the first layer are 12 maps x 4 inputs, though it lists three input maps. The
  total of 3.7 GMAC needs all 48, so there are four: luma (to be normalised), luma, and the two
  colour differences U and V.
- 960 weights in the classifier: 20 classes of 128 maps need 2560, which we take.
- 500x375 is width x height; 103x71 is the extent after the last convolution (a figure of the paper
  says 101x71).
- Maps are normalised with zeros beyond the border, window and threshold are not given: 9x9, 0.1.
"""

from __future__ import annotations

import numpy as np

from examples.networks.blank import Blank, Layers, Size, Table, pair, scaled
from examples.networks.network import network

MAPS_IN = 4
KERNEL = 9
THRESHOLD = 0.1
"""Deviations below this are taken as this; inputs are in [-1, 1)."""


def connection_table(outputs: int, inputs: int, each: int, seed: int = 0) -> Table:
    """Return which inputs each output reads, bool [outputs, inputs], as Torch's ``tables.random``.

    Inputs are shuffled and dealt, ``each`` (or all, if there are fewer) to an output, and shuffled
    again when too few are left: where ``each`` divides ``inputs``, all are read equally often, up
    to one.
    """
    rng = np.random.default_rng([seed, outputs, inputs, each])
    each = min(each, inputs)
    hands = inputs // each
    table = np.zeros((outputs, inputs), bool)
    for output, row in enumerate(table):
        if output % hands == 0:
            deck = rng.permutation(inputs)
        hand = output % hands
        row[deck[hand * each : (hand + 1) * each]] = True
    return table


@network
def scene_parser(
    width: float = 1.0,
    size: Size = (375, 500),
    classes: int = 20,
    normalise: bool = False,
    pool: str = "MaxPool",
    table_seed: int = 0,
) -> Blank:
    """CN3: four 9x9 convolutions with tanh, two 2x2 poolings, a classifier at every place.

    Parameters
    ----------
    width : of all maps but inputs and classes; outputs read 8 inputs, or all if there are fewer.
    size : height, width of the four input maps in pixels.
    normalise : begin with local normalisation of the luma (subtractive, then divisive).
    pool : "MaxPool" as in the paper's table, or "AveragePool".
    table_seed : of the connection table of the last convolution: 128 x 8 of 48 inputs.
    """
    net = Layers("scene_parser", (MAPS_IN, *pair(size)))
    x = _normalised(net, "image") if normalise else "image"
    for index, maps in enumerate((12, 32, 48, 128)):
        maps, name = scaled(maps, width), f"c{(1, 3, 5, 6)[index]}"
        table = connection_table(maps, net.shapes[x][0], 8, table_seed) if index == 3 else None
        x = net.conv(name, x, maps, KERNEL, bias=True, table=table)
        x = net.each("Tanh", f"{name}.tanh", x)
        if index < 2:
            x = net.pool(pool, f"p{(2, 4)[index]}", x, 2, 2)
    return net.finish(net.conv("linear", x, classes, 1, bias=True))


def _normalised(net: Layers, x: str) -> str:
    """Normalise map 0 by its Gaussian neighbourhood; the other maps pass unchanged.

    All four maps go through the same operations, so that none has to be cut out: a map without a
    kernel has mean 0 and, by its bias, variance 1.
    """
    at = np.arange(KERNEL) - KERNEL // 2
    bell = np.exp(-(at**2) / (2 * (KERNEL / 4) ** 2))
    kernels = np.zeros((MAPS_IN, MAPS_IN, KERNEL, KERNEL), np.float32)
    kernels[0, 0] = np.outer(bell, bell) / bell.sum() ** 2
    mean = net.conv("n0.mean", x, MAPS_IN, KERNEL, 1, KERNEL // 2, weight=kernels)
    centred = net.each("Sub", "n0.centred", x, mean)
    square = net.each("Mul", "n0.square", centred, centred)
    one = np.array([0, 1, 1, 1], np.float32)
    variance = net.conv(
        "n0.variance", square, MAPS_IN, KERNEL, 1, KERNEL // 2, bias=one, weight=kernels
    )
    floor = net.clip("n0.floor", variance, THRESHOLD**2)
    return net.each("Div", "n0", centred, net.each("Sqrt", "n0.deviation", floor))
