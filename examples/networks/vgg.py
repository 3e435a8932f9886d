"""VGG-16."""

from __future__ import annotations

from examples.networks.blank import Blank, Layers, Size, pair, scaled
from examples.networks.network import network


@network
def vgg16(width: float = 1.0, size: Size = 224, classes: int = 1000) -> Blank:
    """VGG-16 of Simonyan and Zisserman, "Very Deep Convolutional Networks", ICLR 2015, column D.

    13 convolutions 3x3 with bias, max pooling 2x2, three dense layers, Softmax. ``width`` also
    narrows the dense layers.
    """
    net = Layers("vgg16", (3, *pair(size)))
    x = "image"
    for stage, (maps, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), 1):
        for layer in range(1, depth + 1):
            name = f"{stage}_{layer}"
            x = net.conv(f"conv{name}", x, scaled(maps, width), 3, 1, 1, bias=True)
            x = net.each("Relu", f"relu{name}", x)
        x = net.pool("MaxPool", f"pool{stage}", x, 2, 2)
    x = net.flatten("flatten", x)
    for name in ("6", "7"):
        x = net.each("Relu", f"relu{name}", net.dense(f"fc{name}", x, scaled(4096, width)))
    return net.finish(net.each("Softmax", "softmax", net.dense("fc8", x, classes)))
