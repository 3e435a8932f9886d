"""Residual networks: ResNet-18 for ImageNet, ResNet-20 for CIFAR-10, ResNet-8 of MLPerf Tiny."""

from __future__ import annotations

import numpy as np

from examples.networks.blank import Blank, Layers, Size, pair, scaled
from examples.networks.network import network


@network
def resnet18(width: float = 1.0, size: Size = 224, classes: int = 1000) -> Blank:
    """ResNet-18 of He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, table 1.

    Projection shortcuts (option B), BatchNormalization after each convolution and before the
    addition, as in the paper and torchvision; the output is the logits.
    """
    net = Layers("resnet18", (3, *pair(size)))
    x = net.conv("conv1", "image", scaled(64, width), 7, 2, 3)
    x = net.each("Relu", "relu1", net.batch_norm("bn1", x))
    x = net.pool("MaxPool", "pool1", x, 3, 2, 1)
    for stage, maps in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            stride = 2 if stage > 1 and block == 0 else 1
            x = _block(net, f"layer{stage}.{block}", x, scaled(maps, width), stride)
    x = net.flatten("flatten", net.global_pool("pool", x))
    return net.finish(net.dense("fc", x, classes))


def _block(net: Layers, name: str, x: str, maps: int, stride: int) -> str:
    y = net.conv(f"{name}.conv1", x, maps, 3, stride, 1)
    y = net.each("Relu", f"{name}.relu1", net.batch_norm(f"{name}.bn1", y))
    y = net.batch_norm(f"{name}.bn2", net.conv(f"{name}.conv2", y, maps, 3, 1, 1))
    if stride > 1:
        x = net.conv(f"{name}.short", x, maps, 1, stride)
        x = net.batch_norm(f"{name}.short.bn", x)
    return net.each("Relu", f"{name}.relu2", net.each("Add", f"{name}.add", y, x))


@network
def resnet20(width: float = 1.0, size: Size = 32, classes: int = 10) -> Blank:
    """ResNet-20 for CIFAR-10 of He et al. 2016, section 4.2: n = 3 blocks of 16, 32, 64 maps.

    Shortcuts are the paper's option A there: every second pixel, new maps zero. In ONNX that is a
    1x1 Conv of stride 2 whose kernels are 1 from map k to map k, and zero elsewhere.
    """
    net = Layers("resnet20", (3, *pair(size)))
    x = net.conv("conv1", "image", scaled(16, width), 3, 1, 1)
    x = net.each("Relu", "relu1", net.batch_norm("bn1", x))
    for stage, maps in enumerate((16, 32, 64), start=1):
        for block in range(3):
            stride = 2 if stage > 1 and block == 0 else 1
            x = _block_a(net, f"layer{stage}.{block}", x, scaled(maps, width), stride)
    x = net.flatten("flatten", net.global_pool("pool", x))
    return net.finish(net.dense("fc", x, classes))


def _block_a(net: Layers, name: str, x: str, maps: int, stride: int) -> str:
    y = net.conv(f"{name}.conv1", x, maps, 3, stride, 1)
    y = net.each("Relu", f"{name}.relu1", net.batch_norm(f"{name}.bn1", y))
    y = net.batch_norm(f"{name}.bn2", net.conv(f"{name}.conv2", y, maps, 3, 1, 1))
    if stride > 1:
        identity = np.eye(maps, net.shapes[x][0], dtype=np.float32)[:, :, None, None]
        x = net.conv(f"{name}.short", x, maps, 1, stride, weight=identity)
    return net.each("Relu", f"{name}.relu2", net.each("Add", f"{name}.add", y, x))


@network
def resnet8(width: float = 1.0, size: Size = 32, classes: int = 10) -> Blank:
    """ResNet-8 of MLPerf Tiny (Banbury et al., NeurIPS 2021): image classification, CIFAR-10.

    As the reference code in Keras (mlcommons/tiny, image_classification, ``resnet_v1_eembc`` with
    16 filters): convolutions with bias, TensorFlow's SAME padding (at stride 2 one zero at the
    end only), shortcuts without BatchNormalization, average pooling over the whole map.
    """
    net = Layers("resnet8", (3, *pair(size)))
    x = net.conv("conv1", "image", scaled(16, width), 3, 1, "same", bias=True)
    x = net.each("Relu", "relu1", net.batch_norm("bn1", x, 1e-3))
    for stage, maps in enumerate((16, 32, 64), start=1):
        name, stride, maps = f"stack{stage}", 2 if stage > 1 else 1, scaled(maps, width)
        y = net.conv(f"{name}.conv1", x, maps, 3, stride, "same", bias=True)
        y = net.each("Relu", f"{name}.relu1", net.batch_norm(f"{name}.bn1", y, 1e-3))
        y = net.conv(f"{name}.conv2", y, maps, 3, 1, "same", bias=True)
        y = net.batch_norm(f"{name}.bn2", y, 1e-3)
        if stride > 1:
            x = net.conv(f"{name}.short", x, maps, 1, stride, "same", bias=True)
        x = net.each("Relu", f"{name}.relu2", net.each("Add", f"{name}.add", x, y))
    extent = min(net.shapes[x][1:])
    x = net.pool("AveragePool", "pool", x, extent, extent)
    x = net.dense("fc", net.flatten("flatten", x), classes)
    return net.finish(net.each("Softmax", "softmax", x))
