"""MobileNet v1: for ImageNet, and as MLPerf Tiny detects persons with it."""

from __future__ import annotations

from examples.networks.blank import Blank, Layers, Size, pair, scaled
from examples.networks.network import network

BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2),
          (1024, 1))  # fmt: skip
"""Of each depthwise separable block: maps, stride."""


@network
def mobilenet(width: float = 1.0, size: Size = 224, classes: int = 1000) -> Blank:
    """MobileNet v1 of Howard et al., "MobileNets", arXiv:1704.04861, table 1.

    As TensorFlow's slim builds it: SAME padding (at stride 2 one zero at the end only, for even
    sizes), no biases, ReLU6 after each BatchNormalization, average pooling, Softmax.
    """
    net = Layers("mobilenet", (3, *pair(size)))
    x = _features(net, width, bias=False)
    x = net.dense("fc", net.flatten("flatten", net.global_pool("pool", x)), classes)
    return net.finish(net.each("Softmax", "softmax", x))


@network
def person_detection(width: float = 0.25, size: Size = 96, classes: int = 2) -> Blank:
    """MobileNet v1 0.25 at 96x96 of MLPerf Tiny (Banbury et al. 2021): visual wake words.

    As the reference code in Keras (mlcommons/tiny, ``vww_model.py``): biases in all convolutions,
    plain ReLU, AveragePool over the whole map.
    """
    net = Layers("person_detection", (3, *pair(size)))
    x = _features(net, width, bias=True)
    extent = net.shapes[x][1:]
    x = net.pool("AveragePool", "pool", x, (extent[0], extent[1]), (extent[0], extent[1]))
    x = net.dense("fc", net.flatten("flatten", x), classes)
    return net.finish(net.each("Softmax", "softmax", x))


def _features(net: Layers, width: float, bias: bool) -> str:
    """Add all convolutions; plain ReLU goes with biases, ReLU6 without."""

    def layer(name: str, x: str, maps: int, kernel: int, stride: int, groups: int = 1) -> str:
        x = net.conv(f"{name}.conv", x, maps, kernel, stride, "same", groups, bias)
        x = net.batch_norm(f"{name}.bn", x, 1e-3)
        return net.each("Relu", name, x) if bias else net.clip(name, x, 0.0, 6.0)

    x = layer("conv1", "image", scaled(32, width), 3, 2)
    for index, (maps, stride) in enumerate(BLOCKS, start=1):
        channels = net.shapes[x][0]
        x = layer(f"depthwise{index}", x, channels, 3, stride, channels)
        x = layer(f"pointwise{index}", x, scaled(maps, width), 1, 1)
    return x
