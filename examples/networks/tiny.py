"""The two networks of MLPerf Tiny that look at sound: DS-CNN and the dense autoencoder."""

from __future__ import annotations

from examples.networks.blank import Blank, Layers, Size, pair, scaled
from examples.networks.network import network


@network
def ds_cnn(width: float = 1.0, size: Size = (49, 10), classes: int = 12) -> Blank:
    """DS-CNN of MLPerf Tiny (Banbury et al. 2021): keyword spotting, from Zhang et al.,
    "Hello Edge", arXiv:1711.07128.

    As the reference code in Keras (mlcommons/tiny, keyword spotting): a 10x4 convolution of stride
    2 on 49 frames of 10 coefficients, SAME padding (4 zeros above, 5 below), four depthwise
    separable blocks of 64 maps, all with bias and BatchNormalization. ``size``: frames,
    coefficients.
    """
    net = Layers("ds_cnn", (1, *pair(size)))
    maps = scaled(64, width)

    def layer(name: str, x: str, kernel: tuple[int, int], stride: int = 1, groups: int = 1) -> str:
        x = net.conv(f"{name}.conv", x, maps, kernel, stride, "same", groups, bias=True)
        return net.each("Relu", name, net.batch_norm(f"{name}.bn", x, 1e-3))

    x = layer("conv1", "image", (10, 4), 2)
    for index in range(1, 5):
        x = layer(f"depthwise{index}", x, (3, 3), groups=maps)
        x = layer(f"pointwise{index}", x, (1, 1))
    extent = (net.shapes[x][1], net.shapes[x][2])
    x = net.pool("AveragePool", "pool", x, extent, extent)
    x = net.dense("fc", net.flatten("flatten", x), classes)
    return net.finish(net.each("Softmax", "softmax", x))


@network
def autoencoder(width: float = 1.0, size: int = 640) -> Blank:
    """Dense autoencoder of MLPerf Tiny (Banbury et al. 2021): anomaly detection in machine sound.

    As the reference code in Keras (mlcommons/tiny, anomaly detection, from DCASE 2020 task 2):
    640 - 128 x 4 - 8 - 128 x 4 - 640, BatchNormalization and ReLU after all but the last. ``size``:
    the number of inputs and outputs; ``width`` narrows the hidden layers.
    """
    net = Layers("autoencoder", (size,))
    x = "image"
    for index, units in enumerate((128, 128, 128, 128, 8, 128, 128, 128, 128), start=1):
        x = net.dense(f"fc{index}", x, scaled(units, width))
        x = net.each("Relu", f"relu{index}", net.batch_norm(f"bn{index}", x, 1e-3))
    return net.finish(net.dense("fc10", x, size))
