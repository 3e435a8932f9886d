"""Picture: digits with what they were taken for."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from neuflow.report.drawing import BLUE, VERMILLION, matplotlib_defaults, new_figure


def digits_figure(
    images: ArrayLike, predicted: ArrayLike, labels: ArrayLike, title: str, across: int = 20
) -> Figure:
    """Draw digits with what they were taken for; the wrong ones framed, with the true value.

    Parameters
    ----------
    images : ink [N, 1, S, S], 0 (paper) to 1.
    predicted, labels : digits [N].
    across : digits of a row.
    """
    pixels, guess, true = np.asarray(images), np.asarray(predicted), np.asarray(labels)
    if not len(pixels) == len(guess) == len(true) or not len(pixels):
        raise ValueError(f"{len(pixels)} images, {len(guess)} predictions, {len(true)} labels")
    across = min(across, len(pixels))
    down = -(-len(pixels) // across)
    side, cell = pixels.shape[-1], pixels.shape[-1] + 16
    with matplotlib_defaults():
        width = max(6.0, across * 0.52)
        figure = new_figure(width, down * 0.52 * width / (across * 0.52) + 0.75)
        axes = figure.add_axes((0.01, 0.32 / figure.get_figheight(), 0.98,
                                1 - 0.75 / figure.get_figheight()))  # fmt: skip
        axes.imshow(_mosaic(pixels, across, cell), cmap="gray_r", vmin=0, vmax=1)
        axes.axis("off")
        axes.set(xlim=(-8, across * cell - 8), ylim=(down * cell - 1, -4))
        for index, (got, want) in enumerate(zip(guess, true, strict=True)):
            x, y = index % across * cell, index // across * cell
            right = got == want
            text = f"{got}" if right else f"{got}, is {want}"
            axes.text(x + side / 2, y + side + 8, text, ha="center", va="center", fontsize=9,
                      color=BLUE if right else VERMILLION, weight="bold")  # fmt: skip
            if not right:
                axes.add_patch(Rectangle((x - 1, y - 1), side + 1, side + 1, fill=False,
                                         edgecolor=VERMILLION, linewidth=2))  # fmt: skip
        figure.suptitle(title, fontsize=12, y=1 - 0.1 / figure.get_figheight(), va="top")
        wrong = int((guess != true).sum())
        note = "blue: the prediction, right" + (
            f".  vermillion, framed: {wrong} wrong, with the true digit" if wrong else ""
        )
        figure.text(0.5, 0.1 / figure.get_figheight(), note, ha="center", va="bottom", fontsize=9)
    return figure


def _mosaic(pixels: NDArray[Any], across: int, cell: int) -> NDArray[np.float64]:
    """Return all images on one sheet of square cells."""
    side = pixels.shape[-1]
    sheet = np.zeros((-(-len(pixels) // across) * cell, across * cell))
    for index, image in enumerate(pixels):
        x, y = index % across * cell, index // across * cell
        sheet[y : y + side, x : x + side] = image.reshape(side, side)
    return sheet
