"""Real handwritten digits at LeNet's sizes, from the data that scikit-learn carries (no download).

scikit-learn holds 1,797 digits of 8x8 pixels, ink 0 to 16. Each is enlarged by three (cubic
spline) to 24x24 and centred on a blank square, as LeNet's own inputs were: a border of 2 pixels
for 28x28, of 4 for 32x32. Pixels are in [0, 1]: 0 is paper, so that a zero pad is paper too,
and 1 is full ink.

The split is random over digits, stratified by class. The data do not say who wrote which digit,
so one writer's digits are on both sides: an accuracy here is one for known writers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SPLIT_SEED = 1990
HELD_OUT = 400
_ZOOM = 3
_SOURCE = 8
_FULL_INK = 16.0


@dataclass(frozen=True)
class Digits:
    """Digits for training, and digits held out to measure with.

    Attributes
    ----------
    train_x, test_x : images, float32 [N, 1, S, S], 0 (paper) to 1 (full ink).
    train_y, test_y : the digits' values, int64 [N], 0 to 9.
    """

    train_x: NDArray[np.float32]
    train_y: NDArray[np.int64]
    test_x: NDArray[np.float32]
    test_y: NDArray[np.int64]


def enlarge(images: NDArray[np.float64], size: int) -> NDArray[np.float32]:
    """Enlarge 8x8 digits to 24x24 and centre them on blank squares.

    Parameters
    ----------
    images : ink, float64 [N, 8, 8], 0 to 16.
    size : side of the result in pixels; even, at least 24.

    Returns
    -------
    float32 [N, 1, size, size], 0 to 1.
    """
    side = _SOURCE * _ZOOM
    if size < side or size % 2:
        raise ValueError(f"digits: size {size}; it must be even and at least {side}")
    fine = ndimage.zoom(images, (1, _ZOOM, _ZOOM), order=3, mode="nearest", grid_mode=True)
    # A cubic spline overshoots next to an edge: clip, so that the range is exactly [0, 1].
    ink = np.clip(fine / _FULL_INK, 0.0, 1.0).astype(np.float32)
    border = (size - side) // 2
    return np.pad(ink, ((0, 0), (border, border), (border, border)))[:, None]


def load(size: int) -> Digits:
    """Load all 1,797 digits: 1,397 to train with and 400 held out, always the same ones.

    Parameters
    ----------
    size : side of an image in pixels; even, at least 24 (LeNet's are 28 and 32).
    """
    source = load_digits()
    images = enlarge(source.images, size)
    labels = source.target.astype(np.int64)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=HELD_OUT, random_state=SPLIT_SEED, stratify=labels
    )
    return Digits(train_x, train_y, test_x, test_y)
