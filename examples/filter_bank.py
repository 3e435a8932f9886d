"""The filter-bank benchmark: 4 maps in, 4 maps out, 16 kernels of 10x10, over a 500x500 image.

Weights are Gabor patches, inputs are a photograph. Each kernel's absolute sum is ``KERNEL_SUM``
(8), so an input in [-1, 1) gives outputs, and partial sums in any order, within 4 * 8 = 32 in
magnitude: far inside the +-128 of a 16-bit word with 8 fractional bits.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from scipy import ndimage
from sklearn.datasets import load_sample_image

MAPS = 4
KERNEL = 10
KERNEL_SUM = 8.0
SEED = 500
# An even kernel has no centre. Top, left, bottom, right: the output is as large as the input.
PADS = (4, 4, 5, 5)
OPSET = 18
IR_VERSION = 8
_LUMA = (0.299, 0.587, 0.114)


def _gabor(angle: float, wavelength: float, phase: float) -> NDArray[np.float64]:
    """Return one Gabor patch [10, 10] whose absolute values sum to ``KERNEL_SUM``.

    ``angle`` (of the wave's direction) and ``phase`` are in radians, ``wavelength`` in pixels.
    """
    at = np.arange(KERNEL) - (KERNEL - 1) / 2
    y, x = np.meshgrid(at, at, indexing="ij")
    along = x * np.cos(angle) + y * np.sin(angle)
    envelope = np.exp(-(x**2 + y**2) / (2 * (KERNEL / 4) ** 2))
    patch = envelope * np.cos(2 * np.pi * along / wavelength + phase)
    return np.asarray(patch * (KERNEL_SUM / np.abs(patch).sum()), np.float64)


def kernels() -> NDArray[np.float32]:
    """Return the 16 kernels [map out, map in, row, column]: 16 angles, seeded wavelength, phase."""
    rng = np.random.default_rng(SEED)
    count = MAPS * MAPS
    wavelengths = rng.uniform(4.0, 9.0, count)
    phases = rng.uniform(0.0, 2 * np.pi, count)
    bank = [_gabor(np.pi * k / count, wavelengths[k], phases[k]) for k in range(count)]
    return np.stack(bank).reshape(MAPS, MAPS, KERNEL, KERNEL).astype(np.float32)


def filter_bank(height: int = 500, width: int = 500) -> onnx.ModelProto:
    """Build the benchmark as an ONNX model: one Conv without bias.

    Parameters
    ----------
    height, width : size in pixels of the input "image" and of the output "maps", each
        float32 [1, 4, height, width].
    """
    shape = [1, MAPS, height, width]
    conv = helper.make_node(
        "Conv",
        ["image", "kernels"],
        ["maps"],
        name="filter_bank",
        kernel_shape=[KERNEL, KERNEL],
        pads=list(PADS),
        strides=[1, 1],
    )
    graph = helper.make_graph(
        [conv],
        "filter_bank",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("maps", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(kernels(), "kernels")],
    )
    # Fixed versions: the newest that the onnx package knows may be too new for a runtime.
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


def photo(height: int, width: int, name: str = "china.jpg") -> NDArray[np.float32]:
    """Return one of scikit-learn's photographs as four maps: red, green, blue and luma.

    The middle of the photograph with the wanted proportions is zoomed to size (bilinear).
    Reading it needs Pillow.

    Parameters
    ----------
    height, width : size of the result in pixels.
    name : "china.jpg" or "flower.jpg"; each is 427x640.

    Returns
    -------
    float32 [1, 4, height, width] in [-1, 1): ``byte / 128 - 1``.
    """
    pixels = _middle(load_sample_image(name), height, width).astype(np.float64) / 128 - 1
    factors = (height / pixels.shape[0], width / pixels.shape[1], 1)
    # Bilinear: it never leaves the range of its input.
    sized = ndimage.zoom(pixels, factors, order=1, mode="nearest", grid_mode=True)
    maps = np.concatenate([sized, (sized @ np.array(_LUMA))[..., None]], axis=2)
    return np.ascontiguousarray(maps.transpose(2, 0, 1)[None], np.float32)


def _middle(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return the largest middle part of ``pixels`` [H, W, 3] with proportions height:width."""
    rows, columns = pixels.shape[:2]
    scale = min(rows / height, columns / width)
    high, wide = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (rows - high) // 2, (columns - wide) // 2
    return pixels[top : top + high, left : left + wide]
